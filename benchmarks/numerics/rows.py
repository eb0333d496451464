"""The lines of the table, and what is held of each."""

from typing import NamedTuple

from benchmarks.numerics.common import LARGEST_TERM


class Row(NamedTuple):
    """A line of the table. `held` is what the tests hold in float32, `asked` what was wished for."""

    family: str
    quantity: str
    cases: str
    asked: float | None
    held: float


ROWS = (
    Row("Categorical", "log_prob", "n = 1 to 10000, logits in +-1e4, -1e9, -inf", 3e-7, 3e-7),
    Row("Categorical", "log_prob gradient", "same", 3e-7, 3e-7),
    Row("Categorical", "entropy", "same", 3e-7, 3e-7),
    Row("Categorical", "entropy gradient", "same", 3e-7, 3e-7),
    Row("Categorical", "KL", "same", 3e-7, 6e-7),
    Row("Categorical", "KL gradient p", "same; relative to the largest of the row", 3e-7, 1e-6),
    Row("Categorical", "KL gradient q", "same", 3e-7, 3e-7),
    Row("Categorical", "KL, near-equal", "logits differ by 1e-6 to 1e-4; absolute", 1e-9, 1e-9),
    Row(
        "Categorical, masked", "log_prob", "masked logits 1e6, +-inf, NaN; allowed ones also -1e9", 3e-7, 3e-7
    ),
    Row("Categorical, masked", "log_prob gradient", "same", 3e-7, 3e-7),
    Row("Categorical, masked", "entropy", "same", 3e-7, 3e-7),
    Row("Categorical, masked", "entropy gradient", "same", 3e-7, 3e-7),
    Row("Categorical, masked", "KL", "same", 3e-7, 6e-7),
    Row("Categorical, masked", "KL gradient p", "same; relative to the largest of the row", 3e-7, 1e-6),
    Row("Categorical, masked", "KL gradient q", "same", 3e-7, 3e-7),
    Row("MultiCategorical", "log_prob", "rows of 2, 3, 18, 5, 1; masked likewise", 3e-7, 3e-7),
    Row("MultiCategorical", "log_prob gradient", "same", 3e-7, 3e-7),
    Row("MultiCategorical", "entropy", "same", 3e-7, 3e-7),
    Row("MultiCategorical", "entropy gradient", "same", 3e-7, 3e-7),
    Row("MultiCategorical", "KL", "same", 3e-7, 6e-7),
    Row("MultiCategorical", "KL gradient p", "same; relative to the largest of the row", 3e-7, 1e-6),
    Row("MultiCategorical", "KL gradient q", "same", 3e-7, 3e-7),
    Row("Bernoulli", "log_prob", "logits in +-1e4, both bits", 3e-7, 3e-7),
    Row("Bernoulli", "log_prob gradient", "same, also at 0", 3e-7, 3e-7),
    Row("Bernoulli", "entropy", "same", 3e-7, 3e-7),
    Row("Bernoulli", "entropy gradient", "same", 3e-7, 3e-7),
    Row("Bernoulli", "KL", "same, against near and far", 3e-7, 3e-7),
    Row("Bernoulli", "KL gradient", "same", 3e-7, 3e-7),
    Row("Bernoulli", "KL, near-equal", "logits differ by 1e-6 to 1e-4; absolute", 1e-9, 1e-9),
    Row("Normal", "log_prob", "log-std in +-20, to 1000 std from the mean", 5e-7, 1e-5),
    Row("Normal", LARGEST_TERM, "same", 5e-7, 5e-7),
    Row("Normal", "log_prob gradient", "same", 5e-7, 5e-7),
    Row("Normal", "entropy", "same", 5e-7, 5e-7),
    Row("Normal", "KL", "same, log-stds differ by up to 5", 1e-6, 1e-6),
    Row("Normal", "KL gradient", "same", 1e-6, 1e-6),
    Row("SquashedNormal", "log_prob", "of draws in +-1e4, log-std in +-20", 5e-7, 1e-4),
    Row("SquashedNormal", LARGEST_TERM, "same", 5e-7, 5e-7),
    Row("SquashedNormal", "log_prob gradient", "same", 1e-5, 1e-5),
    Row("SquashedNormal", "entropy", "log-std in [-20, 1]", 1e-6, 1e-6),
    Row("SquashedNormal", "entropy gradient", "same", 1e-5, 1e-5),
    Row("SquashedNormal", "entropy, log-std 2", "means in +-1e4", 1e-5, 1e-6),
    Row("SquashedNormal", "entropy, log-std 3", "same", 1e-2, 1e-6),
    Row("SquashedNormal", "entropy, log-std 2 gradient", "same, also log-std 3", 1e-5, 1e-5),
    Row("Beta", "log_prob", "concentrations in [1e-2, 1e4], log-odds in +-1e4", 1e-4, 5e-6),
    Row("Beta", "log_prob gradient", "same", 1e-5, 1e-5),
    Row("Beta", "entropy", "same", 1e-4, 5e-6),
    Row("Beta", "entropy gradient", "same", 1e-5, 1e-5),
    Row("Beta", "KL", "same, near and far", None, 1e-4),
    Row("Beta", "KL gradient", "same", 1e-5, 1e-5),
)
