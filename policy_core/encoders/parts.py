"""An encoder with one encoder per part of a `Dict` or `Tuple`, and the default encoder of a space."""

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
    """One encoder per part of a `Dict` (by key) or `Tuple` (by index); the features are concatenated.

    They are in sorted order of the names, whatever the order of the mapping.

    Args:
        encoders: name to encoder.
        rest: the encoder of all parts that are not named; None if every part is named.

    Raises:
        ConfigError: for a repeated name.

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
        """Raise `ConfigError` unless every named part is in `space`, and each part has a fitting encoder."""
        if not isinstance(space, Dict | Tuple):
            raise ConfigError(f"{name}: got {type(space).__name__}, but Parts takes a Dict or a Tuple")
        parts = parts_of(space)
        for part, _ in self.encoders:
            if part not in parts:
                raise ConfigError(f"Parts.encoders: got {part!r}, but {name} has the parts {list(parts)}")
        named = dict(self.encoders)
        for part, inner in parts.items():
            encoder = named.get(part, self.rest)
            if encoder is None:
                raise ConfigError(
                    f"Parts.encoders: {part!r} of {name} is missing; name an encoder for it, or give "
                    "rest=Flatten()"
                )
            encoder.check_space(inner, f"{name}[{part!r}]")

    def init(self, space: Space, *, key: Key, dtype: str) -> dict[str, Any]:
        """Fresh params by name, for parts whose encoder has any; `key` is consumed."""
        parts = self._parts(space)
        keys = jax.random.split(key, max(len(parts), 1))
        params = {
            str(part): encoder.init(inner, key=key, dtype=dtype)
            for key, (part, (encoder, inner)) in zip(keys, parts.items(), strict=False)
        }
        return {part: inner for part, inner in params.items() if jax.tree.leaves(inner)}

    def out_size(self, space: Space) -> int:
        """The sum of the output dimensions of the parts."""
        return sum(encoder.out_size(inner) for encoder, inner in self._parts(space).values())

    def apply(self, params: Any, space: Space, observation: PyTree, dtype: str) -> Features:
        """The features of the parts, concatenated."""
        features = [
            encoder.apply(params.get(str(part), {}), inner, observation[part], dtype)
            for part, (encoder, inner) in self._parts(space).items()
        ]
        return jnp.concatenate([jnp.zeros(0, dtype), *features])

    def _parts(self, space: Space) -> dict[Name, tuple[Any, Space]]:
        named = dict(self.encoders)
        return {part: (named.get(part, self.rest), inner) for part, inner in parts_of(space).items()}


def default_encoder(space: Space) -> Encoder:
    """The default encoder of a space: a CNN for images of uint8, `Flatten` for everything else.

    A `Box` of uint8 with three axes is an image: `NatureCNN` from 36 x 36, `MinAtarCNN` from
    3 x 3. A `Dict` or `Tuple` that contains an image gets `Parts`. A box of floats is never an image.

    Raises:
        ConfigError: for uint8 of two or four axes and at least 8 x 8, which may be an image or not.

    Example:
        >>> from policy_core import Box, Dict
        >>> from policy_core.encoders import default_encoder
        >>> default_encoder(Box(low=0, high=255, shape=(84, 84, 4), dtype="uint8"))
        NatureCNN(size=512)
        >>> default_encoder(Dict({"pose": Box(shape=(7,))}))
        Flatten()
    """
    if isinstance(space, Box) and space.dtype == "uint8" and len(space.shape) == 3:
        sides = sorted(space.shape)[1:]  # height and width, also if the channels come first
        return NatureCNN() if sides[0] >= 36 else MinAtarCNN() if sides[0] >= 3 else Flatten()
    if isinstance(space, Box) and space.dtype == "uint8" and _may_be_an_image(space.shape):
        raise ConfigError(
            f"observation_space: got a Box of uint8 and shape {space.shape}; if it is an image, give three "
            "axes (height, width, channels), of which frames are channels; if not, give encoder=Flatten()"
        )
    if isinstance(space, Dict | Tuple):
        parts = {part: default_encoder(inner) for part, inner in parts_of(space).items()}
        if any(not isinstance(encoder, Flatten) for encoder in parts.values()):
            return Parts(tuple(parts.items()))
    return Flatten()


def _may_be_an_image(shape: tuple[int, ...]) -> bool:
    """Whether these are the axes of a grey image, or of a stack of images."""
    return len(shape) in (2, 4) and sorted(shape)[-2] >= 8


_: type[Encoder] = Parts
