"""What the first stage finds: the passages that a reranker is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from llama_index_embft.embeddings.encoding.encoder import as_encoder
from llama_index_embft.search.fusion import fuse
from llama_index_embft.search.lexical import LexicalIndex
from llama_index_embft.search.topk import ExactIndex, TopK

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.embeddings.encoding.cache import EmbeddingCache
    from llama_index_embft.finetune.reranker.settings import CandidateSettings


@dataclass(frozen=True)
class FirstStageHits:
    """Passages for each question of a data set, best first.

    Attributes:
        ids: Ids of the corpus by row, descending, so that ties are settled as trec_eval does.
        query_ids: The questions.
        hits: Rows and scores, shape ``(n_queries, k)``; -1 for none.
    """

    ids: list[str]
    query_ids: list[str]
    hits: TopK


def find_candidates(
    dataset: EmbeddingQAFinetuneDataset,
    query_ids: list[str],
    embed_model: BaseEmbedding | None,
    settings: CandidateSettings,
    *,
    cache: EmbeddingCache | Literal["default"] | None = "default",
    show_progress: bool = False,
) -> FirstStageHits:
    """Search the corpus of a data set as the stack does: BM25, the embedding model, or both mixed.

    Args:
        dataset: Questions and corpus.
        query_ids: The questions to search for.
        embed_model: The dense part; None: BM25 alone.
        settings: Depth, and the share of the dense part.
        cache: Where vectors are kept.
        show_progress: Show bars.
    """
    ids = sorted(dataset.corpus, reverse=True)
    queries = [dataset.queries[query] for query in query_ids]
    depth = min(settings.depth, len(ids))
    weight = settings.dense_weight if embed_model is not None else 0.0
    lexical = dense = TopK(np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0), np.float32))
    if weight < 1:
        lexical = LexicalIndex.build({doc: dataset.corpus[doc] for doc in ids}).search(queries, depth)
    if embed_model is not None and weight > 0:
        encoder = as_encoder(embed_model, cache=cache, show_progress=show_progress)
        index = ExactIndex(encoder.encode_documents([dataset.corpus[doc] for doc in ids]))
        dense = index.search(encoder.encode_queries(queries), depth)
    fused = fuse(dense, lexical, weight, depth=depth)
    return FirstStageHits(ids, query_ids, TopK(fused.rows[:, :depth], fused.scores[:, :depth]))
