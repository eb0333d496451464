"""Tables: Markdown for the pages of `docs/`, padded columns for terminals.

Import it as `benchmarks.table`, in the examples too: wherever `policy_core` is imported from the
repository (an editable install, `python -m` in its root, pytest), the root is on the path and this
name is found. `python benchmarks/x.py` has no `examples/` on its path, so the file is here; and a
second name for it, such as `table`, would be a second module, which mypy refuses.
"""

from collections.abc import Iterable, Iterator, Sequence


def lines(header: Sequence[str], rows: Iterable[Sequence[str]], align: str = "") -> Iterator[str]:
    """The lines of a Markdown table, each as soon as its row is there.

    `align` has `<` or `>` for each column; by default all are `<`.
    """
    yield f"|{'|'.join(f' {title} ' if title else ' ' for title in header)}|"
    yield f"|{'|'.join('--:' if side == '>' else '---' for side in align or '<' * len(header))}|"
    for cells in rows:
        yield f"| {' | '.join(cells)} |"


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]], align: str = "") -> str:
    """A Markdown table; arguments as in `lines`."""
    return "\n".join(lines(header, rows, align))


def aligned(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table for a terminal: padded columns, the first flush left and the others, of numbers, right."""
    table = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    formats = [f"{{:{side}{width}}}" for side, width in zip("<".ljust(len(widths), ">"), widths, strict=True)]
    return "\n".join("  ".join(formats).format(*cells) for cells in table)


def section(page: str, title: str) -> str:
    """The part of a Markdown page from the heading of second level of that title to the next one, or ""."""
    _, found, rest = page.partition(f"\n## {title}\n")
    return found + rest.partition("\n## ")[0]
