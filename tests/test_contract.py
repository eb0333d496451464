"""Every check of the contract on every config of the table, and that the checks can fail."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from cases import CONFIGS, LOW_PRECISION, OBSERVATION

import policy_core as pc
from policy_core import testing
from policy_core.errors import ContractError
from policy_core.testing import checks

pytestmark = pytest.mark.usefixtures("unchecked")  # beartype doubles the time to trace

# Rounding of bfloat16 depends on how a program is fused.
TOLERANCE = dict.fromkeys(LOW_PRECISION, 0.05)


# One of each kind passes every check; the others those that their difference could break.
FULL = (
    "act discrete",
    "squashed, mixed bounds",
    "gru",
    "symlog values",
)
MASKED = (
    "autoregressive",
    "bfloat16",
    "act multi-discrete of rank 2",
    "act discrete of one",
    "act discrete of 200",
    "act multi-binary of rank 2",
    "act nested",
    "beta",
)
OTHERS = [name for name in CONFIGS if name not in FULL and name not in MASKED]


@pytest.mark.parametrize("name", FULL)
def test_config_keeps_the_contract(name: str) -> None:
    testing.check_policy(CONFIGS[name], tolerance=TOLERANCE.get(name, 1e-5))


@pytest.mark.parametrize("name", MASKED)
def test_masks_of_a_variant_hold(name: str) -> None:
    case = testing.Case(CONFIGS[name], tolerance=TOLERANCE.get(name, 1e-5))
    checks.check_shapes(case)
    checks.check_masks(case)


@pytest.mark.parametrize("name", OTHERS)
def test_a_variant_acts_and_scores(name: str) -> None:
    """One program for each config, because compiling is what takes the time, and most of it that of `init`.

    Outside of a jit, a kernel is drawn by a program of its shape, which configs share.
    """
    config = CONFIGS[name]

    @jax.jit
    def step(params: Any, key: Any) -> Any:
        observation_key, key = jax.random.split(key)
        policy = params, config
        call = policy, pc.reset(policy), config.observation_space.sample(key=observation_key)
        _, action, value, log_prob = pc.action_and_value(*call, key=key)
        _, again, score, entropy = pc.evaluate_action(*call, action)
        _, mode = pc.act(*call)
        contains = config.action_space.contains
        inside = contains(pc.env_action(policy, action)) & contains(mode)
        return (value, log_prob, entropy), (again - value, score - log_prob), inside

    params = config.init(key=jax.random.key(0))
    terms, differences, inside = step(params, jax.random.key(1))
    objectives = getattr(config.value_head, "objectives", None)
    assert [x.shape for x in terms] == [() if objectives is None else (objectives,), (), ()]
    assert all(jnp.issubdtype(x.dtype, jnp.floating) and bool(jnp.isfinite(x).all()) for x in terms)
    assert not any(x.any() for x in differences)
    assert bool(inside)


OPTIMIZED = """
from cases import CONFIGS
from policy_core import testing
from policy_core.testing import checks

for name in ("act discrete", "squashed, mixed bounds"):
    checks.check_ratio(testing.Case(CONFIGS[name]))
