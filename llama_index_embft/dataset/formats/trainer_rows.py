"""A data set as rows of the formats that trainers read: plain dicts of texts, made one by one.

`write_rows` writes them to a file; ``datasets.Dataset.from_list(list(rows))`` makes a Hugging Face data set of them.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Final

from llama_index_embft.dataset.formats.rows import Row, write_rows
from llama_index_embft.errors import ConfigError, DatasetError

if TYPE_CHECKING:
    import os
    from collections import Counter
    from collections.abc import Iterator

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset

INFGRAD: Final = ("Query", "Positive Document", "Hard Negative Document")
_NEGATIVES: Final = "none has a negative document; mine some first (`embft mine`) or write pairs"
_SCORES: Final = "none of their documents has a teacher's score; write with teacher_scores=false"


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


def _positives(dataset: EmbeddingQAFinetuneDataset) -> Iterator[tuple[str, str, str]]:
    """Query id, query and relevant document of every pair."""
    for query_id, query in dataset.queries.items():
        for positive in dataset.relevant_docs[query_id]:
            yield query_id, query, positive


# --- writing ----------------------------------------------------------------------------------------------------------


def write_pairs(dataset: EmbeddingQAFinetuneDataset, path: str | os.PathLike[str], lost: Counter[str]) -> int:
    """``anchor, positive``: a row for each query and relevant document."""
    del lost
    return write_rows(pairs(dataset), path, ("anchor", "positive"))


def write_triplets(dataset: EmbeddingQAFinetuneDataset, path: str | os.PathLike[str], lost: Counter[str]) -> int:
    """``anchor, positive, negative``: a row for each query, relevant document and negative."""
    _count_short(dataset, 1, lost)
    rows = some_rows(triplets(dataset), dataset, _NEGATIVES)
    return write_rows(rows, path, ("anchor", "positive", "negative"))


def write_ntuples(
    dataset: EmbeddingQAFinetuneDataset, path: str | os.PathLike[str], lost: Counter[str], *, n: int | None = None
) -> int:
    """``anchor, positive, negative_1 … negative_n``.

    Args:
        dataset: A data set with negatives.
        path: See `write_rows`.
        lost: Counts queries with fewer negatives, and the negatives of others beyond ``n``.
        n: Negatives a row; None takes as many as every query with negatives has.

    Raises:
        ConfigError: No query has ``n`` negatives, or ``n`` is below 1.
    """
    counts = [len(docs) for docs in dataset.negative_docs.values() if docs]
    wanted = min(counts, default=0) if n is None else n
    if not counts:
        raise ConfigError("The data set has no negatives; mine some first (`embft mine`) or write pairs.")
    _count_short(dataset, wanted, lost)
    lost[f"negatives beyond {wanted} a query"] += sum(count - wanted for count in counts if count > wanted)
    return write_rows(ntuples(dataset, wanted), path)


def write_scored(
    dataset: EmbeddingQAFinetuneDataset,
    path: str | os.PathLike[str],
    lost: Counter[str],
    *,
    teacher_scores: bool = True,
) -> int:
    """``sentence1, sentence2, score``: a row for each query and document.

    Args:
        dataset: A data set.
        path: See `write_rows`.
        lost: Counts the pairs without a score.
        teacher_scores: Write the teacher's scores, if the data set has some, and leave out the pairs without one;
            otherwise positives have 1.0 and negatives 0.0.
    """
    scores = dataset.teacher_scores if teacher_scores else {}
    pairs = sum(map(len, dataset.relevant_docs.values())) + sum(map(len, dataset.negative_docs.values()))
    made = some_rows(labelled_pairs(dataset, scores or None), dataset, _SCORES)
    rows = write_rows(made, path, ("sentence1", "sentence2", "score"))
    lost["pairs without a score"] += pairs - rows
    return rows


def write_infgrad(dataset: EmbeddingQAFinetuneDataset, path: str | os.PathLike[str], lost: Counter[str]) -> int:
    """``Query, Positive Document, Hard Negative Document``, one row a query, as ``infgrad/retrieval_data_llm``."""
    _count_short(dataset, 1, lost)
    for query, docs in dataset.negative_docs.items():
        lost["negatives beyond 1 a query"] += max(0, len(docs) - 1)
        lost["relevant documents beyond 1 a query"] += len(dataset.relevant_docs[query]) - 1 if docs else 0

    def rows() -> Iterator[Row]:
        for query, docs in dataset.negative_docs.items():
            if docs:
                first = dataset.relevant_docs[query][0]
                texts = (dataset.queries[query], dataset.corpus[first], dataset.corpus[docs[0]])
                yield dict(zip(INFGRAD, texts, strict=True))

    return write_rows(some_rows(rows(), dataset, _NEGATIVES), path, INFGRAD)


def some_rows(rows: Iterator[Row], dataset: EmbeddingQAFinetuneDataset, needed: str) -> Iterator[Row]:
    """Look at the first row before a file is touched: an empty one in the place of a good one is a loss.

    Args:
        rows: What is to be written.
        dataset: What it is made of; one without queries has no rows.
        needed: What a query lacks if it gives no row, and what to do.

    Raises:
        DatasetError: There are queries, but no row.
    """
    first = next(rows, None)
    if first is None and dataset.queries:
        raise DatasetError(f"None of the {len(dataset.queries):,} queries gives a row: {needed}.")
    return rows if first is None else itertools.chain([first], rows)


def _count_short(dataset: EmbeddingQAFinetuneDataset, n: int, lost: Counter[str]) -> None:
    short = [query for query in dataset.queries if len(dataset.negative_docs.get(query, ())) < n]
    lost[f"queries with fewer than {n} negative documents"] += len(short)
