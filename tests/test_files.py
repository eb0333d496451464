"""The policy file: what comes back, and everything that must not."""

import functools
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import msgpack
import numpy as np
import pytest
from cases import CONFIGS

import policy_core as pc
from benchmarks import parts
from policy_core.configs import codec
from policy_core.errors import FileError, FingerprintError
from policy_core.files import checksum, configs, document, policies, replay, rows, storage

pytestmark = pytest.mark.usefixtures("unchecked")  # beartype doubles the time to trace

ROOT = Path(__file__).parent.parent
TINY = {"actor": pc.MLP((2,)), "critic": pc.MLP(())}
CONFIG = pc.ActorCriticConfig(observation_space=pc.Box(shape=(1,)), action_space=pc.Discrete(2), **TINY)
OTHER = pc.ActorCriticConfig(observation_space=pc.Box(shape=(1,)), action_space=pc.Discrete(3), **TINY)


@functools.cache
def _template(config: Any) -> Any:
    return jax.eval_shape(lambda: config.init(key=jax.random.key(0)))


def _random_params(config: Any, batch: tuple[int, ...] = (), seed: int = 0) -> Any:
    """Params of a config with random bits in them: infinities, NaNs, numbers too small to normalize."""
    rng = np.random.default_rng(seed)

    def bits(leaf: Any) -> Any:
        shape = (*batch, *leaf.shape)
        if leaf.dtype == bool:
            return jnp.array(rng.integers(0, 2, shape).astype(bool))
        content = rng.bytes(math.prod(shape) * leaf.dtype.itemsize)
        return jnp.asarray(np.frombuffer(content, leaf.dtype).reshape(shape))

    return jax.tree.map(bits, _template(config))


def _identical(a: Any, b: Any) -> bool:
    """The same tree, dtypes, shapes and bits."""
    if jax.tree.structure(a) != jax.tree.structure(b):
        return False
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(
        x.dtype == y.dtype and x.shape == y.shape and np.asarray(x).tobytes() == np.asarray(y).tobytes()
        for x, y in pairs
    )


HEAD = r"'actor/head/bias'"
PARAMS = _random_params(CONFIG)
DATA = pc.to_bytes((PARAMS, CONFIG), metadata={"note": "x"}, self_test=False)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_policy_comes_back_bit_for_bit(name):
    policy = (_random_params(CONFIGS[name]), CONFIGS[name])
    params, config = pc.from_bytes(pc.to_bytes(policy, self_test=False))
    assert _identical(params, policy[0])
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(params))
    assert config == CONFIGS[name]


@pytest.mark.parametrize("batch", [(3,), (2, 3), (0,), (1,)])
def test_a_population_comes_back_bit_for_bit(batch, tmp_path):
    policy = (_random_params(CONFIG, batch), CONFIG)
    pc.save(tmp_path / "population", policy)
    params, config = pc.load(tmp_path / "population", CONFIG)
    assert _identical(params, policy[0])
    assert config == CONFIG


@pc.static
class OddPolicy:
    """Params of every kind that a pytree may hold."""

    observation_space: pc.contract.Space[Any] = pc.Box()
    action_space: pc.contract.Space[Any] = pc.Discrete(2)
    collide: bool = False

    def init(self, *, key: Any) -> Any:
        params = {
            "count": jnp.zeros((), jnp.int32),
            "flags": jnp.zeros((2, 3), bool),
            "flag": jnp.zeros((), bool),
            "half": jnp.zeros((3,), jnp.bfloat16),
            "float16": jnp.zeros((1, 2), jnp.float16),
            "bytes": jnp.zeros((4,), jnp.uint8),
            "wide": jnp.zeros((2,), jnp.uint32),
            "complex": jnp.zeros((2,), jnp.complex64),
            "eighth": jnp.zeros((2,), jnp.float8_e4m3fn),
            "empty": jnp.zeros((0, 3)),
            "list": [jnp.zeros(2), (jnp.zeros(()), None)],
            "key": jax.random.key_data(key),
            "é/ü": jnp.zeros(1),
            "": jnp.zeros(1),
        }
        return {**params, "a": {"b": jnp.zeros(1)}, "a/b": jnp.zeros(1)} if self.collide else params

    def initial_state(self, params: Any, *, key: Any = None) -> Any:
        return ()

    def forward(self, params: Any, state: Any, observation: Any, *, action_mask: Any = None) -> Any:
        raise NotImplementedError

    def env_action(self, action: Any) -> Any:
        return action

    def policy_action(self, env_action: Any) -> Any:
        return env_action


