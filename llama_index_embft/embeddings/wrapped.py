"""What every embedding over another embedding shares: the calls, and LlamaIndex's serialization."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import (
    PrivateAttr,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from llama_index_embft.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self

# Texts from which on a document call leaves the event loop alone. One vector takes less time than the way to a thread.
_THREAD_FROM: Final = 32
# Fields of the base model that a dict must not carry: whoever loads it has keys of his own.
_SECRET_ENDS: Final = ("_key", "_token", "password", "_secret", "_headers")
_SECRETS: Final = frozenset({"token", "headers"})


class WrappedEmbedding(BaseEmbedding):
    """An embedding model whose vectors are changed on their way out.

    Subclasses say how: `_change_query` for one query, `_change_documents` for documents. All of LlamaIndex's calls,
    sync and async, one text and many, go through these two.

    `to_dict` holds the base model's `to_dict` too, without credentials; `from_dict` builds it again, or takes the
    ``base_embed_model`` it is given.

    Args:
        base_embed_model: The model below.
        **fields: Fields of `BaseEmbedding` and of the subclass.
    """

    _base: BaseEmbedding = PrivateAttr()

    def __init__(self, base_embed_model: BaseEmbedding, **fields: Any) -> None:
        fields.setdefault("embed_batch_size", base_embed_model.embed_batch_size)
        super().__init__(**fields)
        self._base = base_embed_model

    @property
    def base_embed_model(self) -> BaseEmbedding:
        """The model below."""
        return self._base

    def _change_query(self, vector: list[float]) -> list[float]:
        """The vector of a query as it leaves; as the base model gave it, if a subclass does not say otherwise."""
        return vector

    def _change_documents(self, texts: list[str], vectors: list[list[float]]) -> list[list[float]]:  # noqa: ARG002
        """The vectors of documents as they leave, in the same order; likewise."""
        return vectors

    def _saved_arguments(self) -> dict[str, Any]:
        """Arguments of ``__init__`` that are no fields, for `from_dict`."""
        return {}

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._change_query(self._base.get_query_embedding(query))

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._change_query(await self._base.aget_query_embedding(query))

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._change_documents([text], [self._base.get_text_embedding(text)])[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return self._change_documents([text], [await self._base.aget_text_embedding(text)])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._change_documents(texts, self._base.get_text_embedding_batch(texts))

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        vectors = await self._base.aget_text_embedding_batch(texts)
        if len(texts) < _THREAD_FROM:
            return self._change_documents(texts, vectors)
        return await asyncio.to_thread(self._change_documents, texts, vectors)

    # The name of LlamaIndex's own, which it replaces.
    @model_serializer(mode="wrap")
    def custom_model_dump(self, handler: SerializerFunctionWrapHandler, _info: SerializationInfo) -> dict[str, Any]:
        """Fields, class name, and the base model."""
        data: dict[str, Any] = handler(self)
        data |= {"class_name": self.class_name(), **self._saved_arguments()}
        data["base_embed_model"] = embedding_to_dict(self._base)
        return data

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
        merged.pop("class_name", None)
        merged.pop("model_name", None)  # made from the base model's
        base = merged.pop("base_embed_model", None)
        if not isinstance(base, BaseEmbedding):
            base = embedding_from_dict(base)
        return cls(base, **{name: value for name, value in merged.items() if name not in cls._derived_fields()})

    @classmethod
    def _derived_fields(cls) -> frozenset[str]:
        """Fields that ``__init__`` fills itself, from the saved result."""
        return frozenset()


def embedding_to_dict(model: BaseEmbedding) -> dict[str, Any]:
    """An embedding model as a dict that `embedding_from_dict` reads; without credentials."""
    if model.class_name() == "HuggingFaceEmbedding":
        from llama_index_embft.embeddings.loading import describe_base

        # LlamaIndex's own dict of this class cannot be read back, and has no prompts that came with the model.
        return {**describe_base(model), "embed_batch_size": model.embed_batch_size}
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
        from llama_index_embft.embeddings.loading import load_described_base

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
        reason = str(err).strip().splitlines()[0] if str(err).strip() else type(err).__name__
        raise ModelError(
            f"The base model {name} cannot be built from the dict ({reason}); "
            "pass it: from_dict(data, base_embed_model=...)."
        ) from err


def _python_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _subclasses(cls: type[BaseEmbedding]) -> Iterator[type[BaseEmbedding]]:
    for child in cls.__subclasses__():
        yield child
        yield from _subclasses(child)
