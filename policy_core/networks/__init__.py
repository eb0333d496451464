"""Networks: static configs with `init(in_size, key=..., dtype=...)` and `apply(params, x)`.

    activations    activations by name
    primitive      a JAX primitive for initializers
    initializers   initial kernels by name
    layers         linear layers and layer norm
    mlp, residual  the networks
    sequential     networks one after the other

A network computes in the dtype of its input, whatever that of its params.
"""

from policy_core.networks.activations import register_activation as register_activation
from policy_core.networks.initializers import register_initializer as register_initializer
from policy_core.networks.mlp import MLP as MLP
from policy_core.networks.residual import ResidualMLP as ResidualMLP
from policy_core.networks.sequential import LayerNorm as LayerNorm
from policy_core.networks.sequential import Sequential as Sequential
