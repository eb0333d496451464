"""Static configs: frozen, validated, hashable pytrees without leaves, and their encoding in files.

registry     config classes by name, the only way from a file back to a class
validation   exact checks of fields against their annotations
codec        configs to plain data and canonical bytes, and back
decorator    `static` and `added`
comparison   `fingerprint` and `diff`
export       configs, and named tuples, in what `jax.export` serializes
named        functions by registered name
"""

from policy_core.configs.comparison import diff as diff
from policy_core.configs.comparison import fingerprint as fingerprint
from policy_core.configs.decorator import added as added
from policy_core.configs.decorator import static as static
from policy_core.configs.validation import set_field as set_field
