"""Spaces of observations and actions, as static configs.

Bounds, sizes and dtypes are part of a config and so of the fingerprint; none is an array
that an optimizer could update. An element of a space is an array (`Box`, `Discrete`,
`MultiDiscrete`, `MultiBinary`), a plain dict (`Dict`) or a tuple (`Tuple`).

Masks are boolean, true = allowed, in the structure of `full_mask`. A row of a mask that
allows nothing counts as a row that allows everything.
"""

from policy_core.spaces.box import Box as Box
from policy_core.spaces.composite import Dict as Dict
from policy_core.spaces.composite import Tuple as Tuple
from policy_core.spaces.discrete import Discrete as Discrete
from policy_core.spaces.discrete import MultiBinary as MultiBinary
from policy_core.spaces.discrete import MultiDiscrete as MultiDiscrete
from policy_core.spaces.masks import JointMask as JointMask
from policy_core.spaces.masks import checked_mask as checked_mask
from policy_core.spaces.masks import rows_of_mask as rows_of_mask
