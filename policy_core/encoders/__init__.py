"""Encoders: from an observation to a vector of features.

Each is a static config; `check_space` raises `ConfigError` for a space that it does not support.
"""

from policy_core.encoders.flat import Embedding as Embedding
from policy_core.encoders.flat import Encode as Encode
from policy_core.encoders.flat import Flatten as Flatten
from policy_core.encoders.images import CNN as CNN
from policy_core.encoders.images import ImpalaCNN as ImpalaCNN
from policy_core.encoders.images import MinAtarCNN as MinAtarCNN
from policy_core.encoders.images import NatureCNN as NatureCNN
from policy_core.encoders.parts import Parts as Parts
from policy_core.encoders.parts import default_encoder as default_encoder
