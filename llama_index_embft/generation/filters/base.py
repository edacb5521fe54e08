"""Filters that need no model: queries that point at "the text", in the wrong language, or too much like another.

A filter says which queries to drop and why; the run counts them. Filters are applied in the order given, each to what
the ones before it left, so cheap ones belong first.
"""

from __future__ import annotations

import heapq
import math
import re
import unicodedata
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from llama_index_embft._core.checks import check_number
from llama_index_embft._core.language import detect_language
from llama_index_embft.generation.parse import normalized

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llama_index_embft.calls.counts import Prices
    from llama_index_embft.calls.queue import RequestQueue
    from llama_index_embft.generation.assemble import CandidateQuery
    from llama_index_embft.generation.passages import Passage
    from llama_index_embft.generation.report import GenerationReport


@dataclass
class FilterContext:
    """What a filter may look at.

    Attributes:
        passages: The whole corpus, in the order of the nodes.
        queue: Asks the run's LLM, through the run's journal and limits.
        report: Where the run counts.
        prices: To show the cost.
        show_progress: Whether to draw progress bars.
        shared: Results that one filter leaves for another, such as ranks.
    """

    passages: Sequence[Passage]
    queue: RequestQueue
    report: GenerationReport
    prices: Prices | None = None
    show_progress: bool = False
    shared: dict[Any, Any] = field(default_factory=dict)


class QuestionFilter(ABC):
    """Decides which queries are good enough. Derive from it to add your own.

    Attributes:
        name: Key of the counts in `GenerationReport.dropped`.
    """

    name: str

    @abstractmethod
    async def drop(self, candidates: Sequence[CandidateQuery], context: FilterContext) -> Mapping[int, str]:
        """Say which queries to drop: position in ``candidates`` -> why, in a few words. The rest is kept."""


_REFERS_EN: Final = re.compile(
    r"""\b(?:
        (?:in|of|from|by|per|to|within|on|under)\s+(?:the|this|that)\s+
            (?:(?:given|provided|above|following|preceding)\s+)?
            (?:text|passage|excerpt|paragraph|snippet|content|chunk|section\s+above)\b
      | (?:in|from|by|per|within|under|on)\s+the\s+(?:(?:given|provided|above|following|preceding)\s+)?context\b
            (?!\s+(?:of|in|where|that)\b)
      | (?:according\s+to|based\s+(?:up)?on|mentioned\s+in|described\s+in|stated\s+in|provided\s+in|discussed\s+in|
           listed\s+in|given\s+in|outlined\s+in|presented\s+in|as\s+per)\s+(?:the|this|that)\s+
            (?:(?:given|provided|above|following)\s+)?
            (?:text|passage|context|excerpt|paragraph|document|article|information|content|chunk|section|table\s+above|author)\b
      | (?:the|this)\s+(?:given|provided|above|preceding|aforementioned)\s+
            (?:text|passage|context|excerpt|paragraph|document|article|information|content|section|table)\b
      | (?:the|this)\s+(?:text|passage|excerpt|paragraph|snippet|context\s+information)\b
      | (?:the|this)\s+(?:document|article|author(?:'s|s)?)\s+
            (?:say|says|mention|mentions|state|states|describe|describes|discuss|discusses|provide|provides|suggest|suggests|
               argue|argues|claim|claims|list|lists|refer|refers|explain|explains|outline|outlines|about)\b
      | (?:does|do|did)\s+(?:the|this)\s+(?:document|article|author|authors)\b
      | (?:mentioned|described|listed|shown|given|stated|discussed|outlined)\s+(?:above|below|here|earlier)\b
      | (?:the\s+)?context\s+(?:above|provided|information|given)\b
    )""",
    re.IGNORECASE | re.VERBOSE,
)
_REFERS_ZH: Final = re.compile(
    r"(?<![英中日法德俄韩拉外古])文中|本文|上文|下文|原文|该文|此文|前文|如上所述|作者(?:认为|指出|提到|说)|(?<![的篇个])文章(?:中|里|提到|指出|认为|的作者|主要)"
    r"|(?:这|该|本|此)(?:一?[段篇])?(?:文字|文本|段落|文段|短文|文章|话)|(?:这|该)[段篇](?:材料|资料|内容|文档)"
    r"|(?:上述|以上|上面|给定|所给|提供)的?(?:文字|文本|段落|材料|资料|上下文|内容|信息|文章|短文)"
)


