"""Texts to vectors: each distinct text once per model, in batches of similar length, cached by identity and content.

Everything in this package that needs vectors comes through `as_encoder`, so that training, evaluation, mining and the
index see the same vectors: same prompts, same maximum length, same normalization.
"""

from __future__ import annotations

from contextlib import closing
from functools import cached_property, partial
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from llama_index_embft.embeddings.encoding.backends import (
    Backend,
    LlamaIndexBackend,
    SentenceTransformerBackend,
    TextKind,
    TwoSidedBackend,
    WrappedBackend,
)
from llama_index_embft.embeddings.encoding.cache import EmbeddingCache, MemoryCache, cache_key
from llama_index_embft.embeddings.sentence_transformer import inner_model, loaded_from, prompts_of
from llama_index_embft.embeddings.wrapped import TwoSided, Wrapped
from llama_index_embft.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from llama_index.core.base.embeddings.base import BaseEmbedding
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

    from llama_index_embft.embeddings.encoding.batching import EncodePrecision

# Texts between two writes to the cache: a killed job loses at most the work on these.
_TEXTS_PER_COMMIT: Final = 2048


class Encoder:
    """Embeds queries and documents of one model; made by `as_encoder`.

    Attributes:
        name: Name of the model for messages and reports.
        embedded_texts: Texts that were really computed since this object was made (cache hits are not counted).
    """

    def __init__(
        self,
        backend: Backend,
        *,
        cache: EmbeddingCache | None = None,
        show_progress: bool = False,
    ) -> None:
        self.backend = backend
        self.name = backend.name
        self.embedded_texts = 0
        self._wanted_cache = cache if backend.cached else None
        self._show_progress = show_progress

    @cached_property
    def fingerprint(self) -> str | None:
        """Hash of both sides of the model, see `embeddings.identity`; None where it cannot be told from others."""
        return self.backend.fingerprint

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed queries with the query prompt; returns shape ``(len(texts), dim)``."""
        return self._encode(texts, "query")

    def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed documents with the document prompt; returns shape ``(len(texts), dim)``."""
        return self._encode(texts, "document")

    def uncached_documents(self, texts: Sequence[str]) -> int:
        """How many distinct documents would have to be computed: the others have vectors in the cache."""
        distinct = list(dict.fromkeys(texts))
        cache, keys = self._place(distinct, "document")
        return len(distinct) - (0 if cache is None else len(cache.get_many(keys)))

    def _encode(self, texts: Sequence[str], kind: TextKind) -> NDArray[np.float32]:
        if len(texts) == 0:  # of an array the truth is none
            raise ConfigError(f"There is no {kind} to embed; give at least one text.")
        distinct = list(dict.fromkeys(texts))
        vectors = self._vectors(distinct, kind)
        row_of = {text: row for row, text in enumerate(distinct)}
        if len(distinct) == len(texts):
            return vectors
        return vectors[[row_of[text] for text in texts]]

    def _vectors(self, texts: list[str], kind: TextKind) -> NDArray[np.float32]:
        cache, keys = self._place(texts, kind)
        known = {} if cache is None else cache.get_many(keys)
        if len({len(vector) for vector in known.values()}) > 1:
            known = {}  # some of them are not this model's: all are computed again, and replaced
        result: NDArray[np.float32] | None = None
        missing = [row for row in range(len(texts)) if not known or keys[row] not in known]
        # Longest first: batches of similar length waste little padding, and a lack of memory shows at once.
        missing.sort(key=lambda row: -len(texts[row]))
        for row, key in enumerate(keys):
            if key in known:
                result = _room_for(result, len(texts), known[key].shape[0])
                result[row] = known[key]
        for part, fresh in self._batches([texts[row] for row in missing], kind):
            rows = [missing[number] for number in part]
            self._check(fresh, [texts[row] for row in rows], result)
            result = _room_for(result, len(texts), fresh.shape[1])
            result[rows] = fresh
            self.embedded_texts += len(rows)
            if cache is not None:
                cache.put_many(zip((keys[row] for row in rows), fresh, strict=True), self.name)
        assert result is not None
        return result

    def _place(self, texts: list[str], kind: TextKind) -> tuple[EmbeddingCache | MemoryCache | None, list[bytes]]:
        """Where vectors are kept, and the key of each: on the disk for what has an identity, in memory for the rest."""
        if self._wanted_cache is None:
            return None, []
        identity = self.backend.identity(kind)
        cache: EmbeddingCache | MemoryCache
        if identity is None and not isinstance(self.backend, LlamaIndexBackend):
            return None, []  # a model of torch that hides its weights
        if identity is None:
            cache, space = MemoryCache.of(self.backend.model), self.backend.prompt(kind)
        else:
            cache, space = self._wanted_cache, identity.fingerprint
        if self.backend.precision != "float32":
            space += f" in {self.backend.precision}"
        return cache, [cache_key(space, text) for text in texts]

    def _batches(
        self, texts: list[str], kind: TextKind
    ) -> Generator[tuple[list[int], NDArray[np.float32]], None, None]:
        # Without a cache the block only paces the progress bar; small blocks keep the bar moving on slow machines.
        size = _TEXTS_PER_COMMIT if not self._show_progress else 256
        batches = self.backend.batches(texts, kind, size)
        # Closed at once when a batch is refused: calls that are under way to a web API end there.
        with closing(batches):
            if not self._show_progress or not texts:
                yield from batches
                return
            from tqdm.auto import tqdm

            label = f"Embedding {'queries' if kind == 'query' else 'documents'}"
            with tqdm(total=len(texts), desc=label, unit="text", delay=1.0) as bar:
                for rows, vectors in batches:
                    yield rows, vectors
                    bar.update(len(rows))

    def _check(self, fresh: NDArray[np.float32], texts: list[str], known: NDArray[np.float32] | None) -> None:
        if fresh.ndim != 2 or fresh.shape[0] != len(texts) or fresh.shape[1] == 0:
            raise ModelError(
                f"{self.name} returned an array of shape {fresh.shape} for {len(texts)} texts; "
                "an embedding model must return one vector of the same length for each text."
            )
        if known is not None and known.shape[1] != fresh.shape[1]:
            raise ModelError(
                f"{self.name} returned vectors of {fresh.shape[1]} dimensions where it returned {known.shape[1]} "
                "before; if the model behind this name was changed, clear the embedding cache."
            )
        bad = np.flatnonzero(~np.isfinite(fresh).all(axis=1))
        if bad.size:
            raise ModelError(
                f"{self.name} returned NaN or infinity for {bad.size} of {len(texts)} texts, the first of them "
                f"{texts[bad[0]][:80]!r}; check the model's weights, or load it in float32."
            )


