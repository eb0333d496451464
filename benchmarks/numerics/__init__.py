"""How right the distributions are: worst errors against references in extended precision.

`python -m benchmarks.numerics` measures and writes docs/numerics.md; with distrax installed it
measures that too. `tests/test_distributions.py` holds the bounds of `ROWS` on fewer points of the
same cases. `--json` prints the errors of one precision (float64 if JAX_ENABLE_X64=1), and
`--quick` takes fewer points.

An error is |x - reference| / max(1, |reference|), where the reference sees the same rounded
inputs. A gradient is measured in reverse, entry by entry, and forward along random signs,
there relative to the sum of the sizes of what is added.
"""

from benchmarks.numerics.measure import errors as errors
from benchmarks.numerics.measure import of_row as of_row
from benchmarks.numerics.rows import ROWS as ROWS
from benchmarks.numerics.rows import Row as Row
