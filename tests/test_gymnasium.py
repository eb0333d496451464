"""The adapter of gymnasium, on gymnasium itself: spaces, values, the three ways to reset, evaluation."""

import doctest
import functools
import importlib
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import SPACES, config
from policy_core_adapters import gymnasium as adapter
from policy_core_adapters import numpy_runner

import policy_core as pc

gymnasium = pytest.importorskip("gymnasium", reason="gymnasium is not installed")
from gymnasium import spaces  # noqa: E402
from gymnasium_environments import MODES, Counter, Everything, Masked, vector  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("default"),  # other people's warnings are theirs
    pytest.mark.usefixtures("unchecked", "lenient"),
]

THEIRS = {
    "Discrete with start": (spaces.Discrete(3, start=1), pc.Discrete(3, start=1)),
    "MultiDiscrete of rank 2": (
        spaces.MultiDiscrete([[2, 3], [4, 5]], start=[[0, 1], [2, 3]]),
        pc.MultiDiscrete((2, 3, 4, 5), shape=(2, 2), start=(0, 1, 2, 3)),
    ),
    "MultiBinary of a number": (spaces.MultiBinary(5), pc.MultiBinary(5)),
    "MultiBinary of a shape": (spaces.MultiBinary([2, 3]), pc.MultiBinary((2, 3))),
    "Box with bounds by entry": (
        spaces.Box(np.array([-1, -np.inf]), np.array([np.inf, 2.5]), dtype=np.float64),
        pc.Box(low=(-1.0, -np.inf), high=(np.inf, 2.5), shape=(2,), dtype="float64"),
    ),
    "Box of bool": (spaces.Box(0, 1, (2, 3), bool), pc.MultiBinary((2, 3))),
    "Box of uint8": (
        spaces.Box(0, 255, (4, 4, 3), np.uint8),
        pc.Box(low=0, high=255, shape=(4, 4, 3), dtype="uint8"),
    ),
    "Box of int64": (
        spaces.Box(-3, np.inf, (2,), np.int64),
        pc.Box(low=-3, high=float(2**63), shape=(2,), dtype="int64"),
    ),
    "nested": (
        spaces.Dict({"b": spaces.Tuple([spaces.Discrete(2), spaces.Dict({})]), "a": spaces.MultiBinary(1)}),
        pc.Dict({"b": pc.Tuple((pc.Discrete(2), pc.Dict({}))), "a": pc.MultiBinary(1)}),
    ),
}

# SPACES --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", THEIRS)
def test_a_space_of_theirs_is_read(name: str) -> None:
    theirs, ours = THEIRS[name]
    assert adapter.space_of(theirs) == ours
    if name != "Box of bool":  # which has another name here
        assert adapter.to_gymnasium(ours) == theirs


@pytest.mark.parametrize("name", [name for name in SPACES if name != "box bfloat16"])
def test_a_space_of_ours_goes_there_and_back_with_its_elements(name: str) -> None:
    ours = SPACES[name]
    theirs = adapter.to_gymnasium(ours)
    if name == "box int32":  # has an infinite bound, there that of the dtype
        ours = pc.Box(low=-7, high=2**31 - 1, shape=(2,), dtype="int32")
        assert SPACES[name].bounds()[1].tolist() == [2**31 - 1] * 2
    assert adapter.space_of(theirs) == ours
    theirs.seed(0)
    for seed in range(3):
        assert ours.contains(adapter.to_observation(ours, theirs.sample()))
        assert theirs.contains(adapter.to_action(theirs, ours.sample(key=jax.random.key(seed))))


@pytest.mark.parametrize(
    "space",
    [
        spaces.Text(3),
        spaces.Graph(spaces.Discrete(2), None),
        spaces.Sequence(spaces.Discrete(2)),
        spaces.OneOf([spaces.Discrete(2), spaces.Discrete(3)]),
    ],
    ids=lambda space: type(space).__name__,
)
def test_spaces_without_arrays_of_one_shape_are_refused_by_name(space: Any) -> None:
    name = type(space).__name__
    with pytest.raises(pc.errors.ConfigError, match=rf"^space\['a'\]\[1\]: got {name}, expected Discrete, "):
        adapter.space_of(spaces.Dict({"a": spaces.Tuple([spaces.Discrete(2), space])}))


