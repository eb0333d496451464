"""One contestant on one task, in a process of its own: a line of JSON for each seed.

    python -m benchmarks.tasks.worker --contestant rejax --task CartPole-v1 --seeds 0 1 2 --core 3

With `--core` the process runs on that core alone, from before anything starts threads; so XLA has one thread.
A package that is not installed is a line, too: `{"contestant": ..., "missing": why}`.
"""

import argparse
import importlib.util
import json
import os
import platform
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.tasks import settings
from benchmarks.tasks.settings import CONTESTANTS, LERAX, PUREJAXRL, REJAX, SB3, SBX, TASKS

NEEDS = {
    REJAX: ("rejax", "gymnax"),
    PUREJAXRL: ("distrax", "flax", "gymnax"),
    SB3: ("stable_baselines3", "torch", "gymnasium"),
    SBX: ("sbx", "stable_baselines3", "torch", "gymnasium"),
    LERAX: ("lerax",),
}


def missing(contestant: str, purejaxrl: Path | None) -> str | None:
    """Why the contestant cannot be run here, or None."""
    names = [name for name in NEEDS.get(contestant, ("gymnax",)) if importlib.util.find_spec(name) is None]
    if names:
        return f"not installed: {', '.join(names)}"
    if contestant == PUREJAXRL and purejaxrl is None:
        return "no checkout was given with --purejaxrl"
    return None


def train(
    contestant: str, task: settings.Task, setting: settings.Setting, seeds: list[int], folder: Path | None
) -> Iterator[Any]:
    """What comes of each seed; the package of the contestant is imported here."""
    if contestant in (SB3, SBX):
        from benchmarks.tasks import sb3_peers

        yield from sb3_peers.train(contestant, task, setting, seeds)
    elif contestant == LERAX:
        from benchmarks.tasks import lerax_peer

        yield from lerax_peer.train(task, setting, seeds)
    elif contestant in (REJAX, PUREJAXRL):
        from benchmarks.tasks import flax_peers

        if contestant == REJAX:
            yield from flax_peers.rejax(task, setting, seeds)
        else:
            assert folder is not None
            yield from flax_peers.purejaxrl(task, setting, seeds, folder)
    else:
        from benchmarks.tasks import ours

        yield from ours.train(task, setting, seeds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--contestant", choices=CONTESTANTS, required=True)
    parser.add_argument("--task", choices=TASKS, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    parser.add_argument("--steps", type=int, help="instead of those of the task")
    parser.add_argument("--core", type=int, help="run on this core alone")
    parser.add_argument("--purejaxrl", type=Path, help="a checkout of PureJaxRL")
    options = parser.parse_args()
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if options.core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {options.core})
    warnings.simplefilter("ignore")  # of others, about each other
    task, contestant = TASKS[options.task], options.contestant
    setting = settings.of(contestant, task.name)
    if isinstance(setting, settings.LeftOut):
        sys.exit(f"{contestant} is not run on {task.name}: {setting.reason}")
    if (why := missing(contestant, options.purejaxrl)) is not None:
        print(json.dumps({"contestant": contestant, "missing": why}), flush=True)
        return
    task = task._replace(steps=options.steps or setting.steps or task.steps)

    from benchmarks.tasks.record import processor, versions

    affinity = getattr(os, "sched_getaffinity", None)
    where = {
        "versions": versions(),
        "machine": f"{platform.system()}, {processor()}",
        "threads": len(affinity(0)) if affinity else os.cpu_count(),
    }
    for seed in train(contestant, task, setting, options.seeds, options.purejaxrl):
        print(json.dumps({**seed.record(contestant, task.name), **where}), flush=True)


if __name__ == "__main__":
    main()
