"""What a policy can be exported to, and how each target is written and called.

Another target is a function in `TARGETS`, or in `WHOLE` if it takes the file itself; the command and the
benchmarks find it there.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from policy_core_adapters.exports.loss import Loss, loss_of
from policy_core_adapters.exports.lowering import ExportError, Lowered, lower
from policy_core_adapters.exports.replay import Call, Replay, replay
from policy_core_adapters.numpy_runner.networks import Array

Paths = str | os.PathLike[str]


class Written(NamedTuple):
    """What a target wrote."""

    paths: tuple[Path, ...]
    call: Call | None
    """One step of it, or None if its runtime is not there."""
    missing: str = ""
    """What is missing then, and how to get it."""
    numbers: Mapping[str, int] = {}
    """More to be told, such as the number of nodes."""
    microseconds: float | None = None
    """Of a call, if it was measured in the target; else the replay measures it from Python."""


class Asked(NamedTuple):
    """What was lowered, for targets that do not print the graph."""

    file: Paths
    options: Mapping[str, Any]
    """Of `lower`."""
    int8: bool


Target = Callable[[Lowered, Path, Mapping[str, Any], Asked], Written]
"""`(lowered, path, options of the target, what was asked for) -> what was written`"""


class Report(NamedTuple):
    """What an export gave."""

    target: str
    paths: tuple[Path, ...]
    nbytes: int
    """Of all files."""
    replay: Replay | None
    """None if the runtime is not there."""
    missing: str
    loss: Loss | None
    """What 8 bits cost."""
    numbers: Mapping[str, int]


def export(
    file: Paths, out: Paths, target: str, *, int8: float | None = None, calls: int = 200, **options: Any
) -> Report:
    """Write a policy for a target, and replay its self-test there.

    Args:
        file: the policy file.
        out: the path of what is written.
        target: a name in `TARGETS`.
        int8: keep kernels in 8 bits, if no action is moved by more than this share of its range and no
            larger share of the discrete choices changes.
        calls: how many calls are timed.
        options: of `lower` (member, outputs, masks, noise, is_first, activations, mask_functions), and
            of the target.

    Raises:
        ExportError: for what the target does not carry, or if more is lost than `int8` allows.
        ValueError: for a damaged file.
        OSError: if there is no such file, or `out` cannot be written.
    """
    if target not in (*TARGETS, *WHOLE):
        raise ExportError(f"target: got {target!r}, expected one of {sorted((*TARGETS, *WHOLE))}")
    if target in WHOLE:
        return _whole(file, Path(out), target, calls, {"int8": int8, **options})
    known = ("member", "outputs", "masks", "noise", "is_first", "activations", "mask_functions")
    asked = {name: options.pop(name) for name in known if name in options}
    lowered = lower(file, **asked)
    loss = None
    if int8 is not None:
        whole, lowered = lowered, lower(file, int8=True, **asked)
        if "action" not in {name.partition("/")[0] for name in lowered.graph.outputs}:
            raise ExportError("int8: its loss is that of the action; put 'action' among the outputs")
        loss = loss_of(whole, lowered, bound=int8)
    written = TARGETS[target](lowered, Path(out), options, Asked(file, asked, int8 is not None))
    result = None
    if written.call is not None:
        scored = None if int8 is not None else _scored(file, asked, lowered)
        result = replay(lowered, written.call, scored=scored, calls=calls)
        if written.microseconds is not None:
            result = result._replace(microseconds=written.microseconds)
    nbytes = sum(path.stat().st_size for path in written.paths)
    return Report(target, written.paths, nbytes, result, written.missing, loss, written.numbers)


def _scored(file: Paths, asked: dict[str, Any], lowered: Lowered) -> Lowered | None:
    """The graph with log-probabilities, where there are discrete choices and they are carried."""
    if (
        all(x.dtype == "float32" for x in lowered.graph.outputs.values())
        or "log_prob" not in lowered.self_test
    ):
        return None
    outputs = dict.fromkeys((*asked.get("outputs", ("action",)), "log_prob"))
    try:
        return lower(file, **{**asked, "outputs": tuple(outputs)})
    except ExportError:
        return None


def _only(target: str, options: Mapping[str, Any], *known: str) -> None:
    """Raise ExportError for an option that a target has not."""
    if unknown := sorted(set(options) - set(known)):
        raise ExportError(f"{unknown[0]}: the target {target} has no such option")


def _onnx(lowered: Lowered, path: Path, options: Mapping[str, Any], _: Asked) -> Written:
    from policy_core_adapters.exports.onnx import model_of

    _only("onnx", options, "batch")
    model = model_of(lowered, batch=options.get("batch"))
    path.write_bytes(model.SerializeToString())
    numbers = {"nodes": len(model.graph.node)}
    try:
        return Written((path,), onnx_call(lowered, path, options.get("batch")), numbers=numbers)
    except ImportError:
        return Written((path,), None, "onnxruntime is not installed; install policy-core[onnx]", numbers)


def onnx_call(lowered: Lowered, path: Paths, batch: int | str | None = None) -> Call:
    """One step of an ONNX model in onnxruntime, on one thread."""
    import onnxruntime  # pyright: ignore[reportMissingImports]

    options: Any = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session: Any = onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
    names, count = list(lowered.graph.outputs), batch if isinstance(batch, int) else 1
    if batch is None:
        return lambda feeds: dict(zip(names, session.run(names, feeds), strict=True))

    def call(feeds: dict[str, Array]) -> dict[str, Array]:
        wide = {name: np.repeat(np.asarray(x)[None], count, 0) for name, x in feeds.items()}
        return {name: x[0] for name, x in zip(names, session.run(names, wide), strict=True)}

    return call


def _c(lowered: Lowered, path: Path, options: Mapping[str, Any], _: Asked) -> Written:
    from policy_core_adapters.exports.c_source import write
    from policy_core_adapters.exports.c_source.build import build, compiler

    _only("c", options, "prefix")
    base = path.with_suffix("") if path.suffix in (".c", ".h") else path
    prefix = options.get("prefix") or base.name
    if base.name != prefix:
        raise ExportError(
            f"prefix: got {prefix!r} for a file {base.name!r}, but the source includes the header"
        )
    source = write(lowered, prefix=prefix)
    paths = base.with_name(f"{prefix}.c"), base.with_name(f"{prefix}.h")
    paths[0].write_text(source.source)
    paths[1].write_text(source.header)
    numbers = {"ram": source.ram}
    if compiler() is None:
        return Written(paths, None, "there is no C compiler `cc`, and none in the variable CC", numbers)
    built = build(source, prefix)
    numbers |= {} if built.text is None else {"text": built.text}
    return Written(paths, built.call, numbers=numbers, microseconds=built.microseconds)


def _stablehlo(lowered: Lowered, path: Path, options: Mapping[str, Any], asked: Asked) -> Written:
    from policy_core_adapters.exports.stablehlo import write_file

    _only("stablehlo", options, "batch")
    return Written((path,), write_file(lowered, path, asked, options.get("batch")))


_DEFAULTS = {
    "int8": None, "outputs": ("action",), "masks": "none", "noise": False, "is_first": False,
    "activations": None, "mask_functions": None,
}  # fmt: skip


def _whole(file: Paths, out: Path, target: str, calls: int, options: dict[str, Any]) -> Report:
    """A target that is the file itself: it does all that a file says, and less cannot be asked for."""
    member = options.pop("member", ())
    for name, value in options.items():
        if name not in _DEFAULTS or value != _DEFAULTS[name]:
            raise ExportError(
                f"{name}: got {value!r}; the target {target} is the whole policy, and has no such option"
            )
    paths, replay, missing = WHOLE[target](file, out, member, calls)
    nbytes = sum(path.stat().st_size for path in paths)
    return Report(target, paths, nbytes, replay, missing, None, {})


def _js(
    file: Paths, out: Path, member: tuple[int, ...] | int, calls: int
) -> tuple[tuple[Path, ...], Replay | None, str]:
    from policy_core_adapters.exports.javascript import write

    return write(file, out, member, calls)


TARGETS: dict[str, Target] = {"onnx": _onnx, "c": _c, "stablehlo": _stablehlo}
WHOLE: dict[str, Callable[..., tuple[tuple[Path, ...], Replay | None, str]]] = {"js": _js}
"""Those that take the file itself, `(file, path, member, calls) -> (paths, replay, what is missing)`."""