"""


def test_the_ratio_is_one_as_users_compile() -> None:
    """The rest of the suite is compiled without some optimisations, see `conftest`."""
    tests = Path(__file__).parent
    env = {**os.environ, "XLA_FLAGS": "", "PYTHONPATH": str(tests.parent)}  # not what may be installed
    done = subprocess.run(
        [sys.executable, "-c", OPTIMIZED], env=env, cwd=tests, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def _broken(**methods: Any) -> Any:
    """A config that keeps the contract except where `methods` say otherwise."""

    def init(self: Any, *, key: Any) -> Any:
        return {"w": jax.random.normal(key, (3, 2)), "v": jnp.ones(3)}

    def initial_state(self: Any, params: Any, *, key: Any = None) -> Any:
        return ()

    def forward(self: Any, params: Any, state: Any, observation: Any, *, action_mask: Any = None) -> Any:
        logits = observation @ params["w"]
        distribution = pc.distributions.Categorical(logits, action_mask, pc.Discrete(2))
        return state, distribution, observation @ params["v"]

    def same(self: Any, action: Any) -> Any:
        return action

    body = {
        "__module__": __name__,
        "__qualname__": "Broken" + "".join(methods),
        "__annotations__": {},
        "observation_space": OBSERVATION,
        "action_space": pc.Discrete(2),
        "init": init,
        "initial_state": initial_state,
        "forward": forward,
        "env_action": same,
        "policy_action": same,
    }
    return pc.static(type("Broken", (), {**body, **methods}))()


def _forward_ignoring_masks(self, params, state, observation, *, action_mask=None):
    distribution = pc.distributions.Categorical(observation @ params["w"], None, pc.Discrete(2))
    return state, distribution, observation @ params["v"]


def _forward_batched_value(self, params, state, observation, *, action_mask=None):
    distribution = pc.distributions.Categorical(observation @ params["w"], action_mask, pc.Discrete(2))
    return state, distribution, (observation @ params["v"])[None]


def _forward_without_precision(self, params, state, observation, *, action_mask=None):
    """A value that is not a function of its arguments alone."""
    distribution = pc.distributions.Categorical(observation @ params["w"], action_mask, pc.Discrete(2))
    _forward_without_precision.calls += 1
    return state, distribution, observation @ params["v"] + _forward_without_precision.calls


_forward_without_precision.calls = 0


def _forward_counting(self, params, state, observation, *, action_mask=None):
    _, distribution, value = _forward_batched_value(self, params, (), observation, action_mask=action_mask)
    return state + 1.0, distribution, value[0] + state


def _nan_gradient(self, params, state, observation, *, action_mask=None):
    logits = observation @ params["w"]
    distribution = pc.distributions.Categorical(logits, action_mask, pc.Discrete(2))
    zero = jnp.sum(params["v"]) * 0.0
    return state, distribution, jnp.sqrt(zero)


def test_the_config_that_the_broken_ones_derive_from_is_sound() -> None:
    testing.check_policy(_broken())


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ({"forward": _forward_ignoring_masks}, "mask forbids was sampled"),
        ({"forward": _forward_batched_value}, "value is .*, expected a float scalar"),
        ({"forward": _forward_without_precision}, "evaluate_action gives another value|differ by"),
        ({"forward": _nan_gradient}, "is not finite"),
        ({"env_action": lambda self, action: action + 5}, "is not in the action space"),
    ],
    ids=["ignores masks", "batched value", "impure", "NaN gradient", "leaves the space"],
)
def test_a_broken_config_is_found(methods: dict[str, Any], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        testing.check_policy(_broken(**methods))


def test_a_counting_memory_is_reset_by_is_first() -> None:
    config = _broken(forward=_forward_counting, initial_state=lambda self, params, *, key=None: jnp.zeros(()))
    testing.check_policy(config)
    policy = pc.init(config, key=jax.random.key(0))
    state = pc.reset(policy)
    observation = jnp.zeros(3)
    for expected in (1.0, 2.0):
        state, _ = pc.value(policy, state, observation)
        assert float(state) == expected
    state, _ = pc.value(policy, state, observation, is_first=True)
    assert float(state) == 1.0
    first = jnp.array([False, True, False])
    last, values, *_ = pc.evaluate_sequence(
        policy, state, jnp.zeros((3, 3)), jnp.zeros(3, jnp.int32), is_first=first
    )
    assert float(last) == 2.0
    assert values.tolist() == [1.0, 0.0, 1.0]


def test_what_is_not_static_is_refused() -> None:
    with pytest.raises(ContractError, match="does not implement ActorCritic"):
        testing.check_policy(pc.MLP())


def test_checks_have_precise_products_whatever_the_default_is(monkeypatch: Any) -> None:
    """On a GPU or TPU a product of one row and one of many would differ by 1e-3, and no rule be broken."""
    seen: list[Any] = []
    monkeypatch.setattr(checks, "CHECKS", [lambda _: seen.append(jax.config.jax_default_matmul_precision)])
    with jax.default_matmul_precision("bfloat16"):
        testing.check_policy(CONFIGS["act discrete"])
    assert seen == ["highest"]
