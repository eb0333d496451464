"""Training that is one jitted function of a key: compiled once, then run for each seed."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import jax

from benchmarks.tasks.record import Seed


def trained(
    whole: Callable[[jax.Array], Any],
    read: Callable[[Any], Any],
    steps: int,
    seeds: list[int],
    key: Callable[[int], jax.Array] = jax.random.key,
) -> Iterator[Seed]:
    """The seeds of `whole(key(seed))`, whose outcome `read` takes apart into returns and episodes."""
    start = time.process_time()
    program = jax.jit(whole).lower(key(0)).compile()
    compiled = time.process_time() - start
    for seed in seeds:
        start = time.process_time()
        out = jax.block_until_ready(program(key(seed)))
        seconds = time.process_time() - start
        returned, episodes = read(out)
        yield Seed(seed, steps, returned, episodes, seconds, compiled)
