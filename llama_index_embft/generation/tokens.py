"""Counting tokens: on the ground floor, in `calls.tokens`, where embedding models find it too."""

from __future__ import annotations

from llama_index_embft.calls.tokens import certainly_fits, count_tokens, cut_to_tokens

__all__ = ["certainly_fits", "count_tokens", "cut_to_tokens"]
