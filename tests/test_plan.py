"""The plan of a policy: made once for a config, and what its branches feed."""

import copy
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import policy_core as pc
from policy_core.heads import composite, discrete

KEY = jax.random.key(0)


def nested(depth: int) -> Any:
    """Two discrete parts on each of `depth` levels."""
    space: Any = pc.Discrete(3)
    for _ in range(depth):
        space = pc.Dict({"a": pc.Discrete(2), "b": space})
    return space


TWO = pc.Discrete(2)


def config(action_space: Any = TWO, **fields: Any) -> Any:
    network = pc.MLP((4,))
    fields = {"observation_space": pc.Box(shape=(4,)), "actor": network, "critic": network, **fields}
    return pc.ActorCriticConfig(action_space=action_space, **fields)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How often a head is chosen, and a leaf's head asked whether it serves the space."""
    seen: list[str] = []
    head_of, check_space = composite.head_of, discrete.LogitsHead.check_space

    def choose(*arguments: Any) -> Any:
        seen.append("head_of")
        return head_of(*arguments)

    def check(self: Any, space: Any) -> None:
        seen.append("check_space")
        check_space(self, space)

    monkeypatch.setattr("policy_core.actor_critic.plan.head_of", choose)
    monkeypatch.setattr(composite, "head_of", choose)
    monkeypatch.setattr(discrete.LogitsHead, "check_space", check)
    return seen


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_heads_are_chosen_and_checked_once_when_the_config_is_built(depth, calls):
    built = config(nested(depth))
    assert calls.count("check_space") == depth + 1  # one for each leaf
    assert calls.count("head_of") == 2 * depth + 1  # and one for each level
    calls.clear()
    policy = pc.init(built, key=KEY)
    jax.jit(lambda policy: pc.act(policy, (), jnp.ones(4), key=KEY)).lower(policy)
    jax.jit(
        lambda policy: pc.evaluate_action(policy, (), jnp.ones(4), built.action_space.sample(key=KEY))
    ).lower(policy)
    assert calls == []


def test_dependent_parts_are_planned_once_too(calls):
    space = pc.Dict({"a": pc.Discrete(2), "b": pc.Discrete(3)})
    built = config(space, autoregressive=pc.Autoregressive({"b": ("a",)}, network=pc.MLP((4,))))
    assert calls.count("check_space") == 2
    calls.clear()
    jax.jit(lambda policy: pc.act(policy, (), jnp.ones(4), key=KEY)).lower(pc.init(built, key=KEY))
    assert calls == []


def test_the_plan_is_no_field_and_copies_have_their_own():
    built = config()
    assert built.plan is built.plan
    for twin in (copy.deepcopy(built), pickle.loads(pickle.dumps(built))):
        assert twin == built
        assert hash(twin) == hash(built)
        assert twin.plan.in_sizes == built.plan.in_sizes
    assert pc.fingerprint(built) == pc.fingerprint(config())
    assert "plan" not in repr(built)


PARTS = pc.Dict({"x": pc.Box(shape=(2,)), "y": pc.Box(shape=(3,))})
BRANCHES: dict[str, tuple[dict[str, Any], list[Any], list[Any], dict[str, int]]] = {
    "shared": ({}, [("shared", 5)], [], {"actor": 5, "critic": 5}),
    "trunk": ({"trunk": pc.MLP((7,))}, [("shared", 7)], [], {"actor": 7, "critic": 7}),
    "memory": ({"memory": pc.GRU(6)}, [("shared", 5)], [("shared", 5, 6)], {"actor": 6, "critic": 6}),
    "memory of the actor": (
        {"memory": pc.GRU(6), "memory_sharing": "actor"},
        [("shared", 5)],
        [("actor", 5, 6)],
        {"actor": 6, "critic": 5},
    ),
    "memories": (
        {"memory": pc.GRU(6), "memory_sharing": "separate"},
        [("shared", 5)],
        [("actor", 5, 6), ("critic", 5, 6)],
        {"actor": 6, "critic": 6},
    ),
    "keys": ({"actor_keys": ("x",)}, [("actor", 2), ("critic", 5)], [], {"actor": 2, "critic": 5}),
    "keys and memories": (
        {"actor_keys": ("x",), "critic_keys": ("y",), "memory": pc.GRU(6), "memory_sharing": "separate"},
        [("actor", 2), ("critic", 3)],
        [("actor", 2, 6), ("critic", 3, 6)],
        {"actor": 6, "critic": 6},
    ),
}


@pytest.mark.parametrize("name", BRANCHES)
def test_branches_and_their_sizes(name):
    fields, encoders, memories, in_sizes = BRANCHES[name]
    plan = config(observation_space=PARTS, **fields).plan
    assert [(branch.name, branch.out_size) for branch in plan.encoders] == encoders
    assert [(branch.name, branch.in_size, branch.out_size) for branch in plan.memories] == memories
    assert plan.in_sizes == in_sizes


def test_init_is_traced_once_for_what_is_checked_and_what_is_saved(monkeypatch):
    traces = []
    original = pc.ActorCriticConfig.init
    monkeypatch.setattr(
        pc.ActorCriticConfig, "init", lambda self, *, key: traces.append(self) or original(self, key=key)
    )
    built = config(pc.Discrete(7), actor=pc.MLP((3,)), critic=None)
    policy = original(built, key=KEY), built
    pc.reset(policy)
    data = pc.to_bytes(policy, self_test=False)
    pc.act(pc.from_bytes(data), (), jnp.ones(4))
    pc.batch_shape(policy)
    assert traces == [built]
