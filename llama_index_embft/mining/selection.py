"""From candidates to negatives: sources take turns, filters and teachers drop, and everything is counted."""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING, Any

import numpy as np

from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
from llama_index_embft.errors import ConfigError
from llama_index_embft.mining.context import Candidates, without_repeats
from llama_index_embft.mining.mined import MinedDataset
from llama_index_embft.mining.report import ExampleDocument, MinedExample, MiningReport
from llama_index_embft.mining.strategies import Filter, Random, ScoreWindow, Source
from llama_index_embft.mining.teachers import Pair, Teacher

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from llama_index_embft.mining.context import MiningContext, QueryBlock

_EXAMPLES = 10
_PADDING = "padding"
_RELATIVE = "likeness to a new positive"


class NegativeSelection:
    """Chooses the negatives of all queries, one block of queries after the other.

    Args:
        context: What strategies read.
        strategies: Sources, filters and teachers.
        relabel: What a teacher finds relevant becomes a positive.
        pad: Fill up with random documents.
    """

    def __init__(self, context: MiningContext, strategies: Sequence[Any], *, relabel: bool, pad: bool) -> None:
        self.context, self.relabel, self.pad = context, relabel, pad
        self.sources = [strategy for strategy in strategies if isinstance(strategy, Source)]
        self.filters = [strategy for strategy in strategies if isinstance(strategy, Filter)]
        self.teachers = [strategy for strategy in strategies if isinstance(strategy, Teacher)]
        for source in self.sources:
            source.prepare(context)
        for teacher in self.teachers:
            teacher.prepare(context)
        n, wanted = len(context.query_ids), context.num_negatives
        self.rows = np.full((n, wanted), -1, dtype=np.int64 if len(context.corpus_ids) >= 2**31 else np.int32)
        self.scores = np.full((n, wanted), np.nan, dtype=np.float32)
        self.origin = np.full((n, wanted), -1, dtype=np.int8)
        self.new_positives: list[Pair] = []
        self._positive_scores: list[NDArray[np.float32]] = []
        self._proposed: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        shown = np.random.default_rng(context.seed).choice(n, min(n, _EXAMPLES), replace=False)
        self._shown = set(np.sort(shown).tolist())
        self._examples: list[MinedExample] = []

    def take(self, block: QueryBlock) -> None:
        """Choose the negatives of some queries."""
        candidates, origin = self._merged(block)
        candidates = self._filtered(block, candidates)
        if self.teachers:
            rows = self._taught(block, candidates.rows)
            picked, scores, origin = _pick(rows, candidates.scores, origin, self.context.num_negatives)
        else:
            picked, scores, origin = _pick(candidates.rows, candidates.scores, origin, self.context.num_negatives)
        lines = slice(block.start, block.stop)
        self.rows[lines, : picked.shape[1]] = picked
        self.scores[lines, : picked.shape[1]] = np.where(picked >= 0, scores, np.nan)
        self.origin[lines, : picked.shape[1]] = np.where(picked >= 0, origin, -1)
        if self.pad:
            self._padded(block)
        self._positive_scores.append(block.positive_scores[block.positives >= 0])
        self._remember_examples(block)

    def _merged(self, block: QueryBlock) -> tuple[Candidates, NDArray[np.int8]]:
        """The candidates of all sources, taking turns; a document that two propose counts for the first."""
        proposals = [source.propose(block) for source in self.sources]
        for source, proposal in zip(self.sources, proposals, strict=True):
            self._proposed[str(source)] += int((proposal.rows >= 0).sum())
        if len(proposals) == 1:
            return proposals[0], np.zeros(proposals[0].rows.shape, dtype=np.int8)
        shape = len(block), max(proposal.rows.shape[1] for proposal in proposals), len(proposals)
        rows = np.full(shape, -1, dtype=np.int64)
        scores = np.full(shape, -np.inf, dtype=np.float32)
        for number, proposal in enumerate(proposals):
            # What is missing in the middle moves to the end, so that a source with gaps does not lose its turns.
            order = np.argsort(proposal.rows < 0, axis=1, kind="stable")
            rows[:, : order.shape[1], number] = np.take_along_axis(proposal.rows, order, axis=1)
            scores[:, : order.shape[1], number] = np.take_along_axis(proposal.scores, order, axis=1)
        origin = np.broadcast_to(np.arange(shape[2], dtype=np.int8), shape)
        flat = without_repeats(rows.reshape(len(block), -1))
        return Candidates(flat, scores.reshape(len(block), -1)), origin.reshape(len(block), -1)

    def _filtered(self, block: QueryBlock, candidates: Candidates) -> Candidates:
        for rule in self.filters:
            present = candidates.rows >= 0
            keeps = rule.keeps(block, candidates)
            self._dropped[str(rule)] += int((present & ~keeps).sum())
            candidates = candidates._replace(rows=np.where(keeps, candidates.rows, -1))
        return candidates

    def _taught(self, block: QueryBlock, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Ask the teachers about as many candidates as are needed; what they did not see is left out."""
        waiting = [deque(row for row in line.tolist() if row >= 0) for line in rows]
        accepted: list[list[int]] = [[] for _ in waiting]
        blocked: list[set[int]] = [set() for _ in waiting]
        wanted = self.context.num_negatives
        while True:
            asked: list[Pair] = []
            for line, queue in enumerate(waiting):
                needed = wanted - len(accepted[line])
                while queue and needed:
                    row = queue.popleft()
                    if row in blocked[line]:
                        self._dropped[_RELATIVE] += 1
                    else:
                        asked.append(Pair(block.start + line, row))
                        needed -= 1
            if not asked:
                break
            for pair in self._ask(asked, blocked, block.start):
                accepted[pair.query - block.start].append(pair.row)
            for line, found in enumerate(accepted):
                kept = [row for row in found if row not in blocked[line]]
                self._dropped[_RELATIVE] += len(found) - len(kept)
                accepted[line] = kept
        taken = [set(found) for found in accepted]
        return np.array(
            [[row if row in some else -1 for row in line.tolist()] for line, some in zip(rows, taken, strict=True)],
            dtype=np.int64,
        ).reshape(rows.shape)

    def _ask(self, asked: list[Pair], blocked: list[set[int]], first: int) -> list[Pair]:
        """The pairs that no teacher finds relevant."""
        for teacher in self.teachers:
            if not asked:
                break
            relevant = teacher.relevant(self.context, asked)
            self._dropped[str(teacher)] += sum(relevant)
            if self.relabel:
                for pair in (pair for pair, yes in zip(asked, relevant, strict=True) if yes):
                    if pair.row not in blocked[pair.query - first]:
                        self.new_positives.append(pair)
                    blocked[pair.query - first] |= self.context.forbidden.with_relatives(pair.row)
            asked = [pair for pair, yes in zip(asked, relevant, strict=True) if not yes]
        return asked

    def _padded(self, block: QueryBlock) -> None:
        """Fill up with random documents that may be negatives."""
        lines = np.arange(block.start, block.stop)
        short = self.rows[lines, -1] < 0
        if not short.any():
            return
        candidates = Random().propose(block)
        taken = self.rows[lines].astype(np.int64)
        free = without_repeats(np.concatenate([taken, candidates.rows], axis=1))[:, taken.shape[1] :]
        relatives = {
            (pair.query, row) for pair in self.new_positives for row in self.context.forbidden.with_relatives(pair.row)
        }
        for line in np.flatnonzero(short).tolist():
            query = block.start + line
            gaps = np.flatnonzero(self.rows[query] < 0)
            places = [
                place for place in np.flatnonzero(free[line] >= 0) if (query, int(free[line, place])) not in relatives
            ][: len(gaps)]
            self.rows[query, gaps[: len(places)]] = free[line, places]
            self.scores[query, gaps[: len(places)]] = candidates.scores[line, places]
            self.origin[query, gaps[: len(places)]] = len(self.sources)

    def _remember_examples(self, block: QueryBlock) -> None:
        dataset, ids = self.context.dataset, self.context.corpus_ids
        names = [*map(str, self.sources), _PADDING]
        for query in sorted(self._shown & set(range(block.start, block.stop))):
            line = query - block.start
            positives = [
                ExampleDocument(ids[row], dataset.bare_text(ids[row]), float(score), "")
                for row, score in zip(block.positives[line], block.positive_scores[line], strict=True)
                if row >= 0
            ]
            negatives = [
                ExampleDocument(ids[row], dataset.bare_text(ids[row]), float(score), names[origin])
                for row, score, origin in zip(self.rows[query], self.scores[query], self.origin[query], strict=True)
                if row >= 0
            ]
            query_id = self.context.query_ids[query]
            self._examples.append(MinedExample(query_id, dataset.queries[query_id], positives, negatives))

    def result(self) -> MinedDataset:
        """The data set with its negatives, once all blocks are through.

        Raises:
            ConfigError: A source proposed nothing for any query, or nothing is left.
        """
        for source in self.sources:
            if not self._proposed[str(source)]:
                raise ConfigError(self._nothing_from(source))
        if not (self.rows >= 0).any():
            drops = ", ".join(f"{rule} dropped {count}" for rule, count in self._dropped.items() if count)
            raise ConfigError(
                f"No negative is left for any of {len(self.rows)} queries: of {sum(self._proposed.values())} "
                f"candidates {drops or 'none was allowed'}; use a wider window or a weaker filter."
            )
        dataset, ids = self.context.dataset, self.context.corpus_ids
        negatives = {
            query: [ids[row] for row in rows.tolist() if row >= 0]
            for query, rows in zip(self.context.query_ids, self.rows, strict=True)
        }
        relevant = {query: list(docs) for query, docs in dataset.relevant_docs.items()}
        for pair in self.new_positives:
            relevant[self.context.query_ids[pair.query]].append(ids[pair.row])
        fields = {name: getattr(dataset, name) for name in EmbeddingQAFinetuneDataset.model_fields}
        fields |= {
            "relevant_docs": relevant,
            "negative_docs": {query: docs for query, docs in negatives.items() if docs},
            # Another teacher's scores may have another scale, so they are replaced and not joined.
            "teacher_scores": self._teacher_scores() or dataset.teacher_scores,
            "provenance": dataset.provenance.model_copy(update={"parent": dataset.content_hash()}),
        }
        return MinedDataset.with_report(self._report(), **fields)

    def _nothing_from(self, source: Source) -> str:
        message = f"The strategy '{source}' found no candidate for any of {len(self.rows)} queries"
        if isinstance(source, ScoreWindow):
            scores = np.concatenate(self._positive_scores)
            low, middle, high = np.percentile(scores, [0, 50, 100])
            return (
                f"{message}; this model scores the positives from {low:.2f} to {high:.2f} (median {middle:.2f}), so "
                "choose a window with that in mind."
            )
        return f"{message}; leave it out, or choose another."

    def _report(self) -> MiningReport:
        context, counts = self.context, (self.rows >= 0).sum(axis=1)
        dropped = {rule: self._dropped[rule] for rule in map(str, (*self.filters, *self.teachers))}
        return MiningReport(
            strategies=[str(strategy) for strategy in (*self.sources, *self.filters, *self.teachers)],
            num_negatives=context.num_negatives,
            n_queries=len(self.rows),
            n_documents=len(context.corpus_ids),
            short=int(((counts > 0) & (counts < context.num_negatives)).sum()),
            without=int((counts == 0).sum()),
            padded=int((self.origin == len(self.sources)).sum()),
            forbidden=dict(context.forbidden.counts),
            proposed=dict(self._proposed),
            dropped=dropped | {rule: count for rule, count in self._dropped.items() if count},
            taken={str(source): int((self.origin == n).sum()) for n, source in enumerate(self.sources)},
            relabelled=[(context.query_ids[pair.query], context.corpus_ids[pair.row]) for pair in self.new_positives],
            positive_scores=np.concatenate([*self._positive_scores, np.empty(0, dtype=np.float32)]),
            negative_scores=self.scores,
            origin=self.origin,
            examples=self._examples,
            notes=context.notes,
        )

    def _teacher_scores(self) -> dict[str, dict[str, float]]:
        """Query id -> document id -> what a teacher thinks of the pair, positives included."""
        scores: dict[str, dict[str, float]] = {}
        for teacher in self.teachers:
            for pair, score in teacher.scores.items():
                query_id = self.context.query_ids[pair.query]
                scores.setdefault(query_id, {})[self.context.corpus_ids[pair.row]] = score
        return scores


def _pick(
    rows: NDArray[np.int64], scores: NDArray[np.float32], origin: NDArray[np.int8], wanted: int
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int8]]:
    """The first candidates of each line that are left."""
    order = np.argsort(rows < 0, axis=1, kind="stable")[:, :wanted]
    return (
        np.take_along_axis(rows, order, axis=1),
        np.take_along_axis(scores, order, axis=1),
        np.take_along_axis(origin, order, axis=1),
    )
