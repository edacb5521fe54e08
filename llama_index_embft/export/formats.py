"""The formats of an export: which there are, where each goes, and how its files are written."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from llama_index_embft._core.checks import check_choice
from llama_index_embft._core.optional import require
from llama_index_embft._core.temporary import scratch_folder
from llama_index_embft.embeddings.graph.runtime import ONNX_FILE, OPENVINO_FILE
from llama_index_embft.embeddings.graph.tokenizing import TOKENIZER_FILE, save_tokenizer
from llama_index_embft.errors import ConfigError
from llama_index_embft.export.graph import quantize_onnx, write_onnx, write_openvino

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import ExitStack

    from sentence_transformers import CrossEncoder, SentenceTransformer

    from llama_index_embft.embeddings.graph.tokenizing import Tokenization

ExportFormat = Literal["fp16", "bf16", "onnx", "onnx-int8", "openvino", "openvino-int8"]
FORMATS: Final[tuple[str, ...]] = get_args(ExportFormat)
# Formats that are the model itself, in other numbers; the others are graphs.
WEIGHTS: Final = ("fp16", "bf16")
_NEEDED: Final = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("onnx", "onnxscript", "openvino")}


def checked_formats(format: ExportFormat | Sequence[ExportFormat]) -> list[str]:
    """The formats as a list, and what they need installed.

    Raises:
        ConfigError: One is unknown or named twice.
        MissingExtraError: A package is missing.
    """
    formats: list[str] = [format] if isinstance(format, str) else list(format)
    for name in formats or [""]:
        check_choice("format", name, FORMATS, hint="name one, or several in a list")
    if len(set(formats)) < len(formats):
        raise ConfigError(f"`format` names one twice ({', '.join(formats)}); name each once.")
    for name in formats:
        for module in _NEEDED.get(name.partition("-")[0], ()):
            require(module, feature=f"format={name!r}")
        if name == "openvino-int8":
            require("onnxruntime", feature=f"format={name!r}")
    return formats


def folders_of(out: Path, formats: list[str], *, nested: bool) -> list[Path]:
    """Where each format goes: one format into the folder itself, several into folders of their names."""
    return [out / name for name in formats] if nested else [out]


class SharedGraph:
    """The ONNX graph in float32 that all graph formats begin with, made when the first of them asks for it.

    Args:
        kept: Closes the folder that holds it.
        model: The model.
        texts: Two texts, or pairs, of different length: a batch of one, or no padding, would be taken for a constant.
        output: What the model calls its result.
    """

    def __init__(
        self, kept: ExitStack, model: SentenceTransformer | CrossEncoder, texts: Sequence[Any], output: str
    ) -> None:
        self._kept, self._model, self._texts, self._output = kept, model, texts, output
        self._folder: Path | None = None
        self.tokenization: Tokenization | None = None

    def folder(self) -> Path:
        """Folder with ``model.onnx``, its weights beside it where they are large, and the tokenizer."""
        if self._folder is None:
            folder = self._kept.enter_context(scratch_folder())
            model = copy.deepcopy(self._model).to("cpu").float().eval()
            transformer: Any = model[0]
            # Fused attention picks its kernel by what the mask holds, which a graph for all masks cannot.
            transformer.auto_model.set_attn_implementation("eager")
            self.tokenization = save_tokenizer(model, folder, self._texts)
            write_onnx(model, self.tokenization.inputs, folder / ONNX_FILE, texts=self._texts, output=self._output)
            self._folder = folder
        return self._folder


def write_files(name: str, graph: SharedGraph, folder: Path) -> dict[str, Any]:
    """Write a graph in its format, with the tokenizer; returns how texts are made its inputs, for ``embft.json``."""
    made = graph.folder()
    assert graph.tokenization is not None
    shutil.copy(made / TOKENIZER_FILE, folder)
    _write_graph(name, made, folder)
    return {**vars(graph.tokenization), "inputs": list(graph.tokenization.inputs)}


def _write_graph(name: str, made: Path, folder: Path) -> None:
    full = made / ONNX_FILE
    if name == "onnx":
        for file in made.glob(f"{ONNX_FILE}*"):
            shutil.copy(file, folder)
    elif name == "onnx-int8":
        quantize_onnx(full, folder / ONNX_FILE)
    elif name == "openvino":
        write_openvino(full, folder / OPENVINO_FILE)
    else:
        quantized = made / "int8" / ONNX_FILE
        quantized.parent.mkdir(exist_ok=True)
        quantize_onnx(full, quantized)
        write_openvino(quantized, folder / OPENVINO_FILE)


def public_name(name: str) -> str:
    """A hub name as it is, of a folder its last part: the exporter's disk is nobody's business."""
    return Path(name).name if Path(name).is_dir() or Path(name).is_absolute() else name


def runtime_versions(name: str) -> dict[str, str]:
    """Versions of the packages that made, and run, a format."""
    from importlib import metadata

    return {module: metadata.version(module) for module in _NEEDED.get(name.partition("-")[0], ())}
