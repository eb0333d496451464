"""gymnasium 1.x: spaces both ways, values, vector environments, evaluation.

    space_of, to_gymnasium              spaces
    to_observation, to_mask, to_action  values
    VectorLoop                          a vector environment, whichever way it resets
    make, from_gymnasium                an `Environment`: pure functions, for `examples/ppo.py`
    evaluate                            returns of episodes, with a progress bar and a GIF

gymnasium is imported by `make` and `to_gymnasium` alone; everything else goes by attributes.
"""

from policy_core_adapters.gymnasium.evaluation import Evaluation as Evaluation
from policy_core_adapters.gymnasium.evaluation import evaluate as evaluate
from policy_core_adapters.gymnasium.pure import from_gymnasium as from_gymnasium
from policy_core_adapters.gymnasium.pure import make as make
from policy_core_adapters.gymnasium.spaces import space_of as space_of
from policy_core_adapters.gymnasium.spaces import to_gymnasium as to_gymnasium
from policy_core_adapters.gymnasium.values import to_action as to_action
from policy_core_adapters.gymnasium.values import to_mask as to_mask
from policy_core_adapters.gymnasium.values import to_observation as to_observation
from policy_core_adapters.gymnasium.vector import Turn as Turn
from policy_core_adapters.gymnasium.vector import VectorLoop as VectorLoop
