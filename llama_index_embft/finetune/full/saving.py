"""What a training run leaves behind: the record of the run, and the model's folder."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from llama_index_embft._core.environment import peak_memory_bytes
from llama_index_embft._core.files import atomic_write_text, write_folder_atomically
from llama_index_embft.finetune.engine import SELECTION_METRIC, FinetuneResult
from llama_index_embft.finetune.model_card import model_card
from llama_index_embft.finetune.record import write_record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from sentence_transformers import SentenceTransformer

    from llama_index_embft.finetune.full.merging.step import Merged
    from llama_index_embft.finetune.full.training.run import Trained

_GUARD_METRIC: Final = f"guard_{SELECTION_METRIC}"


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
    best_step = best.step if best.score is not None else trained.steps
    guarded = [entry for entry in best.history if _GUARD_METRIC in entry]
    at_best = next((entry for entry in guarded if entry["step"] == best_step), guarded[-1] if guarded else {})
    return FinetuneResult(
        output_path=output_path,
        method=method,
        metric=SELECTION_METRIC,
        base_score=best.base_score,
        best_score=chosen.get(SELECTION_METRIC, best.score),
        best_step=best_step,
        steps=trained.steps,
        history=best.history or trained.losses,
        seconds=seconds,
        peak_memory_bytes=peak_memory_bytes(),
        losses=trained.losses,
        peak_gpu_memory_bytes=torch.cuda.max_memory_allocated(model.device) if model.device.type == "cuda" else None,
        mini_batch_size=trained.mini_batch_size,
        merge_weight=merged.weight,
        merge_curve=merged.curve,
        guard_base_score=guarded[0][_GUARD_METRIC] if guarded else None,
        guard_score=chosen.get(_GUARD_METRIC, at_best.get(_GUARD_METRIC)),
    )


def recorded_metrics(result: FinetuneResult) -> dict[str, Any]:
    """What ``embft.json`` says of the scores."""
    guarded = {"guard_base": result.guard_base_score, "guard_best": result.guard_score}
    return {
        "metric": SELECTION_METRIC,
        "base": result.base_score,
        "best": result.best_score,
        **({} if result.guard_base_score is None else guarded),
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
    with write_folder_atomically(folder) as target, _prompts_of(model, prompts):
        model.save_pretrained(str(target), create_model_card=False)
        write_record(target, record)
        atomic_write_text(target / "README.md", model_card(record))


@contextmanager
def _prompts_of(model: SentenceTransformer, prompts: Mapping[str, str]) -> Iterator[None]:
    """Give the model the prompts that it was trained with, for the time of saving.

    LlamaIndex's class has put names of its own in their place. A default that names none of the two is none:
    sentence-transformers would refuse to load the folder. `encode_query` and `encode_document` find theirs by name.
    """
    kept, model.prompts = model.prompts, dict(prompts)
    default, model.default_prompt_name = model.default_prompt_name, None
    if default in prompts:
        model.default_prompt_name = default
    try:
        yield
    finally:
        model.prompts, model.default_prompt_name = kept, default
