"""Export a model for serving, and measure what is left of it: `export_model`."""

from __future__ import annotations

import copy
import json
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from llama_index_embft._core.environment import package_versions
from llama_index_embft._core.files import check_output_folder, write_folder_atomically
from llama_index_embft._core.vectors import unit_rows
from llama_index_embft.embeddings.describe import named_folder
from llama_index_embft.embeddings.graph.embedding import RECORD_FILE
from llama_index_embft.errors import ConfigError, ModelError
from llama_index_embft.export.card import export_card
from llama_index_embft.export.formats import (
    WEIGHTS,
    SharedGraph,
    checked_formats,
    folders_of,
    public_name,
    runtime_versions,
    write_files,
)
from llama_index_embft.export.graph import size_in_bytes
from llama_index_embft.export.report import ExportReport, ExportRow

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from llama_index.core.base.embeddings.base import BaseEmbedding
    from numpy.typing import NDArray
    from sentence_transformers import CrossEncoder, SentenceTransformer

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.embeddings.encoding.backends import SentenceTransformerBackend
    from llama_index_embft.embeddings.encoding.encoder import Encoder
    from llama_index_embft.evaluation.comparison import Comparison
    from llama_index_embft.evaluation.records import RetrievalReport
    from llama_index_embft.export.formats import ExportFormat

METRIC: Final = "ndcg@10"

# A graph in float32 computes what torch computes, up to the order of sums; below this it is another function.
_SAME_COSINE: Final = 0.9999
_PROBES: Final = (
    "What is it?",
    "How do I reset the pump after a power failure?",
    "Ünïcödé, emoji 🙂 and a number: 3,141.59",
    "微调嵌入模型以便增强检索能力。",
    " leading and trailing spaces \n and a line break ",
    "A passage of ordinary length, as an index holds thousands of them. It has several sentences, and each of them "
    "says a little more about the subject than the one before it. In the end the reader knows what was meant.",
    "A text that is longer than most models read. " * 120,
)


