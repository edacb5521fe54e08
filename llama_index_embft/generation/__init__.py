"""From nodes to a data set: questions written by a language model, or taken from the text itself.

The names are imported on first use, so that importing this folder loads neither LlamaIndex nor an LLM client.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

# Public name -> module of this folder that holds it.
_HOME: Final = {
    "agenerate_negatives": "negatives",
    "agenerate_qa_embedding_pairs": "llm",
    "Difficulty": "filters_retrieval",
    "GenerationEstimate": "report",
    "GenerationReport": "report",
    "generate_negatives": "negatives",
    "generate_extractive_pairs": "extractive",
    "generate_qa_embedding_pairs": "llm",
    "Judge": "filters_judge",
    "NearDuplicates": "filters",
    "QuestionFilter": "filters",
    "RefersToText": "filters",
    "RoundTrip": "filters_retrieval",
    "WrongLanguage": "filters",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(_HOME)
