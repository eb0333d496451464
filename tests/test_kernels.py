"""How many kernels XLA makes of every row of `benchmarks/floor.py` on a CPU, as users compile."""

import jax
import pytest
from compiling import AS_USERS

from benchmarks import floor, programs

pytestmark = pytest.mark.usefixtures("unchecked", "lenient")


@pytest.mark.parametrize("task", programs.TASKS)
@pytest.mark.parametrize("row", floor.ROWS)
def test_a_program_has_no_more_kernels_than_are_recorded(row: str, task: str) -> None:
    recorded = programs.recorded(row, task, "cpu")
    if recorded is None:
        pytest.skip(f"programs.json is of another jax than {jax.__version__}; {programs.AGAIN}")
    both, arguments = programs.shapes(floor.ROWS[row], task)
    found = programs.kernels(both["ours"].lower(*arguments).compile(AS_USERS).as_text())
    assert programs.grown(recorded, found) == [], f"{programs.AGAIN}; found {found}"
