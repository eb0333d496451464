"""PPO of other libraries as options of one update rule, the tasks, and the networks."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import policy_core as pc
from policy_core.networks import Sequential, register_initializer

# RULES ---------------------------------------------------------------------------------------


class Rule(NamedTuple):
    """PPO of a library, with its hyper-parameters.

    What all have in common: a clip range of 0.2, advantages normalized in each minibatch, half a squared
    error of the value with the coefficient 0.5, and minibatches of single steps, shuffled in each epoch; with
    a memory, of environments with all their steps.

    The fields after the first four may be arrays: rules that differ in them are one program.
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
    clip_entries: bool = False  # each number of the gradient; else the norm of all together
    max_gradient: float = 0.5
    adam_eps: float = 1e-8
    value_clip: bool = False  # the larger of two errors, one of a value that moved by at most 0.2
    bootstrap: bool = False  # whether the value of what follows a time limit counts
    as_played: bool = False  # whether an action is scored as it was played, clipped to its bounds


class Setting(NamedTuple):
    """A task for a rule."""

    task: str  # of gymnax
    rule: Rule
    steps: int
    normalize: bool = False  # the observations
    reward_scale: float = 1.0
    memory: pc.contract.Memory | None = None  # and then CartPole is seen without its velocities


# purejaxrl/ppo.py at 31756b1, and what it is run with there.
PUREJAXRL = Rule(4, 128, 4, 4, 2.5e-4, annealed=True, entropy=0.01, adam_eps=1e-5, value_clip=True)
# src/rejax/algos/ppo.py at d751095 with configs/gymnax/cartpole.yaml and acrobot.yaml. It has two optimizers,
# of the actor and of the critic, which is the same where each number of the gradient is clipped by itself.
REJAX = Rule(5, 100, 5, 5, 7.5e-4, entropy=0.01, clip_entries=True, value_clip=True)
# src/lerax/algorithm/ppo.py at 67006e1: with its defaults, and with the batches and the rate of PureJaxRL.
LERAX = Rule(4, 2048, 10, 32, 3e-4, bootstrap=True, as_played=True)
SHORT = LERAX._replace(num_steps=128, num_epochs=4, num_minibatches=4, learning_rate=2.5e-4)
# examples/ppo.py
OURS = Rule(32, 32, 10, 4, 1e-3, annealed=True, discount=0.98, gae_lambda=0.9, adam_eps=1e-5, bootstrap=True)
# examples/brax_minatar.ipynb of PureJaxRL, at the same commit, with a fifth of its steps.
MINATAR = PUREJAXRL._replace(num_envs=64, num_minibatches=8, learning_rate=5e-3)
# Its ppo_rnn.py has 4 environments and a rate of 2.5e-4. More and shorter sequences are quicker on a GPU.
RECURRENT = PUREJAXRL._replace(num_envs=32, num_steps=64, learning_rate=1e-3)

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
    "PureJaxRL, Breakout-MinAtar": Setting("Breakout-MinAtar", MINATAR, 2_000_000),
    "PureJaxRL, CartPole without velocities, GRU(64)": Setting(
        "CartPole-v1", RECURRENT, 512_000, memory=pc.GRU(64)
    ),
}
# What differs between the rules, one at a time: the other value in each, by the name of the difference.
HOSTS = ("PureJaxRL, CartPole", "rejax, CartPole", "Lerax, CartPole")
OPTIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "learning rate": ({"annealed": True}, {"annealed": False}),
    "Adam's epsilon": ({"adam_eps": 1e-5}, {"adam_eps": 1e-8}),
    "gradient clipped": ({"clip_entries": False}, {"clip_entries": True}),
    "values": ({"value_clip": True}, {"value_clip": False}),
    "time limits": ({"bootstrap": False}, {"bootstrap": True}),
    "entropy": ({"entropy": 0.01}, {"entropy": 0.0}),
    "rate": ({"learning_rate": 2.5e-4}, {"learning_rate": 7.5e-4}),
}


def other(setting: Setting, option: str) -> Setting:
    """The setting with the value of the option that it has not."""
    first, second = OPTIONS[option]
    has_first = all(getattr(setting.rule, name) == value for name, value in first.items())
    return setting._replace(rule=setting.rule._replace(**(second if has_first else first)))


def arm(host: str, option: str) -> str:
    """The name of that setting."""
    return f"{host}; other {option}"


ALL_OF_REJAX = f"{HOSTS[0]}; all of rejax but its batches"
ARMS = {arm(host, option): other(SETTINGS[host], option) for host in HOSTS for option in OPTIONS}
ARMS[ALL_OF_REJAX] = SETTINGS[HOSTS[0]]._replace(rule=Rule._make([*PUREJAXRL[:4], *REJAX[4:]]))
CAR = "ours, mountain car"
MOUNTAIN = Setting(
    "MountainCarContinuous-v0",
    OURS._replace(num_steps=256, num_epochs=4, num_minibatches=16, discount=0.99, gae_lambda=0.95),
    327_680,
    reward_scale=0.1,
)

# There no layer of the towers has fewer inputs than outputs, so that kernels of the defaults are orthogonal
# ones with a gain of sqrt(2), which are not trained twice.
SAME_KERNELS = tuple(SETTINGS)[-2:]

