"""gymnasium environments as an `Environment`: pure functions over a vector environment on the host."""

import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import policy_core as pc
from policy_core_adapters.environment import Environment, Step, no_mask
from policy_core_adapters.gymnasium.vector import Turn, VectorLoop

MOST_STREAMS = 8


class Place(NamedTuple):
    """The state of an `Environment` of gymnasium: where it is in what stream of the host."""

    stream: Any
    row: Any  # of the vector environment
    time: Any
    seed: Any
    mask: Any


@dataclass
class Stream:
    """A vector environment, and its last step: asked again with the same actions it answers the same."""

    loop: VectorLoop
    batch: tuple[int, ...]
    first: Any  # observations
    time: int
    turn: Turn
    action: Any = None


def make(name: str, **env_kwargs: Any) -> Environment:
    """The registered gymnasium environment `name`, vectorized by `SyncVectorEnv`.

    Example:
        >>> import jax
        >>> from policy_core_adapters import gymnasium
        >>> env = gymnasium.make("CartPole-v1")
        >>> observation, state = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), 3))
        >>> observation.shape
        (3, 4)
    """
    import gymnasium

    def make_vector(num_envs: int) -> Any:
        # Disabled, so that last observations are copied before an environment that reuses its arrays resets.
        return gymnasium.make_vec(
            name,
            num_envs,
            vectorization_mode="sync",
            vector_kwargs={"autoreset_mode": gymnasium.vector.AutoresetMode.DISABLED},
            **env_kwargs,
        )

    return from_gymnasium(make_vector)


def from_gymnasium(
    make_vector: Callable[[int], Any], *, observation_space: pc.contract.Space | None = None
) -> Environment:
    """Vector environments of gymnasium as an `Environment`, to be used under `jit`, `vmap` and `scan`.

    `reset` makes a vector environment of as many as it is mapped over, and `step` steps it, both
    by `jax.pure_callback`. Each state is a place in a stream that goes one way: step all states of
    a stream together, and each once; only first states may be stepped again, which starts anew
    from their seeds. Anything else is an error. The keys of `step` are not used: an environment
    draws from the seed that `reset` drew.

    The steps of a vector environment that resets in the mode `NextStep` include those that only
    reset: they are not `valid`, have reward 0 and end, so that `is_first` is right after them.

    Args:
        make_vector: makes a `gymnasium.vector.VectorEnv` of so many environments, as
            `lambda n: gymnasium.vector.SyncVectorEnv([MyEnv] * n)`. It is called with 1 to read the spaces.
        observation_space: what observations are cast to; that of the environment by default.

    Raises:
        StructureError, ConfigError: as `VectorLoop` and `space_of`. While running, as JAX gives what
            a callback raises: if a state is stepped that its stream has left behind, or with others.
    """
    host = _Host(make_vector, observation_space)
    spaces = host.observation_space, host.action_space

    def struct(of: Any) -> Any:
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), of)

    scalar = jax.ShapeDtypeStruct((), jnp.int32)
    place = Place(scalar, scalar, scalar, jax.ShapeDtypeStruct((), jnp.uint32), host.mask_struct)
    flag: Any = jax.ShapeDtypeStruct((), jnp.bool_)
    seen = struct(spaces[0].struct())

    def reset(key: jax.Array) -> tuple[Any, Place]:
        seed = jax.random.bits(key, (), jnp.uint32) >> 1  # as gymnasium takes them
        observation, state = jax.pure_callback(host.reset, (seen, place), seed, vmap_method="broadcast_all")
        return observation, state

    def step(key: jax.Array, state: Place, action: Any) -> Step:
        del key
        reward: Any = jax.ShapeDtypeStruct((), jnp.float32)
        structs: Any = Turn(seen, flag, host.mask_struct, reward, flag, flag, seen, flag)
        where = state._replace(mask=None)
        place_now, turn = jax.pure_callback(
            host.step, (place, structs), where, action, vmap_method="broadcast_all"
        )
        return Step(
            observation=turn.observation,
            state=place_now,
            reward=turn.reward,
            terminated=turn.terminated | ~turn.valid,
            truncated=turn.truncated,
            final_observation=turn.final_observation,
            valid=turn.valid,
        )

    mask = no_mask if host.mask_struct is None else lambda state: state.mask
    return Environment(*spaces, reset, step, mask)


