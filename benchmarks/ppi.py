"""Do the intervals from a biased judge and a few labels hold the truth, and how much narrower are they?

Questions are drawn whose value by people is known to the simulation; a judge sees it with a bias, on another scale and
with noise; a few questions are labelled at random, and `prediction_powered_mean` estimates the mean over all questions
like these. Coverage must be 95 %. In theory the interval is ``sqrt(1 - r² (1 - m / n))`` as wide as by the m labels
alone, at a correlation of r between judge and people, and n questions judged.

    python benchmarks/ppi.py            # about five minutes on one core
    python benchmarks/ppi.py --quick    # seconds
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
from _common import parser, print_table, write_results

from llama_index_embft.evaluation import prediction_powered_mean

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

QUESTIONS = 1000
LABELS = (30, 50, 100)
KINDS = ("even", "hit rate", "nDCG", "difference")
JUDGES = {"r 0.8, too kind": 0.8, "r 0.5, too kind": 0.5, "of no use": 0.0}
PER_DOCUMENT = (1, 5)
BIAS = 0.15  # what the judge adds everywhere: the mean by the judge alone is off by it
SHARED = 0.2  # share of the variance that the questions about one document have in common


def values(kind: str, owner: NDArray[np.int64], rng: np.random.Generator) -> tuple[Array, float]:
    """Values of the questions by people, and their mean over all such questions.

    Args:
        kind: ``"even"``: normal, with a standard deviation of 0.3; ``"hit rate"``: 0 or 1, on average 0.7; ``"nDCG"``:
            15 % are 0, the others lean to 1; ``"difference"``: 70 % are 0, the others to either side, on average +0.05.
        owner: Document of each question.
        rng: Source of the draws.
    """
    n = len(owner)
    documents = rng.normal(size=int(owner.max()) + 1)[owner]
    alone = rng.normal(size=n)
    share = SHARED if len(np.unique(owner)) < n else 0.0
    latent = np.sqrt(share) * documents + np.sqrt(1 - share) * alone
    if kind == "even":
        return 0.3 * latent, 0.0
    if kind == "hit rate":
        return (latent < 0.5244005).astype(np.float64), 0.7
    if kind == "difference":
        changed = rng.random(n) < 0.3
        return np.where(changed, 0.3 * latent + 0.05, 0.0), 0.3 * 0.05
    from scipy.stats import beta, norm

    zero = rng.random(n) < 0.15
    return np.where(zero, 0.0, beta.ppf(norm.cdf(latent), 0.8, 0.5)), 0.85 * 0.8 / 1.3


def judged(people: Array, correlation: float, rng: np.random.Generator) -> Array:
    """The judge's values: people's with noise and a bias, on half their scale."""
    spread = people.std()
    noise = rng.normal(size=len(people)) * spread
    return BIAS + 0.5 * (correlation * people + np.sqrt(1 - correlation**2) * noise)


def row(kind: str, judge: str, per_document: int, n_labels: int, experiments: int) -> dict[str, Any]:
    """One line of the table."""
    rng = np.random.default_rng([KINDS.index(kind), list(JUDGES).index(judge), per_document, n_labels])
    owner = np.repeat(np.arange(QUESTIONS // per_document), per_document)
    held = alone = 0
    gains, correlations = [], []
    for _ in range(experiments):
        people, truth = values(kind, owner, rng)
        machine = judged(people, JUDGES[judge], rng)
        human = np.full(QUESTIONS, np.nan)
        drawn = rng.choice(QUESTIONS, n_labels, replace=False)
        human[drawn] = people[drawn]
        found = prediction_powered_mean(human, machine, owner if per_document > 1 else None)
        held += found.interval[0] <= truth <= found.interval[1]
        alone += found.labels_interval[0] <= truth <= found.labels_interval[1]
        gains.append(found.gain)
        correlations.append(np.corrcoef(people, machine)[0, 1])
    r = float(np.mean(correlations))
    return {
        "values": kind,
        "judge": judge,
        "questions a document": per_document,
        "labels": n_labels,
        "correlation": round(r, 2),
        "coverage": round(100 * held / experiments, 1),
        "coverage of labels alone": round(100 * alone / experiments, 1),
        "width": round(float(np.mean(gains)), 2),
        "width in theory": round(float(np.sqrt(1 - r**2 * (1 - n_labels / QUESTIONS))), 2),
        "experiments": experiments,
    }


def main() -> None:
    """Print the table and write it."""
    options = parser(__doc__)
    options.add_argument("--quick", action="store_true", help="few experiments, and nothing is written")
    arguments = options.parse_args()
    experiments = 200 if arguments.quick else 3000
    started = time.perf_counter()
    rows = [
        row(kind, judge, per_document, n_labels, experiments)
        for kind in KINDS
        for judge in JUDGES
        for per_document in PER_DOCUMENT
        for n_labels in LABELS
    ]
    print_table(rows)
    print(f"{time.perf_counter() - started:.0f} s")
    if not arguments.quick:
        write_results("ppi", rows)


if __name__ == "__main__":
    main()
