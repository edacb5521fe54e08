"""An exported graph in what runs it: ONNX Runtime or OpenVINO, neither of which needs torch."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from llama_index_embft._core.checks import check_number, first_line
from llama_index_embft._core.optional import require
from llama_index_embft.embeddings.graph.signal_stack import kept_signal_stack
from llama_index_embft.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

ONNX_FILE: Final = "model.onnx"
OPENVINO_FILE: Final = "model.xml"


class GraphRuntime(Protocol):
    """A graph that is loaded."""

    def run(self, inputs: dict[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        """Its one output, of shape ``(n, …)``."""


class OnnxGraph:
    """A graph run by ONNX Runtime.

    Args:
        file: The ``.onnx``.
        num_threads: None: all cores.
    """

    def __init__(self, file: Path, num_threads: int | None) -> None:
        runtime = require("onnxruntime", feature="An exported ONNX graph")
        options = runtime.SessionOptions()
        options.log_severity_level = 3  # errors
        if num_threads is not None:
            options.intra_op_num_threads = num_threads
        # Only what computes here: an installed runtime may list a cloud service among its providers.
        wanted = ("CUDAExecutionProvider", "CoreMLExecutionProvider", "CPUExecutionProvider")
        providers = [name for name in wanted if name in runtime.get_available_providers()]
        self._session = runtime.InferenceSession(str(file), options, providers=providers)

    def run(self, inputs: dict[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        """See `GraphRuntime.run`."""
        result: NDArray[np.float32] = self._session.run(None, inputs)[0]
        return result


class OpenVINOGraph:
    """A graph run by OpenVINO on the CPU, in float32.

    Args:
        file: The ``.xml``.
        num_threads: None: all cores.
    """

    def __init__(self, file: Path, num_threads: int | None) -> None:
        openvino = require("openvino", feature="An exported OpenVINO graph")
        # On processors with AMX the default is bfloat16: other results than those the export was checked with.
        options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
        if num_threads is not None:
            options["INFERENCE_NUM_THREADS"] = num_threads
        # A compiled model answers one caller at a time, and async calls come from several threads.
        self._one_at_a_time = threading.Lock()
        with kept_signal_stack():
            self._compiled = openvino.Core().compile_model(str(file), "CPU", options)

    def run(self, inputs: dict[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        """See `GraphRuntime.run`."""
        with self._one_at_a_time, kept_signal_stack():
            result: NDArray[np.float32] = np.array(self._compiled(inputs)[0])
        return result


def open_graph(file: Path, num_threads: int | None) -> GraphRuntime:
    """Load a graph, in the runtime that its file is for.

    Args:
        file: `ONNX_FILE` or `OPENVINO_FILE` of an exported folder.
        num_threads: Threads of the runtime; None: its own choice, all cores.

    Raises:
        ConfigError: `num_threads` is below 1.
        ModelError: The file is damaged.
        MissingExtraError: The runtime is not installed.
    """
    if num_threads is not None:
        check_number("num_threads", num_threads, at_least=1)
    try:
        return (OnnxGraph if file.name == ONNX_FILE else OpenVINOGraph)(file, num_threads)
    except (ImportError, OSError):
        raise
    except Exception as err:  # each runtime raises its own kinds
        raise ModelError(
            f"The graph {file} cannot be loaded: {first_line(err)[:300]}; export the model again."
        ) from err
