"""What strategies work on: some queries, their ranked documents, and who may not be a negative of whom."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.mining.forbidden import ForbiddenNegatives
    from llama_index_embft.search.topk import ExactIndex, TopK


BLOCK_UNIT: Final = 256
"""Panels begin at multiples of this, so that results do not depend on how large they are."""


class Candidates(NamedTuple):
    """Possible negatives of some queries, in the order in which they should be taken."""

    rows: NDArray[np.int64]  # (n, m), -1 for none
    scores: NDArray[np.float32]  # (n, m), -inf for none


@dataclass
class MiningContext:
    """Everything about one mining run that strategies read.

    Attributes:
        dataset: Queries, documents and positives.
        queries: Shape ``(n_queries, dim)``, in the data set's order.
        corpus: Shape ``(n_docs, dim)``, likewise.
        index: The search over ``corpus``.
        forbidden: Who may not be a negative of whom.
        num_negatives: Negatives wanted for each query.
        depth: Ranks that some strategy asks for; 0 for none.
        seed: Of every random choice.
        notes: Strategies write remarks for the report here.
    """

    dataset: EmbeddingQAFinetuneDataset
    queries: NDArray[np.float32]
    corpus: NDArray[np.float32]
    index: ExactIndex
    forbidden: ForbiddenNegatives
    num_negatives: int
    depth: int
    seed: int
    notes: list[str] = field(default_factory=list)

    @cached_property
    def query_ids(self) -> list[str]:
        """Ids in the order of the rows of `queries`."""
        return list(self.dataset.queries)

    @cached_property
    def corpus_ids(self) -> list[str]:
        """Ids in the order of the rows of `corpus`."""
        return list(self.dataset.corpus)

    @cached_property
    def row_of(self) -> dict[str, int]:
        """Corpus id to row."""
        return {doc: row for row, doc in enumerate(self.corpus_ids)}


class QueryBlock:
    """Some queries that are worked on together.

    Args:
        context: The run.
        start: Number of the first query.
        stop: Number after the last.
    """

    def __init__(self, context: MiningContext, start: int, stop: int) -> None:
        self.context = context
        self.start, self.stop = start, stop
        self.query_ids = context.query_ids[start:stop]
        self.queries = context.queries[start:stop]

    def __len__(self) -> int:
        return self.stop - self.start

    @cached_property
    def ranked(self) -> TopK:
        """The best allowed documents, as deep as any strategy asks: the one search that all share."""
        return self.context.index.search(
            self.queries, self.context.depth, exclude=self.context.forbidden.rows[self.start : self.stop]
        )

    @cached_property
    def positives(self) -> NDArray[np.int64]:
        """Rows of the relevant documents: ``(n, most)``, -1 for none."""
        relevant = [self.context.dataset.relevant_docs[query] for query in self.query_ids]
        rows = np.full((len(self), max(map(len, relevant), default=1)), -1, dtype=np.int64)
        for line, docs in enumerate(relevant):
            rows[line, : len(docs)] = [self.context.row_of[doc] for doc in docs]
        return rows

    @cached_property
    def positive_scores(self) -> NDArray[np.float32]:
        """Scores of `positives`, same shape; -inf for none."""
        return self.context.index.scores(self.queries, self.positives)

    @cached_property
    def lowest_positive(self) -> NDArray[np.float32]:
        """The lowest score of a relevant document: ``(n,)``."""
        lowest: NDArray[np.float32] = np.where(self.positives >= 0, self.positive_scores, np.inf).min(axis=1)
        return lowest

    def allowed(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Candidates with -1 in place of those that must not be negatives."""
        return np.where(self.context.forbidden.allows(self.start, rows), rows, -1)

    def scored(self, rows: NDArray[np.int64]) -> Candidates:
        """Candidates with their scores."""
        return Candidates(rows, self.context.index.scores(self.queries, rows))

    def lottery(self, name: str, columns: Any) -> NDArray[np.uint64]:
        """Random numbers that depend on seed, strategy, query and column alone, not on how queries are grouped.

        Args:
            name: Of the strategy, so that two of them draw differently.
            columns: Integers that broadcast to ``(n, m)``: what is drawn for.
        """
        salt = np.uint64(int.from_bytes(name.encode()[-7:].rjust(7, b"\0"), "big"))
        lines = np.arange(self.start, self.stop, dtype=np.uint64)[:, None]
        with np.errstate(over="ignore"):
            state = _mix(np.uint64(self.context.seed) * np.uint64(0x9E3779B97F4A7C15) + salt)
            drawn: NDArray[np.uint64] = _mix(_mix(lines + state) + np.asarray(columns).astype(np.uint64))
        return drawn


def _mix(x: Any) -> Any:
    """The finalizer of splitmix64: neighbouring integers in, unrelated ones out."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def without_repeats(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Keep the first of equal rows in each line; the others become -1."""
    order = np.argsort(rows, axis=1, kind="stable")
    ordered = np.take_along_axis(rows, order, axis=1)
    repeated = np.zeros(rows.shape, dtype=bool)
    np.put_along_axis(repeated, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], axis=1)
    return np.where(repeated, -1, rows)
