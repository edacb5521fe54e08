"""How near a student is to its teacher, on texts that it has not learned from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from llama_index_embft._core.vectors import unit_rows
from llama_index_embft.finetune.distill.result import AGREEMENT, COSINE
from llama_index_embft.finetune.vectors import share_kept

if TYPE_CHECKING:
    from llama_index_embft.embeddings.encoding.encoder import Encoder
    from llama_index_embft.finetune.distill.targets import Targets

_K = 10


class TeacherAgreement:
    """Compares vectors, and what they find among the teacher's document vectors.

    Args:
        targets: The teacher's vectors, and what is held out.
    """

    def __init__(self, targets: Targets) -> None:
        self._kind = targets.asked
        self._texts = [targets.texts[self._kind][row] for row in targets.held_out]
        self._wanted = targets.vectors[self._kind][targets.held_out]
        self._documents = targets.vectors["document"]
        # A document that plays a query would find itself.
        self._own = None if self._kind == "query" else [np.array([row]) for row in targets.held_out]

    def metrics(self, encoder: Encoder) -> dict[str, float]:
        """Mean cosine to the teacher's vectors, and the share of its ten nearest documents that is found."""
        encode = encoder.encode_queries if self._kind == "query" else encoder.encode_documents
        found = unit_rows(encode(self._texts))
        kept = share_kept(self._wanted, found, self._documents, self._documents, _K, self._own)
        return {COSINE: float((found * self._wanted).sum(axis=1).mean()), AGREEMENT: float(kept.mean())}
