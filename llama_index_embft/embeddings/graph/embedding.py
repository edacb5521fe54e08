"""LlamaIndex embeddings over an exported graph: `OnnxEmbedding` and `OpenVINOEmbedding`.

They import neither torch nor transformers, and give what the exported model gave: the same prompts, maximum length,
pooling and normalization.
"""

from __future__ import annotations

import asyncio
import json
from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import (
    Field,
    PrivateAttr,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from llama_index_embft._core.vectors import unit_rows
from llama_index_embft.embeddings.fingerprint import hash_files
from llama_index_embft.embeddings.graph.runtime import ONNX_FILE, OPENVINO_FILE, GraphRuntime, open_graph
from llama_index_embft.embeddings.graph.tokenizing import TOKENIZER_FILE, GraphTokenizer, Tokenization
from llama_index_embft.embeddings.identity import ModelIdentity
from llama_index_embft.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from typing_extensions import Self

    from llama_index_embft.embeddings.sentence_transformer import TextKind

RECORD_FILE: Final = "embft.json"
# On CPU small batches keep activations in the caches of the cores, as in `embeddings.encoding`.
_BATCH: Final = 8


class GraphEmbedding(BaseEmbedding):
    """What the two have in common.

    Args:
        folder: An exported folder.
        query_prompt: Put before each query; None: as exported.
        document_prompt: Put before each document; None: as exported.
        num_threads: Threads of the runtime; None: its own choice, all cores.
        embed_batch_size: Texts a run.

    Raises:
        ModelError: The folder holds no such export, or is damaged.
        MissingExtraError: The runtime is not installed.
    """

    query_prompt: str = Field(default="", description="Put before each query.")
    document_prompt: str = Field(default="", description="Put before each document.")
    normalize: bool = Field(default=True, description="Scale vectors to length 1.")
    max_length: int | None = Field(default=None, description="Tokens of a text that are read.")
    num_threads: int | None = Field(default=None, description="Threads of the runtime.")

    _tokenizer: GraphTokenizer = PrivateAttr()
    _graph: GraphRuntime = PrivateAttr()
    _files: str = PrivateAttr()

    def __init__(
        self,
        folder: str | Path,
        *,
        query_prompt: str | None = None,
        document_prompt: str | None = None,
        num_threads: int | None = None,
        embed_batch_size: int = _BATCH,
        **kwargs: Any,
    ) -> None:
        path = Path(folder)
        record = read_export(path)
        file = path / self._graph_file()
        if not file.is_file():
            raise ModelError(
                f"{path} was exported as {record['export']['format']} and holds no {file.name}; use "
                "load_exported(folder), which takes the class that fits."
            )
        prompts = record["prompts"]
        try:
            settings = Tokenization.from_record(record["export"]["tokenization"])
        except (KeyError, TypeError) as err:
            raise ModelError(f"{path / RECORD_FILE} is damaged ({err}); export the model again.") from err
        super().__init__(
            model_name=str(path),
            embed_batch_size=embed_batch_size,
            query_prompt=prompts["query"] if query_prompt is None else query_prompt,
            document_prompt=prompts["document"] if document_prompt is None else document_prompt,
            normalize=bool(record["export"]["normalize"]),
            max_length=settings.max_length,
            num_threads=num_threads,
            **kwargs,
        )
        # Of the graph with its weights and of the tokenizer; what is loaded stays as it was, whatever the folder holds.
        graph = sorted(path for path in path.glob("model.*") if path.suffix != ".safetensors")
        self._files = hash_files([*graph, *([path / TOKENIZER_FILE] if (path / TOKENIZER_FILE).is_file() else [])])
        self._tokenizer = GraphTokenizer(path / TOKENIZER_FILE, settings)
        self._graph = open_graph(file, num_threads)

    @classmethod
    def class_name(cls) -> str:
        """Name of the class in LlamaIndex's records."""
        return cls.__name__

    @staticmethod
    @abstractmethod
    def _graph_file() -> str:
        """Name of the graph's file."""

    def _run(self, inputs: dict[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        """Run it; returns shape ``(n, dim)``."""
        return self._graph.run(inputs)

    def identity(self, side: TextKind, given: str | None = None) -> ModelIdentity:
        """Who makes the vectors of this side."""
        del given  # it has one of its own
        prompt = self.query_prompt if side == "query" else self.document_prompt
        settings = {**vars(self._tokenizer.settings), "normalize": self.normalize}
        # int8 and float32 graphs of one model are other files, and so are those of other runtimes.
        return ModelIdentity.of(
            self.model_name, type(self).__name__, self._files, json.dumps(settings, sort_keys=True), prompt
        )

    # The name of LlamaIndex's own, which it replaces.
    @model_serializer(mode="wrap")
    def custom_model_dump(self, handler: SerializerFunctionWrapHandler, _info: SerializationInfo) -> dict[str, Any]:
        """Fields, class name, and the identity of both sides: an ingestion cache sees that the folder has changed."""
        identity = {"query": self.identity("query").fingerprint, "document": self.identity("document").fingerprint}
        data: dict[str, Any] = handler(self)
        return data | {"class_name": self.class_name(), "identity": identity}

    @classmethod
    def from_dict(cls, data: dict[str, Any], **kwargs: Any) -> Self:
        """Load the export that `to_dict` described; ``folder`` may be given where it has moved."""
        merged = {"folder": data.get("model_name"), **data, **kwargs}
        made = ("class_name", "identity", "model_name", "normalize", "max_length")
        return cls(**{name: value for name, value in merged.items() if name not in made})

    # A session of a runtime cannot be copied or sent to another process: the folder is opened again.
    def __reduce__(self) -> tuple[Callable[..., GraphEmbedding], tuple[type[GraphEmbedding], dict[str, Any]]]:
        data = {name: getattr(self, name) for name in type(self).model_fields if name != "callback_manager"}
        return _open_again, (type(self), data)

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        rebuild, arguments = self.__reduce__()
        copied: Any = rebuild(*arguments)
        result: Self = copied
        return result

    def _embed(self, texts: Sequence[str]) -> list[list[float]]:
        vectors = np.asarray(self._run(self._tokenizer(texts)), dtype=np.float32)
        if not np.isfinite(vectors).all():
            raise ModelError(f"The graph in {self.model_name} returned a vector with NaN or infinity; export it again.")
        result: list[list[float]] = (unit_rows(vectors) if self.normalize else vectors).tolist()
        return result

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._embed([self.query_prompt + query])[0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await asyncio.to_thread(self._get_query_embedding, query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._embed([self.document_prompt + text])[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return await asyncio.to_thread(self._get_text_embedding, text)

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._embed([self.document_prompt + text for text in texts])

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)


def _open_again(cls: type[GraphEmbedding], data: dict[str, Any]) -> GraphEmbedding:
    return cls.from_dict(data)


class OnnxEmbedding(GraphEmbedding):
    """An exported model run by ONNX Runtime; arguments as in `GraphEmbedding`."""

    @staticmethod
    def _graph_file() -> str:
        return ONNX_FILE


class OpenVINOEmbedding(GraphEmbedding):
    """An exported model run by OpenVINO on the CPU, in float32; arguments as in `GraphEmbedding`."""

    @staticmethod
    def _graph_file() -> str:
        return OPENVINO_FILE


def holds_graph(folder: Path) -> bool:
    """Whether a folder holds an exported graph."""
    return (folder / ONNX_FILE).is_file() or (folder / OPENVINO_FILE).is_file()


def load_exported(
    folder: str | Path,
    *,
    query_prompt: str | None = None,
    document_prompt: str | None = None,
    num_threads: int | None = None,
) -> GraphEmbedding:
    """Load a graph that `export_model` wrote. Half precision (fp16, bf16) is loaded by `load_embed_model`.

    Args:
        folder: The folder.
        query_prompt: Put before each query; None: as exported.
        document_prompt: Put before each document; None: as exported.
        num_threads: Threads of the graph's runtime; None: all cores.

    Returns:
        An `OnnxEmbedding` or an `OpenVINOEmbedding`.

    Raises:
        ModelError: The folder holds no graph, or is damaged.
        MissingExtraError: The runtime is not installed.
    """
    kind = read_export(Path(folder))["export"]["format"]
    if not kind.startswith(("onnx", "openvino")):
        raise ModelError(f"{folder} was exported as {kind}, which is not a graph; load it with load_embed_model.")
    graph = OnnxEmbedding if kind.startswith("onnx") else OpenVINOEmbedding
    return graph(folder=folder, query_prompt=query_prompt, document_prompt=document_prompt, num_threads=num_threads)


def read_export(folder: Path) -> dict[str, Any]:
    """Read and check the ``embft.json`` of an exported folder.

    Raises:
        ModelError: There is none, or it is of something else.
    """
    try:
        record: Any = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))
    except OSError as err:
        raise ModelError(f"{folder} holds no exported model ({RECORD_FILE}: {err.strerror}); check the path.") from err
    except (ValueError, RecursionError) as err:
        raise ModelError(f"{folder / RECORD_FILE} is damaged ({err}); export the model again.") from err
    export = record.get("export") if isinstance(record, dict) else None
    prompts = record.get("prompts") if isinstance(record, dict) else None
    if not isinstance(export, dict) or not isinstance(export.get("format"), str):
        raise ModelError(f"{folder} holds a saved result, but no exported model; load it with load_embed_model.")
    if "weight" in record:
        raise ModelError(f"{folder} holds an exported reranker, which makes no vectors; load it with load_reranker.")
    if not isinstance(prompts, dict) or not all(isinstance(prompts.get(k), str) for k in ("query", "document")):
        raise ModelError(f"{folder / RECORD_FILE} is damaged (no prompts); export the model again.")
    checked: dict[str, Any] = record
    return checked
