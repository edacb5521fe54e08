"""A mean over many questions that a judge graded, of which people graded a few: prediction-powered inference.

The estimate is the mean of the people's values, moved by what the judge knows of the questions that nobody labelled:
``mean(human) + weight * (mean of the judge over all - mean of the judge over the labelled)``. A judge who is wrong
everywhere by the same amount cancels out, and so does one whose scale is another: the estimate is that of the people's
grades, whatever the judge is like (Angelopoulos et al., 2023, arXiv 2301.09633). The weight is the one that makes the
interval narrowest on these very labels ("power tuning", PPI++, arXiv 2311.01453), so a useless judge costs next to
nothing: it gets a weight near 0, and what is left is the labels alone.

The labelled questions must be a random draw of all; nothing here can see whether they are.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from llama_index_embft._core.checks import check_number
from llama_index_embft.errors import EvaluationError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]

FEWEST_LABELS: Final = 10
"""Labelled clusters below which no interval is given: its width would be decided by chance."""
_NOTHING: Final = 1e-12
_SAME: Final = 1e-9  # values that differ by rounding
_FEW: Final = 5  # labelled questions that must differ from the fit, for their spread to be believed


@dataclass(frozen=True)
class PredictionPoweredMean:
    """What labels and a judge say together about a mean.

    Attributes:
        estimate: Of the mean of the people's values over all questions like these.
        interval: Of ``level``.
        labels_only: Mean of the labelled questions alone.
        labels_interval: Its interval, of the same level and by the same rule with a weight of 0.
        judge_mean: Mean of the judge over all questions: what one would report without labels.
        bias: How much higher the judge grades than people, on the labelled questions.
        correlation: Of people and judge on the labelled questions; None where one of them never varies.
        weight: Of the judge; 0 is none.
        n: Questions.
        n_labels: Labelled ones.
        n_clusters: Independent groups of the labelled questions.
        labels_to_halve: Labelled questions, these included, that would halve the interval at this weight; None where no
            number would, since so few questions are graded at all.
        level: How often such intervals hold the true mean.
    """

    estimate: float
    interval: tuple[float, float]
    labels_only: float
    labels_interval: tuple[float, float]
    judge_mean: float
    bias: float
    correlation: float | None
    weight: float
    n: int
    n_labels: int
    n_clusters: int
    labels_to_halve: int | None
    level: float

    @property
    def gain(self) -> float:
        """Width of the interval divided by that of the labels alone."""
        low, high = self.labels_interval
        return (self.interval[1] - self.interval[0]) / (high - low) if high > low else 1.0

    def to_dict(self) -> dict[str, Any]:
        """The same as plain data, with `gain`."""
        return {**asdict(self), "gain": self.gain}


def prediction_powered_mean(
    human: ArrayLike, judge: ArrayLike, clusters: ArrayLike | None = None, *, level: float = 0.95
) -> PredictionPoweredMean:
    """Estimate a mean from many judged questions and a few labelled ones.

    Args:
        human: Shape ``(n,)``: the value by people's grades, NaN where nobody labelled the question. A metric between 0
            and 1, or a difference of two such.
        judge: Shape ``(n,)``: the value of the same question by the judge's grades.
        clusters: Shape ``(n,)``, a label a question; questions with equal labels, such as those about one document, are
            dependent. None: none are.
        level: Of the intervals.

    Raises:
        EvaluationError: The shapes differ, the judge lacks a value, or fewer than ten independent groups are labelled.
        ConfigError: The level is not between 0 and 1.
    """
    from scipy.stats import t as student

    check_number("level", level, above=0, below=1)
    people, machine = np.asarray(human, dtype=np.float64), np.asarray(judge, dtype=np.float64)
    if people.ndim != 1 or people.shape != machine.shape:
        raise EvaluationError(
            f"`human` and `judge` must have one shape (n,); they have {people.shape} and {machine.shape}."
        )
    if not np.isfinite(machine).all():
        raise EvaluationError("The judge must have a finite value for every question; leave out those without one.")
    n = len(people)
    given = np.arange(n) if clusters is None else np.asarray(clusters)
    group = np.unique(given, return_inverse=True)[1].reshape(-1)
    labelled = np.isfinite(people)
    n_labels, n_clusters = int(labelled.sum()), len(np.unique(group[labelled]))
    if n_clusters < FEWEST_LABELS:
        what = "questions" if clusters is None else "documents"
        raise EvaluationError(
            f"People labelled {n_clusters} independent {what}; label at least {FEWEST_LABELS}, better 30 to 100, drawn "
            "at random."
        )
    y, f = people[labelled], machine[labelled]
    weight = _weight(y, f, machine, group, labelled)
    quantile = float(student.ppf((1 + level) / 2, n_clusters - 1))
    alone = _error(y, f, machine, group, labelled, 0.0)
    error = _error(y, f, machine, group, labelled, weight) if weight else alone
    quantile_tuned = float(student.ppf((1 + level) / 2, n_clusters - 2)) if weight else quantile
    estimate = float(y.mean() + weight * (machine.mean() - f.mean()))
    varied = y.std() > _NOTHING and f.std() > _NOTHING
    return PredictionPoweredMean(
        estimate=estimate,
        interval=(estimate - quantile_tuned * error, estimate + quantile_tuned * error),
        labels_only=float(y.mean()),
        labels_interval=(float(y.mean() - quantile * alone), float(y.mean() + quantile * alone)),
        judge_mean=float(machine.mean()),
        bias=float((f - y).mean()),
        correlation=float(np.corrcoef(y, f)[0, 1]) if varied else None,
        weight=weight,
        n=n,
        n_labels=n_labels,
        n_clusters=n_clusters,
        labels_to_halve=_to_halve(error, alone, n_labels, n),
        level=level,
    )


def _parts(
    y: Array, f: Array, machine: Array, group: NDArray[np.int64], labelled: NDArray[np.bool_]
) -> tuple[Array, Array]:
    """Sums by cluster of the influence of each question: of the people's mean, and of the judge's correction."""
    n, n_labels = len(machine), len(y)
    size = int(group.max()) + 1
    mine = group[labelled]
    human = np.bincount(mine, weights=(y - y.mean()) / n_labels, minlength=size)
    seen = np.bincount(mine, weights=(f - f.mean()) / n_labels, minlength=size)
    everywhere = np.bincount(group, weights=(machine - machine.mean()) / n)
    return human.astype(np.float64), (everywhere - seen).astype(np.float64)


def _weight(y: Array, f: Array, machine: Array, group: NDArray[np.int64], labelled: NDArray[np.bool_]) -> float:
    """The weight that makes the variance smallest; 0 where the judge never varies."""
    human, judge = _parts(y, f, machine, group, labelled)
    spread = float(judge @ judge)
    return float(-(human @ judge) / spread) if spread > _NOTHING**2 and f.std() > _NOTHING else 0.0


def _error(
    y: Array, f: Array, machine: Array, group: NDArray[np.int64], labelled: NDArray[np.bool_], weight: float
) -> float:
    """Standard error of the estimate at a weight, robust to dependence inside clusters.

    Residuals are raised by their leverage, as in the HC3 estimator: the mean, and with a weight the slope too, were
    fitted to these few labels, and residuals of a fit are too small.
    """
    n, n_labels = len(machine), len(y)
    size = int(group.max()) + 1
    mine = group[labelled]
    counts = np.bincount(mine)[mine]
    leverage = counts / n_labels
    around = f - f.mean()
    if weight:
        held = np.bincount(mine, weights=around**2)[mine]
        leverage = leverage + held / float(around @ around)
    residual = (y - y.mean()) - weight * around
    by_cluster = np.bincount(mine, weights=residual / (1 - np.minimum(leverage, 0.9)) / n_labels, minlength=size)
    by_cluster += np.bincount(group, weights=weight * (machine - machine.mean()) / n)
    error = float(np.sqrt(by_cluster @ by_cluster))
    # By the line that fits the labels best: with the weight of all questions no residual would be quite 0.
    slope = float(around @ (y - y.mean())) / float(around @ around) if weight else 0.0
    if np.count_nonzero(np.abs(y - y.mean() - slope * around) > _SAME) >= _FEW:
        return error
    # Agreement with next to no exception is no proof of it: one question in so many may be off by a whole point.
    return max(error, 1 / n_labels)


def _to_halve(error: float, alone: float, n_labels: int, n: int) -> int | None:
    """Labels at which the variance is a quarter.

    With n questions of which m are labelled it is ``a / m + b``: ``b`` is what all n labelled would leave, the variance
    of the people's mean times m / n; ``a`` what the judge does not explain.
    """
    floor = alone**2 * n_labels / n
    target = error**2 / 4 - floor
    if target <= 0:  # as it is where all are labelled
        return None
    unexplained = (error**2 - floor) / (1 / n_labels - 1 / n)
    return min(int(np.ceil(1 / (target / unexplained + 1 / n) - _SAME)), n)  # rounding is no further label
