"""The adapter of jumanji, on a counter of jumanji's classes and on its registered environments."""

import functools
from typing import Any, NamedTuple

import adapted
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from policy_core_adapters import jumanji as adapter

import policy_core as pc

jumanji = pytest.importorskip("jumanji", reason="jumanji is not installed")

pytestmark = [
    pytest.mark.filterwarnings("default"),  # other people's warnings are theirs
    pytest.mark.usefixtures("unchecked", "lenient"),
]
specs, types = jumanji.specs, jumanji.types


class Seen(NamedTuple):
    count: Any
    action_mask: Any
    step_count: Any


class Inner(NamedTuple):
    count: Any
    key: Any


class Counter(jumanji.Environment):
    """Ends after three steps. The only action allowed is the count modulo 4; another one ends it."""

    def __init__(self, discount: float = 0.0, agents: tuple[int, ...] = ()) -> None:
        self.discount, self.agents = discount, agents
        super().__init__()

    @functools.cached_property
    def observation_spec(self) -> Any:
        return specs.Spec(
            Seen,
            "SeenSpec",
            count=specs.Array((), jnp.float32),  # given as an int
            action_mask=specs.BoundedArray((4,), bool, False, True),
            step_count=specs.DiscreteArray(4000),
        )

    @functools.cached_property
    def action_spec(self) -> Any:
        return specs.DiscreteArray(4)

    def seen(self, count: Any) -> Seen:
        return Seen(count, jnp.arange(4) == count % 4, count)

    def reset(self, key: Any) -> Any:
        state = Inner(jnp.int32(0), key)
        return state, types.restart(self.seen(state.count), shape=self.agents)

    def step(self, state: Any, action: Any) -> Any:
        state = Inner(state.count + 1, state.key)
        last = (state.count >= 3) | (action != (state.count - 1) % 4)
        ones = jnp.ones(self.agents)
        # Two agents share the reward, and one of them may go on.
        discount = jnp.where(last, self.discount, 1.0) * ones
        if self.agents:
            discount = discount.at[1:].set(jnp.where(last, 0.0, 1.0))
        reward = state.count.astype(float) * ones / ones.size
        step_type = jnp.where(last, types.StepType.LAST, types.StepType.MID)
        return state, types.TimeStep(
            step_type=step_type,
            reward=reward,
            discount=discount,
            observation=self.seen(state.count),
            extras={},
        )


@pytest.mark.parametrize(
    ("discount", "agents", "ended"),
    [(0.0, (), "terminated"), (1.0, (), "truncated"), (0.9, (2,), "truncated"), (0.0, (2,), "terminated")],
)
def test_a_counter_counts(discount: float, agents: tuple[int, ...], ended: str) -> None:
    env = adapter.from_jumanji(Counter(discount, agents))
    assert env.observation_space == pc.Dict(
        {"count": pc.Box(), "step_count": pc.Box(low=0, high=3999, dtype="int32")}
    )
    # Only what the mask of the state allows goes on, so a mask that is a step late ends at once.
    adapted.counts(env, 3, ended, count=lambda observation: observation["count"])


def test_parts_may_be_left_out_and_what_is_not_there_is_told() -> None:
    env = adapter.from_jumanji(Counter(), without=("step_count",))
    assert env.observation_space == pc.Dict({"count": pc.Box()})
    assert set(env.reset(jax.random.key(0))[0]) == {"count"}
    one_hot = adapter.from_jumanji(Counter(), most_one_hot=4000).observation_space
    assert one_hot == pc.Dict({"count": pc.Box(), "step_count": pc.Discrete(4000)})
    with pytest.raises(ValueError, match=r"without: got \['steps'\], expected some of \['action_mask', 'cou"):
        adapter.from_jumanji(Counter(), without=("steps",))
    from jumanji.wrappers import AutoResetWrapper

    with pytest.raises(ValueError, match=r"within AutoResetWrapper, which loses final observations"):
        adapter.from_jumanji(AutoResetWrapper(Counter()))


