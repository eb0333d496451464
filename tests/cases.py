"""THE table: every config that the contract is tested on, by name."""

import dataclasses
import math
from typing import Any

import jax.numpy as jnp
import msgpack

import policy_core as pc
from policy_core.configs.codec import encoding_of

SMALL = {"actor": pc.MLP((8,)), "critic": pc.MLP((8,))}

OBSERVATION = pc.Box(shape=(3,))

SPACES = {
    "box": pc.Box(shape=(3,)),
    "box scalar": pc.Box(low=-1.0, high=2.0),
    "box mixed bounds": pc.Box(low=(-1.0, -math.inf, 0.0), high=(1.0, 2.0, math.inf), shape=(3,)),
    "box of rank 2": pc.Box(low=-2.0, high=2.0, shape=(2, 3)),
    "box uint8": pc.Box(low=0, high=255, shape=(2, 2, 1), dtype="uint8"),
    "box int32": pc.Box(low=-7, shape=(2,), dtype="int32"),
    "box bfloat16": pc.Box(low=0.0, high=1.0, shape=(2,), dtype="bfloat16"),
    "discrete": pc.Discrete(5),
    "discrete with start": pc.Discrete(3, start=-2),
    "discrete of one": pc.Discrete(1),
    "discrete of 200": pc.Discrete(200),
    "multi-discrete": pc.MultiDiscrete((2, 3, 4)),
    "multi-discrete of rank 2": pc.MultiDiscrete((2, 3, 4, 2), shape=(2, 2), start=(0, 1, 0, -5)),
    "multi-binary": pc.MultiBinary(3),
    "multi-binary of rank 2": pc.MultiBinary((2, 2)),
    "dict": pc.Dict({"b": pc.Box(shape=(2,)), "a": pc.Discrete(3)}),
    "tuple": pc.Tuple((pc.Discrete(2), pc.Box(shape=()))),
    "nested": pc.Dict(
        {
            "x": pc.Tuple((pc.MultiBinary(2), pc.MultiDiscrete((2, 3)))),
            "y": pc.Dict({"z": pc.Box(low=0.0, high=1.0, shape=(1, 2)), "k": pc.Discrete(2)}),
        }
    ),
}

ACTED = (
    "box", "box of rank 2", "box mixed bounds", "box bfloat16", "discrete", "discrete with start",
    "discrete of one", "discrete of 200", "multi-discrete of rank 2", "multi-binary of rank 2", "nested",
)  # fmt: skip
OBSERVED = ("box uint8", "discrete with start", "multi-discrete of rank 2", "nested")
ACTION_SPACES = {
    **{name: SPACES[name] for name in ACTED},
    "box int8": pc.Box(low=-3, high=4, shape=(2,), dtype="int8"),
}
BOUNDED = pc.Box(low=(-2.0, 0.0), high=(2.0, 1.0), shape=(2,))
STATE = pc.Scale(std="state", log_std=-1.0)


def config(
    action_space: pc.contract.Space, observation_space: pc.contract.Space = OBSERVATION, **fields: object
):
    return pc.ActorCriticConfig(
        observation_space=observation_space, action_space=action_space, **{**SMALL, **fields}
    )


def others(mask: object, seen: dict) -> jnp.ndarray:
    """Aim at anything but the number of the tool."""
    free = jnp.arange(4, dtype=jnp.int32) != seen["tool"]
    return free if mask is None else mask & free


pc.heads.register_mask_function("others", others)
AUTOREGRESSIVE = config(
    pc.Dict({"tool": pc.Discrete(3), "aim": pc.Discrete(4), "force": SPACES["box"], "free": pc.Discrete(4)}),
    autoregressive=pc.Autoregressive(
        {"aim": ("tool",), "force": ("tool", "aim")}, network=pc.MLP((8,)), masks={"aim": "others"}
    ),
)

