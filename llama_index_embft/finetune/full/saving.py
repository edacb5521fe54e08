"""What a training run leaves behind: the record of the run, and the model's folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_index_embft._core.environment import peak_memory_bytes
from llama_index_embft._core.files import atomic_write_text, write_folder_atomically
from llama_index_embft.finetune.engine import SELECTION_METRIC, FinetuneResult, write_record
from llama_index_embft.finetune.model_card import model_card

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from sentence_transformers import SentenceTransformer

    from llama_index_embft.finetune.full.merging_step import Merged
    from llama_index_embft.finetune.full.training import Trained


def training_result(
    trained: Trained,
    merged: Merged,
    model: SentenceTransformer,
    *,
    output_path: Path,
    method: str,
    seconds: dict[str, float],
) -> FinetuneResult:
    """The result of a run of the full engine.

    Args:
        trained: What training did.
        merged: What merging chose.
        model: What was trained.
        output_path: Folder of the saved model.
        method: ``"full"`` or ``"lora"``.
        seconds: Wall-clock seconds by phase.
    """
    import torch

    best = trained.best
    chosen: dict[str, float] = next((point for point in merged.curve if point["weight"] == merged.weight), {})
    return FinetuneResult(
        output_path=output_path,
        method=method,
        metric=SELECTION_METRIC,
        base_score=best.base_score,
        best_score=chosen.get(SELECTION_METRIC, best.score),
        best_step=best.step if best.score is not None else trained.steps,
        steps=trained.steps,
        history=best.history or trained.losses,
        seconds=seconds,
        peak_memory_bytes=peak_memory_bytes(),
        losses=trained.losses,
        peak_gpu_memory_bytes=torch.cuda.max_memory_allocated() if model.device.type == "cuda" else None,
        mini_batch_size=trained.mini_batch_size,
        merge_weight=merged.weight,
        merge_curve=merged.curve,
    )


def recorded_metrics(result: FinetuneResult) -> dict[str, Any]:
    """What ``embft.json`` says of the scores."""
    return {
        "metric": SELECTION_METRIC,
        "base": result.base_score,
        "best": result.best_score,
        **_guard_metrics(result),
        "merge_weight": result.merge_weight,
        "merge_curve": result.merge_curve,
    }


def save_model(
    model: SentenceTransformer, folder: str | Path, prompts: Mapping[str, str], record: dict[str, Any]
) -> None:
    """Write a plain SentenceTransformer with ``embft.json`` and a model card beside it, whole or not at all.

    Args:
        model: The model.
        folder: Replaced if it holds an earlier result.
        prompts: ``query`` and ``document``, as trained.
        record: The content of ``embft.json``.

    Raises:
        OutputError: The folder cannot be written.
    """
    with write_folder_atomically(folder) as target:
        # These names are SentenceTransformer's own; LlamaIndex's class has put others in their place.
        kept, model.prompts = model.prompts, dict(prompts)
        model.save_pretrained(str(target), create_model_card=False)
        model.prompts = kept
        write_record(target, record)
        atomic_write_text(target / "README.md", model_card(record))


def _guard_metrics(result: FinetuneResult) -> dict[str, float]:
    name = f"guard_{result.metric}"
    points = [entry for entry in result.history if name in entry]
    if not points:
        return {}
    after = next((point for point in result.merge_curve if point["weight"] == result.merge_weight), None)
    after = after or next((point for point in points if point["step"] == result.best_step), points[-1])
    return {"guard_base": points[0][name], "guard_best": after[name]}
