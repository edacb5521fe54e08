"""The `BaseEmbedding` that carries an adapter: a small module that turns vectors of a frozen embedding model.

A query-side adapter leaves the document vectors alone, so it works on an index that already exists.
"""

from __future__ import annotations

from array import array
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from llama_index.core.bridge.pydantic import Field, PrivateAttr

from llama_index_embft.embeddings.adapter.files import load_adapter_module, read_adapter_config, save_for_llama_index
from llama_index_embft.embeddings.adapter.modules import apply_adapter, apply_to_one, describe_module, input_dim
from llama_index_embft.embeddings.fingerprint import fingerprint_module, hash_parts
from llama_index_embft.embeddings.identity import check_base, known_identity
from llama_index_embft.embeddings.wrapped import WrappedEmbedding
from llama_index_embft.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from numpy.typing import NDArray
    from torch import nn

    from llama_index_embft.embeddings.sentence_transformer import TextKind


class AdapterEmbedding(WrappedEmbedding):
    """An embedding model followed by a trained adapter.

    Args:
        base_embed_model: The model whose vectors the adapter was trained on.
        adapter_path: Folder of the adapter: ours (``adapter.safetensors``, ``config.json``), or one that
            llama-index-embeddings-adapter saved (``pytorch_model.bin``, ``config.json``), read without running code.
        adapter_model: The module to load the weights into; needed only for modules of your own, which the folder
            cannot rebuild.
        force: Accept another base model than the adapter was trained on, or one whose class is not known, so that
            nothing tells whether it is the same.
        device: Torch device of the adapter; it is small, and the CPU is quick enough.

    Raises:
        ModelError: The folder holds no adapter, or one that was trained on another base model.
    """

    adapter_path: str = Field(description="Folder of the saved adapter.")
    transform_queries: bool = Field(default=True, description="Whether query vectors go through the adapter.")
    transform_documents: bool = Field(default=False, description="Whether document vectors go through the adapter.")
    normalize: bool = Field(default=False, description="Whether the adapter's vectors are scaled to length 1.")
    _adapter: Any = PrivateAttr()
    _input_dim: int | None = PrivateAttr()
    _arguments: dict[str, Any] = PrivateAttr()

    def __init__(
        self,
        base_embed_model: BaseEmbedding,
        adapter_path: str | Path,
        adapter_model: nn.Module | None = None,
        *,
        force: bool = False,
        device: str = "cpu",
        **kwargs: Any,
    ) -> None:
        folder = Path(adapter_path)
        config = read_adapter_config(folder)
        # llama-index-embeddings-adapter writes no base down; whoever loads its folder names the model, as with it.
        believed = config.get("format") == "llama-index-embeddings-adapter" and known_identity(
            base_embed_model, "query"
        )
        check_base(
            base_embed_model, config["base_fingerprint"], f"The adapter in {folder}", force=force or bool(believed)
        )
        module = load_adapter_module(folder, config, adapter_model)
        super().__init__(
            base_embed_model,
            model_name=f"{base_embed_model.model_name}+adapter",
            adapter_path=str(folder),
            transform_queries=config["transform_queries"],
            transform_documents=config["transform_documents"],
            normalize=config["normalize"],
            **kwargs,
        )
        self._adapter = module.to(device).eval()
        self._input_dim = input_dim(module)
        self._arguments = {"force": force, "device": device}

    @classmethod
    def class_name(cls) -> str:
        """Name for LlamaIndex's serialization."""
        return "AdapterEmbedding"

    @property
    def adapter(self) -> nn.Module:
        """The trained module."""
        module: nn.Module = self._adapter
        return module

    def change_batch(self, texts: list[str], vectors: NDArray[np.float32], kind: TextKind) -> NDArray[np.float32]:
        """See `Wrapped.change_batch`."""
        del texts  # the vectors are enough
        return self.transform(vectors, kind)

    def transform(self, vectors: NDArray[np.float32], kind: TextKind) -> NDArray[np.float32]:
        """What the adapter makes of the base model's vectors.

        Args:
            vectors: Shape ``(n, dim)``.
            kind: ``"query"`` or ``"document"``; the side that the adapter does not change comes back as it is.

        Returns:
            Shape ``(n, dim_out)``.

        Raises:
            ModelError: The vectors have another dimension than the adapter was trained on, or hold NaN.
        """
        if not (self.transform_queries if kind == "query" else self.transform_documents):
            return vectors
        self._check(vectors)
        return apply_adapter(self._adapter, vectors, normalize=self.normalize)

    def save_for_llama_index(self, folder: str | Path) -> None:
        """Write the adapter for llama-index-embeddings-adapter, see `adapter.files.save_for_llama_index`.

        Raises:
            ConfigError: That package has no such adapter.
            OutputError: The folder cannot be written.
        """
        if self.transform_documents or not self.transform_queries:
            raise ConfigError(
                "The adapter changes documents too, which llama-index-embeddings-adapter cannot do; "
                "train one with sides='query'."
            )
        save_for_llama_index(folder, self._adapter)

    def _check(self, vectors: NDArray[np.float32]) -> None:
        if self._input_dim is not None and vectors.shape[1] != self._input_dim:
            raise ModelError(
                f"{self._base.model_name} returns {vectors.shape[1]} dimensions, but the adapter in "
                f"{self.adapter_path} was trained on {self._input_dim}; use the model it was trained on."
            )
        # A sum is finite if all are, but for overflow, and takes half the time.
        if not (isfinite(float(vectors.sum())) or np.isfinite(vectors).all()):
            raise ModelError(
                f"{self._base.model_name} returned a vector with NaN or infinity; check the model, or load it in "
                "float32."
            )

    def _change_query(self, query: str, vector: list[float]) -> list[float]:
        del query
        if not self.transform_queries:
            return vector
        # An array of floats costs a third of what numpy takes to read a list.
        row = np.frombuffer(array("f", vector), dtype=np.float32)
        self._check(row[None])
        changed = apply_to_one(self._adapter, row)
        length = float(changed @ changed) ** 0.5 if self.normalize else 1.0
        result: list[float] = (changed / np.float32(length) if length > 0 else changed).tolist()
        return result

    def _change(self, texts: list[str], vectors: list[list[float]], kind: TextKind) -> list[list[float]]:
        changed = self.transform_queries if kind == "query" else self.transform_documents
        return super()._change(texts, vectors, kind) if changed else vectors

    def _change_identity(self, side: TextKind) -> str | None:
        if not (self.transform_queries if side == "query" else self.transform_documents):
            return None
        # Of a module of the user's own this is its class and its weights: all that it can be told by.
        described = sorted(describe_module(self._adapter).items())
        return hash_parts(repr(described), fingerprint_module(self._adapter), str(self.normalize))

    def _saved_arguments(self) -> dict[str, Any]:
        return self._arguments

    @classmethod
    def _derived_fields(cls) -> frozenset[str]:
        return frozenset({"transform_queries", "transform_documents", "normalize"})
