"""Configs: frozen, validated, hashable data without leaves, and what stands for them in a file.

registry     name to class, the only way from a file back to a class
validation   a field holds exactly what its annotation says
codec        plain data and canonical bytes, and back
decorator    `static` and `added`
comparison   `fingerprint` and `diff`
export       configs, and named tuples, in what `jax.export` serializes
named        functions by registered name
"""

from policy_core.configs.comparison import diff as diff
from policy_core.configs.comparison import fingerprint as fingerprint
from policy_core.configs.decorator import added as added
from policy_core.configs.decorator import static as static
from policy_core.configs.export import serialize_tuples as serialize_tuples
from policy_core.configs.validation import set_field as set_field
