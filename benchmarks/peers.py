"""The same policy in other libraries, each written as its own documentation shows. Run by `make bench`.

- flax with distrax: `ActorCritic` of PureJaxRL's `ppo.py`, a module of `nn.Dense` whose call returns a
  distribution and a value; `network.apply`, under `jax.jit`.
- equinox: a module of two `equinox.nn.MLP` and, for a box, a log-std; `eqx.filter_jit`, `eqx.filter_grad`.
- Lerax: `benchmarks/lerax_peer.py`, in an environment of its own.

All have the same weights, two towers of 64 x 64 tanh. Modes, values, log-probabilities of one action and
gradients are compared before anything is timed; draws are of the same law, not the same.
"""

import importlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import policy_core as pc
from benchmarks.timing import Measured, in_turn, measured, same, show

TASKS = ("act", "draw 64", "draw 4096", "gradient 64", "gradient 4096")


class Policy(NamedTuple):
    """A policy as its library has it."""

    params: Any
    act: Callable[..., Any]
    """`(params, observation) -> mode`, called from Python, as its users jit it."""
    draw: Callable[..., Any]
    """`(params, observation, key) -> action, value, log-prob`, of one observation."""
    evaluate: Callable[..., Any]
    """`(params, observation, action) -> value, log-prob, entropy`."""
    jit: Callable[..., Any] = jax.jit
    grad: Callable[..., Any] = jax.grad


def config_of(inputs: int, space: Any, **fields: Any) -> pc.ActorCriticConfig:
    return pc.ActorCriticConfig(observation_space=pc.Box(shape=(inputs,)), action_space=space, **fields)


CASES = {
    "4 to Discrete(2)": config_of(4, pc.Discrete(2)),
    "64 to Discrete(18)": config_of(64, pc.Discrete(18)),
    "27 to Box(8)": config_of(27, pc.Box(low=-1.0, high=1.0, shape=(8,))),
}


def of_ours(config: Any) -> Policy:
    rng = np.random.default_rng(0)
    structs = jax.eval_shape(lambda: config.init(key=jax.random.key(0)))
    params = jax.tree.map(lambda x: jnp.asarray(0.2 * rng.standard_normal(x.shape), x.dtype), structs)
    return Policy(
        (params, config),
        lambda policy, x: pc.act(policy, (), x)[1],
        lambda policy, x, key: pc.action_and_value(policy, (), x, key=key)[1:],
        lambda policy, x, action: pc.evaluate_action(policy, (), x, action)[1:],
    )


def layers_of(params: Any, branch: str) -> list[Any]:
    tower = params[branch]["tower"]
    return [tower["hidden_0"], tower["hidden_1"], params[branch]["head"]]


def mode_of(config: Any, distribution: Any) -> Any:
    """As these scripts evaluate: the mode, a box clipped by a wrapper of the environment."""
    space = config.action_space  # boxes of CASES are [-1, 1]
    mode = distribution.mode()
    return jnp.clip(mode, -1.0, 1.0) if isinstance(space, pc.Box) else mode


def of_flax(config: Any, params: Any) -> Policy:
    linen: Any = importlib.import_module("flax.linen")
    distrax: Any = importlib.import_module("distrax")
    discrete = isinstance(config.action_space, pc.Discrete)
    outputs = config.action_space.n if discrete else config.action_space.shape[0]

    class ActorCritic(linen.Module):  # type: ignore[misc]
        @linen.compact  # type: ignore[untyped-decorator]
        def __call__(self, x: Any) -> Any:
            hidden = linen.tanh(linen.Dense(64)(x))
            hidden = linen.tanh(linen.Dense(64)(hidden))
            y = linen.Dense(outputs)(hidden)
            if discrete:
                pi = distrax.Categorical(logits=y)
            else:
                scale = self.param("log_std", linen.initializers.zeros, (outputs,))
                pi = distrax.MultivariateNormalDiag(y, jnp.exp(scale))
            critic = linen.tanh(linen.Dense(64)(x))
            critic = linen.tanh(linen.Dense(64)(critic))
            return pi, jnp.squeeze(linen.Dense(1)(critic), axis=-1)

    network = ActorCritic()
    both = [*layers_of(params, "actor"), *layers_of(params, "critic")]
    theirs = {
        f"Dense_{i}": {"kernel": layer["kernel"], "bias": layer["bias"]} for i, layer in enumerate(both)
    }
    if not discrete:
        theirs["log_std"] = params["actor"]["head"]["scale"]

    def draw(theirs: Any, x: Any, key: Any) -> Any:
        pi, value = network.apply(theirs, x)
        action = pi.sample(seed=key)
        return action, value, pi.log_prob(action)

    def evaluate(theirs: Any, x: Any, action: Any) -> Any:
        pi, value = network.apply(theirs, x)
        return value, pi.log_prob(action), pi.entropy()

    act = jax.jit(lambda theirs, x: mode_of(config, network.apply(theirs, x)[0]))
    return Policy({"params": theirs}, act, draw, evaluate)


