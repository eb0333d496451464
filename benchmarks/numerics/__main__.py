"""Writes docs/numerics.md, or prints the errors as JSON; see the package."""

import argparse
import json
import math
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.numerics.common import has_distrax
from benchmarks.numerics.measure import errors, of_row
from benchmarks.numerics.rows import ROWS
from benchmarks.table import markdown

ROOT = Path(__file__).parent.parent.parent


def _cell(error: float | None) -> str:
    return "" if error is None else "non-finite" if math.isinf(error) else f"{error:.0e}"


def report() -> str:
    everyone = ("ours", "naive", "distrax") if has_distrax else ("ours", "naive")
    narrow = errors(quick=False, who=everyone)
    command = [sys.executable, "-m", "benchmarks.numerics", "--json"]
    environment = {**os.environ, "JAX_ENABLE_X64": "1"}
    wide = subprocess.run(
        command,
        cwd=ROOT,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    double = json.loads(wide.stdout)
    rows = []
    for row in ROWS:
        found = [narrow[row.family].get(name, {}) for name in ("ours", "naive", "distrax")]
        ours, naive, theirs = (_cell(of_row(row, worst)) for worst in found)
        ours_64 = _cell(of_row(row, double[row.family]["ours"]))
        quantity = f"{row.family} {row.quantity}"
        rows.append((quantity, row.cases, _cell(row.asked), ours, ours_64, naive, theirs))
    header = ("quantity", "cases", "asked", "ours float32", "ours float64", "naive", "distrax")
    return TEMPLATE.replace("@ERRORS@", markdown(header, rows))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.json:
        print(json.dumps(errors(quick=options.quick, who=("ours",))))
    else:
        (ROOT / "docs" / "numerics.md").write_text(report())


TEMPLATE = """\
# Numerics

The errors of the [distributions](actions.md#distributions) against references in extended precision
(80-bit floats, quadrature, mpmath) that are given the same rounded inputs. An error
is |x - reference| / max(1, |reference|), the worst of the cases; a gradient counts in reverse and
forward mode. *naive* is the textbook formula in plain JAX, *distrax* is distrax 0.1; both are given
masked logits as -1e8 and -1e30, the usual ways. Empty: there is no such function. *non-finite*: NaN or
infinity where the right number is finite.

## Errors

@ERRORS@

## What is weaker than was asked

- **KL of categoricals** is held to 6e-7 by the tests, and its gradient with respect to the first
  distribution to 1e-6 of the largest entry of the row: such an entry is p (r - sum of p r), and
  where one class dominates the difference of two near numbers is all that is left of it.
- **Log-densities of normals** are sums of terms of both signs. At log-std -20 the terms are of size
  20 and their sum may be near 0; half an ulp of 20 is 1e-6 already, and the square of the distance
  in standard deviations doubles the rounding of both of its factors. Relative to the largest term
  the error stays below 5e-7. The same holds for the squashed normal, where the terms are of size 2|u|.
- **From an environment action**, up to 1 - 2^-24 of a bound, the draw of a squashed normal or a Beta is
  recovered to four ulp in any box (3.3 at most in 4e7 draws over 75 boxes, 2.7 in all but one), and that
  alone costs the log-density up to 8e-7. Stored policy actions lose nothing.
- **Mean and standard deviation of a squashed normal** come from the mixture that gives its entropy, and up to
  a standard deviation of 2 before the squash from 53 nodes of the trapezoid rule. In units of half the width
  the mean is off by 2e-7 at most, the standard deviation by 6e-7 up to there; beyond, by 5e-4 where all but
  1e-7 of the draws are at one bound (means in +-1e4, log-std in [-12, 20]).
- **KL of Beta distributions** is off by 6e-5 at worst, where one concentration is about 1e-2 in both
  and the other is some 1000 times larger in the second: (0.01, 3.16) against (0.01, 1000). In 99 % of
  random pairs it is below 2e-6.
- **Draws of a categorical have weights of 32 bits** (float32): multiples of 2^-31 of their sum, or of
  2^-25 of the largest where there are at most 32. A class that is less likely may never be drawn. The law
  of the draws is within a total variation of 1.5e-8 (n = 2), 1.3e-7 (18), 1e-7 (256), 4e-7 (1000) of the
  softmax, for normal logits of standard deviation 1, 3 and 8; classes that are never drawn have a mass of
  1e-7 at most together. So a mean of numbers in +-1 over draws is off by twice that, as much as the error
  of an average over more than 10^12 draws. Bits of a `MultiBinary` have 64 bits, and are right down to 2^-64.

Tests hold these figures on fewer points of the same cases. `python -m benchmarks.numerics` measures
them again and writes this page.

## Speed

[Benchmarks](benchmarks.md) has the time of draws, scores and gradients
[beside the same network by hand](benchmarks.md#beside-the-same-network-by-hand), of
[sampling a categorical](benchmarks.md#sampling-a-categorical) beside `jax.random` and distrax, and of the
exact [entropy of a squashed normal](benchmarks.md#the-entropy-of-a-squashed-normal) beside one sample.
"""

if __name__ == "__main__":
    main()
