"""Settings of a `StackRetriever`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from llama_index_embft._core.checks import check_choice, check_number
from llama_index_embft.evaluation.tasks import IndexedText
from llama_index_embft.search.fusion import DEFAULT_DEPTH, DEFAULT_FUSION, Fusion


@dataclass(frozen=True)
class StackSettings:
    """How a `StackRetriever` ranks.

    Args:
        dense_weight: Share of the dense part, 0 to 1: 0 is BM25 alone (no query is ever embedded), 1 is the dense
            retriever alone. Learn it from questions with `learn_weight`.
        fusion: How the scores of both parts are made comparable; see `fuse`.
        depth: Hits of each part that are fused.
        rerank_depth: Fused hits that the reranker reads, where there is one; at least ``similarity_top_k`` are read.
        metadata_mode: Which text is searched by words: ``"embed"``, the one that the index embeds, or ``"none"``,
            without metadata.

    Raises:
        ConfigError: A value is not allowed.
    """

    dense_weight: float = 0.5
    fusion: Fusion = DEFAULT_FUSION
    depth: int = DEFAULT_DEPTH
    rerank_depth: int = 50
    metadata_mode: IndexedText = "embed"

    def __post_init__(self) -> None:
        check_number("dense_weight", self.dense_weight, at_least=0, at_most=1)
        check_choice("fusion", self.fusion, get_args(Fusion))
        check_number("depth", self.depth, at_least=1)
        check_number("rerank_depth", self.rerank_depth, at_least=1)
        check_choice("metadata_mode", self.metadata_mode, get_args(IndexedText))
