"""From candidates to negatives: sources take turns, filters and teachers drop, and everything is counted."""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING, Any

import numpy as np

from llama_index_embft.errors import ConfigError
from llama_index_embft.mining.panel import Candidates, without_repeats
from llama_index_embft.mining.report import Example, Reading
from llama_index_embft.mining.strategies import Filter, Random, ScoreWindow, Source
from llama_index_embft.mining.teachers import CrossEncoder, Pair, Teacher

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.mining.panel import Material, Panel
    from llama_index_embft.mining.report import MiningReport

_EXAMPLES = 10
_PADDING = "padding"
_RELATIVE = "likeness to a new positive"


class Choice:
    """Chooses the negatives of all queries, panel by panel.

    Args:
        material: The run.
        strategies: Sources, filters and teachers.
        relabel: What a teacher finds relevant becomes a positive.
        pad: Fill up with random documents.
        report: Filled in.
    """

    def __init__(
        self, material: Material, strategies: Sequence[Any], *, relabel: bool, pad: bool, report: MiningReport
    ) -> None:
        self.material, self.relabel, self.pad, self.report = material, relabel, pad, report
        self.sources = [strategy for strategy in strategies if isinstance(strategy, Source)]
        self.filters = [strategy for strategy in strategies if isinstance(strategy, Filter)]
        self.teachers = [strategy for strategy in strategies if isinstance(strategy, Teacher)]
        for source in self.sources:
            source.prepare(material)
        for teacher in self.teachers:
            teacher.prepare(material)
        n, wanted = len(material.query_ids), material.num_negatives
        self.rows = np.full((n, wanted), -1, dtype=np.int64 if len(material.corpus_ids) >= 2**31 else np.int32)
        self.scores = np.full((n, wanted), np.nan, dtype=np.float32)
        self.origin = np.full((n, wanted), -1, dtype=np.int8)
        self.new_positives: list[Pair] = []
        self._positive_scores: list[NDArray[np.float32]] = []
        self._proposed: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        shown = np.random.default_rng(material.seed).choice(n, min(n, _EXAMPLES), replace=False)
        self._shown = set(np.sort(shown).tolist())
        self._examples: list[Example] = []

    def take(self, panel: Panel) -> None:
        """Choose the negatives of some queries."""
        candidates, origin = self._merged(panel)
        candidates = self._filtered(panel, candidates)
        if self.teachers:
            rows = self._taught(panel, candidates.rows)
            picked, scores, origin = _pick(rows, candidates.scores, origin, self.material.num_negatives)
        else:
            picked, scores, origin = _pick(candidates.rows, candidates.scores, origin, self.material.num_negatives)
        lines = slice(panel.start, panel.stop)
        self.rows[lines, : picked.shape[1]] = picked
        self.scores[lines, : picked.shape[1]] = np.where(picked >= 0, scores, np.nan)
        self.origin[lines, : picked.shape[1]] = np.where(picked >= 0, origin, -1)
        if self.pad:
            self._padded(panel)
        self._positive_scores.append(panel.positive_scores[panel.positives >= 0])
        self._remember_examples(panel)

    def _merged(self, panel: Panel) -> tuple[Candidates, NDArray[np.int8]]:
        """The candidates of all sources, taking turns; a document that two propose counts for the first."""
        proposals = [source.propose(panel) for source in self.sources]
        for source, proposal in zip(self.sources, proposals, strict=True):
            self._proposed[str(source)] += int((proposal.rows >= 0).sum())
        if len(proposals) == 1:
            return proposals[0], np.zeros(proposals[0].rows.shape, dtype=np.int8)
        shape = len(panel), max(proposal.rows.shape[1] for proposal in proposals), len(proposals)
        rows = np.full(shape, -1, dtype=np.int64)
        scores = np.full(shape, -np.inf, dtype=np.float32)
        for number, proposal in enumerate(proposals):
            # What is missing in the middle moves to the end, so that a source with gaps does not lose its turns.
            order = np.argsort(proposal.rows < 0, axis=1, kind="stable")
            rows[:, : order.shape[1], number] = np.take_along_axis(proposal.rows, order, axis=1)
            scores[:, : order.shape[1], number] = np.take_along_axis(proposal.scores, order, axis=1)
        origin = np.broadcast_to(np.arange(shape[2], dtype=np.int8), shape)
        flat = without_repeats(rows.reshape(len(panel), -1))
        return Candidates(flat, scores.reshape(len(panel), -1)), origin.reshape(len(panel), -1)

    def _filtered(self, panel: Panel, candidates: Candidates) -> Candidates:
        for rule in self.filters:
            present = candidates.rows >= 0
            keeps = rule.keeps(panel, candidates)
            self._dropped[str(rule)] += int((present & ~keeps).sum())
            candidates = candidates._replace(rows=np.where(keeps, candidates.rows, -1))
        return candidates

    def _taught(self, panel: Panel, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Ask the teachers about as many candidates as are needed; what they did not see is left out."""
        waiting = [deque(row for row in line.tolist() if row >= 0) for line in rows]
        accepted: list[list[int]] = [[] for _ in waiting]
        blocked: list[set[int]] = [set() for _ in waiting]
        wanted = self.material.num_negatives
        while True:
            asked: list[Pair] = []
            for line, queue in enumerate(waiting):
                needed = wanted - len(accepted[line])
                while queue and needed:
                    row = queue.popleft()
                    if row in blocked[line]:
                        self._dropped[_RELATIVE] += 1
                    else:
                        asked.append(Pair(panel.start + line, row))
                        needed -= 1
            if not asked:
                break
            for pair in self._ask(asked, blocked, panel.start):
                accepted[pair.query - panel.start].append(pair.row)
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
            relevant = teacher.relevant(self.material, asked)
            self._dropped[str(teacher)] += sum(relevant)
            if self.relabel:
                for pair in (pair for pair, yes in zip(asked, relevant, strict=True) if yes):
                    if pair.row not in blocked[pair.query - first]:
                        self.new_positives.append(pair)
                    blocked[pair.query - first] |= self.material.forbidden.with_relatives(pair.row)
            asked = [pair for pair, yes in zip(asked, relevant, strict=True) if not yes]
        return asked

    def _padded(self, panel: Panel) -> None:
        """Fill up with random documents that may be negatives."""
        lines = np.arange(panel.start, panel.stop)
        short = self.rows[lines, -1] < 0
        if not short.any():
            return
        candidates = Random().propose(panel)
        taken = self.rows[lines].astype(np.int64)
        free = without_repeats(np.concatenate([taken, candidates.rows], axis=1))[:, taken.shape[1] :]
        relatives = {
            (pair.query, row) for pair in self.new_positives for row in self.material.forbidden.with_relatives(pair.row)
        }
        for line in np.flatnonzero(short).tolist():
            query = panel.start + line
            gaps = np.flatnonzero(self.rows[query] < 0)
            places = [
                place for place in np.flatnonzero(free[line] >= 0) if (query, int(free[line, place])) not in relatives
            ][: len(gaps)]
            self.rows[query, gaps[: len(places)]] = free[line, places]
            self.scores[query, gaps[: len(places)]] = candidates.scores[line, places]
            self.origin[query, gaps[: len(places)]] = len(self.sources)

    def _remember_examples(self, panel: Panel) -> None:
        dataset, ids = self.material.dataset, self.material.corpus_ids
        names = [*map(str, self.sources), _PADDING]
        for query in sorted(self._shown & set(range(panel.start, panel.stop))):
            line = query - panel.start
            positives = [
                Reading(ids[row], dataset.bare_text(ids[row]), float(score), "")
                for row, score in zip(panel.positives[line], panel.positive_scores[line], strict=True)
                if row >= 0
            ]
            negatives = [
                Reading(ids[row], dataset.bare_text(ids[row]), float(score), names[origin])
                for row, score, origin in zip(self.rows[query], self.scores[query], self.origin[query], strict=True)
                if row >= 0
            ]
            query_id = self.material.query_ids[query]
            self._examples.append(Example(query_id, dataset.queries[query_id], positives, negatives))

    def result(self) -> EmbeddingQAFinetuneDataset:
        """The data set with its negatives, once all panels are through.

        Raises:
            ConfigError: A source proposed nothing for any query, or nothing is left.
        """
        self._fill_report()
        for source in self.sources:
            if not self._proposed[str(source)]:
                raise ConfigError(self._nothing_from(source))
        if not (self.rows >= 0).any():
            drops = ", ".join(f"{rule} dropped {count}" for rule, count in self._dropped.items() if count)
            raise ConfigError(
                f"No negative is left for any of {len(self.rows)} queries: of {sum(self._proposed.values())} "
                f"candidates {drops or 'none was allowed'}; use a wider window or a weaker filter."
            )
        dataset, ids = self.material.dataset, self.material.corpus_ids
        negatives = {
            query: [ids[row] for row in rows.tolist() if row >= 0]
            for query, rows in zip(self.material.query_ids, self.rows, strict=True)
        }
        relevant = {query: list(docs) for query, docs in dataset.relevant_docs.items()}
        for pair in self.new_positives:
            relevant[self.material.query_ids[pair.query]].append(ids[pair.row])
        fields = {name: getattr(dataset, name) for name in type(dataset).model_fields}
        fields |= {
            "relevant_docs": relevant,
            "negative_docs": {query: docs for query, docs in negatives.items() if docs},
        }
        return type(dataset)(**fields)

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

    def _fill_report(self) -> None:
        report, wanted = self.report, self.material.num_negatives
        counts = (self.rows >= 0).sum(axis=1)
        report.num_negatives = wanted
        report.strategies = [str(strategy) for strategy in (*self.sources, *self.filters, *self.teachers)]
        report.n_queries, report.n_documents = len(self.rows), len(self.material.corpus_ids)
        report.short = int(((counts > 0) & (counts < wanted)).sum())
        report.without = int((counts == 0).sum())
        report.padded = int((self.origin == len(self.sources)).sum())
        report.proposed = dict(self._proposed)
        report.taken = {str(source): int((self.origin == n).sum()) for n, source in enumerate(self.sources)}
        report.forbidden = dict(self.material.forbidden.counts)
        report.dropped = {rule: self._dropped[rule] for rule in map(str, (*self.filters, *self.teachers))}
        report.dropped |= {rule: count for rule, count in self._dropped.items() if count}
        query_ids, ids = self.material.query_ids, self.material.corpus_ids
        report.relabelled = [(query_ids[pair.query], ids[pair.row]) for pair in self.new_positives]
        report.positive_scores = np.concatenate([*self._positive_scores, np.empty(0, dtype=np.float32)])
        report.negative_scores, report.origin = self.scores, self.origin
        report.examples = self._examples
        report.notes = self.material.notes
        report.teacher_scores = {}
        for teacher in self.teachers:
            if isinstance(teacher, CrossEncoder):
                for pair, score in teacher.scores.items():
                    report.teacher_scores.setdefault(query_ids[pair.query], {})[ids[pair.row]] = score


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
