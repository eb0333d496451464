"""What the fields of a config in a file may hold; see `numpy_runner`."""

import itertools
import math
from collections.abc import Callable
from typing import Any

Check = Callable[[Any], bool]
Fields = dict[str, Any]


def _whole(least: int) -> Check:
    return lambda x: type(x) is int and x >= least


def _real(x: Any) -> bool:
    return type(x) is float


def _positive(x: Any) -> bool:
    return type(x) is float and 0 < x < math.inf


def _text(x: Any) -> bool:
    return type(x) is str


def _flag(x: Any) -> bool:
    return type(x) is bool


def _config(x: Any) -> bool:
    return type(x) is dict


def _one_of(*known: str) -> Check:
    return lambda x: type(x) is str and x in known


def _many(check: Check) -> Check:
    return lambda x: type(x) is list and all(map(check, x))


def _or_none(check: Check) -> Check:
    return lambda x: x is None or check(x)


def _pairs(name: Check, value: Check) -> Check:
    return _many(lambda x: type(x) is list and len(x) == 2 and name(x[0]) and value(x[1]))


def _ascending(names: list[str]) -> bool:
    return all(a < b for a, b in itertools.pairwise(names))


def _name(x: Any) -> bool:
    return type(x) in (str, int)


def _finite(x: Any) -> bool:
    return _real(x) and math.isfinite(x)


_FLOATS = ("bfloat16", "float16", "float32", "float64")
_INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")

# By the name of a field, or of class and field where another class has one of that name.
CHECKS: dict[str, Check] = {
    **dict.fromkeys(
        ("blocks", "expansion", "filters", "heads", "n", "size", "width", "window", "frames"), _whole(1)
    ),
    **dict.fromkeys(("hidden", "channels", "nvec"), _many(_whole(1))),
    **dict.fromkeys(("actor_gain", "critic_gain", "gain"), lambda x: _real(x) and math.isfinite(x)),
    **dict.fromkeys(("log_std", "high", "low"), _real),
    **dict.fromkeys(("epsilon", "sigma", "RegressionHead.scale"), _positive),
    "clip": lambda x: _real(x) and x > 0,
    "horizon": lambda x: _positive(x) and x >= 2,
    **dict.fromkeys(("layer_norm", "learned_start", "residual", "symlog", "bias"), _flag),
    **dict.fromkeys(("full_std", "squash", "learn_features", "preserve"), _flag),
    **dict.fromkeys(("activation", "kernel_init"), _text),
    **dict.fromkeys(("actor_keys", "critic_keys"), _or_none(_many(_text))),
    **dict.fromkeys(("observation_space", "action_space", "encoder", "box_head", "discrete_head"), _config),
    "scale": lambda x: _config(x) and x["type"] == "policy_core/Scale",
    **dict.fromkeys(
        ("actor", "critic", "trunk", "memory", "normalize", "autoregressive", "value_head", "rest"),
        _or_none(_config),
    ),
    **dict.fromkeys(("param_dtype", "compute_dtype"), _one_of(*_FLOATS)),
    **dict.fromkeys(("Box.low", "Box.high"), lambda x: _real(x) or _many(_real)(x)),
    "Box.dtype": _one_of(*_FLOATS, *_INTEGERS),  # NumPy interprets names: it must know these alone
    "Dict.spaces": lambda x: _pairs(_text, _config)(x) and _ascending([name for name, _ in x]),
    "Tuple.spaces": _many(_config),
    "Discrete.start": _whole(-(2**31)),
    "MultiDiscrete.start": _many(_whole(-(2**31))),
    "shape": lambda x: _many(_whole(0))(x) and len(x) <= 16 and math.prod(x) < 2**60,
    "bins": _whole(2),
    "objectives": _or_none(_whole(1)),
    "std": _one_of("global", "state", "fixed"),
    "positive": _one_of("exp", "softplus", "identity"),
    "GSDEHead.positive": _one_of("exp", "expln"),
    "GSDEHead.log_std": _finite,
    "resample_every": _or_none(_whole(1)),
    "skip": _one_of("none", "concat"),
    "bounding": _one_of("clip", "tanh"),
    "form": _one_of("variance", "std"),
    "fill": _one_of("zeros", "first"),
    "padding": _one_of("VALID", "SAME"),
    "pool": _one_of("none", "max", "mean"),
    "encoder_sharing": _one_of("shared", "separate"),
    "CNN.size": _or_none(_whole(1)),
    "kernels": _many(_whole(1)),
    "strides": _or_none(_many(_whole(1))),
    "networks": _many(_config),
    "keys": _or_none(_many(_text)),
    "min_std": lambda x: _real(x) and 0 <= x < math.inf,
    "max_count": lambda x: _real(x) and x >= 1,
    "mean_bound": _or_none(lambda x: _real(x) and x > 0),
    "Scale.factor": _positive,
    **dict.fromkeys(("offset", "factor"), lambda x: all(map(_finite, x)) if type(x) is list else _finite(x)),
    "ActorCriticConfig.name": _text,
    "ActorCriticConfig.heads": _or_none(_config),
    "PartHeads.heads": _pairs(_name, _config),
    "memory_sharing": _one_of("shared", "separate", "actor"),
    "temperature": _or_none(_positive),
    "layers": _many(_config),
    "encoders": _pairs(_name, _config),
    **dict.fromkeys(("network", "config"), _config),
    "parents": _pairs(_name, _many(_name)),
    "masks": _pairs(_name, _text),
}


def _in_range(start: int, n: int) -> bool:
    return n < 2**31 and start + n <= 2**31


def _grid(fields: Fields) -> bool:
    return -1e38 <= fields["low"] < fields["high"] <= 1e38  # type: ignore[no-any-return]


# By the name of a class, what holds between its fields.
TOGETHER: dict[str, Callable[[Fields], bool]] = {
    "BetaHead": lambda x: 0 < x["low"] < x["high"] < math.inf,
    "Discrete": lambda x: _in_range(x["start"], x["n"]),
    "HLGaussHead": _grid,
    "MultiDiscrete": lambda x: (
        len(x["nvec"]) == len(x["start"]) == math.prod(x["shape"])
        and all(map(_in_range, x["start"], x["nvec"]))
    ),
    "CNN": lambda x: (
        len(x["kernels"]) == len(x["channels"]) > 0
        and (x["strides"] is None or len(x["strides"]) == len(x["channels"]))
    ),
    "NormalHead": lambda x: 0.0 not in (f if type(f := x.get("factor", 1.0)) is list else [f]),
    "Scale": lambda x: x["low"] <= x["log_std"] <= x["high"],
    "TwoHotHead": _grid,
}


def check_fields(config: Any, path: str = "config") -> None:
    """Raise ValueError for a field of a class of policy_core that holds what it cannot hold.

    Also for fields that acting does not need, so that a file is good here if it is good with JAX; but a
    `kernel_init` may be one that was registered where the policy was made.
    """
    if isinstance(config, list):
        for i, item in enumerate(config):
            if type(item) in (list, dict):
                check_fields(item, f"{path}[{i}]")
    if not isinstance(config, dict):
        return
    package, _, name = config["type"].partition("/")
    for field, value in config["fields"].items():
        check = CHECKS.get(f"{name}.{field}", CHECKS.get(field))
        if package == "policy_core" and check is not None and not check(value):
            raise ValueError(f"{path}.{field}: {str(value)[:60]!r} is not what {name} can hold")
        check_fields(value, f"{path}.{field}")
    together = TOGETHER.get(name)
    if package == "policy_core" and together is not None and not together(config["fields"]):
        raise ValueError(f"{path}: its fields are not what {name} can hold together")
