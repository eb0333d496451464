"""Hypothesis strategies: spaces, masks of a space, configs. All small, all legal."""

import math
from typing import Any

import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np

import policy_core as pc

SHAPES = st.lists(st.integers(0, 3), max_size=2).map(tuple)
_INTEGERS = ("int8", "int16", "int32", "uint8", "uint16", "uint32")


@st.composite
def _bounds(draw: st.DrawFn, numbers: st.SearchStrategy, shape: tuple[int, ...]) -> dict[str, Any]:
    """Two bounds that do not cross: a number or a tuple of numbers each, perhaps infinite."""

    def pair() -> tuple[float, float]:
        low, high = sorted((draw(numbers), draw(numbers)))
        return draw(st.sampled_from([low, -math.inf])), draw(st.sampled_from([high, math.inf]))

    if draw(st.booleans()):
        low, high = pair()
        return {"low": low, "high": high}
    pairs = [pair() for _ in range(math.prod(shape))]
    return {"low": tuple(low for low, _ in pairs), "high": tuple(high for _, high in pairs)}


@st.composite
def float_boxes(draw: st.DrawFn) -> pc.Box:
    shape = draw(SHAPES)
    # Numbers of 16 bits fit into every float dtype.
    numbers = st.floats(allow_nan=False, allow_infinity=False, width=16)
    dtype = draw(st.sampled_from(["float16", "bfloat16", "float32"]))
    return pc.Box(**draw(_bounds(numbers, shape)), shape=shape, dtype=dtype)


@st.composite
def integer_boxes(draw: st.DrawFn) -> pc.Box:
    shape, dtype = draw(SHAPES), draw(st.sampled_from(_INTEGERS))
    info = np.iinfo(dtype)
    numbers = st.integers(int(info.min), int(info.max)) | st.sampled_from([int(info.min), int(info.max)])
    return pc.Box(**draw(_bounds(numbers, shape)), shape=shape, dtype=dtype)


@st.composite
def multi_discretes(draw: st.DrawFn) -> pc.MultiDiscrete:
    shape = draw(st.sampled_from([None, (2, 1), (1,), (1, 3), ()]))
    size = draw(st.integers(1, 3)) if shape is None else math.prod(shape)
    nvec = tuple(draw(st.lists(st.integers(1, 4), min_size=size, max_size=size)))
    start = tuple(draw(st.lists(st.integers(-3, 3), min_size=size, max_size=size)))
    return pc.MultiDiscrete(nvec, shape=shape, start=draw(st.sampled_from([None, start])))


DISCRETES = st.builds(pc.Discrete, st.integers(1, 5), start=st.integers(-3, 3))
MULTI_BINARIES = st.builds(pc.MultiBinary, st.integers(0, 3) | SHAPES)

SIMPLE_SPACES = st.one_of(DISCRETES, multi_discretes(), MULTI_BINARIES, float_boxes(), integer_boxes())
ACTION_SPACES = st.one_of(DISCRETES, multi_discretes(), MULTI_BINARIES, float_boxes())


def _composites(spaces: st.SearchStrategy) -> st.SearchStrategy:
    names = st.sampled_from(["a", "b", "B", "z y", "10", "9", ""])
    return st.one_of(
        st.dictionaries(names, spaces, max_size=3).map(pc.Dict),
        st.lists(spaces, max_size=3).map(tuple).map(pc.Tuple),
    )


SPACES = st.recursive(SIMPLE_SPACES, _composites, max_leaves=4)


@st.composite
def masks(draw: st.DrawFn, space: Any) -> Any:
    """A mask of `space`, any part of which may be None; rows may forbid everything."""

    def row(shape: tuple[int, ...]) -> Any:
        size = math.prod(shape)
        bits = draw(st.none() | st.lists(st.booleans(), min_size=size, max_size=size))
        return None if bits is None else jnp.array(bits, bool).reshape(shape)

    if isinstance(space, pc.Box) or draw(st.integers(0, 9)) == 0:
        return None
    match space:
        case pc.Discrete():
            return row((space.n,))
        case pc.MultiDiscrete():
            return tuple(row((n,)) for n in space.nvec)
        case pc.MultiBinary():
            return row(space.struct().shape)
        case pc.Dict():
            return {name: draw(masks(part)) for name, part in space.spaces}
    return tuple(draw(masks(part)) for part in space.spaces)


SPACES_AND_MASKS = SPACES.flatmap(lambda space: st.tuples(st.just(space), masks(space)))

_FACTORS = st.floats(0, 10) | st.integers(0, 3)
_DTYPES = st.sampled_from(["float32", "bfloat16", "float16"])

MLPS = st.builds(
    pc.MLP,
    st.lists(st.integers(1, 4), max_size=2).map(tuple),
    activation=st.sampled_from(["tanh", "relu", "silu", "identity"]),
    kernel_init=st.sampled_from(["orthogonal", "lecun_orthogonal", "lecun_normal", "lecun_uniform"]),
    gain=_FACTORS,
    layer_norm=st.booleans(),
)
NETWORKS = MLPS | st.builds(
    pc.ResidualMLP, st.integers(1, 4), blocks=st.integers(1, 2), expansion=st.integers(1, 2)
)
_OBJECTIVES = st.none() | st.integers(1, 3)
_GRIDS = {"low": st.floats(-5, -1), "high": st.floats(0, 5), "bins": st.integers(2, 5)}
VALUE_HEADS = st.one_of(
    st.builds(pc.RegressionHead, objectives=_OBJECTIVES, scale=st.floats(0.1, 10), symlog=st.booleans()),
    st.builds(pc.TwoHotHead, **_GRIDS, symlog=st.booleans(), objectives=_OBJECTIVES, gain=_FACTORS),
    st.builds(pc.HLGaussHead, **_GRIDS, sigma=st.floats(0.1, 3), objectives=_OBJECTIVES),
)
NORMAL_HEADS = st.builds(
    lambda **fields: pc.NormalHead(pc.Scale(**fields)),
    std=st.sampled_from(["global", "state", "fixed"]),
    log_std=st.floats(-2, 1),
)
_CELLS = st.one_of(
    st.builds(pc.GRU, st.integers(1, 4), layer_norm=st.booleans()),
    st.builds(pc.LSTM, st.integers(1, 4), learned_start=st.booleans()),
    st.builds(pc.MinGRU, st.integers(1, 4), horizon=st.floats(2, 1e3)),
    st.builds(pc.WindowAttention, st.integers(1, 4), window=st.integers(1, 9), heads=st.just(1)),
)
MEMORIES = _CELLS | st.builds(pc.Stack, st.lists(_CELLS, min_size=1, max_size=2).map(tuple))
CONFIGS = st.builds(
    pc.ActorCriticConfig,
    observation_space=SPACES,
    action_space=ACTION_SPACES,
    actor=NETWORKS,
    critic=NETWORKS,
    value_head=VALUE_HEADS,
    trunk=st.none() | NETWORKS,
    memory=st.none() | MEMORIES,
    box_head=NORMAL_HEADS,
    actor_gain=_FACTORS,
    critic_gain=_FACTORS,
    param_dtype=_DTYPES,
    compute_dtype=_DTYPES,
)
