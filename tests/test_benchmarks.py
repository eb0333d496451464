"""What the benchmarks and the examples share: tables, sections of a page, networks of other libraries."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policy_core as pc
from benchmarks.defaults import settings
from benchmarks.table import section

PAGE = "# Page\n\nfirst\n\n## One\n\nof one\n\n### Deeper\n\nmore\n\n## Two\n\nof two\n"


def test_a_section_ends_at_the_next_heading_of_its_level():
    assert section(PAGE, "One") == "\n## One\n\nof one\n\n### Deeper\n\nmore\n"
    assert section(PAGE, "Two") == "\n## Two\n\nof two\n"
    assert section(PAGE, "Deeper") == section(PAGE, "Tw") == ""
    assert PAGE.replace(section(PAGE, "One"), "") == "# Page\n\nfirst\n\n## Two\n\nof two\n"


def test_params_as_of_equinox_are_uniform_and_nothing_else_is_redrawn():
    config = pc.ActorCriticConfig(
        observation_space=pc.Box(shape=(4,)),
        action_space=pc.Box(low=-1.0, high=1.0, shape=(2,)),
        normalize=pc.Normalize(),
        **settings.NETWORKS[settings.LERAX_OWN],
    )
    before = config.init(key=jax.random.key(0))
    after = settings.as_equinox(before, jax.random.key(1))
    assert jax.tree.structure(before) == jax.tree.structure(after)
    checked = 0
    for (path, old), new in zip(jax.tree.leaves_with_path(before), jax.tree.leaves(after), strict=True):
        name = path[-1].key
        if name not in ("kernel", "bias"):
            np.testing.assert_array_equal(old, new)
            continue
        layer = before
        for key in path[:-1]:
            layer = layer[key.key]
        bound = 1 / math.sqrt(layer["kernel"].shape[0])
        assert float(jnp.abs(new).max()) <= bound
        if new.size >= 64:
            assert float(jnp.std(new)) == pytest.approx(bound / math.sqrt(3), rel=0.2)
        checked += 1
    assert checked == 2 * (3 + 3 + 3)
