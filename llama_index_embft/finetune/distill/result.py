"""What a distillation did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from llama_index_embft.finetune.engine import FinetuneResult

COSINE: Final = "cosine"
AGREEMENT: Final = "agreement@10"


@dataclass(frozen=True)
class DistillationResult(FinetuneResult):
    """What `DistillationEngine.finetune` did.

    ``metric`` is ``"cosine"``: the mean cosine of the student's vectors to the teacher's, on texts that were held out.
    It chose the weights, so ``best_score`` is never below ``base_score``.

    Attributes:
        agreement: Share of the teacher's ten nearest documents that the saved student finds among the teacher's
            document vectors, for what was held out; in [0, 1].
        base_agreement: The same before training.
        texts: Distinct documents.
        queries: Distinct queries.
        held_out: Queries, or documents where there are none, that were held out.
        dropped: Empty texts and queries, which were left out.
        teacher_texts: Texts and queries that the teacher was asked for in this run; the others came from the cache, or
            were given as vectors.
    """

    agreement: float = 0.0
    base_agreement: float = 0.0
    texts: int = 0
    queries: int = 0
    held_out: int = 0
    dropped: int = 0
    teacher_texts: int = 0

    def __str__(self) -> str:
        """One line for people."""
        return f"{super().__str__()}; {AGREEMENT} with the teacher {self.base_agreement:.3f} → {self.agreement:.3f}"
