"""Strategies: where negatives come from, and which candidates are too close to a positive to be trusted.

Each is a small object with a short text form, for example ``rank:10-50`` or ``margin:0.95``. Sources propose
candidates; filters take some away. Several sources take turns, and every filter applies to all of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from llama_index_embft.errors import ConfigError
from llama_index_embft.mining.context import BLOCK_UNIT, Candidates, without_repeats
from llama_index_embft.search.lexical import LexicalIndex
from llama_index_embft.search.topk import ExactIndex

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from llama_index_embft.mining.context import MiningContext, QueryBlock


class Source(ABC):
    """Proposes candidates."""

    @property
    def depth(self) -> int:
        """Ranks of the shared search that it reads; 0 for none."""
        return 0

    def most(self, num_negatives: int, n_docs: int) -> int:
        """Candidates that it proposes for one query, at most; the whole corpus, where a source does not say.

        Args:
            num_negatives: Negatives wanted for each query.
            n_docs: Documents of the corpus.
        """
        del num_negatives
        return n_docs

    def prepare(self, context: MiningContext) -> None:  # noqa: B027 - most have nothing to prepare
        """Called once before the first block."""

    @abstractmethod
    def propose(self, block: QueryBlock) -> Candidates:
        """Candidates for some queries, none of them forbidden, in the order in which they should be taken."""


class Filter(ABC):
    """Takes candidates away that may answer the query, at next to no cost."""

    @abstractmethod
    def keeps(self, block: QueryBlock, candidates: Candidates) -> NDArray[np.bool_]:
        """Which candidates stay: ``(n, m)``."""


@dataclass(frozen=True)
class RankWindow(Source):
    """Documents of some ranks, where rank 1 is the best document that may be a negative; ``rank:10-50``.

    Args:
        first: First rank, from 1.
        last: Last rank, included.
        pick: ``"hardest"`` takes the best ranks first, ``"random"`` draws from the window (``rank:10-210:random``).
    """

    first: int = 1
    last: int = 100
    pick: Literal["hardest", "random"] = "hardest"

    def __post_init__(self) -> None:
        if not 1 <= self.first <= self.last:
            raise ConfigError(f"A rank window runs from a rank of at least 1 to a later one, got {self}.")
        if self.pick not in ("hardest", "random"):
            raise ConfigError(f"A rank window picks 'hardest' or 'random', got {self.pick!r}.")

    def __str__(self) -> str:
        return f"rank:{self.first}-{self.last}" + (":random" if self.pick == "random" else "")

    @property
    def depth(self) -> int:
        """See `Source.depth`."""
        return self.last

    def most(self, num_negatives: int, n_docs: int) -> int:
        """See `Source.most`."""
        del num_negatives
        return min(n_docs, self.last) - min(n_docs, self.first - 1)

    def propose(self, block: QueryBlock) -> Candidates:
        """See `Source.propose`."""
        rows = block.ranked.rows[:, self.first - 1 : self.last]
        scores = block.ranked.scores[:, self.first - 1 : self.last]
        if self.pick == "random":
            order = np.argsort(block.lottery(str(self), rows), axis=1)
            rows, scores = np.take_along_axis(rows, order, axis=1), np.take_along_axis(scores, order, axis=1)
        return Candidates(rows, scores)


@dataclass(frozen=True)
class ScoreWindow(Source):
    """Random documents among all those whose similarity lies in a window; ``score:0.3-0.7``.

    Args:
        low: Lowest similarity, included.
        high: Highest similarity, included.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not -1 <= self.low < self.high <= 1:
            raise ConfigError(f"A score window lies between two different cosines from -1 to 1, got {self}.")

    def __str__(self) -> str:
        return f"score:{self.low:g}-{self.high:g}"

    @property
    def depth(self) -> int:
        """See `Source.depth`; where the ranks reach below the window, they hold all of it."""
        return 256

    def most(self, num_negatives: int, n_docs: int) -> int:
        """See `Source.most`."""
        return min(n_docs, 4 * num_negatives)

    def propose(self, block: QueryBlock) -> Candidates:
        """See `Source.propose`; every document in the window has the same chance."""
        wanted = 4 * block.context.num_negatives
        rows, scores = block.ranked
        inside = (rows >= 0) & (scores >= self.low) & (scores <= self.high)
        lots = np.where(inside, block.lottery(str(self), rows) >> np.uint64(1), np.uint64(1 << 63))
        order = np.argsort(lots, axis=1)[:, :wanted]
        found = np.full((len(block), wanted), -1, dtype=np.int64)
        found[:, : order.shape[1]] = np.take_along_axis(np.where(inside, rows, -1), order, axis=1)
        reaching_on = (scores[:, -1] >= self.low) & (rows.shape[1] < len(block.context.corpus_ids))
        for group in range(0, len(block), BLOCK_UNIT):  # each group in an order of its own, so no document is favoured
            lines = group + np.flatnonzero(reaching_on[group : group + BLOCK_UNIT])
            if len(lines):
                rng = np.random.default_rng((block.context.seed, block.start + group))
                found[lines] = self._walk(block, lines, wanted, rng)
        return block.scored(block.allowed(found))

    def _walk(
        self, block: QueryBlock, lines: NDArray[np.int64], wanted: int, rng: np.random.Generator
    ) -> NDArray[np.int64]:
        """Go through the corpus in random order until each query has twice what it wants; each then draws its own."""
        order = rng.permutation(len(block.context.corpus_ids))
        kept: list[list[int]] = [[] for _ in lines]
        for start in range(0, len(order), 4096):
            rows = np.sort(order[start : start + 4096])
            scores = block.context.index.products(block.queries[lines], rows)
            inside = (scores >= self.low) & (scores <= self.high)
            for line, found in enumerate(kept):
                if len(found) < 2 * wanted:
                    found.extend(rng.permutation(rows[inside[line]])[: 2 * wanted - len(found)].tolist())
            if all(len(found) == 2 * wanted for found in kept):
                break
        result = np.full((len(lines), wanted), -1, dtype=np.int64)
        for line, found in enumerate(kept):
            drawn = rng.permutation(np.array(found, dtype=np.int64))[:wanted]
            result[line, : len(drawn)] = drawn
        return result


