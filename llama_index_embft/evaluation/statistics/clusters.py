"""What counts as one independent observation: the document that a query is about, or what the caller says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal

from llama_index_embft.errors import ConfigError

if TYPE_CHECKING:
    from llama_index_embft.evaluation.records import RetrievalReport

ClusterBy = Literal["document", "query"] | Mapping[str, Any] | None

# Below this a loss on these very documents is looked for too: by document only a collapse would be seen, or nothing.
_FEW_DOCUMENTS: Final = 10


def clusters_of(report: RetrievalReport, by: ClusterBy) -> tuple[list[Any] | None, str, list[str]]:
    """Labels of the independent groups, what they are, and what to say about them."""
    if by is None or by == "query":
        return None, "query", []
    if isinstance(by, Mapping):
        missing = [query for query in report.query_ids if query not in by]
        if missing:
            raise ConfigError(f"`cluster_by` has no label for query {missing[0]!r} (and {len(missing) - 1} more).")
        return [str(by[query]) for query in report.query_ids], "given", []
    if by != "document":
        raise ConfigError(f"`cluster_by` must be 'document', 'query', None or a mapping of query ids, got {by!r}.")
    chunks = [max(relevant, key=relevant.__getitem__) for relevant in report.relevant]
    documents = list(report.documents)
    n_documents = len(set(documents))
    if documents == chunks:
        return chunks, "chunk", []
    if n_documents == 1:
        note = (
            "All queries are about one source document, so nothing can be shown about others; add documents, or group "
            "by query to judge for this one alone."
        )
        return documents, "document", [note]
    return documents, "document", []


def tested_on_these(report: RetrievalReport, labels: list[Any] | None, clustered: str) -> list[Any] | None:
    """What to test by where the clusters are few, so that a loss on these very ones is seen; else None.

    Returns:
        The chunk of each query, or, where chunks are few too, the query itself.
    """
    if labels is None or len(set(labels)) >= _FEW_DOCUMENTS:
        return None
    chunks = [max(relevant, key=relevant.__getitem__) for relevant in report.relevant]
    return chunks if clustered != "chunk" and len(set(chunks)) >= _FEW_DOCUMENTS else list(report.query_ids)