@pytest.mark.parametrize("batch", [(), (2,)])
def test_params_of_every_kind_come_back_bit_for_bit(batch):
    policy = (_random_params(OddPolicy(), batch), OddPolicy())
    params, config = pc.from_bytes(pc.to_bytes(policy, self_test=False), OddPolicy())
    assert _identical(params, policy[0])
    assert config == OddPolicy()


def test_two_leaves_of_one_path_are_not_confused():
    policy = (_random_params(OddPolicy(collide=True)), OddPolicy(collide=True))
    assert not _identical(policy[0]["a"]["b"], policy[0]["a/b"])
    try:
        data = pc.to_bytes(policy, self_test=False)
    except FileError:  # to refuse them is right, too
        return
    assert _identical(pc.from_bytes(data)[0], policy[0])


def test_load_takes_the_config_from_the_file_or_checks_it(tmp_path):
    path = tmp_path / "policy.msgpack"
    pc.save(path, (PARAMS, CONFIG))
    for loaded in (pc.load(path), pc.load(str(path)), pc.load(path, CONFIG)):
        assert type(loaded) is tuple
        assert _identical(loaded[0], PARAMS)
        assert loaded[1] == CONFIG
    assert path.read_bytes() == pc.to_bytes((PARAMS, CONFIG))


def test_a_loaded_policy_acts_as_the_saved_one():
    policy = pc.init(CONFIG, key=jax.random.key(0))
    loaded = pc.from_bytes(pc.to_bytes(policy))
    acts = [pc.value(p, (), jnp.ones(1))[1] for p in (policy, loaded)]
    assert acts[0] == acts[1]


def test_equal_pairs_give_equal_bytes():
    again = jax.tree.map(np.asarray, PARAMS)
    reordered = {"critic": again["critic"], "actor": dict(reversed(again["actor"].items()))}
    twin = codec.from_data(codec.to_data(CONFIG))
    assert pc.to_bytes((reordered, twin), metadata={"note": "x"}, self_test=False) == DATA
    metadata = {"b": "1", "a": "2"}
    assert pc.to_bytes((PARAMS, CONFIG), metadata=metadata) == pc.to_bytes(
        (PARAMS, CONFIG), metadata=dict(reversed(metadata.items()))
    )
    assert (
        pc.to_bytes((_random_params(CONFIG, seed=1), CONFIG), metadata={"note": "x"}, self_test=False) != DATA
    )


def test_another_config_is_refused_with_both_values():
    with pytest.raises(FingerprintError) as caught:
        pc.from_bytes(DATA, OTHER)
    lines = str(caught.value).splitlines()
    assert lines[0] == "the file holds a policy of another config"
    assert lines[1].split() == ["field", "in", "the", "file", "expected"]
    assert [line.split() for line in lines[2:-1]] == [["action_space.n", "2", "3"]]
    assert lines[-1] == "load without a config to take the one in the file"


def test_every_field_that_differs_is_listed():
    other = pc.ActorCriticConfig(
        observation_space=pc.Box(shape=(1,)), action_space=pc.MultiBinary(2), actor_gain=0.5, **TINY
    )
    with pytest.raises(FingerprintError) as caught:
        pc.from_bytes(DATA, other)
    for left, right in (("0.01", "0.5"), ("policy_core/Discrete", "policy_core/MultiBinary")):
        assert any(left in line and right in line for line in str(caught.value).splitlines())
    assert "actor.hidden" not in str(caught.value)


def test_a_missing_file_is_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        pc.load(tmp_path / "nothing")
    with pytest.raises(IsADirectoryError):
        pc.load(tmp_path)


def _without(params: Any, *path: str) -> Any:
    if len(path) == 1:
        return {name: part for name, part in params.items() if name != path[0]}
    return {**params, path[0]: _without(params[path[0]], *path[1:])}


def _replace(params: Any, leaf: Any) -> Any:
    return {**params, "actor": {**params["actor"], "head": {**params["actor"]["head"], "bias": leaf}}}