def test_an_environment_is_made_inside_of_jit() -> None:
    board = jax.eval_shape(lambda key: adapter.make("Game2048-v1").reset(key)[0]["board"], jax.random.key(0))
    assert board.shape == (4, 4)


def masked(nvec: tuple[int, ...], shape: tuple[int, ...], **options: Any) -> Any:
    """The mask that the action space gets of one that is true where the sum of the indices is even."""
    env = Counter()
    env.action_spec = specs.MultiDiscreteArray(jnp.array(nvec))
    mask = np.indices(shape).sum(0) % 2 == 0
    env.seen = lambda count: Seen(count, jnp.asarray(mask), count)
    env.observation_spec = env.observation_spec.replace(
        action_mask=specs.BoundedArray(shape, bool, False, True)
    )
    ours = adapter.from_jumanji(env, **options)
    got = ours.action_mask(ours.reset(jax.random.key(0))[1])
    ours.action_space.check_mask(got)
    return jax.tree.map(lambda row: np.asarray(row).tolist(), got)


def test_rows_and_combinations_are_told_apart() -> None:
    t, f = True, False
    assert masked((2, 3), (2, 3), layout="rows") == ([t, f], [f, t, f])
    assert masked((2, 3), (2, 3), layout="joint").allowed == [[t, f, t], [f, t, f]]
    assert masked((3, 2), (2, 3)) == ([t, f, t], [f, t])
    assert masked((3, 2), (3, 2)).allowed == [[t, f], [f, t], [t, f]]
    assert masked((3, 3), (2, 2)) == ([t, f, f], [f, t, f])  # without a column for the last value
    with pytest.raises(ValueError, match=r'for \(2, 3\) may hold a row for each.*give layout="rows" or'):
        masked((2, 3), (2, 3))
    with pytest.raises(ValueError, match=r"got an action mask of shape \(7,\) for MultiDiscrete"):
        masked((2, 3), (7,))


def test_specs_of_actions_become_spaces() -> None:
    whole = specs.BoundedArray((2,), jnp.int16, 1, jnp.array([3, 5]))
    assert adapter.action_space_of(whole) == pc.MultiDiscrete((3, 5), start=(1, 1))
    force = specs.BoundedArray((2,), jnp.float32, -1.0, jnp.array([1.0, 2.0]))
    assert adapter.action_space_of(force) == pc.Box(low=-1.0, high=(1.0, 2.0), shape=(2,))
    with pytest.raises(ValueError, match=r"action_spec: got Array, expected DiscreteArray"):
        adapter.action_space_of(specs.Array((2,), jnp.float32))


def test_2048_moves_the_board_at_every_step() -> None:
    """A move that is not legal leaves the board as it is."""
    played = adapted.play(adapter.make("Game2048-v1"), 60)
    adapted.is_sound(played)
    assert not played.mask.all(-1).all()
    before, after = played.observation["board"], played.step.final_observation["board"]
    assert (before != after).any((1, 2)).all()


def test_minesweeper_opens_a_new_field_at_every_step() -> None:
    """Its mask is over combinations; to open a field twice is not legal."""
    played = adapted.play(adapter.make("Minesweeper-v0"), 60)
    adapted.is_sound(played)
    before, after = played.observation["board"], played.step.final_observation["board"]
    np.testing.assert_array_equal((before == -1).sum((1, 2)) - (after == -1).sum((1, 2)), 1)
    assert played.step.terminated.any()


def test_cleaners_walk_on_because_no_move_is_illegal() -> None:
    """Its mask has a row for each of three cleaners; an illegal move ends the episode."""
    played = adapted.play(adapter.make("Cleaner-v0"), 90)
    adapted.is_sound(played)
    assert any(not row.all() for row in played.mask)
    assert not (played.step.terminated | played.step.truncated).any()


@pytest.mark.parametrize("name", ["Maze-v0", "MultiCVRP-v0"])
def test_nested_observations_and_bounded_integers(name: str) -> None:
    adapted.is_sound(adapted.play(adapter.make(name), 12))
