"""A model as an ONNX or OpenVINO graph: token ids in, the sentence's vector or the pair's score out.

Every module of the model (transformer, pooling, dense layers, normalization) is part of the graph, so that what runs it
needs neither torch nor sentence-transformers.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from typing import TYPE_CHECKING, Any, Final

from llama_index_embft._core.checks import first_line
from llama_index_embft._core.logs import errors_only
from llama_index_embft._core.optional import require
from llama_index_embft.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from sentence_transformers import CrossEncoder, SentenceTransformer

_NOISY: Final = ("torch.onnx", "onnxscript", "onnx_ir", "root")
# One protobuf message holds at most 2 GiB; larger weights go into a file of their own beside the graph.
_MAX_INLINE_BYTES: Final = 1_500_000_000


def write_onnx(
    model: SentenceTransformer | CrossEncoder, inputs: tuple[str, ...], file: Path, *, texts: Sequence[Any], output: str
) -> None:
    """Write the model as an ONNX graph in float32, for any batch size and text length.

    Args:
        model: On the CPU in float32, in evaluation mode.
        inputs: Names of the graph's inputs, a part of what the model's `preprocess` gives.
        file: Where to write; weights beyond 1.5 GB go into ``<file>.data`` beside it.
        texts: Two texts, or pairs, of different length.
        output: What the model calls its result.

    Raises:
        MissingExtraError: A package of the extra ``onnx`` is missing.
        ModelError: This architecture cannot be exported.
    """
    for module in ("onnx", "onnxscript"):
        require(module, feature="The export to ONNX")
    import torch

    class Graph(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *values: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.model(dict(zip(inputs, values, strict=True)))[output]
            return result

    features = model.preprocess(list(texts))
    values = tuple(features[name] for name in inputs)
    dynamic = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    size = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    try:
        with _quiet(), torch.no_grad():
            torch.onnx.export(
                Graph().eval(),
                values,
                str(file),
                input_names=list(inputs),
                output_names=[output],
                dynamo=True,
                dynamic_shapes=(tuple(dynamic for _ in inputs),),
                external_data=size > _MAX_INLINE_BYTES,
                verbose=False,
            )
    except OSError:
        raise  # of the disk: the caller knows the folder
    except Exception as err:  # the exporter wraps whatever the model's code raised
        raise ModelError(
            f"PyTorch could not export this architecture to ONNX: {first_line(err)[:300]}; export it as fp16 or bf16 "
            "instead."
        ) from err


def quantize_onnx(source: Path, target: Path) -> None:
    """Write an ONNX graph with int8 weights, a scale for each output channel, and activations quantized as they come.

    Per channel and not per tensor: one scale for a whole matrix moves the vectors of all-MiniLM-L6-v2 much further.
    """
    require("onnxruntime", feature="The export to int8")
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # The quantizer turns matrices round, and stumbles at the shapes that the exporter noted of them where one is not
    # square: a scoring layer, a projection. It infers what it needs by itself.
    graph = onnx.load(str(source), load_external_data=False)
    del graph.graph.value_info[:]
    bare = source.with_name("bare.onnx")  # beside the weights, which may lie in a file of their own
    onnx.save(graph, str(bare))
    with _quiet():
        quantize_dynamic(
            str(bare),
            str(target),
            weight_type=QuantType.QInt8,
            per_channel=True,
            use_external_data_format=_with_data(source),
            extra_options={"MatMulConstBOnly": True},  # products of two activations lose more than they save
        )


def write_openvino(source: Path, target: Path) -> None:
    """Convert an ONNX graph to OpenVINO's own format, weights as they are (no silent fp16).

    Args:
        source: The graph.
        target: The ``.xml``; the weights lie beside it as ``.bin``.
    """
    openvino = require("openvino", feature="The export to OpenVINO")
    openvino.save_model(openvino.convert_model(str(source)), str(target), compress_to_fp16=False)


def size_in_bytes(folder: Path) -> int:
    """Bytes of all files of a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _with_data(file: Path) -> bool:
    return file.with_name(file.name + ".data").exists()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' progress lines and advice to developers away from the user; errors are raised in any case."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), errors_only(*_NOISY):
        warnings.simplefilter("ignore")
        yield
