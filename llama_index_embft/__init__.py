"""Fine-tune the embedding model behind a LlamaIndex retriever, prove that it retrieves better, and plug it in.

Importing this package loads neither torch nor transformers; each name below is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llama_index_embft.dataset import EmbeddingQAFinetuneDataset, load_documents, split_dataset
    from llama_index_embft.embeddings.adapter import AdapterEmbedding
    from llama_index_embft.embeddings.loading import load_embed_model
    from llama_index_embft.evaluation import (
        Comparison,
        RetrievalReport,
        aevaluate_retriever,
        compare,
        evaluate_embed_model,
        evaluate_retriever,
    )
    from llama_index_embft.finetune.adapter import EmbeddingAdapterFinetuneEngine
    from llama_index_embft.finetune.nudge import NudgeFinetuneEngine
    from llama_index_embft.finetune.sentence_transformer import SentenceTransformersFinetuneEngine
    from llama_index_embft.generation import agenerate_qa_embedding_pairs, generate_qa_embedding_pairs
    from llama_index_embft.generation.extractive import generate_extractive_pairs
    from llama_index_embft.mining import mine_hard_negatives

__version__ = "0.1.0"

__all__ = [
    "AdapterEmbedding",
    "Comparison",
    "EmbeddingAdapterFinetuneEngine",
    "EmbeddingQAFinetuneDataset",
    "NudgeFinetuneEngine",
    "RetrievalReport",
    "SentenceTransformersFinetuneEngine",
    "aevaluate_retriever",
    "agenerate_qa_embedding_pairs",
    "compare",
    "evaluate_embed_model",
    "evaluate_retriever",
    "generate_extractive_pairs",
    "generate_qa_embedding_pairs",
    "load_documents",
    "load_embed_model",
    "mine_hard_negatives",
    "split_dataset",
]

_HOME = {
    "AdapterEmbedding": "embeddings.adapter",
    "Comparison": "evaluation",
    "EmbeddingAdapterFinetuneEngine": "finetune.adapter",
    "EmbeddingQAFinetuneDataset": "dataset",
    "NudgeFinetuneEngine": "finetune.nudge",
    "SentenceTransformersFinetuneEngine": "finetune.sentence_transformer",
    "RetrievalReport": "evaluation",
    "aevaluate_retriever": "evaluation",
    "agenerate_qa_embedding_pairs": "generation",
    "compare": "evaluation",
    "evaluate_embed_model": "evaluation",
    "evaluate_retriever": "evaluation",
    "generate_extractive_pairs": "generation.extractive",
    "generate_qa_embedding_pairs": "generation",
    "load_documents": "dataset",
    "load_embed_model": "embeddings.loading",
    "mine_hard_negatives": "mining",
    "split_dataset": "dataset",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
