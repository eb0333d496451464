"""A program that `tests/test_hosts.py` runs in two processes, and in one: it trains, exploits, saves, loads.

    python on_hosts.py FOLDER RANK PROCESSES PORT

Each process has `4 / PROCESSES` of four devices. What it finds goes to FOLDER/RANK.npz and .json.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

FOLDER, RANK, PROCESSES, PORT = Path(sys.argv[1]), *map(int, sys.argv[2:])
DEVICES = 4
os.environ["XLA_FLAGS"] += f" --xla_force_host_platform_device_count={DEVICES // PROCESSES}"

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from jax.experimental import multihost_utils  # noqa: E402

import policy_core as pc  # noqa: E402

population = pc.population
MEMBERS, STEPS = 8, 3
CONFIG = pc.ActorCriticConfig(
    observation_space=pc.Box(shape=(3,)),
    action_space=pc.Discrete(3),
    actor=pc.MLP((8,)),
    critic=pc.MLP((8,)),
    normalize=pc.Normalize(),
    temperature=1.0,
)


def train(policy: Any, rate: Any, key: Any) -> Any:
    """A step of gradient ascent on the probability of action 1; its logarithm is the return."""
    observations = jax.random.normal(key, (5, 3))

    def score(policy: Any) -> Any:
        return jnp.mean(jax.vmap(lambda x: pc.evaluate_action(policy, (), x, 1)[2])(observations))

    value, gradient = jax.value_and_grad(score)(policy)
    policy = jax.tree.map(lambda p, g: p + rate * g, policy, gradient)
    return pc.update_statistics(policy, observations), value


def refused(call: Any) -> str:
    """The error of a call: its class and its text."""
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def main() -> None:
    origin = jax.random.key(0)
    found: dict[str, Any] = {"devices": jax.device_count(), "local": jax.local_device_count()}
    mesh = jax.make_mesh((DEVICES,), ("population",), axis_types=(jax.sharding.AxisType.Auto,))
    by_member = population.sharding(mesh)
    population.assert_same_config(CONFIG)
    activation = ("tanh", "relu")[RANK]
    found["configs"] = refused(lambda: population.assert_same_config(pc.MLP((8,), activation=activation)))

    pop = population.init(CONFIG, MEMBERS, key=origin, out_shardings=by_member)
    rates = jax.device_put(np.linspace(0.1, 2.0, MEMBERS).astype(np.float32), by_member)
    step = jax.jit(jax.vmap(train, in_axes=(0, 0, None)), out_shardings=by_member)
    for i in range(STEPS):
        pop, returns = step(pop, rates, jax.random.fold_in(origin, i))
    before = population.gather((pop, returns, rates))

    source = population.exploit(returns, key=origin)
    pop, rates = population.take((pop, rates), source, donate=True)
    assert pop[0]["temperature"].sharding == by_member
    full, all_rates = population.gather((pop, rates))

    path = FOLDER / "population"
    found["save"] = refused(lambda: pc.save(FOLDER / "global", pop))
    found["extra"] = refused(lambda: pc.save(FOLDER / "global", full, extra=rates))
    if RANK == 0:
        pc.save(path, full, extra=all_rates)
    multihost_utils.sync_global_devices("saved")
    loaded = pc.load(path, CONFIG)
    again = jax.device_put(jax.tree.map(np.asarray, loaded), by_member)
    further, _ = step(again, rates, jax.random.fold_in(origin, STEPS))
    straight, _ = step(pop, rates, jax.random.fold_in(origin, STEPS))

    # A member that lies on the other process, and one from this one's copy, into another place.
    member = population.gather(population.member(pop, MEMBERS - 1))
    replaced = population.gather(population.replace(pop, 0, population.member(full, 5)))
    keys = jax.jit(lambda key: jax.random.split(key, MEMBERS), out_shardings=by_member)(origin)
    found["keys"] = bool((population.gather(keys) == jax.random.split(origin, MEMBERS)).all())

    trees = {
        "before": before[0], "returns": before[1], "source": population.gather(source), "full": full,
        "rates": all_rates, "loaded": loaded, "further": population.gather(further),
        "straight": population.gather(straight), "member": member, "replaced": replaced,
    }  # fmt: skip
    found["numpy"] = all(type(leaf) is np.ndarray for leaf in jax.tree.leaves((full, member)))
    arrays = {
        name + jax.tree_util.keystr(path): np.asarray(leaf)
        for name, tree in trees.items()
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
    np.savez(FOLDER / f"{RANK}.npz", **arrays)
    (FOLDER / f"{RANK}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    if PROCESSES > 1:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(f"127.0.0.1:{PORT}", PROCESSES, RANK)
    main()
    if PROCESSES > 1:
        jax.distributed.shutdown()
