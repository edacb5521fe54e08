"""Batches in which no passage stands as a negative of a question that it answers.

With in-batch negatives every document of a batch, hard negatives included, is a negative of every other row. That is
wrong for two questions about one passage, for one question with two good passages, for copies of a passage, and for a
hard negative of one row that answers another. Such rows are kept in different batches.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

# Shuffles tried for one that needs few batches; the step count of a run is fixed at its start.
_TRIES: Final = 8


@dataclass(frozen=True)
class Relations:
    """Which documents the rows hold, and which answer their questions.

    Numbers stand for documents; near-duplicates have the same number.

    Attributes:
        documents: For each row its documents: the positive and the hard negatives.
        relevant: For each row all documents that answer its question, wherever they are.
        lengths: For each row the length of its documents, in any unit; rows of like length are put side by side.
    """

    documents: Sequence[frozenset[int]]
    relevant: Sequence[frozenset[int]]
    lengths: Sequence[int]

    def __len__(self) -> int:
        return len(self.documents)


class _Batch:
    """Rows that fit together, and what they forbid to others."""

    __slots__ = ("documents", "relevant", "room", "rows")

    def __init__(self, room: int) -> None:
        self.rows: list[int] = []
        self.room = room
        self.documents: set[int] = set()
        self.relevant: set[int] = set()

    def accepts(self, documents: frozenset[int], relevant: frozenset[int]) -> bool:
        return self.relevant.isdisjoint(documents) and self.documents.isdisjoint(relevant)

    def add(self, row: int, documents: frozenset[int], relevant: frozenset[int]) -> None:
        self.rows.append(row)
        self.documents |= documents
        self.relevant |= relevant


class BatchPlan:
    """The batches of each epoch: every row once, no conflict inside a batch, the same number of batches every epoch.

    Pure: an epoch's batches depend on the arguments alone, so that a resumed run sees what the first one saw.

    Args:
        relations: What the rows hold; None where rows cannot be in conflict (a loss without in-batch negatives).
        n_rows: Number of rows.
        batch_size: Rows of a batch at most.
        seed: Of the shuffles.
        processes: A batch is cut into so many equal parts, one for each process. Rows that would make the parts unequal
            are left out of the epoch, others each time; with one process nothing is left out.
    """

    def __init__(
        self, relations: Relations | None, n_rows: int, batch_size: int, *, seed: int, processes: int = 1
    ) -> None:
        if relations is None:
            nothing: list[frozenset[int]] = [frozenset()] * n_rows
            relations = Relations(nothing, nothing, [0] * n_rows)
        self._relations = relations
        self._batch_size = min(batch_size, n_rows)
        self._seed = seed
        self._processes = processes
        held = Counter(document for row in relations.documents for document in row)
        wanted = Counter(document for row in relations.relevant for document in row)
        # Rows that are hard to place come first: those in conflict with most others.
        self._conflicts = [
            sum(wanted[document] for document in documents) + sum(held[document] for document in relevant)
            for documents, relevant in zip(relations.documents, relations.relevant, strict=True)
        ]
        fewest = -(-n_rows // self._batch_size)
        self._first = self._arrange(random.Random(f"{seed}/first/0"), fewest)
        for attempt in range(1, _TRIES):
            if len(self._first) == fewest:
                break
            other = self._arrange(random.Random(f"{seed}/first/{attempt}"), fewest)
            self._first = min(self._first, other, key=len)
        if len(self._first) > fewest:
            # Rows that found no place have opened batches, some of one row, which teaches nothing: spread all evenly.
            even = self._arrange(random.Random(f"{seed}/even"), len(self._first))
            self._first = even if len(even) <= len(self._first) else self._first

    @property
    def largest(self) -> int:
        """Rows of the largest batch."""
        return max(map(len, self._first))

    def __len__(self) -> int:
        """Batches of an epoch, all processes together as one."""
        return len(self._first)

    def epoch(self, number: int) -> list[list[int]]:
        """The batches of an epoch, in the order of training, each sorted by length.

        Sorting changes no negatives, and lets the loss cut the batch into mini-batches with little padding.
        """
        rng = random.Random(f"{self._seed}/{number}/order")
        batches = self._first
        for attempt in range(_TRIES if number else 0):
            shuffled = self._arrange(random.Random(f"{self._seed}/{number}/{attempt}"), len(self._first))
            if len(shuffled) == len(self._first):
                batches = shuffled
                break
        even = [self._even(batch, rng) for batch in batches]
        filled = [batch for batch in even if batch]
        batches = [batch or rng.choice(filled) for batch in even]  # fewer rows than processes: train on others twice
        rng.shuffle(batches)
        lengths = self._relations.lengths
        return [sorted(batch, key=lambda row: lengths[row]) for batch in batches]

    def parts(self, number: int) -> list[list[int]]:
        """The batches of an epoch cut for the processes: the first batch's parts, then the second's."""
        return [batch[part :: self._processes] for batch in self.epoch(number) for part in range(self._processes)]

    def _even(self, batch: list[int], rng: random.Random) -> list[int]:
        over = len(batch) % self._processes
        return rng.sample(batch, len(batch) - over) if over else batch

    def _arrange(self, rng: random.Random, wanted: int) -> list[list[int]]:
        """Spread the rows over the wanted number of batches, or over more where they do not fit."""
        relations = self._relations
        n_rows = len(relations)
        shuffled = rng.sample(range(n_rows), n_rows)
        order = sorted(shuffled, key=lambda row: -self._conflicts[row])  # stable: ties stay shuffled
        # Equal sizes: a last batch of two rows would train on a single negative.
        sizes = [n_rows // wanted + (number < n_rows % wanted) for number in range(wanted)]
        batches = [_Batch(size) for size in sizes]
        open_batches = list(batches)
        for row in order:
            documents, relevant = relations.documents[row], relations.relevant[row]
            found = self._find(open_batches, documents, relevant, rng)
            if found is None:
                roomier = [batch for batch in batches if len(batch.rows) < self._batch_size]
                found = self._find(roomier, documents, relevant, rng)
            if found is None:
                found = _Batch(self._batch_size)
                batches.append(found)
                open_batches.append(found)
            found.add(row, documents, relevant)
            if len(found.rows) == found.room:
                open_batches.remove(found)
        return [batch.rows for batch in batches if batch.rows]

    @staticmethod
    def _find(
        batches: list[_Batch], documents: frozenset[int], relevant: frozenset[int], rng: random.Random
    ) -> _Batch | None:
        start = rng.randrange(len(batches)) if batches else 0
        for step in range(len(batches)):
            batch = batches[(start + step) % len(batches)]
            if batch.accepts(documents, relevant):
                return batch
        return None
