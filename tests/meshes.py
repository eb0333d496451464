"""Meshes of devices, for tests that need several: on one GPU they are skipped."""

import math

import jax
import pytest
from jax.sharding import AxisType, Mesh


def mesh_of(kind: str, **axes: int) -> Mesh:
    """The first devices, as many as the axes have, all of one kind: "Auto" or "Explicit"."""
    count = math.prod(axes.values())
    if jax.default_backend() != "cpu" and len(jax.devices()) < count:  # CPUs have eight, by `conftest.py`
        pytest.skip(f"{count} devices are needed, and there are {len(jax.devices())}")
    return jax.make_mesh(tuple(axes.values()), tuple(axes), axis_types=(AxisType[kind],) * len(axes))