# NETWORKS ------------------------------------------------------------------------------------

register_initializer("flax_lecun_normal", jax.nn.initializers.lecun_normal())  # which is truncated


def orthogonal(hidden: tuple[int, ...] = (64, 64), gain: float = math.sqrt(2), **fields: Any) -> pc.MLP:
    return pc.MLP(hidden, kernel_init="orthogonal", gain=gain, **fields)


def lecun(hidden: tuple[int, ...] = (64, 64), gain: float = 1.0, **fields: Any) -> pc.MLP:
    """As "lecun_normal", but for the tails."""
    return pc.MLP(hidden, kernel_init="flax_lecun_normal", gain=gain, **fields)


def alike(tower: Any) -> dict[str, Any]:
    """Actor and critic alike."""
    return {"actor": tower, "critic": tower}


def relu(*hidden: int, last: str = "relu") -> pc.MLP:
    return pc.MLP(hidden, activation=last)


ORTHOGONAL, LERAX_OWN = "orthogonal, `gain=sqrt(2)`", "Lerax's own"
DEFAULTS, GAIN_1 = "the defaults: lecun_orthogonal, `gain=sqrt(2)`", "the defaults, `gain=1`"
LECUN = "lecun_normal, `gain=1`"
HEAD_GAIN, GAINS = f"{ORTHOGONAL}, `actor_gain=1`", "orthogonal, `gain=1`, `actor_gain=1`"
RELU, SILU, WIDER, DEEPER = (f"{LECUN}, {what}" for what in ("relu", "silu", "128 x 128", "64 x 64 x 64"))
TRUNK, IMAGES = f"{LECUN}, a trunk for both", f"{LECUN}, after `MinAtarCNN()`"
ORTHOGONAL_RELU, ORTHOGONAL_WIDER = f"{ORTHOGONAL}, relu", f"{ORTHOGONAL}, 128 x 128"
LARGER = "lecun_normal, `gain=sqrt(2)`"
FIRST_GAIN = "orthogonal, `gain=4`, then `gain=1`"
REJAX_OWN = f"{LECUN}, `actor_gain=1` (rejax's own)"
WIDE_FIRST = Sequential((orthogonal((64,), 4.0), orthogonal((64,), 1.0)))  # 4 is sqrt(64 / 4 inputs)
NETWORKS: dict[str, dict[str, Any]] = {
    DEFAULTS: alike(pc.MLP()),
    GAIN_1: alike(pc.MLP(gain=1.0)),
    LECUN: alike(lecun()),
    ORTHOGONAL: alike(orthogonal()),
    REJAX_OWN: {**alike(lecun()), "actor_gain": 1.0},
    LARGER: alike(lecun(gain=math.sqrt(2))),
    FIRST_GAIN: alike(WIDE_FIRST),
    HEAD_GAIN: {**alike(orthogonal()), "actor_gain": 1.0},
    GAINS: {**alike(orthogonal(gain=1.0)), "actor_gain": 1.0},
    ORTHOGONAL_RELU: alike(orthogonal(activation="relu")),
    ORTHOGONAL_WIDER: alike(orthogonal((128, 128))),
    RELU: alike(lecun(activation="relu")),
    SILU: alike(lecun(activation="silu")),
    WIDER: alike(lecun((128, 128))),
    DEEPER: alike(lecun((64, 64, 64))),
    TRUNK: {"trunk": lecun(), **alike(pc.MLP(()))},
    LERAX_OWN: {
        "trunk": Sequential((relu(64, 64), relu(16, last="identity"))),
        "actor": Sequential((relu(64), relu(16, last="identity"))),
        "critic": relu(64, 64),
    },
    IMAGES: {**alike(lecun()), "encoder": pc.MinAtarCNN()},
}
WIDE = pc.NormalHead(pc.Scale(log_std=math.log(4.0)))
HEADS: dict[str, dict[str, Any]] = {  # for the mountain car, whose box is [-1, 1]
    ORTHOGONAL: alike(orthogonal()),
    "`normalize=Normalize()`": {**alike(orthogonal()), "normalize": pc.Normalize()},
    "`log_std=log(4)`": {**alike(orthogonal()), "box_head": WIDE},
    "both": {**alike(orthogonal()), "box_head": WIDE, "normalize": pc.Normalize()},
}


# The time of a seed in that of the defaults, as it was measured. Where the rate is annealed, a network that
# takes longer is compared at equal time with so much fewer steps, annealed to the end.
TIMES = {WIDER: 3.2, DEEPER: 1.5}


def shorter(setting: str, network: str) -> str:
    """The name of the setting with fewer steps."""
    return f"{setting}; 1/{TIMES[network]:g} of the steps"


SHORTER = {
    shorter(name, network): SETTINGS[name]._replace(steps=round(SETTINGS[name].steps / time))
    for name in ("PureJaxRL, CartPole", "PureJaxRL, Catch")
    for network, time in TIMES.items()
}
EVERYTHING: dict[str, tuple[Setting, dict[str, dict[str, Any]]]] = {
    **{name: (setting, NETWORKS) for name, setting in {**SETTINGS, **ARMS, **SHORTER}.items()},
    CAR: (MOUNTAIN, HEADS),
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