BAD_PARAMS: dict[str, tuple[Any, str]] = {
    "missing leaf": (_without(PARAMS, "actor", "head", "bias"), rf"^params: the leaf {HEAD} of .* is missing$"),
    "missing part": (_without(PARAMS, "critic"), r"^params: the leaf 'critic/head/bias' .* is missing$"),
    "extra leaf": ({**PARAMS, "more": jnp.ones(1)}, r"^params: there is a leaf 'more', which is none of the config's params$"),
    "wrong shape": (_replace(PARAMS, jnp.ones(3)), rf"^params: the leaf {HEAD} is float32\(3,\), expected float32\(2,\) of the config's params$"),
    "wrong dtype": (_replace(PARAMS, jnp.ones(2, jnp.bfloat16)), rf"^params: the leaf {HEAD} is bfloat16\(2,\)"),
    "NumPy's own dtype": (
        _replace(PARAMS, np.ones(2)),
        rf"^params: the leaf {HEAD} is float64.*; enable jax_enable_x64 to use 64-bit numbers$",
    ),
    "one leaf of a population": (_replace(PARAMS, jnp.ones((4, 2))), r"^params: the leaf '.*' is float32"),
    "params of another config": (_random_params(OTHER), rf"^params: the leaf {HEAD} is float32\(3,\)"),
    "none": (None, rf"^params: the leaf {HEAD} of the config's params is missing$"),
    "shapes": (_template(CONFIG), r"^params: the leaf '"),
    "a number": (_replace(PARAMS, 1.0), rf"^params: the leaf {HEAD}"),
    "a text": (_replace(PARAMS, "ab"), rf"^params: the leaf {HEAD}"),
    "an object": (_replace(PARAMS, np.array([None, None])), rf"^params: the leaf {HEAD}"),
    "a key": (_replace(PARAMS, jax.random.key(0)), rf"^params: the leaf {HEAD}"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_PARAMS)
@pytest.mark.usefixtures("unchecked")
def test_params_that_are_not_the_configs_are_refused_and_nothing_is_written(name, tmp_path):
    params, message = BAD_PARAMS[name]
    with pytest.raises(FileError, match=message):
        pc.save(tmp_path / "file", (params, CONFIG))
    assert list(tmp_path.iterdir()) == []


def test_params_that_were_donated_are_refused(tmp_path):
    params = jax.tree.map(jnp.copy, PARAMS)
    params["actor"]["head"]["bias"].delete()
    with pytest.raises(
        FileError, match=rf"^params: the leaf {HEAD} was deleted, perhaps as it was donated to a jit$"
    ):
        pc.save(tmp_path / "file", (params, CONFIG))
    assert list(tmp_path.iterdir()) == []


def test_a_name_is_used_as_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    newer = _random_params(CONFIG, seed=1)
    pc.save("run.step_100", (PARAMS, CONFIG))
    pc.save("run.step_200", (newer, CONFIG))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.step_100", "run.step_200"]
    assert _identical(pc.load("run.step_100")[0], PARAMS)
    assert _identical(pc.load(Path("run.step_200"))[0], newer)


def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path):
    path = tmp_path / ("n" * 255)
    pc.save(path, (PARAMS, CONFIG))
    assert _identical(pc.load(path)[0], PARAMS)