class _Host:
    """The streams of an `Environment`; the last few are kept, as nothing says which are still needed."""

    def __init__(self, make_vector: Callable[[int], Any], observation_space: Any) -> None:
        def make_loop(num_envs: int) -> VectorLoop:
            loop = VectorLoop(make_vector(num_envs), observation_space=observation_space)
            if loop.num_envs != num_envs:
                raise pc.errors.StructureError(
                    f"make_vector: gave {loop.num_envs} environments, expected {num_envs}; use its argument"
                )
            return loop

        self.make_loop = make_loop
        probe = make_loop(1)
        self.observation_space, self.action_space = probe.observation_space, probe.action_space
        turn = probe.reset(seed=0)
        self.mask_struct = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), turn.action_mask
        )
        probe.close()
        self.streams: OrderedDict[int, Stream] = OrderedDict()
        self.opened = 0
        self.lock = threading.RLock()  # JAX may run the callbacks of two programs at a time

    def reset(self, seed: Any) -> tuple[Any, Place]:
        with self.lock:
            number, stream = self.open(np.asarray(seed))
            turn = stream.turn
            return _batched(turn.observation, stream.batch), self.place(number, stream, np.asarray(seed))

    def step(self, where: Place, action: Any) -> tuple[Place, Turn]:
        with self.lock:
            return self.step_stream(where, action)

    def step_stream(self, where: Place, action: Any) -> tuple[Place, Turn]:
        where, action = jax.tree.map(np.asarray, (where, action))
        number, time, batch = int(where.stream.flat[0]), int(where.time.flat[0]), where.stream.shape
        together = (where.stream == number).all() and (where.time == time).all()
        stream = self.streams.get(number)
        ahead = None  # by how many steps the stream is ahead of these states
        whole = _same(where.row.ravel(), np.arange(where.row.size))
        if stream is not None and together and whole and stream.batch == batch:
            ahead = stream.time - time
        if stream is not None and ahead == 1 and _same(action, stream.action):
            return self.outcome(number, stream, where.seed)  # asked again
        if stream is None or ahead != 0:
            if not together or time > 0:
                raise pc.errors.StructureError(
                    "state: these states are not the newest of one stream of environments, which go one way; "
                    "step all states of a reset together and each once, in at most "
                    f"{MOST_STREAMS} streams at a time"
                )
            first = None if stream is None else jax.tree.map(lambda x: x[where.row.ravel()], stream.first)
            number, stream = self.open(where.seed, first)
        stream.turn = stream.loop.step(jax.tree.map(lambda x: x.reshape(-1, *x.shape[len(batch) :]), action))
        stream.time, stream.action = stream.time + 1, jax.tree.map(np.copy, action)
        self.streams.move_to_end(number)
        return self.outcome(number, stream, where.seed)

    def open(self, seed: np.ndarray, first: Any = None) -> tuple[int, Stream]:
        """A new stream from seeds, one for each environment; with these first observations, unless None."""
        loop = self.make_loop(math.prod(seed.shape))
        # What steps environments one by one takes a seed for each.
        each = hasattr(getattr(loop.envs, "unwrapped", loop.envs), "env_fns")
        seeds = seed.ravel().tolist()
        turn = loop.reset(seed=seeds if each else seeds[0])
        stream = Stream(loop, seed.shape, turn.observation, 0, turn)
        if first is not None and not _same(turn.observation, first):
            raise pc.errors.StructureError(
                "state: a first state was stepped again, or in another batch than it was reset in, and the "
                "environments do not give the same first observations again from their seeds; reset anew"
            )
        self.opened += 1
        self.streams[self.opened] = stream
        while len(self.streams) > MOST_STREAMS:
            self.streams.popitem(last=False)[1].loop.close()
        return self.opened, stream

    def place(self, number: int, stream: Stream, seed: np.ndarray) -> Place:
        batch = stream.batch
        return Place(
            np.full(batch, number, np.int32),
            np.arange(math.prod(batch), dtype=np.int32).reshape(batch),
            np.full(batch, stream.time, np.int32),
            seed,
            _batched(stream.turn.action_mask, batch),
        )

    def outcome(self, number: int, stream: Stream, seed: np.ndarray) -> tuple[Place, Turn]:
        return self.place(number, stream, seed), _batched(stream.turn, stream.batch)


def _batched(tree: Any, batch: tuple[int, ...]) -> Any:
    return jax.tree.map(lambda x: x.reshape(*batch, *x.shape[1:]), tree)


def _same(a: Any, b: Any) -> bool:
    """Whether the arrays are equal, and NaN where the others are."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(x, y, equal_nan=x.dtype.kind == "f") for x, y in pairs)
