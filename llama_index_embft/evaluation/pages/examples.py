"""Questions before and after, for readers who look at three of them and at no table."""

from __future__ import annotations

import re
from bisect import bisect_left
from typing import TYPE_CHECKING, Any, Final

from llama_index_embft._core.language import COMBINING_MARKS

if TYPE_CHECKING:
    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.evaluation.records import RetrievalReport
    from llama_index_embft.evaluation.statistics.findings import ComparisonRecord, QueryChange, SystemComparison

EXAMPLES: Final = 3  # better and worse alike: no side gets more room than the other
_WIDTH: Final = 260  # characters of a text that are shown
_SHORTEST: Final = 4  # shorter words ("the", "is") stand everywhere, and some longer ones
_EVERYWHERE: Final = {
    "about", "been", "could", "does", "from", "have", "into", "should", "that", "their", "them", "then", "there",
    "these", "they", "this", "those", "were", "what", "when", "where", "which", "will", "with", "would", "your",
}  # fmt: skip
_UNSPACED: Final = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")
_WORD: Final = re.compile(rf"[\w{COMBINING_MARKS}]+")

Excerpt = list[tuple[str, bool]]
"""A piece of text in parts: each with whether it is a word of the question."""


def examples_of(
    comparison: ComparisonRecord, system: SystemComparison, dataset: EmbeddingQAFinetuneDataset | None
) -> dict[str, Any]:
    """The most improved and the most harmed queries, with the right page and what stood first instead.

    Args:
        comparison: Gives the base and the deciding metric.
        system: The system whose changes are shown.
        dataset: Gives the texts; None shows ids.
    """
    base, tuned = comparison.base, system.report
    depth = min(base.depth, tuned.depth)

    def card(change: QueryChange, instead: RetrievalReport) -> dict[str, Any]:
        row = base.row_of[change.query_id]
        relevant, hits = base.relevant[row], instead.hit_ids[row]
        right = min(relevant, key=lambda doc: (_rank_in(tuned.hit_ids[row], doc), _rank_in(base.hit_ids[row], doc)))
        first = hits[0] if hits and hits[0] not in relevant else None
        return {
            "query": change.query,
            "before": place_in_words(change.base_rank, depth),
            "after": place_in_words(change.tuned_rank, depth),
            "right": _shown(right, change.query, dataset),
            "first": _shown(first, change.query, dataset) if first is not None else None,
        }

    test = system.metrics[comparison.primary].test
    return {
        "improved": [card(change, base) for change in system.improved(EXAMPLES)],
        "harmed": [card(change, tuned) for change in system.harmed(EXAMPLES)],
        "counts": (test.wins, test.losses, test.ties),
    }


def place_in_words(rank: int | None, depth: int) -> str:
    """Where the right page stands: ``"place 3"``, or that it is not among the hits."""
    return f"place {rank}" if rank else f"not in the first {depth}"


def excerpt(text: str, query: str, width: int = _WIDTH) -> Excerpt:
    """The piece of a text that shares most words with a query, its shared words marked.

    Words of three letters and less, and the commonest of the others, do not count; texts without spaces are compared
    by pairs of characters.

    Args:
        text: Any text; runs of white space become one space.
        query: Gives the words to look for.
        width: Characters to show, about.
    """
    text = " ".join(text.split())
    spans = _shared(text, query)
    begins = [begin for begin, _ in spans]

    def shared_from(at: int) -> int:
        inside = spans[bisect_left(begins, at) : bisect_left(begins, at + width)]
        return len({text[a:b].lower() for a, b in inside})

    start = 0
    if len(text) > width and spans:
        # Of pieces that share as many different words, the first.
        start = max((max(0, begin - width // 6) for begin in begins), key=lambda at: (shared_from(at), -at))
        space = text.find(" ", start, start + 30)
        start = space + 1 if 0 < start <= space else start
    end = start + width
    if end < len(text):
        space = text.rfind(" ", end - 30, end)
        end = space if space > start else end
    parts: Excerpt = [("… ", False)] if start else []
    at = start
    for begin, stop in spans:
        if begin >= at and stop <= end:
            parts += [(text[at:begin], False), (text[begin:stop], True)]
            at = stop
    parts += [(text[at:end], False), (" …", False)] if end < len(text) else [(text[at:], False)]
    return [part for part in parts if part[0]]


def _shown(doc: str, query: str, dataset: EmbeddingQAFinetuneDataset | None) -> dict[str, Any]:
    known = dataset is not None and doc in dataset.corpus
    return {"id": doc, "text": excerpt(dataset.bare_text(doc), query) if known and dataset is not None else None}


def _shared(text: str, query: str) -> list[tuple[int, int]]:
    """Begin and end of the words of a text that are words of the query, too; they do not overlap."""
    low = text.lower()
    wanted = {
        word
        for word in _WORD.findall(query.lower())
        if len(word) >= _SHORTEST and word not in _EVERYWHERE and not _UNSPACED.search(word)
    }
    spans = [match.span() for match in _WORD.finditer(low) if match[0] in wanted] if len(low) == len(text) else []
    pairs = {query[i : i + 2] for i in range(len(query) - 1) if len(_UNSPACED.findall(query[i : i + 2])) == 2}
    marked = sorted({i + j for i in range(len(text) - 1) if text[i : i + 2] in pairs for j in (0, 1)}) if pairs else []
    for i in marked:
        if spans and spans[-1][1] == i:
            spans[-1] = (spans[-1][0], i + 1)
        else:
            spans.append((i, i + 1))
    return sorted(spans)


def _rank_in(hits: tuple[str, ...], doc: str) -> int:
    return hits.index(doc) if doc in hits else len(hits) + 1
