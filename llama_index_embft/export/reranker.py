"""Export a reranker: half precision, or a graph that reads pairs, held against the model's own logits."""

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
from llama_index_embft.embeddings.cross_encoder import (
    cross_encoder_fingerprint,
    has_scoring_head,
    pair_logits,
)
from llama_index_embft.embeddings.describe import named_folder, read_json, resolve_model_name
from llama_index_embft.embeddings.graph.embedding import RECORD_FILE
from llama_index_embft.embeddings.sentence_transformer import loaded_from
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
from llama_index_embft.retrievers.late_interaction import LateInteractionReranker
from llama_index_embft.retrievers.loading import load_reranker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from sentence_transformers import CrossEncoder

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.export.formats import ExportFormat

# A graph in float32 computes what torch computes, up to the order of sums; what differs by more than this share of the
# spread of all logits is another function.
_SAME_SHARE: Final = 0.01
_ROUNDING: Final = 1e-5
_MOST_QUERIES: Final = 100  # of a validation set
_PAIRS: Final = (
    ("What is it?", "A pump."),
    ("How do I reset the pump after a power failure?", "Hold the red button for ten seconds, then wait for the lamp."),
    ("How do I reset the pump after a power failure?", "The pump was bought in 1997 and painted twice since."),
    ("Ünïcödé, emoji 🙂 and 3,141.59", "Numbers, and letters with dots: ä, ö, ü."),
    ("微调嵌入模型", "微调嵌入模型以便增强检索能力。"),
    ("how long is it", "A text that is longer than most models read. " * 120),
    ("a question that is longer than most passages are " * 60, "A short answer."),
)


def is_reranker(model: Any, *, trust_remote_code: bool) -> bool:
    """Whether a name, a folder or a loaded model is that of a cross-encoder.

    Raises:
        ModelError: It is a path, and nothing is there.
    """
    if not isinstance(model, str | Path):
        from sentence_transformers import CrossEncoder

        return isinstance(model, CrossEncoder)
    name = resolve_model_name(model)
    kind = read_json(Path(name) / RECORD_FILE).get("kind")
    if kind is not None:
        return bool(kind == "reranker")
    try:
        return has_scoring_head(name, trust_remote_code=trust_remote_code)
    except ModelError:
        return False  # an adapter, or nothing at all: whoever loads it says what it is


