"""What systems are scored against: queries with their relevant documents, and the texts that are searched."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal

from llama_index_embft.dataset.prepared import own_text_documents
from llama_index_embft.errors import EvaluationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset

IndexedText = Literal["embed", "none"]
"""Which metadata stand in front of a text: ``"embed"`` as the index embeds it, ``"none"`` for the text alone."""


@dataclass(frozen=True)
class RetrievalTask:
    """What systems are scored against: queries with their relevant ids, each field in the order of the queries.

    Attributes:
        query_ids: Ids of the queries.
        queries: Their texts.
        relevant: Relevant ids with grades of at least 1.
        documents: The source document each query is about.
        corpus_size: Number of things that can be found; None where it is not known.
        data_hash: Hash of queries and judgements.
        corpus_hash: Hash of the texts searched, if known.
        text: Which text was searched, in words.
        own: For each query the ids of documents that are the query itself, which are no hits; empty: there are none.
    """

    query_ids: tuple[str, ...]
    queries: tuple[str, ...]
    relevant: tuple[dict[str, int], ...]
    documents: tuple[str, ...]
    corpus_size: int | None = None
    data_hash: str = ""
    corpus_hash: str = ""
    text: str = ""
    own: tuple[frozenset[str], ...] = ()

    @classmethod
    def of(cls, dataset: EmbeddingQAFinetuneDataset, *, ignore_identical: bool = True) -> RetrievalTask:
        """The task that a data set sets; `ignore_identical`: the query's own text is no hit."""
        qrels = dataset.qrels()
        query_ids, queries = tuple(dataset.queries), tuple(dataset.queries.values())
        relevant = tuple(qrels[query] for query in query_ids)
        return cls(
            query_ids=query_ids,
            queries=queries,
            relevant=relevant,
            documents=query_documents(dataset),
            corpus_size=len(dataset.corpus),
            data_hash=hash_of([query_ids, queries, relevant]),
            own=own_documents(dataset) if ignore_identical else (),
        )

    @classmethod
    def of_qrels(
        cls,
        qrels: Mapping[str, Mapping[str, int]],
        texts: Mapping[str, str] | None = None,
        *,
        ignore_identical: bool = True,
    ) -> RetrievalTask:
        """The task of bare judgements; queries without a relevant document are left out, as BEIR and ranx do.

        `ignore_identical`: a document under the query's own id is no hit, unless some query has its own id among its
        relevant documents: then queries and documents are merely numbered alike.
        """
        grades = {query: {doc: _grade(docs[doc], query, doc) for doc in docs} for query, docs in qrels.items()}
        kept = {query: {doc: grade for doc, grade in docs.items() if grade > 0} for query, docs in grades.items()}
        kept = {query: docs for query, docs in kept.items() if docs}
        if not kept:
            raise EvaluationError("The judgements have no relevant document; at least one grade must be above 0.")
        query_ids, relevant = tuple(kept), tuple(kept.values())
        queries = tuple((texts or {}).get(query, query) for query in query_ids)
        documents = tuple(max(docs, key=docs.__getitem__) for docs in relevant)
        same_ids = ignore_identical and not any(query in docs for query, docs in kept.items())
        own = tuple(frozenset([query]) for query in query_ids) if same_ids else ()
        return cls(query_ids, queries, relevant, documents, data_hash=hash_of([query_ids, queries, relevant]), own=own)


def _grade(value: Any, query: str, doc: str) -> int:
    """A grade as plain data, so that a report of any kind of number can be saved; a share stays a share.

    Raises:
        EvaluationError: It is no finite number.
    """
    number = float(value) if isinstance(value, Real) else math.nan
    if not math.isfinite(number):
        raise EvaluationError(f"The grade of document {doc!r} for query {query!r} is {value!r}; give a finite number.")
    return int(number) if number.is_integer() else number  # type: ignore[return-value]


def query_documents(dataset: EmbeddingQAFinetuneDataset) -> tuple[str, ...]:
    """The source document that each query is about: that of its most relevant chunk, the first of equals."""
    qrels = dataset.qrels()
    best = (max(qrels[query], key=qrels[query].__getitem__) for query in dataset.queries)
    return tuple(dataset.source_documents.get(chunk, chunk) for chunk in best)


def own_note(dropped: int) -> str:
    """What is said of queries that found themselves."""
    return (
        f"{dropped} queries found themselves: a hit that is the query's own text was left out, as BEIR does "
        "(`ignore_identical=False` counts it)."
    )


def own_documents(dataset: EmbeddingQAFinetuneDataset) -> tuple[frozenset[str], ...]:
    """For each query the documents that are the query itself and not relevant to it; empty where there are none.

    In symmetric data (duplicate questions, counter-arguments) the queries stand in the corpus. A search for a text
    finds the text itself, which says nothing about the model.
    """
    found = own_text_documents(dataset)
    return tuple(frozenset(found.get(query, ())) for query in dataset.queries) if found else ()


def corpus_text(dataset: EmbeddingQAFinetuneDataset, doc: str, metadata_mode: IndexedText) -> str:
    """The text of a document in that mode."""
    return dataset.corpus[doc] if metadata_mode == "embed" else dataset.bare_text(doc)


def text_in_words(dataset: EmbeddingQAFinetuneDataset, metadata_mode: IndexedText) -> str:
    """Which text is searched, for reports."""
    if not dataset.bare_texts:
        return "corpus text as it stands in the data set"
    if metadata_mode == "embed":
        return "the text the index embeds, metadata included"
    return "the bare text, without metadata"


def hash_of(parts: Sequence[Any]) -> str:
    """A short hash of plain data."""
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()[:16]
