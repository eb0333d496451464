"""An encoder for each part of a `Dict` or `Tuple`, and the one that a space has by default."""

from collections.abc import Mapping
from dataclasses import field
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from policy_core.configs import set_field, static
from policy_core.configs.validation import pairs_of, sort_pairs
from policy_core.contract import Encoder, Features, Key, Space
from policy_core.encoders.flat import Flatten
from policy_core.encoders.images import MinAtarCNN, NatureCNN
from policy_core.errors import ConfigError
from policy_core.spaces import Box, Dict, Tuple
from policy_core.spaces.composite import Name, parts_of


@static
class Parts:
    """One encoder for each part of a `Dict` (by name) or `Tuple` (by number), and all features in a row.

    They follow each other in sorted order of the names, whatever order the mapping was written in.

    Args:
        encoders: name to encoder.
        rest: the encoder of each part that is not named; without it all must be.

    Raises:
        ConfigError: for a name given twice.

    Example:
        >>> from policy_core import Box, Dict, Flatten, MinAtarCNN, Parts
        >>> space = Dict({"camera": Box(shape=(10, 10, 3)), "pose": Box(shape=(7,))})
        >>> Parts({"camera": MinAtarCNN(size=32)}, rest=Flatten()).out_size(space)
        39
    """

    encoders: tuple[tuple[Name, Encoder], ...] = field(kw_only=False)
    rest: Encoder | None = None

    def __init__(
        self,
        encoders: Mapping[str, Encoder] | Mapping[int, Encoder] | tuple[tuple[Name, Encoder], ...],
        *,
        rest: Encoder | None = None,
    ) -> None:
        set_field(self, "encoders", pairs_of(encoders))
        set_field(self, "rest", rest)
        self.__post_init__()

    def __post_init__(self) -> None:
        sort_pairs(self, "encoders")

    def check_space(self, space: Space, name: str = "observation_space") -> None:
        """Raise `ConfigError` unless `space` has exactly these parts, and they can be encoded."""
        if not isinstance(space, Dict | Tuple):
            raise ConfigError(f"{name}: got {type(space).__name__}, but Parts takes a Dict or a Tuple")
        known = parts_of(space)
        for part, _ in self.encoders:
            if part not in known:
                raise ConfigError(f"Parts.encoders: got {part!r}, but {name} has the parts {list(known)}")
        named = dict(self.encoders)
        for part, inner in known.items():
            encoder = named.get(part, self.rest)
            if encoder is None:
                raise ConfigError(
                    f"Parts.encoders: {part!r} of {name} is missing; name an encoder for it, or give "
                    "rest=Flatten()"
                )
            encoder.check_space(inner, f"{name}[{part!r}]")

    def init(self, space: Space, *, key: Key, dtype: str) -> dict[str, Any]:
        """The params of each part that has any, by name."""
        parts = self._parts(space)
        keys = jax.random.split(key, max(len(parts), 1))
        params = {
            str(part): encoder.init(inner, key=key, dtype=dtype)
            for key, (part, (encoder, inner)) in zip(keys, parts.items(), strict=False)
        }
        return {part: inner for part, inner in params.items() if jax.tree.leaves(inner)}

    def out_size(self, space: Space) -> int:
        """The sum over the parts."""
        return sum(encoder.out_size(inner) for encoder, inner in self._parts(space).values())

    def apply(self, params: Any, space: Space, observation: PyTree, dtype: str) -> Features:
        """The features of the parts, one after the other."""
        features = [
            encoder.apply(params.get(str(part), {}), inner, observation[part], dtype)
            for part, (encoder, inner) in self._parts(space).items()
        ]
        return jnp.concatenate([jnp.zeros(0, dtype), *features])

    def _parts(self, space: Space) -> dict[Name, tuple[Any, Space]]:
        named = dict(self.encoders)
        return {part: (named.get(part, self.rest), inner) for part, inner in parts_of(space).items()}


def default_encoder(space: Space) -> Encoder:
    """The encoder of a space when none is given: `Flatten`, but for images.

    A `Box` of uint8 and three axes is an image: `NatureCNN` from 36 x 36, `MinAtarCNN` from
    3 x 3. A `Dict` or `Tuple` with an image in it has `Parts`. Floats are never taken for an image.

    Raises:
        ConfigError: for uint8 of two or four axes, which may or may not be an image.

    Example:
        >>> from policy_core import Box, Dict
        >>> from policy_core.encoders import default_encoder
        >>> default_encoder(Box(low=0, high=255, shape=(84, 84, 4), dtype="uint8"))
        NatureCNN(size=512)
        >>> default_encoder(Dict({"pose": Box(shape=(7,))}))
        Flatten()
    """
    if isinstance(space, Box) and space.dtype == "uint8" and len(space.shape) == 3:
        sides = sorted(space.shape)[1:]  # both, wherever the channels are
        return NatureCNN() if sides[0] >= 36 else MinAtarCNN() if sides[0] >= 3 else Flatten()
    if isinstance(space, Box) and space.dtype == "uint8" and len(space.shape) in (2, 4):
        raise ConfigError(
            f"observation_space: got a Box of uint8 and shape {space.shape}; if it is an image, give three "
            "axes (height, width, channels), of which frames are channels; if not, give encoder=Flatten()"
        )
    if isinstance(space, Dict | Tuple):
        parts = {part: default_encoder(inner) for part, inner in parts_of(space).items()}
        if any(not isinstance(encoder, Flatten) for encoder in parts.values()):
            return Parts(tuple(parts.items()))
    return Flatten()


_: type[Encoder] = Parts
