"""What mining did: score distributions, what was dropped by which rule, and examples to read."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from llama_index_embft._core.files import atomic_write_text
from llama_index_embft._core.tables import TextTable

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_QUANTILES: Final = (0, 5, 25, 50, 75, 95, 100)
_SHOWN_CHARS: Final = 160


class ExampleDocument(NamedTuple):
    """A document of an example: id, text without metadata, similarity, and the strategy that found it."""

    id: str
    text: str
    score: float
    source: str


class MinedExample(NamedTuple):
    """A query with its positives and negatives, to be read by a person."""

    query_id: str
    query: str
    positives: list[ExampleDocument]
    negatives: list[ExampleDocument]


class ScoreDistribution(NamedTuple):
    """Scores of one kind: how many, and the 0, 5, 25, 50, 75, 95 and 100 % quantiles."""

    name: str
    n: int
    quantiles: tuple[float, ...]


@dataclass
class MiningReport:
    """What a mining run did: ``report`` of what `mine_hard_negatives` returns.

    Attributes:
        strategies: What was asked for, in text form.
        num_negatives: Negatives wanted for each query.
        n_queries: Queries of the data set.
        n_documents: Documents of the corpus.
        short: Queries with some negatives, but fewer than wanted.
        without: Queries without any.
        padded: Random negatives that fill gaps; only with ``pad=True``.
        forbidden: Rule -> pairs of a query and a document that could not become negatives from the start.
        proposed: Source -> candidates.
        dropped: Filter or teacher -> candidates that it dropped.
        taken: Source -> negatives that came from it.
        relabelled: Pairs (query id, document id) that became positives.
        positive_scores: Shape ``(pairs,)``: similarity of each query with each of its positives.
        negative_scores: Shape ``(n_queries, num_negatives)``: similarities in the order of ``negative_docs``; NaN
            where a query has fewer.
        origin: Same shape: number of the source in ``taken`` (one past the last for padding), -1 for none.
        examples: Ten queries chosen at random.
        notes: Further remarks.
        seconds: Wall-clock seconds of the embedding, and of all.
    """

    strategies: list[str] = field(default_factory=list)
    num_negatives: int = 0
    n_queries: int = 0
    n_documents: int = 0
    short: int = 0
    without: int = 0
    padded: int = 0
    forbidden: dict[str, int] = field(default_factory=dict)
    proposed: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    taken: dict[str, int] = field(default_factory=dict)
    relabelled: list[tuple[str, str]] = field(default_factory=list)
    positive_scores: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, dtype=np.float32))
    negative_scores: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0), dtype=np.float32))
    origin: NDArray[np.int8] = field(default_factory=lambda: np.empty((0, 0), dtype=np.int8))
    examples: list[MinedExample] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def n_negatives(self) -> int:
        """Negatives in all."""
        return int(np.isfinite(self.negative_scores).sum())

    def warnings(self) -> list[str]:
        """What a user should know, each with its count."""
        found = list(self.notes)
        if self.short or self.without:
            found.append(
                f"{self.short + self.without} of {self.n_queries} queries have fewer than {self.num_negatives} "
                f"negatives, {self.without} of them none; use a wider window, a weaker filter or pad=True."
            )
        if self.padded:
            found.append(f"{self.padded} of {self.n_negatives} negatives are random ones that fill gaps (pad=True).")
        return found

    def distributions(self) -> list[ScoreDistribution]:
        """Score distributions of the positives, the negatives of each source, and all negatives."""
        kinds = [("positives", self.positive_scores)]
        names = [*self.taken, "padding"]
        for number, name in enumerate(names):
            scores = self.negative_scores[self.origin == number]
            if len(names) > 2 and len(scores):
                kinds.append((f"negatives, {name}", scores))
        kinds.append(("negatives", self.negative_scores[np.isfinite(self.negative_scores)]))
        return [
            ScoreDistribution(name, len(scores), tuple(float(x) for x in np.percentile(scores, _QUANTILES)))
            for name, scores in kinds
            if len(scores)
        ]

    def __str__(self) -> str:
        notes = [f"Note: {warning}" for warning in self.warnings()]
        parts = [self.headline(), *(table.to_text() for _, table in self._tables()), "\n".join(notes)]
        return "\n\n".join(part for part in parts if part)

    def headline(self) -> str:
        """The result in one sentence, without its full stop."""
        return (
            f"{self.n_negatives} negatives for {self.n_queries} queries among {self.n_documents} documents, by "
            + ", ".join(self.strategies)
        )

    def _tables(self) -> list[tuple[str, TextTable]]:
        """Titles and tables: the distributions of scores, and what became of the candidates."""
        similarities = TextTable(
            ["similarity", "n", *(f"{q} %" for q in _QUANTILES)],
            [[kind.name, str(kind.n), *(f"{x:.3f}" for x in kind.quantiles)] for kind in self.distributions()],
        )
        candidates = TextTable(["candidates", "count"], [[name, str(count)] for name, count in self._counts()])
        return [("Similarity to the query", similarities), ("Candidates", candidates)]

    def _counts(self) -> list[tuple[str, int]]:
        return [
            *((f"never: {rule}", count) for rule, count in self.forbidden.items()),
            *((f"proposed by {name}", count) for name, count in self.proposed.items()),
            *((f"dropped by {name}", count) for name, count in self.dropped.items()),
            *((f"taken from {name}", count) for name, count in self.taken.items()),
            *([("became positives", len(self.relabelled))] if self.relabelled else []),
            *([("padding", self.padded)] if self.padded else []),
        ]

    def examples_text(self) -> str:
        """The examples as text: each query with its positives and up to three negatives, long texts cut."""
        lines = []
        for example in self.examples:
            lines.append(f"? {_cut(example.query)}")
            lines += [f"  + {document.score:.3f} {_cut(document.text)}" for document in example.positives[:2]]
            lines += [
                f"  - {document.score:.3f} [{document.source}] {_cut(document.text)}"
                for document in example.negatives[:3]
            ]
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Everything but the arrays of single scores, as JSON types."""
        return {
            "strategies": self.strategies,
            "num_negatives": self.num_negatives,
            "n_queries": self.n_queries,
            "n_documents": self.n_documents,
            "n_negatives": self.n_negatives,
            "short": self.short,
            "without": self.without,
            "padded": self.padded,
            "forbidden": self.forbidden,
            "proposed": self.proposed,
            "dropped": self.dropped,
            "taken": self.taken,
            "relabelled": [list(pair) for pair in self.relabelled],
            "quantiles": list(_QUANTILES),
            "similarities": {kind.name: {"n": kind.n, "quantiles": kind.quantiles} for kind in self.distributions()},
            "examples": [
                {
                    "query_id": example.query_id,
                    "query": example.query,
                    "positives": [document._asdict() for document in example.positives],
                    "negatives": [document._asdict() for document in example.negatives],
                }
                for example in self.examples
            ],
            "notes": self.warnings(),
            "seconds": self.seconds,
        }

    def to_json(self, path: str | Path) -> None:
        """Write `as_dict` as JSON, whole or not at all.

        Raises:
            OutputError: The file cannot be written.
        """
        atomic_write_text(path, json.dumps(self.as_dict(), indent=2, ensure_ascii=False) + "\n")

    def to_html(self, path: str | Path) -> None:
        """Write one self-contained page: plot, tables, examples.

        Raises:
            OutputError: The file cannot be written.
        """
        from llama_index_embft.mining.page import render

        scores = {
            "positives": self.positive_scores,
            "negatives": self.negative_scores[np.isfinite(self.negative_scores)],
        }
        page = render(self.headline(), self.warnings(), scores, self._tables(), self.examples)
        atomic_write_text(path, page)


def _cut(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= _SHOWN_CHARS else flat[: _SHOWN_CHARS - 1] + "…"
