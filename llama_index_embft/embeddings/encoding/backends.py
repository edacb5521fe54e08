"""How a kind of model turns texts into vectors: here in torch, through LlamaIndex's calls, or over another model's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from llama_index_embft.embeddings.encoding.batching import encode_texts, resolve_precision
from llama_index_embft.embeddings.identity import known_identity, sentence_transformer_identity, whole_fingerprint
from llama_index_embft.embeddings.sentence_transformer import TextKind, keep_within_positions, sound_text
from llama_index_embft.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from llama_index.core.base.embeddings.base import BaseEmbedding
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

    from llama_index_embft.embeddings.encoding.batching import EncodePrecision
    from llama_index_embft.embeddings.identity import ModelIdentity
    from llama_index_embft.embeddings.wrapped import TwoSided, Wrapped

__all__ = [
    "Backend", "LlamaIndexBackend", "SentenceTransformerBackend", "TextKind", "TwoSidedBackend", "WrappedBackend",
    "as_matrix",
]  # fmt: skip


class Backend(ABC):
    """How one kind of model turns a batch of texts into vectors."""

    name: str
    model: Any
    precision: EncodePrecision = "float32"
    """Of the computation; vectors of another precision are other vectors to the cache."""
    cached: bool = True
    """Whether its vectors are worth a place in the cache; those that come from cached ones are not."""

    @abstractmethod
    def identity(self, kind: TextKind) -> ModelIdentity | None:
        """Who makes the vectors of this kind of text; None where nothing tells."""

    @property
    def fingerprint(self) -> str | None:
        """Hash of both sides of the model; None where nothing tells it from another."""
        return whole_fingerprint(self.identity("query"), self.identity("document"))

    @abstractmethod
    def prompt(self, kind: TextKind) -> str:
        """What is put before a text of this kind, or else tells a query from a document."""

    @abstractmethod
    def embed(self, texts: list[str], kind: TextKind) -> NDArray[np.float32]:
        """Embed texts; returns shape ``(n, dim)``."""

    def batches(
        self, texts: list[str], kind: TextKind, size: int
    ) -> Generator[tuple[list[int], NDArray[np.float32]], None, None]:
        """Embed texts bit by bit; yields rows and their vectors, in any order, each row once."""
        for start in range(0, len(texts), size):
            rows = list(range(start, min(start + size, len(texts))))
            yield rows, self.embed(texts[start : start + size], kind)


class SentenceTransformerBackend(Backend):
    """A SentenceTransformer, alone or inside a LlamaIndex embedding.

    Args:
        model: The model. Its maximum length is set to the positions it has, if it is above them.
        prompts: Query prompt and document prompt.
        normalize: Scale vectors to length 1.
        name: Name for messages.
        batch_size: Texts a batch; None: as many as make a batch of a fixed number of tokens, see `batching`.
        route: Tell a model with a `Router` which kind of text it reads.
        precision: Of the computation, see `encode_texts`.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        *,
        prompts: dict[TextKind, str],
        normalize: bool,
        name: str,
        batch_size: int | None,
        route: bool,
        precision: EncodePrecision = "float32",
    ) -> None:
        keep_within_positions(model)
        self.model = model
        self.prompts = prompts
        self.normalize = normalize
        self.name = name
        self.batch_size = batch_size
        self.route = route
        self.precision = resolve_precision(precision, model.device)

    @cached_property
    def _identities(self) -> dict[TextKind, ModelIdentity | None]:
        """Made on first use: without a cache nobody asks, and hashing a large model takes seconds."""
        kinds: tuple[TextKind, TextKind] = ("query", "document")
        return {
            kind: sentence_transformer_identity(
                self.model, self.prompts[kind], kind if self.route else "", self.normalize, self.name
            )
            for kind in kinds
        }

    def identity(self, kind: TextKind) -> ModelIdentity | None:
        """See `Backend.identity`."""
        return self._identities[kind]

    def prompt(self, kind: TextKind) -> str:
        """See `Backend.prompt`."""
        return self.prompts[kind]

    def embed(self, texts: list[str], kind: TextKind) -> NDArray[np.float32]:
        """See `Backend.embed`."""
        texts = list(map(sound_text, texts))
        route: dict[str, Any] = {"task": kind} if self.route else {}
        if self.batch_size is None or self.precision != "float32":
            return encode_texts(
                self.model,
                texts,
                prompt=self.prompts[kind],
                normalize=self.normalize,
                precision=self.precision,
                texts_per_batch=self.batch_size,
                **route,
            )
        vectors = self.model.encode(
            texts,
            prompt=self.prompts[kind],
            batch_size=self.batch_size,
            normalize_embeddings=self.normalize,
            show_progress_bar=False,
            convert_to_tensor=True,
            **route,
        )
        result: NDArray[np.float32] = vectors.float().cpu().numpy()
        return result


