"""Actor-critic policies as plain `(params, config)` pairs under pure functions.

Beside the names below these modules are public: `contract` (all protocols), `spaces`, `networks`,
`encoders`, `memory`, `heads`, `distributions`, `files`, `surgery`, `population`, `env_actions`, `errors`,
and, imported by itself, `testing`.
"""

import warnings

from policy_core import (
    contract,
    distributions,
    encoders,
    env_actions,
    errors,
    files,
    heads,
    memory,
    networks,
    population,
    spaces,
    surgery,
)
from policy_core.actor_critic import ActorCriticConfig
from policy_core.configs import added, diff, fingerprint, static
from policy_core.configs.export import serialize_tuples as _serialize_tuples
from policy_core.contract import Policy
from policy_core.encoders import Embedding, Flatten, ImpalaCNN, MinAtarCNN, NatureCNN, Parts
from policy_core.files import from_bytes, inspect, load, load_extra, save, to_bytes, verify
from policy_core.functions.describe import batch_shape, summary
from policy_core.functions.sequence import evaluate_sequence, forward_sequence
from policy_core.functions.step import (
    act,
    action_and_value,
    action_distribution,
    env_action,
    evaluate_action,
    forward,
    init,
    policy_action,
    reset,
    value,
)
from policy_core.functions.training import trainable, update_statistics
from policy_core.heads import (
    Autoregressive,
    BetaHead,
    BinsHead,
    HLGaussHead,
    NormalHead,
    RegressionHead,
    Scale,
    SquashedNormalHead,
    TwoHotHead,
)
from policy_core.memory import GRU, LSTM, MinGRU, Stack, WindowAttention
from policy_core.networks import MLP, ResidualMLP
from policy_core.normalize import Normalize
from policy_core.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from policy_core.surgery import actor_only, transplant

__version__ = "0.1.0"

__all__ = [
    "ActorCriticConfig", "Autoregressive", "BetaHead", "BinsHead", "Box", "Dict", "Discrete", "Embedding",
    "Flatten", "GRU", "HLGaussHead", "ImpalaCNN", "LSTM", "MLP", "MinAtarCNN", "MinGRU", "MultiBinary",
    "MultiDiscrete", "NatureCNN", "NormalHead", "Normalize", "Parts", "Policy", "RegressionHead",
    "ResidualMLP", "Scale", "SquashedNormalHead", "Stack", "Tuple", "TwoHotHead", "WindowAttention",
    "act", "action_and_value", "action_distribution", "actor_only", "added", "batch_shape", "diff",
    "env_action", "evaluate_action", "evaluate_sequence", "fingerprint", "forward", "forward_sequence",
    "from_bytes", "init", "inspect", "load", "load_extra", "policy_action", "reset", "save", "static",
    "summary", "to_bytes", "trainable", "transplant", "update_statistics", "value", "verify",
]  # fmt: skip
_MODULES = (
    contract, distributions, encoders, env_actions, errors, files, heads, memory, networks, population,
    spaces, surgery,
)  # fmt: skip

_serialize_tuples(*_MODULES)

_RENAMED: dict[str, str] = {}  # old name to new, for one minor version


def __getattr__(name: str) -> object:
    """The object of a deprecated name, with a `DeprecationWarning`."""
    if name not in _RENAMED:
        raise AttributeError(f"module 'policy_core' has no attribute {name!r}")
    message = f"policy_core.{name} is deprecated, use policy_core.{_RENAMED[name]}"
    warnings.warn(message, DeprecationWarning, stacklevel=2)
    return globals()[_RENAMED[name]]


def __dir__() -> list[str]:
    """The public names and modules."""
    return sorted([*__all__, "__version__", *(module.__name__.partition(".")[2] for module in _MODULES)])
