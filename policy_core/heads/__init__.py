"""Heads: from features to a distribution over the action space.

The one place that maps spaces to distributions.
"""

from policy_core.heads.autoregressive import Autoregressive as Autoregressive
from policy_core.heads.autoregressive import AutoregressiveHead as AutoregressiveHead
from policy_core.heads.autoregressive import register_mask_function as register_mask_function
from policy_core.heads.composite import JointHead as JointHead
from policy_core.heads.composite import head_of as head_of
from policy_core.heads.continuous import BetaHead as BetaHead
from policy_core.heads.continuous import NormalHead as NormalHead
from policy_core.heads.continuous import Scale as Scale
from policy_core.heads.continuous import SquashedNormalHead as SquashedNormalHead
from policy_core.heads.discrete import BinsHead as BinsHead
from policy_core.heads.discrete import LogitsHead as LogitsHead
from policy_core.heads.protocol import Head as Head
