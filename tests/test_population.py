"""`policy_core.population`: members in and out of populations, selection, leaves by path, and what is refused."""

import re
from typing import Any

import cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from meshes import mesh_of

import policy_core as pc
from policy_core import population
from policy_core.errors import MemberError, StructureError

pytestmark = pytest.mark.usefixtures("unchecked")  # our own errors are what users meet

KEY = jax.random.key(0)
N = 5


def shapes(config: Any, *axes: int) -> Any:
    policy = jax.eval_shape(lambda: pc.init(config, key=KEY))
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((*axes, *leaf.shape), leaf.dtype), policy)


def numbers(config: Any, *axes: int, seed: int = 0) -> Any:
    """A policy or a population of NumPy arrays, without a program to compile."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype), shapes(config, *axes))


def on_device(tree: Any) -> Any:
    return jax.tree.map(jnp.asarray, tree)


def entry(tree: Any, i: Any) -> Any:
    return jax.tree.map(lambda leaf: np.asarray(leaf)[i], tree)


def assert_same(got: Any, expected: Any) -> None:
    """The same structure, dtypes and bits."""
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def is_numpy(tree: Any) -> bool:
    return all(type(leaf) is np.ndarray for leaf in jax.tree.leaves(tree))


CONFIG = cases.config(pc.Discrete(3), normalize=pc.Normalize(), temperature=1.0)
OTHER = cases.config(
    pc.Discrete(3), normalize=pc.Normalize(), temperature=1.0, actor=pc.MLP((8,), activation="relu")
)
HOST = numbers(CONFIG, N)
POPULATION = on_device(HOST)
KINDS = {"NumPy": HOST, "JAX": POPULATION}


@pytest.fixture(params=KINDS)
def pop(request: Any) -> Any:
    return KINDS[request.param]


# --- Every config ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", cases.CONFIGS)
def test_members_of_a_stack_are_the_policies_to_the_bit(name: str) -> None:
    config = cases.CONFIGS[name]
    policies = [numbers(config, seed=seed) for seed in range(3)]
    stacked = population.stack(policies)
    assert population.size(stacked) == (3,)
    population.check(stacked)
    for i, policy in enumerate(policies):
        assert_same(population.member(stacked, i), policy)
        assert_same(population.unstack(stacked)[i], policy)
    assert_same(population.take(stacked, [2, 0]), population.stack([policies[2], policies[0]]))
    assert_same(population.replace(stacked, 1, policies[2]), population.take(stacked, [0, 2, 2]))
    assert_same(population.set_leaves(stacked, population.get_leaves(stacked)), stacked)


INITIALIZED = ("act discrete", "two memories", "parts", "bfloat16 params")


@pytest.mark.parametrize("name", INITIALIZED)
def test_a_member_is_the_same_whatever_the_number_of_members(name: str) -> None:
    config = cases.CONFIGS[name]
    few, many = (population.init(config, n, key=KEY) for n in (3, 8))
    assert population.size(many) == (8,)
    alone = pc.init(config, key=jax.random.fold_in(KEY, 2))
    for few_leaf, many_leaf, one in zip(*map(jax.tree.leaves, (few, many, alone)), strict=True):
        few_leaf, many_leaf, one = (np.asarray(x).astype(np.float64) for x in (few_leaf, many_leaf, one))
        rounding = {"rtol": 0, "atol": 1e-2 if name in cases.LOW_PRECISION else 1e-6}
        np.testing.assert_allclose(few_leaf, many_leaf[:3], **rounding)
        np.testing.assert_allclose(one, many_leaf[2], **rounding)


@pc.static
class Drawn:
    """A policy whose params are the bits of its key."""

    observation_space = pc.Box(shape=(1,))
    action_space = pc.Discrete(2)

    def init(self, *, key: Any) -> Any:
        return {"bits": jax.random.bits(key, (2,)), "key": key}

    def initial_state(self, params: Any, *, key: Any = None) -> Any:
        return ()

    def forward(self, params: Any, state: Any, observation: Any, *, action_mask: Any = None) -> Any:
        raise NotImplementedError

    def env_action(self, action: Any) -> Any:
        return action

    def policy_action(self, env_action: Any) -> Any:
        return env_action


@pytest.mark.parametrize("key", [KEY, jax.random.PRNGKey(0)], ids=["typed", "raw"])
def test_the_key_of_a_member_does_not_depend_on_the_others(key: Any) -> None:
    (few, _), (many, _) = (population.init(Drawn(), n, key=key) for n in (3, 8))
    assert_same(few["bits"], many["bits"][:3])
    data = lambda key: key if key.dtype == jnp.uint32 else jax.random.key_data(key)
    assert_same(data(few["key"]), data(many["key"])[:3])
    assert_same(data(many["key"][5]), data(jax.random.fold_in(key, 5)))
    assert len({bits.tobytes() for bits in np.asarray(many["bits"])}) == 8


CALLS: dict[str, Any] = {
    "reset": lambda policy, observation, action: pc.reset(policy),
    "act": lambda policy, observation, action: pc.act(policy, (), observation),
    "action_and_value": lambda policy, observation, action: pc.action_and_value(
        policy, (), observation, key=KEY
    ),
    "evaluate_action": lambda policy, observation, action: pc.evaluate_action(
        policy, (), observation, action
    ),
    "value": lambda policy, observation, action: pc.value(policy, (), observation),
    "action_distribution": lambda policy, observation, action: pc.action_distribution(
        policy, (), observation
    ),
    "forward": lambda policy, observation, action: pc.forward(policy, (), observation),
    "update_statistics": lambda policy, observation, action: pc.update_statistics(policy, observation),
    "evaluate_sequence": lambda policy, observation, action: pc.evaluate_sequence(
        policy, (), *in_time((observation, action)), is_first=jnp.zeros(1, bool)
    ),
    "forward_sequence": lambda policy, observation, action: pc.forward_sequence(
        policy, (), in_time(observation), is_first=jnp.zeros(1, bool)
    ),
}


def in_time(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[None], tree)


@pytest.mark.parametrize("name", cases.CONFIGS)
def test_every_function_that_needs_one_policy_says_how_to_get_one(name: str) -> None:
    config = cases.CONFIGS[name]
    observation = jax.eval_shape(lambda: config.observation_space.sample(key=KEY))
    action = jax.eval_shape(lambda: config._policy_space.sample(key=KEY))
    # One member, whose leaves could be broadcast, by every function; other numbers, some of them those of the
    # observations' axes, by one, for all functions check the params alike.
    for n, calls in ((1, CALLS), (2, ["act"]), (3, ["act"])):
        for call in calls:
            with pytest.raises(StructureError) as error:
                jax.eval_shape(CALLS[call], shapes(config, n), observation, action)
            assert f"a population of ({n},): use jax.vmap over it, or take one with " in str(error.value)
            assert str(error.value).endswith("policy_core.population.member")


def test_no_function_of_one_policy_is_left_out() -> None:
    """The table of docs/functions.md: those that are mapped, or have nothing to do with one policy."""
    as_it_is = {
        "actor_only", "added", "batch_shape", "diff", "env_action", "fingerprint", "from_bytes", "init",
        "inspect", "load", "load_extra", "policy_action", "save", "static", "summary", "to_bytes",
        "trainable", "transplant", "verify",
    }  # fmt: skip
    functions = {name for name in pc.__all__ if name[0].islower()}
    assert functions - as_it_is == set(CALLS)


# --- Members -----------------------------------------------------------------------------------


def test_a_member_is_an_entry_of_every_leaf(pop: Any) -> None:
    for i in (0, 3, -1, np.int64(2), jnp.array(4)):
        one = population.member(pop, i)
        assert_same(one, entry(HOST, int(i)))
        assert population.size(one) == ()
        assert is_numpy(one) == (pop is HOST)
    jitted = jax.jit(population.member)
    for i in (0, 3, -1):
        assert_same(jitted(pop, i), entry(HOST, i))
    assert_same(jax.vmap(population.member, (None, 0))(pop, jnp.array([2, 0])), entry(HOST, [2, 0]))


def test_a_member_of_numpy_is_a_copy() -> None:
    one = population.member(HOST, 1)
    for leaf in jax.tree.leaves(one):
        leaf[...] = 99
    assert_same(HOST, numbers(CONFIG, N))


@pytest.mark.parametrize("i", [N, -N - 1, 10**12])
@pytest.mark.parametrize("error", [IndexError, MemberError, StructureError, ValueError])
def test_a_member_that_is_not_there_is_an_index_error(i: int, error: Any, pop: Any) -> None:
    text = re.escape(f"i: got {i}, out of range of 5 members; expected -5 to 4")
    with pytest.raises(error, match=text):
        population.member(pop, i)
    with pytest.raises(error, match=text):
        population.replace(pop, i, entry(HOST, 0))


def test_a_traced_index_out_of_range_gives_nan_and_replaces_nothing() -> None:
    params, _ = jax.jit(population.member)(POPULATION, N)
    assert all(bool(jnp.isnan(leaf).all()) for leaf in jax.tree.leaves(params))
    one = on_device(entry(HOST, 0))
    assert_same(jax.jit(population.replace)(POPULATION, N, one), POPULATION)
    assert_same(jax.jit(population.replace)(POPULATION, -1, one), population.replace(POPULATION, 4, one))


@pytest.mark.parametrize(
    ("i", "got"),
    [
        (1.0, "float32()"),
        (None, "NoneType"),
        (np.array([1, 2]), "int"),
        ("1", "str"),
        (slice(2), "slice"),
        (KEY, "key<fry>()"),
    ],
)
def test_an_index_that_is_no_integer_is_refused(i: Any, got: str) -> None:
    with pytest.raises(StructureError, match="^" + re.escape(f"i: got {got}")):
        population.member(HOST, i)


def test_a_traced_index_that_is_no_integer_is_refused() -> None:
    for i in (jnp.array(1.0), jnp.array([1, 2])):
        with pytest.raises(StructureError, match=r"^i: got .*expected an integer"):
            jax.eval_shape(population.member, POPULATION, i)


def test_all_members_take_one_compilation() -> None:
    pop = on_device(numbers(cases.CONFIGS["gru"], 7))
    population.member(pop, 0)
    population.replace(pop, 0, population.member(pop, 0))
    population.take(pop, jnp.arange(7))
    rolled = [jnp.asarray(np.roll(np.arange(7), i)) for i in range(7)]
    with compilations() as count:
        for i in range(1, 7):
            one = population.member(pop, i)
            population.replace(pop, i, one)
            population.take(pop, rolled[i])
            population.take(pop, list(range(i, 7)) + [0] * i)
    assert count == []


class compilations:  # noqa: N801
    """The names of the programs that are compiled in a `with`."""

    def __enter__(self) -> list[str]:
        self.names: list[str] = []
        self.open = True

        def heard(event: str, seconds: float, **attributes: Any) -> None:
            if self.open and event.endswith("backend_compile_duration"):
                self.names.append(str(attributes.get("fun_name", "?")))

        jax.monitoring.register_event_duration_secs_listener(heard)
        return self.names

    def __exit__(self, *_: Any) -> None:
        self.open = False


def test_replaced_members_are_there_and_the_others_are_as_they_were(pop: Any) -> None:
    one = numbers(CONFIG, seed=1)
    for policy in (one, on_device(one)):
        replaced = population.replace(pop, 3, policy)
        assert_same(population.member(replaced, 3), one)
        others = [0, 1, 2, 4]
        assert_same(population.take(replaced, others), entry(HOST, others))
        assert is_numpy(replaced) == (pop is HOST and policy is one)
    assert_same(HOST, numbers(CONFIG, N))  # nothing was written into it


def test_what_is_no_member_is_not_put_in() -> None:
    with pytest.raises(StructureError, match=r"^policy: has another config than pop\n  field") as error:
        population.replace(HOST, 0, numbers(OTHER))
    assert re.search(r"actor\.activation +'relu' +'tanh'$", str(error.value))
    params, _ = numbers(CONFIG)
    wide = jax.tree.map(lambda leaf: leaf.astype(np.float64), params)
    message = r"^policy: the leaf 'actor/head/bias' is float.*\(3,\), expected float32\(3,\)"
    with jax.enable_x64(True), pytest.raises(StructureError, match=message):
        population.replace(HOST, 0, (wide, CONFIG))
    with pytest.raises(StructureError, match=r"'actor/head/bias' is float32\(5, 3\), expected float32\(3,\)"):
        population.replace(HOST, 0, HOST)


def test_several_axes_are_populations_of_populations() -> None:
    pop = numbers(CONFIG, 2, 3)
    assert population.size(pop) == (2, 3) == pc.batch_shape(pop)
    row = population.member(pop, 1)
    assert population.size(row) == (3,)
    assert_same(population.member(row, 2), entry(entry(pop, 1), 2))
    assert_same(population.stack(population.unstack(pop)), pop)
    assert_same(population.replace(pop, 0, row), population.take(pop, [1, 1]))
    islands = jax.vmap(population.take)(on_device(pop), jnp.array([[2, 1, 0], [0, 0, 0]]))
    assert_same(population.member(islands, 0), entry(entry(pop, 0), [2, 1, 0]))
    assert_same(population.member(islands, 1), entry(entry(pop, 1), [0, 0, 0]))


def test_an_empty_population_has_no_members() -> None:
    pop = numbers(CONFIG, 0)
    assert population.size(pop) == (0,)
    assert population.unstack(pop) == []
    assert_same(population.take(pop, []), pop)
    with pytest.raises(MemberError, match="i: got 0, out of range of 0 members; there are none"):
        population.member(pop, 0)


def test_one_policy_is_no_population() -> None:
    one = numbers(CONFIG)
    calls = [population.check, population.unstack, lambda x: population.member(x, 0)]
    for call in (*calls, lambda x: population.replace(x, 0, x)):
        with pytest.raises(StructureError, match=r"^pop: got one policy, expected a population, whose"):
            call(one)
    assert population.size(population.stack([one])) == (1,)


def test_the_first_leaf_with_other_leading_axes_is_named() -> None:
    params, _ = HOST
    for critic, axes in (
        (numbers(CONFIG, 4), "(4,)"),
        (numbers(CONFIG), "()"),
        (numbers(CONFIG, 5, 1), "(5, 1)"),
    ):
        mixed = {**params, "critic": {**params["critic"], "tower": critic[0]["critic"]["tower"]}}
        first = "params['critic']['tower']['hidden_0']['bias']: has the leading axes "
        text = first + axes + ", expected (5,), as params['actor']['head']['bias'] has"
        calls = [population.check, population.size, population.unstack, lambda x: population.member(x, 0)]
        for call in (*calls, lambda x: population.stack([x]), pc.batch_shape, pc.summary, pc.reset):
            with pytest.raises(StructureError, match="^" + re.escape(text)):
                call((mixed, CONFIG))


def test_params_of_another_config_are_no_population_of_it() -> None:
    for call in (population.size, population.check, lambda pair: population.stack([pair])):
        with pytest.raises(StructureError, match="another config"):
            call((numbers(cases.CONFIGS["gru"], 3)[0], CONFIG))
        with pytest.raises(StructureError, match=r"expected the pair \(params, config\)"):
            call(HOST[0])


@pc.static
class Unchecked:
    """A policy of which nobody knows the shapes."""

    params_unchecked = True
    observation_space, action_space = Drawn.observation_space, Drawn.action_space
    init, initial_state, forward = Drawn.init, Drawn.initial_state, Drawn.forward
    env_action, policy_action = Drawn.env_action, Drawn.policy_action


def test_a_config_without_checks_has_the_first_axis_that_all_leaves_share() -> None:
    pop = {"a": np.zeros((3, 3)), "b": np.arange(3)}, Unchecked()
    assert population.size(pop) == (3,)
    assert population.member(pop, 2)[0]["b"] == 2
    assert population.size(({"a": np.zeros((3, 3)), "b": np.arange(2)}, Unchecked())) == ()


# --- Stacks ------------------------------------------------------------------------------------


def test_policies_of_two_configs_are_not_stacked() -> None:
    with pytest.raises(
        StructureError, match=r"^policies\[1\]: has another config than policies\[0\]\n"
    ) as error:
        population.stack([numbers(CONFIG), numbers(OTHER)])
    rows = [line.split() for line in str(error.value).splitlines()[1:]]
    assert rows == [["field", "policies[1]", "policies[0]"], ["actor.activation", "'relu'", "'tanh'"]]


def test_a_stack_mixes_neither_dtypes_nor_shapes_and_needs_a_policy() -> None:
    params, _ = numbers(CONFIG)
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    with pytest.raises(StructureError, match=r"^policies\[1\]: the leaf 'actor/head/bias' is bfloat16\(3,\)"):
        population.stack([(params, CONFIG), (half, CONFIG)])
    with pytest.raises(
        StructureError, match=r"^policies\[1\]: .* is float32\(5, 3\), expected float32\(3,\)"
    ):
        population.stack([(params, CONFIG), HOST])
    with pytest.raises(StructureError, match=r"^policies: got none"):
        population.stack([])


def test_a_stack_is_of_numpy_only_if_all_are() -> None:
    one = numbers(CONFIG)
    assert is_numpy(population.stack([one, one]))
    mixed = population.stack([one, on_device(one)])
    assert not is_numpy(mixed)
    assert_same(mixed, population.stack([one, one]))
    assert_same(jax.jit(lambda *x: population.stack(x))(one, one), mixed)


def test_gradients_go_through_stack_member_take_and_replace() -> None:
    def total(one: Any) -> Any:
        pop = population.stack([one, one])
        pop = population.replace(pop, 0, jax.tree.map(lambda leaf: 2 * leaf, one))
        picked = population.take(pop, jnp.array([0, 0, 1]))  # 2 + 2 + 1
        both = picked, population.member(picked, 1)  # and 2
        return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(both))

    gradient = jax.jit(jax.grad(total))(on_device(numbers(CONFIG)))
    assert all(bool((leaf == 7).all()) for leaf in jax.tree.leaves(gradient))


# --- Init --------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, -1, 2.0, None, True])
def test_a_population_has_at_least_one_member(n: Any) -> None:
    with pytest.raises(StructureError, match=r"^n: got .*, expected an int >= 1"):
        population.init(CONFIG, n, key=KEY)


def test_init_checks_key_and_config_and_is_compiled_once() -> None:
    with pytest.raises(StructureError, match=r"^key: got keys of shape"):
        population.init(CONFIG, 2, key=jax.random.split(KEY, 2))
    with pytest.raises(StructureError, match=r"^config: got MLP"):
        population.init(pc.MLP(), 2, key=KEY)
    by_member = population.sharding(mesh_of("Explicit", population=2))
    calls = [
        lambda key: population.init(Drawn(), 4, key=key, out_shardings=where) for where in (None, by_member)
    ]
    for call in calls:
        call(KEY)
        with compilations() as count:
            call(jax.random.key(1))
        assert [name for name in count if "made" in name] == []
    rows = jax.vmap(lambda key: population.init(Drawn(), 3, key=key))(jax.random.split(KEY, 2))
    assert population.size(rows) == (2, 3)


# --- Take and exploit --------------------------------------------------------------------------


def runner() -> Any:
    """All that a trainer has by member."""
    keys = jax.random.split(KEY, N)
    optimizer = {"count": jnp.arange(N), "mu": jnp.arange(10.0).reshape(N, 2), "none": None}
    return POPULATION, optimizer, np.linspace(0, 1, N), keys, (jnp.zeros((N, 0)),)


def test_take_is_an_index_into_every_leaf_of_any_tree() -> None:
    tree, source = runner(), [4, 0, 0, -1, 2]
    for given in (source, tuple(source), np.array(source, np.int8), jnp.array(source)):
        taken = population.take(tree, given)
        assert jax.tree.structure(taken) == jax.tree.structure(tree)
        for got, leaf in zip(jax.tree.leaves(taken), jax.tree.leaves(tree), strict=True):
            assert got.dtype == leaf.dtype
            assert bool(jnp.array_equal(got, leaf[np.array(source)]))
        assert type(taken[2]) is np.ndarray
    jitted = jax.jit(population.take)(tree, jnp.array(source))
    assert_same(jitted[0], entry(HOST, source))
    assert population.take(tree, np.array([], int))[1]["count"].shape == (0,)


def test_traced_members_that_are_not_there_are_nan() -> None:
    taken = jax.jit(population.take)(
        {"x": jnp.ones((2, 3)), "k": jax.random.split(KEY, 2)}, jnp.array([1, 2])
    )
    assert np.isnan(np.asarray(taken["x"])).tolist() == [[False] * 3, [True] * 3]


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ([0, N], "source: got 5, out of range of 5 members; expected -5 to 4"),
        (jnp.array([-6, 0]), "source: got -6, out of range of 5 members"),
        ([0.0], "source: got float64(1,), expected integers (k,)"),
        (2, "source: got int64(), expected integers (k,)"),
        ([[0]], "source: got int64(1, 1), expected integers (k,)"),
        (jnp.array([True] * N), "source: got bool(5,), expected integers (k,)"),
        ([[0], [1, 2]], "source: got no array"),
    ],
)  # fmt: skip
def test_a_source_that_is_none_is_refused(source: Any, text: str) -> None:
    with pytest.raises(StructureError, match="^" + re.escape(text)) as error:
        population.take(POPULATION, source)
    assert isinstance(error.value, IndexError) == ("out of range" in text)


@pytest.mark.parametrize(
    ("tree", "text"),
    [
        ({"a": jnp.zeros(3), "n": jnp.zeros((), int)}, "tree['n']: got int32(), expected a leading axis"),
        ({"a": jnp.zeros(3), "n": 3}, "tree['n']: got int32(), expected a leading axis"),
        ((jnp.zeros(3), jnp.zeros((4, 3))), "tree[1]: got 4 members, expected 3, as tree[0] has"),
        ({"a": "text"}, "tree['a']: got str, expected a leading axis"),
        ({"a": None}, "tree: has no leaves"),
    ],
)
def test_a_tree_without_the_axis_is_refused_by_path(tree: Any, text: str) -> None:
    with pytest.raises(StructureError, match="^" + re.escape(text)):
        population.take(tree, [0])


def test_the_state_of_an_optimizer_is_taken_if_it_was_mapped(lenient: None) -> None:
    import optax

    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))
    with pytest.raises(
        StructureError, match=r"\.count: got int32\(\), .* such as jax\.vmap\(optimizer\.init\)"
    ):
        population.take(optimizer.init(POPULATION), [0])
    state = jax.vmap(optimizer.init)(POPULATION)
    moved = jax.tree.map(lambda leaf: leaf + jnp.arange(N).reshape(N, *[1] * (leaf.ndim - 1)), state)
    assert population.take(moved, [3, 1])[1][0].count.tolist() == [3, 1]


def test_what_is_donated_is_gone_and_taken_right() -> None:
    pop = on_device(numbers(CONFIG, N))
    taken = population.take(pop, jnp.array([1, 0, 2, 3, 3]), donate=True)
    assert_same(taken, entry(HOST, [1, 0, 2, 3, 3]))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(pop))
    kept = population.take(taken, [0] * N)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(taken))
    assert_same(kept, entry(HOST, [1] * N))


@pytest.mark.parametrize("kind", ["Auto", "Explicit"])
def test_functions_on_a_population_over_devices_keep_its_sharding(kind: str) -> None:
    mesh = mesh_of(kind, population=4)
    by_member, everywhere = population.sharding(mesh), population.replicated(mesh)
    host = numbers(CONFIG, 8)
    pop = jax.device_put(host, by_member)
    one = numbers(CONFIG, seed=1)
    source = [7, 0, 0, 3, 4, 5, 6, 1]
    results = {
        "take": (population.take(pop, jnp.array(source)), entry(host, source)),
        "take of fewer": (population.take(pop, source[:4]), entry(host, source[:4])),
        "replace": (population.replace(pop, 2, one), population.replace(host, 2, one)),
        "set": (population.set_leaves(pop, {"temperature": np.arange(8.0)}), None),
    }
    for name, (got, expected) in results.items():
        for leaf in jax.tree.leaves(got):
            assert leaf.sharding.is_equivalent_to(by_member, leaf.ndim), name
        if expected is not None:
            assert_same(got, expected)
    member = population.member(pop, 6)
    assert_same(member, entry(host, 6))
    assert all(leaf.sharding.is_equivalent_to(everywhere, leaf.ndim) for leaf in jax.tree.leaves(member))
    assert_same(population.gather(pop), host)
    assert is_numpy(population.gather(pop))
    for n in (1, 3, 6):
        with pytest.raises(StructureError, match=f"^source: got {n} members, expected a multiple of 4"):
            population.take(pop, [0] * n)
    jitted = jax.jit(lambda pop, i, one: (population.member(pop, i), population.replace(pop, i, one)))
    assert_same(jitted(pop, 2, one), (entry(host, 2), population.replace(host, 2, one)))
    returns = jax.device_put(np.arange(8.0), by_member)
    assert population.exploit(returns, key=KEY)[7] == 7
    select = jax.jit(lambda pop: population.take(pop, population.exploit(returns, key=KEY)))
    assert_same(select(pop), entry(host, np.asarray(population.exploit(returns, key=KEY))))


KEYS = jax.random.split(jax.random.key(1), 64)


def exploited(returns: Any, fraction: float = 0.25, **options: Any) -> np.ndarray:
    """The sources under many keys, `[keys, n]`."""
    draw = lambda key: population.exploit(returns, key=key, fraction=fraction, **options)
    return np.asarray(jax.jit(jax.vmap(draw))(KEYS))


def test_the_worst_copy_the_best_and_all_others_stay() -> None:
    returns = jnp.array([3.0, 1.0, 7.0, 5.0, 0.0, 2.0, 6.0, 4.0])
    sources = exploited(returns)
    assert sources.dtype == np.int32
    worst, best = {1, 4}, {2, 6}
    stay = [i for i in range(8) if i not in worst]
    assert (sources[:, stay] == stay).all()
    for i in worst:
        assert set(sources[:, i]) == best  # each of them under some key
    assert (sources[:, 1] != sources[:, 4]).any()  # chosen one by one
    again = population.exploit(returns, key=KEYS[0])
    assert_same(again, sources[0])
    assert_same(jax.jit(lambda r: population.exploit(r, key=KEYS[0]))(returns), again)


@pytest.mark.parametrize(
    ("fraction", "n", "copies"),
    [(0, 8, 0), (0.25, 8, 2), (0.25, 3, 1), (0.25, 10, 3), (0.1, 30, 3), (0.29, 100, 29), (0.5, 7, 3), (0.5, 2, 1),
     (1e-6, 4, 1), (0.5, 1, 0), (0.25, 0, 0)],
)  # fmt: skip
def test_the_fraction_is_rounded_up_to_at_most_half(fraction: float, n: int, copies: int) -> None:
    source = population.exploit(jnp.arange(float(n)), key=KEY, fraction=fraction)
    assert source.shape == (n,)
    assert (np.asarray(source) != np.arange(n)).sum() == copies
    assert (np.asarray(source)[copies:] == np.arange(n)[copies:]).all()


def test_nan_is_the_worst_and_is_never_copied() -> None:
    sources = exploited(jnp.array([jnp.nan, -jnp.inf, 1.0, 2.0, -jnp.nan, 3.0, 4.0, 5.0]))
    assert set(sources[:, 0]) == set(sources[:, 4]) == {6, 7}
    assert (sources[:, 1] == 1).all()  # minus infinity is a number
    sources = exploited(jnp.array([jnp.nan] * 3 + [0.0] + [jnp.nan] * 4), fraction=0.5)
    assert [set(column) for column in sources.T] == [{0}, {1}, {2}, {3}, {3}, {3}, {3}, {3}]
    assert (exploited(jnp.full(4, jnp.nan), fraction=0.5) == np.arange(4)).all()


@pytest.mark.parametrize("dtype", ["float32", "int32", "uint8", "bool", "bfloat16"])
def test_of_equal_returns_the_lower_index_is_the_better(dtype: str) -> None:
    sources = exploited(jnp.zeros(8, dtype))
    assert (sources[:, :6] == np.arange(6)).all()
    assert set(sources[:, 6]) == set(sources[:, 7]) == {0, 1}
    signed = jnp.array([0.0, -0.0, 0.0, -0.0]).astype(dtype)
    assert (exploited(signed)[:, 3] == 0).all()


def test_integers_are_ordered_to_their_limits() -> None:
    low, high = np.iinfo(np.int32).min, np.iinfo(np.int32).max
    assert (exploited(jnp.array([0, low, high, 1], jnp.int32)) == [0, 2, 2, 3]).all()
    assert (exploited(jnp.array([0, 255, 3, 1], jnp.uint8)) == [1, 1, 2, 3]).all()
    assert (exploited(np.array([0.0, 5.0, 3.0, 1.0])) == [1, 1, 2, 3]).all()


def test_separate_populations_are_mapped() -> None:
    returns = jnp.array([[0.0, 1.0, 2.0, 3.0], [3.0, 2.0, 1.0, 0.0]])
    sources = jax.vmap(lambda r, k: population.exploit(r, key=k))(returns, KEYS[:2])
    assert sources.tolist() == [[3, 1, 2, 3], [0, 1, 2, 0]]


@pytest.mark.parametrize("fraction", [-0.1, 0.51, 1, float("nan"), "0.2", None, jnp.array(0.2)])
def test_a_fraction_out_of_range_is_refused(fraction: Any) -> None:
    with pytest.raises(StructureError, match=r"^fraction: got .*, expected a Python number from 0 to 0\.5"):
        population.exploit(jnp.arange(4.0), key=KEY, fraction=fraction)


@pytest.mark.parametrize("returns", [jnp.zeros(()), jnp.zeros((2, 3)), [1.0], jnp.zeros(3, complex), KEYS])
def test_returns_of_another_shape_are_refused(returns: Any) -> None:
    with pytest.raises(StructureError, match=r"^returns: got .*, expected real numbers \(n,\)"):
        population.exploit(returns, key=KEY)


# --- Leaves by path ----------------------------------------------------------------------------


def test_leaves_are_named_as_in_files(tmp_path: Any) -> None:
    pc.save(tmp_path / "pop", POPULATION, self_test=False)
    assert list(population.get_leaves(POPULATION)) == [
        leaf[0] for leaf in pc.inspect(tmp_path / "pop").leaves
    ]
    got = population.get_leaves(HOST, ["temperature", "actor/head/bias"])
    assert got["temperature"] is HOST[0]["temperature"]
    assert list(got) == ["temperature", "actor/head/bias"]


def test_leaves_are_set_by_path_and_nothing_else_is(pop: Any) -> None:
    values = {"temperature": np.linspace(0.5, 2, N), "actor/head/bias": jnp.ones((N, 3))}
    params, config = population.set_leaves(pop, values)
    assert config == CONFIG
    assert params["temperature"].dtype == np.float32
    np.testing.assert_allclose(params["temperature"], values["temperature"])
    assert bool((params["actor"]["head"]["bias"] == 1).all())
    assert (type(params["temperature"]) is np.ndarray) == (pop is HOST)
    assert params["actor"]["tower"] is not pop[0]["critic"]
    untouched = {**params, "temperature": HOST[0]["temperature"]}
    untouched["actor"] = {**params["actor"], "head": HOST[0]["actor"]["head"]}
    assert_same((untouched, config), HOST)
    assert_same(HOST, numbers(CONFIG, N))
    jitted = jax.jit(lambda pop, x: population.set_leaves(pop, {"temperature": x}))(pop, jnp.ones(N))
    assert bool((jitted[0]["temperature"] == 1).all())
    one, _ = population.set_leaves(numbers(CONFIG), {"temperature": 2.0})
    assert one["temperature"] == 2


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"temperatur": 1.0}, "values: 'temperatur' is no leaf; near it are temperature"),
        ({"actor/head/bas": 1.0}, "values: 'actor/head/bas' is no leaf; near it are actor/head/bias"),
        ({"temperature": 1.0}, "values['temperature']: got shape (), expected (5,)"),
        ({"temperature": jnp.ones((5, 1))}, "values['temperature']: got shape (5, 1), expected (5,)"),
        ({"temperature": np.arange(5)}, "values['temperature']: got dtype int32, expected float32"),
        ({"temperature": None}, "values['temperature']: missing"),
    ],
)  # fmt: skip
def test_values_that_do_not_fit_are_refused(values: Any, text: str) -> None:
    with pytest.raises(StructureError, match="^" + re.escape(text)):
        population.set_leaves(POPULATION, values)
    with pytest.raises(StructureError, match=r"^paths: 'x' is no leaf; near it are actor/head/bias"):
        population.get_leaves(POPULATION, ["x"])


# --- Sets, devices -----------------------------------------------------------------------------


def test_a_set_of_policies_is_grouped_by_config_and_back() -> None:
    policies = {
        name: numbers(config, seed=seed)
        for seed, (name, config) in enumerate({"a": CONFIG, "b": OTHER, "c": CONFIG, "d": CONFIG}.items())
    }
    groups = population.groups(policies)
    assert {config: names for config, (names, _) in groups.items()} == {
        CONFIG: ("a", "c", "d"),
        OTHER: ("b",),
    }
    assert list(groups) == [CONFIG, OTHER]
    assert [population.size(pop) for _, pop in groups.values()] == [(3,), (1,)]
    back = population.ungroup(groups)
    assert set(back) == set(policies)
    for name, policy in policies.items():
        assert_same(back[name], policy)
    assert population.ungroup(population.groups({})) == {}
    (names, pop), _ = groups.values()
    for wrong, text in (
        ({OTHER: (names, pop)}, "groups: the population of a, c, d has another config than its key"),
        (
            {CONFIG: (names[:2], pop)},
            r"groups: the population of a, c has the axes \(3,\), expected 2 members",
        ),
        ({CONFIG: (("a", "a", "b"), pop)}, "groups: the name 'a' is there twice"),
    ):
        with pytest.raises(StructureError, match="^" + text):
            population.ungroup(wrong)


def test_a_sharding_names_an_axis_that_the_mesh_has() -> None:
    mesh = mesh_of("Explicit", host=2, chip=2)
    assert population.sharding(mesh, "chip").spec == jax.sharding.PartitionSpec("chip")
    assert population.sharding(mesh, ("host", "chip")).shard_shape((8, 3)) == (2, 3)
    with pytest.raises(
        StructureError, match=r"^axis: got 'population', expected an axis of the mesh: \('host'"
    ):
        population.sharding(mesh)
    for n, where in (
        (3, population.sharding(mesh, "chip")),
        (6, population.sharding(mesh, ("host", "chip"))),
    ):
        with pytest.raises(StructureError, match=f"^n: got {n}, expected a multiple of"):
            population.init(Drawn(), n, key=KEY, out_shardings=where)
    pop = population.init(Drawn(), 8, key=KEY, out_shardings=population.sharding(mesh, ("host", "chip")))
    assert pop[0]["bits"].sharding.shard_shape((8, 2)) == (2, 2)
    assert_same(pop[0]["bits"], population.init(Drawn(), 8, key=KEY)[0]["bits"])


def test_gather_gives_numpy_and_refuses_what_has_no_numbers() -> None:
    tree = {"x": jnp.ones(3), "key": KEY, "n": 3, "host": np.ones(2)}
    gathered = population.gather(tree)
    assert type(gathered["x"]) is np.ndarray
    assert gathered["n"] == 3
    assert gathered["host"] is tree["host"]
    assert bool(gathered["key"] == KEY)
    with pytest.raises(StructureError, match=r"^pop: the leaf 'x' is traced; gather runs on the host"):
        jax.eval_shape(population.gather, {"x": jnp.ones(3)})
    tree["x"].delete()
    with pytest.raises(StructureError, match=r"^pop: the leaf 'x' was deleted"):
        population.gather(tree)


def test_one_process_has_one_config() -> None:
    population.assert_same_config(CONFIG)
    with pytest.raises(pc.errors.ConfigError, match="expected a config"):
        population.assert_same_config(POPULATION)
