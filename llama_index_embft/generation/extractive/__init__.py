"""Questions without an LLM, made from the chunks' own words; what they are worth: `docs/explanation/extractive.md`."""

from __future__ import annotations

from llama_index_embft.generation.extractive.kinds import KINDS
from llama_index_embft.generation.extractive.pairs import DEFAULT_KINDS, generate_extractive_pairs

__all__ = ["DEFAULT_KINDS", "KINDS", "generate_extractive_pairs"]
