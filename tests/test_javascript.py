"""policy-core.js acts as the policy does, and refuses what the other readers refuse.

This file makes policy files with observations and what is expected of them; `js/test/` runs them in node.
"""

import argparse
import dataclasses
import json
import math
import os
import re
import shutil
import struct
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jaxtyping
import msgpack
import numpy as np
import pytest
import scipy.stats
import test_file_abuse as abuse
import test_numpy_runner as on_numpy
from by_hand import closed, opened
from cases import BOUNDED, LOW_PRECISION, OBSERVATION, config
from in_node import NODE
from policy_core_adapters import numpy_runner
from policy_core_adapters.exports import command, javascript
from policy_core_adapters.numpy_runner.tokens import Reader

import policy_core as pc
from policy_core.configs.codec import added_defaults, encode, to_data
from policy_core.configs.registry import CONFIGS as CLASSES

pytestmark = pytest.mark.usefixtures("unchecked")  # beartype doubles the time to trace

ROOT = Path(__file__).parent.parent
JS = ROOT / "js"
FULL = "POLICY_CORE_FULL" in os.environ  # all configs against JAX and 1,000 observations, else a sample
COUNT = 1000 if FULL else 100
STEPS = 300  # of a policy with a memory, at least
IN_JAX = ("act nested", "squashed, mixed bounds", "beta", "gru", "two memories", "image")  # else only if FULL
CONFIGS = {name: config for name, config in on_numpy.CONFIGS.items() if name not in LOW_PRECISION} | {
    "params in float16": config(BOUNDED, param_dtype="float16", box_head=pc.BetaHead()),
    "params in bfloat16": config(
        pc.Discrete(3), param_dtype="bfloat16", memory=pc.GRU(3, learned_start=True)
    ),
    "box float16": config(pc.Box(low=-0.3, high=0.7, shape=(2,), dtype="float16")),
    "box float64": config(pc.Box(low=-0.3, high=0.1, shape=(2,), dtype="float64")),
    "frames of zeros": config(pc.Discrete(3), memory=pc.memory.FrameStack(3)),
    "pools of maxima": config(
        pc.Discrete(3),
        pc.Box(low=0, high=255, shape=(9, 8, 2), dtype="uint8"),
        encoder=pc.encoders.CNN(
            channels=(3,), kernels=(3,), strides=(2,), pool="max", activation="silu", size=4
        ),
    ),
    "identity std": config(
        pc.Box(shape=(2,)), box_head=pc.NormalHead(pc.Scale(std="state", positive="identity", min_std=0.05))
    ),
    **{
        f"activation {name}": config(pc.Discrete(3), actor=pc.MLP((8, 8), activation=name))
        for name in sorted(numpy_runner.ACTIVATIONS)
    },
}
SELF_TESTED = (
    "act nested",
    "squashed gSDE",
    "heads of parts",
    "squashed, mixed bounds",
    "beta of rank 2",
    "two memories",
    "autoregressive",
    "bins",
)
UNBROKEN = ("params in float16", "params in bfloat16", "act discrete of one")  # `_broken` is for other files
SAMPLED = {
    "discrete": config(pc.Discrete(3, start=1)),
    "normal": config(pc.Box(shape=(2,)), temperature=0.5),
    "wide beta": config(BOUNDED, box_head=pc.BetaHead(low=0.1)),
}
# Beyond 1e-5: an action that may be one rounding apart, and bytes as they are in the input, of which float32
# keeps no more in the sums of the first layer.
OFF = {"act box bfloat16": 2**-7, "box float16": 2**-9, "normalized": 3e-5}
MISSING: tuple[str, ...] = ()  # classes that policy-core.js does not know, and refuses by name
pc.networks.register_activation("cubed in JavaScript", lambda x: x**3)


needs_node = pytest.mark.skipif(NODE is None, reason="there is no node: install pyright[nodejs]")


