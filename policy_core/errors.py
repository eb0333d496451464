"""The exceptions of this library.

Every exception is a `ValueError`. Its message has the argument, what was got, what was expected
and what to do, and never a whole array.

    PolicyError(ValueError)
    ├── ConfigError         a field of a config is not static data, or out of range
    │   └── ConfigTypeError an argument of a config is unknown or missing; also a TypeError
    ├── StructureError      an argument does not have the structure, shape or dtype asked for
    │   ├── MaskError       an action mask cannot apply to the action space
    │   └── MemberError     a population has no such member; also an IndexError
    ├── ContractError       an implementation breaks the actor-critic contract
    └── FileError           a file is not a policy file, is damaged, or is inconsistent
        ├── FingerprintError    a file holds a policy of another config
        └── SelfTestError       a policy does not act as it did where its file was saved
"""


class PolicyError(ValueError):
    """Base class of all exceptions raised by `policy_core`."""


class ConfigError(PolicyError):
    """A field of a config is not static data, or its value is out of range."""


class ConfigTypeError(ConfigError, TypeError):
    """A config got an argument that it does not have, or lacks one that it needs."""


class StructureError(PolicyError):
    """An argument does not have the expected structure, shape or dtype."""


class MaskError(StructureError):
    """An action mask cannot apply to the action space."""


class MemberError(StructureError, IndexError):
    """A population has no member of this number."""


class ContractError(PolicyError):
    """An implementation breaks the actor-critic contract."""


class FileError(PolicyError):
    """A file is not a policy file, is damaged, or contradicts itself."""


class FingerprintError(FileError):
    """A file holds a policy of another config; the message lists the fields that differ."""


class SelfTestError(FileError):
    """A loaded policy does not reproduce its saved outputs; the message has the largest deviation."""
