"""What stands in ``embft.json`` beside every saved result: its base, what it was trained and chosen on, its scores."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final

from llama_index_embft._core.environment import package_versions
from llama_index_embft._core.redaction import without_secrets
from llama_index_embft.dataset.hashes import text_hashes
from llama_index_embft.finetune.engine import SELECTION_METRIC

if TYPE_CHECKING:
    from pathlib import Path

    from llama_index.core.base.embeddings.base import BaseEmbedding

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset

RECORD_FILE: Final = "embft.json"


def result_record(
    result_kind: str,
    *,
    base: dict[str, Any],
    base_fingerprint: str | None,
    prompts: dict[str, str],
    max_length: int | None,
    train: EmbeddingQAFinetuneDataset,
    val: EmbeddingQAFinetuneDataset | None,
    metrics: dict[str, Any],
    settings: dict[str, Any],
    guard: EmbeddingQAFinetuneDataset | None = None,
) -> dict[str, Any]:
    """The content of ``embft.json``, which stands beside every saved result.

    Args:
        result_kind: ``"full"``, ``"lora"``, ``"adapter"``, ``"nudge"`` or ``"base"``.
        base: Description of the base model.
        base_fingerprint: Of the base model.
        prompts: ``query`` and ``document``.
        max_length: Tokens of a text that are read.
        train: Training set.
        val: Validation set.
        metrics: Scores before and after.
        settings: Arguments of the engine.
        guard: Guard set.
    """
    return {
        "format": 1,
        "kind": result_kind,
        "base": base,
        "base_fingerprint": base_fingerprint,
        "prompts": prompts,
        "max_length": max_length,
        "data": {
            "train_hash": train.content_hash(),
            "train_queries": len(train.queries),
            "val_hash": val.content_hash() if val is not None else None,
            "val_queries": len(val.queries) if val is not None else 0,
            "guard_hash": guard.content_hash() if guard is not None else None,
            "guard_queries": len(guard.queries) if guard is not None else 0,
        },
        "trained_on": text_hashes(train),
        "chosen_on": text_hashes(val, guard),
        "metrics": metrics,
        "settings": settings,
        "versions": package_versions(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def frozen_base_record(
    result_kind: str,
    *,
    embed_model: BaseEmbedding,
    base_fingerprint: str | None,
    train: EmbeddingQAFinetuneDataset,
    val: EmbeddingQAFinetuneDataset | None,
    scores: tuple[float | None, float | None] | None,
    settings: dict[str, Any],
    **more: Any,
) -> dict[str, Any]:
    """The content of ``embft.json`` for a result that sits on a frozen base model.

    Args:
        result_kind: ``"adapter"`` or ``"nudge"``.
        embed_model: The base model; its description is under ``base``.
        base_fingerprint: Of the base model.
        train: Training set.
        val: Validation set.
        scores: Selection metric before and after; None for a state that was not validated.
        settings: Arguments of the engine.
        **more: Further entries.
    """
    from llama_index_embft.embeddings.describe import describe_base

    base = describe_base(embed_model)
    record = result_record(
        result_kind,
        base=base,
        base_fingerprint=base_fingerprint,
        prompts={kind: base[f"{kind}_prompt"] for kind in ("query", "document") if f"{kind}_prompt" in base},
        max_length=base.get("max_length"),
        train=train,
        val=val,
        metrics={} if scores is None else {"metric": SELECTION_METRIC, "base": scores[0], "best": scores[1]},
        settings=settings,
    )
    return {**record, **more}


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Write ``embft.json`` into the folder of a result, without the secrets of addresses in it."""
    text = json.dumps(without_secrets(record), indent=2) + "\n"
    (folder / RECORD_FILE).write_text(text, encoding="utf-8")