def test_metadata_is_saved_and_must_be_text():
    assert msgpack.unpackb(DATA)["metadata"] == {"note": "x"}
    assert _identical(pc.from_bytes(DATA)[0], PARAMS)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"steps": 3}, r"^metadata: got 'steps': int, expected text$"),
        ({3: "steps"}, r"^metadata: got 3: str, expected text$"),
        ({"a": b"x"}, r"^metadata: got 'a': bytes, expected text$"),
        ({"a": None}, r"^metadata: got 'a': NoneType, expected text$"),
        ({"a": {"b": "c"}}, r"^metadata: got 'a': dict, expected text$"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_metadata_that_is_not_text_is_refused(metadata, message):
    with pytest.raises(FileError, match=message):
        pc.to_bytes((PARAMS, CONFIG), metadata=metadata)


def test_a_load_compiles_nothing(tmp_path, caplog):
    config = pc.ActorCriticConfig(
        observation_space=pc.Box(shape=(13,)),
        action_space=pc.Discrete(2),
        actor=pc.MLP((37,)),
        critic=pc.MLP(()),
    )
    template = jax.eval_shape(lambda: config.init(key=jax.random.key(0)))
    params = jax.tree.map(lambda x: np.ones(x.shape, x.dtype), template)
    pc.save(tmp_path / "file", (params, config), self_test=False)
    with jax.log_compiles():
        pc.load(tmp_path / "file")
    assert [record.getMessage() for record in caplog.records if "Compiling" in record.getMessage()] == []


def test_a_second_load_of_a_config_traces_nothing_and_puts_all_leaves_at_once(tmp_path, monkeypatch):
    config = pc.ActorCriticConfig(
        observation_space=pc.Box(shape=(11,)), action_space=pc.Discrete(2), actor=pc.MLP((5,)), critic=pc.MLP(())
    )  # fmt: skip
    policy = pc.init(config, key=jax.random.key(0))
    pc.save(tmp_path / "file", policy, self_test=False)
    pc.load(tmp_path / "file")
    put, calls = jax.device_put, []

    def counted(leaves: Any, **options: Any) -> Any:
        calls.append(len(leaves))
        return put(leaves, **options)

    def fail(*args: Any, **options: Any) -> Any:
        raise AssertionError("traced, or read as if it were new")

    monkeypatch.setattr(jax, "device_put", counted)
    monkeypatch.setattr(pc.ActorCriticConfig, "init", fail)
    monkeypatch.setattr(jax, "eval_shape", fail)
    monkeypatch.setattr(rows, "_read_new_row", fail)
    monkeypatch.setattr(configs, "by_path", fail)
    for given in (None, config):
        loaded, _ = pc.load(tmp_path / "file", given)
        assert jax.tree.all(jax.tree.map(lambda x, y: bool((x == y).all()), loaded, policy[0]))
    assert calls == [len(jax.tree.leaves(policy))] * 2


def test_the_stages_that_are_measured_are_those_of_a_load(tmp_path, monkeypatch):
    """All of its functions that do more than a step are called by both, with the same arguments."""
    pc.save(tmp_path / "file", (PARAMS, CONFIG), self_test=False)
    pc.load(tmp_path / "file")
    called: list[str] = []
    for module, name in (
        (storage, "read_file"), (checksum, "read_ending"), (checksum, "digests"), (checksum, "check_blocks"),
        (configs, "decode"), (configs, "specs_of"), (jax, "device_put"),
    ):  # fmt: skip
        real = getattr(module, name)

        def counted(*args: Any, real: Any = real, name: str = name, **options: Any) -> Any:
            called.append(name)
            return real(*args, **options)

        for user in (module, policies, document):
            if hasattr(user, name):
                monkeypatch.setattr(user, name, counted)
    assert list(parts.stages(tmp_path / "file", CONFIG)) == [
        "read", "hash", "the map, and all headers", "the config, and its params", "views of the leaves",
        "jax.device_put", "waiting for the arrays",
    ]  # fmt: skip
    measured = [*called]
    called.clear()
    pc.load(tmp_path / "file", CONFIG)
    assert sorted(measured) == sorted(called)
    assert len(called) == 7


@pytest.mark.usefixtures("unchecked")
def test_bytes_that_can_be_written_to_are_not_shared_with_the_params():
    config = pc.ActorCriticConfig(
        observation_space=pc.Box(shape=(512,)),
        action_space=pc.Discrete(2),
        actor=pc.MLP((512,)),
        critic=pc.MLP(()),
    )
    template = jax.eval_shape(lambda: config.init(key=jax.random.key(0)))
    params = jax.tree.map(lambda x: np.ones(x.shape, x.dtype), template)
    data = pc.to_bytes((params, config), self_test=False)
    buffer = np.zeros(len(data) + 64, np.uint8)
    start = -buffer.ctypes.data % 64  # so that JAX could share it
    view = buffer[start : start + len(data)]
    view[:] = np.frombuffer(data, np.uint8)
    loaded, _ = pc.from_bytes(memoryview(view))
    view[:] = 0
    assert all(np.all(np.asarray(leaf) == 1) for leaf in jax.tree.leaves(loaded))


def test_the_self_test_has_precise_products_whatever_the_default_is(tmp_path: Path, monkeypatch: Any) -> None:
    """On a GPU or TPU others would be off by 1e-3, and so would every replay of the file elsewhere."""
    seen: list[Any] = []

    def forward(*arguments: Any) -> Any:
        seen.append(jax.config.jax_default_matmul_precision)
        return pc.forward(*arguments)

    monkeypatch.setattr(replay, "forward", forward)
    config = pc.ActorCriticConfig(
        observation_space=pc.Box(shape=(1,)), action_space=pc.Discrete(2), actor=pc.MLP((3,))
    )
    with jax.default_matmul_precision("bfloat16"):
        pc.save(tmp_path / "file", pc.init(config, key=jax.random.key(0)))
        saving = len(seen)
        assert pc.verify(tmp_path / "file").deviation < 1e-6
    assert len(seen) > saving > 0
    assert set(seen) == {"highest"}
