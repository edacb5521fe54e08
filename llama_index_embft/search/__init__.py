"""Exact nearest-neighbour search, used by mining, evaluation and the adapters."""

from __future__ import annotations

from llama_index_embft.search.topk import TopK, top_k, top_k_ids

__all__ = ["TopK", "top_k", "top_k_ids"]
