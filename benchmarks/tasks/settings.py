"""Tasks, contestants, and the hyper-parameters of each, with where they stand.

Nothing was tuned for this comparison. Ours are the defaults of `examples/ppo.py`, or what `docs/results.md`
and `docs/memory.md` had for a task of that kind; those of others are read from their repositories.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

OURS, PLAIN, SAME = "policy_core", "policy_core, defaults", "policy_core, as PureJaxRL"
REJAX, PUREJAXRL, SB3, SBX, LERAX = "rejax", "PureJaxRL", "SB3", "sbx", "Lerax"
CONTESTANTS: tuple[str, ...] = (OURS, PLAIN, SAME, REJAX, PUREJAXRL, SB3, SBX, LERAX)


class Task(NamedTuple):
    """An environment of gymnax, or of `environments`, and how long it is trained on."""

    name: str
    steps: int  # of the environment, a seed; a contestant makes whole rollouts, and not fewer steps
    seeds: int


SMALL = 204_800
TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("CartPole-v1", SMALL, 10),
        Task("Acrobot-v1", SMALL, 10),
        Task("Catch-bsuite", SMALL, 10),
        Task("Pendulum-v1", SMALL, 10),
        Task("MountainCarContinuous-v0", SMALL, 10),
        Task("Breakout-MinAtar", 1_048_576, 5),
        Task("SpaceInvaders-MinAtar", 1_048_576, 5),
        Task("RepeatPrevious", 524_288, 5),
    )
}


class Setting(NamedTuple):
    """What a contestant is run with on a task, and where that stands."""

    fields: dict[str, Any]
    source: str
    config: str = ""  # of the policy, where it is ours: a name of `ours.CONFIGS`
    reward_scale: float = 1.0
    steps: int | None = None  # instead of those of the task
    seeds: int | None = None  # likewise


class LeftOut(NamedTuple):
    """Why a contestant is not run on a task."""

    reason: str


# OURS ------------------------------------------------------------------------------------------

DEFAULT = Setting({}, "`ppo.Hyperparameters()`, `ActorCriticConfig` with its defaults")
PENDULUM = {"num_steps": 128, "num_minibatches": 8, "discount": 0.95, "gae_lambda": 0.95}
CAR = {"num_steps": 256, "num_epochs": 4, "num_minibatches": 16, "discount": 0.99, "gae_lambda": 0.95}
BREAKOUT = {
    "num_envs": 64, "num_steps": 128, "num_epochs": 4, "num_minibatches": 8, "learning_rate": 5e-3,
    "discount": 0.99, "gae_lambda": 0.95, "entropy_coefficient": 0.03,
}  # fmt: skip
DOCUMENTED: dict[str, Setting | LeftOut] = {
    "Pendulum-v1": Setting(PENDULUM, "[results](results.md), its row of Pendulum", "squashed", 0.1),
    "MountainCarContinuous-v0": Setting(CAR, "[results](results.md), its car", "normalized", 0.1),
    "Breakout-MinAtar": Setting(
        BREAKOUT, "[design](design.md#training), its Breakout with a bonus of 0.03", "relu"
    ),
    "SpaceInvaders-MinAtar": Setting(
        BREAKOUT, "[design](design.md#training), its Breakout with a bonus of 0.03", "relu"
    ),
    "RepeatPrevious": Setting(
        {"num_steps": 64, "sequence_length": 64, "num_epochs": 6},
        "[memory](memory.md), its CartPole",
        "memory",
    ),
}

# REJAX: configs/gymnax/*.yaml and benchmark/breakout_1m.yaml at d751095, whose source is that of 0.1.3 ------

CARTPOLE_REJAX = {
    "agent_kwargs": {"activation": "tanh"}, "num_envs": 5, "num_steps": 100, "num_epochs": 5,
    "num_minibatches": 5, "learning_rate": 7.5e-4, "max_grad_norm": 0.5, "gamma": 0.99, "gae_lambda": 0.95,
    "clip_eps": 0.2, "ent_coef": 0.01, "vf_coef": 0.5,
}  # fmt: skip
PENDULUM_REJAX = {
    "agent_kwargs": {"activation": "swish"}, "num_envs": 100, "num_steps": 100, "num_epochs": 10,
    "num_minibatches": 10, "learning_rate": 1e-3, "max_grad_norm": 10, "gamma": 0.995, "gae_lambda": 0.95,
    "clip_eps": 0.2, "ent_coef": 0.0, "vf_coef": 0.5, "normalize_observations": True,
}  # fmt: skip
CAR_REJAX = {
    "agent_kwargs": {"activation": "relu"}, "num_envs": 5, "num_steps": 100, "num_epochs": 10,
    "num_minibatches": 10, "learning_rate": 3e-4, "max_grad_norm": 10, "gamma": 0.9, "gae_lambda": 0.95,
    "clip_eps": 0.2, "ent_coef": 0.0, "vf_coef": 0.5,
}  # fmt: skip
MINATAR_REJAX = {
    "agent_kwargs": {"activation": "tanh"}, "num_envs": 32, "num_steps": 32, "num_epochs": 4,
    "num_minibatches": 4, "learning_rate": 0.00025674088686342003, "max_grad_norm": 1, "gamma": 0.995,
    "gae_lambda": 0.95, "clip_eps": 0.2, "ent_coef": 0.01, "vf_coef": 0.5,
}  # fmt: skip

# PUREJAXRL: the config of a script, or of examples/brax_minatar.ipynb, at 31756b1 ---------------------------

SCRIPT_PUREJAXRL = {
    "LR": 2.5e-4, "NUM_ENVS": 4, "NUM_STEPS": 128, "UPDATE_EPOCHS": 4, "NUM_MINIBATCHES": 4, "GAMMA": 0.99,
    "GAE_LAMBDA": 0.95, "CLIP_EPS": 0.2, "ENT_COEF": 0.01, "VF_COEF": 0.5, "MAX_GRAD_NORM": 0.5,
    "ACTIVATION": "tanh", "ANNEAL_LR": True,
}  # fmt: skip
MINATAR_PUREJAXRL = {
    **SCRIPT_PUREJAXRL, "LR": 5e-3, "NUM_ENVS": 64, "NUM_MINIBATCHES": 8, "ACTIVATION": "relu",
}  # fmt: skip
NAMES = {  # of theirs and of `ppo.Hyperparameters`
    "LR": "learning_rate", "NUM_ENVS": "num_envs", "NUM_STEPS": "num_steps", "UPDATE_EPOCHS": "num_epochs",
    "NUM_MINIBATCHES": "num_minibatches", "GAMMA": "discount", "GAE_LAMBDA": "gae_lambda",
    "CLIP_EPS": "clip_range", "ENT_COEF": "entropy_coefficient", "VF_COEF": "value_coefficient",
    "MAX_GRAD_NORM": "max_grad_norm",
}  # fmt: skip
BRAX_ONLY = LeftOut(
    "its script for continuous actions is published for 2,048 environments of Brax and 50 million steps; in "
    f"{SMALL:,} steps each of them makes 100, and no episode ends"
)

# SB3 AND SBX: hyperparams/ppo.yml of rl-baselines3-zoo at 22e3ff2, which the README of sbx refers to --------


def linear(start: float) -> Callable[[float], float]:
    """`lin_...` of the zoo: linearly to zero."""
    return lambda remaining: start * remaining


CARTPOLE_ZOO = {
    "n_envs": 8, "n_steps": 32, "batch_size": 256, "gae_lambda": 0.8, "gamma": 0.98, "n_epochs": 20,
    "ent_coef": 0.0, "learning_rate": linear(1e-3), "clip_range": linear(0.2),
}  # fmt: skip
ACROBOT_ZOO = {
    "normalize": True, "n_envs": 16, "n_steps": 256, "gae_lambda": 0.94, "gamma": 0.99, "n_epochs": 4,
    "ent_coef": 0.0,
}  # fmt: skip
PENDULUM_ZOO = {
    "n_envs": 4, "n_steps": 1024, "gae_lambda": 0.95, "gamma": 0.9, "n_epochs": 10, "ent_coef": 0.0,
    "learning_rate": 1e-3, "clip_range": 0.2, "use_sde": True, "sde_sample_freq": 4,
}  # fmt: skip
CAR_ZOO = {
    "normalize": True, "n_envs": 1, "batch_size": 256, "n_steps": 8, "gamma": 0.9999,
    "learning_rate": 7.77e-5, "ent_coef": 0.00429, "clip_range": 0.1, "n_epochs": 10, "gae_lambda": 0.9,
    "max_grad_norm": 5, "vf_coef": 0.19, "use_sde": True,
    "policy_kwargs": {"log_std_init": -3.29, "ortho_init": False},
}  # fmt: skip
ZOO: dict[str, Setting | LeftOut] = {
    name: Setting(fields, "hyperparams/ppo.yml of the zoo", seeds=5)
    for name, fields in (
        ("CartPole-v1", CARTPOLE_ZOO),
        ("Acrobot-v1", ACROBOT_ZOO),
        ("Pendulum-v1", PENDULUM_ZOO),
    )
}
# An update of it has 8 steps and 10 epochs: 204,800 steps would take ten minutes of a processor, a seed.
ZOO["MountainCarContinuous-v0"] = Setting(
    CAR_ZOO, "hyperparams/ppo.yml of the zoo, with its number of steps", steps=20_000, seeds=5
)
DEFAULT_EPOCHS = {OURS: 10, PLAIN: 10, SAME: 10, REJAX: 8, PUREJAXRL: 4, SB3: 10, SBX: 10, LERAX: 10}
NOT_IN_ZOO = LeftOut("the zoo has no hyper-parameters for it")
NO_MEMORY = LeftOut("its PPO has no memory")
IMAGES_REJAX = Setting(MINATAR_REJAX, "benchmark/breakout_1m.yaml")
CLASSIC = ("CartPole-v1", "Acrobot-v1", "Pendulum-v1", "MountainCarContinuous-v0")


def epochs(contestant: str, setting: Setting) -> int:
    """How often an update goes through its rollout: as the setting says, else by the library's default."""
    fields = setting.fields
    return int(
        next(
            (fields[n] for n in ("num_epochs", "UPDATE_EPOCHS", "n_epochs") if n in fields),
            DEFAULT_EPOCHS[contestant],
        )
    )


