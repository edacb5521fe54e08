"""What an evaluation leaves behind: scores and hits of every query, as data first and as tables on request."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llama_index_embft._core.files import atomic_write_text
from llama_index_embft._core.tables import TextTable, csv_text, spreadsheet_cell
from llama_index_embft.errors import EvaluationError

if TYPE_CHECKING:
    import os

    import pandas as pd
    from numpy.typing import NDArray

FORMAT: Final = "llama-index-embft/retrieval-report"
VERSION: Final = 1


@dataclass(frozen=True, eq=False, repr=False)
class RetrievalReport:
    """Scores and hits of one system on one data set, query by query; means are derived, never stored.

    Every per-query field has one entry a query, in the order of `query_ids`.

    Attributes:
        label: Name of the system in tables, for example ``"bge-small, adapter"``.
        ks: Cut-offs of the metrics.
        depth: Hits that were asked for per query.
        query_ids: Ids of the queries.
        queries: Their texts.
        documents: The source document each query is about: of its most relevant chunk. Queries about one document are
            not independent, and `compare` treats them so.
        relevant: Relevant ids with their grades.
        hit_ids: Ids of what was found, best first, none twice.
        hit_scores: The system's scores of these; empty for a system that gives none.
        values: Metric name -> score of each query, in [0, 1], shape ``(n_queries,)``.
        corpus_size: Number of documents searched; None where it is not known.
        data_hash: Hash of queries and judgements; reports that are compared must share it.
        corpus_hash: Hash of the texts searched; where it differs, `compare` says so.
        text: Which text was embedded, in words.
        seconds: Wall-clock seconds by phase, for example ``{"encode": 1.2, "search": 0.1}``.
        latencies: Seconds a query, for systems that answer one query at a time.
        errors: Query id -> what went wrong; such a query scores 0 and counts.
        notes: Things a reader should know, in words.
        answers: What a query engine answered; empty for retrieval alone.
        overlap: How many of the questions, and of the documents that answer them, the system was trained or chosen on:
            ``trained_on_queries``, ``trained_on_documents``, ``chosen_on_queries``, ``chosen_on_documents``; empty:
            none that is known.
        folds: Models that share the queries, each tested on documents that it did not see; 1 for one model on all.
    """

    label: str
    ks: tuple[int, ...]
    depth: int
    query_ids: tuple[str, ...]
    queries: tuple[str, ...]
    documents: tuple[str, ...]
    relevant: tuple[dict[str, int], ...]
    hit_ids: tuple[tuple[str, ...], ...]
    hit_scores: tuple[tuple[float, ...], ...]
    values: dict[str, NDArray[np.float64]]
    corpus_size: int | None = None
    data_hash: str = ""
    corpus_hash: str = ""
    text: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    latencies: tuple[float, ...] = ()
    errors: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    overlap: dict[str, int] = field(default_factory=dict)
    folds: int = 1

    def __post_init__(self) -> None:
        n = len(self.query_ids)
        if not n:
            raise EvaluationError("There is no query to score; give a data set with at least one query.")
        per_query = ("queries", "documents", "relevant", "hit_ids", "hit_scores")
        wrong = [name for name in per_query if len(getattr(self, name)) != n]
        wrong += [name for name, values in self.values.items() if values.shape != (n,)]
        if wrong:
            raise EvaluationError(f"Report {self.label!r}: `{wrong[0]}` must hold one entry for each of {n} queries.")
        for name, values in self.values.items():
            if not ((values >= 0) & (values <= 1 + 1e-9)).all():  # false for NaN too
                query = self.query_ids[int(np.flatnonzero(~((values >= 0) & (values <= 1 + 1e-9)))[0])]
                raise EvaluationError(f"Report {self.label!r}: {name} of query {query!r} is not a number in [0, 1].")

    def __repr__(self) -> str:
        shown = ", ".join(f"{name} {value:.3f}" for name, value in self._headline().items())
        return f"{type(self).__name__}({self.label!r}, {len(self.query_ids)} queries: {shown})"

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics, in table order."""
        return tuple(self.values)

    @cached_property
    def row_of(self) -> dict[str, int]:
        """Query id -> position in the per-query fields."""
        return {query: row for row, query in enumerate(self.query_ids)}

    def mean(self, metric: str) -> float:
        """Mean of one metric over all queries.

        Raises:
            EvaluationError: The report has no such metric.
        """
        if metric not in self.values:
            raise EvaluationError(f"Report {self.label!r} has no metric {metric!r}; it has {', '.join(self.values)}.")
        return float(self.values[metric].mean())

    def summary(self) -> dict[str, float]:
        """Metric name -> mean over all queries."""
        return {name: self.mean(name) for name in self.values}

    def first_ranks(self, depth: int | None = None) -> NDArray[np.int64]:
        """Rank of the best-placed relevant document of each query, from 1; 0 where none was found.

        Args:
            depth: Look at this many hits only, to compare with a report that has no more; None: at all.
        """
        ranks = np.zeros(len(self.query_ids), dtype=np.int64)
        for row, (hits, relevant) in enumerate(zip(self.hit_ids, self.relevant, strict=True)):
            ranks[row] = next((rank for rank, doc in enumerate(hits[:depth], 1) if doc in relevant), 0)
        return ranks

    def to_pandas(self) -> pd.DataFrame:
        """A row a query (index ``query_id``), a column a metric."""
        import pandas as pd

        return pd.DataFrame(self.values, index=pd.Index(self.query_ids, name="query_id", dtype="object"))

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Save a line a query, a column a metric, whole or not at all.

        An id that a spreadsheet would run as a formula gets an apostrophe in front.
        """
        columns = (column.tolist() for column in self.values.values())
        rows = ([spreadsheet_cell(query), *row] for query, *row in zip(self.query_ids, *columns, strict=True))
        atomic_write_text(path, csv_text([["query_id", *self.values], *rows]))

    def to_trec_run(self, path: str | os.PathLike[str], *, tag: str = "embft") -> None:
        """Save the hits as a TREC run file, whole or not at all.

        Hits without scores get falling ones, so that their order survives; so do those of a system whose order is not
        that of its scores (a re-ranker that keeps them, say).

        Raises:
            DatasetError: An id is empty or holds white space, which such a file cannot carry.
            OutputError: The file cannot be written.
        """
        from llama_index_embft.dataset.formats.trec import write_run

        run = {}
        for query, ids, scores in zip(self.query_ids, self.hit_ids, self.hit_scores, strict=True):
            falling = bool(scores) and all(a >= b for a, b in itertools.pairwise(scores))
            run[query] = dict(zip(ids, scores if falling else map(float, range(len(ids), 0, -1)), strict=True))
        write_run(run, path, tag=tag)

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Save as JSON, whole or not at all; `from_json` reads it back.

        Raises:
            OutputError: The file cannot be written.
        """
        rows = zip(
            self.query_ids, self.queries, self.documents, self.relevant, self.hit_ids, self.hit_scores, strict=True
        )
        content = {
            "format": FORMAT,
            "version": VERSION,
            "label": self.label,
            "metrics": self.summary(),
            "ks": list(self.ks),
            "depth": self.depth,
            "corpus_size": self.corpus_size,
            "data_hash": self.data_hash,
            "corpus_hash": self.corpus_hash,
            "text": self.text,
            "seconds": self.seconds,
            "latencies": list(self.latencies),
            "errors": self.errors,
            "notes": list(self.notes),
            "answers": list(self.answers),
            "overlap": self.overlap,
            "folds": self.folds,
            "values": {name: values.tolist() for name, values in self.values.items()},
            "queries": [
                {
                    "id": query,
                    "text": text,
                    "document": document,
                    "relevant": relevant,
                    "hits": list(hits),
                    "scores": list(scores),
                }
                for query, text, document, relevant, hits, scores in rows
            ],
        }
        atomic_write_text(path, json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n")

    @classmethod
    def from_json(cls, path: str | os.PathLike[str]) -> RetrievalReport:
        """Load a report that `to_json` saved.

        Raises:
            EvaluationError: The file is missing, damaged, or something else than such a report.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as err:
            raise EvaluationError(f"Cannot read the report {path}: {err.strerror or err}.") from err
        except (ValueError, RecursionError) as err:
            raise EvaluationError(f"{path} is not JSON ({err}); give a file that `to_json` wrote.") from err
        kind = content.get("format") if isinstance(content, dict) else None
        if kind != FORMAT:
            hint = "a comparison; give the two reports it was made from" if kind else "something else"
            raise EvaluationError(f"{path} is not a retrieval report but {hint}; `embft evaluate --out` writes one.")
        if content.get("version") != VERSION:
            raise EvaluationError(
                f"{path} has report version {content.get('version')!r}, this package reads {VERSION}; "
                "run `embft evaluate` again."
            )
        try:
            stored = _StoredReport.model_validate(content)
        except ValidationError as err:
            first = err.errors(include_url=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise EvaluationError(f"{path} is a damaged report ({place}: {first['msg']}); write it again.") from err
        queries = stored.queries
        plain: dict[str, Any] = stored.model_dump(exclude={"queries", "values"})
        plain = {name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()}
        return cls(
            **plain,
            query_ids=tuple(query.id for query in queries),
            queries=tuple(query.text for query in queries),
            documents=tuple(query.document for query in queries),
            relevant=tuple(query.relevant for query in queries),  # type: ignore[misc]  # a grade may be a share
            hit_ids=tuple(tuple(query.hits) for query in queries),
            hit_scores=tuple(tuple(query.scores) for query in queries),
            values={name: np.array(values, dtype=np.float64) for name, values in stored.values.items()},
        )

    def to_markdown(self) -> str:
        """A table of the means, a row a metric, a column a cut-off, and what a reader should know."""
        notes = "\n".join(f"- {escape(' '.join(note.split()), quote=False)}" for note in self.notes)
        return self.table().to_markdown() + (f"\n\n{notes}" if notes else "")

    def table(self) -> TextTable:
        """The means: a row a metric, a column a cut-off."""
        cuts = sorted({name.partition("@")[2] for name in self.values}, key=lambda k: int(k or 0))
        families = dict.fromkeys(name.partition("@")[0] for name in self.values)
        rows = []
        for family in families:
            names = [f"{family}@{k}" if k else family for k in cuts]
            rows.append([family, *(f"{self.mean(name):.4f}" if name in self.values else "" for name in names)])
        return TextTable(["metric", *(f"@{k}" if k else "" for k in cuts)], rows)

    def _headline(self) -> dict[str, float]:
        wanted = [name for name in ("hit_rate@10", "mrr@10", "ndcg@10") if name in self.values] or self.metrics[:3]
        return {name: self.mean(name) for name in wanted}

    def _repr_html_(self) -> str:
        facts = [f"{len(self.query_ids):,} queries"]
        if self.corpus_size is not None:
            facts.append(f"{self.corpus_size:,} documents")
        facts += [f"{phase} {seconds:.1f} s" for phase, seconds in self.seconds.items()]
        facts += [f"{len(self.errors):,} queries failed"] if self.errors else []
        notes = "".join(f"<li>{escape(note)}</li>" for note in self.notes)
        caption = f"<b>{escape(self.label)}</b>: {escape(', '.join(facts))}"
        return self.table().to_html(caption) + (f"<ul>{notes}</ul>" if notes else "")


class _StoredQuery(BaseModel):
    model_config = ConfigDict(strict=True)

    id: str
    text: str
    document: str
    relevant: dict[str, int | float] = Field(min_length=1)
    hits: list[str]
    scores: list[float]


class _StoredReport(BaseModel):
    """The fields of a saved report; `to_json` writes more, for other readers."""

    model_config = ConfigDict(strict=True, extra="ignore")

    label: str
    ks: list[int]
    depth: int
    corpus_size: int | None
    data_hash: str
    corpus_hash: str
    text: str
    seconds: dict[str, float]
    latencies: list[float]
    errors: dict[str, str]
    notes: list[str]
    answers: list[str]
    overlap: dict[str, int] = Field(default_factory=dict)
    folds: int = 1
    values: dict[str, list[float]]
    queries: list[_StoredQuery]