def as_encoder(
    model: BaseEmbedding | SentenceTransformer | Encoder,
    *,
    cache: EmbeddingCache | Literal["default"] | None = "default",
    batch_size: int | None = None,
    show_progress: bool = False,
    precision: EncodePrecision = "float32",
) -> Encoder:
    """Wrap any embedding model.

    Args:
        model: A LlamaIndex embedding, a SentenceTransformer, or an `Encoder` (returned as it is). One behind a web API
            is called many times at once, within its own `rate_limiter`; see `embeddings.hosted`.
        cache: Where vectors are kept: ``"default"`` is `EmbeddingCache.default`; None keeps nothing.
        batch_size: Texts a batch for models that run here. None: what the model object says, else batches of a fixed
            number of tokens, see `encode_texts`.
        show_progress: Show a progress bar while texts are embedded.
        precision: Of models that run here. ``"float32"`` (default) gives what the index will hold; ``"bfloat16"`` is
            two to three times as fast on CPUs with AMX, at a cosine above 0.999 to it, and is cached apart; ``"auto"``
            is bfloat16 where the device is faster in it.

    Raises:
        ConfigError: `model` is none of these, or the precision is unknown.
    """
    from llama_index.core.base.embeddings.base import BaseEmbedding

    if isinstance(model, Encoder):
        return model
    if cache == "default":
        cache = EmbeddingCache.default()
    backend: Backend
    if isinstance(model, BaseEmbedding):
        backend = _llama_index_backend(
            model, cache=cache, batch_size=batch_size, show_progress=show_progress, precision=precision
        )
    elif hasattr(model, "encode") and hasattr(model, "prompts"):
        backend = SentenceTransformerBackend(
            model,
            prompts=prompts_of(model),
            normalize=False,
            name=getattr(model.model_card_data, "base_model", None) or loaded_from(model),
            batch_size=batch_size,
            route=True,
            precision=precision,
        )
    else:
        raise ConfigError(
            f"Expected a LlamaIndex BaseEmbedding or a SentenceTransformer, got {type(model).__name__}; "
            "load_embed_model(name_or_folder) gives one."
        )
    return Encoder(backend, cache=cache, show_progress=show_progress)


def _llama_index_backend(
    model: BaseEmbedding,
    *,
    cache: EmbeddingCache | None,
    batch_size: int | None,
    show_progress: bool,
    precision: EncodePrecision,
) -> Backend:
    from llama_index_embft.embeddings.encoding.hosted import HostedBackend, is_hosted

    below = partial(as_encoder, cache=cache, batch_size=batch_size, show_progress=show_progress, precision=precision)
    if isinstance(model, TwoSided):
        return TwoSidedBackend(model, below, model.model_name)
    if isinstance(model, Wrapped):
        return WrappedBackend(model, below(model.base_embed_model), model.model_name)
    inner = inner_model(model)
    if inner is not None and not getattr(model, "_parallel_process", False):
        return SentenceTransformerBackend(
            inner.model,
            prompts=inner.prompts,
            normalize=inner.normalize,
            name=model.model_name,
            batch_size=batch_size or _own_batch_size(model),
            route=inner.routes,
            precision=precision,
        )
    if is_hosted(model):
        return HostedBackend(model, cached=cache is not None)
    return LlamaIndexBackend(model)


def _own_batch_size(model: BaseEmbedding) -> int | None:
    # LlamaIndex's default of 10 is made for web APIs; only another value is somebody's choice.
    from llama_index.core.constants import DEFAULT_EMBED_BATCH_SIZE

    return None if model.embed_batch_size == DEFAULT_EMBED_BATCH_SIZE else model.embed_batch_size


def _room_for(result: NDArray[np.float32] | None, rows: int, dim: int) -> NDArray[np.float32]:
    return np.empty((rows, dim), dtype=np.float32) if result is None else result
