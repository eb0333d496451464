"""What a first-time user writes, and what the error says to write instead."""

import collections
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policy_core as pc
from policy_core.errors import ConfigError, ConfigTypeError, StructureError

pytestmark = pytest.mark.usefixtures("unchecked")
KEY = jax.random.key(0)


def config(**fields: Any) -> Any:
    network = pc.MLP((4,))
    spaces = {"observation_space": pc.Box(shape=(4,)), "action_space": pc.Discrete(2)}
    return pc.ActorCriticConfig(**{**spaces, "actor": network, "critic": network, **fields})


class Discrete:
    """As gymnasium has it: attributes of an array, and the name of a space of ours."""

    shape, dtype, n = (), np.dtype("int64"), 2


IMAGE = {"low": 0, "high": 255, "dtype": "uint8"}
SPACES = "Box, policy_core.Dict, policy_core.Discrete, policy_core.MultiBinary, policy_core.MultiDiscrete, policy_core.Tuple"
WRONG: dict[str, tuple[Any, str]] = {
    "a space of gymnasium": (lambda: config(action_space=Discrete()), "expected Space; use policy_core.Discrete(...)"),
    "a number for a space": (lambda: config(action_space=3), f"got int 3, expected Space; use a config: policy_core.{SPACES}"),
    "a dict for a space": (lambda: config(action_space={"a": pc.Discrete(2)}), "use policy_core.Dict(...)"),
    "a name for a memory": (lambda: config(memory="gru"), "got str 'gru', expected policy_core.contract.Memory | None; use policy_core.GRU(...)"),
    "a class for a memory": (lambda: config(memory=pc.GRU), "got the class GRU, expected policy_core.contract.Memory | None; use policy_core.GRU(...)"),
    "a word for a head": (lambda: config(box_head="squashed"), "use a config: policy_core.BetaHead, policy_core.BinsHead"),
    "a class for a head": (lambda: config(box_head=pc.SquashedNormalHead), "use policy_core.SquashedNormalHead(...)"),
    "widths for a network": (lambda: config(actor=(64, 64)), "use a config: policy_core.MLP, policy_core.ResidualMLP, policy_core.networks.LayerNorm, policy_core.networks.Sequential, or one of your own"),
    "a number for a shape": (lambda: pc.Box(shape=4), "Box.shape: got int 4, expected tuple[int, ...]; use (4,)"),
    "a number for widths": (lambda: pc.MLP(8), "MLP.hidden: got int 8, expected tuple[int, ...]; use (8,)"),
    "positional bounds": (lambda: pc.Box(-1.0, 1.0, (2,)), "write Box(*, low=-inf, high=inf, shape=(), dtype='float32')"),
    "keywords for parts": (lambda: pc.Dict(a=pc.Discrete(2)), "write Dict(spaces)"),
    "another name": (lambda: pc.GRU(hidden=8), "write GRU(size, *, layer_norm=False, learned_start=False)"),
    "a dtype of jax": (lambda: pc.Box(dtype=jnp.float32), "; use 'float32'"),
    "a dtype of NumPy": (lambda: pc.Box(dtype=np.dtype("uint8")), "; use 'uint8'"),
    "an array of bounds": (lambda: pc.Box(low=np.zeros(2), shape=(2,)), "use a tuple of Python numbers"),
    "a pair for a config": (lambda: pc.fingerprint(pc.init(config(), key=KEY)), "config: got tuple, expected a config; use policy[1]"),
    "pairs for configs": (lambda: pc.diff(*[pc.init(config(), key=KEY)] * 2), "config: got tuple, expected a config; use policy[1]"),
    "a grey image": (lambda: config(observation_space=pc.Box(**IMAGE, shape=(84, 84))), "if it is an image, give three axes"),
    "a stack of images": (lambda: config(observation_space=pc.Box(**IMAGE, shape=(4, 84, 84, 3))), "give encoder=Flatten()"),
    "nothing to squash into": (
        lambda: config(action_space=pc.Box(shape=(2,)), box_head=pc.SquashedNormalHead()),
        "action_space: got a Box without bounds, which nothing can be squashed into; give it low and high, or use NormalHead()",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_the_error_says_what_to_write(name):
    build, message = WRONG[name]
    with pytest.raises(ConfigError) as error:
        build()
    assert message in str(error.value)


def test_an_unknown_argument_is_a_type_error_too():
    for build in (lambda: pc.GRU(hidden=8), lambda: pc.GRU(), lambda: pc.Scale("global")):
        with pytest.raises(ConfigTypeError) as error:
            build()
        assert isinstance(error.value, TypeError)


def test_what_may_be_an_image_is_taken_as_it_is_told():
    board = pc.Box(low=0, high=2, shape=(8, 8), dtype="uint8")
    assert config(observation_space=board, encoder=pc.Flatten()).encoder == pc.Flatten()
    assert config(observation_space=pc.Box(**IMAGE, shape=(3, 3))).encoder == pc.Flatten()


class Pose(NamedTuple):
    x: Any
    y: Any


ONE = jnp.ones(())
DICT, TUPLE = pc.Dict({"x": pc.Box(), "y": pc.Box()}), pc.Tuple((pc.Box(), pc.Box()))
CONTAINERS: list[tuple[Any, Any, str]] = [
    (DICT, collections.OrderedDict(y=ONE, x=ONE), "observation: got OrderedDict, expected a dict; use dict(observation)"),
    (DICT, Pose(ONE, ONE), "observation: got Pose, expected a dict; use observation._asdict()"),
    (TUPLE, Pose(ONE, ONE), "observation: got Pose, expected a tuple; use tuple(observation)"),
    (TUPLE, [ONE, ONE], "observation: got list, expected a tuple; use tuple(observation)"),
    (pc.Box(shape=(2,)), [1.0, 2.0], "observation: got list, expected an array float32(2,); use jnp.array(observation)"),
    (pc.Box(shape=(2,)), np.ones(2, bool), "observation: got dtype bool, expected float32; convert it with .astype"),
]  # fmt: skip


@pytest.mark.parametrize(("space", "observation", "message"), CONTAINERS)
def test_an_observation_in_another_container_is_refused_with_the_fix(space, observation, message):
    with pytest.raises(StructureError) as error:
        pc.act(pc.init(config(observation_space=space), key=KEY), (), observation)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("state", [None, (), jnp.zeros(4)], ids=str)
def test_a_wrong_state_is_refused_with_where_the_first_one_is_from(state):
    policy = pc.init(config(memory=pc.GRU(4)), key=KEY)
    with pytest.raises(StructureError, match=r"^state.*; the initial state is policy_core\.reset\(policy\)"):
        pc.act(policy, state, jnp.ones(4))


def test_the_name_of_a_policy_is_in_its_summary_and_in_its_fingerprint():
    assert config().name == "ActorCriticConfig"
    walker = config(name="walker")
    assert pc.fingerprint(walker) != pc.fingerprint(config())
    assert pc.diff(config(), walker) == [("name", "'ActorCriticConfig'", "'walker'")]
    policies = jax.vmap(jax.vmap(lambda key: pc.init(walker, key=key)))(jax.random.split(KEY, (2, 3)))
    lines = pc.summary(policies).splitlines()
    assert lines[0] == "walker: 55 parameters, in each of 2 x 3 members"
    assert lines[2].split() == ["actor/head/kernel", "float32", "(4,", "2)", "8"]
    assert len(lines) == 1 + len(jax.tree.leaves(policies))


def test_the_batch_shape_is_that_of_every_leaf():
    init = lambda key: pc.init(config(), key=key)
    assert pc.batch_shape(init(KEY)) == ()
    assert pc.batch_shape(jax.vmap(init)(jax.random.split(KEY, 5))) == (5,)
    params, same = jax.vmap(init)(jax.random.split(KEY, 5))
    with pytest.raises(StructureError, match=r"has the leading axes \(\), expected \(5,\)"):
        pc.batch_shape(({**params, "critic": init(KEY)[0]["critic"]}, same))
