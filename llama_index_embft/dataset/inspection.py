"""A look at a data set before anything is trained on it: counts, languages, duplicates, leaks, samples."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from llama_index_embft._core.checks import check_number
from llama_index_embft._core.language import detect_language
from llama_index_embft.dataset.near_duplicates import near_duplicate_groups, normalise
from llama_index_embft.dataset.prepared import own_text_documents, prepare_corpus

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.dataset.stats import DatasetStats

_NEAR: Final = 0.8
_LONGEST_LANGUAGE: Final = 2_000  # characters of a text that its language is told from


@dataclass(frozen=True)
class Duplicates:
    """Texts that stand more than once.

    Attributes:
        queries: Queries whose words another query has too.
        queries_apart: Of them, those whose twins have other relevant passages: one of them is judged wrong, or the
            passages are duplicates.
        passages: Passages with the words of another.
        near_passages: Passages that say nearly the same as another (an overlap of 0.8), equal ones included.
        near_groups: Into how many groups those fall.
    """

    queries: int
    queries_apart: int
    passages: int
    near_passages: int
    near_groups: int


@dataclass(frozen=True)
class Leak:
    """One way in which a figure measured on this data set would flatter, or training on it teach the wrong thing.

    Attributes:
        kind: ``"copied"``: the query stands in its passage word for word. ``"itself"``: a passage is the query itself
            and is not judged relevant. ``"shared query"``, ``"shared passage"`` and ``"near passage"``: asked about
            here and in the other data set.
        count: Queries (or passages) concerned.
        example: The id of one.
    """

    kind: str
    count: int
    example: str

    def sentence(self) -> str:
        """What it means, for people."""
        meaning = {
            "copied": "queries stand word for word in their passages: any search for words finds them",
            "itself": "queries are passages themselves, which are found first and count as wrong",
            "shared query": "queries are in the other data set too",
            "shared passage": "passages that are asked about are asked about in the other data set too",
            "near passage": "passages that are asked about nearly repeat passages asked about in the other data set",
        }[self.kind]
        return f"{self.count:,} {meaning} (such as {self.example!r})."


@dataclass(frozen=True)
class Sample:
    """A query with the first passage that answers it."""

    query_id: str
    query: str
    passage_id: str
    passage: str


@dataclass(frozen=True)
class Inspection:
    """What `inspect_dataset` saw.

    Attributes:
        stats: Counts and lengths.
        query_languages: Language (ISO code, or ``"undetected"``) -> number of queries, most frequent first.
        corpus_languages: The same of the passages.
        duplicates: Texts that stand more than once.
        leaks: Empty where none was found.
        samples: At random, by the seed.
    """

    stats: DatasetStats
    query_languages: dict[str, int]
    corpus_languages: dict[str, int]
    duplicates: Duplicates
    leaks: tuple[Leak, ...]
    samples: tuple[Sample, ...]

    def to_dict(self) -> dict[str, Any]:
        """The same as plain data."""
        return asdict(self)


def inspect_dataset(
    dataset: EmbeddingQAFinetuneDataset,
    *,
    other: EmbeddingQAFinetuneDataset | None = None,
    samples: int = 10,
    seed: int = 0,
    show_progress: bool = True,
) -> Inspection:
    """Look at a data set, and at what it shares with another one.

    Args:
        dataset: The data set.
        other: A data set that must share nothing with it, such as the test side of a split.
        samples: How many queries to show.
        seed: Chooses them.
        show_progress: Show a bar where the search for near-duplicates takes more than two seconds.

    Raises:
        ConfigError: `samples` is below 0.
    """
    check_number("samples", samples, at_least=0)
    ids = sorted(dataset.queries)
    chosen = random.Random(seed).sample(ids, min(samples, len(ids)))
    return Inspection(
        dataset.stats(),
        _languages(dataset.queries.values()),
        _languages(map(dataset.bare_text, dataset.corpus)),
        _duplicates(dataset, show_progress),
        tuple(leak for leak in (*_own_leaks(dataset), *_shared(dataset, other, show_progress)) if leak.count),
        tuple(
            Sample(query_id, dataset.queries[query_id], doc, dataset.bare_text(doc))
            for query_id, doc in ((query_id, dataset.relevant_docs[query_id][0]) for query_id in chosen)
        ),
    )


def _languages(texts: Iterable[str]) -> dict[str, int]:
    found = Counter(detect_language(text[:_LONGEST_LANGUAGE]) or "undetected" for text in texts)
    return dict(found.most_common())


def _words(text: str) -> str:
    return normalise(text) or text


def _duplicates(dataset: EmbeddingQAFinetuneDataset, show_progress: bool) -> Duplicates:
    asked: defaultdict[str, list[str]] = defaultdict(list)
    for query_id, query in dataset.queries.items():
        asked[_words(query)].append(query_id)
    twins = [ids for ids in asked.values() if len(ids) > 1]
    apart = [ids for ids in twins if len({frozenset(dataset.relevant_docs[query_id]) for query_id in ids}) > 1]
    corpus = prepare_corpus(dataset)
    equal = Counter(corpus.near_duplicates(dataset, 1.0))
    near = Counter(corpus.near_duplicates(dataset, _NEAR, show_progress=show_progress))
    return Duplicates(
        queries=sum(map(len, twins)),
        queries_apart=sum(map(len, apart)),
        passages=sum(count for count in equal.values() if count > 1),
        near_passages=sum(count for count in near.values() if count > 1),
        near_groups=sum(count > 1 for count in near.values()),
    )


def _own_leaks(dataset: EmbeddingQAFinetuneDataset) -> list[Leak]:
    words_of: dict[str, str] = {}
    copied = []
    for query_id, query in dataset.queries.items():
        for doc in dataset.relevant_docs[query_id]:
            if doc not in words_of:
                words_of[doc] = f" {_words(dataset.bare_text(doc))} "
            if f" {_words(query)} " in words_of[doc]:
                copied.append(query_id)
                break
    return [_leak("copied", copied), _leak("itself", list(own_text_documents(dataset)))]


def _shared(
    dataset: EmbeddingQAFinetuneDataset, other: EmbeddingQAFinetuneDataset | None, show_progress: bool
) -> list[Leak]:
    if other is None:
        return []
    theirs = {_words(query) for query in other.queries.values()}
    queries = [query_id for query_id, query in dataset.queries.items() if _words(query) in theirs]
    ours, others = ({doc for docs in one.relevant_docs.values() for doc in docs} for one in (dataset, other))
    mine, yours = sorted(ours), sorted(others)
    texts = [dataset.bare_text(doc) for doc in mine] + [other.bare_text(doc) for doc in yours]
    found: dict[float, list[str]] = {}
    for threshold in (1.0, _NEAR):
        groups = near_duplicate_groups(texts, threshold, show_progress=show_progress)
        there = set(groups[len(mine) :])
        found[threshold] = [doc for doc, group in zip(mine, groups, strict=False) if group in there]
    only_near = sorted(set(found[_NEAR]) - set(found[1.0]))
    return [_leak("shared query", queries), _leak("shared passage", found[1.0]), _leak("near passage", only_near)]


def _leak(kind: str, ids: list[str]) -> Leak:
    return Leak(kind, len(ids), ids[0] if ids else "")
