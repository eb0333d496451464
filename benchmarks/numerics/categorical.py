"""Categoricals: plain, masked, several at once; references in 80-bit floats."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import policy_core as pc
from benchmarks.numerics.common import NVEC, WIDE, Case, Cases, References, discrete, distrax, masked_by
from policy_core.distributions import Categorical, MultiCategorical


def categorical_cases(masked: bool) -> Cases:
    """For each n one case, a batch in which everything that is hard comes up."""

    def cases(rng: np.random.Generator, dtype: Any, quick: bool) -> Iterator[Case]:
        for n, rows in ((1, 16), (2, 400), (18, 200), (1000, 16), (10000, 4)):
            parts = list(_logits(rng, n, 1 + rows // 8 if quick else rows, masked))
            case: Case = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
            case["p"], case["q"] = case["p"].astype(dtype), case["q"].astype(dtype)
            if not masked:
                case["mask"] = case["other mask"] = None
            yield case

    return cases


def _logits(rng: np.random.Generator, n: int, rows: int, masked: bool) -> Iterator[Case]:
    def normal(scale: float) -> np.ndarray:
        return rng.normal(size=(rows, n)) * scale

    uniform = [rng.uniform(-1e4, 1e4, (rows, n)) for _ in range(2)]
    some_low, low = normal(1), [normal(1e8) - 1e9 for _ in range(2)]
    some_low[:, ::2] = -1e9 - 1e8 * rng.random(some_low[:, ::2].shape)
    peaked = [normal(1) for _ in range(2)]
    peaked[0][:, 0] = peaked[1][:, -1] = 30
    p = normal(2)
    pairs = [*((normal(s), normal(s)) for s in (0, 0.01, 1, 10, 100)), (p, p + normal(0.3))]
    pairs += [(uniform[0], uniform[1]), (1e4 + normal(2), normal(2) - 1e4)]
    pairs += [(peaked[0], peaked[1]), (some_low, some_low[:, ::-1]), (low[0], low[1])]
    if n > 2:
        impossible = normal(2)
        impossible[:, 0] = -np.inf
        pairs.append((impossible, np.where(impossible > -np.inf, normal(2), -np.inf)))
    for p, q in pairs:
        mask = np.ones((rows, n), bool)
        if masked:  # in one half of the rows an end is masked, and in one row all but one
            mask = rng.random((rows, n)) < 0.6
            mask[: rows // 4, : n // 2] = False
            mask[rows // 4 : rows // 2, (n + 1) // 2 :] = False
            mask[-1] = np.arange(n) == rng.integers(n)
            mask &= p > -np.inf
            mask[np.arange(rows), np.argmax(p, -1)] |= ~mask.any(-1)
        other = mask | (rng.random(mask.shape) < 0.3) if masked else mask
        possible = mask & (p > -np.inf)
        action = np.argmax(np.where(possible, rng.random(p.shape), -1), -1).astype(np.int32)
        junk = rng.choice([1e6, np.inf, -np.inf, np.nan, 3e38], p.shape)
        yield {
            "p": np.where(mask, p, junk),
            "q": np.where(other, q, junk),
            "mask": mask,
            "other mask": other,
            "action": action,
        }


def near_equal_cases(rng: np.random.Generator, dtype: Any, quick: bool) -> Iterator[Case]:
    for n, rows in ((2, 800), (18, 400), (1000, 16)):
        p = rng.normal(size=(1 + rows // 8 if quick else rows, n)) * 3
        size = 10 ** rng.uniform(-6, -4, (len(p), 1))
        p = p.astype(dtype)
        yield {"p": p, "q": (p + rng.normal(size=p.shape) * size).astype(dtype)}


def categorical_reference(case: Case) -> References:
    def parts(z: Any, mask: Any) -> tuple[Any, Any, Any]:
        z = z.astype(WIDE)
        possible = (z > -np.inf) & (True if mask is None else mask)
        with np.errstate(invalid="ignore"):  # masked NaN and inf
            shifted = z - np.max(np.where(possible, z, -np.inf), -1, keepdims=True)
        weights = np.where(possible, np.exp(np.where(possible, shifted, 0)), 0)
        whole = weights.sum(-1, keepdims=True)
        return weights / whole, np.where(possible, shifted - np.log(whole), 0), possible

    p, log_p, possible = parts(case["p"], case.get("mask"))
    q, log_q, other_possible = parts(case["q"], case.get("other mask"))
    d = log_q - log_p
    near = np.abs(d) < 0.1
    terms = np.where(near, p * (np.expm1(np.where(near, d, 0)) - d), q - p - p * d)
    kl = np.where(possible, terms, q).sum(-1)
    mean = np.where(possible, p * -d, 0).sum(-1, keepdims=True)
    out: References = {"KL": (kl, (p * (-d - mean), np.where(other_possible, q - p, 0)))}
    if "action" not in case:
        return {"KL": (kl, ())}
    entropy = -(p * log_p).sum(-1)
    out["entropy"] = entropy, (-p * (log_p + entropy[:, None]),)
    hit = np.arange(p.shape[-1]) == case["action"][:, None]
    out["log_prob"] = (log_p * hit).sum(-1), (hit - p,)
    return out


class _Logits(NamedTuple):
    """Categoricals by log_softmax."""

    logits: Any

    def log_prob(self, action: Any) -> Any:
        return jnp.take_along_axis(jax.nn.log_softmax(self.logits), action[:, None], -1)[:, 0]

    def entropy(self) -> Any:
        return -jnp.sum(jax.nn.softmax(self.logits) * jax.nn.log_softmax(self.logits), -1)

    def kl(self, other: "_Logits") -> Any:
        log_p, log_q = jax.nn.log_softmax(self.logits), jax.nn.log_softmax(other.logits)
        return jnp.sum(jnp.exp(log_p) * (log_p - log_q), -1)


def multi_cases(rng: np.random.Generator, dtype: Any, quick: bool) -> Iterator[Case]:
    case: Case = {}
    rows = [list(_logits(rng, n, 8 if quick else 80, True)) for n in NVEC]
    for name in ("p", "q", "mask", "other mask", "action"):
        # Short rows lack the last kind of case; the kinds are in another order in each row.
        count = min(map(len, rows))
        columns = [
            np.concatenate([kinds[(i + shift) % count][name] for i in range(count)])
            for shift, kinds in enumerate(rows)
        ]
        if name in ("p", "q"):
            case[name] = np.concatenate(columns, -1).astype(dtype)
        else:
            case[name] = np.stack(columns, -1) if name == "action" else tuple(columns)
    yield case


def multi_reference(case: Case) -> References:
    ends = np.cumsum(NVEC)
    rows = [
        categorical_reference(
            {
                **{name: case[name][:, end - n : end] for name in ("p", "q")},
                **{name: case[name][i] for name in ("mask", "other mask")},
                "action": case["action"][:, i],
            }
        )
        for i, (n, end) in enumerate(zip(NVEC, ends, strict=True))
    ]
    return {
        name: (
            sum(row[name][0] for row in rows),
            tuple(np.concatenate(parts, -1) for parts in zip(*(row[name][1] for row in rows), strict=True)),
        )
        for name in rows[0]
    }


CATEGORICALS = {
    "ours": discrete(lambda z, mask: Categorical(z, mask, pc.Discrete(z.shape[-1]))),
    "naive": discrete(masked_by(-1e8, _Logits)),
    "distrax": discrete(masked_by(-1e30, lambda z: distrax.Categorical(z))),
}
MULTI = {"ours": discrete(lambda z, mask: MultiCategorical(z, mask, pc.MultiDiscrete(NVEC)))}
