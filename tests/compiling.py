"""What a test needs that compares two programs bit by bit, or would compile what others have."""

import os
from typing import Any

# How products and sums are fused decides their last bits: with the emitters of users, which `conftest`
# leaves out. For `jax.jit(..., compiler_options=AS_USERS)`.
AS_USERS: dict[str, Any] | None = (
    {"xla_cpu_use_fusion_emitters": True}
    if "fusion_emitters=false" in os.environ.get("XLA_FLAGS", "")
    else None
)


def fresh(config: Any, *, key: Any) -> Any:
    """The policy of `pc.init`, one operation at a time: a kernel is drawn by a program of its shape.

    Configs share these; under a jit each config has a program of its own, of which `init` is most.
    """
    return config.init(key=key), config
