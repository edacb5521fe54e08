"""A data set as the rows that sentence-transformers trains on, and what must not meet in one batch."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import random
from collections import Counter
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from llama_index_embft.dataset.near_duplicates import normalise
from llama_index_embft.dataset.prepared import near_duplicates_of
from llama_index_embft.errors import ConfigError
from llama_index_embft.finetune.full.data.batches import Relations

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset

logger = logging.getLogger(__name__)

LABEL: Final = "label"
_NOT_SCORED: Final = math.nan


@dataclass(frozen=True)
class TrainingRows:
    """What is trained on.

    Attributes:
        columns: ``anchor, positive[, negative_1, …][, label]``; equally long lists.
        relations: Which rows must not share a batch; None where rows are not each other's negatives.
        dropped: Hard negatives left out because they say nearly the same as a relevant document.
        filled: Random documents that stand in for hard negatives, where a query has fewer than the others.
    """

    columns: dict[str, list[Any]]
    relations: Relations | None
    dropped: int = 0
    filled: int = 0

    def __len__(self) -> int:
        return len(self.columns["anchor"])

    @property
    def n_negatives(self) -> int:
        """Hard negatives of each row."""
        return sum(name.startswith("negative_") for name in self.columns)

    @property
    def most_asked(self) -> int:
        """Rows whose questions ask about the passage that most of them ask about."""
        if self.relations is None:
            return 0
        return max(Counter(group for groups in self.relations.relevant for group in groups).values(), default=0)

    def digest(self) -> str:
        """Hash of all rows, their order included: what a resumed run must find unchanged."""
        hashed = hashlib.blake2b(digest_size=8)
        for name, values in self.columns.items():
            hashed.update(name.encode())
            for value in values:
                hashed.update(json.dumps(value).encode() + b"\n")
        return hashed.hexdigest()


def training_rows(
    dataset: EmbeddingQAFinetuneDataset,
    *,
    use_all_docs: bool = True,
    near_duplicates: float | None = 0.8,
    teacher_scores: Mapping[str, Mapping[str, float]] | None = None,
    max_negatives: int | None = None,
    show_progress: bool = False,
) -> TrainingRows:
    """Turn queries and their documents into rows, one for each query and relevant document.

    The number of negatives is the same for every row, as the losses need it: as many as at least half of the queries
    have. Queries with fewer are given random documents of the training set besides, which do not answer them, so that
    one query without negatives does not cost all others theirs; a warning counts them. Where more than half of the
    queries have none, none are used, and a warning says so.

    Args:
        dataset: The training set.
        use_all_docs: A row for each relevant document of a query; False: only for the first.
        near_duplicates: Overlap from which two documents count as one; None: only equal texts do.
        teacher_scores: Query id -> document id -> score. Adds a column ``label`` with the scores of the positive and
            of each negative; NaN where the teacher has none.
        max_negatives: Negatives of a row at most; None: all.
        show_progress: Show a bar over the search for near-duplicates where it takes more than two seconds.

    Raises:
        ConfigError: There are teacher scores, and not one row with two scored documents.
    """
    sections = (dataset.relevant_docs, dataset.negative_docs)
    used = list(dict.fromkeys(doc for section in sections for docs in section.values() for doc in docs))
    threshold = 1.0 if near_duplicates is None else near_duplicates
    group_of = near_duplicates_of(dataset, used, threshold, show_progress=show_progress)
    keys = {query_id: normalise(query) or query for query_id, query in dataset.queries.items()}
    relevant_of: dict[str, set[int]] = {}
    for query_id, key in keys.items():
        relevant_of.setdefault(key, set()).update(group_of[doc] for doc in dataset.relevant_docs[query_id])
    answers = {key: frozenset(groups) for key, groups in relevant_of.items()}
    negatives_of = {
        query_id: [doc for doc in dataset.negative_docs.get(query_id, ()) if group_of[doc] not in answers[key]]
        for query_id, key in keys.items()
    }
    dropped = sum(len(dataset.negative_docs.get(query_id, ())) - len(kept) for query_id, kept in negatives_of.items())
    if dropped:
        logger.warning(
            "%d hard negatives say nearly the same as a relevant document of their query, and are left out.", dropped
        )
    n_negatives = _negatives_per_row(negatives_of)
    if max_negatives is not None:
        n_negatives = min(n_negatives, max_negatives)
    n_negatives, filled = _fill_up(negatives_of, n_negatives, group_of, {q: answers[key] for q, key in keys.items()})
    columns: dict[str, list[Any]] = {"anchor": [], "positive": []}
    columns |= {f"negative_{number}": [] for number in range(1, n_negatives + 1)}
    if teacher_scores is not None:
        columns[LABEL] = []
    documents: list[frozenset[int]] = []
    relevant: list[frozenset[int]] = []
    lengths: list[int] = []
    for query_id, query in dataset.queries.items():
        positives = dataset.relevant_docs[query_id]
        negatives = negatives_of[query_id][:n_negatives]
        for positive in positives if use_all_docs else positives[:1]:
            row = [positive, *negatives]
            columns["anchor"].append(query)
            for name, doc in zip(list(columns)[1:], row, strict=False):
                columns[name].append(dataset.corpus[doc])
            if teacher_scores is not None:
                known = teacher_scores.get(query_id, {})
                columns[LABEL].append([float(known.get(doc, _NOT_SCORED)) for doc in row])
            documents.append(frozenset(group_of[doc] for doc in row))
            relevant.append(answers[keys[query_id]])
            lengths.append(max(len(dataset.corpus[doc]) for doc in row))
    if teacher_scores is not None:
        _check_teacher(columns[LABEL], n_negatives)
    return TrainingRows(columns, Relations(documents, relevant, lengths), dropped, filled)


def scored_rows(
    dataset: EmbeddingQAFinetuneDataset, teacher_scores: Mapping[str, Mapping[str, float]] | None = None
) -> TrainingRows:
    """Turn queries and documents into rows ``anchor, positive, label`` with a score each, for `CoSENTLoss`.

    The score is the teacher's where there is one (documents that it did not score are left out), else the grade of a
    relevant document over the highest grade, and 0 for a hard negative.

    Raises:
        ConfigError: All scores are equal, so that there is no order to learn.
    """
    columns: dict[str, list[Any]] = {"anchor": [], "positive": [], LABEL: []}
    top = max((grade for grades in dataset.relevance_grades.values() for grade in grades.values()), default=1)
    for query_id, query in dataset.queries.items():
        grades = dataset.relevance_grades.get(query_id, {})
        scores = {doc: grades.get(doc, 1) / top for doc in dataset.relevant_docs[query_id]}
        scores |= dict.fromkeys(dataset.negative_docs.get(query_id, ()), 0.0)
        if teacher_scores is not None:
            known = teacher_scores.get(query_id, {})
            scores = {doc: float(known[doc]) for doc in scores if doc in known}
        for doc, score in scores.items():
            columns["anchor"].append(query)
            columns["positive"].append(dataset.corpus[doc])
            columns[LABEL].append(score)
    if len(set(columns[LABEL])) < 2:
        raise ConfigError(
            "loss='cosent' learns an order of scores, and all documents of the training set have the same one; give "
            "relevance_grades, negative_docs or teacher_scores, or leave `loss` out."
        )
    return TrainingRows(columns, None)


def _negatives_per_row(negatives_of: dict[str, list[str]]) -> int:
    """The most that at least half of the queries have."""
    counts = sorted(len(negatives) for negatives in negatives_of.values())
    if not any(counts):
        return 0
    half = counts[len(counts) // 2]
    if half == 0:
        logger.warning(
            "%d of %d queries have no negative_docs, so none are used; mine them for all queries, or leave those "
            "queries out with subset().",
            counts.count(0),
            len(counts),
        )
    return half


def _fill_up(
    negatives_of: dict[str, list[str]],
    wanted: int,
    group_of: dict[str, int],
    answers: dict[str, frozenset[int]],
) -> tuple[int, int]:
    """Give every query as many negatives, in place: random documents where it has too few.

    Returns:
        The number of each query's negatives, which is `wanted` or what the smallest choice allows, and how many are
        random ones.
    """
    sizes = Counter(group_of.values())
    choice = {query: len(group_of) - sum(sizes[group] for group in groups) for query, groups in answers.items()}
    wanted = min(wanted, *choice.values()) if choice else 0
    if wanted == 0:
        return 0, 0
    pool, draw, filled = list(group_of), random.Random(0), 0
    draw.shuffle(pool)
    for query, negatives in negatives_of.items():
        missing, start = max(0, wanted - len(negatives)), draw.randrange(len(pool))
        taken = set(negatives)
        walk = (pool[(start + step) % len(pool)] for step in range(len(pool)))
        free = (doc for doc in walk if doc not in taken and group_of[doc] not in answers[query])
        negatives += islice(free, missing)
        filled += missing
    if filled:
        logger.warning(
            "%d of %d hard negatives are random documents, for queries that have fewer than %d.",
            filled,
            wanted * len(negatives_of),
            wanted,
        )
    return wanted, filled


def _check_teacher(labels: list[list[float]], n_negatives: int) -> None:
    if any(sum(not math.isnan(score) for score in row) > 1 for row in labels):
        return
    reason = "no row has a positive and a negative with a score" if n_negatives else "the queries have no negative_docs"
    raise ConfigError(
        f"teacher_scores cannot be used: {reason}; mine negatives with a teacher and pass its teacher_scores."
    )
