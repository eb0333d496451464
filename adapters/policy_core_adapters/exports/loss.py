"""What kernels in 8 bits cost: the actions of two graphs of a policy, side by side."""

from typing import NamedTuple

import numpy as np

from policy_core_adapters.exports.graph import evaluate
from policy_core_adapters.exports.lowering import ExportError, Lowered
from policy_core_adapters.exports.metadata import bounds_of, inner_of
from policy_core_adapters.exports.replay import others_of
from policy_core_adapters.exports.sampling import sample
from policy_core_adapters.numpy_runner.networks import Array

DRAWN = 10_000


class Apart(NamedTuple):
    """How far the environment actions of two graphs are apart."""

    observations: int
    deviation: float
    """The largest difference of a float, in its own units."""
    share: float
    """The same as a share of the distance of the bounds, where there are two."""
    agreement: float
    """The share of the discrete numbers that are the same; 1 if there are none."""


class Loss(NamedTuple):
    """What 8 bits cost."""

    self_test: Apart | None
    """On the observations of the self-test."""
    drawn: Apart
    """On 10,000 observations drawn from the space, in 100 episodes where there is a memory."""

    @property
    def worst(self) -> float:
        """The largest share, or the part of the discrete choices that differ."""
        parts = [part for part in self if part is not None]
        return max(max(part.share, 1 - part.agreement) for part in parts)


def loss_of(whole: Lowered, short: Lowered, *, bound: float | None = None, seed: int = 0) -> Loss:
    """What 8 bits cost a policy.

    Args:
        whole: its graph in float32.
        short: its graph in 8 bits, with the same inputs and outputs, "action" among them.
        bound: the largest share that is allowed; None for any.
        seed: of the observations.

    Raises:
        ExportError: if more is lost than the bound.
    """
    rng = np.random.default_rng(seed)
    space = inner_of(whole.config)["fields"]["observation_space"]
    seen = [name for name in whole.graph.inputs if name.startswith("observation")]
    drawn = sample(space, rng, DRAWN)
    rows = {name: x for name, x in whole.self_test.items() if name in seen}
    steps = 100 if whole.initial else 1
    batches = {name: drawn[name].reshape(steps, DRAWN // steps, *drawn[name].shape[1:]) for name in seen}
    recorded = None
    if set(seen) <= rows.keys() and seen:
        recorded = _apart(whole, short, {name: x[:, None] for name, x in rows.items()}, rng)
    loss = Loss(recorded, _apart(whole, short, batches, rng))
    if bound is not None and not loss.worst <= bound:
        raise ExportError(
            f"int8: 8 bits move an action by up to {loss.drawn.share:.3g} of its range and change "
            f"{1 - loss.drawn.agreement:.3g} of the discrete choices on {DRAWN:,} drawn observations, in all "
            f"{loss.worst:.3g}, and {bound:g} is allowed; allow more, or keep 32 bits"
        )
    return loss


def _apart(whole: Lowered, short: Lowered, batches: dict[str, Array], rng: np.random.Generator) -> Apart:
    """For observations `[steps, batch, ...]`, each graph with its own state."""
    widths = _widths(whole)
    steps, front = next(iter(batches.values())).shape[:2]
    graphs = (whole, short)
    states = [
        {name: np.broadcast_to(start, (front, *start.shape)) for name, start in one.initial.items()}
        for one in graphs
    ]
    deviation = share = 0.0
    same = total = 0
    for i in range(steps):
        feeds = {name: x[i] for name, x in batches.items()} | others_of(whole, rng, i == 0, (front,))
        outputs = [evaluate(one.graph, feeds | state) for one, state in zip(graphs, states, strict=True)]
        states = [{name: out[f"next_{name}"] for name in whole.initial} for out in outputs]
        for name in (name for name in outputs[0] if name == "action" or name.startswith("action/")):
            x, y = (out[name] for out in outputs)
            if x.dtype.kind != "f":
                same, total = same + int(np.sum(x == y)), total + x.size
            elif x.size:
                off = np.abs(x.astype(np.float64) - y)
                deviation = max(deviation, float(off.max()))
                share = max(share, float((off / widths[name]).max()))
    return Apart(steps * front, deviation, share, same / total if total else 1.0)


def _widths(lowered: Lowered) -> dict[str, Array]:
    """Name of a box of the action to the distance of its bounds, 1 where there are not two."""
    space = inner_of(lowered.config)["fields"]["action_space"]
    widths = {}
    for name, ends in bounds_of(space, "action").items():
        low, high = (np.array(ends[end], np.float64) for end in ("low", "high"))  # None becomes NaN
        width = high - low
        widths[name] = np.where(np.isfinite(width) & (width > 0), width, 1.0)
    return widths