def of_equinox(config: Any, params: Any) -> Policy:
    equinox: Any = importlib.import_module("equinox")
    discrete = isinstance(config.action_space, pc.Discrete)
    outputs = config.action_space.n if discrete else config.action_space.shape[0]
    inputs = config.observation_space.shape[0]

    class ActorCritic(equinox.Module):  # type: ignore[misc]
        actor: Any
        critic: Any
        log_std: Any

        def __call__(self, x: Any) -> Any:
            return self.actor(x), self.critic(x)

    def mlp(size: Any, branch: str) -> Any:
        empty = equinox.nn.MLP(inputs, size, 64, 2, activation=jnp.tanh, key=jax.random.key(0))
        weights = [w for layer in layers_of(params, branch) for w in (layer["kernel"].T, layer["bias"])]
        return equinox.tree_at(
            lambda mlp: [w for layer in mlp.layers for w in (layer.weight, layer.bias)], empty, weights
        )

    log_std = None if discrete else params["actor"]["head"]["scale"]
    model = ActorCritic(mlp(outputs, "actor"), mlp("scalar", "critic"), log_std)

    def log_prob_of(model: Any, y: Any, action: Any) -> Any:
        if discrete:
            return jax.nn.log_softmax(y)[action]
        return jnp.sum(jax.scipy.stats.norm.logpdf(action, y, jnp.exp(model.log_std)))

    def draw(model: Any, x: Any, key: Any) -> Any:
        y, value = model(x)
        if discrete:
            action = jax.random.categorical(key, y)
        else:
            action = y + jnp.exp(model.log_std) * jax.random.normal(key, y.shape)
        return action, value, log_prob_of(model, y, action)

    def evaluate(model: Any, x: Any, action: Any) -> Any:
        y, value = model(x)
        if discrete:
            log_probs = jax.nn.log_softmax(y)
            entropy = -jnp.sum(jnp.exp(log_probs) * log_probs)
        else:
            entropy = jnp.sum(model.log_std + 0.5 * jnp.log(2 * jnp.pi * jnp.e))
        return value, log_prob_of(model, y, action), entropy

    def mode(model: Any, x: Any) -> Any:
        y = model.actor(x)
        return jnp.argmax(y) if discrete else jnp.clip(y, -1.0, 1.0)

    return Policy(model, equinox.filter_jit(mode), draw, evaluate, equinox.filter_jit, equinox.filter_grad)


def loss_of(policy: Policy) -> Callable[..., Any]:
    """The clipped loss of a minibatch: `(params, observations, actions, log-probs, advantages)`."""

    def ppo(params: Any, x: Any, action: Any, old: Any, gain: Any) -> jax.Array:
        value, log_prob, entropy = jax.vmap(policy.evaluate, (None, 0, 0))(params, x, action)
        ratio = jnp.exp(log_prob - old)
        clipped = jnp.minimum(ratio * gain, jnp.clip(ratio, 0.8, 1.2) * gain)
        return jnp.mean(-clipped + 0.5 * (value - gain) ** 2 - 0.01 * entropy)

    return ppo


def programs(policy: Policy, task: str) -> Callable[..., Any]:
    """Of a task, jitted as its library does: `(params, observations, keys, actions, log-probs, gains)`."""
    if task == "act":
        return lambda params, x, *_: policy.act(params, x)
    if task.startswith("draw"):
        drawn = policy.jit(jax.vmap(policy.draw, (None, 0, 0)))
        return lambda params, x, keys, *_: drawn(params, x, keys)
    descend = policy.jit(policy.grad(loss_of(policy)))
    return lambda params, x, _, action, old, gain: descend(params, x, action, old, gain)


def inputs_of(config: Any, policy: Policy, size: int) -> tuple[Any, ...]:
    x = jnp.asarray(
        np.random.default_rng(0).standard_normal((size, *config.observation_space.shape)), jnp.float32
    )
    keys = jax.random.split(jax.random.key(1), size)
    action, _, log_prob = jax.jit(jax.vmap(policy.draw, (None, 0, 0)))(policy.params, x, keys)
    return x, keys, action, log_prob + 0.1, jax.random.normal(jax.random.key(3), (size,))


def compare(ours: Policy, theirs: Policy, given: tuple[Any, ...]) -> None:
    """Raise AssertionError unless modes, values, log-probs, entropies and the size of the gradient agree."""
    x, _, action, _, _ = given
    for i in range(4):
        same(ours.act(ours.params, x[i]), theirs.act(theirs.params, x[i]), atol=1e-4)
    mine, other = (jax.vmap(p.evaluate, (None, 0, 0))(p.params, x, action) for p in (ours, theirs))
    same(mine, other, atol=1e-4)
    norms = []
    for policy in (ours, theirs):
        gradient = programs(policy, "gradient 64")(policy.params, *given)
        sizes = [float(jnp.linalg.norm(leaf)) for leaf in jax.tree.leaves(gradient)]
        norms.append(sorted(size for size in sizes if size > 0))  # not of the bounds of spaces in a module
    same(norms[0], norms[1])


def rows_of(
    case: str, config: Any, contestants: dict[str, Policy], tasks: Iterable[str], seconds: float
) -> list[Measured]:
    """The rows of a config, whose contestants, `ours` among them, are compared first."""
    rows = []
    ours = contestants["ours"]
    for theirs in contestants.values():
        compare(ours, theirs, inputs_of(config, ours, 64))
    for task in tasks:
        given = inputs_of(config, ours, int(task.split()[1]) if " " in task else 1)
        if task == "act":
            given = (given[0][0], *given[1:])
        calls: dict[str, Any] = {}
        for name, policy in contestants.items():
            program: Any = programs(policy, task)
            calls[name] = lambda program=program, policy=policy, given=given: program(policy.params, *given)
        rows += measured(case, task, in_turn(calls, seconds), "us")
    return rows


def measure(
    seconds: float = 1.5, *, cases: Iterable[str] = tuple(CASES), tasks: Iterable[str] = TASKS
) -> list[Measured]:
    """Each config in flax with distrax and in equinox."""
    rows = []
    for name in cases:
        ours = of_ours(CASES[name])
        contestants = {
            "ours": ours,
            "flax, distrax": of_flax(CASES[name], ours.params[0]),
            "equinox": of_equinox(CASES[name], ours.params[0]),
        }
        rows += rows_of(name, CASES[name], contestants, tasks, seconds)
    return rows


if __name__ == "__main__":
    print(show(measure()))
