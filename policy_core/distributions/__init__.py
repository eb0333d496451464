"""Distributions over policy actions: NamedTuples of parameters with pure methods.

A distribution is a pytree: its arrays are leaves, its space is static. All methods work
on trailing axes only, so they also apply to a distribution returned from any nesting of `vmap`,
with its leading batch axes. Parameters are float32, or float64 if given as such.
"""

from policy_core.distributions.autoregressive import AutoregressiveJoint as AutoregressiveJoint
from policy_core.distributions.bernoulli import Bernoulli as Bernoulli
from policy_core.distributions.beta import Beta as Beta
from policy_core.distributions.categorical import Categorical as Categorical
from policy_core.distributions.categorical import MultiCategorical as MultiCategorical
from policy_core.distributions.joint import Joint as Joint
from policy_core.distributions.kept_noise import KeptNoise as KeptNoise
from policy_core.distributions.no_actor import NoActor as NoActor
from policy_core.distributions.normal import Normal as Normal
from policy_core.distributions.numerics.common import MASKED_LOG_PROB as MASKED_LOG_PROB
from policy_core.distributions.product_categorical import ProductCategorical as ProductCategorical
from policy_core.distributions.squashed_normal import SquashedNormal as SquashedNormal