@dataclass(frozen=True)
class Random(Source):
    """Any documents of the corpus; ``random``."""

    def __str__(self) -> str:
        return "random"

    def most(self, num_negatives: int, n_docs: int) -> int:
        """See `Source.most`."""
        wanted = 4 * num_negatives + 16
        return n_docs if n_docs <= 4 * wanted else wanted

    def propose(self, block: QueryBlock) -> Candidates:
        """See `Source.propose`."""
        n_docs = len(block.context.corpus_ids)
        wanted = 4 * block.context.num_negatives + 16
        if n_docs <= 4 * wanted:
            rows = np.argsort(block.lottery(str(self), np.arange(n_docs)), axis=1)
        else:
            drawn = block.lottery(str(self), np.arange(wanted)) % np.uint64(n_docs)
            rows = without_repeats(drawn.astype(np.int64))
        return block.scored(block.allowed(rows))


@dataclass(frozen=True)
class SameDocument(Source):
    """Other chunks of the document that a positive was cut from, most similar first; ``same-document``."""

    def __str__(self) -> str:
        return "same-document"

    def most(self, num_negatives: int, n_docs: int) -> int:
        """See `Source.most`."""
        return min(n_docs, 4 * num_negatives + 16)

    def prepare(self, context: MiningContext) -> None:
        """See `Source.prepare`."""
        if not context.dataset.source_documents:
            raise ConfigError(
                "The strategy 'same-document' needs to know which chunks were cut from one document, and "
                "`source_documents` of the data set is empty; build the data set with sources, or leave it out."
            )

    def propose(self, block: QueryBlock) -> Candidates:
        """See `Source.propose`."""
        context = block.context
        chunks = _chunks_by_document(context)
        found = []
        for positives in block.positives:
            documents = dict.fromkeys(_document(context, row) for row in positives.tolist() if row >= 0)
            found.append([row for document in documents for row in chunks[document]])
        return _best_first(block, found)


def _chunks_by_document(context: MiningContext) -> dict[str, list[int]]:
    chunks: defaultdict[str, list[int]] = defaultdict(list)
    for row in range(len(context.corpus_ids)):
        chunks[_document(context, row)].append(row)
    return chunks


def _document(context: MiningContext, row: int) -> str:
    doc = context.corpus_ids[row]
    return context.dataset.source_documents.get(doc, doc)


def _best_first(block: QueryBlock, found: list[list[int]]) -> Candidates:
    """Allowed rows of each query by falling score, as many as can be needed; done in groups, since lists differ."""
    wanted = 4 * block.context.num_negatives + 16
    rows = np.full((len(found), wanted), -1, dtype=np.int64)
    scores = np.full((len(found), wanted), -np.inf, dtype=np.float32)
    for start in range(0, len(found), BLOCK_UNIT):
        part = found[start : start + BLOCK_UNIT]
        given = np.full((len(part), max(1, *map(len, part))), -1, dtype=np.int64)
        for line, some in enumerate(part):
            given[line, : len(some)] = some
        given = np.where(block.context.forbidden.allows(block.start + start, given), given, -1)
        graded = block.context.index.scores(block.queries[start : start + BLOCK_UNIT], given)
        order = np.argsort(-graded, axis=1, kind="stable")[:, :wanted]
        rows[start : start + len(part), : order.shape[1]] = np.take_along_axis(given, order, axis=1)
        scores[start : start + len(part), : order.shape[1]] = np.take_along_axis(graded, order, axis=1)
    return Candidates(rows, scores)


