"""The command `policy-core export FILE --onnx -o OUT`, or `--c`, `--stablehlo` or `--js`."""

import argparse
from pathlib import Path
from typing import Any

import policy_core as pc
from policy_core_adapters.exports.lowering import ExportError
from policy_core_adapters.exports.lowering.policies import OUTPUTS
from policy_core_adapters.exports.targets import TARGETS, WHOLE, Report, export

HELP = {
    "onnx": "an ONNX model of opset 17",
    "c": "a source OUT.c and a header OUT.h in C99; OUT is also in front of all names",
    "stablehlo": "StableHLO: a text if OUT ends in .mlir, else as `jax.export` serializes it; needs JAX",
    "js": "a folder OUT with the file, policy-core.js and a page that loads it",
}


def add(parser: argparse.ArgumentParser) -> None:
    """Take a policy to another runtime, and replay its self-test there.

    Exit codes: 0; 1 if the target is further off than the tolerance, and what was written stays; 2 for
    what cannot be exported.
    """
    parser.add_argument("file", type=Path, metavar="FILE")
    group = parser.add_mutually_exclusive_group(required=True)
    for name in (*TARGETS, *WHOLE):
        group.add_argument(f"--{name}", dest="target", action="store_const", const=name, help=HELP[name])
    parser.add_argument(
        "-o", "--out", type=Path, required=True, metavar="OUT", help="the file to write, or the folder"
    )
    parser.add_argument("--member", type=_index, default=(), metavar="I", help="which one of a population")
    parser.add_argument(
        "--outputs", type=_names, default=("action",), metavar="A,B", help=f"some of {', '.join(OUTPUTS)}"
    )
    parser.add_argument("--masks", choices=("none", "rows", "joint"), default="none", help="inputs for masks")
    parser.add_argument("--noise", action="store_true", help="draw the action from inputs of noise")
    parser.add_argument("--is-first", action="store_true", help="an input that resets the memory")
    parser.add_argument(
        "--int8", type=float, metavar="BOUND", help="kernels in 8 bits, if they cost no more than this share"
    )
    parser.add_argument(
        "--batch", type=_batch, metavar="N", help="a batch axis of this size, or of this name"
    )
    parser.add_argument("--tolerance", type=float, default=1e-4, help="of the replay, 1e-4 by default")
    parser.set_defaults(run=_run, show=_show)


def _index(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _batch(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


def _run(options: Any) -> tuple[Any, int]:
    more = {} if options.batch is None else {"batch": options.batch}
    try:
        report = export(
            options.file,
            options.out,
            options.target,
            int8=options.int8,
            member=options.member,
            outputs=options.outputs,
            masks=options.masks,
            noise=options.noise,
            is_first=options.is_first,
            **more,
        )
    except ExportError as error:
        raise pc.errors.ConfigError(str(error)) from error
    except ValueError as error:
        raise pc.errors.FileError(str(error)) from error
    result = {"file": str(options.file), "tolerance": options.tolerance, **_plain(report)}
    replay = report.replay
    off = replay is not None and (not replay.deviation <= options.tolerance or replay.differing > 0)
    return result, int(off)


def _plain(report: Report) -> dict[str, Any]:
    """A report as text and numbers."""
    return {
        "target": report.target,
        "paths": [str(path) for path in report.paths],
        "nbytes": report.nbytes,
        **report.numbers,
        "replay": None if report.replay is None else report.replay._asdict(),
        "missing": report.missing,
        "loss": None
        if report.loss is None
        else {name: part and part._asdict() for name, part in report.loss._asdict().items()},
    }


_NUMBERS = {
    "nodes": "{} nodes",
    "text": "compiled {:,} bytes of code and constants",
    "ram": "{:,} bytes of RAM",
}


def _show(result: dict[str, Any]) -> None:
    more = [text.format(result[name]) for name, text in _NUMBERS.items() if name in result]
    print(", ".join([f"{', '.join(result['paths'])}: {result['nbytes']:,} bytes", *more]))
    replay = result["replay"]
    if replay is None:
        print(f"not replayed: {result['missing']}")
    else:
        of = f" (of {replay['output']})" if replay["output"] else ""
        print(
            f"over {replay['steps']} steps within {replay['deviation']:.3g}{of} of the {replay['against']}, "
            f"{replay['differing']} discrete numbers differ ({result['tolerance']:g} is allowed, and none); "
            f"{replay['microseconds']:.3g} us a call"
        )
    for name, part in (result["loss"] or {}).items():
        if part is not None:
            print(
                f"8 bits, {part['observations']:,} observations ({name.replace('_', '-')}): actions move by "
                f"up to {part['deviation']:.3g}, {part['share']:.3g} of their range; "
                f"{100 * part['agreement']:.4g} % of the discrete numbers agree"
            )
