"""A target against the file: the self-test step by step, and the graph on the same inputs."""

import math
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from policy_core_adapters.exports.graph import evaluate
from policy_core_adapters.exports.lowering import Lowered
from policy_core_adapters.exports.metadata import inner_of
from policy_core_adapters.exports.sampling import sample
from policy_core_adapters.numpy_runner.networks import Array

Call = Callable[[dict[str, Array]], dict[str, Array]]
"""One step of a target: from the inputs of the graph, without batch axes, to its outputs."""

_DRAWN, _TIE = 64, 1e-5


class Replay(NamedTuple):
    """What a replay found."""

    steps: int
    deviation: float
    """The largest of a float, relative to max(1, |x|)."""
    output: str
    """The name of that output."""
    differing: int
    """Discrete numbers that differ, ties aside."""
    against: str
    """"self-test"; or "graph" where the file has none, the action is drawn, or kernels have 8 bits."""
    microseconds: float
    """A call, the median."""


def replay(lowered: Lowered, call: Call, *, scored: Lowered | None = None, calls: int = 200) -> Replay:
    """Run a target on the observations of the self-test and compare.

    Its floats are compared with those of the graph in NumPy, where each carries on its own state, and its
    actions and values with those of the self-test. Without a self-test the observations are drawn from the
    space; noise is drawn, and masks allow everything.

    Args:
        lowered: what the target was made of.
        call: the target.
        scored: the same with the output "log_prob": a discrete choice whose log-probability is that in the
            self-test, within 1e-5, is as good and no difference.
        calls: how many calls are timed.
    """
    reference, expected = scored or lowered, _recorded(lowered)
    steps, deviation, worst, differing = 0, 0.0, "", 0
    ours = theirs = dict(lowered.initial)
    feeds: dict[str, Array] = {}
    for i, inputs in enumerate(_inputs(lowered)):
        feeds = {**inputs, **ours}
        got, graph = call(feeds), evaluate(reference.graph, {**inputs, **theirs})
        pairs = [(name, got[name], graph[name]) for name in lowered.graph.outputs]
        if expected:
            pairs = [pair for pair in pairs if np.asarray(pair[2]).dtype.kind == "f"]
            pairs += [(name, got[name], rows[i]) for name, rows in expected.items()]
        others = sum(int(np.sum(x != y)) for _, x, y in pairs if np.asarray(y).dtype.kind != "f")
        tied = expected and scored is not None and _tied(lowered, float(graph["log_prob"]), i)
        if others == 0 or not tied:
            differing += others
            for name, x, y in pairs:
                off = _off(x, y)
                if off > deviation or math.isnan(off):
                    deviation, worst = off, name
        ours, theirs = ({name: out[f"next_{name}"] for name in lowered.initial} for out in (got, graph))
        steps += 1
    against = "self-test" if expected else "graph"
    return Replay(steps, deviation, worst, differing, against, _time(call, feeds, calls))


def _off(x: Any, y: Any) -> float:
    x, y = np.asarray(x), np.asarray(y)
    if y.dtype.kind != "f" or y.size == 0:
        return 0.0
    with np.errstate(invalid="ignore"):
        return float(np.max(np.where(x == y, 0, np.abs(x - y) / np.maximum(1, np.abs(y)))))


def _recorded(lowered: Lowered) -> dict[str, Array]:
    """Name of an output to the rows that the self-test has of it; none where the action is another one."""
    if lowered.noise or lowered.int8:
        return {}
    names = {"env_action": "action", "action": "policy_action", "value": "value"}
    if lowered.config["type"].endswith("/InEnvActions"):
        del names["action"]
    rows = {}
    for path, array in lowered.self_test.items():
        root, slash, rest = path.partition("/")
        if root in names:
            rows[f"{names[root]}{slash}{rest}"] = array
    return {name: x for name, x in rows.items() if name in lowered.graph.outputs}


def _tied(lowered: Lowered, log_prob: float, i: int) -> bool:
    return abs(log_prob - float(lowered.self_test["log_prob"][i])) <= _TIE


def _inputs(lowered: Lowered) -> Iterator[dict[str, Array]]:
    """The inputs of each step, without the state."""
    rng, graph = np.random.default_rng(0), lowered.graph
    rows = {name: x for name, x in lowered.self_test.items() if name in graph.inputs}
    seen = [name for name in graph.inputs if name.startswith("observation")]
    if not set(seen) <= rows.keys() or not seen:
        drawn = sample(inner_of(lowered.config)["fields"]["observation_space"], rng, _DRAWN)
        rows = {name: drawn[name] for name in seen}
    count = min((len(rows[name]) for name in seen), default=1)
    for i in range(count):
        yield others_of(lowered, rng, i == 0) | {name: np.asarray(rows[name][i]) for name in seen}


def others_of(
    lowered: Lowered, rng: np.random.Generator, first: bool, front: tuple[int, ...] = ()
) -> dict[str, Any]:
    """Inputs that are neither observation nor state: noise, masks that allow everything, `is_first`."""
    feeds: dict[str, Any] = {}
    for name, value in lowered.graph.inputs.items():
        shape = (*front, *value.shape)
        if name in lowered.noise:
            draw = rng.random if lowered.noise[name] == "uniform" else rng.standard_normal
            feeds[name] = np.asarray(draw(shape), np.float32)
        elif name.startswith("action_mask"):
            feeds[name] = np.ones(shape, bool)
        elif name == "is_first":
            feeds[name] = np.full(shape, first)
    return feeds


def _time(call: Call, feeds: dict[str, Array], calls: int) -> float:
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        call(feeds)
        times.append(time.perf_counter() - start)
    return 1e6 * float(np.median(times)) if times else 0.0
