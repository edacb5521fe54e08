"""Exact nearest-neighbour search, used by mining, evaluation and the adapters; approximate search by extra."""

from __future__ import annotations

from llama_index_embft.search.approximate import ApproximateIndex
from llama_index_embft.search.topk import ExactIndex, TopK, top_k, top_k_ids

__all__ = ["ApproximateIndex", "ExactIndex", "TopK", "top_k", "top_k_ids"]
