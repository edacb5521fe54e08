"""From a data set and its candidates to the rows of training: a question, some passages, and what they are worth."""

from __future__ import annotations

import logging
import math
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from llama_index_embft.errors import DatasetError
from llama_index_embft.mining.forbidden import ForbiddenNegatives

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.finetune.reranker.candidates import FirstStageHits

logger = logging.getLogger(__name__)

_NO_CHANCE: Final = -1e4  # the logarithm of a probability that a softmax turns into 0
_SAME_TEXT: Final = 0.9  # overlap of words from which a passage says what a relevant one says, as in mining


@dataclass(frozen=True)
class RerankerRow:
    """A question with passages.

    Attributes:
        query: The question.
        documents: Passages, relevant ones and negatives, in random order.
        grades: How relevant each is; 0 for negatives.
        no_negatives: Passages that answer the question, or say the same as one that does.
    """

    query: str
    documents: list[str]
    grades: list[float]
    no_negatives: frozenset[str] = field(default=frozenset(), compare=False)


def reranker_rows(
    dataset: EmbeddingQAFinetuneDataset, candidates: FirstStageHits, *, negatives: int, seed: int
) -> tuple[list[RerankerRow], int]:
    """Rows of a data set: each has the relevant passages of a question, and negatives.

    Negatives are the data set's hard ones, then passages drawn from the candidates. A passage that says what a relevant
    one says, or overlaps it, is none. A question with many relevant passages makes several rows, so that at least half
    of each are negatives where there are as many.

    Args:
        dataset: Questions with relevant passages.
        candidates: What the first stage finds for its questions.
        negatives: Of each row.
        seed: Of every draw.

    Returns:
        The rows, and the number of questions that have none, because no negative is left.

    Raises:
        DatasetError: No question has a negative.
    """
    rng = random.Random(seed)
    forbidden = ForbiddenNegatives(dataset, _SAME_TEXT, show_progress=False)
    corpus_ids = list(dataset.corpus)
    barred = [{corpus_ids[row] for row in rows.tolist()} for rows in forbidden.rows]
    place = {query: number for number, query in enumerate(dataset.queries)}
    qrels = dataset.qrels()
    rows: list[RerankerRow] = []
    dropped = 0
    for query, found in zip(candidates.query_ids, candidates.hits.rows.tolist(), strict=True):
        kept_out = barred[place[query]]
        pool = [doc for row in found if row >= 0 and (doc := candidates.ids[row]) not in kept_out]
        given = [doc for doc in dataset.negative_docs.get(query, []) if doc not in kept_out]
        relevant = sorted(
            (doc for doc, grade in qrels[query].items() if grade > 0), key=lambda doc: (-qrels[query][doc], doc)
        )
        if not relevant or not (pool or given):
            dropped += 1
            continue
        answers = frozenset(dataset.corpus[doc] for doc in (*kept_out, *relevant))
        for some in _in_groups(relevant, max(1, negatives)):
            chosen = _draw(given, pool, negatives, rng)
            documents = [(doc, float(qrels[query][doc])) for doc in some] + [(doc, 0.0) for doc in chosen]
            rng.shuffle(documents)
            texts, grades = [dataset.corpus[doc] for doc, _ in documents], [grade for _, grade in documents]
            rows.append(RerankerRow(dataset.queries[query], texts, grades, answers))
    if not rows:
        raise DatasetError(
            f"None of the {len(candidates.query_ids)} questions has a passage to tell the relevant one from: the first "
            "stage finds no other. BM25 alone finds what shares words with a question: give `embed_model` "
            "(--first-stage) too, add passages that do not answer them to the corpus, or `negative_docs`."
        )
    if dropped:
        logger.warning(
            "%d of %d questions have no negative among their candidates, and are left out of training.",
            dropped,
            len(candidates.query_ids),
        )
    return rows, dropped


def columns(rows: Sequence[RerankerRow], loss: Any) -> dict[str, list[Any]]:
    """Rows as sentence-transformers' losses take them.

    Args:
        rows: The rows.
        loss: One of one's own, a function, takes lists with grades. ``"bce"`` takes each passage by itself, the others
            lists. ``"list_net"`` compares two distributions, and makes its own by a softmax: it is given logarithms, so
            that the relevant passages share all the probability by their grades. With plain grades the negatives of a
            long list would keep most of it.
    """
    if loss == "bce":
        most = max(grade for row in rows for grade in row.grades)
        pairs = [
            (row.query, document, grade / most)
            for row in rows
            for document, grade in zip(row.documents, row.grades, strict=True)
        ]
        return {
            "query": [query for query, _, _ in pairs],
            "document": [document for _, document, _ in pairs],
            "label": [label for _, _, label in pairs],
        }
    labels = [row.grades if loss != "list_net" else _log_shares(row.grades) for row in rows]
    return {"query": [row.query for row in rows], "documents": [row.documents for row in rows], "labels": labels}


def _log_shares(grades: Sequence[float]) -> list[float]:
    total = sum(grades)
    return [math.log(grade / total) if grade > 0 else _NO_CHANCE for grade in grades]


def _draw(given: list[str], pool: list[str], n: int, rng: random.Random) -> list[str]:
    chosen = rng.sample(given, n) if len(given) > n else list(given)
    rest = [doc for doc in pool if doc not in chosen]
    return chosen + rng.sample(rest, min(len(rest), n - len(chosen)))


def _in_groups(documents: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(documents), size):
        yield documents[start : start + size]
