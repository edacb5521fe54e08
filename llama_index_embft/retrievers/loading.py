"""Rerankers by their folder or name, and whatever else may be given as one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llama_index.core.postprocessor.types import BaseNodePostprocessor

from llama_index_embft._core.checks import first_line
from llama_index_embft.embeddings.encoding.late_interaction import is_sound, load_late_interaction, load_multi_vector
from llama_index_embft.embeddings.graph.cross_encoder import GraphCrossEncoder
from llama_index_embft.errors import ConfigError, ModelError
from llama_index_embft.retrievers.late_interaction import LateInteractionReranker
from llama_index_embft.retrievers.reranking import BATCH, RECORD, CrossEncoderReranker


def load_reranker(
    folder: str | Path,
    *,
    top_n: int | None = None,
    device: str | None = None,
    weight: float | None = None,
    trust_remote_code: bool = False,
) -> CrossEncoderReranker:
    """Load a reranker that was trained here, saved with a retriever or exported, or one of another make by its name.

    Args:
        folder: The folder, or a hub name; other makes are cross-encoders, and multi-vector models (ColBERT's kind).
        top_n: Nodes to return; None: as saved with a retriever, else all.
        device: Torch device; None takes a GPU where there is one.
        weight: Share of the reranker in the ranking; None: the one learnt on validation, else 1 for a cross-encoder
            and 0.5 for late interaction.
        trust_remote_code: Run code that comes with the model. Only for repositories you have read.

    Raises:
        ModelError: It cannot be loaded, or is no reranker.
    """
    record = _record(Path(folder))
    fields = {
        "top_n": record.get("top_n") if top_n is None else top_n,
        "weight": record.get("weight", 1.0) if weight is None else weight,
        "batch_size": record.get("batch_size", BATCH),
        "device": device,
        "trust_remote_code": trust_remote_code,
    }
    if "late_interaction" in record:
        late = record["late_interaction"]
        scorer = load_late_interaction(folder, late, device=device, trust_remote_code=trust_remote_code)
        return LateInteractionReranker(
            scorer, cache_mb=late["cache_mb"], top_n=fields["top_n"], weight=fields["weight"]
        )
    if not record:
        made_for_it = load_multi_vector(folder, device=device, trust_remote_code=trust_remote_code)
        if made_for_it is not None:
            share = LateInteractionReranker.prior if weight is None else weight
            return LateInteractionReranker(made_for_it, top_n=top_n, weight=share)
    kind = str(record.get("export", {}).get("format", ""))
    model = GraphCrossEncoder(folder, record) if kind.startswith(("onnx", "openvino")) else folder
    return CrossEncoderReranker(model, max_length=record.get("max_length"), **fields)


def as_postprocessor(reranker: Any, *, trust_remote_code: bool = False) -> BaseNodePostprocessor:
    """A reranker as a node postprocessor: one as it is, or a name, a folder, a ``CrossEncoder`` or a function."""
    if isinstance(reranker, BaseNodePostprocessor):
        return reranker
    if isinstance(reranker, (str, Path)):
        return load_reranker(reranker, trust_remote_code=trust_remote_code)
    if not (hasattr(reranker, "predict") or callable(reranker)):
        raise ConfigError(
            f"`reranker` is a {type(reranker).__name__}; give a name or a folder, a CrossEncoder, a function of query "
            "and texts, or a node postprocessor of LlamaIndex."
        )
    return CrossEncoderReranker(reranker)


def _record(folder: Path) -> dict[str, Any]:
    """What ``embft.json`` says; empty where there is none."""
    file = folder / RECORD
    if not file.is_file():
        return {}
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        kind, weight = record["kind"], record.get("weight", 1.0)
        sound = 0 <= weight <= 1 and all(value is None or value > 0 for value in _counts(record))
        if (late := record.get("late_interaction")) is not None:
            sound = sound and is_sound(late)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as err:
        raise ModelError(f"{file} is damaged ({first_line(err)}); restore the folder, or train again.") from err
    if kind != "reranker" and not (kind == "export" and "weight" in record and isinstance(record.get("export"), dict)):
        raise ModelError(f"{folder} holds a saved result of the kind {kind!r} and no reranker; see load_embed_model.")
    if not sound:
        raise ModelError(f"{file} is damaged (weight {weight!r}, or another entry out of range); restore the folder.")
    return dict(record)


def _counts(record: dict[str, Any]) -> list[int | None]:
    """Whole numbers of the record that must be at least 1.

    Raises:
        TypeError: One is no whole number.
    """
    found = [record.get("top_n"), record.get("batch_size"), record.get("max_length")]
    if not all(value is None or isinstance(value, int) for value in found):
        raise TypeError("an entry of the wrong kind")
    return found
