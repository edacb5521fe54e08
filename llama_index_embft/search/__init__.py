"""Exact nearest-neighbour search, used by mining, evaluation and the adapters."""

from __future__ import annotations

from llama_index_embft.search.topk import ExactIndex, TopK, top_k, top_k_ids

__all__ = ["ExactIndex", "TopK", "top_k", "top_k_ids"]
