"""From nodes to a data set: questions written by a language model, or taken from the text itself.

The names are imported on first use, so that importing this folder loads neither LlamaIndex nor an LLM client.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from llama_index_embft.generation.extractive import generate_extractive_pairs
    from llama_index_embft.generation.filters import NearDuplicates, QuestionFilter, RefersToText, WrongLanguage
    from llama_index_embft.generation.filters_judge import Judge
    from llama_index_embft.generation.filters_retrieval import Difficulty, RoundTrip
    from llama_index_embft.generation.llm import agenerate_qa_embedding_pairs, generate_qa_embedding_pairs
    from llama_index_embft.generation.negatives import agenerate_negatives, generate_negatives
    from llama_index_embft.generation.report import GenerationEstimate, GenerationReport

__all__ = [
    "Difficulty",
    "GenerationEstimate",
    "GenerationReport",
    "Judge",
    "NearDuplicates",
    "QuestionFilter",
    "RefersToText",
    "RoundTrip",
    "WrongLanguage",
    "agenerate_negatives",
    "agenerate_qa_embedding_pairs",
    "generate_extractive_pairs",
    "generate_negatives",
    "generate_qa_embedding_pairs",
]

# Public name -> module of this folder that holds it.
_HOME: Final = {
    "Difficulty": "filters_retrieval",
    "GenerationEstimate": "report",
    "GenerationReport": "report",
    "Judge": "filters_judge",
    "NearDuplicates": "filters",
    "QuestionFilter": "filters",
    "RefersToText": "filters",
    "RoundTrip": "filters_retrieval",
    "WrongLanguage": "filters",
    "agenerate_negatives": "negatives",
    "agenerate_qa_embedding_pairs": "llm",
    "generate_extractive_pairs": "extractive",
    "generate_negatives": "negatives",
    "generate_qa_embedding_pairs": "llm",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(_HOME)
