"""Small data sets and reports for the evaluation tests."""

from __future__ import annotations

import pytest

from llama_index_embft.dataset import EmbeddingQAFinetuneDataset


@pytest.fixture
def tiny_dataset() -> EmbeddingQAFinetuneDataset:
    """Three queries over four documents, one query with two graded relevant documents."""
    return EmbeddingQAFinetuneDataset(
        queries={"q1": "red fruit", "q2": "yellow fruit", "q3": "sky"},
        corpus={"apple": "An apple is red.", "banana": "A banana is yellow.", "lemon": "Lemons.", "blue": "Blue sky."},
        relevant_docs={"q1": ["apple"], "q2": ["banana", "lemon"], "q3": ["blue"]},
        relevance_grades={"q2": {"banana": 2}},
        source_documents={"apple": "fruit", "banana": "fruit", "lemon": "fruit"},
    )
