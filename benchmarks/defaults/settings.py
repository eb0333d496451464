"""PPO of other libraries as options of one update rule, the tasks, and the networks."""

import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

import policy_core as pc
from policy_core.networks import Sequential, register_initializer

# RULES ---------------------------------------------------------------------------------------


class Rule(NamedTuple):
    """PPO of a library, with its hyper-parameters.

    What all have in common: a clip range of 0.2, advantages normalized in each minibatch, half a squared
    error of the value with the coefficient 0.5, and minibatches of single steps, shuffled in each epoch.
    """

    num_envs: int
    num_steps: int
    num_epochs: int
    num_minibatches: int
    learning_rate: float
    annealed: bool = False  # linearly to zero
    discount: float = 0.99
    gae_lambda: float = 0.95
    entropy: float = 0.0
    clip: Literal["norm", "entries"] = "norm"  # of the gradient: of all params together, or each number
    max_gradient: float = 0.5
    adam_eps: float = 1e-8
    value_clip: bool = False  # the larger of two errors, one of a value that moved by at most 0.2
    bootstrap: bool = False  # whether the value of what follows a time limit counts
    as_played: bool = False  # whether an action is scored as it was played, clipped to its bounds


class Setting(NamedTuple):
    """A task for a rule."""

    task: str
    rule: Rule
    steps: int
    normalize: bool = False  # the observations
    reward_scale: float = 1.0


# purejaxrl/ppo.py at 31756b1, and what it is run with there.
PUREJAXRL = Rule(4, 128, 4, 4, 2.5e-4, annealed=True, entropy=0.01, adam_eps=1e-5, value_clip=True)
# src/rejax/algos/ppo.py at d751095 with configs/gymnax/cartpole.yaml and acrobot.yaml. It has two optimizers,
# of the actor and of the critic, which is the same where each number of the gradient is clipped by itself.
REJAX = Rule(5, 100, 5, 5, 7.5e-4, entropy=0.01, clip="entries", value_clip=True)
# src/lerax/algorithm/ppo.py at 67006e1: with its defaults, and with the batches and the rate of PureJaxRL.
LERAX = Rule(4, 2048, 10, 32, 3e-4, bootstrap=True, as_played=True)
SHORT = LERAX._replace(num_steps=128, num_epochs=4, num_minibatches=4, learning_rate=2.5e-4)
# examples/ppo.py
OURS = Rule(32, 32, 10, 4, 1e-3, annealed=True, discount=0.98, gae_lambda=0.9, adam_eps=1e-5, bootstrap=True)

SETTINGS = {
    "PureJaxRL, CartPole": Setting("CartPole-v1", PUREJAXRL, 102_400),
    "rejax, CartPole": Setting("CartPole-v1", REJAX, 102_400),
    "Lerax, CartPole": Setting("CartPole-v1", SHORT, 204_800),
    "Lerax, CartPole, 2,048 steps": Setting("CartPole-v1", LERAX, 102_400),
    "rejax, Acrobot": Setting("Acrobot-v1", REJAX, 102_400, normalize=True),
    "PureJaxRL, Catch": Setting("Catch-bsuite", PUREJAXRL, 51_200),
    "ours, Pendulum": Setting(
        "Pendulum-v1",
        OURS._replace(num_steps=128, num_minibatches=8, discount=0.95, gae_lambda=0.95),
        102_400,
        reward_scale=0.1,
    ),
}
MOUNTAIN = Setting(
    "MountainCarContinuous-v0",
    OURS._replace(num_steps=256, num_epochs=4, num_minibatches=16, discount=0.99, gae_lambda=0.95),
    327_680,
    reward_scale=0.1,
)

# NETWORKS ------------------------------------------------------------------------------------

register_initializer("flax_lecun_normal", jax.nn.initializers.lecun_normal())  # which is truncated


def orthogonal(hidden: tuple[int, ...] = (64, 64), gain: float = math.sqrt(2), **fields: Any) -> pc.MLP:
    return pc.MLP(hidden, kernel_init="orthogonal", gain=gain, **fields)


def alike(tower: Any) -> dict[str, Any]:
    """Actor and critic alike."""
    return {"actor": tower, "critic": tower}


def relu(*hidden: int, last: str = "relu") -> pc.MLP:
    return pc.MLP(hidden, activation=last)


ORTHOGONAL, LERAX_OWN = "orthogonal, `gain=sqrt(2)`", "Lerax's own"
LECUN = pc.MLP((64, 64), kernel_init="flax_lecun_normal", gain=1.0)  # the defaults, but for the tails
DEFAULTS = "the defaults: lecun_normal, `gain=1`"
HEAD_GAIN, GAINS = f"{ORTHOGONAL}, `actor_gain=1`", "orthogonal, `gain=1`, `actor_gain=1`"
RELU, WIDER = f"{ORTHOGONAL}, relu", f"{ORTHOGONAL}, 128 x 128"
FIRST_GAIN = "orthogonal, `gain=4`, then `gain=1`"
REJAX_OWN = "the defaults with `actor_gain=1` (rejax's own)"
WIDE_FIRST = Sequential((orthogonal((64,), 4.0), orthogonal((64,), 1.0)))  # 4 is sqrt(64 / 4 inputs)
NETWORKS: dict[str, dict[str, Any]] = {
    DEFAULTS: alike(LECUN),
    ORTHOGONAL: alike(orthogonal()),
    REJAX_OWN: {**alike(LECUN), "actor_gain": 1.0},
    FIRST_GAIN: alike(WIDE_FIRST),
    HEAD_GAIN: {**alike(orthogonal()), "actor_gain": 1.0},
    GAINS: {**alike(orthogonal(gain=1.0)), "actor_gain": 1.0},
    RELU: alike(orthogonal(activation="relu")),
    f"{ORTHOGONAL}, silu": alike(orthogonal(activation="silu")),
    WIDER: alike(orthogonal((128, 128))),
    f"{ORTHOGONAL}, 64 x 64 x 64": alike(orthogonal((64, 64, 64))),
    f"{ORTHOGONAL}, a trunk for both": {"trunk": orthogonal(), **alike(pc.MLP(()))},
    LERAX_OWN: {
        "trunk": Sequential((relu(64, 64), relu(16, last="identity"))),
        "actor": Sequential((relu(64), relu(16, last="identity"))),
        "critic": relu(64, 64),
    },
}
WIDE = pc.NormalHead(pc.Scale(log_std=math.log(4.0)))
HEADS: dict[str, dict[str, Any]] = {  # for the mountain car, whose box is [-1, 1]
    ORTHOGONAL: alike(orthogonal()),
    "`normalize=Normalize()`": {**alike(orthogonal()), "normalize": pc.Normalize()},
    "`log_std=log(4)`": {**alike(orthogonal()), "box_head": WIDE},
    "both": {**alike(orthogonal()), "box_head": WIDE, "normalize": pc.Normalize()},
}


def as_equinox(params: Any, key: jax.Array) -> Any:
    """Fresh params as of `equinox.nn.Linear`: kernels and biases uniform up to 1 / sqrt(inputs)."""
    if "kernel" not in params:
        keys = jax.random.split(key, len(params))
        parts = zip(params.items(), keys, strict=True)
        return {
            name: as_equinox(part, key) if isinstance(part, dict) else part for (name, part), key in parts
        }
    bound = 1 / math.sqrt(params["kernel"].shape[0])
    drawn = {
        name: jax.random.uniform(jax.random.fold_in(key, i), params[name].shape, jnp.float32, -bound, bound)
        for i, name in enumerate(("kernel", "bias"))
    }
    return {**params, **drawn}
