"""The tables of `docs/gpu.md`, from raw rows."""

from typing import Any

from benchmarks.gpu.measure import ROOT
from benchmarks.table import markdown

PAGE = ROOT / "docs/gpu.md"
START, END = "<!-- written by benchmarks/gpu -->", "<!-- until here -->"

EXACT = ("", "deviation", "same draws", "ratio off 1", "deviation, highest", "same draws", "ratio off 1")
HEADERS: dict[tuple[str, str], tuple[str, tuple[str, ...]]] = {
    ("exactness", "rows"): ("Exactness", EXACT),
    ("golden", "rows"): ("Files that a CPU wrote", ("file", "deviation")),
    ("bits", "rows"): (
        "Draws of categoricals",
        ("", "jitted as mapped", "eager as mapped", "as on the CPU", "only allowed classes"),
    ),
    ("floor", "rows"): ("Beside the same network by hand", ("ratio (us)",)),
    ("floor", "compiled"): (
        "Compilation, and kernels",
        ("", "draw, compile", "kernels / floor", "gradient, compile", "kernels / floor"),
    ),
    ("members", "rows"): ("Populations", ("members", "us", "actions/s", "GB/s of the params of actors")),
    ("images", "rows"): ("Images", ("", "ms", "/ flax", "images/s")),
    ("memories", "rows"): (
        "Memories",
        ("", "GRU, ms", "/ flax", "/ equinox", "LSTM, ms", "/ flax", "/ equinox", "MinGRU, ms"),
    ),
    ("training", "rows"): (
        "Training",
        ("policies", "environments each", "steps", "compile, s", "run, s", "steps/s", "return"),
    ),
    ("files", "rows"): ("Files", ("parameters", "load, ms", "by hand, ms", "ratio")),
}


def rendered(raw: dict[str, Any]) -> str:
    """All tables, as Markdown, each with the machine that it was measured on."""
    parts = []
    for (section, rows), (title, header) in HEADERS.items():
        parts.append(f"### {title}")
        found = raw["sections"].get(section)
        if found is None:
            parts.append("Not run.")
            continue
        about = found["machine"]
        parts.append(
            f"{about['device']}, jax {about['jax']}, Python {about['python']}, "
            f"{about['date']}; {found['seconds']:.0f} s."
        )
        if "error" in found:
            parts.append(f"Failed: `{found['error']}`")
            continue
        if (section, rows) == ("floor", "rows"):
            header = *header, *found["tasks"]
        parts.append(markdown(header, found[rows], "<" + ">" * (len(header) - 1)))
    return "\n\n".join(parts)


def write_page(raw: dict[str, Any]) -> None:
    before, _, rest = PAGE.read_text().partition(START)
    _, found, after = rest.partition(END)
    if not found:
        raise SystemExit(f"{PAGE} has no lines {START!r} and {END!r} between which the tables stand")
    PAGE.write_text(f"{before}{START}\n\n{rendered(raw)}\n\n{END}{after}")
