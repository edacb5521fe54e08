"""A table with a row for each judgement, with ids, grades, answers, sources and bare texts."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from llama_index_embft.dataset.formats.build import as_grade, as_id, as_text
from llama_index_embft.dataset.formats.columns import ColumnRoles, plain_name
from llama_index_embft.dataset.formats.rows import Row, container_of, is_formula, read_rows, write_rows
from llama_index_embft.dataset.sources import FaultError

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator, Mapping, Sequence

    from llama_index_embft.dataset.formats.build import Builder
    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset

TABLE: Final = (
    "query_id", "query", "document_id", "document", "relevance", "answer", "source_document", "bare_text",
)  # fmt: skip


def read(
    source: Any, build: Builder, *, split: str | None = None, columns: Mapping[str, str | Sequence[str]] | None = None
) -> EmbeddingQAFinetuneDataset:
    """Read a row for each judgement, with ids: the columns are those of `TABLE`, of which only the texts are needed.

    Their case, and a space for ``_``, do not matter.

    ``relevance`` is the grade, 1 where it is missing; 0 and below is a negative. A row without a query is a document.

    Args:
        source: See `read_rows`.
        build: What collects.
        split: The split of a `DatasetDict`.
        columns: ``ignore`` -> columns that may be left unread.

    Raises:
        DatasetError: A column that nobody reads looks like a label, a grade or a score.
    """
    roles, separated = ColumnRoles(build.source, columns, known=TABLE), _is_separated(source)
    for at, given in read_rows(source, build, split=split):
        row = {plain if (plain := plain_name(name)) in TABLE else name: cell for name, cell in given.items()}
        with build.row():
            roles.take(row, at)
            known = {name: None if row.get(name) in (None, "") else row[name] for name in TABLE}
            if separated:
                known = {name: _unguarded(cell) for name, cell in known.items()}
            texts = {
                name: as_text(known[name], name, at)
                for name in ("query", "document", "answer", "source_document", "bare_text")
                if known[name] is not None or name == "document"
            }
            ids = {
                name: None if known[name] is None else as_id(known[name], name, at)
                for name in ("query_id", "document_id")
            }
            grade = 1 if known["relevance"] is None else as_grade(known["relevance"], "relevance", at)
            doc = build.add_document(
                texts["document"],
                at,
                ids["document_id"],
                bare=texts.get("bare_text"),
                source=texts.get("source_document"),
            )
            if "query" in texts:
                query = build.add_query(texts["query"], at, ids["query_id"])
                build.link(query, doc, grade, at)
                if "answer" in texts:
                    build.add_answer(query, texts["answer"], at)
            elif ids["query_id"] is not None:
                raise FaultError(at, "empty text", f"the query {ids['query_id']!r} has no text")
            build.ignore(row, frozenset(TABLE))
    roles.check_unused()
    return build.finish()


def write(dataset: EmbeddingQAFinetuneDataset, path: str | os.PathLike[str], lost: Counter[str]) -> int:
    """Write a row for each judgement, and one without a query for each document that no query names."""
    del lost

    def row(doc: str, query: str | None = None, relevance: int | None = None) -> Row:
        return {
            "query_id": query,
            "query": None if query is None else dataset.queries[query],
            "document_id": doc,
            "document": dataset.corpus[doc],
            "relevance": relevance,
            "answer": None if query is None else dataset.reference_answers.get(query),
            "source_document": dataset.source_documents.get(doc),
            "bare_text": dataset.bare_texts.get(doc),
        }

    def rows() -> Iterator[Row]:
        named: set[str] = set()
        for query, judged in dataset.qrels().items():
            for doc, grade in (judged | dict.fromkeys(dataset.negative_docs.get(query, ()), 0)).items():
                named.add(doc)
                yield row(doc, query, grade)
        yield from (row(doc) for doc in dataset.corpus if doc not in named)

    if _is_separated(path):
        return write_rows(({name: _guarded(cell) for name, cell in row.items()} for row in rows()), path, TABLE)
    return write_rows(rows(), path, TABLE)


def _is_separated(path: Any) -> bool:
    return isinstance(path, (str, os.PathLike)) and container_of(path) in ("csv", "tsv")


def _guarded(cell: Any) -> Any:
    """A cell that no spreadsheet runs: an apostrophe before what would be a formula, as spreadsheets write it."""
    return f"'{cell}" if isinstance(cell, str) and is_formula(cell.lstrip("'")) else cell


def _unguarded(cell: Any) -> Any:
    return cell[1:] if isinstance(cell, str) and cell.startswith("'") and is_formula(cell.lstrip("'")) else cell
