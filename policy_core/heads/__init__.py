"""Heads: from features to a distribution over the action space, and to a prediction of the return.

discrete, continuous        heads of discrete spaces and of boxes
gsde                        a head of boxes, whose noise is kept
scale                       standard deviations
composite, autoregressive   heads of independent parts, and of parts that depend on others
value, popart               heads of the critic
"""

from policy_core.heads.autoregressive import Autoregressive as Autoregressive
from policy_core.heads.autoregressive import register_mask_function as register_mask_function
from policy_core.heads.composite import PartHeads as PartHeads
from policy_core.heads.continuous import BetaHead as BetaHead
from policy_core.heads.continuous import NormalHead as NormalHead
from policy_core.heads.continuous import SquashedNormalHead as SquashedNormalHead
from policy_core.heads.discrete import BinsHead as BinsHead
from policy_core.heads.discrete import LogitsHead as LogitsHead
from policy_core.heads.gsde import GSDEHead as GSDEHead
from policy_core.heads.popart import NormalizedValue as NormalizedValue
from policy_core.heads.popart import PopArtHead as PopArtHead
from policy_core.heads.scale import Scale as Scale
from policy_core.heads.value import CategoricalValue as CategoricalValue
from policy_core.heads.value import HLGaussHead as HLGaussHead
from policy_core.heads.value import RegressedValue as RegressedValue
from policy_core.heads.value import RegressionHead as RegressionHead
from policy_core.heads.value import TwoHotHead as TwoHotHead
