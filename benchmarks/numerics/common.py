"""What the families share: cases, references, and how a distribution is put to the test."""

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

has_distrax = importlib.util.find_spec("distrax") is not None


class _Distrax:
    """Imported when it takes part: its import takes seconds, and warns."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module("distrax"), name)


distrax: Any = _Distrax()

Case = dict[str, Any]
Functions = dict[str, tuple[Callable[..., Any], tuple[str, ...]]]  # quantity: (function, its float arguments)
References = dict[str, tuple[Any, tuple[Any, ...]]]  # quantity: (value, its gradients in those arguments)

WIDE = np.longdouble
NVEC = (2, 3, 18, 5, 1)
LARGEST_TERM = "log_prob, by its largest term"
NORMAL = ("loc", "log_std")  # the parameters of a normal
NEAR_EQUAL = ", near-equal"  # a suffix: errors are absolute

Cases = Callable[[np.random.Generator, Any, bool], Iterator[Case]]  # (rng, dtype, quick)
Contestant = Callable[[Case], Functions]


class Family(NamedTuple):
    """Cases of one distribution, their references, and who takes part."""

    name: str
    cases: Cases
    reference: Callable[[Case], References]
    contestants: dict[str, Contestant]
    suffix: str = ""  # appended to the names of the quantities


def discrete(of: Callable[[Any, Any], Any]) -> Contestant:
    """The quantities of a distribution that is built from logits and a mask."""

    def functions(case: Case) -> Functions:
        mask, other = case.get("mask"), case.get("other mask")
        out: Functions = {"KL": (lambda p, q: kl_of(of(p, mask), of(q, other)), ("p", "q"))}
        if "action" in case:
            out["log_prob"] = (lambda p: of(p, mask).log_prob(case["action"])), ("p",)
            out["entropy"] = (lambda p: of(p, mask).entropy()), ("p",)
        return out

    return functions


def kl_of(p: Any, q: Any) -> Any:
    return p.kl(q) if hasattr(p, "kl") else p.kl_divergence(q)


def masked_by(least: float, of: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    """With a number for the logits of what is masked, as most do it."""
    return lambda z, mask: of(z if mask is None else jnp.where(mask, z, least))


def scores(d: Any, x: Any) -> Any:
    return d.log_prob(x)


def continuous(
    of: Callable[..., Any], log_prob: Callable[[Any, Any], Any] = scores, names: tuple[str, ...] = NORMAL
) -> Contestant:
    """Those quantities, for which the case has the arguments, of a distribution with two parameters."""
    others = tuple(f"other {name}" for name in names)
    everything: Functions = {
        "log_prob": (lambda x, *p: log_prob(of(*p), x), ("x", *names)),
        "entropy": (lambda *p: of(*p).entropy(), names),
        "KL": (lambda *p: kl_of(of(*p[:2]), of(*p[2:])), (*names, *others)),
    }

    def functions(case: Case) -> Functions:
        return {name: f for name, f in everything.items() if set(f[1]) <= set(case)}

    return functions


def columns(rows: list[Any]) -> tuple[Any, tuple[Any, ...]]:
    value, *gradients = np.array(rows, dtype=float).T
    return value, tuple(gradients)
