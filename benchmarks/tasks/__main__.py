"""Trains what is missing, and writes the section of docs/results.md; see the package."""

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.tasks import settings
from benchmarks.tasks.settings import (
    CONTESTANTS,
    LERAX,
    OURS,
    PLAIN,
    PUREJAXRL,
    REJAX,
    SB3,
    SBX,
    TASKS,
)

ROOT = Path(__file__).parent.parent.parent
RUNS, PAGE, PICTURE = ROOT / "build/tasks.jsonl", ROOT / "docs/results.md", ROOT / "docs/tasks.png"
LONG = ("RepeatPrevious", "Breakout-MinAtar", "SpaceInvaders-MinAtar")
# What takes longest comes first among what is of the same importance, so that the cores end together.
IMPORTANCE = ((PUREJAXRL, OURS, PLAIN, REJAX), (SB3, SBX), (LERAX,))


class Job(NamedTuple):
    """Some seeds of a contestant on a task: one process."""

    contestant: str
    task: str
    seeds: tuple[int, ...]


def plan(contestants: list[str], tasks: list[str], seeds: int | None = None) -> Iterator[Job]:
    """All jobs, the most important first; `seeds` instead of the number that a task has."""
    for group in IMPORTANCE:
        several = []
        for task in (*LONG, *(name for name in TASKS if name not in LONG)):
            for contestant in group:
                setting = settings.of(contestant, task)
                wanted = contestant in contestants and task in tasks
                if not wanted or isinstance(setting, settings.LeftOut):
                    continue
                number = seeds or setting.seeds or TASKS[task].seeds
                size = 1 if contestant in (SB3, SBX) or (task in LONG and contestant != REJAX) else 5
                several += [
                    Job(contestant, task, tuple(range(first, min(first + size, number))))
                    for first in range(0, number, size)
                ]
        if group == (SB3, SBX):  # so that a run that is cut short has some seeds of each task
            several.sort(key=lambda job: job.seeds)
        yield from several


