"""A data set as rows of the formats that trainers read.

Every function yields plain dicts of texts, made one by one; `write_jsonl` writes them to a file, and
``datasets.Dataset.from_list(list(rows))`` makes a Hugging Face data set of them. `write_dataset` writes whole data sets
in these and other formats.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_index_embft.dataset.formats._rows import json_line
from llama_index_embft.dataset.formats._sink import write_pieces
from llama_index_embft.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset


def pairs(dataset: EmbeddingQAFinetuneDataset) -> Iterator[dict[str, str]]:
    """``{"anchor", "positive"}``: one row for each query and each of its relevant documents."""
    for _, query, positive in _positives(dataset):
        yield {"anchor": query, "positive": dataset.corpus[positive]}


def ntuples(dataset: EmbeddingQAFinetuneDataset, n: int | None = None) -> Iterator[dict[str, str]]:
    """``{"anchor", "positive", "negative_1", …, "negative_n"}``, the hardest first.

    Args:
        dataset: A data set with negatives.
        n: Negatives a row. None takes as many as every query has; queries with fewer than a given n are left out, since
            all rows must have the same columns.

    Raises:
        ConfigError: ``n`` is below 1, or there is no query with so many negatives, or (for None) one without any.
    """
    counts = [len(dataset.negative_docs.get(query_id, ())) for query_id in dataset.queries]
    wanted = min(counts, default=0) if n is None else n
    if wanted < 1:
        hint = f"{counts.count(0)} queries have none; give `n` to leave those out" if n is None else f"got {n}"
        raise ConfigError(f"A row needs at least one negative: {hint}.")
    if max(counts, default=0) < wanted:
        raise ConfigError(f"No query has {wanted} negatives; the most is {max(counts, default=0)}.")
    for query_id, query, positive in _positives(dataset):
        negatives = dataset.negative_docs.get(query_id, [])
        if len(negatives) >= wanted:
            row = {"anchor": query, "positive": dataset.corpus[positive]}
            row |= {f"negative_{place}": dataset.corpus[doc] for place, doc in enumerate(negatives[:wanted], start=1)}
            yield row


def triplets(dataset: EmbeddingQAFinetuneDataset) -> Iterator[dict[str, str]]:
    """``{"anchor", "positive", "negative"}``: one row for each query, positive and negative."""
    for query_id, query, positive in _positives(dataset):
        for negative in dataset.negative_docs.get(query_id, ()):
            yield {"anchor": query, "positive": dataset.corpus[positive], "negative": dataset.corpus[negative]}


def labelled_pairs(
    dataset: EmbeddingQAFinetuneDataset, scores: dict[str, dict[str, float]] | None = None
) -> Iterator[dict[str, str | float]]:
    """``{"sentence1", "sentence2", "score"}``: one row for each query and each of its documents.

    Args:
        dataset: A data set with negatives.
        scores: Query id -> document id -> score, such as a data set's ``teacher_scores``; pairs without one are left
            out. None gives 1.0 to positives and 0.0 to negatives.
    """
    for query_id, query in dataset.queries.items():
        labelled = [(doc, 1.0) for doc in dataset.relevant_docs[query_id]]
        labelled += [(doc, 0.0) for doc in dataset.negative_docs.get(query_id, ())]
        for doc, label in labelled:
            score = label if scores is None else scores.get(query_id, {}).get(doc)
            if score is not None:
                yield {"sentence1": query, "sentence2": dataset.corpus[doc], "score": score}


def flag_embedding_rows(
    dataset: EmbeddingQAFinetuneDataset, scores: dict[str, dict[str, float]] | None = None
) -> Iterator[dict[str, Any]]:
    """``{"query", "pos": […], "neg": […]}``, FlagEmbedding's format: one row a query.

    Args:
        dataset: A data set with negatives.
        scores: A teacher's, as for `labelled_pairs`; adds ``pos_scores`` and ``neg_scores``. Negatives without a score
            are left out of such rows, and so are queries of which a positive has none.
    """
    for query_id, query in dataset.queries.items():
        positives, negatives = dataset.relevant_docs[query_id], dataset.negative_docs.get(query_id, [])
        row: dict[str, Any] = {"query": query}
        if scores is not None:
            known = scores.get(query_id, {})
            if not all(doc in known for doc in positives):
                continue
            negatives = [doc for doc in negatives if doc in known]
            row |= {"pos_scores": [known[doc] for doc in positives], "neg_scores": [known[doc] for doc in negatives]}
        row |= {
            "pos": [dataset.corpus[doc] for doc in positives],
            "neg": [dataset.corpus[doc] for doc in negatives],
        }
        yield row


def teacher_rows(
    dataset: EmbeddingQAFinetuneDataset, scores: dict[str, dict[str, float]], n: int
) -> Iterator[dict[str, Any]]:
    """``{"query", "positive", "negative_1", …, "label": [score of the positive, of negative_1, …]}`` for distillation.

    sentence-transformers' ``DistillKLDivLoss`` and ``MarginMSELoss`` take such rows.

    Args:
        dataset: A data set with negatives.
        scores: Query id -> document id -> score, such as a data set's ``teacher_scores``.
        n: Negatives a row; queries with fewer that have a score are left out.

    Raises:
        ConfigError: ``n`` is below 1.
    """
    if n < 1:
        raise ConfigError(f"`n` must be at least 1, got {n}.")
    for query_id, query, positive in _positives(dataset):
        known = scores.get(query_id, {})
        negatives = [doc for doc in dataset.negative_docs.get(query_id, ()) if doc in known][:n]
        if positive in known and len(negatives) == n:
            row: dict[str, Any] = {"query": query, "positive": dataset.corpus[positive]}
            row |= {f"negative_{place}": dataset.corpus[doc] for place, doc in enumerate(negatives, start=1)}
            yield {**row, "label": [known[doc] for doc in (positive, *negatives)]}


def write_jsonl(rows: Iterable[dict[str, Any]], path: str | Path) -> int:
    """Write rows as JSON lines, one by one, whole or not at all.

    Returns:
        How many rows there were.

    Raises:
        DatasetError: A text holds half of a character (a lone surrogate).
        OutputError: The file cannot be written.
    """
    return write_pieces(path, map(json_line, rows))


def _positives(dataset: EmbeddingQAFinetuneDataset) -> Iterator[tuple[str, str, str]]:
    """Query id, query and relevant document of every pair."""
    for query_id, query in dataset.queries.items():
        for positive in dataset.relevant_docs[query_id]:
            yield query_id, query, positive
