"""Filters that search: is a query's own passage found with it, and is it found too easily?"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from llama_index_embft._core.checks import check_number
from llama_index_embft.errors import ConfigError
from llama_index_embft.generation.filters.base import FilterContext, QuestionFilter

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence, Set as AbstractSet

    from llama_index.core.base.base_retriever import BaseRetriever

    from llama_index_embft.generation.assemble import CandidateQuery

# Which of the two ranks better differs from corpus to corpus, and here nothing tells.
_EQUAL: Final = 0.5
# Queries at a retriever at once; it may be a remote vector store.
_RETRIEVALS: Final = 8


class _Place(NamedTuple):
    """Where a query's own passage stands; of a comparison, the later of the two that it needs.

    Attributes:
        rank: 1 is best, not counting other passages of its own; None if it is not among those looked at.
        margin: Cosine of the own passage minus that of the best other one; NaN without both.
    """

    rank: int | None
    margin: float


class RoundTrip(QuestionFilter):
    """Keep a query only if its own passage comes back among the first ``top_k`` (the filter of Promptagator).

    A query that does not find its source is vague, wrong, or better answered elsewhere: training on it teaches noise.
    But the finding is done with the model at hand, and what it cannot find is also what it has to learn. So it searches
    as a `StackRetriever` does, by vectors and by words (BM25) together, and ``top_k`` should be generous. Of a
    comparison both passages must come back: with one of them it cannot be answered.

    Args:
        embed_model: A LlamaIndex embedding model (or SentenceTransformer) that searches the whole corpus, exactly.
        retriever: A LlamaIndex retriever over the same nodes, such as a `StackRetriever`, instead of ``embed_model``.
        top_k: Rank up to which the source may come; default 10. A retriever must return at least that many.
        dense_weight: Share of the vectors in the ranking of ``embed_model``, 0 to 1; the rest are words. 1 is the
            model alone. None takes 0.5.

    Raises:
        ConfigError: Not exactly one of ``embed_model`` and ``retriever``, or a value is not allowed.
    """

    name = "round trip"

    def __init__(
        self,
        embed_model: Any = None,
        *,
        retriever: BaseRetriever | None = None,
        top_k: int = 10,
        dense_weight: float | None = None,
    ) -> None:
        if (embed_model is None) == (retriever is None):
            raise ConfigError("RoundTrip needs either `embed_model` or `retriever`.")
        check_number("top_k", top_k, at_least=1)
        if dense_weight is not None:
            check_number("dense_weight", dense_weight, at_least=0, at_most=1)
            if retriever is not None:
                raise ConfigError(
                    f"`dense_weight` is {dense_weight}, and a `retriever` ranks by itself; leave it out, or give an "
                    "`embed_model`."
                )
        self.dense_weight = _EQUAL if dense_weight is None else dense_weight
        self.embed_model = embed_model
        self.retriever = retriever
        self.top_k = top_k

    async def drop(self, candidates: Sequence[CandidateQuery], context: FilterContext) -> Mapping[int, str]:
        """See `QuestionFilter.drop`."""
        if self.retriever is not None:
            found = await self._retrieve(candidates)
        else:
            places = await _places(self.embed_model, candidates, context, self.top_k, self.dense_weight)
            found = [place.rank is not None and place.rank <= self.top_k for place in places]
        return {n: f"its passage is not in the top {self.top_k}" for n, hit in enumerate(found) if not hit}

    async def _retrieve(self, candidates: Sequence[CandidateQuery]) -> list[bool]:
        assert self.retriever is not None
        retriever, turns = self.retriever, asyncio.Semaphore(_RETRIEVALS)

        async def finds(candidate: CandidateQuery) -> bool:
            async with turns:
                nodes = await retriever.aretrieve(candidate.query)
            answers = [{passage.id for passage in answer} for answer in candidate.answers]
            rank = _rank(dict.fromkeys(node.node.node_id for node in nodes), answers)
            return rank is not None and rank <= self.top_k

        results: list[bool] = []
        for start in range(0, len(candidates), 1000):  # not a task for each of a million queries at once
            results += await asyncio.gather(*(finds(c) for c in candidates[start : start + 1000]))
        return results


class Difficulty(QuestionFilter):
    """Drop queries from which a model learns nothing: too easy, or hopelessly hard.

    Args:
        embed_model: The model to be tuned.
        too_easy_margin: Drop a query whose passage is on rank 1 and whose cosine is at least this much above that of
            the best other passage. None keeps easy queries. Default 0.2: about the margin of a copied sentence.
        too_hard_rank: Drop a query whose passage comes later than this. None keeps hard queries. Default 100.

    Raises:
        ConfigError: Both are None, or a value is not allowed.
    """

    name = "too easy or too hard"

    def __init__(
        self, embed_model: Any, *, too_easy_margin: float | None = 0.2, too_hard_rank: int | None = 100
    ) -> None:
        if too_easy_margin is None and too_hard_rank is None:
            raise ConfigError("Difficulty needs `too_easy_margin` or `too_hard_rank`.")
        if too_easy_margin is not None:
            check_number("too_easy_margin", too_easy_margin, at_least=0)
        if too_hard_rank is not None:
            check_number("too_hard_rank", too_hard_rank, at_least=1)
        self.embed_model = embed_model
        self.too_easy_margin = too_easy_margin
        self.too_hard_rank = too_hard_rank

    async def drop(self, candidates: Sequence[CandidateQuery], context: FilterContext) -> Mapping[int, str]:
        """See `QuestionFilter.drop`."""
        places = await _places(self.embed_model, candidates, context, self.too_hard_rank or 2)
        dropped: dict[int, str] = {}
        for n, place in enumerate(places):
            if self.too_hard_rank is not None and (place.rank is None or place.rank > self.too_hard_rank):
                dropped[n] = f"too hard: its passage is not in the top {self.too_hard_rank}"
            elif self.too_easy_margin is not None and place.rank == 1 and place.margin >= self.too_easy_margin:
                dropped[n] = f"too easy: rank 1 by a margin of {place.margin:.2f}"
        return dropped


async def _places(
    embed_model: Any,
    candidates: Sequence[CandidateQuery],
    context: FilterContext,
    depth: int,
    dense_weight: float = 1.0,
) -> list[_Place]:
    """Search the corpus with every query; exact and blocked, in a thread, so that other work goes on."""
    return await asyncio.to_thread(_search, embed_model, candidates, context, depth, dense_weight)


def _search(
    embed_model: Any, candidates: Sequence[CandidateQuery], context: FilterContext, depth: int, dense_weight: float
) -> list[_Place]:
    from llama_index_embft.embeddings.encoding.encoder import as_encoder
    from llama_index_embft.search.fusion import DEFAULT_DEPTH, fuse
    from llama_index_embft.search.lexical import LexicalIndex
    from llama_index_embft.search.topk import top_k

    encoder = as_encoder(embed_model, show_progress=context.show_progress)
    key = ("corpus vectors", id(embed_model))
    if key not in context.shared:  # RoundTrip and Difficulty with one model embed the corpus once
        context.shared[key] = encoder.encode_documents([passage.embedded for passage in context.passages])
    corpus = context.shared[key]
    texts = [candidate.query for candidate in candidates]
    queries = encoder.encode_queries(texts)
    own_rows = {passage.id: row for row, passage in enumerate(context.passages)}
    # Room for every own passage plus one other, so that the margin can be told.
    most_own = max(len(candidate.passages) for candidate in candidates)
    depth += most_own
    if dense_weight < 1:
        depth = max(depth, DEFAULT_DEPTH)
    hits = top_k(queries, corpus, min(depth, len(context.passages)))
    if dense_weight < 1:
        index = LexicalIndex.build({passage.id: passage.embedded for passage in context.passages})
        hits = fuse(hits, index.search(texts, depth), dense_weight, depth=depth)
    places: list[_Place] = []
    for candidate, rows, scores in zip(candidates, hits.rows.tolist(), hits.scores.tolist(), strict=True):
        answers = [{own_rows[passage.id] for passage in answer} for answer in candidate.answers]
        own = {own_rows[passage.id] for passage in candidate.passages}
        score_of = {row: score for row, score in zip(rows, scores, strict=True) if row >= 0}
        whole = [min(score_of[row] for row in answer) for answer in answers if answer <= score_of.keys()]
        best_other = next((score for row, score in score_of.items() if row not in own), float("nan"))
        places.append(_Place(_rank(score_of, answers), max(whole, default=float("nan")) - best_other))
    return places


def _rank(found: Iterable[Hashable], answers: Sequence[AbstractSet[Hashable]]) -> int | None:
    """1 plus the number of other hits before one of the answers is whole; None if none is."""
    others = 0
    missing = [set(answer) for answer in answers]
    own = frozenset().union(*missing)
    for hit in found:
        if hit not in own:
            others += 1
            continue
        for answer in missing:
            answer.discard(hit)
        if not all(missing):
            return others + 1
    return None