class RefersToText(QuestionFilter):
    """Drop queries that point at a text nobody sees: "according to the passage", "the context above", "文中".

    Such a query fits every passage. Words that are also ordinary ("context of the war", "the document retention
    policy") are left alone. English and Chinese; other languages pass.
    """

    name = "refers to the text"

    async def drop(self, candidates: Sequence[CandidateQuery], context: FilterContext) -> Mapping[int, str]:  # noqa: ARG002
        """See `QuestionFilter.drop`."""
        found = ((n, _REFERS_EN.search(c.query) or _REFERS_ZH.search(c.query)) for n, c in enumerate(candidates))
        return {n: f"says {match[0]!r}" for n, match in found if match}


class WrongLanguage(QuestionFilter):
    """Drop queries in another language than their passage.

    A query is dropped only if both languages are certain (see `detect_language`), and not if all its words stand in the
    passage: an English product name is a fair query for a Chinese page.
    """

    name = "wrong language"

    async def drop(self, candidates: Sequence[CandidateQuery], context: FilterContext) -> Mapping[int, str]:  # noqa: ARG002
        """See `QuestionFilter.drop`."""
        dropped: dict[int, str] = {}
        languages: dict[str, str | None] = {}
        for n, candidate in enumerate(candidates):
            passage = candidate.passages[0]
            if passage.id not in languages:
                languages[passage.id] = detect_language(passage.bare)
            expected, found = languages[passage.id], _query_language(candidate.query)
            if expected and found and not _same_language(expected, found):
                words = normalized(candidate.query).split()
                if not set(words) <= set(normalized(passage.bare).split()):
                    dropped[n] = f"{found} query for a {expected} passage"
        return dropped


def _query_language(query: str) -> str | None:
    language = detect_language(query)
    if language is None and len(re.findall(r"[A-Za-z]{2,}", query)) >= 2:
        return "latin"  # some language in Latin letters: enough to tell it from Chinese
    return language


def _same_language(passage: str, query: str) -> bool:
    if query == "latin":
        return passage not in ("zh", "ja", "ko", "cyrillic", "el", "arabic", "he", "devanagari", "th")
    # A short Japanese query may be all Han.
    return passage == query or (passage == "ja" and query == "zh")