def _run(*arguments: str, **environment: str) -> str:
    assert NODE is not None
    result = subprocess.run(
        [NODE, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"
    return result.stdout


def _plain(x: Any) -> Any:
    """Elements, actions, states and masks for JSON; a joint mask is `{"allowed": ...}`."""
    if hasattr(x, "allowed"):
        return {"allowed": np.asarray(x.allowed).tolist()}
    if isinstance(x, dict):
        return {str(key): _plain(value) for key, value in x.items()}
    if isinstance(x, tuple | list):
        return [_plain(item) for item in x]
    if x is None or isinstance(x, str):
        return x
    array = np.asarray(x)
    return (
        array.astype(np.float64) if array.dtype.kind == "V" or array.dtype == jnp.bfloat16 else array
    ).tolist()


class Uniform:
    """A generator like NumPy's whose draws are those of policy-core.js for the same uniform numbers."""

    def __init__(self, numbers: list[float]) -> None:
        self.numbers, self.used = numbers, 0

    def _next(self) -> float:
        self.used += 1
        return self.numbers[(self.used - 1) % len(self.numbers)]

    def random(self, shape: Any = None) -> Any:
        if shape is None:
            return self._next()
        return np.array([self._next() for _ in range(math.prod(shape))]).reshape(shape)

    def beta(self, a: Any, b: Any) -> Any:
        """Marsaglia and Tsang, entry by entry, as log-odds."""
        odds = [
            self._log_gamma(x) - self._log_gamma(y) for x, y in zip(np.ravel(a), np.ravel(b), strict=True)
        ]
        return (1 / (1 + np.exp(-np.array(odds)))).reshape(np.shape(a))

    def _log_gamma(self, shape: float) -> float:
        if shape < 1:
            return self._log_gamma(shape + 1) + math.log1p(-self._next()) / shape
        d = shape - 1 / 3
        while True:
            x = float(self.standard_normal(()))
            v = (1 + x / math.sqrt(9 * d)) ** 3
            if v > 0 and math.log1p(-self._next()) < 0.5 * x * x + d - d * v + d * math.log(v):
                return math.log(d * v)

    def standard_normal(self, shape: Any) -> Any:
        """Box and Muller, of two uniform numbers each."""
        pairs = np.array([(self._next(), self._next()) for _ in range(math.prod(shape))]).reshape(-1, 2)
        radius, angle = np.sqrt(-2 * np.log1p(-pairs[:, 0])), 2 * np.pi * pairs[:, 1]
        return (radius * np.cos(angle)).reshape(shape)


def _is_discrete(config: Any) -> bool:
    """Whether a part of the action is discrete, or depends on such a part."""
    leaves = jax.tree.leaves(config.action_space.struct())
    return isinstance(config.box_head, pc.BinsHead) or any(leaf.dtype.kind in "iu" for leaf in leaves)


def _in_numpy(runner: Any, observations: list, masks: list, is_first: list) -> tuple[list, list, list]:
    state, actions, values, states = runner.reset(), [], [], []
    for observation, mask, first in zip(observations, masks, is_first, strict=True):
        _, value = runner.value(state, observation, is_first=first)
        state, action = runner.act(state, observation, action_mask=mask, is_first=first)
        actions.append(action)
        values.append(value)
        states.append(state)
    return actions, values, states


def _in_jax(policy: Any, observations: list, masks: list, is_first: list) -> tuple[list, list, list]:
    @jax.jit
    def run(observations: Any, masks: Any, is_first: Any) -> Any:
        def step(state: Any, inputs: Any) -> Any:
            observation, mask, first = inputs
            _, value = pc.value(policy, state, observation, is_first=first)
            state, action = pc.act(policy, state, observation, action_mask=mask, is_first=first)
            return state, (action, value, state)

        return jax.lax.scan(step, pc.reset(policy), (observations, masks, is_first))[1]

    stacked = [jax.tree.map(lambda *rows: np.stack(rows), *rows) for rows in (observations, masks)]
    outputs = jax.tree.map(np.asarray, run(*stacked, np.array(is_first)))
    count = len(is_first)
    return tuple([jax.tree.map(lambda x, i=i: x[i], output) for i in range(count)] for output in outputs)  # type: ignore[return-value]


def _element(space: Any, rng: np.random.Generator) -> Any:
    """An element of a space, of numbers of order 1; without JAX, which would compile for each space."""
    match space:
        case pc.Box(shape=shape, dtype=dtype) if "float" in dtype:
            low, high = space.bounds()
            return np.clip(rng.standard_normal(shape), low, high).astype(np.float32)
        case pc.Box(shape=shape, dtype=dtype):
            return rng.integers(*(int(end.min()) for end in space.bounds()), size=shape, dtype=dtype)
        case pc.Discrete(n=n, start=start):
            return np.int32(rng.integers(start, start + n))
        case pc.MultiDiscrete(nvec=nvec):
            return space.starts() + rng.integers(nvec).reshape(space.struct().shape).astype(np.int32)
        case pc.MultiBinary():
            return rng.integers(2, size=space.struct().shape, dtype=np.int32)
        case pc.Dict(spaces=spaces):
            return {name: _element(part, rng) for name, part in spaces}
        case pc.Tuple(spaces=spaces):
            return tuple(_element(part, rng) for part in spaces)
    raise AssertionError(space)


def _case(folder: Path, name: str, config: Any) -> dict[str, Any]:
    """A file of one policy, what it is given, and what is expected."""
    policy, rng = on_numpy._policy(config), np.random.default_rng(1)
    file = folder / f"{name.replace(' ', '-').replace(',', '')}.msgpack"
    pc.save(file, policy, self_test=False)
    runner = numpy_runner.load(file, mask_functions={"others": on_numpy.others})
    count = max(COUNT, STEPS) if config.memory is not None else COUNT
    observations = [_element(config.observation_space, rng) for _ in range(count)]
    masks = [on_numpy._random_mask(config.action_space.full_mask(), rng) for _ in range(count)]
    is_first = [i % 130 == 70 for i in range(count)]
    references = [_in_numpy(runner, observations, masks, is_first)]
    if FULL or name in IN_JAX:
        references.append(_in_jax(policy, observations, masks, is_first))
    uniforms = rng.random(997).tolist()
    draws = []
    generator, state = Uniform(uniforms), runner.reset()
    for observation, mask in zip(observations[:50], masks[:50], strict=True):
        state, action = runner.act(state, observation, rng=generator, action_mask=mask)
        draws.append(_plain(action))
    return {
        "name": name,
        "file": str(file),
        "observations": _plain(observations),
        "masks": _plain(masks),
        "is_first": is_first,
        "references": [
            dict(zip(("actions", "values", "states"), _plain(part), strict=True)) for part in references
        ],
        "uniforms": uniforms,
        "draws": draws,
        "fingerprint": pc.fingerprint(config).hex(),
        "off": OFF.get(name, 1e-5),
        "ties": _is_discrete(config),
    }


def _joint(folder: Path) -> None:
    """A policy under joint masks, and what it does under 50 of them."""
    policy, rng = (
        on_numpy._policy(config(pc.MultiDiscrete((2, 3, 2), start=(0, 1, 0)), temperature=2.0)),
        np.random.default_rng(0),
    )
    file = folder / "joint.msgpack"
    pc.save(file, policy, self_test=False)
    runner, allowed = numpy_runner.load(file), rng.random((50, 2, 3, 2)) < 0.3
    allowed[0] = False  # allows everything
    observations = rng.standard_normal((50, 3)).astype(np.float32)
    modes = [
        runner.act((), x, action_mask=pc.spaces.JointMask(one))[1]
        for x, one in zip(observations, allowed, strict=True)
    ]
    rows = [{"allowed": _plain(one), "mode": _plain(mode)} for one, mode in zip(allowed, modes, strict=True)]
    content = {"file": str(file), "rows": rows, "observations": _plain(observations)}
    (folder / "joint.json").write_text(json.dumps(content))


def _broken(data: bytes) -> bytes:
    """The file with another bias of its actor, and the outputs of before."""
    document = opened(data)
    row = next(
        row for row in document["leaves"] if row[0].startswith("actor/head/") and row[0].endswith("bias")
    )
    bias = np.frombuffer(row[3], np.float32)
    row[3] = (bias + 0.25 * np.arange(1, bias.size + 1)).astype(np.float32).tobytes()
    return closed(document)


def _self_tests(folder: Path) -> None:
    """Files that hold what JAX gave when they were saved."""
    files = []
    names = [name for name in CONFIGS if name in SELF_TESTED or (FULL and name not in UNBROKEN)]
    policies = {name: on_numpy._policy(CONFIGS[name]) for name in names}
    policies["population"] = jax.tree.map(
        lambda *x: jnp.stack(x), *[on_numpy._policy(CONFIGS["act box"], seed) for seed in range(3)]
    )
    params, inner = on_numpy._policy(CONFIGS["fixed std"])
    policies["in environment actions"] = params, pc.env_actions.InEnvActions(inner)
    for i, (name, policy) in enumerate(policies.items()):
        data = pc.to_bytes(policy)
        file, broken = folder / f"self-test-{i}", folder / f"broken-{i}"
        file.write_bytes(data)
        broken.write_bytes(_broken(data))
        member = [1] if name == "population" else []
        files.append({"name": name, "file": str(file), "broken": str(broken), "member": member})
    (folder / "self-tests.json").write_text(json.dumps({"files": files}))


def _hostile(folder: Path) -> None:
    """The files that the other readers refuse."""
    (folder / "hostile").mkdir()
    (folder / "hostile-good.msgpack").write_bytes(abuse.DATA)
    files = {**abuse.HOSTILE, **abuse.SPELLINGS}
    files |= {
        name: lambda make=make: abuse._config_of(abuse._policy_data(**make()))
        for name, make in abuse.LARGE.items()
    }
    for name, make in files.items():
        (folder / "hostile" / name).write_bytes(make())
    for path in abuse.ABUSE:
        shutil.copy(path, folder / "hostile" / path.name)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with all files, after `js/test/` has run on it."""
    folder = tmp_path_factory.mktemp("javascript")
    jaxtyping.config.update("jaxtyping_disable", True)  # as by `unchecked`, which is of one test
    cases = [_case(folder, name, config) for name, config in CONFIGS.items()]
    (folder / "cases.json").write_text(json.dumps(cases))
    for name, one in SAMPLED.items():
        pc.save(folder / f"{name}.msgpack", on_numpy._policy(one), self_test=False)
    own = config(pc.Discrete(3), actor=pc.MLP((8,), activation="cubed in JavaScript"))
    pc.save(folder / "own-activation.msgpack", on_numpy._policy(own), self_test=False)
    space = pc.Dict({"x": OBSERVATION, "truth": pc.Box(shape=(2,))})
    privileged = config(BOUNDED, space, actor_keys=("x",), normalize=pc.Normalize())
    pc.save(folder / "actor-only.msgpack", pc.actor_only(on_numpy._policy(privileged)), self_test=False)
    critic = pc.surgery.critic_only(
        on_numpy._policy(config(BOUNDED, memory=pc.GRU(3), memory_sharing="separate"))
    )
    pc.save(folder / "critic-only.msgpack", critic, self_test=False)
    (folder / "critic-only.json").write_text(
        json.dumps(float(pc.value(critic, pc.reset(critic), jnp.array([0.3, -0.2, 0.5]))[1]))
    )
    _joint(folder)
    _self_tests(folder)
    _hostile(folder)
    return folder


@needs_node
def test_it_acts_as_the_policy_and_refuses_what_the_readers_refuse(table):
    """All of `js/test/`: modes, values, states, draws, masks, self-tests, damage."""
    tests = sorted(map(str, (JS / "test").glob("*.test.js")))
    output = _run("--test", *tests, POLICY_CORE_TABLE=str(table))
    count = {
        name: int(re.search(rf"^. {name} (\d+)$", output, re.MULTILINE)[1])
        for name in ("pass", "fail", "skipped")
    }
    assert count["fail"] == count["skipped"] == 0
    assert count["pass"] > len(CONFIGS) + 15
    if FULL:
        print(output)
    for name, shown in json.loads((table / "draws.json").read_text()).items():
        draws, low, high = (np.array(shown[key]) for key in ("draws", "low", "high"))
        for i in range(2):
            if "alpha" in shown:
                law = scipy.stats.beta(shown["alpha"][i], shown["beta"][i], low[i], high[i] - low[i])
            else:
                law = scipy.stats.norm(shown["mean"][i], shown["std"][i])
            x = draws[:, i]
            if name == "squashed":  # to the normal before the squash
                x = np.arctanh(np.clip(2 * (x - low[i]) / (high[i] - low[i]) - 1, -1 + 1e-7, 1 - 1e-7))
            assert scipy.stats.kstest(x, law.cdf).pvalue > 1e-5, name


@needs_node
def test_an_export_is_the_file_beside_the_runner_and_is_replayed(tmp_path, capsys):
    def run(*arguments: str) -> int:
        parser = argparse.ArgumentParser()
        command.add(parser)
        options = parser.parse_args([str(tmp_path / "file"), "--js", "-o", str(tmp_path / "out"), *arguments])
        result, code = options.run(options)
        options.show(result)
        return int(code)

    params, one = on_numpy._policy(CONFIGS["beta"])
    data = pc.to_bytes((params, one))
    (tmp_path / "file").write_bytes(data)
    assert run() == 0
    assert re.search(
        r"^over 8 steps within \S+e-\d\d of the self-test.* us a call$", capsys.readouterr().out, re.M
    )
    folder = tmp_path / "out"
    assert (folder / "policy.msgpack").read_bytes() == data
    assert (folder / "policy-core.js").read_bytes() == (JS / "policy-core.js").read_bytes()
    (tmp_path / "file").write_bytes(_broken(data))
    assert run() == 1, "not what it was"
    for arguments in (["--noise"], ["--batch", "3"], ["--int8", "0.1"], ["--outputs", "value"]):
        with pytest.raises(
            pc.errors.ConfigError, match=r"the target js is the whole policy, and has no such option"
        ):
            run(*arguments)
    population = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), params), one
    pc.save(tmp_path / "file", population)
    with pytest.raises(
        pc.errors.FileError, match=r"^member: got \(\), expected an index for each of the axes"
    ):
        run()
    assert run("--member", "1") == 0
    assert "{ member: [1] }" in (folder / "index.html").read_text()
    (tmp_path / "file").write_bytes(data[:-1])
    with pytest.raises(pc.errors.FileError, match=r"."):
        run()


def test_the_wheel_has_the_runner():
    include = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"][
        "wheel"
    ]
    assert include["force-include"] == {"js/policy-core.js": "policy_core_adapters/exports/policy-core.js"}
    assert Path(javascript.__file__).parent / "policy-core.js" == javascript._INSTALLED
    assert javascript._OURS == JS / "policy-core.js"


RESOLVED = {"MultiDiscrete": {"shape", "start"}}  # defaults that no file has


def _json(value: Any) -> Any:
    """Plain data of a config, infinity as text, as JSON has none."""
    if isinstance(value, dict):
        return {key: _json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_json(item) for item in value]
    return "inf" if value == math.inf else "-inf" if value == -math.inf else value


@needs_node
def test_it_knows_every_class_field_and_default():
    """A new class, field or default of policy_core is one of policy-core.js too, or a row of `MISSING`."""
    fields: dict[str, Any] = {}
    defaults: dict[str, Any] = {}
    for name, cls in CLASSES.items():
        package, _, short = name.partition("/")
        if package != "policy_core" or short in ("Graph", *MISSING):  # no file has a Graph
            continue
        later = _json(added_defaults(name))
        fields[short], defaults[short] = {}, {}
        for field in dataclasses.fields(cls):
            fields[short][field.name] = {"later": later[field.name]} if field.name in later else "required"
            ordinary = field.default is not dataclasses.MISSING and field.name not in later
            if ordinary and field.name not in RESOLVED.get(short, ()):
                defaults[short][field.name] = _json(msgpack.unpackb(encode(field.default)))
    script = """import("./js/policy-core.js").then(({ CLASSES, DEFAULTS }) => {
        const plain = (_, x) => typeof x === "function" ? "required" : typeof x === "bigint" ? Number(x)
            : x === Infinity ? "inf" : x === -Infinity ? "-inf" : x?.check ? { later: x.otherwise } : x;
        console.log(JSON.stringify({ CLASSES, DEFAULTS }, plain));
    })"""
    theirs = json.loads(_run("-e", script))
    assert theirs["CLASSES"] == fields

    def full(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        both = {**defaults[value["type"].removeprefix("policy_core/")], **value["fields"]}
        return {"type": value["type"], "fields": {key: full(both[key]) for key in sorted(both)}}

    got = {name: {key: full(value) for key, value in of.items()} for name, of in theirs["DEFAULTS"].items()}
    assert got == {name: of for name, of in defaults.items() if of}


def _tagged(value: Any) -> Any:
    """A decoded value for a comparison that tells 1 from 1.0."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, int):
        return {"int": str(value)}
    if isinstance(value, float):
        return {"float": struct.pack(">d", value).hex()}
    if isinstance(value, list):
        return [_tagged(item) for item in value]
    return {"type": value["type"], "fields": [[key, _tagged(item)] for key, item in value["fields"].items()]}


def _in_python(data: bytes) -> Any:
    """What the reader of the runner on NumPy makes of a config; None if it refuses it."""
    try:
        reader = Reader(memoryview(data))
        value = reader.value()
    except ValueError:
        return None
    return {"value": _tagged(value)} if reader.position == len(data) else None


@needs_node
def test_its_msgpack_is_that_of_the_package(tmp_path):
    """What it accepts, `msgpack` reads to the same values and writes to the same bytes; and it accepts as much."""
    rng = np.random.default_rng(0)
    texts = ["", "a", "é" * 20, "\U0001f600", "\ufffd", "x" * 300, "type", "\0"]
    numbers = [
        0,
        1,
        127,
        128,
        255,
        256,
        65535,
        65536,
        2**32 - 1,
        2**32,
        2**53 + 1,
        2**64 - 1,
        -1,
        -32,
        -33,
        -128,
    ]
    numbers += [-129, -32768, -32769, -(2**31), -(2**31) - 1, -(2**63), 1.0, 0.1, math.inf, -math.inf, 5e-324]

    def tree(depth: int) -> Any:
        kind = rng.integers(5) if depth else 4
        if kind < 2:
            return [tree(depth - 1) for _ in range(rng.integers(20))]
        if kind == 2:
            keys = sorted({texts[rng.integers(len(texts))] for _ in range(rng.integers(4))})
            return {"type": texts[rng.integers(len(texts))], "fields": {key: tree(depth - 1) for key in keys}}
        return [None, True, False, *texts, *numbers][rng.integers(3 + len(texts) + len(numbers))]

    good = [msgpack.packb(tree(3)) for _ in range(300)] + [msgpack.packb(x) for x in (*texts, *numbers)]
    good += [msgpack.packb(to_data(config)) for config in CONFIGS.values()]
    blobs = list(good)
    for _ in range(20_000 if FULL else 4000):
        data = bytearray(good[rng.integers(len(good))])
        at, kind = rng.integers(len(data) + 1), rng.integers(4)
        if kind == 0 and at < len(data):
            data[at] = rng.integers(256)
        elif kind == 1:
            data[at:at] = rng.bytes(rng.integers(1, 4))
        elif kind == 2:
            del data[at : at + rng.integers(1, 4)]
        else:
            other = good[rng.integers(len(good))]
            data[at:] = other[rng.integers(len(other)) :]
        blobs.append(bytes(data))
    (tmp_path / "blobs.json").write_text(json.dumps([data.hex() for data in blobs]))
    results = json.loads(_run("js/test/read-configs.mjs", str(tmp_path / "blobs.json")))
    accepted = 0
    for data, result in zip(blobs, results, strict=True):
        assert result == _in_python(data), data.hex()
        if result is not None:
            accepted += 1
            value = msgpack.unpackb(data)
            assert result["value"] == _tagged(value)
            assert msgpack.packb(value) == data
    assert all(result is not None for result in results[: len(good)])
    assert len(blobs) // 2 > accepted - len(good) > 50, "mutations that load, and mutations that do not"
