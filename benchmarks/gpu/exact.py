"""Whether a GPU gives what a CPU gives: scores, draws, files, and the ratio that PPO starts from."""

import importlib
import math
import sys
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import policy_core as pc
from benchmarks.floor import ROWS
from benchmarks.gpu.measure import ROOT, SOME, Rows, alike, deviation


def policies() -> dict[str, Any]:
    """One of each kind, with params that are the same on every device."""
    image = pc.Box(low=0, high=255, shape=(10, 10, 4), dtype="uint8")
    configs = {name: row.config for name, row in ROWS.items() if not row.masked}
    configs["32 to GRU(64) to Discrete(6)"] = pc.ActorCriticConfig(
        observation_space=pc.Box(shape=(32,)), action_space=pc.Discrete(6), memory=pc.GRU(64)
    )
    configs["MinAtarCNN to Discrete(6)"] = pc.ActorCriticConfig(
        observation_space=image, action_space=pc.Discrete(6), encoder=pc.MinAtarCNN()
    )
    return {name: pc.init(config, key=jax.random.key(0)) for name, config in configs.items()}


@jax.jit
def scored(policy: Any, observations: Any, actions: Any) -> Any:
    """Value, log-prob and entropy of a batch."""
    state = pc.reset(policy, batch=(len(observations),))
    return jax.vmap(partial(pc.evaluate_action, policy))(state, observations, actions)[1:]


@jax.jit
def drawn(policy: Any, observations: Any, keys: Any) -> Any:
    """Action, value and log-prob of a batch."""
    state = pc.reset(policy, batch=(len(observations),))
    step: Any = jax.vmap(lambda s, x, key: pc.action_and_value(policy, s, x, key=key))
    return step(state, observations, keys)[1:]


def exactness() -> dict[str, Any]:
    """Against the same functions on the CPU, by the precision of products; and ratios before an update."""
    cpu = jax.devices("cpu")[0]
    rows: Rows = []
    for name, policy in policies().items():
        space = policy[1].observation_space
        rng = np.random.default_rng(1)
        shape = (SOME, *space.shape)
        x = (
            rng.integers(0, 2, shape).astype(np.uint8)
            if space.dtype == "uint8"
            else rng.standard_normal(shape).astype(np.float32)
        )
        keys = jax.random.split(jax.random.key(2), SOME)
        at_home = jax.device_put((policy, x, keys), cpu)
        actions, _, _ = drawn(*at_home)
        reference = scored(*at_home[:2], actions)
        cells = []
        for precision in ("default", "highest"):
            with jax.default_matmul_precision(precision):
                policy_, x_, keys_, actions_ = jax.device_put((policy, x, keys, actions), jax.devices()[0])
                found, _, old = drawn(policy_, x_, keys_)
                # The ratio that PPO starts from: the actions of the rollout, in minibatches of a quarter.
                ratios = [
                    np.exp(np.asarray(scored(policy_, x_[i::4], found[i::4])[1]) - np.asarray(old[i::4]))
                    for i in range(4)
                ]
                cells += [
                    f"{deviation(scored(policy_, x_, actions_), reference):.1e}",
                    alike(found, actions),
                    f"{max(float(np.abs(ratio - 1).max()) for ratio in ratios):.1e}",
                ]
        rows.append([name, *cells])
    return {"rows": rows}


def golden() -> dict[str, Any]:
    """Files that were written on a CPU, verified here."""
    sys.path.append(str(ROOT / "tests"))
    importlib.import_module("cases")  # registers the mask function of one of them
    rows: Rows = []
    for path in sorted((ROOT / "tests/golden/v1").glob("*.msgpack")):
        try:
            found = f"{pc.verify(path, tolerance=math.inf).deviation:.1e}"
        except pc.errors.FileError as error:
            found = f"{type(error).__name__}: {error}"[:80]
        rows.append([path.stem, found])
    return {"rows": rows}


def bits() -> dict[str, Any]:
    """Draws of categoricals: the same bits eagerly, jitted and mapped; only classes with weight."""
    rows: Rows = []
    for n in (2, 18, 1024):
        logits = 3 * jax.random.normal(jax.random.key(0), (256, n))
        mask = jax.random.bernoulli(jax.random.key(1), 0.3, logits.shape).at[:, 0].set(True)
        keys = jax.random.split(jax.random.key(2), 256)

        def draw(logits: jax.Array, mask: jax.Array, key: jax.Array, n: int = n) -> jax.Array:
            found: jax.Array = pc.distributions.Categorical(logits, mask, pc.Discrete(n)).sample(key=key)
            return found

        mapped = jax.jit(jax.vmap(draw))(logits, mask, keys)
        one = jax.jit(draw)
        jitted = jnp.stack([one(*row) for row in zip(logits, mask, keys, strict=True)])
        eager = jnp.stack([draw(*row) for row in zip(logits[:16], mask[:16], keys[:16], strict=True)])
        allowed = bool(jnp.all(jnp.take_along_axis(mask, mapped[:, None], 1)))
        cpu = jax.devices("cpu")[0]
        with jax.default_device(cpu):
            there = jax.jit(jax.vmap(draw))(*jax.device_put((logits, mask, keys), cpu))
        rows.append(
            [
                f"{n} classes",
                str(bool(jnp.array_equal(mapped, jitted))),
                str(bool(jnp.array_equal(mapped[:16], eager))),
                f"{int(np.sum(np.asarray(mapped) == np.asarray(there)))} of 256",
                str(allowed),
            ]
        )
    return {"rows": rows}