def export_reranker(
    model: str | Path | CrossEncoder,
    output_path: Path,
    format: ExportFormat | Sequence[ExportFormat],
    *,
    val_dataset: EmbeddingQAFinetuneDataset | None,
    trust_remote_code: bool,
) -> ExportReport:
    """`export_model` for a reranker; its logits of pairs are what is compared and timed.

    Args:
        model: A saved reranker, a folder, a hub name or a loaded model.
        output_path: See `export_model`.
        format: See `export_model`.
        val_dataset: Its questions, each with a relevant passage and another one, are the pairs; None: some of ours.
        trust_remote_code: Run code that comes with the model.

    Raises:
        ConfigError: A format is unknown, or the model has no graph that reads pairs.
        ModelError: The model cannot be loaded or exported, or a graph gives other logits.
        MissingExtraError: A package of an extra is missing.
        OutputError: `output_path` cannot be written.
    """
    formats = checked_formats(format)
    folders = folders_of(output_path, formats, nested=not isinstance(format, str))
    for folder in folders:
        check_output_folder(folder, keep=named_folder(model))
    saved: dict[str, Any] = {}
    if isinstance(model, str | Path):
        reranker = load_reranker(model, trust_remote_code=trust_remote_code)
        if isinstance(reranker, LateInteractionReranker):
            raise ConfigError(
                f"{model} ranks by the token vectors of an embedding model, and no graph is made of that; export the "
                "embedding model, or keep the reranker as it is."
            )
        saved = {"weight": reranker.weight, "top_n": reranker.top_n, "batch_size": reranker.batch_size}
        name, source = resolve_model_name(model), reranker.cross_encoder
    else:
        name, source = loaded_from(model), model  # type: ignore[arg-type]  # it has the same parts
    _check_graph(formats, source, name)
    pairs = _pairs(val_dataset)
    expected, speed = _measured(source, pairs)
    weights = sum(tensor.numel() * tensor.element_size() for tensor in source.state_dict().values())
    rows = [ExportRow("torch", None, weights / 1e6, speed, logit_difference=0.0)]

    def report(some: list[ExportRow]) -> ExportReport:
        return ExportReport(tuple(some), metric=None, queries=0, texts=len(pairs), device=source.device.type)

    with ExitStack() as kept:  # several formats appear together, or none of them
        graph = SharedGraph(kept, source, _PAIRS[:2], "scores")
        for kind, folder in zip(formats, folders, strict=True):
            inside = kept.enter_context(write_folder_atomically(folder))
            export: dict[str, Any] = {"format": kind}
            if kind in WEIGHTS:
                _save_half(source, kind, inside)
            else:
                export["tokenization"] = write_files(kind, graph, inside)
            record = {
                "format": 1,
                "kind": "export",
                "export": export,
                "base": {"class_name": "CrossEncoder", "model_name": public_name(name)},
                "base_fingerprint": cross_encoder_fingerprint(source),
                "weight": 1.0,
                **saved,
                "max_length": source.max_seq_length,
                "versions": package_versions() | runtime_versions(kind),
            }
            (inside / RECORD_FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
            found, speed = _measured(load_reranker(inside, trust_remote_code=trust_remote_code), pairs)
            difference = float(np.abs(found - expected).max())
            allowed = _SAME_SHARE * float(np.ptp(expected)) + _ROUNDING
            if kind in ("onnx", "openvino") and not difference <= allowed:
                raise ModelError(
                    f"The {kind} graph gives other logits than the model (by up to {difference:.5f} over {len(pairs)} "
                    f"pairs, {allowed:.5f} allowed); nothing was written. Export it as fp16 or bf16 instead."
                )
            rows.append(ExportRow(kind, folder, size_in_bytes(inside) / 1e6, speed, logit_difference=difference))
            single = report([rows[0], rows[-1]])
            record["measured"] = single.to_dict()
            (inside / RECORD_FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
            (inside / "README.md").write_text(export_card(record, single), encoding="utf-8")
    return report(rows)


def _check_graph(formats: list[str], model: CrossEncoder, name: str) -> None:
    graphs = [kind for kind in formats if kind not in WEIGHTS]
    if not graphs:
        return
    if len(model) != 1 or getattr(model[0], "auto_model", None) is None:
        raise ConfigError(
            f"`format` is {graphs[0]!r}, the graph of one transformer with a scoring layer, and {name} is "
            f"{' and '.join(type(part).__name__ for part in model)}; export it as fp16 or bf16."
        )
    if model.default_prompt_name is not None:
        raise ConfigError(
            f"{name} puts a prompt of its own before each pair, which a graph over token ids cannot know; export it as "
            "fp16 or bf16."
        )


def _save_half(model: CrossEncoder, kind: str, folder: Path) -> None:
    import torch

    half = copy.deepcopy(model).to("cpu").to(torch.float16 if kind == "fp16" else torch.bfloat16)
    half.save_pretrained(str(folder), create_model_card=False)


def _pairs(dataset: EmbeddingQAFinetuneDataset | None) -> list[tuple[str, str]]:
    if dataset is None:
        return list(_PAIRS)
    documents = list(dataset.corpus)
    pairs = list(_PAIRS)
    for place, query in enumerate(list(dataset.queries)[:_MOST_QUERIES]):
        relevant = dataset.relevant_docs[query]
        turned = documents[place + 1 :] + documents[: place + 1]
        chosen = [relevant[0], *(doc for doc in turned[: len(relevant) + 1] if doc not in relevant)][:2]
        pairs += [(dataset.queries[query], dataset.corpus[document]) for document in chosen]
    return list(dict.fromkeys(pairs))


def _measured(model: Any, pairs: list[tuple[str, str]]) -> tuple[NDArray[np.float32], float]:
    """Logits, and pairs a second: the best of three passes."""
    if not hasattr(model, "predict"):
        model = model.cross_encoder
    logits, best = pair_logits(model, pairs), float("inf")
    for _ in range(3):
        begin = time.perf_counter()
        pair_logits(model, pairs)
        best = min(best, time.perf_counter() - begin)
    return logits, len(pairs) / best
