"""Environments by name, two toy ones whose optimum is known by proof, and a wrapper that hides velocities.

The toys have a hybrid action, and masked rows. Both are pure JAX, reset themselves, and end within 16 steps.
What is claimed of their optimum is checked by dynamic programming in `tests/test_environments.py`.
"""

import importlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from policy_core_adapters.environment import Environment, Step

import policy_core as pc

# Each is an adapter of `policy_core_adapters` with a function `make(name) -> Environment`.
PACKAGES = (
    "gymnax", "gymnasium", "jumanji", "pgx", "brax", "playground", "jaxmarl", "pettingzoo", "craftax",
    "xminigrid", "navix",
)  # fmt: skip

HYBRID_OPTIMUM = 6.3
GRID_OPTIMUM = -4.0

JOBS, CAPACITY = 12, 2
HAND, DRILL, CHARGE = range(3)
WORTH = (0.3, 1.0, 0.0)  # of a job done by hand, by drill, and of charging the drill meanwhile
GRIP = (-1.0, 1.0, 0.0)  # the right force is grip * hardness
HARDEST = 0.8

ROWS, COLUMNS, LIMIT = 5, 7, 16
BRIDGE, DITCH, BANK = 2, 3, 2  # a row and two columns
MOVES = ((-1, 0, 1), (-1, 0, 1, 2))  # of the row and of the column


class Bench(NamedTuple):
    """The state of `hybrid`."""

    charge: jax.Array
    hardness: jax.Array
    jobs: jax.Array  # behind us


class Place(NamedTuple):
    """The state of `masked_grid`."""

    row: jax.Array
    column: jax.Array
    steps: jax.Array


def parse(name: str) -> tuple[str, str]:
    """The package, gymnax by default, and the name that it has for an environment."""
    package, colon, rest = name.partition(":")
    if not colon:
        package, rest = "gymnax", name
    if package not in PACKAGES:
        raise ValueError(f"env: got the package {package!r}, expected one of {', '.join(PACKAGES)}")
    return package, rest


def make(name: str) -> Environment:
    """The environment `PACKAGE:NAME`, by the adapter of that package; of gymnax without `PACKAGE:`."""
    package, rest = parse(name)
    env: Environment = importlib.import_module(f"policy_core_adapters.{package}").make(rest)
    return env


def hybrid() -> Environment:
    """A workbench: twelve jobs, each with a tool and a force, `Dict` of `Discrete` and `Box`.

    The drill is worth 1 a job and takes a unit of charge; the hand is worth 0.3; charging is
    worth 0 and gives a unit. There is one unit at the start, and room for two. The drill is
    masked without charge, charging is masked when full. Each job has its hardness, random
    and observed, and the squared distance of the force to what the tool needs is taken off:
    hardness for the drill, minus hardness for the hand, 0 to charge. So the force is right
    or wrong for a tool, and greed, which never charges, is wrong about the tools.

    **Optimum 6.3**, whatever the hardnesses. The right force costs nothing, so count the
    tools: d drills, c charges and h hands are worth d + 0.3 h, where d + c + h = 12 and
    d <= 1 + c. So h <= 13 - 2 d, which makes d at most 6, and the worth at most
    d + 0.3 (13 - 2 d) = 3.9 + 0.4 d <= 6.3. Drill and charge in turn, and do the last job by
    hand: 6.3. (Greed has 1 + 11 * 0.3 = 4.3.)
    """
    action_space = pc.Dict({"tool": pc.Discrete(3), "force": pc.Box(low=-1.0, high=1.0, shape=(1,))})
    observation_space = pc.Dict(
        {
            "charge": pc.Discrete(CAPACITY + 1),
            "hardness": pc.Box(low=-HARDEST, high=HARDEST),
            "left": pc.Box(low=0.0, high=1.0),
        }
    )

    def job(key: jax.Array) -> jax.Array:
        return jax.random.uniform(key, (), jnp.float32, -HARDEST, HARDEST)

    def observe(bench: Bench) -> dict[str, jax.Array]:
        left = (JOBS - bench.jobs).astype(jnp.float32) / JOBS
        return {"charge": bench.charge, "hardness": bench.hardness, "left": left}

    def reset(key: jax.Array) -> tuple[Any, Any]:
        bench = Bench(jnp.int32(1), job(key), jnp.int32(0))
        return observe(bench), bench

    def step(key: jax.Array, bench: Bench, action: Any) -> Step:
        reset_key, key = jax.random.split(key)
        tool, force = action["tool"], action["force"][0]
        reward = jnp.array(WORTH)[tool] - jnp.square(force - jnp.array(GRIP)[tool] * bench.hardness)
        charge = bench.charge + (tool == CHARGE).astype(jnp.int32) - (tool == DRILL).astype(jnp.int32)
        after = Bench(jnp.clip(charge, 0, CAPACITY), job(key), bench.jobs + 1)
        return restart(
            reset(reset_key), (observe(after), after), reward, after.jobs >= JOBS, jnp.array(False)
        )

    def action_mask(bench: Bench) -> dict[str, Any]:
        tools = jnp.stack([jnp.array(True), bench.charge > 0, bench.charge < CAPACITY])
        return {"tool": tools, "force": None}

    return Environment(observation_space, action_space, reset, step, action_mask)