def test_what_has_no_counterpart_is_refused() -> None:
    with pytest.raises(pc.errors.ConfigError, match="got a Box of bfloat16, which NumPy lacks; use float32"):
        adapter.to_gymnasium(pc.Box(dtype="bfloat16"))
    with pytest.raises(pc.errors.ConfigError, match=r"got Discrete, expected Discrete.* of policy_core"):
        adapter.to_gymnasium(spaces.Discrete(2))
    with pytest.raises(pc.errors.ConfigError, match="got the key 1, expected strings"):
        adapter.space_of(spaces.Dict({1: spaces.Discrete(2)}))


def test_nothing_is_imported_with_the_adapter() -> None:
    script = (
        "import sys, policy_core_adapters.gymnasium; print('gymnasium' in sys.modules, 'rich' in sys.modules)"
    )
    root = Path(__file__).parent.parent
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=root, env={"PYTHONPATH": f"{root}:{root}/adapters"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert run.stdout == "False False\n"


@pytest.mark.parametrize("module", ["spaces", "values", "vector", "pure", "evaluation"])
def test_docstring_examples_run(module: str) -> None:
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    found = importlib.import_module(f"policy_core_adapters.gymnasium.{module}")
    for example in doctest.DocTestFinder(exclude_empty=True).find(found, globs={}):
        runner.run(example)
    assert runner.summarize().failed == 0


# VALUES --------------------------------------------------------------------------------------

VALUED = pc.Dict({"a": pc.Tuple((pc.Discrete(3), pc.Box(shape=(2,)))), "b": pc.Box(dtype="uint8")})


def test_observations_get_our_containers_and_dtypes_in_copies() -> None:
    array = np.array([1.0, 2.0])
    got = adapter.to_observation(VALUED, OrderedDict(b=np.int64(7), a=[np.int64(2), array]))
    assert type(got) is dict
    assert type(got["a"]) is tuple
    assert [leaf.dtype for leaf in jax.tree.leaves(got)] == ["int32", "float32", "uint8"]
    array[:] = 0
    np.testing.assert_array_equal(got["a"][1], [1.0, 2.0])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": (0, [0, 0])}, r"^observation: got keys \['a'\], expected a mapping with keys \['a', 'b'\]"),
        ({"a": (0,), "b": 0}, r"^observation\['a'\]: got 1 parts, expected a tuple or list of 2 parts"),
        ({"a": (0, [0, 0, 0]), "b": 0}, r"^observation\['a'\]\[1\]: got shape \(3,\), expected \(2,\)"),
        ({"a": (0, [0, 0]), "b": 256}, r"^observation\['b'\]: got int64 that uint8 cannot hold"),
        ({"a": (0.5, [0, 0]), "b": 0}, r"^observation\['a'\]\[0\]: got float64 that int32 cannot hold"),
        ({"a": (None, [0, 0]), "b": 0}, r"^observation\['a'\]\[0\]: got NoneType that is no array"),
        ({"a": (0, [[0], [0, 1]]), "b": 0}, r"^observation\['a'\]\[1\]: got list that is no array"),
    ],
)
def test_observations_that_do_not_fit_are_refused(value: Any, message: str) -> None:
    with pytest.raises(pc.errors.StructureError, match=message):
        adapter.to_observation(VALUED, value)


def test_masks_of_every_form_become_ours() -> None:
    rows, grid = pc.MultiDiscrete((2, 3)), pc.MultiDiscrete((2, 3), shape=(1, 2))
    expected = [[True, False], [True, False, True]]
    flat = np.array([1, 0, 1, 0, 1], np.int8)
    for space, mask in (
        (rows, flat),
        (rows, flat.tolist()),
        (rows, np.array([[1, 0, 0], [1, 0, 1]], np.int8)),
        (rows, (flat[:2], flat[2:])),
        (rows, [flat[:2].astype(bool), flat[2:]]),
        (grid, ((flat[:2], flat[2:]),)),  # as MultiDiscrete.sample of gymnasium takes it
    ):
        got = adapter.to_mask(space, mask)
        space.check_mask(got)
        assert [row.tolist() for row in got] == expected
    batch = adapter.to_mask(rows, np.stack([flat, 1 - flat]))
    assert [row.shape for row in batch] == [(2, 2), (2, 3)]
    joint = pc.spaces.JointMask(np.eye(2, 3, dtype=np.int8))
    assert adapter.to_mask(rows, joint).allowed.dtype == bool
    both = pc.Dict({"x": pc.Discrete(2), "y": pc.Box(), "z": pc.MultiBinary(2)})
    got = adapter.to_mask(both, OrderedDict(z=np.ones(2, np.int8), y=None, x=[0, 1]))
    both.check_mask(got)
    assert got["x"].tolist() == [False, True]