def export_model(
    model: str | Path | BaseEmbedding | SentenceTransformer | CrossEncoder,
    output_path: str | os.PathLike[str],
    format: ExportFormat | Sequence[ExportFormat] = "onnx-int8",
    *,
    val_dataset: EmbeddingQAFinetuneDataset | None = None,
    query_prompt: str | None = None,
    document_prompt: str | None = None,
    trust_remote_code: bool = False,
    seed: int = 0,
) -> ExportReport:
    """Write a model in another format, hold it against the original, and measure both.

    - ``"fp16"``, ``"bf16"``: a SentenceTransformer folder (safetensors) of half the size.
    - ``"onnx"``: a graph in float32 for ONNX Runtime, with pooling and normalization in it.
    - ``"onnx-int8"``: the same with int8 weights and activations quantized as they come; for CPUs.
    - ``"openvino"``: the graph in OpenVINO's format, float32.
    - ``"openvino-int8"``: the int8 graph in that format. OpenVINO alone keeps only a part of it in int8 (its own int8
      needs NNCF, which is not used here): smaller than ``"openvino"``, and not necessarily faster.

    float32 graphs are refused if the cosine of any probed text to the original falls to 0.9999 or below. The other
    formats change vectors by design: how much is in the report, and with a validation set what that does to retrieval.
    Of a reranker it is the logits that are held against the original's; its share in the ranking goes with it, and
    `load_reranker` loads every format.

    An index that was built with the original fits ``fp16``, ``bf16`` and float32 graphs; for int8, build it anew.

    Args:
        model: A saved result (full or LoRA training, a reranker), a SentenceTransformer or CrossEncoder folder, a hub
            name, or a loaded model.
        output_path: Folder to write: itself for one format, a folder of the format's name inside it for several.
        format: A format, or several.
        val_dataset: Quality is measured on it: nDCG@10 before and after, with a paired test by document. Of a reranker,
            its questions with passages are the pairs that are compared and timed.
        query_prompt: Put before each query; None: the model's own.
        document_prompt: Put before each document; None: the model's own.
        trust_remote_code: Run code that comes with a model given by name. Only for repositories you have read.
        seed: Of the test's resamples.

    Returns:
        Size, speed, likeness and quality of the model and of each format.

    Raises:
        ConfigError: A format is unknown or named twice, `model` is an adapter or another embedding without weights, or
            it has no transformer whose graph could be written.
        ModelError: The model cannot be loaded or its architecture not exported, or a graph gives other vectors.
        MissingExtraError: A package of the extra ``onnx`` or ``openvino`` is missing.
        OutputError: `output_path` cannot be written, or holds something else than an earlier export.
    """
    from llama_index_embft.export.reranker import export_reranker, is_reranker

    if is_reranker(model, trust_remote_code=trust_remote_code):
        if query_prompt is not None or document_prompt is not None:
            raise ConfigError("`query_prompt` and `document_prompt` are for embedding models, and this is a reranker.")
        return export_reranker(
            model,  # type: ignore[arg-type]  # just looked at
            Path(output_path),
            format,
            val_dataset=val_dataset,
            trust_remote_code=trust_remote_code,
        )
    formats = checked_formats(format)
    folders = folders_of(Path(output_path), formats, nested=not isinstance(format, str))
    for folder in folders:
        check_output_folder(folder, keep=named_folder(model))
    from llama_index_embft.embeddings.encoding.encoder import as_encoder
    from llama_index_embft.embeddings.loading import load_embed_model

    source, backend = _source(model, query_prompt, document_prompt, trust_remote_code=trust_remote_code)  # type: ignore[arg-type]  # no reranker
    graphs = [name for name in formats if name not in WEIGHTS]
    if graphs and getattr(backend.model[0], "auto_model", None) is None:
        raise ConfigError(
            f"`format` is {graphs[0]!r}, the graph of one transformer, and {backend.name} begins with "
            f"{type(backend.model[0]).__name__}; export it as fp16 or bf16."
        )
    # Without a cache: a vector that was stored long ago says nothing about the speed of today.
    encoder = as_encoder(source, cache=None)
    expected, speed, base = _measured(encoder, val_dataset, "torch")
    reports: list[RetrievalReport] = [] if base is None else [base]
    weights = sum(tensor.numel() * tensor.element_size() for tensor in backend.model.state_dict().values())
    rows = [ExportRow("torch", None, weights / 1e6, speed, 1.0, 1.0)]
    with ExitStack() as kept:  # several formats appear together, or none of them
        graph = SharedGraph(kept, backend.model, _PROBES[:2], "sentence_embedding")
        for name, folder in zip(formats, folders, strict=True):
            inside = kept.enter_context(write_folder_atomically(folder))
            record = _write(name, backend, graph, inside)
            exported = as_encoder(load_embed_model(inside, trust_remote_code=trust_remote_code), cache=None)
            vectors, speed, report = _measured(exported, val_dataset, name)
            cosines = (vectors * expected).sum(axis=1)
            if name in ("onnx", "openvino") and not cosines.min() > _SAME_COSINE:
                raise ModelError(
                    f"The {name} graph gives other vectors than the model (least cosine {cosines.min():.5f} over "
                    f"{len(cosines)} texts); nothing was written. Export it as fp16 or bf16 instead."
                )
            reports += [] if report is None else [report]
            size = size_in_bytes(inside) / 1e6
            rows.append(ExportRow(name, folder, size, speed, float(cosines.min()), float(cosines.mean())))
            comparison = None
            if base is not None and report is not None:
                from llama_index_embft.evaluation.comparing import compare

                comparison = compare(base, report, primary=METRIC, seed=seed)
            single = _report([rows[0], rows[-1]], comparison, val_dataset, backend)
            record["measured"] = single.to_dict()
            (inside / RECORD_FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
            (inside / "README.md").write_text(export_card(record, single), encoding="utf-8")
    together = None
    if base is not None:
        from llama_index_embft.evaluation.comparing import compare

        together = compare(*reports, primary=METRIC, seed=seed)
    return _report(rows, together, val_dataset, backend)


def _source(
    model: str | Path | BaseEmbedding | SentenceTransformer,
    query_prompt: str | None,
    document_prompt: str | None,
    *,
    trust_remote_code: bool,
) -> tuple[BaseEmbedding | SentenceTransformer, SentenceTransformerBackend]:
    """Load the model, and find the SentenceTransformer in it."""
    from llama_index_embft.embeddings.adapter.files import holds_adapter
    from llama_index_embft.embeddings.encoding.backends import SentenceTransformerBackend
    from llama_index_embft.embeddings.encoding.encoder import as_encoder
    from llama_index_embft.embeddings.loading import load_embed_model

    loaded: BaseEmbedding | SentenceTransformer
    if isinstance(model, str | Path):
        name = str(model)
        if holds_adapter(Path(name)):
            raise ConfigError(
                f"{name} holds an adapter, which works on finished vectors and has no graph of its own; export the "
                "model below it, and load the adapter on top: AdapterEmbedding(load_exported(folder), ...)."
            )
        loaded = load_embed_model(
            name, query_prompt=query_prompt, document_prompt=document_prompt, trust_remote_code=trust_remote_code
        )
    else:
        loaded = model
    backend = as_encoder(loaded, cache=None).backend
    if not isinstance(backend, SentenceTransformerBackend):
        raise ConfigError(
            f"{backend.name} ({type(loaded).__name__}) is not a SentenceTransformer that runs here, so there are no "
            "weights to export. Give the folder of a full or LoRA training, or a name on the hub."
        )
    if not isinstance(model, str | Path):
        given = {"query": query_prompt, "document": document_prompt}
        if any(prompt is not None for prompt in given.values()):
            raise ConfigError("`query_prompt` and `document_prompt` are for a model given by name; set them on yours.")
    pooling = [module for module in backend.model if getattr(module, "include_prompt", True) is False]
    if pooling and any(backend.prompts.values()):
        raise ConfigError(
            "This model leaves its prompt out of the pooling (include_prompt=False), which a graph over token ids "
            "cannot know; export it as fp16 or bf16 and load it with load_embed_model."
        )
    return loaded, backend


def _write(name: str, backend: SentenceTransformerBackend, graph: SharedGraph, folder: Path) -> dict[str, Any]:
    """Fill a folder; returns its ``embft.json``."""
    import torch

    export: dict[str, Any] = {"format": name, "normalize": backend.normalize}
    length = backend.model.max_seq_length
    if name in WEIGHTS:
        model = copy.deepcopy(backend.model).to("cpu").to(torch.float16 if name == "fp16" else torch.bfloat16)
        model.prompts = dict(backend.prompts)
        model.save_pretrained(str(folder), create_model_card=False)
    else:
        export["tokenization"] = write_files(name, graph, folder)
    record = {
        "format": 1,
        "kind": "export",
        "export": export,
        "base": {"class_name": "SentenceTransformer", "model_name": public_name(backend.name)},
        "base_fingerprint": backend.fingerprint,
        "prompts": dict(backend.prompts),
        "max_length": length if isinstance(length, int) else None,
        "versions": package_versions() | runtime_versions(name),
    }
    (folder / RECORD_FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return record


def _measured(
    encoder: Encoder, val_dataset: EmbeddingQAFinetuneDataset | None, label: str
) -> tuple[NDArray[np.float32], float, RetrievalReport | None]:
    """Embed everything once: vectors of length 1 for comparing, documents a second, and the scores.

    Without a validation set the probes are timed, the best of three passes; with one, the single pass over its
    documents, which takes long enough to be a measurement.
    """
    probes = [encoder.encode_queries(_PROBES[:3]), encoder.encode_documents(_PROBES)]  # this warms the model up too
    if val_dataset is None:
        seconds = min(_seconds(encoder, _PROBES)[0] for _ in range(3))
        return unit_rows(np.concatenate(probes)), len(_PROBES) / seconds, None
    from llama_index_embft.evaluation.systems.embed_model import evaluate_embeddings

    texts = list(val_dataset.corpus.values())
    seconds, documents = _seconds(encoder, texts)
    queries = encoder.encode_queries(list(val_dataset.queries.values()))
    report = evaluate_embeddings(val_dataset, queries, documents, label=label)
    return unit_rows(np.concatenate([*probes, queries, documents])), len(set(texts)) / seconds, report


def _seconds(encoder: Encoder, texts: Sequence[str]) -> tuple[float, NDArray[np.float32]]:
    start = time.perf_counter()
    vectors = encoder.encode_documents(texts)
    return time.perf_counter() - start, vectors


def _report(
    rows: list[ExportRow],
    comparison: Comparison | None,
    val_dataset: EmbeddingQAFinetuneDataset | None,
    backend: SentenceTransformerBackend,
) -> ExportReport:
    if comparison is not None:
        scored = [_with_quality(rows[0], comparison.base.mean(METRIC))]
        for row, system in zip(rows[1:], comparison.systems, strict=True):
            metric = system.metrics[METRIC]
            scored.append(
                _with_quality(
                    row,
                    metric.tuned,
                    difference=metric.test.difference,
                    ci95=metric.test.interval,
                    p=system.p,
                    outcome=system.outcome,
                )
            )
        rows = scored
    return ExportReport(
        rows=tuple(rows),
        metric=METRIC if comparison is not None else None,
        queries=len(val_dataset.queries) if val_dataset is not None else 0,
        texts=len(set(val_dataset.corpus.values())) if val_dataset is not None else len(_PROBES),
        device=backend.model.device.type,
        comparison=comparison,
    )


def _with_quality(row: ExportRow, quality: float, **values: Any) -> ExportRow:
    return ExportRow(**{**vars(row), "quality": quality, **values})
