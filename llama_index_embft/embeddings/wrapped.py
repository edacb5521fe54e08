"""What every embedding over another embedding shares: its map on vectors, the calls, identity and serialization."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, Protocol, get_args, runtime_checkable

import numpy as np
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import (
    PrivateAttr,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from llama_index_embft._core.checks import first_line
from llama_index_embft.embeddings.describe import describe_base, load_described_base
from llama_index_embft.embeddings.identity import ModelIdentity, fingerprints, known_identity
from llama_index_embft.embeddings.sentence_transformer import TextKind, inner_model
from llama_index_embft.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from typing_extensions import Self

# Texts from which on a document call leaves the event loop alone. One vector takes less time than the way to a thread.
_THREAD_FROM: Final = 32
# Fields of the base model that a dict must not carry: whoever loads it has keys of his own.
_SECRET_ENDS: Final = ("_key", "_token", "password", "_secret", "_headers")
_SECRETS: Final = frozenset({"token", "headers"})


@runtime_checkable
class Wrapped(Protocol):
    """An embedding that changes the vectors of another one: all that encoding needs to know of it."""

    @property
    def base_embed_model(self) -> BaseEmbedding:
        """The model below."""

    def change_batch(self, texts: list[str], vectors: NDArray[np.float32], kind: TextKind) -> NDArray[np.float32]:
        """The base model's vectors as they leave; shapes ``(n, dim)`` and ``(n, dim_out)``."""

    def identity(self, side: TextKind, given: str | None = None) -> ModelIdentity | None:
        """Who makes the vectors of this side; None where nothing tells."""


@runtime_checkable
class TwoSided(Protocol):
    """An embedding whose queries and documents come from two models: all that encoding needs to know of it."""

    def model_of(self, side: TextKind) -> BaseEmbedding:
        """Who embeds this kind of text."""