@pytest.mark.parametrize(
    ("space", "mask", "message"),
    [
        (pc.Discrete(2), np.zeros(2), "^action_mask: got dtype float64, expected booleans, or integers"),
        (pc.Discrete(2), np.ones(3, bool), r"^action_mask: got shape \(3,\), expected \(2,\)"),
        (pc.MultiBinary(2), np.array([2, 0], np.int8), "^action_mask: got an integer other than 0 and 1"),
        (pc.MultiDiscrete((2, 3)), np.ones(4, bool), r"^action_mask: got shape \(4,\), expected flat \(5,\)"),
        (pc.MultiDiscrete((2, 3)), ([1, 1],), "^action_mask: got 1 rows, expected 2"),
        (pc.Box(), np.array(True), "^action_mask: got a mask for a Box"),
        (pc.Tuple((pc.Discrete(2),)), (), "^action_mask: got 0 parts, expected a tuple or list of 1"),
    ],
)
def test_masks_that_do_not_fit_are_refused(space: Any, mask: Any, message: str) -> None:
    with pytest.raises(pc.errors.MaskError, match=message):
        adapter.to_mask(space, mask)


def test_actions_are_of_the_types_of_their_samples() -> None:
    space = Everything.parts
    action = adapter.space_of(space).sample(key=jax.random.key(0))
    got, sample = adapter.to_action(space, action), space.sample()
    assert space.contains(got)
    types = [(type(x), x.dtype, x.shape) for x in jax.tree.leaves(got)]
    assert types == [(type(x), x.dtype, x.shape) for x in jax.tree.leaves(dict(sample))]


# VECTOR ENVIRONMENTS -------------------------------------------------------------------------

KINDS = [(2, "terminated"), (3, "truncated"), (5, "both")]


def expected_turns(mode: str, length: int, ends: str, steps: int) -> dict[str, np.ndarray]:
    """What `VectorLoop` must give for a `Counter`, by arithmetic."""
    k = np.arange(steps)
    if mode == "NextStep":  # one more step between two episodes, which only resets
        time, valid = k % (length + 1) + 1, k % (length + 1) < length
        time = np.where(valid, time, 0)
        first, seen = ~valid, time
    else:
        time, valid = k % length + 1, k >= 0
        first, seen = time == length, np.where(time == length, 0, time)
    end = time == length
    return {
        "observation": seen,
        "final_observation": time,
        "reward": time,
        "is_first": first,
        "terminated": end & (ends != "truncated"),
        "truncated": end & (ends == "truncated"),
        "valid": valid,
    }


