"""The distribution of a policy that has no actor: every method is an error."""

from typing import Any, NamedTuple, NoReturn

from policy_core.contract import Key
from policy_core.distributions.numerics.common import takes_seed
from policy_core.errors import StructureError


@takes_seed
class NoActor(NamedTuple):
    """What a critic by itself has in place of a distribution: it has no parameters, and every method raises.

    Raises:
        StructureError: by every method.

    Example:
        >>> from policy_core.distributions import NoActor
        >>> NoActor().mode()
        Traceback (most recent call last):
        ...
        policy_core.errors.StructureError: policy: has no actor, so there is no action; ...
    """

    def sample(self, *, key: Key) -> NoReturn:
        """An error."""
        _refuse()

    def mode(self) -> NoReturn:
        """An error."""
        _refuse()

    def log_prob(self, action: Any) -> NoReturn:
        """An error."""
        _refuse()

    def entropy(self) -> NoReturn:
        """An error."""
        _refuse()

    def kl(self, other: Any) -> NoReturn:
        """An error."""
        _refuse()

    def sample_and_log_prob(self, *, key: Key) -> NoReturn:
        """An error."""
        _refuse()


def _refuse() -> NoReturn:
    raise StructureError(
        "policy: has no actor, so there is no action; use value, or the policy that was passed to critic_only"
    )
