"""Memories: recurrent networks whose state is carried from one observation to the next.

Each is a static config with `step` and `sequence`, which agree.
"""

from policy_core.memory.attention import WindowAttention as WindowAttention
from policy_core.memory.frames import FrameStack as FrameStack
from policy_core.memory.gru import GRU as GRU
from policy_core.memory.lstm import LSTM as LSTM
from policy_core.memory.min_gru import MinGRU as MinGRU
from policy_core.memory.scan import scan_steps as scan_steps
from policy_core.memory.stack import Stack as Stack