class BM25(Source):
    """The best documents by words and not by meaning, for lexical traps; ``bm25:50``.

    Words are cut as `search.terms` does, which knows scripts without spaces.

    Args:
        last: Last rank, included.

    Raises:
        ConfigError: ``last`` is below 1.
    """

    def __init__(self, last: int = 50) -> None:
        if last < 1:
            raise ConfigError(f"`bm25` takes ranks up to at least 1, got {last}.")
        self.last = last

    def __str__(self) -> str:
        return f"bm25:{self.last}"

    def most(self, num_negatives: int, n_docs: int) -> int:
        """See `Source.most`."""
        del num_negatives
        return min(n_docs, self.last)

    def prepare(self, context: MiningContext) -> None:
        """See `Source.prepare`."""
        dataset = context.dataset
        self._index = LexicalIndex.build({doc: dataset.bare_text(doc) for doc in dataset.corpus})
        self._most_forbidden = max((len(rows) for rows in context.forbidden.rows), default=0)

    def propose(self, block: QueryBlock) -> Candidates:
        """See `Source.propose`."""
        queries = [block.context.dataset.queries[query] for query in block.query_ids]
        rows = block.allowed(self._index.search(queries, self.last + self._most_forbidden).rows)
        order = np.argsort(rows < 0, axis=1, kind="stable")[:, : self.last]  # what is allowed moves up
        return block.scored(np.take_along_axis(rows, order, axis=1))


class LeastSimilar(Source):
    """The documents that are least similar to the query, each used once in the whole data set; ``least-similar``."""

    def __str__(self) -> str:
        return "least-similar"

    def most(self, num_negatives: int, n_docs: int) -> int:
        """See `Source.most`."""
        return min(n_docs, num_negatives)

    def prepare(self, context: MiningContext) -> None:
        """Hand out the documents: in turns of one, each query takes the least similar that is left."""
        wanted = context.num_negatives
        n_queries, n_docs = len(context.query_ids), len(context.corpus_ids)
        self._given = np.full((n_queries, wanted), -1, dtype=np.int64)
        free = np.ones(n_docs, dtype=bool)
        exhausted = np.zeros(n_queries, dtype=bool)
        for turn in range(wanted):
            waiting = np.flatnonzero(~exhausted)
            while len(waiting) and free.any():
                waiting = self._hand_out(context, turn, waiting, free, exhausted)
        short = int((self._given[:, -1] < 0).sum())
        if short:
            context.notes.append(
                f"least-similar uses each of {n_docs} documents once, which is not enough for {n_queries} queries with "
                f"{wanted} negatives: {short} queries got fewer."
            )

    def _hand_out(
        self, context: MiningContext, turn: int, waiting: NDArray[np.int64], free: NDArray[np.bool_], exhausted: Any
    ) -> NDArray[np.int64]:
        """One round: each waiting query takes the first of its list that is free; returns those without luck."""
        rows = np.flatnonzero(free)
        place_of = np.full(len(free), -1, dtype=np.int64)
        place_of[rows] = np.arange(len(rows))
        k = min(len(rows), max(256, 20_000_000 // len(waiting)))  # longer lists, fewer rounds
        barred = [place_of[context.forbidden.rows[query]] for query in waiting]
        hits = ExactIndex(context.corpus[rows]).search(
            -context.queries[waiting], k, exclude=[some[some >= 0] for some in barred]
        )
        left = []
        for query, places in zip(waiting.tolist(), hits.rows, strict=True):
            if places[0] < 0:
                exhausted[query] = True
                continue
            chosen = next((row for row in rows[places[places >= 0]] if free[row]), None)
            if chosen is None:
                left.append(query)
            else:
                free[chosen] = False
                self._given[query, turn] = chosen
        return np.array(left, dtype=np.int64)

    def propose(self, block: QueryBlock) -> Candidates:
        """See `Source.propose`."""
        return block.scored(self._given[block.start : block.stop])


@dataclass(frozen=True)
class RelativeMargin(Filter):
    """Keep what scores at most a share of the lowest positive's score; ``margin:0.95`` (NV-Retriever's TopK-PercPos).

    With a negative score the bound lies *below* the positive as well, by the same part of its size: at 0.95 a positive
    of -0.20 asks for at most -0.21.

    Args:
        share: Above 0 and at most 1.
    """

    share: float = 0.95

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ConfigError(f"The share of a relative margin is above 0 and at most 1, got {self.share}.")

    def __str__(self) -> str:
        return f"margin:{self.share:g}"

    def keeps(self, block: QueryBlock, candidates: Candidates) -> NDArray[np.bool_]:
        """See `Filter.keeps`."""
        lowest = block.lowest_positive
        bound = lowest - (1 - self.share) * np.abs(lowest)
        return candidates.scores <= bound[:, None]


@dataclass(frozen=True)
class AbsoluteMargin(Filter):
    """Keep what scores at least so much below the lowest positive; ``gap:0.05``.

    Args:
        gap: Difference of cosines, 0 to 2.
    """

    gap: float = 0.05

    def __post_init__(self) -> None:
        if not 0 <= self.gap <= 2:
            raise ConfigError(f"An absolute margin is a difference of cosines from 0 to 2, got {self.gap}.")

    def __str__(self) -> str:
        return f"gap:{self.gap:g}"

    def keeps(self, block: QueryBlock, candidates: Candidates) -> NDArray[np.bool_]:
        """See `Filter.keeps`."""
        return candidates.scores <= (block.lowest_positive - self.gap)[:, None]
