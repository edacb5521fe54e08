"""Hashes of questions and documents, kept in a model's record, so that an evaluation sees what the model has seen."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from llama_index_embft.dataset.near_duplicates import normalise

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset


def text_hash(text: str) -> str:
    """The first 16 hex digits of the SHA-256 of a text without differences of case, space and punctuation."""
    return hashlib.sha256((normalise(text) or text).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def text_hashes(*datasets: EmbeddingQAFinetuneDataset | None) -> dict[str, list[str]]:
    """Hashes of the questions of data sets, and of the documents that answer them.

    They tell an evaluation that a model has seen its questions, without giving the texts away.

    Args:
        datasets: None is skipped.

    Returns:
        ``queries`` and ``documents``, sorted and without repeats.
    """
    given = [dataset for dataset in datasets if dataset is not None]
    documents = {dataset.corpus[doc] for dataset in given for docs in dataset.relevant_docs.values() for doc in docs}
    return {
        "queries": _sorted(query for dataset in given for query in dataset.queries.values()),
        "documents": _sorted(documents),
    }


def _sorted(texts: Iterable[str]) -> list[str]:
    return sorted({text_hash(text) for text in texts})
