"""The data set and what is done to it before training: reading documents, checking, splitting."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llama_index_embft.dataset.checks import DropReport
    from llama_index_embft.dataset.documents import Corpus, dataset_corpus, documents_to_nodes, load_documents
    from llama_index_embft.dataset.formats.guess import guess_format
    from llama_index_embft.dataset.formats.registry import (
        Format,
        Written,
        read_dataset,
        to_datasets,
        write_dataset,
    )
    from llama_index_embft.dataset.near_duplicates import near_duplicate_groups
    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.dataset.split import Split, split_dataset
    from llama_index_embft.dataset.stats import DatasetStats
    from llama_index_embft.dataset.stdlib import build_stdlib_dataset
    from llama_index_embft.dataset.traces import RetrievalLog, dataset_from_trulens
    from llama_index_embft.dataset.traffic import TrafficReport, dataset_from_clicks

__all__ = [
    "Corpus",
    "DatasetStats",
    "DropReport",
    "EmbeddingQAFinetuneDataset",
    "Format",
    "RetrievalLog",
    "Split",
    "TrafficReport",
    "Written",
    "build_stdlib_dataset",
    "dataset_corpus",
    "dataset_from_clicks",
    "dataset_from_trulens",
    "documents_to_nodes",
    "guess_format",
    "load_documents",
    "near_duplicate_groups",
    "read_dataset",
    "split_dataset",
    "to_datasets",
    "write_dataset",
]

_HOME = {
    "Corpus": "documents",
    "DatasetStats": "stats",
    "DropReport": "checks",
    "EmbeddingQAFinetuneDataset": "schema",
    "Split": "split",
    "build_stdlib_dataset": "stdlib",
    "dataset_corpus": "documents",
    "documents_to_nodes": "documents",
    "load_documents": "documents",
    "near_duplicate_groups": "near_duplicates",
    "split_dataset": "split",
    "guess_format": "formats.guess",
    **dict.fromkeys(("RetrievalLog", "dataset_from_trulens"), "traces"),
    **dict.fromkeys(("TrafficReport", "dataset_from_clicks"), "traffic"),
    **dict.fromkeys(("Format", "Written", "read_dataset", "to_datasets", "write_dataset"), "formats.registry"),
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
