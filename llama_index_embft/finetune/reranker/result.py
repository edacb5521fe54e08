"""What the training of a reranker did."""

from __future__ import annotations

from dataclasses import dataclass

from llama_index_embft.finetune.engine import FinetuneResult


@dataclass(frozen=True)
class RerankerResult(FinetuneResult):
    """What `RerankerFinetuneEngine.finetune` did.

    ``base_score`` is the better one of no reranking and the reranker that training began with; ``best_score`` is that
    of the saved reranker with its `weight`, on validation, and never below.

    Attributes:
        weight: Share of the reranker in the ranking, 0 to 1; 0: it did not help, and the order stays as it is.
        first_stage_score: Validation nDCG@10 without a reranker; None without a validation set.
        alone_score: That of the saved reranker alone, with weight 1.
        within_reach: Share of the validation questions with a relevant passage among their candidates; no reranker
            finds the others. None without a validation set.
        dropped: Questions that training left out: those without a negative among their candidates.
    """

    weight: float = 1.0
    first_stage_score: float | None = None
    alone_score: float | None = None
    within_reach: float | None = None
    dropped: int = 0
