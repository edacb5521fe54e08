"""A result on its way to where it is used: other formats, and the hub.

Importing this loads neither torch nor LlamaIndex; each name is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llama_index_embft.export.embedding import OnnxEmbedding, OpenVINOEmbedding, load_exported
    from llama_index_embft.export.hub import check_can_push, push_dataset_to_hub, push_to_hub
    from llama_index_embft.export.model import export_model
    from llama_index_embft.export.report import ExportReport, ExportRow

__all__ = [
    "ExportReport",
    "ExportRow",
    "OnnxEmbedding",
    "OpenVINOEmbedding",
    "check_can_push",
    "export_model",
    "load_exported",
    "push_dataset_to_hub",
    "push_to_hub",
]

_HOME = {
    "ExportReport": "report",
    "ExportRow": "report",
    "OnnxEmbedding": "embedding",
    "OpenVINOEmbedding": "embedding",
    "check_can_push": "hub",
    "export_model": "model",
    "load_exported": "embedding",
    "push_dataset_to_hub": "hub",
    "push_to_hub": "hub",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
