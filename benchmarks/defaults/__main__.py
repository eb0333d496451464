"""Trains what is missing, and writes the section of docs/results.md; see the package."""

import argparse
import json
import signal
import sys
from pathlib import Path

from benchmarks.defaults.plan import on_cpus, on_gpus
from benchmarks.defaults.schedule import ROOT, batches, covered, train_all

RUNS = ROOT / "build/defaults.jsonl"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.defaults", description=__doc__)
    parser.add_argument("--cores", type=int, default=1, help="of the CPU, a batch on each; 0 for none")
    parser.add_argument("--budget", type=float, default=3600.0, metavar="SECONDS", help="after which it ends")
    parser.add_argument("--gpu", type=int, default=0, metavar="PROCESSES", help="that compile for a GPU")
    parser.add_argument("--gpu-budget", type=float, metavar="SECONDS", help="of these; --budget by default")
    parser.add_argument("--out", type=Path, default=RUNS, metavar="FILE", help="where batches are added")
    parser.add_argument(
        "--have", type=Path, action="append", default=[], help="a file of batches not to repeat"
    )
    parser.add_argument("--steps", type=int, help="instead of those of the setting, to try it out")
    parser.add_argument("--plan", action="store_true", help="print what is missing, and train nothing")
    parser.add_argument("--page", action="store_true", help="train nothing, write the page from --out")
    parser.add_argument("--batch", type=json.loads, help=argparse.SUPPRESS)  # what a process of it is told
    options = parser.parse_args()
    if options.steps is not None and options.out == RUNS and options.batch is None:
        parser.error("--steps needs another --out: curves of other lengths are not those of the page")

    if options.batch is not None:
        from benchmarks.defaults.train import run

        seeds = range(options.batch["first"], options.batch["first"] + options.batch["seeds"])
        for batch in run([(setting, name) for setting, name in options.batch["cells"]], seeds, options.steps):
            print(json.dumps(batch))
        return 0
    if options.page:
        from benchmarks.defaults.page import write

        write(options.out)
        return 0

    if missing := [str(path) for path in options.have if not path.exists()]:
        parser.error(f"--have: there is no {', '.join(missing)}")
    files = [*options.have, *[options.out] * options.out.exists()]
    seeds_there = covered(line for path in files for line in path.read_text().splitlines())
    waiting = batches(on_cpus(), seeds_there) if options.cores else []
    waiting += batches(on_gpus(), seeds_there) if options.gpu else []
    if options.plan:
        for part in waiting:
            cells = "; ".join(f"{setting}: {network}" for setting, network in part.cells)
            first, last = part.seeds[0], part.seeds[-1]
            print(f"{part.device}, {part.seconds:.0f} s, seeds {first} to {last}, {cells}")
        print(f"{sum(part.seconds for part in waiting):.0f} s")
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # so that its processes are ended, too
    return train_all(
        waiting, options.out, options.cores, options.gpu, options.budget, options.gpu_budget, options.steps
    )


if __name__ == "__main__":
    raise SystemExit(main())