def lines(path: Path) -> list[dict[str, Any]]:
    """What is in the file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


class Runner:
    """Processes side by side, one on a core, whose lines are added to the file."""

    def __init__(self, path: Path, options: argparse.Namespace) -> None:
        self.path, self.options, self.lock, self.start = path, options, threading.Lock(), time.monotonic()
        self.missing: dict[str, str] = {}
        self.failed: list[str] = []
        self.unfinished: list[Job] = []
        there = {(line["contestant"], line["task"], line["seed"]) for line in lines(path) if "seed" in line}
        jobs = plan(options.contestant or list(CONTESTANTS), options.task or list(TASKS), options.seeds)
        self.jobs = []
        for job in jobs:
            seeds = tuple(seed for seed in job.seeds if (job.contestant, job.task, seed) not in there)
            if seeds:
                self.jobs.append(job._replace(seeds=seeds))

    def run(self) -> None:
        """Until everything is done, or the budget is spent."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        affinity = getattr(os, "sched_getaffinity", None)
        cores: list[int | None] = [*sorted(affinity(0))] if affinity else [None] * (os.cpu_count() or 1)
        if self.options.cores > len(cores):
            raise SystemExit(
                f"--cores: got {self.options.cores}, expected at most {len(cores)}, as there are"
            )
        threads = [threading.Thread(target=self.work, args=(core,)) for core in cores[: self.options.cores]]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def work(self, core: int | None) -> None:
        """One job after another on a core."""
        while True:
            with self.lock:
                self.jobs = [job for job in self.jobs if job.contestant not in self.missing]
                if not self.jobs:
                    return
                if time.monotonic() - self.start > self.options.budget:
                    self.unfinished, self.jobs = self.unfinished + self.jobs, []
                    return
                job = self.jobs.pop(0)
            self.do(job, core)

    def do(self, job: Job, core: int | None) -> None:
        """A process for a job, ended after `--stop`; the seeds that it has done by then are kept."""
        other = self.options.lerax if job.contestant == LERAX else None
        command = [str(other or sys.executable), "-m", "benchmarks.tasks.worker"]
        command += ["--contestant", job.contestant, "--task", job.task, "--seeds", *map(str, job.seeds)]
        command += [] if core is None else ["--core", str(core)]
        command += [] if self.options.steps is None else ["--steps", str(self.options.steps)]
        command += ["--purejaxrl", str(self.options.purejaxrl)] if self.options.purejaxrl else []
        paths = [str(ROOT), str(ROOT / "adapters"), str(ROOT / "examples"), os.environ.get("PYTHONPATH", "")]
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        done, errors, ended = 0, [""], threading.Event()

        def stop() -> None:
            ended.set()
            process.kill()

        left = max(0.0, self.options.stop - (time.monotonic() - self.start))
        timer = threading.Timer(min(left, threading.TIMEOUT_MAX), stop)
        timer.start()
        with process:
            assert process.stdout is not None
            assert process.stderr is not None
            reader = threading.Thread(target=errors.extend, args=(process.stderr,))
            reader.start()
            for line in process.stdout:
                if line.startswith("{"):
                    done += 1
                    self.add(json.loads(line))
            reader.join()
        timer.cancel()
        with self.lock:
            if ended.is_set():
                self.unfinished.append(job._replace(seeds=job.seeds[done:]))
            elif process.returncode:
                self.failed.append(f"{job.contestant} on {job.task}: {''.join(errors[-4:]).strip()}")
                print(f"failed: {self.failed[-1]}", file=sys.stderr, flush=True)

    def add(self, line: dict[str, Any]) -> None:
        """A line to the file and to the terminal."""
        with self.lock:
            if "missing" in line:
                self.missing[line["contestant"]] = line["missing"]
                print(f"{line['contestant']} is left out, {line['missing']}", flush=True)
                if line in lines(self.path):
                    return
            with self.path.open("a") as file:
                print(json.dumps(line), file=file)
            if "seed" in line:
                print(
                    f"{time.monotonic() - self.start:5.0f} s  {line['contestant']}: {line['task']}, seed "
                    f"{line['seed']}: {line['final']}, {line['seconds']} s, compiled in {line['compile']} s",
                    flush=True,
                )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--contestant", action="append", choices=CONTESTANTS, help="may be repeated")
    parser.add_argument("--task", action="append", choices=TASKS, help="may be repeated")
    parser.add_argument("--seeds", type=int, help="instead of those of a task")
    parser.add_argument("--steps", type=int, help="instead of those of a task, to try it out")
    parser.add_argument("--cores", type=int, default=1, help="so many processes at once")
    parser.add_argument("--budget", type=float, default=float("inf"), help="seconds; then nothing is started")
    parser.add_argument("--stop", type=float, default=float("inf"), help="seconds; then all is ended")
    parser.add_argument("--purejaxrl", type=Path, help="a checkout of PureJaxRL")
    parser.add_argument("--lerax", type=Path, help="the Python that has Lerax, which needs 3.13")
    parser.add_argument("--runs", type=Path, default=RUNS, help="where seeds are added, and read from")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--no-page", action="store_true", help="train only")
    only.add_argument("--render", action="store_true", help="train nothing, write the page of what is there")
    options = parser.parse_args()
    if options.steps is not None and options.runs == RUNS:
        parser.error("--steps: give --runs, too; shortened seeds do not belong to those of the page")
    runner = Runner(options.runs, options)
    if not options.render:
        print(f"{len(runner.jobs)} jobs", flush=True)
        runner.run()
    for job in runner.unfinished:
        print(f"not done: {job.contestant} on {job.task}, seeds {', '.join(map(str, job.seeds))}")
    if not options.no_page:
        from benchmarks.tasks import page

        page.write(lines(options.runs), PAGE, PICTURE)
        print(f"wrote {PAGE} and {PICTURE}")
    return 1 if runner.failed else 0


if __name__ == "__main__":
    sys.exit(main())
