"""Systems of known quality, for the evaluation tests."""

from __future__ import annotations

import numpy as np

from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
from llama_index_embft.evaluation import RetrievalReport, evaluate_embeddings


def many_queries(n: int = 120, *, per_document: int = 3) -> EmbeddingQAFinetuneDataset:
    """Each query has one relevant chunk; `per_document` chunks come from one source document."""
    return EmbeddingQAFinetuneDataset(
        queries={f"q{i:03}": f"{'what is' if i % 2 else 'tell me about'} thing {i}?" for i in range(n)},
        corpus={f"c{i:03}": f"text about thing {i}" for i in range(n)},
        relevant_docs={f"q{i:03}": [f"c{i:03}"] for i in range(n)},
        source_documents={f"c{i:03}": f"doc{i // per_document:03}" for i in range(n)},
    )


def noisy_report(
    dataset: EmbeddingQAFinetuneDataset, noise: float, *, seed: int = 0, label: str = "system", **options
) -> RetrievalReport:
    """A system that finds the right chunk unless the noise is in the way; the corpus is the same for every call."""
    n = len(dataset.queries)
    corpus = np.random.default_rng(99).normal(size=(n, 16)).astype(np.float32)
    queries = corpus + noise * np.random.default_rng(seed).normal(size=(n, 16)).astype(np.float32)
    return evaluate_embeddings(dataset, queries.astype(np.float32), corpus, label=label, **options)
