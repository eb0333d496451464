"""A critic that sees more than the actor, and the actor without it."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import config
from compiling import fresh
from policy_core_adapters import numpy_runner

import policy_core as pc
from policy_core.errors import ConfigError, StructureError

pytestmark = pytest.mark.usefixtures("unchecked")  # beartype doubles the time to trace

SPACE = pc.Dict(
    {
        "eye": pc.Box(low=0, high=255, shape=(4, 4, 1), dtype="uint8"),
        "pose": pc.Box(shape=(2,)),
        "truth": pc.Box(shape=(3,)),
    }
)
KEY = jax.random.key(0)
EYE = pc.Parts({"eye": pc.MinAtarCNN(filters=2, size=3)}, rest=pc.Flatten())


def made(**fields: Any) -> Any:
    return config(
        pc.Discrete(3), SPACE, encoder=EYE, normalize=pc.Normalize(), actor_keys=("pose", "eye"), **fields
    )


X = SPACE.sample(key=KEY)
LESS = {name: X[name] for name in ("eye", "pose")}


@pytest.mark.parametrize("memory", [None, pc.GRU(4)])
def test_the_actor_alone_acts_alike_and_nothing_of_the_critic_is_left(memory: Any) -> None:
    sharing = "shared" if memory is None else "separate"
    policy = fresh(made(memory=memory, memory_sharing=sharing, actor_gain=1.0), key=KEY)
    policy = pc.update_statistics(policy, jax.tree.map(lambda x: jnp.stack([x, x // 2]), X))
    actor = pc.from_bytes(pc.to_bytes(pc.actor_only(policy)))
    params, alone = actor
    assert set(params) == {"actor", "encoder", "normalize"}
    assert "truth" not in params["normalize"]
    assert alone.observation_space == pc.Dict({name: SPACE[name] for name in LESS})
    struct = jax.eval_shape(lambda: alone.init(key=KEY))
    assert jax.tree.map(jnp.shape, struct) == jax.tree.map(jnp.shape, params)
    states = pc.reset(policy), pc.reset(actor)
    for _ in range(2):
        states, distributions = zip(
            *(pc.action_distribution(*call) for call in ((policy, states[0], X), (actor, states[1], LESS))),
            strict=True,
        )
        np.testing.assert_allclose(distributions[0].probs, distributions[1].probs, rtol=1e-5)
    assert pc.act(actor, states[1], LESS)[1] == pc.act(policy, states[0], X)[1]


def test_the_actor_is_blind_to_what_it_has_no_key_for_and_the_critic_is_not() -> None:
    policy = fresh(made(), key=KEY)

    def outputs(x: Any) -> Any:
        _, distribution = pc.action_distribution(policy, (), x)
        return distribution.probs, pc.value(policy, (), x)[1]

    by_logits, by_value = jax.jit(jax.jacobian(lambda truth: outputs({**X, "truth": truth})))(X["truth"])
    assert not by_logits.any()
    assert by_value.any()
    less = fresh(config(pc.Discrete(3), SPACE, critic_keys=("pose",), encoder=EYE), key=KEY)
    assert set(less[0]["critic"]) == {"tower", "head"}
    assert set(less[0]["actor"]) == {"tower", "head", "encoder"}


def test_a_value_of_an_actor_alone_is_refused() -> None:
    policy = pc.actor_only(fresh(config(pc.Discrete(3)), key=KEY))
    x, message = jnp.ones(3), "policy: has no critic, so there is no value; use act"
    for call in (
        lambda: pc.value(policy, (), x),
        lambda: pc.action_and_value(policy, (), x, key=None),
        lambda: pc.action_and_value(policy, (), x, key=KEY),
        lambda: pc.evaluate_action(policy, (), x, 1),
        lambda: pc.evaluate_sequence(policy, (), x[None], jnp.array([1]), is_first=jnp.array([True])),
    ):
        with pytest.raises(StructureError, match=message):
            call()


def test_with_one_view_everything_but_the_critic_stays() -> None:
    policy = fresh(config(pc.Discrete(3), trunk=pc.MLP((4,)), memory=pc.GRU(4)), key=KEY)
    params, alone = pc.actor_only(policy)
    assert set(params) == {"actor", "trunk", "memory"}
    state = pc.reset((params, alone))
    assert pc.act((params, alone), state, jnp.ones(3))[1] == pc.act(policy, state, jnp.ones(3))[1]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"actor_keys": ("poise",)},
            r"actor_keys: got \('poise',\), .* there are \['eye', 'pose', 'truth'\]",
        ),
        ({"critic_keys": ("pose", "pose")}, "critic_keys: got .* each once"),
        ({"critic_keys": ()}, r"critic_keys: got \(\)"),
        ({"actor_keys": ("pose",), "trunk": pc.MLP()}, "actor_keys: .* cannot share a trunk or a memory"),
        ({"actor_keys": ("pose",), "memory": pc.GRU(2)}, "actor_keys: .* cannot share a trunk or a memory"),
        ({"critic": None, "critic_keys": ("pose",)}, "critic: None has no critic_keys"),
    ],
)
def test_keys_that_do_not_fit_are_refused(fields: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^ActorCriticConfig\.{message}"):
        config(pc.Discrete(3), SPACE, **fields)


def test_keys_need_a_dict() -> None:
    with pytest.raises(ConfigError, match=r"actor_keys: got \('a',\), expected names of a Dict observation"):
        config(pc.Discrete(3), actor_keys=("a",))


SHARED: dict[str, Any] = {"memory": pc.GRU(4), "memory_sharing": "shared"}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"trunk": pc.MLP((4,)), "temperature": 1.0, **SHARED},
        {"memory": pc.GRU(4), "memory_sharing": "separate"},
        {"memory": pc.GRU(4), "memory_sharing": "actor"},
        {"encoder_sharing": "separate", "normalize": pc.Normalize()},
        {"critic_keys": ("pose", "truth"), "normalize": pc.Normalize(), "encoder": pc.Parts({}, rest=pc.Flatten())},
        {"actor_keys": ("pose",), "memory": pc.LSTM(4), "memory_sharing": "separate"},
    ],
    ids=str,
)  # fmt: skip
def test_a_critic_by_itself_has_the_same_values(fields: Any) -> None:
    policy = fresh(config(pc.Discrete(3), SPACE, critic_gain=1.0, **{"encoder": EYE, **fields}), key=KEY)
    policy = pc.update_statistics(policy, jax.tree.map(lambda x: jnp.stack([x, x // 2]), X))
    data = pc.to_bytes(pc.surgery.critic_only(policy), self_test=False)
    critic = params, alone = pc.from_bytes(data)
    assert "actor" not in params
    assert "temperature" not in params
    struct = jax.eval_shape(lambda: alone.init(key=KEY))
    assert jax.tree.map(jnp.shape, struct) == jax.tree.map(jnp.shape, params)
    seen = {name: X[name] for name in alone.observation_space.struct()}
    assert set(seen) == set(fields.get("critic_keys", X))
    state, states = pc.reset(policy), pc.reset(critic)
    for _ in range(2):
        (state, expected), (states, got) = pc.value(policy, state, X), pc.value(critic, states, seen)
        np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_an_action_of_a_critic_alone_is_refused(tmp_path: Path) -> None:
    critic = pc.surgery.critic_only(fresh(config(pc.Discrete(3)), key=KEY))
    x, message = jnp.ones(3), "policy: has no actor, so there is no action; use value, or the policy that was"
    _, none = pc.action_distribution(critic, (), x)
    for call in (
        lambda: pc.act(critic, (), x),
        lambda: pc.act(critic, (), x, key=KEY),
        lambda: pc.action_and_value(critic, (), x, key=KEY),
        lambda: pc.evaluate_action(critic, (), x, 1),
        lambda: none.entropy(),
        lambda: none.kl(none),
        lambda: none.log_prob(1),
        lambda: none.sample_and_log_prob(seed=KEY),
    ):
        with pytest.raises(StructureError, match=message):
            call()
    with pytest.raises(pc.errors.FileError, match=f"self_test: {message}"):
        pc.to_bytes(critic)
    pc.save(tmp_path / "critic", critic, self_test=False)
    with pytest.raises(ValueError, match="actor: the policy has no actor, so it cannot act"):
        numpy_runner.load(tmp_path / "critic")


@pc.static
class Undivided:
    """A policy that says nothing of its parts."""

    config: pc.contract.ActorCritic

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in ("actor_only", "critic_only"):
            raise AttributeError(name)
        return getattr(self.config, name)


def test_a_critic_of_what_has_none_is_refused() -> None:
    policy = fresh(config(pc.Discrete(3)), key=KEY)
    for none, of in (("critic", pc.surgery.critic_only), ("actor", pc.actor_only)):
        other = pc.actor_only if none == "critic" else pc.surgery.critic_only
        with pytest.raises(StructureError, match=f"policy: has no {none} that could be kept"):
            of(other(policy))
    for fields in (
        {"critic": None},
        {"critic_keys": ("pose",)},
        {"memory": pc.GRU(2), "memory_sharing": "actor"},
    ):
        with pytest.raises(
            ConfigError, match=r"^ActorCriticConfig\.actor: None needs a critic, which has no keys"
        ):
            config(pc.Discrete(3), SPACE, actor=None, **fields)
    undivided = Undivided(config=policy[1])
    with pytest.raises(StructureError, match=r"config: .* does not implement CriticActorCritic"):
        pc.surgery.critic_only((policy[0], undivided))
    with pytest.raises(StructureError, match=r"config: .* does not implement CriticActorCritic"):
        pc.surgery.critic_only((policy[0], pc.env_actions.InEnvActions(undivided)))
    wrapped = pc.surgery.critic_only((policy[0], pc.env_actions.InEnvActions(policy[1])))
    assert wrapped[1] == pc.surgery.critic_only(policy)[1]
