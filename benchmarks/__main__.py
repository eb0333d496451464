"""Measure everything, store the rows in `build/benchmarks.json`, write docs/benchmarks.md and its picture.

    python -m benchmarks [--short] [--only CALL ...] [--lerax PYTHON]
    python -m benchmarks --page      # the page anew from the stored rows
    python -m benchmarks --quick     # some ratios against benchmarks/recorded.json; fails where one is worse
    python -m benchmarks --record    # write these

Each section runs in a process of its own. With `--only` the other rows are those of the stored run,
and the page says when each was measured.
"""

import argparse
import datetime
import importlib
import importlib.metadata
import json
import os
import platform
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks import page, quick
from benchmarks.sections import SECTIONS, Section

ROOT = Path(__file__).parent.parent
STORED, PAGE, PICTURE = (
    ROOT / name for name in ("build/benchmarks.json", "docs/benchmarks.md", "docs/benchmarks.png")
)
LERAX = ROOT / ".venv-lerax" / "bin" / "python"
PACKAGES = ("jax", "jaxlib", "numpy", "flax", "distrax", "equinox", "orbax-checkpoint", "safetensors")
CUT_SHORT = "the run was cut short."
FAILED = "its process failed, with the error on the terminal."
WITHOUT_LERAX = "there was no environment of Python 3.13 with the release of Lerax, which `make lerax` makes."
PATHS = [str(ROOT), str(ROOT / "adapters"), str(ROOT / "examples")]


def versions(names: tuple[str, ...]) -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in names}


def about(short: bool) -> dict[str, Any]:
    """The machine, and what is installed."""
    found = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "cpu": found[0].partition(":")[2].strip() if found else platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "packages": versions(PACKAGES),
        "short": short,
    }


def one(call: str, seconds: float) -> dict[str, Any]:
    """In the process of a section."""
    module, _, function = call.partition(".")
    rows = getattr(importlib.import_module(f"benchmarks.{module}"), function)(seconds)
    names = ("lerax", "equinox", "jax") if call.startswith("lerax") else ()
    return {
        "rows": [row._asdict() for row in rows],
        "versions": {"Python": platform.python_version(), **versions(names)},
    }


def run(section: Section, seconds: float, python: str) -> dict[str, Any] | None:
    """The rows of a section, from a process of its own; None if that failed."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*PATHS, os.environ.get("PYTHONPATH", "")])}
    if section.flags:
        environment["XLA_FLAGS"] = section.flags
    command = [python, "-m", "benchmarks", "--one", section.call, "--seconds", str(seconds)]
    result = subprocess.run(
        command, cwd=ROOT, env=environment, check=False, stdout=subprocess.PIPE, text=True
    )
    if result.returncode:
        return None
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found


def measure_all(only: list[str], short: bool, lerax: str) -> dict[str, Any]:
    """What is stored, after every section: machine, rows by section, and why a section has none."""
    now = about(short)
    data: dict[str, Any] = {
        "rows": {},
        "missing": {section.call: CUT_SHORT for section in SECTIONS},
        "about": {"cpu_seconds": 0.0, **now},
        "again": {},  # sections that were measured since
    }
    if only and STORED.exists():
        data |= json.loads(STORED.read_text())
    before = cpu_seconds()
    for section in SECTIONS:
        if only and section.call not in only:
            continue
        if section.elsewhere and not lerax:
            data["missing"][section.call] = WITHOUT_LERAX
            continue
        print(f"{section.title} ({section.call})", file=sys.stderr, flush=True)
        seconds = 0.1 * section.seconds if short else section.seconds
        found = run(section, seconds, lerax if section.elsewhere else sys.executable)
        if found is None:
            data["missing"][section.call] = FAILED
            continue
        data["missing"].pop(section.call, None)
        data["rows"][section.call] = found["rows"]
        if only:
            data["again"][section.call] = now
        if section.elsewhere:
            data["about"]["elsewhere"] = found["versions"]
        if not only:
            data["about"]["cpu_seconds"] = cpu_seconds() - before
        STORED.parent.mkdir(exist_ok=True)
        STORED.write_text(json.dumps(data, indent=1))
    return data


def cpu_seconds() -> float:
    """Of all processes that this one has waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def write(data: dict[str, Any]) -> None:
    PAGE.write_text(page.render(data))
    page.plot(data, PICTURE)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--short", action="store_true", help="a tenth of the time; the page says so")
    parser.add_argument("--only", nargs="+", default=[], choices=[section.call for section in SECTIONS])
    parser.add_argument(
        "--lerax",
        default=str(LERAX) if LERAX.with_name("has-lerax").exists() else "",
        help="the Python that has it",
    )
    parser.add_argument("--page", action="store_true", help="write the page from the stored rows")
    parser.add_argument("--quick", action="store_true", help="compare some ratios with the recorded ones")
    parser.add_argument("--record", action="store_true", help=f"write {quick.RECORDED.name}")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=1.0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.one, options.seconds)))
    elif options.quick:
        raise SystemExit(
            0 if quick.check(quick.cells(), quick.load(), lambda text: print(text, flush=True)) else 1
        )
    elif options.record:
        found = quick.record(quick.cells(), show=lambda text: print(text, flush=True))
        quick.RECORDED.write_text(json.dumps(found, indent=2) + "\n")
    elif options.page:
        write(json.loads(STORED.read_text()))
    else:
        data = measure_all(options.only, options.short, options.lerax)
        write(data)
        raise SystemExit(1 if FAILED in data["missing"].values() else 0)


if __name__ == "__main__":
    main()
