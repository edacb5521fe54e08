"""Figures about a data set."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import mean, median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True)
class Lengths:
    """Lengths of texts, in characters; all 0 where there is no text."""

    mean: float
    median: float
    max: int

    @classmethod
    def of(cls, texts: Iterable[str]) -> Lengths:
        """Measure texts."""
        lengths = [len(text) for text in texts]
        return cls(mean(lengths), median(lengths), max(lengths)) if lengths else cls(0.0, 0.0, 0)

    def __str__(self) -> str:
        return f"mean {self.mean:,.0f}, median {self.median:,.0f}, longest {self.max:,} characters"


@dataclass(frozen=True)
class DatasetStats:
    """Size and shape of a data set.

    Attributes:
        queries: Number of queries.
        corpus: Number of documents (chunks) in the corpus.
        pairs: Number of (query, relevant document) pairs.
        documents: Number of source documents that the corpus was cut from.
        questioned_documents: Number of source documents that at least one query asks about.
        queries_per_document: Mean number of queries of a source document that is asked about; a query that asks about
            two documents counts for both.
        negatives: Number of (query, negative document) pairs.
        reference_answers: Number of queries with an answer in words.
        graded: Whether a relevant document has a grade above 1.
        query_chars: Lengths of the queries.
        corpus_chars: Lengths of the corpus texts.
    """

    queries: int
    corpus: int
    pairs: int
    documents: int
    questioned_documents: int
    queries_per_document: float
    negatives: int
    reference_answers: int
    graded: bool
    query_chars: Lengths
    corpus_chars: Lengths

    @classmethod
    def of(cls, sections: Mapping[str, dict[str, Any]]) -> DatasetStats:
        """Count and measure the sections of a data set."""
        source, corpus, queries = sections["source_documents"], sections["corpus"], sections["queries"]
        asked = [{source.get(doc, doc) for doc in docs} for docs in sections["relevant_docs"].values()]
        questioned: set[str] = set().union(*asked)
        return cls(
            queries=len(queries),
            corpus=len(corpus),
            pairs=sum(map(len, sections["relevant_docs"].values())),
            documents=len({source.get(doc, doc) for doc in corpus}),
            questioned_documents=len(questioned),
            queries_per_document=sum(map(len, asked)) / len(questioned) if questioned else 0.0,
            negatives=sum(map(len, sections["negative_docs"].values())),
            reference_answers=len(sections["reference_answers"]),
            graded=any(grade > 1 for grades in sections["relevance_grades"].values() for grade in grades.values()),
            query_chars=Lengths.of(queries.values()),
            corpus_chars=Lengths.of(corpus.values()),
        )

    def __str__(self) -> str:
        rows = [
            ("queries", f"{self.queries:,} ({self.query_chars})"),
            ("corpus", f"{self.corpus:,} chunks of {self.documents:,} source documents ({self.corpus_chars})"),
            ("relevant pairs", f"{self.pairs:,}{', graded' if self.graded else ''}"),
            (
                "coverage",
                f"{self.questioned_documents:,} source documents asked about, "
                f"{self.queries_per_document:.1f} queries each",
            ),
        ]
        if self.negatives:
            rows.append(("negatives", f"{self.negatives:,}"))
        if self.reference_answers:
            rows.append(("answers", f"{self.reference_answers:,}"))
        return "\n".join(f"{name:<15} {value}" for name, value in rows)