class WrappedEmbedding(BaseEmbedding):
    """An embedding model whose vectors are changed on their way out.

    Subclasses say how by `change_batch`, and who they are by `identity`. All of LlamaIndex's calls, sync and async, one
    text and many, go through the first. The base model is called below its own instrumentation, so that an embedding is
    reported once; its rate limiter holds.

    `to_dict` holds the base model's `to_dict` too, without credentials, and the identity; `from_dict` builds it again,
    or takes the ``base_embed_model`` it is given.

    Args:
        base_embed_model: The model below.
        **fields: Fields of `BaseEmbedding` and of the subclass.
    """

    _base: BaseEmbedding = PrivateAttr()
    _known: Any = PrivateAttr(default=None)

    def __init__(self, base_embed_model: BaseEmbedding, **fields: Any) -> None:
        for name in ("embed_batch_size", "num_workers", "rate_limiter"):
            fields.setdefault(name, getattr(base_embed_model, name))
        super().__init__(**fields)
        self._base = base_embed_model

    @property
    def base_embed_model(self) -> BaseEmbedding:
        """The model below."""
        return self._base

    def change_batch(self, texts: list[str], vectors: NDArray[np.float32], kind: TextKind) -> NDArray[np.float32]:
        """See `Wrapped.change_batch`."""
        raise NotImplementedError

    def identity(self, side: TextKind, given: str | None = None) -> ModelIdentity | None:
        """See `Wrapped.identity`; ``given`` stands for a base model of a class that is not known."""
        base = known_identity(self._base, side, given=given)
        changed = self._change_identity(side)
        return base if changed is None or base is None else ModelIdentity.of(self.model_name, base.fingerprint, changed)

    def _change_identity(self, side: TextKind) -> str | None:
        """Hash of what is done to the vectors of this side; None where they leave as they came."""
        raise NotImplementedError

    def _saved_arguments(self) -> dict[str, Any]:
        """Arguments of ``__init__`` that are no fields, for `from_dict`."""
        return {}

    def _change(self, texts: list[str], vectors: list[list[float]], kind: TextKind) -> list[list[float]]:
        if not vectors:
            return vectors
        result: list[list[float]] = self.change_batch(texts, np.asarray(vectors, dtype=np.float32), kind).tolist()
        return result

    def _change_query(self, query: str, vector: list[float]) -> list[float]:
        return self._change([query], [vector], "query")[0]

    def _get_query_embedding(self, query: str) -> list[float]:
        base = self._base
        cached = base.embeddings_cache is not None  # which only its public calls look into
        return self._change_query(query, (base.get_query_embedding if cached else base._get_query_embedding)(query))

    async def _aget_query_embedding(self, query: str) -> list[float]:
        base = self._base
        cached = base.embeddings_cache is not None
        call = base.aget_query_embedding if cached else base._aget_query_embedding
        return self._change_query(query, await call(query))

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return (await self._aget_text_embeddings([text]))[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        base = self._base
        call = base._get_text_embeddings if base.embeddings_cache is None else base.get_text_embedding_batch
        vectors = [vector for part in self._cut(texts) for vector in call(part)]
        return self._change(texts, vectors, "document")

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        base = self._base
        call = base._aget_text_embeddings if base.embeddings_cache is None else base.aget_text_embedding_batch
        vectors = [vector for part in self._cut(texts) for vector in await call(part)]
        if len(texts) < _THREAD_FROM:
            return self._change(texts, vectors, "document")
        return await asyncio.to_thread(self._change, texts, vectors, "document")

    def _cut(self, texts: list[str]) -> Iterator[list[str]]:
        """As many texts a call as the base model takes."""
        size = self._base.embed_batch_size
        return (texts[start : start + size] for start in range(0, len(texts), size))

    # The name of LlamaIndex's own, which it replaces.
    @model_serializer(mode="wrap")
    def custom_model_dump(self, handler: SerializerFunctionWrapHandler, _info: SerializationInfo) -> dict[str, Any]:
        """Fields, class name, the base model, and the identity: an ingestion cache sees another map in the folder."""
        data: dict[str, Any] = handler(self)
        data |= {"class_name": self.class_name(), **self._saved_arguments()}
        data["base_embed_model"] = embedding_to_dict(self._base)
        # The part above the base model, whose own dict says as much as is known of it.
        return data | {"identity": {side: self._change_identity(side) for side in get_args(TextKind)}}

    @classmethod
    def from_dict(cls, data: dict[str, Any], **kwargs: Any) -> Self:
        """Build the model that `to_dict` described.

        Args:
            data: What `to_dict` returned.
            **kwargs: Win over it: ``base_embed_model`` above all, where it cannot be built from a dict.

        Raises:
            ModelError: The base model cannot be built from the dict, or the saved result it names is gone.
        """
        merged = {**data, **kwargs}
        base = merged.pop("base_embed_model", None)
        if not isinstance(base, BaseEmbedding):
            base = embedding_from_dict(base)
        # The name is made from the base model's, and the identity is that of what the folder holds now.
        made = cls._derived_fields() | {"class_name", "model_name", "identity"}
        return cls(base, **{name: value for name, value in merged.items() if name not in made})

    @classmethod
    def _derived_fields(cls) -> frozenset[str]:
        """Fields that ``__init__`` fills itself, from the saved result."""
        return frozenset()


def embedding_to_dict(model: BaseEmbedding) -> dict[str, Any]:
    """An embedding model as a dict that `embedding_from_dict` reads; without credentials."""
    if inner_model(model) is not None:
        # LlamaIndex's own dict of this class cannot be read back, and has no prompts that came with the model.
        described = {**describe_base(model), "embed_batch_size": model.embed_batch_size}
        return described | {"identity": model.to_dict().get("identity") or fingerprints(model)}
    # A class that gives itself no name for LlamaIndex is known by that of its Python class.
    data = {**model.to_dict(), "python_class": _python_name(type(model))}
    return {name: value for name, value in data.items() if name not in _SECRETS and not name.endswith(_SECRET_ENDS)}


def embedding_from_dict(data: Any) -> BaseEmbedding:
    """Build an embedding model from a dict: one that LlamaIndex knows by name, or whose class has been imported.

    Nothing is imported because a dict says so.

    Raises:
        ModelError: The class is unknown, or its own `from_dict` fails.
    """
    name = data.get("class_name") if isinstance(data, dict) else None
    if name is None:
        raise ModelError("The dict names no base model; pass it: from_dict(data, base_embed_model=...).")
    if name == "HuggingFaceEmbedding":
        return load_described_base(data, "the dict", None)
    from llama_index.core.embeddings.loading import RECOGNIZED_EMBEDDINGS

    known = set(_subclasses(BaseEmbedding))  # type: ignore[type-abstract]
    found = {cls for cls in known if _python_name(cls) == data.get("python_class")}
    found = found or {cls for cls in known if cls.class_name() == name}
    if not found and name in RECOGNIZED_EMBEDDINGS:
        found = {RECOGNIZED_EMBEDDINGS[name]}
    if len(found) != 1:
        what = "is not imported" if not found else f"fits {len(found)} classes"
        raise ModelError(f"The base model's class {name} {what}; pass it: from_dict(data, base_embed_model=...).")
    cls = found.pop()
    try:
        return cls.from_dict({key: value for key, value in data.items() if key != "python_class"})
    except Exception as err:  # each integration raises its own kinds: a missing key, a missing folder, no network
        raise ModelError(
            f"The base model {name} cannot be built from the dict ({first_line(err)}); "
            "pass it: from_dict(data, base_embed_model=...)."
        ) from err


def _python_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _subclasses(cls: type[BaseEmbedding]) -> Iterator[type[BaseEmbedding]]:
    for child in cls.__subclasses__():
        yield child
        yield from _subclasses(child)