@pytest.mark.parametrize("reuses", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_the_loop_tells_what_happened_when(mode: str, reuses: bool) -> None:
    if reuses and mode == "SameStep":
        pytest.skip("gymnasium itself loses the last observation of such an environment then")
    loop = adapter.VectorLoop(
        vector([functools.partial(Counter, *kind, reuses=reuses) for kind in KINDS], mode)
    )
    for _ in range(2):  # a reset begins anew, also in the middle of episodes
        turn = loop.reset(seed=0)
        np.testing.assert_array_equal(turn.observation, np.zeros((3, 1)))
        assert turn.is_first.all()
        assert not (turn.valid | turn.terminated | turn.truncated).any()
        turns = [loop.step(jnp.zeros(3, jnp.int32)) for _ in range(20)]
        for env, kind in enumerate(KINDS):
            for field, values in expected_turns(mode, *kind, steps=20).items():
                got = [np.ravel(getattr(turn, field)[env])[0] for turn in turns]
                np.testing.assert_array_equal(got, values, err_msg=f"{field} of {kind}")
    assert turn.reward.dtype == turns[0].observation.dtype == np.float32


@pytest.mark.parametrize("mode", MODES)
def test_values_of_the_last_observation_are_those_of_what_was_seen(mode: str) -> None:
    """The value that a truncated episode is bootstrapped from, with a critic that answers with what it sees."""
    loop = adapter.VectorLoop(vector([functools.partial(Counter, 4, "truncated")] * 2, mode))
    plain = config(loop.action_space, loop.observation_space, critic=pc.MLP(()))
    params, _ = pc.init(plain, key=jax.random.key(0))
    head = params["critic"]["head"]
    params["critic"]["head"] = {"kernel": jnp.ones_like(head["kernel"]), "bias": jnp.zeros_like(head["bias"])}
    value = jax.jit(jax.vmap(lambda x: pc.value((params, plain), (), x)[1]))
    loop.reset(seed=0)
    seen = []
    for _ in range(12):
        turn = loop.step(np.zeros(2, np.int32))
        seen += value(turn.final_observation)[turn.truncated].tolist()
    assert seen == [4.0] * 2 * (2 if mode == "NextStep" else 3)


def test_the_mode_of_a_vector_environment_is_its_own() -> None:
    """Two of one class share the metadata that gymnasium writes the mode into."""
    first, second = (vector([Counter], mode) for mode in ("NextStep", "SameStep"))
    assert first.metadata["autoreset_mode"] is MODES["SameStep"]  # which is wrong
    assert adapter.VectorLoop(first).autoreset_mode == "NextStep"
    wrapped = gymnasium.wrappers.vector.RecordEpisodeStatistics(first)
    assert adapter.VectorLoop(wrapped).autoreset_mode == "NextStep"
    assert adapter.VectorLoop(second).autoreset_mode == "SameStep"
    native = gymnasium.make_vec("CartPole-v1", 2, vectorization_mode="vector_entry_point")
    assert adapter.VectorLoop(native).autoreset_mode == "NextStep"


class Silent:
    """A vector environment that does not say how it resets, and whose reset knows no mask."""

    num_envs = 2
    single_observation_space, single_action_space = Counter.observation_space, Counter.action_space
    action_space = spaces.MultiDiscrete([2, 2])

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        return np.zeros((2, 1)), {}

    def step(self, action: Any) -> Any:
        return np.ones((2, 1)), np.ones(2), np.array([True, False]), np.zeros(2, bool), {}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Counter, "^envs: got Counter without num_envs, expected a vector environment; use gymnasium"),
        (Silent, "^autoreset_mode: got None, expected 'NextStep', .* such as this Silent"),
    ],
)
def test_what_is_no_vector_environment_is_refused(make: Any, message: str) -> None:
    with pytest.raises(pc.errors.StructureError, match=message):
        adapter.VectorLoop(make())


def test_a_vector_environment_that_breaks_its_mode_is_noticed() -> None:
    with pytest.raises(pc.errors.StructureError, match=r"^step: called before reset"):
        adapter.VectorLoop(Silent(), autoreset_mode="SameStep").step(np.zeros(2, int))
    for mode, message in (
        ("SameStep", r"^info: no final_obs of environments \[0\], which ended"),
        ("Disabled", "^envs: reset with .*'reset_mask'.* moved environments outside of the mask"),
    ):
        loop = adapter.VectorLoop(Silent(), autoreset_mode=mode)
        loop.reset()
        with pytest.raises(pc.errors.StructureError, match=message):
            loop.step(np.zeros(2, int))


def test_last_observations_may_come_in_one_array() -> None:
    """As those of the vector environment of ALE, which does not say which of them are meant."""

    class Whole(Silent):
        def step(self, action: Any) -> Any:
            *outcome, info = super().step(action)
            return *outcome, {**info, "final_obs": np.full((2, 1), 7.0)}

    loop = adapter.VectorLoop(Whole(), autoreset_mode="SameStep")
    loop.reset()
    assert loop.step(np.zeros(2, int)).final_observation.tolist() == [[7.0], [1.0]]


def test_an_asynchronous_environment_gives_the_same_turns() -> None:
    make = functools.partial(gymnasium.make, "CartPole-v1", max_episode_steps=3)
    mode = MODES["SameStep"]
    loops = [
        adapter.VectorLoop(gymnasium.vector.SyncVectorEnv([make] * 2, autoreset_mode=mode)),
        adapter.VectorLoop(gymnasium.vector.AsyncVectorEnv([make] * 2, autoreset_mode=mode, context="spawn")),
    ]
    turns = [[loop.reset(seed=3), *(loop.step(np.array([0, 1])) for _ in range(7))] for loop in loops]
    loops[1].close()
    jax.tree.map(np.testing.assert_array_equal, *turns)
    assert turns[0][3].truncated.all()


