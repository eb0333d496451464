"""What a target keeps of the file besides the graph: as text, so that a runtime reads it by JSON alone."""

import base64
import io
import json
import math
from typing import Any

import numpy as np

from policy_core_adapters.exports.lowering import Lowered
from policy_core_adapters.exports.lowering.context import under
from policy_core_adapters.exports.lowering.observations import dtype_of
from policy_core_adapters.numpy_runner.networks import Array
from policy_core_adapters.numpy_runner.spaces import Box, kind_of, parts_of

_LARGEST = 2**20  # bytes of a self-test that is kept


def metadata_of(lowered: Lowered) -> dict[str, str]:
    """Key to text.

    `policy_core.format`           "1", the version of these keys
    `policy_core.fingerprint`      of the config in the file, in hexadecimal digits
    `policy_core.observation_space`, `policy_core.action_space`  as in the config, JSON
    `policy_core.action_bounds`    path to `{"low": ..., "high": ...}` of each box of the action, JSON
    `policy_core.state`            name of an input to its value at the start of an episode, JSON
    `policy_core.noise`            name of an input to "uniform" or "normal", JSON
    `policy_core.masks`            path of a part of the action to "rows" or "joint", JSON
    `policy_core.self_test`        the self-test of the file, npz in base64, if it has one of at most 1 MiB
    """
    fields = inner_of(lowered.config)["fields"]
    data = {
        "format": "1",
        "fingerprint": lowered.fingerprint,
        "observation_space": json.dumps(fields["observation_space"]),
        "action_space": json.dumps(fields["action_space"]),
        "action_bounds": json.dumps(bounds_of(fields["action_space"], "action")),
        "state": json.dumps({name: start.tolist() for name, start in lowered.initial.items()}),
        "noise": json.dumps(lowered.noise),
        "masks": json.dumps(lowered.masks),
    }
    if lowered.self_test and sum(x.nbytes for x in lowered.self_test.values()) <= _LARGEST:
        data["self_test"] = packed(lowered.self_test)
    return {f"policy_core.{key}": text for key, text in data.items()}


def inner_of(config: Any) -> Any:
    """The config with the spaces: that within `InEnvActions`."""
    while "config" in config["fields"]:
        config = config["fields"]["config"]
    return config


def bounds_of(space: Any, path: str) -> dict[str, dict[str, Any]]:
    """The bounds of each box, in the dtype of the space; infinite ones as None, for JSON has none."""
    kind = kind_of(space)
    if kind in ("Dict", "Tuple"):
        return {
            name: ends
            for key, part in parts_of(space).items()
            for name, ends in bounds_of(part, under(path, str(key))).items()
        }
    if kind != "Box":
        return {}
    dtype_of(space)
    box = Box(space, np.float32)
    return {path: {"low": _finite(box.low.tolist()), "high": _finite(box.high.tolist())}}


def _finite(x: Any) -> Any:
    if isinstance(x, list):
        return [_finite(item) for item in x]
    return x if math.isfinite(x) else None


def packed(arrays: dict[str, Array]) -> str:
    """Arrays as npz in base64."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return base64.b64encode(buffer.getvalue()).decode()


def unpacked(text: str) -> dict[str, Array]:
    """The arrays of `packed`."""
    with np.load(io.BytesIO(base64.b64decode(text)), allow_pickle=False) as arrays:
        return dict(arrays)
