"""Filters that need no model: queries that point at "the text", in the wrong language, or too much like another.

A filter says which queries to drop and why; the run counts them. Filters are applied in the order given, each to what
the ones before it left, so cheap ones belong first.
"""

from __future__ import annotations

import asyncio
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from llama_index_embft._core.checks import check_number
from llama_index_embft._core.language import composed, detect_language
from llama_index_embft._core.vectors import unit_rows
from llama_index_embft.errors import ConfigError
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
        query_language: What `detect_language` calls the language that the queries should be in; None for that of their
            passages.
        shared: Results that one filter leaves for another, such as ranks.
    """

    passages: Sequence[Passage]
    queue: RequestQueue
    report: GenerationReport
    prices: Prices | None = None
    show_progress: bool = False
    query_language: str | None = None
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


# What may follow "the text" where it points at the passage: not "the text field", "the passage of the act".
_ENDS: Final = (
    r"(?=\s*(?:$|[,.?!;:)\"'’”]|\b(?:what|which|who|whom|whose|how|when|where|why|and|is|are|was|were|do|does|did|can|"
    r"could|has|have|as|regarding|concerning|provided|given|above)\b))"
)
_REFERS_EN: Final = re.compile(
    rf"""\b(?:
        (?:according\s+to|based\s+(?:up)?on|as\s+per|(?:mentioned|described|stated|provided|discussed|listed|given|outlined|
           presented|referenced|referred\s+to|highlighted|specified|identified|found|contained|included|noted|covered|
           indicated|cited|detailed|used|shown|reported|addressed|raised|explained)\s+(?:in|by|within|from))\s+
           (?:the|this|that|these)\s+(?:(?:given|provided|above|following|preceding|aforementioned)\s+)?
           (?:text|passage|context(?:\s+information)?|excerpt|paragraph|document|article|information|content|chunk|snippet|
           author|section(?:\s+above)?|table\s+above)
           (?!\s+(?:provided|given|above|presented|disclosed)\s+(?:in|by|on|about)\b){_ENDS}
      | (?:the|this)\s+(?:given|provided|above|preceding|aforementioned)\s+(?:context\s+)?
           (?:text|passage|context|excerpt|paragraph|document|article|information|content|section|table){_ENDS}
      | (?:the|this)\s+(?:text|passage|excerpt|paragraph|snippet|author|context|document)\s+(?:itself\s+)?
           (?:say|says|mention|mentions|state|states|describe|describes|discuss|discusses|provide|provides|suggest|suggests|
              argue|argues|claim|claims|list|lists|refer|refers|explain|explains|outline|outlines|imply|implies|emphasi[sz]es?|
              highlight|highlights|indicate|indicates)\b
      | (?:in|of|from|by)\s+(?:this|the)\s+(?:passage|excerpt|snippet)(?=\s*(?:$|[,.?!;:)]))
      | in\s+(?:this|the)\s+(?:text|paragraph|document|article)(?=\s*[,.?!;:)]?\s*$)
      | in\s+the\s+context\s+(?=of\s+(?:the|this)\s+(?:text|passage|document|excerpt))
      | (?:main\s+(?:idea|point|topic|theme|purpose|argument|message)|purpose|topic|theme|subject|tone|title)\s+of\s+
           (?:the|this)\s+(?:text|passage|excerpt|paragraph|document|article|context)(?=\s*[,.?!;:)]?\s*$)
      | (?:mentioned|described|listed|shown|discussed|outlined|stated)\s+(?:above|below|earlier|here)
           (?=\s*[,.?!;:)]?\s*$)
      | (?:the\s+)?context\s+(?:above|provided|information)\b
    )""",
    re.IGNORECASE | re.VERBOSE,
)
_ZH_TEXT: Final = r"(?:文字|文本|段落|文段|短文|文章|材料|资料|上下文|内容|信息|话)"
_ZH_SAYS: Final = r"(?:的|中|里|主要|说|提到|提及|描述|讲|介绍|认为|表达|指出|涉及|讨论|所|，|,)"
_REFERS_ZH: Final = re.compile(
    rf"(?:^|根据|依据|按照|结合|在|从|由|关于|，|,)(?:这|该|本|此)(?:一?[段篇])?{_ZH_TEXT}(?={_ZH_SAYS})"
    rf"|(?:上述|以上|上面|给定|所给|提供)的?{_ZH_TEXT}(?=$|{_ZH_SAYS}|[？?。])"
    r"|(?<![《\w])文中(?=提到|提及|的|所|说|描述|指出|哪|对|关于|如何|是否|有|，|介绍|列)"
    r"|(?:^|根据|依据|在|，)(?:本文|上文|下文|原文|该文|此文|前文)(?=$|讨论|的|中|里|提到|主要|研究|介绍|认为|所|旨在|指出|描述|，)"
    r"|如上所述|(?:^|，)(?:本文)?作者(?:认为|指出|提到|说|主张)"
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
    """Drop queries in another language than their passage, or than `QuestionSettings.query_language`.

    A query is dropped only if both languages are certain (see `detect_language`), and not if all its words stand in the
    passage: an English product name is a fair query for a Chinese page.
    """

    name = "wrong language"

    async def drop(self, candidates: Sequence[CandidateQuery], context: FilterContext) -> Mapping[int, str]:
        """See `QuestionFilter.drop`."""
        dropped: dict[int, str] = {}
        languages: dict[str, str | None] = {}
        for n, candidate in enumerate(candidates):
            passage = candidate.passages[0]
            if passage.id not in languages:
                languages[passage.id] = context.query_language or detect_language(passage.bare)
            expected, found = languages[passage.id], _query_language(candidate.query)
            if expected and found and not _same_language(expected, found):
                words = normalized(candidate.query).split()
                if not set(words) <= set(normalized(passage.bare).split()):
                    dropped[n] = (
                        f"{found} query for a {expected} passage" if context.query_language is None else f"is {found}"
                    )
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
    """Drop queries that ask for the same as an earlier one about the same chunk.

    Two queries of one chunk that differ in a comma or an article teach the same thing twice. Queries about different
    chunks stay, however alike: each says which chunk answers it. Without a model two are the same if their words that
    carry meaning are the same, in the same order: "maximum dose" is not "minimum dose", "in 2020" not "in 2021".

    Args:
        threshold: Cosine in (0, 1] from which the later query goes; only with ``embed_model``. None takes 0.95.
        embed_model: A LlamaIndex embedding model, to compare by meaning. Queries with other numbers or other names
            (words in capitals) are never the same.

    Raises:
        ConfigError: The threshold is not in (0, 1], or there is no model that it could be about.
    """

    name = "near duplicate"

    def __init__(self, threshold: float | None = None, *, embed_model: Any = None) -> None:
        if threshold is not None:
            check_number("threshold", threshold, above=0, at_most=1)
            if embed_model is None:
                raise ConfigError(
                    f"`threshold` is {threshold}, and there is no `embed_model` whose cosine it could be; give one, or "
                    "leave the threshold out."
                )
        self.threshold = 0.95 if threshold is None else threshold
        self.embed_model = embed_model

    async def drop(self, candidates: Sequence[CandidateQuery], context: FilterContext) -> Mapping[int, str]:  # noqa: ARG002
        """See `QuestionFilter.drop`."""
        if self.embed_model is not None:
            return await asyncio.to_thread(self._by_meaning, candidates)
        dropped: dict[int, str] = {}
        first: dict[tuple[str, tuple[str, ...]], int] = {}
        for n, candidate in enumerate(candidates):
            words = tuple(meaning_of(candidate.query))
            like = [first[passage.id, words] for passage in candidate.passages if (passage.id, words) in first]
            if like:
                dropped[n] = f"like {candidates[min(like)].query!r}"
                continue
            for passage in candidate.passages:
                first[passage.id, words] = n
        return dropped

    def _by_meaning(self, candidates: Sequence[CandidateQuery]) -> dict[int, str]:
        from llama_index_embft.embeddings.encoding.encoder import as_encoder

        if not candidates:
            return {}
        vectors = unit_rows(as_encoder(self.embed_model).encode_queries([candidate.query for candidate in candidates]))
        kept_of: dict[str, list[int]] = {}
        dropped: dict[int, str] = {}
        for n, candidate in enumerate(candidates):
            earlier = sorted({m for passage in candidate.passages for m in kept_of.get(passage.id, ())})
            names = _names(candidate.query)
            for m in earlier:
                if vectors[m] @ vectors[n] >= self.threshold and _names(candidates[m].query) == names:
                    dropped[n] = f"like {candidates[m].query!r}"
                    break
            else:
                for passage in candidate.passages:
                    kept_of.setdefault(passage.id, []).append(n)
        return dropped


# Words that two queries may differ in and still ask for the same. Not among them: who asks (who, when, why), what is
# done (can, should, must), which way (from, to, by, before, without), how much (more, all, no), and what negates.
_GLUE: Final = frozenset(
    "a an the is are was were be been do does did of for in on at what which that this these those it its there has have "  # noqa: SIM905, E501
    "had please tell me describe 的 了 呢 吗 啊 吧 呀 请".split()
)


_UNSPACED: Final = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]+")


def meaning_of(query: str) -> list[str]:
    """The words of a query that carry meaning, in order; scripts without spaces give their characters.

    A capital within the query makes a name of any word: "hepatitis A", "who may call IT?".
    """
    spelt = [] if query.isupper() else re.findall(r"[^\W_]+", composed(query))[1:]
    names = {word.casefold() for word in spelt if word[0].isupper()}
    text = _UNSPACED.sub(lambda run: f" {' '.join(run[0])} ", normalized(query))
    words = text.split()
    return [word for word in words if word not in _GLUE or word in names] or words


def grams(text: str) -> set[str]:
    """The character 3-grams of a text, without case and punctuation; never empty."""
    padded = f" {normalized(text)} "
    return {padded[i : i + 3] for i in range(max(1, len(padded) - 2))}


def _names(query: str) -> list[str]:
    """Numbers and capitalised words, but for the first one, which any sentence has."""
    text = composed(query)
    words = re.findall(r"[^\W_]+", text)
    return sorted(word for n, word in enumerate(words) if any(c.isdigit() for c in word) or (n and word[0].isupper()))


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