def of(contestant: str, task: str) -> Setting | LeftOut:
    """What the contestant is run with on the task, or why it is not run.

    Raises:
        KeyError: if one of them is not known.
    """
    if contestant not in CONTESTANTS or task not in TASKS:
        raise KeyError(f"got {contestant!r} on {task!r}, expected {CONTESTANTS} on {tuple(TASKS)}")
    if contestant == OURS:
        return DOCUMENTED.get(task, DEFAULT)
    if contestant == PLAIN:
        return DEFAULT if task in DOCUMENTED else LeftOut(f"as {OURS}, which has the defaults there")
    if contestant == SAME:
        theirs = of(PUREJAXRL, task)
        if isinstance(theirs, LeftOut) or task == "RepeatPrevious":
            return LeftOut("PureJaxRL has none for it, or for another network")
        fields = {NAMES[name]: value for name, value in theirs.fields.items() if name in NAMES}
        return Setting(fields, f"as PureJaxRL: {theirs.source}", theirs.fields["ACTIVATION"])
    table: dict[str, Setting | LeftOut]
    if contestant == REJAX:
        table = {
            "CartPole-v1": Setting(CARTPOLE_REJAX, "configs/gymnax/cartpole.yaml"),
            "Acrobot-v1": Setting(
                {**CARTPOLE_REJAX, "normalize_observations": True}, "configs/gymnax/acrobot.yaml"
            ),
            "Catch-bsuite": Setting({}, "the defaults of `rejax.PPO`; it has no file for Catch"),
            "Pendulum-v1": Setting(PENDULUM_REJAX, "configs/gymnax/pendulum.yaml"),
            "MountainCarContinuous-v0": Setting(CAR_REJAX, "configs/gymnax/continuous_mountaincar.yaml"),
            "Breakout-MinAtar": IMAGES_REJAX,
            "SpaceInvaders-MinAtar": IMAGES_REJAX,
            "RepeatPrevious": NO_MEMORY,
        }
        return table[task]
    if contestant == PUREJAXRL:
        script = Setting(SCRIPT_PUREJAXRL, "the config of purejaxrl/ppo.py")
        table = {
            "Pendulum-v1": BRAX_ONLY,
            "MountainCarContinuous-v0": BRAX_ONLY,
            "Breakout-MinAtar": Setting(MINATAR_PUREJAXRL, "examples/brax_minatar.ipynb"),
            "SpaceInvaders-MinAtar": Setting(MINATAR_PUREJAXRL, "examples/brax_minatar.ipynb"),
            "RepeatPrevious": Setting(SCRIPT_PUREJAXRL, "the config of purejaxrl/ppo_rnn.py"),
        }
        return table.get(task, script)
    if contestant == LERAX:
        if task not in CLASSIC:
            return LeftOut("it is run on its own environments, which do not have it")
        return Setting({}, "the defaults of `lerax.algorithm.PPO` at 67006e1, on its own environment")
    return ZOO.get(task, NOT_IN_ZOO)
