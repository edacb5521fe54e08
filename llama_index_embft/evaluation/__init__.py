"""Score embedding models and retrievers, and say honestly which is better.

Importing this loads numpy, and neither torch nor scipy nor pandas.
"""

from __future__ import annotations

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

__all__ = [
    "Comparison",
    "RetrievalEvaluator",
    "RetrievalReport",
    "aevaluate_retriever",
    "compare",
    "compare_systems",
    "evaluate_bm25",
    "evaluate_embed_model",
    "evaluate_embeddings",
    "evaluate_query_engine",
    "evaluate_retriever",
    "evaluate_run",
    "fuse_runs",
    "read_qrels",
    "read_run",
    "rerank_run",
    "write_qrels",
    "write_run",
]