# MASKS, EVERY SPACE --------------------------------------------------------------------------


def played(loop: adapter.VectorLoop, steps: int, **fields: Any) -> list[adapter.Turn]:
    """Sampled steps of a fresh policy, masked where there are masks."""
    policy = pc.init(config(loop.action_space, loop.observation_space, **fields), key=jax.random.key(0))

    @jax.jit
    def act(key: Any, states: Any, turn: Any) -> Any:
        return jax.vmap(
            lambda key, s, o, f, mask: pc.act(policy, s, o, key=key, is_first=f, action_mask=mask)
        )(jax.random.split(key, loop.num_envs), states, turn.observation, turn.is_first, turn.action_mask)

    states = jax.vmap(lambda _: pc.reset(policy))(jnp.arange(loop.num_envs))
    turns = [loop.reset(seed=0)]
    for key in jax.random.split(jax.random.key(1), steps):
        states, action = act(key, states, turns[-1])
        turns.append(loop.step(action))
    return turns


@pytest.mark.parametrize("kind", ["flat", "stacked", "rows"])
@pytest.mark.parametrize("where", ["info", "call"])
@pytest.mark.parametrize("mode", MODES)
def test_masks_are_those_of_the_observation_that_is_acted_on(mode: str, where: str, kind: str) -> None:
    """The environment raises for an action that it did not allow just then."""
    loop = adapter.VectorLoop(vector([functools.partial(Masked, where, kind)] * 3, mode))
    turns = played(loop, 40)
    assert sum(turn.terminated.sum() for turn in turns) >= 3 * 10
    for turn in turns:
        jax.vmap(loop.action_space.check_mask)(turn.action_mask)


def test_a_mask_that_is_missing_later_is_an_error() -> None:
    class Forgets(Masked):
        def step(self, action: Any) -> Any:
            *outcome, _ = super().step(action)
            return *outcome, {}

    loop = adapter.VectorLoop(vector([functools.partial(Forgets, "info", "flat")] * 2, "SameStep"))
    with pytest.raises(pc.errors.MaskError, match=r"^info: no action_mask of environments \[0, 1\]"):
        played(loop, 1)

    class Late(Counter):
        def step(self, action: Any) -> Any:
            *outcome, _ = super().step(action)
            return *outcome, {"action_mask": np.ones(2, np.int8)}

    loop = adapter.VectorLoop(vector([Late], "SameStep"))
    with pytest.raises(pc.errors.MaskError, match=r"^info: has an action_mask that the first reset did not"):
        played(loop, 1)


@pytest.mark.parametrize("mode", MODES)
def test_every_space_is_observed_and_acted_in(mode: str) -> None:
    """The environment asserts that its space contains each action."""
    loop = adapter.VectorLoop(vector([Everything] * 2, mode))
    turns = played(loop, 15, memory=pc.MinGRU(4))
    for turn in turns:
        for observations in (turn.observation, turn.final_observation):
            assert jax.vmap(loop.observation_space.contains)(observations).all()
    assert sum(turn.truncated.sum() for turn in turns) == 2 * 3


@pytest.mark.parametrize("name", ["FrozenLake-v1", "Taxi"])
def test_environments_that_look_actions_up_take_ours(name: str) -> None:
    env = gymnasium.make(name, max_episode_steps=20)
    plain = config(adapter.space_of(env.action_space), adapter.space_of(env.observation_space))
    policy = pc.init(plain, key=jax.random.key(0))
    result = adapter.evaluate(policy, env, 3, key=jax.random.key(1), progress=False)
    assert (result.lengths >= 1).all()
    if name == "Taxi":  # masked by info["action_mask"]: no move into a wall, no wrong pick-up (-10)
        assert (result.returns >= -result.lengths).all()


def test_a_file_plays_cartpole_alike_in_jax_and_numpy(tmp_path: Path) -> None:
    loop = adapter.VectorLoop(gymnasium.make_vec("CartPole-v1", 4, vectorization_mode="sync"))
    plain = config(loop.action_space, loop.observation_space, memory=pc.GRU(4), actor_gain=1.0)
    pc.save(tmp_path / "file", pc.init(plain, key=jax.random.key(0)))
    policy, runner = pc.load(tmp_path / "file"), numpy_runner.load(tmp_path / "file")
    act = jax.jit(jax.vmap(lambda s, o, f: pc.act(policy, s, o, is_first=f)))
    states = jax.vmap(lambda _: pc.reset(policy))(jnp.arange(4))
    others = [runner.reset() for _ in range(4)]
    turn, chosen = loop.reset(seed=0), []
    for _ in range(100):
        states, actions = act(states, turn.observation, turn.is_first)
        for i in range(4):
            if turn.is_first[i]:
                others[i] = runner.reset()
            others[i], action = runner.act(others[i], turn.observation[i])
            assert int(action) == int(actions[i])
        chosen += actions.tolist()
        turn = loop.step(actions)
    assert 0 < sum(chosen) < 400


