"""The arguments of sentence-transformers' trainer for a run of the full engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sentence_transformers import SentenceTransformerTrainingArguments

from llama_index_embft.finetune.running.arguments import DeviceArguments, legacy_precision_kept, run_options

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from llama_index_embft.finetune.full.run_settings import TrainSettings


@dataclass
class EngineArguments(DeviceArguments, SentenceTransformerTrainingArguments):
    """The trainer's arguments, on the device that the model lies on."""


def training_arguments(
    settings: TrainSettings,
    *,
    device: torch.device,
    folder: Path,
    name: str,
    steps: int,
    rows_per_process: int,
    prompts: dict[str, str],
    router_mapping: dict[str, str] | None = None,
    save_checkpoints: bool,
    progress: bool,
) -> SentenceTransformerTrainingArguments:
    """The Trainer's arguments for a run.

    Args:
        settings: The numbers.
        device: Of the model.
        folder: Where trackers write.
        name: Of the run, for them.
        steps: Optimizer steps of the run.
        rows_per_process: Of a batch.
        prompts: Column -> what is put before its texts.
        router_mapping: Column -> branch of a model with several; None: it has one.
        save_checkpoints: Whether they are written every few steps.
        progress: Show a bar.
    """
    options: dict[str, Any] = run_options(
        settings.hardware,
        device=device,
        folder=folder,
        name=name,
        epochs=settings.epochs,
        steps=steps,
        learning_rate=settings.learning_rate or settings.default_learning_rate(None),
        weight_decay=settings.loss.weight_decay,
        seed=settings.seed,
        save_steps=settings.checkpoint_save_steps if save_checkpoints else None,
        report_to=settings.validation.report_to,
        progress=progress,
    )
    if router_mapping:
        options["router_mapping"] = router_mapping
    sampler = settings.loss.batch_sampler
    with legacy_precision_kept():
        return EngineArguments(
            per_device_train_batch_size=rows_per_process,
            batch_sampler="batch_sampler" if sampler == "no_false_negatives" else sampler,
            prompts=prompts if any(prompts.values()) else None,
            **options,
        )
