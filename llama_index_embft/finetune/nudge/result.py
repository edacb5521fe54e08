"""What moving documents did, and what to expect of it, in words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from llama_index_embft.finetune.engine import FinetuneResult

# The record's name of what is expected for documents without a training query, see `ndcg_if_not_moved`.
UNASKED: Final = "unasked_ndcg@10"
# Below this the score that chooses the step is mostly chance.
_FEW: Final = 30


@dataclass(frozen=True)
class NudgeResult(FinetuneResult):
    """What `NudgeFinetuneEngine.finetune` did.

    Attributes:
        step: How far documents moved: N: an angle in radians; M: a length. 0: nothing moved.
        moved_documents: Documents whose vector changed: all that must be written to a vector store.
        val_queries: Validation queries that chose the step.
        val_queries_reached: Those of them whose relevant document has a training query, and so can move at all.
        unasked_share: Of the documents, those without a training query, between 0 and 1: they stay where they are.
        unasked_base: nDCG@10 of the validation queries and up to 1,000 training queries before the movement, with one
            relevant document each.
        unasked_score: The same if their own documents had stayed and all others had moved: what to expect of a query
            about a document without a training query.
        limited: Whether a step that is better on validation was left out for `max_unasked_loss`.
    """

    step: float = 0.0
    moved_documents: int = 0
    val_queries: int = 0
    val_queries_reached: int = 0
    unasked_share: float = 0.0
    unasked_base: float = 0.0
    unasked_score: float = 0.0
    limited: bool = False
    ids: tuple[str, ...] = field(default=(), repr=False)

    @property
    def explanation(self) -> str:
        """Why nothing moved, or how far the result reaches, in one or two sentences."""
        share = f"{self.val_queries_reached} of {self.val_queries} validation queries are about a document that has a"
        if self.step > 0:
            few = "So few say little about it: give a val_dataset. " if self.val_queries < _FEW else ""
            return (
                f"{self.moved_documents} documents moved. {share} training query. {few}{self.unasked_share:.0%} of the "
                f"documents have none and stayed: for queries about them expect nDCG@10 {self.unasked_score:.3f}, "
                f"where it was {self.unasked_base:.3f}." + (f" For their sake {self._left_out}" if self.limited else "")
            )
        if self.val_queries_reached == 0:
            return (
                f"Nothing moved: {share} training query, and NUDGE moves only documents that have one. It helps with "
                "new questions about the same documents, so split by query, not by document; for unseen documents "
                "train an adapter or the model."
            )
        if self.limited:
            return f"Nothing moved: {share} training query, and {self._left_out}"
        return f"Nothing moved: {share} training query, and no step improved {self.metric} on them all."

    @property
    def _left_out(self) -> str:
        best = max(self.history, key=lambda entry: entry[self.metric])
        return (
            f"the step that is best on them ({self.metric} {best[self.metric]:.3f}) was not taken: queries about the "
            f"{self.unasked_share:.0%} of the documents without a training query would fall to {best[UNASKED]:.3f} "
            "(max_unasked_loss)."
        )

    def __str__(self) -> str:
        """Two lines for people."""
        return f"{super().__str__()}\n{self.explanation}"
