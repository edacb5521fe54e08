"""What ties questions, and with them documents, together so that no split may part them."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Literal

from llama_index_embft.dataset.near_duplicates import DisjointSets, normalise
from llama_index_embft.dataset.prepared import near_duplicates_of
from llama_index_embft.dataset.sources import shown
from llama_index_embft.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence
    from typing import TypeAlias

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset

By: TypeAlias = "Literal['document', 'chunk'] | Callable[[EmbeddingQAFinetuneDataset, str], Hashable]"
Tie: TypeAlias = "tuple[Literal['chunk', 'query', 'key', 'document'], Hashable]"


@dataclass(frozen=True)
class TiedDocuments:
    """Documents that every split keeps on one side, and why.

    Attributes:
        documents: Their ids, sorted; at least two.
        queries: Questions about them.
        shared_passages: Passages, nearly equal ones counted as one, that stand in several of them and are asked about.
        shared_questions: Questions that are asked, in the same words, about several of them.
        wide_questions: Questions with relevant passages in several of them.
        keys: Values of a key of one's own that several of them share.
    """

    documents: tuple[str, ...]
    queries: int
    shared_passages: int
    shared_questions: int
    wide_questions: int
    keys: int

    def reasons(self) -> str:
        """Why, in words."""
        counts = (
            (self.shared_passages, "passage that several share", "passages that several share"),
            (self.shared_questions, "question asked about several", "questions asked about several"),
            (self.wide_questions, "question answered by several", "questions answered by several"),
            (self.keys, "key that several have", "keys that several have"),
        )
        return ", ".join(f"{count:,} {one if count == 1 else more}" for count, one, more in counts if count)


def query_ties(
    dataset: EmbeddingQAFinetuneDataset,
    query_ids: Sequence[str],
    by: By,
    near_duplicates: float | None,
    *,
    show_progress: bool = True,
) -> list[set[Tie]]:
    """What each query hangs on; two queries that share one of these must not be parted.

    Args:
        dataset: The data set.
        query_ids: The queries, in the order of the result.
        by: See `split_dataset`.
        near_duplicates: Overlap from which two passages count as one; None: only equal ones do.
        show_progress: Show a bar where the search for near-duplicates takes more than two seconds.

    Raises:
        ConfigError: `by` has a value that is not allowed, or returns one.
    """
    if not (callable(by) or by in ("document", "chunk")):
        raise ConfigError(f"`by` must be 'document', 'chunk' or a function of (dataset, query_id), got {by!r}.")
    source = dataset.source_documents
    asked = sorted({doc for docs in dataset.relevant_docs.values() for doc in docs})
    threshold = 1.0 if near_duplicates is None else near_duplicates
    chunk_group = near_duplicates_of(dataset, asked, threshold, show_progress=show_progress)
    repeated = _boilerplate(asked, [chunk_group[doc] for doc in asked], source)
    found: list[set[Tie]] = []
    for query_id in query_ids:
        docs = dataset.relevant_docs[query_id]
        ties: set[Tie] = {("chunk", chunk_group[doc]) for doc in docs}
        ties.add(("query", normalise(dataset.queries[query_id]) or dataset.queries[query_id]))
        if callable(by):
            ties.add(("key", _checked_key(by(dataset, query_id), query_id)))
        elif by == "document":
            # A question about a page that every document repeats belongs to that page, and to no one document.
            ties.update(("document", source.get(doc, doc)) for doc in docs if chunk_group[doc] not in repeated)
        found.append(ties)
    return found


def _checked_key(key: Hashable, query_id: str) -> Hashable:
    # Where one is missing, None would make one unit of all such queries, and NaN a unit of each.
    try:
        usable = hash(key) is not None and key is not None and bool(key == key)  # NaN is not
    except TypeError:
        usable = False
    if usable:
        return key
    raise ConfigError(
        f"The function `by` returned {shown(key)} for the query {query_id!r}; it must return the unit of every query, "
        "such as a text or a number."
    )


def group_numbers(ties: Sequence[set[Tie]]) -> list[int]:
    """The number of each query's group, counted from 0 in the order of first appearance."""
    sets = DisjointSets(len(ties))
    holder: dict[Tie, int] = {}  # what a query hangs on -> the first query that hangs on it
    for number, of_query in enumerate(ties):
        for tie in of_query:
            sets.join(number, holder.setdefault(tie, number))
    return sets.numbers()


def tied_documents(
    dataset: EmbeddingQAFinetuneDataset,
    *,
    by: By = "document",
    near_duplicates: float | None = 0.8,
    show_progress: bool = True,
) -> list[TiedDocuments]:
    """The groups of documents that `split_dataset` keeps together, largest first; one alone is no group.

    Args:
        dataset: The data set.
        by: See `split_dataset`.
        near_duplicates: See `split_dataset`.
        show_progress: See `split_dataset`.
    """
    query_ids = sorted(dataset.queries)
    ties = query_ties(dataset, query_ids, by, near_duplicates, show_progress=show_progress)
    source = dataset.source_documents
    documents_of = [{source.get(doc, doc) for doc in dataset.relevant_docs[query_id]} for query_id in query_ids]
    members: defaultdict[int, list[int]] = defaultdict(list)
    for row, group in enumerate(group_numbers(ties)):
        members[group].append(row)
    made = []
    for rows in members.values():
        documents = set().union(*(documents_of[row] for row in rows))
        if len(documents) < 2:
            continue
        # A wide question lays each of its ties on several documents by itself; those are no reasons of their own.
        holders: defaultdict[Tie, set[str]] = defaultdict(set)
        for row in rows:
            if len(documents_of[row]) == 1:
                for tie in ties[row]:
                    holders[tie] |= documents_of[row]
        shared = Counter(kind for (kind, _), holding in holders.items() if len(holding) > 1)
        wide = sum(len(documents_of[row]) > 1 for row in rows)
        made.append(
            TiedDocuments(tuple(sorted(documents)), len(rows), shared["chunk"], shared["query"], wide, shared["key"])
        )
    return sorted(made, key=lambda one: (-len(one.documents), one.documents))


def _boilerplate(asked: list[str], similar: list[int], source: Mapping[str, str]) -> set[int]:
    """Groups of near-duplicates that stand in three documents or more which otherwise differ, such as a legal notice.

    Versions of one manual share most of their chunks; those are no boilerplate, and stay together.
    """
    documents: dict[int, set[str]] = {}
    chunks = Counter(source.get(doc, doc) for doc in asked)
    for doc, group in zip(asked, similar, strict=True):
        documents.setdefault(group, set()).add(source.get(doc, doc))
    shared = Counter(
        source.get(doc, doc) for doc, group in zip(asked, similar, strict=True) if len(documents[group]) > 1
    )
    return {
        group
        for group, holders in documents.items()
        if len(holders) > 2 and median(shared[holder] / chunks[holder] for holder in holders) < 0.5
    }
