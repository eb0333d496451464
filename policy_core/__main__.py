"""`policy-core inspect FILE`, `verify FILE`, `diff A B`, `member FILE I OUT`; or `python -m policy_core ...`.

Exit codes: 0 for a good answer; 1 if a file fails its self-test, is of another config than asked,
or two files differ; 2 if a file is missing, damaged or no policy file, or the command is wrong.
`--json` prints one JSON object instead of tables.
"""

import argparse
import json
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from policy_core import files
from policy_core.configs.comparison import diff_data, printable
from policy_core.errors import PolicyError, SelfTestError
from policy_core.files.members import extract
from policy_core.files.policies import read_document
from policy_core.files.rows import Row


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        result, code = options.run(options)
    except (PolicyError, OSError) as error:
        if options.json:
            print(json.dumps({"error": str(error)}))
        else:
            print(f"policy_core: {printable(str(error))}", file=sys.stderr)
        return 1 if isinstance(error, SelfTestError) else 2
    try:
        if options.json:
            print(json.dumps(_plain(result), indent=2))
        else:
            options.show(result)
        sys.stdout.flush()
    except BrokenPipeError:  # as in `inspect FILE | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
    return int(code)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="policy-core",
        description="Look into policy files.",
        epilog="Exit codes: 0 for a good answer; 1 if a self-test fails or two files differ; 2 if a file is "
        "missing, damaged or no policy file, or the command is wrong.",
    )
    parser.add_argument("--version", action="version", version=f"policy_core {_version()}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, run, show, paths, text in (
        ("inspect", _inspect, _show_inspect, ("file",), "show what a file holds"),
        ("verify", _verify, _show_verify, ("file",), "check a file and run its self-test"),
        ("diff", _diff, _show_diff, ("a", "b"), "compare two files: config fields and params"),
        ("member", _member, _show_member, ("file",), "take one policy out of the file of a population"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        for path in paths:
            command.add_argument(path, type=Path, metavar=path.upper())
        command.add_argument("--json", action="store_true", help="print one JSON object")
        if name == "member":
            command.add_argument("index", type=_index, metavar="I", help="such as 3, or 1,2 for two axes")
            command.add_argument("out", type=Path, metavar="OUT", help="the file to write")
        if name == "verify":
            command.add_argument("--tolerance", type=float, default=1e-3, help="1e-3 by default")
        command.set_defaults(run=run, show=show)
    return parser


def _version() -> str:
    return str(sys.modules["policy_core"].__version__)  # imported already, as the package of this module


def _inspect(options: Any) -> tuple[Any, int]:
    result = files.inspect(options.file)
    parameters = sum(math.prod(shape) for _, _, shape, _ in result.leaves)
    return {"file": str(options.file), "parameters": parameters, **result._asdict()}, 0


def _verify(options: Any) -> tuple[Any, int]:
    result = files.verify(options.file, tolerance=options.tolerance)
    return {"file": str(options.file), "tolerance": options.tolerance, **result._asdict()}, 0


def _diff(options: Any) -> tuple[Any, int]:
    left, right = read_document(options.a), read_document(options.b)
    fields = diff_data(left.config_data(), right.config_data())
    params = _differences(left.leaves, right.leaves)
    return {"fields": fields, "params": params}, 1 if fields or params else 0


def _index(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _member(options: Any) -> tuple[Any, int]:
    result = extract(options.file, options.index, options.out)
    return {"file": str(options.file), "member": options.index, "out": str(options.out), **result}, 0


def _differences(left: tuple[Row, ...], right: tuple[Row, ...]) -> list[tuple[str, str, str, float | None]]:
    """(path, dtype and shape in A, in B, largest difference) of each leaf that differs."""
    a, b = ({row.path: row for row in rows} for rows in (left, right))
    table: list[tuple[str, str, str, float | None]] = []
    for path in sorted({*a, *b}):
        x, y = a.get(path), b.get(path)
        names = [f"{row.dtype}{row.shape}" if row else "(absent)" for row in (x, y)]
        if x is None or y is None or names[0] != names[1]:
            table.append((path, *names, None))  # type: ignore[arg-type]
        elif x.chunks != y.chunks:
            kind = np.complex128 if x.dtype.startswith("complex") else np.float64
            with np.errstate(invalid="ignore"):
                apart = np.abs(x.array().astype(kind) - y.array().astype(kind))
            table.append((path, names[0], names[1], float(np.max(apart, initial=0.0))))
    return table


def _show_inspect(result: dict[str, Any]) -> None:
    screen = _Screen()
    batch = f", a population of {'x'.join(map(str, result['batch']))}" if result["batch"] else ""
    screen.line(f"{result['file']}: format {result['version']}, {result['nbytes']:,} bytes{batch}")
    screen.line(f"fingerprint {result['fingerprint'].hex()}")
    screen.tree(result["config"])
    for title in ("leaves", "extra"):
        if rows := result[title]:
            table = [(p, d, " x ".join(map(str, s)), f"{math.prod(s):,}", f"{n:,}") for p, d, s, n in rows]
            total = f"{sum(math.prod(row[2]) for row in rows):,}", f"{sum(row[3] for row in rows):,}"
            name = "params" if title == "leaves" else title
            screen.table((name, "dtype", "shape", "numbers", "bytes"), [*table, ("total", "", "", *total)])
    screen.line(f"self-test: {result['self_test'] or 'no'} observations")
    if result["metadata"]:
        screen.table(("metadata", ""), list(result["metadata"].items()))


def _show_verify(result: dict[str, Any]) -> None:
    name = printable(result["file"])
    if result["observations"] == 0:
        print(f"{name}: whole; it has no self-test")
        return
    print(
        f"{name}: whole; over {result['observations']} observations the outputs are within "
        f"{result['deviation']:.3g} of those at save time ({result['tolerance']:g} is allowed)"
    )


def _show_member(result: dict[str, Any]) -> None:
    at = ",".join(map(str, result["member"]))
    left = "" if result["extra"] else "; without `extra`, which has not the axes of the population"
    print(printable(f"{result['out']}: member {at} of {result['file']}, {result['nbytes']:,} bytes{left}"))


def _show_diff(result: dict[str, Any]) -> None:
    screen = _Screen()
    if result["fields"]:
        screen.table(("field", "in A", "in B"), result["fields"])
    if result["params"]:
        rows = [
            (p, a, b if a != b else "", "" if d is None else f"{d:.3g}") for p, a, b, d in result["params"]
        ]
        screen.table(("params", "in A", "in B", "largest difference"), rows)
    if not result["fields"] and not result["params"]:
        screen.line("the same policy")


class _Screen:
    """Printer of tables and trees, with rich if it is installed."""

    def __init__(self) -> None:
        try:
            from rich.console import Console
        except ImportError:
            self.console: Any = None
        else:
            width = None if sys.stdout.isatty() else 120  # nothing is cut off in a pipe
            self.console = Console(width=width, highlight=False, markup=False)

    def line(self, text: str) -> None:
        """Print one line of text."""
        print(printable(text))

    def table(self, header: tuple[str, ...], rows: Sequence[Sequence[str]]) -> None:
        """Print rows under a header; columns of numbers are right-justified by rich."""
        rows = [[printable(str(cell)) for cell in row] for row in rows]
        if self.console is not None:
            from rich import box
            from rich.table import Table

            table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
            for name in header:
                right = name in ("numbers", "bytes", "largest difference")
                table.add_column(name, justify="right" if right else "left", overflow="fold")
            for row in rows:
                table.add_row(*row, style="bold" if row[0] == "total" else None)
            self.console.print(table)
            return
        widths = [max(len(str(row[i])) for row in (header, *rows)) for i in range(len(header))]
        print()
        for row in (header, *rows):
            cells = zip(row, widths, strict=True)
            print("  ".join(f"{cell:<{width}}" for cell, width in cells).rstrip())

    def tree(self, data: Any) -> None:
        """Print a config as a tree."""
        lines = [(depth, printable(name), printable(text)) for depth, name, text in _branches("config", data)]
        if self.console is None:
            print("\n".join(f"{'  ' * depth}{name}: {text}" for depth, name, text in lines))
            return
        from rich.text import Text
        from rich.tree import Tree

        stack: list[Any] = []
        for depth, name, text in lines:
            label = Text.assemble((name, "bold"), "  ", text)
            del stack[depth:]
            stack.append(stack[-1].add(label) if stack else Tree(label, guide_style="dim"))
        self.console.print(stack[0])


def _branches(name: str, data: Any, depth: int = 0) -> list[tuple[int, str, str]]:
    """(depth, name, value) of every line of a tree."""
    if isinstance(data, dict) and set(data) == {"type", "fields"}:
        parts = [_branches(key, value, depth + 1) for key, value in data["fields"].items()]
        return [(depth, name, data["type"]), *(line for part in parts for line in part)]
    if isinstance(data, list) and any(isinstance(item, dict | list) for item in data):
        named = all(isinstance(item, list) and len(item) == 2 and isinstance(item[0], str) for item in data)
        pairs = data if named else [(f"[{i}]", item) for i, item in enumerate(data)]
        parts = [_branches(label, item, depth + 1) for label, item in pairs]
        return [(depth, name, ""), *(line for part in parts for line in part)]
    text = str(tuple(data)) if isinstance(data, list) else repr(data)
    return [(depth, name, text if len(text) <= 72 else f"{text[:60]}... ({len(data)})")]


def _plain(data: Any) -> Any:
    """Data for JSON: bytes as hexadecimal, infinities and NaN as text."""
    if isinstance(data, bytes):
        return data.hex()
    if isinstance(data, float) and not math.isfinite(data):
        return str(data)
    if isinstance(data, dict):
        return {str(key): _plain(value) for key, value in data.items()}
    return [_plain(item) for item in data] if isinstance(data, list | tuple) else data


if __name__ == "__main__":
    sys.exit(main())
