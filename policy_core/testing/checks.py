"""Conformance tests for implementers of `ActorCritic`.

`check_policy(config)` runs every check on one config; each check is also a function of
its own, so that a test runner can name what failed.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from policy_core.checks.structure import check_structure
from policy_core.configs.registry import is_static
from policy_core.contract import ActorCritic, Policy, ValuePrediction
from policy_core.files import from_bytes, to_bytes
from policy_core.functions import sequence, step, training
from policy_core.testing.assertions import (
    at,
    attempt,
    require,
    require_close,
    require_equal,
    require_finite,
    require_finite_float,
    require_one_trace,
    stack,
)
from policy_core.testing.inputs import is_allowed, perturb, random_mask

_TIME = 5


def check_policy(config: Any, *, seed: int = 0, tolerance: float = 1e-5, loadable: bool = True) -> None:
    """Check that a config satisfies the `ActorCritic` contract.

    Args:
        config: the config, as passed to `policy_core.init`.
        seed: the seed of the random observations, masks and params.
        tolerance: how far results may differ between programs (jit or not, vmap or loop),
            relative to max(1, |result|). Raise it for networks that compute in bfloat16. Matrix products
            have the highest precision, so that on an accelerator it need not be raised.
        loadable: whether to also check that the policy can be saved and loaded.

    Raises:
        ContractError: for the first rule that is broken, with the numbers.

    Example:
        >>> import policy_core as pc
        >>> from policy_core.testing import check_policy
        >>> check_policy(pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(2,)), action_space=pc.Discrete(3),
        ...     actor=pc.MLP((4,)), critic=pc.MLP((4,)),
        ... ))
    """
    require(isinstance(config, ActorCritic), "the config does not implement ActorCritic")
    leaves = attempt(lambda: jax.tree.leaves(config), "the config is not static")
    require(leaves == [], "the config is not static: decorate its class with @policy_core.static")
    with jax.default_matmul_precision("highest"):
        case = Case(config, seed, tolerance)
        for check in CHECKS:
            if loadable or check is not check_file:
                check(case)


class Case:
    """A policy with random params, one observation, one sequence and one mask, for all checks."""

    def __init__(self, config: ActorCritic, seed: int = 0, tolerance: float = 1e-5) -> None:
        self.config, self.tolerance = config, tolerance
        space, full = config.observation_space, config.action_space.full_mask()
        init_key, *keys, self.key = jax.random.split(jax.random.key(seed), 5)

        @jax.jit
        def draw(params: Any, noise_key: Any, observation_key: Any, mask_key: Any) -> Any:
            policy = (params, config)
            keys = jax.random.split(observation_key, _TIME)
            observations = jax.vmap(lambda key: space.sample(key=key))(keys)
            # Every leaf is perturbed, so that no check passes because a bias or a gain is near zero.
            moves, _ = training.trainable(policy)
            policy = (perturb(policy[0], moves, noise_key), config)
            params, _ = training.update_statistics(policy, observations)
            return params, observations, random_mask(full, mask_key)

        # Outside of `draw`: a kernel is drawn by a program of its shape, which takes long to compile.
        params, self.observations, self.mask = draw(config.init(key=init_key), *keys)
        self.policy: Policy = (params, config)
        self.state = step.reset(self.policy)
        self.observation = at(self.observations, 0)
        self.is_first = jnp.array([False, True, False, False, True])


def check_shapes(case: Case) -> None:
    """Log-probabilities and entropies are float scalars; actions are in the space."""
    state, action, _, log_prob = case_step(case)
    _, _, *terms = step.evaluate_action(
        case.policy, case.state, case.observation, action, action_mask=case.mask
    )
    for name, x in zip(("log_prob", "entropy"), terms, strict=True):
        require_finite_float(name, x, ())
    require(log_prob.shape == (), "log_prob is not a scalar")
    attempt(lambda: check_structure(state, case.state, "state"), "the state changes its structure")
    env_action = step.env_action(case.policy, action)
    require(
        bool(case.config.action_space.contains(env_action)),
        f"the environment action {env_action} is not in the action space",
    )


def check_value(case: Case) -> None:
    """A value is a finite float scalar, or the vector of a prediction; its loss has a gradient."""
    call = (case.state, case.observation)
    raw = jax.eval_shape(case.config.forward, case.policy[0], *call)[2]
    _, value = step.value(case.policy, *call)
    require_finite_float("value", value, value.shape if isinstance(raw, ValuePrediction) else ())
    require(value.ndim <= 1, f"value is {value.dtype}{value.shape}, expected a scalar or a vector")

    @jax.jit
    def losses(params: Any, target: Any) -> Any:
        def loss(params: Any, target: Any) -> Any:
            critic: Any = step.forward((params, case.config), *call)[2]
            losses = critic.loss(target)
            return jnp.sum(losses), losses

        return jax.grad(loss, (0, 1), has_aux=True)(params, target)

    (slope, by_target), loss = losses(case.policy[0], value + 0.5)
    require_finite_float("the loss of a value", loss, value.shape)
    require_finite(slope, "the gradient of the loss of a value is not finite")
    require(any(bool(jnp.any(x != 0)) for x in jax.tree.leaves(slope)), "the loss of a value has no gradient")
    require(not bool(jnp.any(by_target)), "the loss of a value is differentiated in its target")


def check_ratio(case: Case) -> None:
    """`evaluate_action` of an action just sampled returns its log-probability: ratio exactly 1."""
    keys = jax.random.split(case.key, 32)

    @jax.jit
    def ratios(policy: Any, keys: Any) -> Any:
        def ratio(key: Any) -> Any:
            _, action, value, log_prob = step.action_and_value(
                policy, case.state, case.observation, key=key, action_mask=case.mask
            )
            _, again, evaluated, _ = step.evaluate_action(
                policy, case.state, case.observation, action, action_mask=case.mask
            )
            return jnp.exp(evaluated - log_prob), again - value

        return jax.vmap(ratio)(keys)

    ratio, difference = ratios(case.policy, keys)
    worst = float(ratio[jnp.argmax(jnp.abs(ratio - 1))])
    require(bool(jnp.all(ratio == 1)), f"the ratio of an unchanged policy is {worst}, expected 1.0")
    require(bool(jnp.all(difference == 0)), "evaluate_action gives another value")


def check_jit(case: Case) -> None:
    """The results with and without `jit` agree."""
    jitted = case_step(case)
    with jax.disable_jit():
        require_close(case.tolerance, jitted, case_step(case), "with and without jit")


def check_vmap(case: Case) -> None:
    """A `vmap` over observations or over params (a population) agrees with a loop."""
    keys = jax.random.split(case.key, _TIME)

    def take(observation: Any, key: Any) -> Any:
        return step.action_and_value(case.policy, case.state, observation, key=key, action_mask=case.mask)

    batch = jax.vmap(take)(case.observations, keys)
    loop = [take(at(case.observations, i), keys[i]) for i in range(_TIME)]
    require_close(
        case.tolerance, batch, jax.tree.map(lambda *x: jnp.stack(x), *loop), "under vmap and in a loop"
    )

    @jax.jit
    @jax.vmap
    def values(key: Any) -> Any:
        policy = step.init(case.config, key=key)
        return step.value(policy, case.state, case.observation)[1]

    one = (case.config.init(key=keys[1]), case.config)
    population, alone = values(keys), step.value(one, case.state, case.observation)[1]
    require_close(case.tolerance, population[1], alone, "as a member and alone")


def check_sequence(case: Case) -> None:
    """`evaluate_sequence` equals single steps, with resets where `is_first`."""
    forms = jax.jit(lambda *call: (_sequence(case, *call), _steps(case, *call)))
    got, expected = forms(case.policy, case.state, case.is_first)
    require_close(case.tolerance, got, expected, "as a sequence and as steps")


def check_memory(case: Case) -> None:
    """Outputs and gradients of a sequence equal those of steps, for any resets and in chunks."""
    if not jax.tree.leaves(case.state):
        return
    time, half = jnp.arange(_TIME), _TIME // 2
    random = jax.random.bernoulli(case.key, 0.4, (3, _TIME))
    patterns = jnp.concatenate([jnp.stack([time < 0, time >= 0, time == 0]), random])

    def chunks(policy: Any, state: Any, is_first: Any) -> Any:
        state, early = _sequence(case, policy, state, is_first, slice(0, half))
        state = jax.lax.stop_gradient(state)
        state, late = _sequence(case, policy, state, is_first, slice(half, None))
        return state, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), early, late)

    def gradient(form: Callable[..., Any], is_first: Any) -> Any:
        def loss(params: Any) -> Any:
            policy = (params, case.config)
            _, terms = form(case, policy, step.reset(policy), is_first)
            return sum(jnp.sum(jnp.matmul((1 + time).astype(term.dtype), term)) for term in terms)

        return jax.grad(loss)(case.policy[0])

    def last(params: Any) -> Any:
        """The terms of the last step under `case.policy`, from a state made under `params`."""
        state, _ = _sequence(case, (params, case.config), case.state, patterns[0], slice(0, -1))
        return sum(
            jnp.sum(x[0]) for x in _sequence(case, case.policy, state, patterns[0], slice(-1, None))[1]
        )

    @jax.jit
    def everything(patterns: Any) -> Any:
        def one(is_first: Any) -> Any:
            call = (case.policy, case.state, is_first)
            forms = _sequence(case, *call), _steps(case, *call), chunks(*call)
            return *forms, gradient(_sequence, is_first), gradient(_steps, is_first)

        params = case.policy[0]
        difference = last(perturb(params, training.trainable(case.policy)[0], case.key)) - last(params)
        return jax.vmap(one)(patterns), difference, jax.grad(last)(params)

    (got, expected, chunked, slope_got, slope_expected), difference, into_past = everything(patterns)
    require_close(case.tolerance, got, expected, "as sequences and as steps")
    require_close(case.tolerance, chunked, got, "in chunks and as a whole")
    require_close(10 * case.tolerance, slope_got, slope_expected, "(gradients) as sequences and as steps")
    flows = any(bool(jnp.any(x != 0)) for x in jax.tree.leaves(into_past))
    require(flows or abs(float(difference)) < 1e-3, "no gradient flows through time")


def check_deterministic(case: Case) -> None:
    """Without a key the action is deterministic, and in the action space."""
    call = (case.policy, case.state, case.observation)
    _, first = step.act(*call, action_mask=case.mask)
    _, second = step.act(*call, action_mask=case.mask)
    same = jax.tree.map(lambda a, b: bool(jnp.array_equal(a, b)), first, second)
    require(jax.tree.all(same), "act without a key is not deterministic")
    require(bool(case.config.action_space.contains(first)), f"the mode {first} is not in the space")


def check_masks(case: Case) -> None:
    """Masked actions are never sampled; derivatives are finite, forward and reverse."""
    keys = jax.random.split(case.key, 256)
    space, call = case.config.action_space, (case.state, case.observation)

    @jax.jit
    def draw(mask: Any) -> Any:
        actions = jax.vmap(
            lambda key: step.action_and_value(case.policy, *call, key=key, action_mask=mask)[1]
        )(keys)
        env_actions = jax.vmap(case.config.env_action)(actions)
        return at(actions, 0), env_actions, jnp.all(jax.vmap(space.contains)(env_actions))

    @jax.jit
    def derivatives(mask: Any, action: Any) -> Any:
        def loss(params: Any) -> Any:
            policy = (params, case.config)
            _, *terms = step.evaluate_action(policy, *call, action, action_mask=mask)
            return sum(jnp.sum(term) for term in terms)

        params = case.policy[0]
        return jax.grad(loss)(params), jax.jvp(loss, (params,), (params,))

    full = space.full_mask()
    masks = {"random": case.mask, "full": full, "empty": jax.tree.map(jnp.zeros_like, full)}
    for name, mask in masks.items():
        action, env_actions, inside = draw(mask)
        require(bool(inside), f"actions under the {name} mask leave the space")
        if name == "random":
            mask, samples = jax.tree.map(np.asarray, (mask, env_actions))
            allowed = [is_allowed(space, mask, at(samples, i)) for i in range(len(keys))]
            require(all(allowed), "an action that the mask forbids was sampled")
        gradient, (_, tangent) = derivatives(mask, action)
        require_finite(gradient, f"the gradient under the {name} mask is not finite")
        require_finite(tangent, f"the forward derivative under the {name} mask is not finite")


def check_compiles_once(case: Case) -> None:
    """A second call with an equal config, built again, is not traced again."""
    data = to_bytes(case.policy, self_test=False) if is_static(case.config) else None
    twin = case.config if data is None else from_bytes(data)[1]
    require(twin == case.config, "a rebuilt config is not equal to the first")
    policies = [(case.policy[0], config) for config in (case.config, case.config, twin)]
    require_one_trace(
        lambda policy: step.act(policy, case.state, case.observation, action_mask=case.mask),
        [(policy,) for policy in policies],
        "the same call was traced more than once",
    )


def check_file(case: Case) -> None:
    """A policy that is saved and loaded is the same pair, bit for bit, and acts the same."""
    params, config = from_bytes(to_bytes(case.policy, self_test=False), case.config)
    require(config == case.config, "the loaded policy is another one")
    require_equal(params, case.policy[0], "the loaded policy is another one")
    call = (case.state, case.observation)
    require_close(
        case.tolerance,
        step.act((params, config), *call),
        step.act(case.policy, *call),
        "before saving and after",
    )
    if not jax.tree.leaves(case.state):
        return
    policy, actions, expected = (params, config), [], []
    state = step.reset(policy)
    for t in range(_TIME):
        call = (state, at(case.observations, t))
        _, action, *terms = step.action_and_value(policy, *call, key=None)
        state, env_action = step.act(policy, *call)
        require_close(
            case.tolerance, env_action, step.env_action(policy, action), "of act and action_and_value"
        )
        actions.append(action)
        expected.append(terms)
    last, values, log_probs, _ = sequence.evaluate_sequence(
        case.policy, case.state, case.observations, stack(actions), is_first=jnp.zeros(_TIME, bool)
    )
    require_close(
        case.tolerance, (last, [values, log_probs]), (state, stack(expected)), "as a sequence and loaded"
    )


CHECKS: tuple[Callable[[Case], None], ...] = (
    check_shapes,
    check_value,
    check_ratio,
    check_jit,
    check_vmap,
    check_sequence,
    check_memory,
    check_deterministic,
    check_masks,
    check_compiles_once,
    check_file,
)


def _sequence(case: Case, policy: Any, state: Any, is_first: Any, part: slice = slice(None)) -> Any:
    """`evaluate_sequence` on a part of the time of the case: the last state, and terms `[time]`."""
    observations, actions, masks, is_first = jax.tree.map(lambda x: x[part], (*_stored(case), is_first))
    state, *terms = sequence.evaluate_sequence(
        policy, state, observations, actions, is_first=is_first, action_masks=masks
    )
    return state, terms


def _steps(case: Case, policy: Any, state: Any, is_first: Any) -> Any:
    """As `_sequence`, by a scan of `evaluate_action`."""

    def take(state: Any, inputs: Any) -> Any:
        observation, action, mask, first = inputs
        state, *terms = step.evaluate_action(
            policy, state, observation, action, action_mask=mask, is_first=first
        )
        return state, terms

    return jax.lax.scan(take, state, (*_stored(case), is_first))


def _stored(case: Case) -> Any:
    """Observations, sampled actions and masks of the case, `[time, ...]`."""

    def action(observation: Any, key: Any) -> Any:
        return step.action_and_value(case.policy, case.state, observation, key=key, action_mask=case.mask)[1]

    actions = jax.vmap(action)(case.observations, jax.random.split(case.key, _TIME))
    return case.observations, actions, jax.tree.map(lambda x: jnp.stack([x] * _TIME), case.mask)


def case_step(case: Case) -> Any:
    """One `action_and_value` of the case."""
    return step.action_and_value(
        case.policy, case.state, case.observation, key=case.key, action_mask=case.mask
    )
