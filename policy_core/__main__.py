"""`policy-core inspect FILE`, `verify FILE`, `diff A B`, `member FILE I OUT`; or `python -m policy_core ...`.

Exit codes: 0 for a good answer; 1 if a file fails its self-test, is of another config than asked,
or two files differ; 2 if a file is missing, damaged or no policy file, or the command is wrong.
`--json` prints one JSON object instead of tables.

More commands come from entry points of the group `policy_core.commands`, such as those of the adapters:
`NAME = "module:function"`, where `function(parser)` adds arguments and sets the defaults `run`, from the
options to `(result, exit code)`, and `show`, which prints the result. The first line of its docstring is
the help text.
"""

import argparse
import importlib.metadata
import json
import math
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from policy_core import files
from policy_core.configs.codec import completed
from policy_core.configs.comparison import diff_data, leaves_of, printable
from policy_core.errors import PolicyError, SelfTestError
from policy_core.files.inspection import tree_of
from policy_core.files.members import extract
from policy_core.files.policies import read_document
from policy_core.files.rows import Row


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    options = _parser(given).parse_args(given)
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


def _parser(given: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="policy-core",
        description="Look into policy files, and take them to other programs.",
        epilog="Exit codes: 0 for a good answer; 1 if a self-test fails or two files differ; 2 if a file is "
        "missing, damaged or no policy file, or the command is wrong.",
    )
    parser.add_argument("--version", action="version", version=f"policy_core {_version()}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    own: tuple[tuple[str, Any, Any, tuple[str, ...], str], ...] = (
        ("inspect", _inspect, _show_inspect, ("file",), "show what a file holds"),
        ("verify", _verify, _show_verify, ("file",), "check a file and run its self-test"),
        ("diff", _diff, _show_diff, ("a", "b"), "compare two files: config fields and params"),
        ("member", _member, _show_member, ("file",), "take one policy out of the file of a population"),
    )
    for name, run, show, paths, text in own:
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
    if given and given[0] in {name for name, *_ in own}:
        return parser  # and nobody else's module is imported
    for point in sorted(importlib.metadata.entry_points(group="policy_core.commands"), key=lambda p: p.name):
        add = point.load()
        text = (add.__doc__ or "").partition("\n")[0].rstrip(".")
        command = commands.add_parser(point.name, help=text, description=text)
        command.add_argument("--json", action="store_true", help="print one JSON object")
        add(command)
    return parser


def _version() -> str:
    return str(sys.modules["policy_core"].__version__)  # imported already, as the package of this module


def _inspect(options: Any) -> tuple[Any, int]:
    result = files.inspect(options.file)
    more = {"parameters": result.parameters, "added": result.added}
    return {"file": str(options.file), **more, **result._asdict()}, 0


def _verify(options: Any) -> tuple[Any, int]:
    result = files.verify(options.file, tolerance=options.tolerance)
    return {"file": str(options.file), "tolerance": options.tolerance, **result._asdict()}, 0


def _diff(options: Any) -> tuple[Any, int]:
    left, right = read_document(options.a), read_document(options.b)
    configs = [completed(document.config_data()) for document in (left, right)]
    fields, params = diff_data(*configs), _differences(left.leaves, right.leaves)
    equal = {
        "fields": len({*leaves_of(configs[0]), *leaves_of(configs[1])}) - len(fields),
        "params": len({row.path for row in (*left.leaves, *right.leaves)}) - len(params),
    }
    return {"fields": fields, "params": params, "equal": equal}, 1 if fields or params else 0


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
            (p, a, "=" if a == b else b, "-" if d is None else f"{d:.3g}") for p, a, b, d in result["params"]
        ]
        screen.table(("params", "in A", "in B", "largest change"), rows)
    if not result["fields"] and not result["params"]:
        screen.line("the same policy")
        return
    screen.line("")
    screen.line("equal: {fields} of the fields, {params} of the params".format(**result["equal"]))


_NUMBERS = ("numbers", "bytes", "largest change")


class _Screen:
    """Printer of tables and trees that fit the terminal; in a pipe nothing is broken into lines."""

    def __init__(self) -> None:
        self.width = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize

    def line(self, text: str) -> None:
        """Print one line of text."""
        print(printable(text))

    def table(self, header: tuple[str, ...], rows: Sequence[Sequence[str]]) -> None:
        """Print rows under a header; cells too wide for the terminal are continued below."""
        cells = [[printable(str(cell)) for cell in row] for row in (header, *rows)]
        widths = self._widths(cells)
        print()
        for i, row in enumerate(cells):
            parts = [_wrapped(cell, width) for cell, width in zip(row, widths, strict=True)]
            for j in range(max(map(len, parts))):
                texts = [part[j] if j < len(part) else "" for part in parts]
                columns = zip(header, texts, widths, strict=True)
                line = [f"{text:{'>' if name in _NUMBERS else '<'}{width}}" for name, text, width in columns]
                print("  ".join(line).rstrip())
            if i == 0:
                print("-" * (sum(widths) + 2 * len(widths) - 2))

    def _widths(self, cells: list[list[str]]) -> list[int]:
        """The widths of columns: what they need, but for the widest ones of a table that does not fit."""
        widths = [min(max(map(len, column)), self.width) for column in zip(*cells, strict=True)]
        least = [12 if name not in _NUMBERS else width for name, width in zip(cells[0], widths, strict=True)]
        while sum(widths) + 2 * len(widths) - 2 > self.width:
            first, *others = (width - few for width, few in zip(widths, least, strict=True))
            if max(first, *others) <= 0:
                break
            widths[1 + others.index(max(others)) if max(others) > 0 else 0] -= 1  # names are broken last
        return widths

    def tree(self, data: Any) -> None:
        """Print a config as a tree, by indentation."""
        for depth, name, text in tree_of(data):
            line = printable(f"{name}: {text}".rstrip())
            indent = "  " * depth
            print("\n".join(indent + part for part in _wrapped(line, max(self.width - len(indent), 12))))


def _wrapped(text: str, width: int) -> list[str]:
    """Text in lines of at most a width, broken behind a slash or a space where there is one."""
    lines, start = [], 0
    while len(text) - start > width:
        most = start + width
        end = max(text.rfind("/", start, most), text.rfind(" ", start, most)) + 1 or most
        lines.append(text[start:end])
        start = end
    return [*lines, text[start:]]


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