CONFIGS = {
    **{f"act {name}": config(space) for name, space in ACTION_SPACES.items()},
    **{f"observe {name}": config(pc.Discrete(3), SPACES[name]) for name in OBSERVED},
    "state std": config(SPACES["box mixed bounds"], box_head=pc.NormalHead(STATE)),
    "fixed std": config(
        SPACES["box"],
        box_head=pc.NormalHead(
            pc.Scale(std="fixed", log_std=-0.5), mean_bound=2.0, offset=0.5, factor=2.0, clip=1.5
        ),
    ),
    "softplus std": config(
        SPACES["box"],
        box_head=pc.NormalHead(pc.Scale(positive="softplus", low=-2.0, high=1.0, min_std=0.1, factor=0.8)),
    ),
    "squashed": config(
        BOUNDED,
        box_head=pc.SquashedNormalHead(
            pc.Scale(std="state", log_std=-1.0, low=-5.0, high=2.0, bounding="tanh"), mean_bound=3.0
        ),
    ),
    "squashed, mixed bounds": config(SPACES["box mixed bounds"], box_head=pc.SquashedNormalHead(STATE)),
    "squashed parts": config(SPACES["nested"], box_head=pc.SquashedNormalHead()),
    "beta": config(BOUNDED, box_head=pc.BetaHead()),
    "beta of rank 2": config(SPACES["box of rank 2"], box_head=pc.BetaHead(low=0.1)),
    "bins": config(BOUNDED, box_head=pc.BinsHead(5)),
    "gSDE": config(SPACES["box mixed bounds"], box_head=pc.heads.GSDEHead(), memory=pc.MinGRU(4)),
    "squashed gSDE": config(
        SPACES["nested"],
        box_head=pc.heads.GSDEHead(
            log_std=0.5, positive="expln", full_std=False, squash=True, learn_features=True, resample_every=2
        ),
        temperature=1.5,
    ),
    "heads of parts": config(
        pc.Dict({"in": SPACES["nested"], "arm": BOUNDED, "leg": SPACES["box"], "gear": SPACES["discrete"]}),
        box_head=pc.NormalHead(STATE),
        heads=pc.heads.PartHeads(
            {
                "arm": pc.BetaHead(),
                "leg": pc.heads.GSDEHead(),
                "in": pc.heads.PartHeads({"y": pc.heads.PartHeads({"z": pc.BinsHead(3)})}),
            }
        ),
    ),
    "autoregressive": AUTOREGRESSIVE,
    "temperature": config(SPACES["nested"], box_head=pc.BinsHead(3), temperature=0.7),
    "temperature of a normal": config(SPACES["box"], temperature=2.0),
    "temperature of a beta": config(BOUNDED, box_head=pc.BetaHead(), temperature=3.0),
    "gru": config(pc.Discrete(3), memory=pc.GRU(4)),
    "attention of the actor": config(
        pc.Discrete(3), memory=pc.WindowAttention(4, window=3, heads=2), memory_sharing="actor"
    ),
    "two memories": config(
        pc.Discrete(3),
        memory=pc.Stack((pc.MinGRU(4), pc.LSTM(4, layer_norm=True, learned_start=True)), residual=True),
        memory_sharing="separate",
    ),
    "memory with a skip": config(
        pc.Discrete(3), memory=pc.Stack((pc.GRU(4), pc.MinGRU(2)), skip="concat"), memory_sharing="actor"
    ),
    "privileged critic": config(
        pc.Discrete(3),
        pc.Dict({"x": OBSERVATION, "truth": pc.Box(shape=(2,))}),
        actor_keys=("x",),
        memory=pc.MinGRU(3),
        memory_sharing="separate",
        normalize=pc.Normalize(),
    ),
    "image": config(
        pc.Discrete(3),
        pc.Box(low=0, high=255, shape=(4, 5, 2), dtype="uint8"),
        encoder=pc.encoders.CNN(channels=(3, 4), kernels=(3, 2), padding="SAME", pool="mean", size=None),
        encoder_sharing="separate",
    ),
    "parts": config(
        pc.Discrete(3),
        pc.Dict({"eye": pc.Box(shape=(3, 3, 1)), "gear": pc.Discrete(4), "x": OBSERVATION}),
        encoder=pc.Parts(
            {
                "eye": pc.ImpalaCNN(channels=(2,), blocks=1, size=3),
                "gear": pc.Embedding(2),
                "x": pc.encoders.Encode(pc.MLP((3,))),
            },
            rest=pc.Flatten(),
        ),
    ),
    "normalized": config(
        pc.Discrete(3),
        pc.Dict({"x": OBSERVATION, "k": pc.Discrete(2), "i": SPACES["box uint8"], "y": pc.Box()}),
        normalize=pc.Normalize(
            clip=2.0, form="std", epsilon=0.01, min_std=0.1, max_count=20.0, keys=("x", "k")
        ),
    ),
    "two-hot value": config(
        pc.Discrete(3), value_head=pc.TwoHotHead(low=-20.0, high=20.0, bins=11, symlog=True)
    ),
    "HL-Gauss values": config(
        pc.Discrete(3), value_head=pc.HLGaussHead(low=-9.0, high=9.0, bins=11, objectives=2, gain=1.0)
    ),
    "symlog values": config(
        pc.Discrete(3),
        memory=pc.memory.FrameStack(3, fill="first"),
        value_head=pc.RegressionHead(objectives=2, symlog=True, scale=3.0),
    ),
    "PopArt values": config(pc.Discrete(3), value_head=pc.heads.PopArtHead(objectives=2)),
    "normalized value": config(
        pc.Discrete(3), value_head=pc.heads.PopArtHead(preserve=False, max_count=50.0, epsilon=0.1)
    ),
    "layer norm": config(
        pc.Discrete(3),
        actor=pc.MLP((8, 8), layer_norm=True, epsilon=1e-6, bias=False, activation="relu"),
        critic=pc.networks.Sequential(
            (pc.ResidualMLP(8), pc.networks.LayerNorm(epsilon=1e-4), pc.MLP((5,), activation="identity"))
        ),
    ),
    "bfloat16 residual": config(
        SPACES["box"], actor=pc.ResidualMLP(8, blocks=1, expansion=2), compute_dtype="bfloat16"
    ),
    "shared trunk": config(pc.Discrete(3), trunk=pc.MLP((8,), activation="relu")),
    "only a trunk": config(
        pc.Discrete(3),
        trunk=pc.MLP((8,), activation="silu", kernel_init="lecun_normal", gain=1.0),
        actor=pc.MLP(()),
        critic=pc.MLP(()),
    ),
    "bfloat16": config(pc.Discrete(3), compute_dtype="bfloat16"),
    "bfloat16 params": config(SPACES["box"], param_dtype="bfloat16", compute_dtype="bfloat16"),
}
LOW_PRECISION = ("bfloat16", "bfloat16 params", "bfloat16 residual")


def classes_of(config: Any) -> set[str]:
    """The names of the classes that a config is made of."""

    def found(data: Any) -> set[str]:
        if isinstance(data, dict):
            own = {data["type"]} if isinstance(data.get("type"), str) else set()
            return own.union(*map(found, data.values()))
        return set().union(*map(found, data)) if isinstance(data, list) else set()

    return found(msgpack.unpackb(encoding_of(config)))


def as_frozen(config: Any) -> Any:
    """The config with the kernels that `MLP` had by default when version 1 of the format was frozen.

    Defaults may change; what is in files may not.
    """
    if isinstance(config, tuple):
        return tuple(map(as_frozen, config))
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        return config
    fields = {field.name: as_frozen(getattr(config, field.name)) for field in dataclasses.fields(config)}
    if isinstance(config, pc.MLP):
        now = pc.MLP()
        fields["kernel_init"] = (
            "lecun_normal" if config.kernel_init == now.kernel_init else config.kernel_init
        )
        fields["gain"] = 1.0 if config.gain == now.gain else config.gain
    return dataclasses.replace(config, **fields)