class NearDuplicates(QuestionFilter):
    """Drop queries that say almost the same as an earlier one.

    Two queries in training that differ in a comma become each other's false negatives. Without a model they are
    compared by their words, Chinese and Japanese by pairs of characters (Jaccard similarity); queries with different
    numbers are never the same: "revenue in 2020" is not "revenue in 2021".

    Args:
        threshold: Similarity in (0, 1] from which the later query goes. None takes 0.8 for words, 0.95 for the cosine
            of an embedding model.
        embed_model: A LlamaIndex embedding model, to compare by meaning instead of by letters.

    Raises:
        ConfigError: The threshold is not in (0, 1].
    """

    name = "near duplicate"

    def __init__(self, threshold: float | None = None, *, embed_model: Any = None) -> None:
        self.threshold = threshold if threshold is not None else (0.8 if embed_model is None else 0.95)
        check_number("threshold", self.threshold, above=0, at_most=1)
        self.embed_model = embed_model

    async def drop(self, candidates: Sequence[CandidateQuery], context: FilterContext) -> Mapping[int, str]:  # noqa: ARG002
        """See `QuestionFilter.drop`."""
        import asyncio

        find = self._by_words if self.embed_model is None else self._by_meaning
        return await asyncio.to_thread(find, [candidate.query for candidate in candidates])

    def _by_words(self, queries: list[str]) -> dict[int, str]:
        # Prefix filtering, which is exact: two sets with a Jaccard similarity of t share one of the first
        # (1 - t) * size + 1 members of each, in any common order; with the rarest first there is little to compare.
        sets = [words_of(query) for query in queries]
        frequency = Counter(word for members in sets for word in members)
        holders: dict[str, list[int]] = {}
        dropped: dict[int, str] = {}
        for n, own in enumerate(sets):
            size = len(own) - math.ceil(self.threshold * len(own)) + 1
            prefix = heapq.nsmallest(size, own, key=lambda word: (frequency[word], word))
            earlier = sorted({m for word in prefix for m in holders.get(word, ())})
            like = next((m for m in earlier if self._same(queries, sets, m, n)), None)
            if like is not None:
                dropped[n] = f"like {queries[like]!r}"
                continue
            for word in prefix:
                holders.setdefault(word, []).append(n)
        return dropped

    def _same(self, queries: list[str], sets: list[set[str]], m: int, n: int) -> bool:
        common = len(sets[m] & sets[n])
        similar = common >= self.threshold * (len(sets[m]) + len(sets[n]) - common)
        return similar and _numbers(queries[m]) == _numbers(queries[n])

    def _by_meaning(self, queries: list[str]) -> dict[int, str]:
        from llama_index_embft.embeddings.encoding.encoder import as_encoder
        from llama_index_embft.search.topk import top_k

        if not queries:
            return {}
        vectors = as_encoder(self.embed_model).encode_queries(queries)
        hits = top_k(vectors, vectors, min(_NEIGHBOURS, len(queries)))
        dropped: dict[int, str] = {}
        for n, (rows, scores) in enumerate(zip(hits.rows.tolist(), hits.scores.tolist(), strict=True)):
            for row, score in sorted(zip(rows, scores, strict=True)):
                earlier = 0 <= row < n and row not in dropped
                if earlier and score >= self.threshold and _numbers(queries[n]) == _numbers(queries[row]):
                    dropped[n] = f"like {queries[row]!r}"
                    break
        return dropped


# Neighbours of a query that are looked at; a query with more near duplicates than this loses some of them only.
_NEIGHBOURS: Final = 50


_UNSPACED: Final = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]+")


def words_of(query: str) -> set[str]:
    """The words of a query, without case and punctuation; text without spaces gives its pairs of characters."""
    text = normalized(query)
    words = set(_UNSPACED.sub(" ", text).split())
    for run in _UNSPACED.findall(text):
        words.update(run[i : i + 2] for i in range(max(1, len(run) - 1)))
    return words or {text}


def grams(text: str) -> set[str]:
    """The character 3-grams of a text, without case and punctuation; never empty."""
    padded = f" {normalized(text)} "
    return {padded[i : i + 3] for i in range(max(1, len(padded) - 2))}


def _numbers(query: str) -> list[str]:
    return sorted(re.findall(r"\d+", unicodedata.normalize("NFKC", query)))


def default_filters() -> list[QuestionFilter]:
    """The filters used when none are named: those that need no model and rarely err."""
    return [RefersToText(), WrongLanguage(), NearDuplicates()]


async def apply_filters(
    candidates: list[CandidateQuery], filters: Sequence[QuestionFilter], context: FilterContext
) -> list[CandidateQuery]:
    """Apply filters one after another, counting in the report of the run."""
    for filter_ in filters:
        if not candidates:
            break
        dropped = await filter_.drop(candidates, context)
        for n, reason in dropped.items():
            context.report.drop(filter_.name, candidates[n].query, reason)
        candidates = [candidate for n, candidate in enumerate(candidates) if n not in dropped]
    return candidates