def masked_grid() -> Environment:
    """A walk over a ditch, from the left edge to the lower right corner, `MultiDiscrete((3, 4))`.

    Five rows and seven columns. The first number of an action moves the row by -1, 0 or 1,
    the second the column by -1, 0, 1 or 2, both at once; what would leave the grid is masked,
    and so is the move by 2 from column 2, the bank. A step costs 1; column 3 is a ditch, and
    a step that ends in it costs 2 more, except on the bridge in row 2. A walk starts in a
    random row of column 0, terminates in the corner, and is truncated after 16 steps.

    **Optimum -4**, from every row. Three steps could cover the six columns only as 2 + 2 + 2,
    whose second is masked; so no walk is shorter than four. Four are enough: two to the bridge
    (columns 0, 2, 3, with at most two rows to change), two to the corner (columns 3, 5, 6,
    rows 2, 3, 4), and none of them ends in the ditch.
    """

    def observe(place: Place) -> jax.Array:
        return jnp.stack([place.row, place.column])

    def reset(key: jax.Array) -> tuple[Any, Any]:
        place = Place(jax.random.randint(key, (), 0, ROWS, jnp.int32), jnp.int32(0), jnp.int32(0))
        return observe(place), place

    def step(key: jax.Array, place: Place, action: jax.Array) -> Step:
        by_row, by_column = (jnp.array(moves)[index] for moves, index in zip(MOVES, action, strict=True))
        row, column = jnp.clip(place.row + by_row, 0, ROWS - 1), place.column + by_column
        after = Place(row, jnp.clip(column, 0, COLUMNS - 1), place.steps + 1)
        wet = (after.column == DITCH) & (after.row != BRIDGE)
        home = (after.row == ROWS - 1) & (after.column == COLUMNS - 1)
        reward = -1.0 - 2.0 * wet.astype(jnp.float32)
        return restart(reset(key), (observe(after), after), reward, home, (after.steps >= LIMIT) & ~home)

    def action_mask(place: Place) -> tuple[jax.Array, jax.Array]:
        rows, columns = (place.row + jnp.array(MOVES[0]), place.column + jnp.array(MOVES[1]))
        jump = jnp.array(MOVES[1]) == 2
        inside = (columns >= 0) & (columns < COLUMNS)
        return (rows >= 0) & (rows < ROWS), inside & ~(jump & (place.column == BANK))

    return Environment(pc.MultiDiscrete((ROWS, COLUMNS)), pc.MultiDiscrete((3, 4)), reset, step, action_mask)


def restart(first: Any, after: Any, reward: jax.Array, terminated: jax.Array, truncated: jax.Array) -> Step:
    """The transition to `after`, or to `first` if it was the last; both (observation, state)."""
    done = terminated | truncated
    observation, state = jax.tree.map(lambda a, b: jnp.where(done, a, b), first, after)
    return Step(observation, state, reward, terminated, truncated, after[0])


def hidden_velocity(env: Environment) -> Environment:
    """CartPole of which only positions are seen: that of the cart and the angle of the pole.

    One observation does not tell which way the pole is falling; the difference of two does.
    """
    space = env.observation_space
    assert isinstance(space, pc.Box)
    low, high = (tuple(bound[::2].tolist()) for bound in space.bounds())

    def reset(key: jax.Array) -> tuple[Any, Any]:
        observation, state = env.reset(key)
        return observation[::2], state

    def step(key: jax.Array, state: Any, action: Any) -> Step:
        result = env.step(key, state, action)
        observations = result.observation[::2], result.final_observation[::2]
        return result._replace(observation=observations[0], final_observation=observations[1])

    return env._replace(observation_space=pc.Box(low=low, high=high, shape=(2,)), reset=reset, step=step)