# EVALUATION ----------------------------------------------------------------------------------


class Drawn(Counter):
    """Draws a gray square of the brightness of its time."""

    metadata = {"render_fps": 100, "render_modes": ["rgb_array"]}  # noqa: RUF012
    render_mode = "rgb_array"

    def render(self) -> Any:
        return np.full((8, 8, 3), 20 * int(self.time[0]), np.uint8)


def counting_policy() -> Any:
    return pc.init(config(pc.Discrete(2), adapter.space_of(Counter.observation_space)), key=jax.random.key(0))


@pytest.mark.parametrize("ends", ["terminated", "truncated"])
def test_episodes_are_scored(ends: str) -> None:
    result = adapter.evaluate(counting_policy(), Counter(4, ends), 3, progress=False)
    assert result.returns.tolist() == [10.0] * 3
    assert result.lengths.tolist() == [4] * 3
    assert result.terminated.tolist() == [ends == "terminated"] * 3


def test_a_policy_without_its_critic_is_scored_on_what_it_sees() -> None:
    class Truth(Counter):
        observation_space = spaces.Dict({"x": Counter.observation_space, "truth": spaces.Discrete(2)})

        def seen(self) -> Any:
            return {"truth": np.int64(1), "x": super().seen()}

    plain = config(
        pc.Discrete(2), adapter.space_of(Truth.observation_space), actor_keys=("x",), critic_keys=("truth",)
    )
    policy = pc.init(plain, key=jax.random.key(0))
    for player in (policy, pc.actor_only(policy)):
        assert adapter.evaluate(player, Truth(4), 1, progress=False).returns.tolist() == [10.0]


@pytest.mark.parametrize("rich", [True, False])
def test_the_bar_is_that_of_rich_or_a_line(rich: bool, capsys: Any, monkeypatch: Any) -> None:
    if not rich:
        monkeypatch.setitem(sys.modules, "rich.console", None)
    adapter.evaluate(counting_policy(), Counter(4), 2)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "2/2" in printed.err
    assert "mean return 10.0" in printed.err
    assert ("episode 2/2" in printed.err) != rich


def test_the_first_episodes_are_written_as_a_gif(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    adapter.evaluate(counting_policy(), Drawn(4), 3, progress=False, gif=tmp_path / "x.gif", gif_episodes=2)
    with image.open(tmp_path / "x.gif") as film:
        assert film.n_frames == 5  # of 2 * (4 + 1), every other one: 100 a second are too fast for a GIF
        shown = []
        for i in range(5):
            film.seek(i)
            shown.append((np.asarray(film.convert("RGB")).mean(), film.info["duration"]))
    assert shown == [(0, 20), (40, 20), (80, 20), (20, 20), (60, 20)]


def test_what_cannot_be_evaluated_is_refused() -> None:
    policy = counting_policy()
    with pytest.raises(ValueError, match=r"^gif: .* render_mode None, .*render_mode=\"rgb_array\""):
        adapter.evaluate(policy, Counter(), 1, gif="x.gif")
    with pytest.raises(ValueError, match=r"^episodes: got 0, expected at least 1"):
        adapter.evaluate(policy, Counter(), 0)
    with pytest.raises(pc.errors.StructureError, match=r"^env: got a vector environment, expected one"):
        adapter.evaluate(policy, vector([Counter], "NextStep"), 1)
    with pytest.raises(pc.errors.StructureError, match=r"^env: has the observation_space Dict"):
        adapter.evaluate(policy, Everything(), 1)
    more = pc.init(config(pc.Discrete(3), adapter.space_of(Counter.observation_space)), key=jax.random.key(0))
    with pytest.raises(
        pc.errors.StructureError, match=r"^env: has the action_space Discrete\(n=2, start=0\)"
    ):
        adapter.evaluate(more, Counter(), 1)
