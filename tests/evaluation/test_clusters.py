"""What counts as one observation."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from llama_index_embft.errors import ConfigError
from llama_index_embft.evaluation import statistics  # pytest would take `tested_on_these` for a test
from llama_index_embft.evaluation.statistics import clusters_of


def report(n: int, *, documents: int, chunks: int) -> SimpleNamespace:
    """`n` queries; each has a graded chunk that counts and a lesser one that all share."""
    return SimpleNamespace(
        query_ids=tuple(f"q{i}" for i in range(n)),
        documents=tuple(f"d{i % documents}" for i in range(n)),
        relevant=tuple({"shared": 1, f"c{i % chunks}": 3} for i in range(n)),
    )


REPORT = report(12, documents=3, chunks=6)


def test_queries_are_grouped_by_what_is_asked_for() -> None:
    assert clusters_of(REPORT, None) == clusters_of(REPORT, "query") == (None, "query", [])
    assert clusters_of(REPORT, "document") == ([f"d{i % 3}" for i in range(12)], "document", [])
    own = {f"q{i}": i // 2 for i in range(12)}
    assert clusters_of(REPORT, own) == ([str(i // 2) for i in range(12)], "given", [])


def test_chunks_that_are_documents_are_called_so() -> None:
    same = report(6, documents=3, chunks=3)
    same.documents = tuple(f"c{i % 3}" for i in range(6))
    assert clusters_of(same, "document") == (["c0", "c1", "c2"] * 2, "chunk", [])
    same.documents = ("c0",) * 6
    same.relevant = ({"c0": 1},) * 6
    assert clusters_of(same, "document") == (["c0"] * 6, "chunk", [])


def test_one_document_says_nothing_about_others() -> None:
    labels, clustered, notes = clusters_of(report(4, documents=1, chunks=4), "document")
    assert (labels, clustered) == (["d0"] * 4, "document")
    assert notes == [
        "All queries are about one source document, so nothing can be shown about others; add documents, or group by "
        "query to judge for this one alone."
    ]
    assert clusters_of(report(4, documents=2, chunks=4), "document")[2] == []


def test_what_cannot_be_grouped_by_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no label for query 'q1' \(and 10 more\)"):
        clusters_of(REPORT, {"q0": 1})
    with pytest.raises(ConfigError, match=r"mapping of query ids, got 'chunk'"):
        clusters_of(REPORT, "chunk")


@pytest.mark.parametrize(
    ("documents", "chunks", "clustered", "finer"),
    [
        (10, 20, "document", None),  # enough documents to speak of others
        (9, 20, "document", "c"),
        (9, 10, "document", "c"),
        (9, 9, "document", "q"),  # chunks are few too
        (9, 20, "given", "c"),
        (9, 20, "chunk", "q"),
    ],
)
def test_few_documents_are_looked_at_by_chunk_or_query(documents: int, chunks: int, clustered: str, finer) -> None:
    given = report(40, documents=documents, chunks=chunks)
    names = {None: None, "c": [f"c{i % chunks}" for i in range(40)], "q": [f"q{i}" for i in range(40)]}
    assert statistics.tested_on_these(given, list(given.documents), clustered) == names[finer]
    assert statistics.tested_on_these(given, None, "query") is None
