"""What `docs/scaling.md` says of bytes: the collectives that XLA compiles for 2, 4 and 8 devices."""

import json
import math
import os
import re
import subprocess
import sys
from typing import Any

import pytest

SIZES = {"f32": 4, "s32": 4, "u32": 4, "pred": 1}
COLLECTIVE = re.compile(
    r"= (\(.*?\)|\S+) (all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)(?:-start)?\("
)


def collectives(text: str) -> dict[str, int]:
    """Bytes of the results of each kind of collective in the text of a compiled program."""
    found: dict[str, int] = {}
    for shapes, kind in COLLECTIVE.findall(re.sub(r"/\*.*?\*/", "", text)):
        for dtype, sizes in re.findall(r"(\w+)\[([\d,]*)\]", shapes):
            count = math.prod(int(size) for size in sizes.split(",") if size)
            found[kind] = found.get(kind, 0) + SIZES[dtype] * count
    return found


def compile_all(devices: int) -> dict[str, Any]:
    """Run in a process of eight devices."""
    import jax
    import jax.numpy as jnp
    import optax

    import policy_core as pc

    config = pc.ActorCriticConfig(observation_space=pc.Box(shape=(8,)), action_space=pc.Discrete(4))
    optimizer = optax.adam(1e-3)
    mesh = jax.make_mesh(
        (devices,), ("population",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:devices]
    )
    split, same = pc.population.sharding(mesh), pc.population.replicated(mesh)
    n = 8 * devices

    def update(policy: Any, state: Any, observations: Any) -> Any:
        def loss(policy: Any) -> Any:
            def one(observation: Any) -> Any:
                _, distribution, value = pc.forward(policy, (), observation)
                return value.loss(jnp.ones(())) - 0.01 * distribution.entropy()

            return jax.vmap(one)(observations).mean()

        change, state = optimizer.update(jax.grad(loss)(policy), state, policy)
        return optax.apply_updates(policy, change), state

    def generation(population: Any, state: Any, returns: Any, key: Any) -> Any:
        source = pc.population.exploit(returns, key=key)
        return pc.population.take((population, state), source)

    def shapes(tree: Any, where: Any) -> Any:
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), tree)

    def compiled(f: Any, out: Any, *arguments: Any) -> dict[str, int]:
        return collectives(jax.jit(f, out_shardings=out).lower(*arguments).compile().as_text())

    policy = jax.eval_shape(lambda: pc.init(config, key=jax.random.key(0)))
    pair = policy, jax.eval_shape(optimizer.init, policy)
    many = jax.tree.map(lambda x: jax.ShapeDtypeStruct((n, *x.shape), x.dtype), pair)
    islands = jax.tree.map(lambda x: jax.ShapeDtypeStruct((devices, 8, *x.shape), x.dtype), pair)
    key = jax.eval_shape(lambda: jax.random.key(0))
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), devices))
    f32 = jnp.float32
    seen = jax.ShapeDtypeStruct((n, 16, 8), f32, sharding=split)
    returns = jax.ShapeDtypeStruct((n,), f32, sharding=split)
    by_island = jax.ShapeDtypeStruct((devices, 8), f32, sharding=split)
    batch = jax.ShapeDtypeStruct((256, 8), f32, sharding=split)
    return {
        "P": sum(4 * math.prod(leaf.shape) for leaf in jax.tree.leaves(policy)),
        "members": compiled(jax.vmap(update), split, *shapes(many, split), seen),
        "exploit": compiled(generation, split, *shapes(many, split), returns, key),
        "islands": compiled(
            jax.vmap(generation), split, *shapes(islands, split), by_island, shapes(keys, split)
        ),
        "data": compiled(update, same, *shapes(pair, same), batch),
    }


@pytest.fixture(scope="module")
def found() -> dict[int, Any]:
    script = "import json, test_scaling as t; print(json.dumps({d: t.compile_all(d) for d in (2, 4, 8)}))"
    env = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run(
        [sys.executable, "-c", script], env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return {int(devices): result for devices, result in json.loads(done.stdout.splitlines()[-1]).items()}


@pytest.mark.parametrize("devices", [2, 4, 8])
def test_the_collectives_are_those_of_the_page(found: dict[int, Any], devices: int) -> None:
    """An all-gather has the size of the whole; an all-reduce that of the gradient. Both in bytes."""
    result = found[devices]
    size, n = result["P"], 8 * devices
    assert size == 39_188
    assert result["members"] == {}
    assert result["islands"] == {}
    gathered = dict(result["exploit"])
    assert gathered.pop("all-gather") == n * (3 * size + 8)  # params, Adam, its count, and the return
    assert sum(gathered.values()) <= 64  # of scalars
    reduced = dict(result["data"])
    assert size <= reduced.pop("all-reduce") <= size + 64
    assert reduced == {}
