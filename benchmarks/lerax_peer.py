"""A policy of Lerax against the same network here. Run by `make bench` where there is Python 3.13.

Lerax needs an environment of its own: `make lerax`. Its policy is the `MLPActorCriticPolicy` of its
documentation, with the methods that its PPO calls (`action_and_value`, `evaluate_action`) and, from Python,
`policy(state, observation)`, all under `eqx.filter_jit` as its `learn` is. Ours has its shape and its
weights: an encoder 64-64-16, then towers.
"""

import importlib
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp

import policy_core as pc
from benchmarks.peers import CASES, TASKS, Policy, of_ours, rows_of
from benchmarks.timing import Measured, show
from policy_core.networks import Sequential


def their_policy(config: Any) -> Any:
    adapter: Any = importlib.import_module("policy_core_adapters.hosts.lerax")
    policies: Any = importlib.import_module("lerax.policy")
    spaces: Any = importlib.import_module("lerax.space")
    inputs = config.observation_space.shape[0]
    env = SimpleNamespace(  # all that the policy asks an environment for
        observation_space=spaces.Box(-jnp.inf * jnp.ones(inputs), jnp.inf * jnp.ones(inputs)),
        action_space=adapter.to_lerax(config.action_space),
    )
    return policies.MLPActorCriticPolicy(env=env, key=jax.random.key(0))


def of_lerax(policy: Any, config: Any) -> Policy:
    equinox: Any = importlib.import_module("equinox")
    call = equinox.filter_jit(lambda policy, x: policy(None, x)[1])
    is_box = isinstance(config.action_space, pc.Box)

    def act(policy: Any, x: Any) -> Any:
        action = call(policy, x)
        return jnp.clip(action, -1.0, 1.0) if is_box else action

    return Policy(
        policy,
        act,
        lambda policy, x, key: policy.action_and_value(None, x, key=key)[1:],
        lambda policy, x, action: policy.evaluate_action(None, x, action)[1:],
        equinox.filter_jit,
        equinox.filter_grad,
    )


def ours_of(policy: Any, config: Any) -> Any:
    """The same network with the same weights, as a policy of ours."""

    def relu(*n: int) -> pc.MLP:
        return pc.MLP(n, activation="relu", kernel_init="lecun_normal")

    linear = pc.MLP((16,), activation="identity", kernel_init="lecun_normal")
    config = pc.ActorCriticConfig(
        observation_space=config.observation_space,
        action_space=config.action_space,
        trunk=Sequential((relu(64, 64), linear)),
        actor=Sequential((relu(64), linear)),
        critic=relu(64, 64),
    )
    encoder, value, head = policy.encoder.layers, policy.value_head.layers, policy.action_head
    layers = {
        "trunk/network_0/hidden_0": encoder[0],
        "trunk/network_0/hidden_1": encoder[1],
        "trunk/network_1/hidden_0": encoder[2],
        "critic/tower/hidden_0": value[0],
        "critic/tower/hidden_1": value[1],
        "critic/head": value[2],
        "actor/tower/network_0/hidden_0": head.mlp.layers[0],
        "actor/tower/network_1/hidden_0": head.mlp.layers[1],
        "actor/head": head.action_dist.mapping,
    }
    leaves = {f"{path}/kernel": layer.weight.T for path, layer in layers.items()}
    leaves |= {f"{path}/bias": layer.bias for path, layer in layers.items()}
    if hasattr(head.action_dist, "log_std"):
        leaves["actor/head/scale"] = head.action_dist.log_std
    return pc.surgery.from_leaves(config, leaves)


def measure(
    seconds: float = 1.5, *, cases: Iterable[str] = tuple(CASES), tasks: Iterable[str] = TASKS
) -> list[Measured]:
    """The configs of `benchmarks/peers.py` in Lerax."""
    rows = []
    for name in cases:
        theirs = their_policy(CASES[name])
        pair = ours_of(theirs, CASES[name])
        contestants = {
            "ours": of_ours(CASES[name])._replace(params=pair),
            "Lerax": of_lerax(theirs, pair[1]),
        }
        rows += rows_of(name, pair[1], contestants, tasks, seconds)
    return rows


if __name__ == "__main__":
    print(show(measure()))
