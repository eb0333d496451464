"""Actor-critic policies as plain `(params, config)` pairs under pure functions."""

from policy_core import distributions as distributions
from policy_core import errors as errors
from policy_core._static import static as static
from policy_core.actor_critic import ActorCriticConfig as ActorCriticConfig
from policy_core.contract import ActorCritic as ActorCritic
from policy_core.contract import Distribution as Distribution
from policy_core.contract import Policy as Policy
from policy_core.contract import Space as Space
from policy_core.files import from_bytes as from_bytes
from policy_core.files import load as load
from policy_core.files import save as save
from policy_core.files import to_bytes as to_bytes
from policy_core.fingerprint import diff as diff
from policy_core.fingerprint import fingerprint as fingerprint
from policy_core.heads import BetaHead as BetaHead
from policy_core.heads import BinsHead as BinsHead
from policy_core.heads import Head as Head
from policy_core.heads import NormalHead as NormalHead
from policy_core.heads import Scale as Scale
from policy_core.heads import SquashedNormalHead as SquashedNormalHead
from policy_core.networks import MLP as MLP
from policy_core.networks import Network as Network
from policy_core.networks import register_activation as register_activation
from policy_core.networks import register_initializer as register_initializer
from policy_core.policy import act as act
from policy_core.policy import action_and_value as action_and_value
from policy_core.policy import action_distribution as action_distribution
from policy_core.policy import env_action as env_action
from policy_core.policy import evaluate_action as evaluate_action
from policy_core.policy import evaluate_sequence as evaluate_sequence
from policy_core.policy import init as init
from policy_core.policy import policy_action as policy_action
from policy_core.policy import reset as reset
from policy_core.policy import value as value
from policy_core.spaces import Box as Box
from policy_core.spaces import Dict as Dict
from policy_core.spaces import Discrete as Discrete
from policy_core.spaces import MultiBinary as MultiBinary
from policy_core.spaces import MultiDiscrete as MultiDiscrete
from policy_core.spaces import Tuple as Tuple
from policy_core.spaces import checked_mask as checked_mask
from policy_core.spaces import rows_of_mask as rows_of_mask

__version__ = "0.1.0"
