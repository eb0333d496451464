"""Policies in other runtimes: bytes, microseconds a call, largest deviation. Run by `make bench-deploy`.

The table of docs/deploy.md. Every target of `policy-core export` whose runtime is there has a column;
the deviation is that of actions and states over 1,000 observations, carried on, from those of `act`.
jax2onnx is measured beside ONNX where it is installed; no extra has it, for it holds back other packages.
"""

import importlib.util
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
from policy_core_adapters.exports.lowering import ExportError
from policy_core_adapters.exports.targets import TARGETS, Report, export

import policy_core as pc
from benchmarks.table import lines

OBSERVATIONS = 1000
BOX = pc.Box(low=-1.0, high=1.0, shape=(6,))
PARTS = pc.Dict({"tool": pc.Discrete(5), "aim": pc.MultiDiscrete((3, 4)), "force": BOX})
SENSED = {"observation_space": pc.Box(shape=(17,)), "normalize": pc.Normalize()}
SQUASHED = {**SENSED, "action_space": BOX, "box_head": pc.SquashedNormalHead()}
CASES: dict[str, Any] = {
    "MLP 64, 64; 6 choices": {"observation_space": pc.Box(shape=(17,)), "action_space": pc.Discrete(6)},
    "the same, masked": {
        "observation_space": pc.Box(shape=(17,)), "action_space": pc.Discrete(6), "masks": "rows",
    },
    "normalizer, MLP 64, 64; squashed": SQUASHED,
    "normalizer, MLP 256, 256, 256; normal": {
        **SENSED, "action_space": BOX, "actor": pc.MLP((256, 256, 256), activation="elu"),
    },
    "the same in 8 bits": {
        **SENSED, "action_space": BOX, "actor": pc.MLP((256, 256, 256), activation="elu"), "int8": 1.0,
    },
    "normalizer, GRU 64, MLP 64, 64; squashed": {**SQUASHED, "memory": pc.GRU(64)},
    "normalizer, LSTM 64, MLP 64, 64; squashed": {**SQUASHED, "memory": pc.LSTM(64)},
    "window attention 64, MLP 64, 64; parts": {
        **SENSED, "action_space": PARTS, "memory": pc.WindowAttention(64),
    },
    "NatureCNN 84 x 84 x 4; 6 choices": {
        "observation_space": pc.Box(low=0, high=255, shape=(84, 84, 4), dtype="uint8"),
        "action_space": pc.Discrete(6), "actor": pc.MLP(()), "trunk": pc.MLP(()),
    },
}  # fmt: skip


def policy_of(fields: dict[str, Any]) -> Any:
    """A policy whose params are as large as trained ones, so that its actions are no small numbers."""
    config = pc.ActorCriticConfig(**{name: x for name, x in fields.items() if name not in ("masks", "int8")})
    policy = pc.init(config, key=jax.random.key(0))
    params = policy[0]
    head = params["actor"]["head"]
    params["actor"]["head"] = jax.tree.map(lambda x: 50 * x if x.ndim == 2 else x, head)  # its gain is 0.01
    if "normalize" in params:
        rng = np.random.default_rng(0)
        seen = jnp.asarray(1 + 2 * rng.standard_normal((256, 17)), jnp.float32)
        return pc.update_statistics((params, config), seen)
    return params, config


def line(name: str, target: str, fields: dict[str, Any], folder: Path) -> tuple[list[str], Any]:
    """A row of the table, and the policy."""
    policy = policy_of(fields)
    keys = jax.random.split(jax.random.key(1), OBSERVATIONS)
    observations = jax.vmap(lambda key: policy[1].observation_space.sample(key=key))(keys)
    pc.save(folder / "plain", policy)  # whose self-test of 8 observations counts to the bytes
    pc.save(folder / "file", policy, observations=observations)
    options = {key: fields[key] for key in ("masks", "int8") if key in fields}
    try:
        size = export(folder / "plain", folder / "out", target, calls=0, **options).nbytes
        report = export(folder / "file", folder / "out", target, calls=2000, **options)
    except ExportError as error:
        return [name, target, "-", "-", "-", str(error).partition(":")[0]], policy
    return [name, target, *_cells(report, size)], policy


def _cells(report: Report, nbytes: int) -> list[str]:
    replay, nodes = report.replay, report.numbers.get("nodes")
    size = f"{nbytes / 1000:,.1f}"
    if replay is None:
        return [str(nodes or "-"), size, "-", report.missing]
    off = f"{replay.deviation:.1e}"
    if report.loss is not None:
        off = f"{report.loss.drawn.deviation:.1e} of 8 bits, {off} of the target"
    elif replay.output == "" or replay.deviation == 0:
        off = f"{replay.differing} of {replay.steps:,} differ"
    return [str(nodes or "-"), size, f"{replay.microseconds:.1f}", off]


def other_converter(policy: Any, folder: Path, masked: bool) -> list[str]:
    """jax2onnx: nodes, kilobytes, microseconds."""
    import onnxruntime  # pyright: ignore[reportMissingImports]
    from jax2onnx import to_onnx  # type: ignore[import-not-found]  # pyright: ignore[reportMissingImports]

    mask = policy[1].action_space.full_mask() if masked else None
    inputs, structure = jax.tree.flatten((pc.reset(policy), policy[1].observation_space.struct(), mask))

    def act(*leaves: Any) -> tuple[Any, ...]:
        state, observation, mask = jax.tree.unflatten(structure, leaves)
        return tuple(jax.tree.leaves(pc.act(policy, state, observation, action_mask=mask)))

    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in inputs]
    # Traced first: it takes the checks of shapes in `act` for a part of the graph.
    traced: Callable[..., Any] = jax.extend.core.jaxpr_as_fun(jax.make_jaxpr(act)(*shapes))
    options: Any = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    try:
        model: Any = to_onnx(lambda *leaves: tuple(traced(*leaves)), inputs=shapes)
        (folder / "other.onnx").write_bytes(model.SerializeToString())
        session: Any = onnxruntime.InferenceSession(str(folder / "other.onnx"), options)
    except Exception as error:  # whatever it raises for what it does not carry, or onnxruntime for its model
        return ["-", "-", "-", f"{type(error).__name__}: {str(error).strip()[-60:]}"]
    feeds = {x.name: np.zeros(s.shape, s.dtype) for x, s in zip(session.get_inputs(), shapes, strict=True)}
    times = []
    for _ in range(2000):
        start = time.perf_counter()
        session.run(None, feeds)
        times.append(time.perf_counter() - start)
    size = (folder / "other.onnx").stat().st_size / 1000
    return [str(len(model.graph.node)), f"{size:,.1f}", f"{1e6 * float(np.median(times)):.1f}", ""]


def main() -> None:
    """Print the table, row by row."""
    titles = ("policy, 17 numbers in unless said", "target", "nodes", "kB", "us a call", "largest deviation")
    for text in lines(titles, _rows(), "<<>>><"):
        print(text, flush=True)


def _rows() -> Iterator[list[str]]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for case, fields in CASES.items():
            policy = None
            for target in TARGETS:
                row, policy = line(case, target, fields, folder)
                yield row
            if "int8" not in fields and importlib.util.find_spec("jax2onnx"):
                yield [case, "jax2onnx", *other_converter(policy, folder, "masks" in fields)]


if __name__ == "__main__":
    main()
