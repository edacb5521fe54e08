"""LlamaIndex embeddings over an exported graph: `OnnxEmbedding` and `OpenVINOEmbedding`.

They import neither torch nor transformers, and give what the exported model gave: the same prompts, maximum length,
pooling and normalization.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import Field, PrivateAttr

from llama_index_embft._core.optional import require
from llama_index_embft.embeddings.graph.signal_stack import kept_signal_stack
from llama_index_embft.embeddings.graph.tokenizing import TOKENIZER_FILE, GraphTokenizer, Tokenization
from llama_index_embft.errors import ConfigError, ModelError
from llama_index_embft.export.graph import ONNX_FILE, OPENVINO_FILE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

RECORD_FILE: Final = "embft.json"
# On CPU small batches keep activations in the caches of the cores, as in `embeddings.encode`.
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

    _tokenizer: GraphTokenizer = PrivateAttr()

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
        if num_threads is not None and num_threads < 1:
            raise ConfigError(f"`num_threads` must be at least 1, got {num_threads}.")
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
            **kwargs,
        )
        self._tokenizer = GraphTokenizer(path / TOKENIZER_FILE, settings)
        try:
            self._open(file, num_threads)
        except (ImportError, OSError):
            raise
        except Exception as err:  # each runtime raises its own kinds
            reason = (str(err).strip() or type(err).__name__).splitlines()[0]
            raise ModelError(f"The graph {file} cannot be loaded: {reason[:300]}; export the model again.") from err

    @classmethod
    def class_name(cls) -> str:
        """Name of the class in LlamaIndex's records."""
        return cls.__name__

    @staticmethod
    @abstractmethod
    def _graph_file() -> str:
        """Name of the graph's file."""

    @abstractmethod
    def _open(self, file: Path, num_threads: int | None) -> None:
        """Load the graph."""

    @abstractmethod
    def _run(self, inputs: dict[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        """Run it; returns shape ``(n, dim)``."""

    def _embed(self, texts: Sequence[str]) -> list[list[float]]:
        vectors = np.asarray(self._run(self._tokenizer(texts)), dtype=np.float32)
        if self.normalize:
            vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        result: list[list[float]] = vectors.tolist()
        return result

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._embed([self.query_prompt + query])[0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._embed([self.document_prompt + text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._embed([self.document_prompt + text for text in texts])


class OnnxEmbedding(GraphEmbedding):
    """An exported model run by ONNX Runtime; arguments as in `GraphEmbedding`."""

    _session: Any = PrivateAttr()

    @staticmethod
    def _graph_file() -> str:
        return ONNX_FILE

    def _open(self, file: Path, num_threads: int | None) -> None:
        runtime = require("onnxruntime", feature="OnnxEmbedding")
        options = runtime.SessionOptions()
        options.log_severity_level = 3  # errors
        if num_threads is not None:
            options.intra_op_num_threads = num_threads
        # Only what computes here: an installed runtime may list a cloud service among its providers.
        wanted = ("CUDAExecutionProvider", "CoreMLExecutionProvider", "CPUExecutionProvider")
        providers = [name for name in wanted if name in runtime.get_available_providers()]
        self._session = runtime.InferenceSession(str(file), options, providers=providers)

    def _run(self, inputs: dict[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        result: NDArray[np.float32] = self._session.run(None, inputs)[0]
        return result


class OpenVINOEmbedding(GraphEmbedding):
    """An exported model run by OpenVINO on the CPU, in float32; arguments as in `GraphEmbedding`."""

    _compiled: Any = PrivateAttr()

    @staticmethod
    def _graph_file() -> str:
        return OPENVINO_FILE

    def _open(self, file: Path, num_threads: int | None) -> None:
        openvino = require("openvino", feature="OpenVINOEmbedding")
        # On processors with AMX the default is bfloat16: other vectors than those the export was checked with.
        options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
        if num_threads is not None:
            options["INFERENCE_NUM_THREADS"] = num_threads
        with kept_signal_stack():
            self._compiled = openvino.Core().compile_model(str(file), "CPU", options)

    def _run(self, inputs: dict[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        with kept_signal_stack():
            result: NDArray[np.float32] = np.array(self._compiled(inputs)[0])
        return result


def load_exported(
    folder: str | Path,
    *,
    query_prompt: str | None = None,
    document_prompt: str | None = None,
    num_threads: int | None = None,
) -> BaseEmbedding:
    """Load a folder that `export_model` wrote, of any format.

    Args:
        folder: The folder.
        query_prompt: Put before each query; None: as exported.
        document_prompt: Put before each document; None: as exported.
        num_threads: Threads of the graph's runtime; None: all cores. Of no effect on fp16 and bf16, which run in torch.

    Returns:
        An `OnnxEmbedding`, an `OpenVINOEmbedding`, or a `HuggingFaceEmbedding` for fp16 and bf16.

    Raises:
        ModelError: The folder holds no export, or is damaged.
        MissingExtraError: The runtime is not installed.
    """
    kind = read_export(Path(folder))["export"]["format"]
    if kind.startswith(("onnx", "openvino")):
        graph = OnnxEmbedding if kind.startswith("onnx") else OpenVINOEmbedding
        return graph(folder=folder, query_prompt=query_prompt, document_prompt=document_prompt, num_threads=num_threads)
    from llama_index_embft.embeddings.loading import load_embed_model

    return load_embed_model(folder, query_prompt=query_prompt, document_prompt=document_prompt)


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
    if not isinstance(prompts, dict) or not all(isinstance(prompts.get(k), str) for k in ("query", "document")):
        raise ModelError(f"{folder / RECORD_FILE} is damaged (no prompts); export the model again.")
    checked: dict[str, Any] = record
    return checked
