"""The decision rules that `compare` does not use, on the data of ``calibration.py``: why none of them was taken.

    python benchmarks/calibration_others.py

A rule is good if it calls at most 2.5 % of the evaluations without a true gain a gain. Each works on the means of the
questions about each document, weighted by their number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from _common import parser, print_table, write_results
from calibration import COLUMNS, experiments
from scipy.special import stdtr

from llama_index_embft.evaluation.statistics import paired_tests

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

DOCUMENTS = (2, 3, 5, 8, 12, 20, 40)
RESAMPLES = 399
SIX_POINTS = np.sqrt([0.5, 1.0, 1.5])


def mean_and_error(means: Array, weights: Array) -> tuple[Array, Array]:
    """Weighted mean and cluster-robust standard error, along the first axis of `means`."""
    n = len(weights)
    mean = np.tensordot(weights, means, axes=1)
    return mean, np.sqrt(np.tensordot(weights**2, (means - mean) ** 2, axes=1) * n / (n - 1))


def sign_flips(means: Array, weights: Array, rng: np.random.Generator) -> Array:
    """Randomisation test: each document's difference may as well have the other sign (the rule before this one)."""
    sums = weights[:, None] * means
    signs = rng.choice([-1.0, 1.0], size=(RESAMPLES, len(weights)))
    beyond = (np.abs(signs @ sums) >= np.abs(sums.sum(axis=0)) - 1e-12).sum(axis=0)
    p: Array = (beyond + 1) / (RESAMPLES + 1)
    return p


def student(means: Array, weights: Array, _: np.random.Generator) -> Array:
    """Student's t with documents - 1 degrees of freedom."""
    mean, error = mean_and_error(means, weights)
    p: Array = 2 * stdtr(len(weights) - 1, -np.abs(mean / error))
    return p


def bell_mccaffrey(means: Array, weights: Array, _: np.random.Generator) -> Array:
    """CR2 standard error with Satterthwaite's degrees of freedom (Bell and McCaffrey 2002)."""
    n = len(weights)
    factors = weights**2 / (1 - 2 * weights + (weights**2).sum())
    mean = weights @ means
    error = np.sqrt(factors @ (means - mean) ** 2)
    centre = np.eye(n) - np.outer(np.ones(n), weights)
    form = centre.T @ np.diag(factors) @ centre
    freedom = np.trace(form) ** 2 / np.trace(form @ form)
    p: Array = 2 * stdtr(freedom, -np.abs(mean / error))
    return p


def johnson(means: Array, weights: Array, _: np.random.Generator) -> Array:
    """t adjusted for the skewness seen (Johnson 1978), with documents - 1 degrees of freedom."""
    n = len(weights)
    mean, error = mean_and_error(means, weights)
    skewness = weights @ (means - mean) ** 3 / (weights @ (means - mean) ** 2) ** 1.5
    ratio = mean / error
    adjusted = ratio + skewness / (6 * np.sqrt(n)) + skewness * ratio**2 / (3 * np.sqrt(n))
    p: Array = 2 * stdtr(n - 1, -np.abs(adjusted))
    return np.where(np.sign(adjusted) == np.sign(mean), p, 1.0)


def wild_bootstrap(means: Array, weights: Array, rng: np.random.Generator) -> Array:
    """Wild cluster bootstrap-t with Webb's six points, null imposed (Cameron, Gelbach and Miller 2008; Webb 2014)."""
    mean, error = mean_and_error(means, weights)
    beyond = np.zeros(len(mean))
    for _ in range(RESAMPLES):
        signs = rng.choice(np.concatenate([-SIX_POINTS, SIX_POINTS]), size=means.shape)
        drawn, its_error = mean_and_error(signs * means, weights)
        beyond += np.abs(drawn / its_error) >= np.abs(mean / error) - 1e-12
    p: Array = (beyond + 1) / (RESAMPLES + 1)
    return p


def studentised_bootstrap(means: Array, weights: Array, rng: np.random.Generator) -> Array:
    """Bootstrap-t over documents, equal tails (Hall 1988)."""
    mean, error = mean_and_error(means, weights)
    above = np.zeros(len(mean))
    columns = np.arange(len(mean))
    for _ in range(RESAMPLES):
        drawn = rng.integers(0, len(weights), size=means.shape)
        shares = weights[drawn] / weights[drawn].sum(axis=0)
        values = means[drawn, columns]
        its_mean = (shares * values).sum(axis=0)
        its_error = np.sqrt((shares**2 * (values - its_mean) ** 2).sum(axis=0) * len(weights) / (len(weights) - 1))
        with np.errstate(divide="ignore", invalid="ignore"):
            above += np.nan_to_num((its_mean - mean) / its_error, nan=np.inf) >= mean / error
    p: Array = 2 * (np.minimum(above, RESAMPLES - above) + 1) / (RESAMPLES + 1)
    return np.where((above < RESAMPLES / 2) == (mean > 0), p, 1.0)


RULES: dict[str, Callable[[Array, Array, np.random.Generator], Array]] = {
    "sign flips": sign_flips,
    "Student's t": student,
    "CR2, Satterthwaite": bell_mccaffrey,
    "Johnson's t": johnson,
    "wild bootstrap": wild_bootstrap,
    "bootstrap-t": studentised_bootstrap,
}


def false_gains(n_documents: int, sizes: str, kind: str, n: int) -> dict[str, Any]:
    """Share of false gains of every rule, in per cent."""
    rng = np.random.default_rng(0)
    counts = dict.fromkeys([*RULES, "this rule"], 0)
    for owner, values in experiments(n_documents, sizes, kind, 0.2, n, seed=0):
        number = np.bincount(owner)
        means = np.add.reduceat(values, np.flatnonzero(np.diff(owner, prepend=-1)), axis=0) / number[:, None]
        gain = number / number.sum() @ means > 0
        for name, rule in RULES.items():
            counts[name] += int(((rule(means, number / number.sum(), rng) < 0.05) & gain).sum())
        counts["this rule"] += sum(test.p < 0.05 and test.difference > 0 for test in paired_tests(values, owner))
    shares = {name: round(100 * count / n, 1) for name, count in counts.items()}
    return {"documents": n_documents, "questions": sizes, "differences": kind, **shares, "experiments": n}


def main() -> None:
    """Measure, print and write."""
    options = parser(__doc__)
    options.add_argument("--experiments", type=int, default=2_000, help="evaluations drawn for each figure")
    args = options.parse_args()
    n = max(COLUMNS, args.experiments)
    designs = [(sizes, kind) for sizes in ("20 each", "unequal") for kind in ("normal", "skewed")]
    rows = [false_gains(g, sizes, kind, n) for sizes, kind in designs for g in DOCUMENTS]
    print_table(rows)
    write_results("calibration_others", rows)


if __name__ == "__main__":
    main()
