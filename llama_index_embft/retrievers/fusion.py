"""The weight between a dense and a lexical ranking, learnt from questions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from llama_index_embft._core.checks import check_number
from llama_index_embft.errors import EvaluationError
from llama_index_embft.evaluation.metrics import find_hits, parse_metric, score_hits
from llama_index_embft.search.fusion import DEFAULT_DEPTH, DEFAULT_FUSION, Fusion, fuse_by_each

if TYPE_CHECKING:
    from llama_index_embft.evaluation.metrics import Judgements
    from llama_index_embft.search.topk import TopK

_PRIOR_SPREAD: Final = 0.3  # how far from the prior the best weight usually lies


@dataclass(frozen=True)
class WeightChoice:
    """A learnt weight, and what each weight of the grid scored.

    Attributes:
        weight: Share of the dense part that was chosen.
        scores: Weight -> mean of the metric on the questions, by rising weight.
        error: Standard error of the mean difference between the best weight and the chosen one; 0 where they are one.
        n: Number of questions.
        metric: Name of the metric.
    """

    weight: float
    scores: dict[float, float]
    error: float
    n: int
    metric: str


def learn_weight(
    dense: TopK,
    lexical: TopK,
    judgements: Judgements,
    *,
    metric: str = "ndcg@10",
    prior: float | None = None,
    method: Fusion = DEFAULT_FUSION,
    depth: int = DEFAULT_DEPTH,
    steps: int = 21,
) -> WeightChoice:
    """Choose the weight of the dense part by what it scores on questions with known answers.

    The mean of all weights is taken, each counted by how well it agrees with the questions and with the prior::

        exp(-(loss / its standard error)^2 / 2) * exp(-((weight - prior) / 0.3)^2 / 2)

    The loss is the mean difference to the best weight, paired by question. A few questions then move the weight only as
    far as they can, and many decide alone. On questions by people that beat the best weight of 15 to 100 questions, and
    the weight nearest to the prior of those within a standard error of the best (docs/explanation/human-questions.md).

    Args:
        dense: Hits of the dense search for each question, see `fuse`.
        lexical: Hits of the lexical one.
        judgements: The relevant rows of each question: ``Judgements.from_qrels(qrels, query_ids, index.row_of)``.
        metric: What to maximise.
        prior: Where the weight would be without questions; None: nowhere, and the questions decide alone.
        method: See `fuse`.
        depth: See `fuse`.
        steps: Number of weights from 0 to 1 that are tried.

    Raises:
        ConfigError: A value is not allowed.
        EvaluationError: There are no questions, or the metric is unknown.
    """
    check_number("steps", steps, at_least=2)
    if prior is not None:
        check_number("prior", prior, at_least=0, at_most=1)
    n = len(judgements.n_relevant)
    if not n or not len(dense.rows) == len(lexical.rows) == n:
        raise EvaluationError(
            f"There are answers to {n} questions, and hits of {len(dense.rows)} and {len(lexical.rows)}; give all "
            "three for at least one question."
        )
    parse_metric(metric)
    grid = [step / (steps - 1) for step in range(steps)]
    n_documents = 1 + max(int(rows.max(initial=0)) for rows in (dense.rows, lexical.rows, judgements.rows))
    found = (
        find_hits(fused.rows, judgements, n_documents) for fused in fuse_by_each(dense, lexical, grid, method, depth)
    )
    table = np.stack([score_hits(hits, judgements, [metric])[metric] for hits in found])
    means = table.mean(axis=1)
    best = int(np.argmax(means))
    losses = table[best] - table
    errors = losses.std(axis=1, ddof=1) / n**0.5 if n > 1 else np.full(steps, np.inf)
    with np.errstate(divide="ignore", invalid="ignore"):
        agreement = np.where(losses.mean(axis=1) <= 0, 0.0, (losses.mean(axis=1) / errors) ** 2)
    if prior is not None:
        agreement += ((np.array(grid) - prior) / _PRIOR_SPREAD) ** 2
    mean = float(np.average(grid, weights=np.exp(-(agreement - agreement.min()) / 2)))
    chosen = round(mean * (steps - 1))
    scores = dict(zip(grid, means.tolist(), strict=True))
    return WeightChoice(grid[chosen], scores, float(errors[chosen]), n, metric)
