"""What a reranker knows, put into the embedding model: candidates are judged once, and the model learns to agree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from llama_index_embft.mining import mine_hard_negatives
from llama_index_embft.mining.teachers import CrossEncoder
from llama_index_embft.retrievers.reranking import CrossEncoderReranker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.embeddings.encoding.cache import EmbeddingCache
    from llama_index_embft.pipeline.parts import DenseModel

NEGATIVES: Final = 4
"""Passages of each question that are learnt from beside those that answer it."""
JUDGED: Final = NEGATIVES + 3
"""Passages of each question that the reranker reads, about: some are dropped as answers."""
_DEPTH: Final = 30


def why_no_teacher(reranker: Any) -> str:
    """Why a reranker cannot teach, in words; empty where it can."""
    if isinstance(reranker, CrossEncoderReranker):
        return ""
    if reranker is None:
        return "it learns from a reranker, and there is none; name one, or train one"
    return f"it learns from scores of single pairs, which {type(reranker).__name__} does not give"


class _ByFunction:
    """A function of a query and texts with the face of a cross-encoder."""

    def __init__(self, reranker: CrossEncoderReranker) -> None:
        self._reranker = reranker

    def predict(self, pairs: Sequence[tuple[str, str]], **_: Any) -> list[float]:
        return [float(self._reranker.scores(query, [text])[0]) for query, text in pairs]


def judged_by(
    reranker: CrossEncoderReranker,
    train: EmbeddingQAFinetuneDataset,
    found_by: DenseModel,
    *,
    seed: int,
    cache: EmbeddingCache | None,
    show_progress: bool,
) -> EmbeddingQAFinetuneDataset:
    """Training questions with hard negatives, and what the reranker says of them and of the passages that answer.

    Args:
        reranker: The teacher. A cross-encoder's scores are kept in the cache.
        train: Questions with the passages that answer them.
        found_by: Its first 30 hits are the candidates: what the model takes for answers.
        seed: Of draws.
        cache: Where vectors are kept.
        show_progress: Show bars.

    Raises:
        ConfigError: No negative is found.
        ModelError: The reranker failed.
    """
    model = reranker.cross_encoder
    teacher = CrossEncoder(
        model if hasattr(model, "predict") else _ByFunction(reranker), batch_size=reranker.batch_size
    )
    return mine_hard_negatives(
        train,
        found_by.embed_model,
        [f"rank:1-{min(_DEPTH, len(train.corpus))}", teacher],
        min(NEGATIVES, len(train.corpus) - 1),
        seed=seed,
        cache=cache,
        show_progress=show_progress,
    )
