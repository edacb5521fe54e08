"""Strategies that read both texts and say which candidates answer the query after all: a cross-encoder.

They cost much more than a comparison of vectors, so they see only candidates that everything else has let through,
and only as many as are needed. What they find relevant is dropped or, on request, becomes a positive (RLHN).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from llama_index_embft.embeddings.cross_encoder import cross_encoder_fingerprint, load_cross_encoder
from llama_index_embft.embeddings.encoding.cache import EmbeddingCache, cache_key
from llama_index_embft.embeddings.encoding.late_interaction import (
    LateInteraction,
    late_interaction_record,
    load_late_interaction,
)
from llama_index_embft.embeddings.sentence_transformer import keep_within_positions
from llama_index_embft.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from llama_index_embft.mining.context import MiningContext

_PAIRS_PER_COMMIT: Final = 1024  # a killed run scores at most so many pairs again


class Pair(NamedTuple):
    """A query and a document, by number."""

    query: int
    row: int


class Teacher(ABC):
    """Decides which candidates answer the query after all."""

    scores: dict[Pair, float]
    """What the teacher thinks of pairs, for distillation; empty for one that only says yes or no."""

    def prepare(self, context: MiningContext) -> None:  # noqa: B027 - most have nothing to prepare
        """Called once before the first question."""

    @abstractmethod
    def relevant(self, context: MiningContext, pairs: Sequence[Pair]) -> list[bool]:
        """Which pairs belong together as well as the positives of the query do."""


class CrossEncoder(Teacher):
    """Drop what a reranker finds as relevant as the query's lowest positive; ``cross-encoder:MODEL``.

    Its scores of positives and candidates are kept, so that a model can be trained to rank like it.

    Args:
        model: Folder or hub name of a cross-encoder, folder of a saved reranker, or an object with the method
            ``predict(pairs, batch_size=…)`` of sentence-transformers.
        gap: How much below the lowest positive a candidate must score, on the reranker's own scale.
        batch_size: Pairs a batch.
        cache: Where scores are kept between runs; ``"default"`` is the embedding cache, None keeps nothing. A model
            that is no torch module cannot be told from others and is not cached.
        trust_remote_code: Run code that comes with the model. Only for repositories you have read.

    Raises:
        ConfigError: A value is not allowed.
    """

    def __init__(
        self,
        model: Any,
        *,
        gap: float = 0.0,
        batch_size: int = 32,
        cache: EmbeddingCache | str | None = "default",
        trust_remote_code: bool = False,
    ) -> None:
        if gap < 0:
            raise ConfigError(f"`gap` of CrossEncoder must be at least 0, got {gap}.")
        if cache not in ("default", None) and not isinstance(cache, EmbeddingCache):
            raise ConfigError(f"`cache` of CrossEncoder is an EmbeddingCache, 'default' or None, got {cache!r}.")
        self.model, self.gap, self.batch_size = model, gap, batch_size
        self.trust_remote_code = trust_remote_code
        self.name = model if isinstance(model, str) else type(model).__name__
        self.scores = {}
        self._cache = cache if isinstance(cache, EmbeddingCache) else EmbeddingCache.default() if cache else None
        self._fingerprint: str | None = None

    def __str__(self) -> str:
        return f"cross-encoder:{self.name}" + (f":{self.gap:g}" if self.gap else "")

    def prepare(self, context: MiningContext) -> None:  # noqa: ARG002 - the interface's argument
        """Load the model; see `Teacher.prepare`."""
        from torch import nn

        self.scores = {}
        if isinstance(self.model, str):
            self.model = self._loaded(self.model)
        elif isinstance(self.model, nn.Module):
            keep_within_positions(self.model)
        if self._cache is not None:
            late = isinstance(self.model, LateInteraction)
            self._fingerprint = self.model.fingerprint if late else cross_encoder_fingerprint(self.model)

    def _loaded(self, name: str) -> Any:
        if late := late_interaction_record(name):  # one that was trained here, or saved with a retriever
            return load_late_interaction(name, late, trust_remote_code=self.trust_remote_code)
        return load_cross_encoder(name, trust_remote_code=self.trust_remote_code)

    def relevant(self, context: MiningContext, pairs: Sequence[Pair]) -> list[bool]:
        """See `Teacher.relevant`."""
        positives = {
            query: [Pair(query, context.row_of[doc]) for doc in context.dataset.relevant_docs[context.query_ids[query]]]
            for query in dict.fromkeys(pair.query for pair in pairs)
        }
        self._score(context, [*pairs, *(pair for some in positives.values() for pair in some)])
        lowest = {query: min(self.scores[pair] for pair in some) for query, some in positives.items()}
        return [self.scores[pair] >= lowest[pair.query] - self.gap for pair in pairs]

    def _score(self, context: MiningContext, pairs: Sequence[Pair]) -> None:
        """Fill `scores` in for pairs that have none, from the cache or the model."""
        new = [pair for pair in dict.fromkeys(pairs) if pair not in self.scores]
        texts = {pair: pair_texts(context, pair) for pair in new}
        keys: dict[Pair, bytes] = {}
        if self._cache is not None and self._fingerprint is not None:
            keys = {pair: cache_key(self._fingerprint, *texts[pair]) for pair in new}
            known = self._cache.get_many(list(keys.values()))
            self.scores.update({pair: float(known[key][0]) for pair, key in keys.items() if key in known})
            new = [pair for pair in new if keys[pair] not in known]
        for start in range(0, len(new), _PAIRS_PER_COMMIT):
            some = new[start : start + _PAIRS_PER_COMMIT]
            found = self._predict([texts[pair] for pair in some])
            self.scores.update(zip(some, found.tolist(), strict=True))
            if keys and self._cache is not None:
                self._cache.put_many(((keys[pair], found[n : n + 1]) for n, pair in enumerate(some)), self.name)

    def _predict(self, texts: list[tuple[str, str]]) -> NDArray[np.float32]:
        given = self.model.predict(texts, batch_size=self.batch_size, show_progress_bar=False)
        found = np.asarray(given, dtype=np.float32)
        if found.shape != (len(texts),) or not np.isfinite(found).all():
            raise ModelError(
                f"{self} gave an array of shape {found.shape} for {len(texts)} pairs, or values that are no numbers; "
                "it must be a reranker with one finite score for each pair."
            )
        return found


def pair_texts(context: MiningContext, pair: Pair) -> tuple[str, str]:
    """The query and the document's text without metadata."""
    doc = context.corpus_ids[pair.row]
    return context.dataset.queries[context.query_ids[pair.query]], context.dataset.bare_text(doc)
