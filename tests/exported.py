"""What the tests of exports share: policies in files, and what JAX does with them, step by step."""

import importlib.metadata
import os
from typing import Any, NamedTuple

import jax
import numpy as np
from cases import BOUNDED, LOW_PRECISION, SPACES, config
from test_numpy_runner import CONFIGS as ALL
from test_numpy_runner import SOME
from test_numpy_runner import _policy as policy_of
from test_numpy_runner import _random_mask as random_mask

import policy_core as pc

FULL = "POLICY_CORE_FULL" in os.environ  # every config and 1,000 observations, else a sample
COUNT = 1000 if FULL else 100
REFUSED = (*LOW_PRECISION, "act box bfloat16")
CONFIGS = {
    **{name: config for name, config in ALL.items() if name not in REFUSED},
    "in environment actions": pc.env_actions.InEnvActions(ALL["squashed"]),
    "int boxes that others see": config(
        pc.Tuple((SPACES["discrete with start"], pc.Box(low=-3, high=4, shape=(2,), dtype="int8"))),
        autoregressive=pc.Autoregressive({1: (0,)}, network=pc.MLP((4,), activation="gelu")),
    ),
    "no frames": config(pc.Discrete(3), memory=pc.memory.FrameStack(1)),
    "bounds that are far off": config(
        pc.Box(low=(-1e6, 5.0), high=(0.0, 6.0), shape=(2,)),
        box_head=pc.SquashedNormalHead(),
        trunk=pc.MLP((4,), activation="elu"),
    ),
}
SAMPLE = [name for name in CONFIGS if FULL or name in SOME or name not in ALL]
WITH_MEMORY = [name for name in CONFIGS if getattr(CONFIGS[name], "memory", None) is not None]
# Discrete parts that others see, and boxes in bins.
WITH_TIES = ("temperature", "autoregressive", "autoregressive bins", "bins", "heads of parts")

# 1e-5 else: over 1,000 observations sums in another order are further apart where inputs are up to 255 or 10
# standard deviations, or kernels wide; the mode of a Beta is a quotient of a - 1 and b - 1, which near 0 have
# few digits in float32, here and in JAX.
TOLERANCES = {"observe box uint8": 2e-5, "embedded": 2e-5, "nature": 2e-5, "beta of rank 2": 1e-4}


def others(graph: Any, mask: Any, seen: Any) -> Any:
    """`cases.others` as a graph."""
    tool = graph.op("reshape", seen["tool"], shape=(1,))
    free = graph.op("not", graph.op("equal", graph.constant(np.arange(4)), tool))
    return free if mask is None else graph.op("and", mask, free)


MASKS = {"others": others}


class Steps(NamedTuple):
    """What JAX did: every leaf has the steps in front."""

    observations: Any
    masks: Any
    is_first: Any
    states: Any
    """After each step."""
    actions: Any
    """Environment actions."""
    policy_actions: Any
    values: Any
    log_probs: Any


def steps_of(policy: Any, count: int = COUNT, mask: Any = "rows") -> Steps:
    """Run a policy on random observations, with a reset now and then, under random masks.

    Args:
        policy: `(params, config)`.
        count: of steps.
        mask: "rows" for masks of the layout of `full_mask`; or masks, with the steps in front.
    """
    space = policy[1].action_space
    rng, keys = np.random.default_rng(1), jax.random.split(jax.random.key(2), count)
    observations = jax.vmap(lambda key: policy[1].observation_space.sample(key=key))(keys)
    if isinstance(mask, str):
        rows = [random_mask(space.full_mask(), rng) for _ in range(count)]
        mask = jax.tree.map(lambda *rows: np.stack(rows), *rows)
    is_first = np.arange(count) % 130 == 17

    @jax.jit
    def run(observations: Any, masks: Any) -> Any:
        def step(state: Any, inputs: Any) -> Any:
            observation, mask, first = inputs
            _, value = pc.value(policy, state, observation, is_first=first)
            state, distribution = pc.action_distribution(
                policy, state, observation, action_mask=mask, is_first=first
            )
            action = distribution.mode()
            return state, (state, pc.env_action(policy, action), action, value, distribution.log_prob(action))

        return jax.lax.scan(step, pc.reset(policy), (observations, masks, is_first))[1]

    results = run(observations, mask)
    return Steps(*jax.tree.map(np.asarray, (observations, mask, is_first, *results)))


