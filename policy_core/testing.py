"""The contract's own test suite, for whoever writes a config, and for our own.

`check_policy(config)` runs every check on one config; each check is also a function of
its own, so that a test runner can name what failed.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import policy_core.policy as pc
from policy_core import training
from policy_core._draws import is_allowed, perturb, random_mask
from policy_core._requirements import (
    at,
    attempt,
    close,
    far,
    finite,
    registered,
    require,
    require_finite,
    stack,
)
from policy_core._structure import check_structure
from policy_core.contract import ActorCritic, Policy, ValuePrediction
from policy_core.files import from_bytes, to_bytes
from policy_core.sequences import evaluate_sequence

_TIME = 5


def check_policy(config: Any, *, seed: int = 0, tolerance: float = 1e-5, loadable: bool = True) -> None:
    """Check that a config keeps the actor-critic contract.

    Args:
        config: the config, as given to `policy_core.init`.
        seed: of the observations, masks and params used.
        tolerance: how far results may differ between programs (jit or not, vmap or loop),
            relative to max(1, |result|). Raise it for networks that compute in bfloat16.
        loadable: whether to check that the policy can be saved and loaded, too.

    Raises:
        ContractError: naming the rule that is broken, and the figures.

    Example:
        >>> import policy_core as pc
        >>> from policy_core.testing import check_policy
        >>> check_policy(pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(2,)), action_space=pc.Discrete(3),
        ...     actor=pc.MLP((4,)), critic=pc.MLP((4,)),
        ... ))
    """
    require(isinstance(config, ActorCritic), "the config does not offer ActorCritic")
    leaves = attempt(lambda: jax.tree.leaves(config), "the config is not static")
    require(leaves == [], "the config is not static: decorate its class with @policy_core.static")
    case = Case(config, seed, tolerance)
    for check in CHECKS:
        if loadable or check is not check_file:
            check(case)


class Case:
    """A policy with one observation, one sequence, and masks, drawn once for all checks."""

    def __init__(
        self, config: ActorCritic[Any, Any, Any, Any], seed: int = 0, tolerance: float = 1e-5
    ) -> None:
        self.config, self.tolerance = config, tolerance
        space, full = config.observation_space, config.action_space.full_mask()

        @jax.jit
        def draw(key: Any) -> Any:
            init_key, noise_key, observation_key, mask_key, key = jax.random.split(key, 5)
            policy = pc.init(config, key=init_key)
            keys = jax.random.split(observation_key, _TIME)
            observations = jax.vmap(lambda key: space.sample(key=key))(keys)
            # Every leaf is moved, so that nothing passes because a bias or a gain is near zero.
            moves, _ = training.trainable(policy)
            policy = (perturb(policy[0], moves, noise_key), config)
            params, _ = training.update_statistics(policy, observations)
            return params, observations, random_mask(full, mask_key), key

        params, self.observations, self.mask, self.key = draw(jax.random.key(seed))
        self.policy: Policy[Any, Any, Any, Any] = (params, config)
        self.state = pc.reset(self.policy)
        self.observation = at(self.observations, 0)
        self.is_first = jnp.array([False, True, False, False, True])


def check_shapes(case: Case) -> None:
    """Log-probabilities and entropies are float scalars; actions are in the space."""
    state, action, _, log_prob = case_step(case)
    _, _, *terms = pc.evaluate_action(
        case.policy, case.state, case.observation, action, action_mask=case.mask
    )
    for name, x in zip(("log_prob", "entropy"), terms, strict=True):
        require_finite(name, x, ())
    require(log_prob.shape == (), "log_prob is not a scalar")
    attempt(lambda: check_structure(state, case.state, "state"), "the state changes its structure")
    env_action = pc.env_action(case.policy, action)
    require(
        bool(case.config.action_space.contains(env_action)),
        f"the environment action {env_action} is not in the action space",
    )


def check_value(case: Case) -> None:
    """A value is a finite float scalar, a vector if a prediction says so; its loss has a gradient."""
    call = (case.state, case.observation)
    raw = jax.eval_shape(case.config.forward, case.policy[0], *call)[2]
    _, value = pc.value(case.policy, *call)
    require_finite("value", value, value.shape if isinstance(raw, ValuePrediction) else ())
    require(value.ndim <= 1, f"value is {value.dtype}{value.shape}, expected a scalar or a vector")

    @jax.jit
    def losses(params: Any, target: Any) -> Any:
        def loss(params: Any, target: Any) -> Any:
            critic: Any = pc.forward((params, case.config), *call)[2]
            losses = critic.loss(target)
            return jnp.sum(losses), losses

        return jax.grad(loss, (0, 1), has_aux=True)(params, target)

    (slope, by_target), loss = losses(case.policy[0], value + 0.5)
    require_finite("the loss of a value", loss, value.shape)
    require(finite(slope), "the gradient of the loss of a value is not finite")
    require(any(bool(jnp.any(x != 0)) for x in jax.tree.leaves(slope)), "the loss of a value has no gradient")
    require(not bool(jnp.any(by_target)), "the loss of a value is differentiated in its target")


def check_ratio(case: Case) -> None:
    """`evaluate_action` of a fresh action gives its stored log-probability: ratio exactly 1."""
    keys = jax.random.split(case.key, 32)

    @jax.jit
    def ratios(policy: Any, keys: Any) -> Any:
        def ratio(key: Any) -> Any:
            _, action, value, log_prob = pc.action_and_value(
                policy, case.state, case.observation, key=key, action_mask=case.mask
            )
            _, again, evaluated, _ = pc.evaluate_action(
                policy, case.state, case.observation, action, action_mask=case.mask
            )
            return jnp.exp(evaluated - log_prob), again - value

        return jax.vmap(ratio)(keys)

    ratio, difference = ratios(case.policy, keys)
    require(bool(jnp.all(ratio == 1)), f"the ratio of an unchanged policy is {far(ratio, 1.0)}")
    require(bool(jnp.all(difference == 0)), "evaluate_action gives another value")


def check_jit(case: Case) -> None:
    """Jitted and not, the results agree."""
    jitted = case_step(case)
    with jax.disable_jit():
        close(case.tolerance, jitted, case_step(case), "with and without jit")


def check_vmap(case: Case) -> None:
    """A batch by `vmap` gives what a loop gives; so does a population."""
    keys = jax.random.split(case.key, _TIME)

    def step(observation: Any, key: Any) -> Any:
        return pc.action_and_value(case.policy, case.state, observation, key=key, action_mask=case.mask)

    batch = jax.vmap(step)(case.observations, keys)
    loop = [step(at(case.observations, i), keys[i]) for i in range(_TIME)]
    close(case.tolerance, batch, jax.tree.map(lambda *x: jnp.stack(x), *loop), "under vmap and in a loop")

    @jax.jit
    def values(keys: Any) -> Any:
        def value(key: Any) -> Any:
            policy = pc.init(case.config, key=key)
            return pc.value(policy, case.state, case.observation)[1]

        return jax.vmap(value)(keys), value(keys[1])

    population, alone = values(keys)
    close(case.tolerance, population[1], alone, "as a member and alone")


def check_sequence(case: Case) -> None:
    """`evaluate_sequence` equals single steps, with resets where `is_first` says so."""
    forms = jax.jit(lambda *call: (_sequence(case, *call), _steps(case, *call)))
    got, expected = forms(case.policy, case.state, case.is_first)
    close(case.tolerance, got, expected, "as a sequence and as steps")


def check_memory(case: Case) -> None:
    """A memory equals its steps in gradients, too, whole or in chunks, wherever it is reset."""
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
            _, terms = form(case, policy, pc.reset(policy), is_first)
            return sum(jnp.sum(jnp.matmul((1 + time).astype(term.dtype), term)) for term in terms)

        return jax.grad(loss)(case.policy[0])

    def last(params: Any) -> Any:
        """The last terms of our policy after a past under other params."""
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
    close(case.tolerance, got, expected, "as sequences and as steps")
    close(case.tolerance, chunked, got, "in chunks and as a whole")
    close(case.tolerance, slope_got, slope_expected, "(gradients) as sequences and as steps", slack=10.0)
    flows = any(bool(jnp.any(x != 0)) for x in jax.tree.leaves(into_past))
    require(flows or abs(float(difference)) < 1e-3, "no gradient flows through time")


def check_deterministic(case: Case) -> None:
    """Without a key, the same call gives the same action; it is in the action space."""
    call = (case.policy, case.state, case.observation)
    _, first = pc.act(*call, action_mask=case.mask)
    _, second = pc.act(*call, action_mask=case.mask)
    same = jax.tree.map(lambda a, b: bool(jnp.array_equal(a, b)), first, second)
    require(jax.tree.all(same), "act without a key is not deterministic")
    require(bool(case.config.action_space.contains(first)), f"the mode {first} is not in the space")


def check_masks(case: Case) -> None:
    """Masked actions are never drawn; gradients are finite, forward and reverse."""
    keys = jax.random.split(case.key, 256)
    space, call = case.config.action_space, (case.state, case.observation)

    @jax.jit
    def draw(mask: Any) -> Any:
        actions = jax.vmap(lambda key: pc.action_and_value(case.policy, *call, key=key, action_mask=mask)[1])(
            keys
        )
        env_actions = jax.vmap(case.config.env_action)(actions)
        return at(actions, 0), env_actions, jnp.all(jax.vmap(space.contains)(env_actions))

    @jax.jit
    def derivatives(mask: Any, action: Any) -> Any:
        def loss(params: Any) -> Any:
            policy = (params, case.config)
            _, *terms = pc.evaluate_action(policy, *call, action, action_mask=mask)
            return sum(jnp.sum(term) for term in terms)

        params = case.policy[0]
        return jax.grad(loss)(params), jax.jvp(loss, (params,), (params,))

    full = space.full_mask()
    masks = {"random": case.mask, "full": full, "empty": jax.tree.map(jnp.zeros_like, full)}
    for name, mask in masks.items():
        action, env_actions, inside = draw(mask)
        require(bool(inside), f"actions under the {name} mask leave the space")
        if name == "random":
            mask, drawn = jax.tree.map(np.asarray, (mask, env_actions))
            allowed = [is_allowed(space, mask, at(drawn, i)) for i in range(len(keys))]
            require(all(allowed), "an action that the mask forbids was drawn")
        gradient, (_, tangent) = derivatives(mask, action)
        require(finite(gradient), f"the gradient under the {name} mask is not finite")
        require(finite(tangent), f"the forward derivative under the {name} mask is not finite")


def check_compiles_once(case: Case) -> None:
    """A second call, with an equal config built anew, compiles nothing."""
    twin = from_bytes(to_bytes(case.policy, self_test=False))[1] if registered(case.config) else case.config
    require(twin == case.config, "a rebuilt config is not equal to the first")
    function = jax.jit(lambda policy, *call: pc.act(policy, *call, action_mask=case.mask))
    call = (case.state, case.observation)
    for config in (case.config, case.config, twin):
        function((case.policy[0], config), *call)
    size: int = function._cache_size()  # type: ignore[attr-defined]
    require(size == 1, f"the same call was compiled {size} times")


def check_file(case: Case) -> None:
    """Saved and loaded, the pair is the same, bit for bit, and acts the same."""
    params, config = from_bytes(to_bytes(case.policy, self_test=False), case.config)
    same = jax.tree.map(
        lambda a, b: a.dtype == b.dtype and bool(jnp.array_equal(a, b)), case.policy[0], params
    )
    require(jax.tree.all(same) and config == case.config, "the loaded policy is another one")
    call = (case.state, case.observation)
    close(
        case.tolerance, pc.act((params, config), *call), pc.act(case.policy, *call), "before saving and after"
    )
    if not jax.tree.leaves(case.state):
        return
    policy, actions, expected = (params, config), [], []
    state = pc.reset(policy)
    for t in range(_TIME):
        call = (state, at(case.observations, t))
        _, action, *terms = pc.action_and_value(policy, *call, key=None)
        state, env_action = pc.act(policy, *call)
        close(case.tolerance, env_action, pc.env_action(policy, action), "of act and action_and_value")
        actions.append(action)
        expected.append(terms)
    last, values, log_probs, _ = evaluate_sequence(
        case.policy, case.state, case.observations, stack(actions), is_first=jnp.zeros(_TIME, bool)
    )
    close(case.tolerance, (last, [values, log_probs]), (state, stack(expected)), "as a sequence and loaded")


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
    state, *terms = evaluate_sequence(
        policy, state, observations, actions, is_first=is_first, action_masks=masks
    )
    return state, terms


def _steps(case: Case, policy: Any, state: Any, is_first: Any) -> Any:
    """The same as a scan of `evaluate_action`."""

    def step(state: Any, inputs: Any) -> Any:
        observation, action, mask, first = inputs
        state, *terms = pc.evaluate_action(
            policy, state, observation, action, action_mask=mask, is_first=first
        )
        return state, terms

    return jax.lax.scan(step, state, (*_stored(case), is_first))


def _stored(case: Case) -> Any:
    """Observations, actions and masks `[time, ...]`."""

    def action(observation: Any, key: Any) -> Any:
        return pc.action_and_value(case.policy, case.state, observation, key=key, action_mask=case.mask)[1]

    actions = jax.vmap(action)(case.observations, jax.random.split(case.key, _TIME))
    return case.observations, actions, jax.tree.map(lambda x: jnp.stack([x] * _TIME), case.mask)


def case_step(case: Case) -> Any:
    """One `action_and_value` of the case."""
    return pc.action_and_value(case.policy, case.state, case.observation, key=case.key, action_mask=case.mask)
