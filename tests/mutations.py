"""Random damage to policy files, and what becomes of it. The full counts: `python tests/mutations.py`.

Each mutation is refused with our error, or gives the very same policy; with the checksum put
right after the mutation, so that it hides nothing, it is refused with our error or loads.
"""

import functools
import random
import sys
import time
import tracemalloc
import warnings
from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
import msgpack
from by_hand import closed, content_of, opened, sealed

import policy_core as pc
from policy_core.errors import FileError

VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 127, 255, 2**31, 2**32, 2**60, 2**63 - 1, 2**63, -(2**63), 0.0, -0.0, 1.5,
    float("nan"), float("inf"), "", "x", "float32", "object", "policy_core/MLP", "policy_core/Dict", "\x00",
    b"", b"\0" * 8, [], {}, [[]], [0] * 40, {"type": "policy_core/MLP", "fields": {}}, msgpack.ExtType(5, b"x"),
]  # fmt: skip


def policy(hidden: tuple[int, ...]) -> Any:
    config = pc.ActorCriticConfig(
        observation_space=pc.Box(shape=(4,)),
        action_space=pc.Dict({"a": pc.Discrete(3), "b": pc.Box(low=-1.0, high=1.0, shape=(2,))}),
        actor=pc.MLP(hidden),
        critic=pc.MLP(hidden),
    )
    template = jax.eval_shape(lambda: config.init(key=jax.random.key(0)))
    return jax.tree.map(lambda x: jnp.linspace(-1, 1, x.size).reshape(x.shape), template), config


def mutated(data: bytes, rng: random.Random) -> dict[str, Any]:
    """The document with one to three places changed; the config is opened and packed again."""
    document = opened(data)
    inner = msgpack.unpackb(document["config"])
    nodes = document if rng.random() < 0.6 else inner
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        _change(nodes, rng)
    if nodes is inner:
        import hashlib

        document["config"] = msgpack.packb(inner)
        document["fingerprint"] = hashlib.sha256(b"policy_core config\n" + document["config"]).digest()
    return document


def _change(root: Any, rng: random.Random) -> None:
    places = list(_places(root))
    holder, at = rng.choice(places)
    keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
    match rng.randrange(7):
        case 0 | 1:
            holder[at] = rng.choice(VALUES)
        case 2:
            del holder[at]
        case 3:
            other = rng.choice(keys)
            holder[at], holder[other] = holder[other], holder[at]
        case 4:
            other_holder, other_at = rng.choice(places)
            holder[at] = other_holder[other_at] if not isinstance(other_holder[other_at], dict | list) else []
        case 5:
            if isinstance(holder, dict):
                value = holder.pop(at)
                holder[rng.choice(["x", "", "type", "fields", *map(str, keys)])] = value
            else:
                holder.insert(rng.randrange(len(holder) + 1), rng.choice(VALUES))
        case 6:
            holder[at] = _nudged(holder[at], rng)


def _nudged(value: Any, rng: random.Random) -> Any:
    if isinstance(value, bytes | str) and value:
        cut = rng.randrange(len(value))
        return value[:cut] + value[cut + rng.choice((0, 1)) :] + value[:1] * rng.choice((0, 1))
    if type(value) is int:
        return value + rng.choice((-1, 1, 2**8, 2**40))
    if isinstance(value, list):
        return value * 2
    return rng.choice(VALUES)


def _places(node: Any) -> Any:
    keys = list(node) if isinstance(node, dict) else range(len(node))
    for key in keys:
        yield node, key
        if isinstance(node[key], dict | list) and node[key]:
            yield from _places(node[key])


def outcome(data: bytes, original: bytes, limits: dict[str, float] | None = None) -> str:
    """`refused`, `same` or `other`; any exception but ours comes out of here."""
    start = time.process_time()
    try:
        loaded = pc.from_bytes(data)
    except FileError:
        return "refused"
    finally:
        if limits is not None:
            limits["seconds"] = max(limits.get("seconds", 0), time.process_time() - start)
    return "same" if _pair(loaded) == _original(original) else "other"


def _pair(loaded: Any) -> bytes:
    return pc.to_bytes(loaded, self_test=False)


@functools.cache
def _original(data: bytes) -> bytes:
    return _pair(pc.from_bytes(data)) if data else b""


def run_structural(
    data: bytes, count: int, seed: int, limits: dict[str, float] | None = None
) -> Counter[str]:
    """Counts of outcomes: `kept ...` with the old checksum, `resealed ...` with the right one."""
    rng = random.Random(seed)
    counts: Counter[str] = Counter()
    while sum(counts.values()) < 2 * count:
        try:
            resealed = closed(mutated(data, rng))
        except (ValueError, OverflowError):  # msgpack cannot write it
            continue
        counts["resealed " + outcome(resealed, data, limits)] += 1
        counts["kept " + outcome(resealed[:-32] + data[-32:], data, limits)] += 1
    return counts


def run_bytes(data: bytes, count: int, seed: int, limits: dict[str, float] | None = None) -> Counter[str]:
    """Random bytes overwritten, removed or inserted, the checksum put right."""
    rng = random.Random(seed)
    counts: Counter[str] = Counter()
    for _ in range(count):
        body = bytearray(content_of(data))
        at = rng.randrange(len(body)) if rng.random() < 0.5 else rng.randrange(min(len(body), 900))
        body[at : at + rng.choice((0, 1, 1, 1, 4))] = rng.randbytes(rng.choice((0, 1, 1, 1, 4)))
        counts["resealed " + outcome(sealed(bytes(body)), data, limits)] += 1
    return counts


def most_memory(data: bytes, count: int, seed: int) -> int:
    """The most bytes that Python and NumPy held besides while one of so many mutations was read."""
    rng, worst = random.Random(seed), 0
    tracemalloc.start()
    try:
        while count:
            try:
                resealed = closed(mutated(data, rng))
            except (ValueError, OverflowError):  # msgpack cannot write it
                continue
            count -= 1
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            outcome(resealed, b"")
            worst = max(worst, tracemalloc.get_traced_memory()[1] - before)
    finally:
        tracemalloc.stop()
    return worst


def main() -> None:
    warnings.simplefilter("ignore")
    pair = policy((64, 64))
    data = pc.to_bytes(pair, metadata={"note": "x"}, self_test=False)
    print(f"{sum(x.size for x in jax.tree.leaves(pair[0])):,} parameters, {len(data):,} bytes")
    limits: dict[str, float] = {}
    flipped = bytearray(data)
    counts: Counter[str] = Counter()
    for i in range(len(data) if "--quick" not in sys.argv else 500):
        for bit in range(8):
            flipped[i] ^= 1 << bit
            counts["flip " + outcome(bytes(flipped), data, limits)] += 1
            flipped[i] ^= 1 << bit
    for n in range(len(data)):
        counts["truncation " + outcome(data[:n], data, limits)] += 1
    for byte in range(256):
        counts["trailing " + outcome(data + bytes([byte]), data, limits)] += 1
    print(dict(counts), f"longest {limits['seconds']:.4f} s")
    for name, run in (("structural", run_structural), ("bytes", run_bytes)):
        limits = {}
        print(name, dict(run(data, 10_000, 0, limits)), f"longest {limits['seconds']:.3f} s", flush=True)
    print(f"most memory in 1,000 structural mutations: {most_memory(data, 1000, 1) / 2**20:.2f} MiB")


if __name__ == "__main__":
    main()
