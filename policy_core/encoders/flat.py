"""Encoders of vectors and categories: `Flatten`, `Encode` and `Embedding`."""

import itertools
from dataclasses import field
from typing import Any, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from policy_core.configs import static
from policy_core.configs.validation import check_at_least
from policy_core.contract import Encoder, Features, Key, Network, Space
from policy_core.errors import ConfigError
from policy_core.networks.layers import count_layer
from policy_core.spaces import Discrete, MultiBinary, MultiDiscrete


@static
class Flatten:
    """The observation flattened to one vector, with one-hot categories.

    It is `space.flatten`, for every space; parts are in sorted order. Numbers, images too, are not
    rescaled.

    Example:
        >>> import jax.numpy as jnp
        >>> from policy_core import Box, Dict, Discrete, Flatten
        >>> space = Dict({"x": Box(shape=(2,)), "gear": Discrete(3)})
        >>> observation = {"x": jnp.array([0.5, -1.0]), "gear": jnp.array(1)}
        >>> Flatten().apply({}, space, observation, "float32").tolist()
        [0.0, 1.0, 0.0, 0.5, -1.0]
    """

    def check_space(self, space: Space, name: str = "observation_space") -> None:
        """Accept every space."""

    def init(self, space: Space, *, key: Key, dtype: str) -> dict[str, Any]:
        """`{}`: there are no params."""
        return {}

    def out_size(self, space: Space) -> int:
        """The `flat_size` of the space."""
        return space.flat_size

    def apply(self, params: Any, space: Space, observation: PyTree, dtype: str) -> Features:
        """The flattened observation."""
        return space.flatten(observation).astype(dtype)


@static
class Encode:
    """A network as an encoder: the observation is flattened and passed through it.

    As the encoder of one of the `Parts`, for a height scan, a history or a privileged latent.

    Args:
        network: the network.

    Raises:
        ConfigError: for an encoder in its place.

    Example:
        >>> from policy_core import MLP, Box, Dict, Flatten, Parts
        >>> from policy_core.encoders import Encode
        >>> space = Dict({"heights": Box(shape=(17, 11)), "pose": Box(shape=(7,))})
        >>> Parts({"heights": Encode(MLP((64, 32)))}, rest=Flatten()).out_size(space)
        39
    """

    network: Network = field(kw_only=False)

    def __post_init__(self) -> None:
        if isinstance(self.network, Encoder):
            name = type(self.network).__name__
            raise ConfigError(f"Encode.network: got {name}, an encoder, expected a network; use it as it is")

    def check_space(self, space: Space, name: str = "observation_space") -> None:
        """Accept every space."""

    def init(self, space: Space, *, key: Key, dtype: str) -> Any:
        """Fresh params: those of the network; `key` is consumed."""
        return self.network.init(space.flat_size, key=key, dtype=dtype)

    def out_size(self, space: Space) -> int:
        """The output dimension of the network."""
        return self.network.out_size(space.flat_size)

    def apply(self, params: Any, space: Space, observation: PyTree, dtype: str) -> Features:
        """The output of the network for the flattened observation."""
        return self.network.apply(params, space.flatten(observation).astype(dtype))


@static
class Embedding:
    """A learned embedding of the categories of a discrete space.

    A `MultiDiscrete` or `MultiBinary` has an embedding for each entry; they are concatenated.

    Args:
        size: dimension of an embedding vector. Vectors are initialized standard normal.

    Raises:
        ConfigError: for a size below 1.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from policy_core import Embedding, MultiDiscrete
        >>> space, embedding = MultiDiscrete((5, 7)), Embedding(4)
        >>> params = embedding.init(space, key=jax.random.key(0), dtype="float32")
        >>> features = embedding.apply(params, space, jnp.array([4, 0]), "float32")
        >>> bool(jnp.all(features == jnp.ravel(params["table"][jnp.array([4, 5])])))
        True
    """

    size: int = field(kw_only=False)

    def __post_init__(self) -> None:
        check_at_least(self, 1, "size")

    def check_space(self, space: Space, name: str = "observation_space") -> None:
        """Raise `ConfigError` unless `space` is discrete."""
        if not isinstance(space, Discrete | MultiDiscrete | MultiBinary):
            raise ConfigError(
                f"{name}: got {type(space).__name__}, but Embedding takes Discrete, MultiDiscrete or "
                "MultiBinary; use Flatten()"
            )

    def init(self, space: Space, *, key: Key, dtype: str) -> dict[str, Float[Array, "..."]]:
        """Fresh params: a `table` `[categories of all entries, size]`; `key` is consumed."""
        count_layer()
        normal = jax.random.normal(key, (sum(_categories(space)), self.size), jnp.float32)
        return {"table": normal.astype(dtype)}

    def out_size(self, space: Space) -> int:
        """`size` times the number of entries."""
        return self.size * len(_categories(space))

    def apply(self, params: Any, space: Space, observation: PyTree, dtype: str) -> Features:
        """The embeddings of the entries, concatenated; zeros for a category outside of the space."""
        one_hot, table = space.flatten(observation), params["table"].astype(dtype)
        if isinstance(space, MultiBinary):
            one_hot = jnp.ravel(jnp.stack([one_hot == 0, one_hot == 1], -1))
        one_hot = one_hot.astype(dtype)
        counts = _categories(space)
        ends = list(itertools.accumulate(counts))
        rows = [slice(end - count, end) for end, count in zip(ends, counts, strict=True)]
        return jnp.concatenate([jnp.matmul(one_hot[entry], table[entry]) for entry in rows])


def _categories(space: Any) -> tuple[int, ...]:
    """The number of categories of each entry of a discrete space."""
    match space:
        case Discrete():
            return (space.n,)
        case MultiBinary():
            return (2,) * space.flat_size
        case _:
            return cast("tuple[int, ...]", space.nvec)


_: tuple[type[Encoder], ...] = (Flatten, Encode, Embedding)
