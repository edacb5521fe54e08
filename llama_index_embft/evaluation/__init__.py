"""Score embedding models and retrievers, and say honestly which is better.

Importing this loads numpy, and neither torch nor scipy nor pandas.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

# Imported at once and not on first use: otherwise the module `compare` would stand in for the function of that name.
from llama_index_embft.evaluation.answers import evaluate_query_engine
from llama_index_embft.evaluation.compare import compare
from llama_index_embft.evaluation.comparison import Comparison
from llama_index_embft.evaluation.records import RetrievalReport
from llama_index_embft.evaluation.retrieval import RetrievalEvaluator, evaluate_embed_model, evaluate_embeddings
from llama_index_embft.evaluation.retrievers import aevaluate_retriever, evaluate_retriever
from llama_index_embft.evaluation.runs import evaluate_run, fuse_runs
from llama_index_embft.evaluation.systems import compare_systems, evaluate_bm25, rerank_run
from llama_index_embft.evaluation.trec import read_qrels, read_run, write_qrels, write_run
from llama_index_embft.evaluation.trulens import AppEvaluation, evaluate_app, paired_differences, read_leaderboard

if TYPE_CHECKING:
    from llama_index_embft.evaluation.trulens_live import LiveScorer
    from llama_index_embft.evaluation.trulens_provider import LlamaIndexProvider

__all__ = [
    "AppEvaluation",
    "Comparison",
    "LiveScorer",
    "LlamaIndexProvider",
    "RetrievalEvaluator",
    "RetrievalReport",
    "aevaluate_retriever",
    "compare",
    "compare_systems",
    "evaluate_app",
    "evaluate_bm25",
    "evaluate_embed_model",
    "evaluate_embeddings",
    "evaluate_query_engine",
    "evaluate_retriever",
    "evaluate_run",
    "fuse_runs",
    "paired_differences",
    "read_leaderboard",
    "read_qrels",
    "read_run",
    "rerank_run",
    "write_qrels",
    "write_run",
]


_LAZY = {"LlamaIndexProvider": "trulens_provider", "LiveScorer": "trulens_live"}


def __getattr__(name: str) -> object:
    """Import what stands on TruLens or LlamaIndex when it is first asked for: that takes seconds."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    from llama_index_embft.evaluation.trulens_calls import require_trulens

    require_trulens(f"`{name}`")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