def before(policy: Any, steps: Steps) -> Any:
    """The state before each step."""
    start = pc.reset(policy)
    return jax.tree.map(
        lambda x, after: np.concatenate([np.asarray(x)[None], after[:-1]]), start, steps.states
    )


def feeds_of(lowered: Any, policy: Any, steps: Steps) -> dict[str, Any]:
    """The inputs of all steps at once, each from the state that JAX was in before it."""
    feeds = {**named(steps.observations, "observation"), **named(before(policy, steps), "state")}
    feeds["is_first"] = steps.is_first
    if lowered.masks:
        feeds |= named(steps.masks, "action_mask")
    return {name: np.asarray(feeds[name]) for name in lowered.graph.inputs}


def outputs_of(name: str) -> tuple[str, ...]:
    """All that is carried of a config."""
    more = () if "beta" in name or name == "heads of parts" else ("log_prob",)
    if name == "in environment actions":
        return ("action", "value", "distribution")
    return ("action", "policy_action", "value", "distribution", *more)


def compare(name: str, steps: Steps, got: dict[str, Any]) -> None:
    """Raise AssertionError unless outputs are those of JAX, within `TOLERANCES` and but for ties."""
    most = TOLERANCES.get(name, 1e-5)
    actions = named(steps.actions, "action")
    count = len(steps.is_first)
    same = np.ones(count, bool)
    for key, want in actions.items():
        assert (got[key].shape, got[key].dtype) == (want.shape, want.dtype), key
        if want.dtype.kind != "f" or name in WITH_TIES:
            same &= np.isclose(got[key], want, rtol=1e-5, atol=1e-5).reshape(count, -1).all(1)
        else:
            check_close(key, got[key], want, most)
    if "log_prob" in got and not name.startswith("autoregressive"):
        # Another choice is as likely: a tie. Parts that depend on it would differ in their likelihood.
        check_close("log_prob", got["log_prob"], steps.log_probs, most)
    assert (~same).sum() <= count // 200, "more than ties"
    rest = {**named(steps.states, "next_state"), "value": steps.values}
    # A FrameStack(1) has a leaf of no numbers; the noise that is kept is an input of its own, if there is one.
    rest = {key: x for key, x in rest.items() if np.size(x) and "exploration" not in key}
    assert rest.keys() | actions.keys() <= got.keys()
    for key, want in rest.items():
        assert (got[key].shape, got[key].dtype) == (want.shape, want.dtype), key
        check_close(key, got[key], want, most)
    if "log_prob" in got:
        check_close("log_prob", got["log_prob"][same], steps.log_probs[same], most)
    policy_actions = named(steps.policy_actions, "policy_action")
    for key in policy_actions.keys() & got.keys():
        check_close(key, got[key][same], policy_actions[key][same], most)


def check_close(name: str, got: Any, want: Any, tolerance: float = 1e-5) -> None:
    """Raise AssertionError unless within the tolerance, relative to what is above 1."""
    want = np.asarray(want, np.float64)
    off = np.max(np.abs(got - want) / np.maximum(1, np.abs(want)), initial=0.0)
    assert off <= tolerance, (name, off)


def named(tree: Any, root: str) -> dict[str, Any]:
    """Leaves by the names that inputs and outputs of graphs have."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {"/".join([root, *map(_key, path)]): leaf for path, leaf in leaves}


def _key(entry: Any) -> str:
    return str(getattr(entry, "key", getattr(entry, "idx", getattr(entry, "name", None))))


def saved(policy: Any, path: Any, self_test: bool = False) -> Any:
    """The path of a file with a policy."""
    pc.save(path, policy, self_test=self_test)
    return path


def install_command(monkeypatch: Any) -> None:
    """The command `export` as an entry point, whatever the metadata of the installed package says."""
    from policy_core_adapters.exports.command import add

    class Point:
        name = "export"

        @staticmethod
        def load() -> Any:
            return add

    others = importlib.metadata.entry_points  # JAX asks for its own

    def points(*, group: str) -> Any:
        return [Point] if group == "policy_core.commands" else others(group=group)

    monkeypatch.setattr("importlib.metadata.entry_points", points)


__all__ = ["ALL", "BOUNDED", "REFUSED", "policy_of"]
