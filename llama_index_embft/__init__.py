"""Fine-tune the embedding model behind a LlamaIndex retriever, prove that it retrieves better, and plug it in.

Importing this package loads neither torch nor transformers; each name below is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llama_index_embft.dataset import (
        EmbeddingQAFinetuneDataset,
        load_documents,
        read_dataset,
        split_dataset,
        write_dataset,
    )
    from llama_index_embft.embeddings.adapter import AdapterEmbedding
    from llama_index_embft.embeddings.loading import load_embed_model
    from llama_index_embft.evaluation import (
        Comparison,
        RetrievalReport,
        aevaluate_retriever,
        evaluate_embed_model,
        evaluate_retriever,
    )
    from llama_index_embft.evaluation.compare import compare
    from llama_index_embft.evaluation.trulens import evaluate_app
    from llama_index_embft.export import export_model, load_exported
    from llama_index_embft.export.hub import push_to_hub
    from llama_index_embft.finetune.adapter import EmbeddingAdapterFinetuneEngine
    from llama_index_embft.finetune.drift import DriftAdapter
    from llama_index_embft.finetune.nudge import NudgeFinetuneEngine
    from llama_index_embft.finetune.sentence_transformer import SentenceTransformersFinetuneEngine
    from llama_index_embft.generation import agenerate_qa_embedding_pairs, generate_qa_embedding_pairs
    from llama_index_embft.generation.extractive import generate_extractive_pairs
    from llama_index_embft.index.identity import check_index, stamp_index
    from llama_index_embft.index.reembed import reembed_index
    from llama_index_embft.index.retrievers import checked_retriever
    from llama_index_embft.index.update import rollback_index, update_index
    from llama_index_embft.mining import mine_hard_negatives

__version__ = "0.1.0"

__all__ = [
    "AdapterEmbedding",
    "Comparison",
    "DriftAdapter",
    "EmbeddingAdapterFinetuneEngine",
    "EmbeddingQAFinetuneDataset",
    "NudgeFinetuneEngine",
    "RetrievalReport",
    "SentenceTransformersFinetuneEngine",
    "aevaluate_retriever",
    "agenerate_qa_embedding_pairs",
    "check_index",
    "checked_retriever",
    "compare",
    "evaluate_app",
    "evaluate_embed_model",
    "evaluate_retriever",
    "export_model",
    "generate_extractive_pairs",
    "generate_qa_embedding_pairs",
    "load_documents",
    "load_embed_model",
    "load_exported",
    "mine_hard_negatives",
    "push_to_hub",
    "read_dataset",
    "reembed_index",
    "rollback_index",
    "split_dataset",
    "stamp_index",
    "update_index",
    "write_dataset",
]

_HOME = {
    "AdapterEmbedding": "embeddings.adapter",
    "Comparison": "evaluation",
    "DriftAdapter": "finetune.drift",
    "EmbeddingAdapterFinetuneEngine": "finetune.adapter",
    "EmbeddingQAFinetuneDataset": "dataset",
    "NudgeFinetuneEngine": "finetune.nudge",
    "RetrievalReport": "evaluation",
    "SentenceTransformersFinetuneEngine": "finetune.sentence_transformer",
    "aevaluate_retriever": "evaluation",
    "agenerate_qa_embedding_pairs": "generation",
    "check_index": "index.identity",
    "checked_retriever": "index.retrievers",
    "compare": "evaluation.compare",
    "evaluate_app": "evaluation.trulens",
    "evaluate_embed_model": "evaluation",
    "evaluate_retriever": "evaluation",
    "export_model": "export",
    "generate_extractive_pairs": "generation.extractive",
    "generate_qa_embedding_pairs": "generation",
    "load_documents": "dataset",
    "load_embed_model": "embeddings.loading",
    "load_exported": "export",
    "mine_hard_negatives": "mining",
    "push_to_hub": "export.hub",
    "read_dataset": "dataset",
    "reembed_index": "index.reembed",
    "rollback_index": "index.update",
    "split_dataset": "dataset",
    "stamp_index": "index.identity",
    "update_index": "index.update",
    "write_dataset": "dataset",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