class LlamaIndexBackend(Backend):
    """Any other LlamaIndex `BaseEmbedding`, through its own public calls."""

    def __init__(self, model: BaseEmbedding) -> None:
        self.model = model
        self.name = f"{type(model).__name__}({model.model_name})"

    def identity(self, kind: TextKind) -> ModelIdentity | None:
        """See `Backend.identity`."""
        return known_identity(self.model, kind)

    def prompt(self, kind: TextKind) -> str:
        """See `Backend.prompt`."""
        return kind

    def embed(self, texts: list[str], kind: TextKind) -> NDArray[np.float32]:
        """See `Backend.embed`; `embed_batch_size` of the model decides how many texts one call carries."""
        from llama_index.core.bridge.pydantic import ValidationError

        try:
            if kind == "query":
                vectors = [self.model.get_query_embedding(text) for text in texts]
            else:
                vectors = self.model.get_text_embedding_batch(texts)
        except ValidationError as err:  # LlamaIndex's instrumentation looks at what the class returned
            if err.title != "EmbeddingEndEvent":
                raise
            vectors = []
        return as_matrix(vectors, len(texts), self.name)


def as_matrix(vectors: Any, rows: int, name: str) -> NDArray[np.float32]:
    """What a LlamaIndex embedding returned for so many texts, shape ``(rows, dim)``.

    Raises:
        ModelError: It is something else than one vector of the same length for each text.
    """
    try:
        found = np.asarray(list(vectors), dtype=np.float32)
    except (TypeError, ValueError, OverflowError):  # None, texts, vectors of several lengths
        found = np.empty(0, dtype=np.float32)
    if found.ndim == 2 and len(found) == rows and found.size:
        return found
    try:
        lengths = sorted({len(vector) for vector in vectors})
    except TypeError:
        lengths = []
    if len(lengths) > 1:
        what = f"vectors of {lengths[0]} to {lengths[-1]} numbers"
    elif lengths and len(vectors) != rows:
        what = f"{len(vectors)} vectors"
    else:
        what = "vectors that hold something else than numbers"
    raise ModelError(
        f"{name} returned {what} for {rows} texts; an embedding model must return one vector of the same length for "
        "each text."
    )


class BaseEncoder(Protocol):
    """What encodes for the model below; an `Encoder`."""

    backend: Backend

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See `Encoder.encode_queries`."""

    def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See `Encoder.encode_documents`."""


class WrappedBackend(Backend):
    """An embedding over another one, in batches: cached vectors of the base model, then the map on them.

    Args:
        model: The embedding.
        base: Encodes for the model below.
        name: Name for messages.
    """

    # The base's vectors are cached already; keeping these too would only fill the disk.
    cached = False

    def __init__(self, model: Wrapped, base: BaseEncoder, name: str) -> None:
        self.model = model
        self.base = base
        self.name = name
        self.precision = base.backend.precision

    def identity(self, kind: TextKind) -> ModelIdentity | None:
        """See `Backend.identity`."""
        return known_identity(self.model, kind)

    def prompt(self, kind: TextKind) -> str:
        """See `Backend.prompt`."""
        return self.base.backend.prompt(kind)

    def embed(self, texts: list[str], kind: TextKind) -> NDArray[np.float32]:
        """See `Backend.embed`."""
        vectors = self.base.encode_queries(texts) if kind == "query" else self.base.encode_documents(texts)
        changed: NDArray[np.float32] = self.model.change_batch(texts, vectors, kind)
        return changed


class TwoSidedBackend(Backend):
    """An embedding whose queries and documents come from two models, each with its own way and cache.

    Args:
        model: The embedding.
        encoder_of: Makes the encoder of one of its models, when texts of its kind come.
        name: Name for messages.
    """

    # The two encoders keep what they compute.
    cached = False

    def __init__(self, model: TwoSided, encoder_of: Callable[[BaseEmbedding], BaseEncoder], name: str) -> None:
        self.model = model
        self.name = name
        self._encoder_of = encoder_of
        self._encoders: dict[TextKind, BaseEncoder] = {}

    def identity(self, kind: TextKind) -> ModelIdentity | None:
        """See `Backend.identity`."""
        return known_identity(self.model, kind)

    def prompt(self, kind: TextKind) -> str:
        """See `Backend.prompt`."""
        return self._side(kind).backend.prompt(kind)

    def embed(self, texts: list[str], kind: TextKind) -> NDArray[np.float32]:
        """See `Backend.embed`."""
        side = self._side(kind)
        return side.encode_queries(texts) if kind == "query" else side.encode_documents(texts)

    def _side(self, kind: TextKind) -> BaseEncoder:
        if kind not in self._encoders:  # the other one is not loaded for it
            self._encoders[kind] = self._encoder_of(self.model.model_of(kind))
        return self._encoders[kind]
