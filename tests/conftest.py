"""Strictness for every test: dtype and rank promotion, warnings, eight host devices."""

import gc
import os
import subprocess
import sys
from collections.abc import Iterator

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # JAX reads it when it is imported, XLA_FLAGS at its first use
import hypothesis
import jax
import jaxtyping
import pytest

# Compiling is most of the time of this suite, and the optimisations of LLVM are half of that. XLA's
# own stay; `tests/test_distributions.py` measures its figures with everything on.
FLAGS = ["--xla_force_host_platform_device_count=8", "--xla_backend_optimization_level=0"]
# The emitters of fusions on CPUs are a large part of compiling, too, and so is splitting the code of a
# program for cores that tests which run side by side do not have.
MORE_FLAGS = ["--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1"]


def _known(flags: list[str]) -> list[str]:
    """The flags that XLA accepts: one that it does not know ends the process, so another one asks."""
    env = {**os.environ, "XLA_FLAGS": " ".join(flags)}
    script = "import jax; jax.devices()"
    done = subprocess.run(
        [sys.executable, "-c", script], env=env, capture_output=True, text=True, check=False
    )
    return [flag for flag in flags if flag not in done.stderr] if done.returncode else flags


if "XLA_FLAGS" not in os.environ:  # the workers of xdist have those of the process that started them
    os.environ["XLA_FLAGS"] = " ".join(FLAGS + _known(MORE_FLAGS))

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

hypothesis.settings.register_profile(
    "lean",
    deadline=None,
    max_examples=25,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],  # `unchecked` has no state
)
hypothesis.settings.load_profile("lean")


def pytest_collection_finish() -> None:
    """What is there by now stays, and tracing makes many objects: the collector need not look so often."""
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


@pytest.fixture
def key() -> jax.Array:
    return jax.random.key(0)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Without beartype, as users run: our own errors are what they meet."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def lenient() -> Iterator[None]:
    """For other people's code: gymnax and optax mix dtypes and ranks."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
