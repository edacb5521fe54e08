"""The arguments of sentence-transformers' Trainer: device, precision and schedule of a run."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from sentence_transformers import SentenceTransformerTrainingArguments

from llama_index_embft.finetune.full.training.processes import world_size

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from llama_index_embft.finetune.full.run_settings import TrainSettings


@dataclass
class EngineArguments(SentenceTransformerTrainingArguments):
    """The Trainer's arguments, on the device that the model lies on.

    Left to itself the Trainer takes the first GPU, and all of them through `DataParallel` where there are several.

    Attributes:
        model_device: Where the model lies.
    """

    model_device: str = "cpu"

    @cached_property
    def _setup_devices(self) -> torch.device:
        chosen = super()._setup_devices
        if world_size() > 1:
            return chosen
        device = torch.device(self.model_device)
        self._n_gpu = int(device.type == "cuda")
        if device.type == "cuda":
            torch.cuda.set_device(device)  # accelerate means the current GPU when it says "cuda"
        return device


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
    on_cpu = device.type == "cpu"
    options: dict[str, Any] = {}
    if settings.hardware.gradient_checkpointing:  # named only when used: its name is about to change in transformers
        options = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}}
    if router_mapping:
        options["router_mapping"] = router_mapping
    sampler, trackers = settings.loss.batch_sampler, settings.validation.report_to
    with _legacy_precision_kept():
        return EngineArguments(
            model_device=str(device),
            output_dir=str(folder),
            run_name=name,
            num_train_epochs=settings.epochs,
            per_device_train_batch_size=rows_per_process,
            learning_rate=settings.learning_rate or settings.default_learning_rate(None),
            weight_decay=settings.loss.weight_decay,
            warmup_steps=max(1, round(steps * settings.warmup)),
            lr_scheduler_type="linear",
            batch_sampler="batch_sampler" if sampler == "no_false_negatives" else sampler,
            prompts=prompts if any(prompts.values()) else None,
            bf16=use_bf16(settings.hardware.bf16, device),
            torch_compile=settings.hardware.compile,
            use_cpu=on_cpu,
            ddp_backend="gloo" if on_cpu and world_size() > 1 else None,
            save_strategy="steps" if save_checkpoints else "no",
            save_steps=settings.checkpoint_save_steps,
            save_total_limit=None,  # our own pruning
            logging_steps=max(1, min(10, steps // settings.epochs)),
            logging_nan_inf_filter=False,  # it would show a NaN as 0
            disable_tqdm=not progress,
            report_to=trackers if isinstance(trackers, str) else list(trackers),
            seed=settings.seed,
            **options,
        )


def use_bf16(wanted: bool | None, device: torch.device | str) -> bool:
    """Whether to compute in bfloat16 under autocast: as asked, else where the device multiplies it faster.

    That is on GPUs from Ampere on (torch calls it supported on older ones too, by emulation), and on CPUs with AMX.
    Validation after two steps of 64 Lyft pairs differed by 0.0001 from float32.
    """
    device = torch.device(device)
    if wanted is not None:
        return wanted
    if device.type == "cuda":
        return _has_tensor_cores(device) and bool(torch.cuda.is_bf16_supported(including_emulation=False))
    has_amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    return device.type == "cpu" and bool(has_amx())


@contextmanager
def tf32(device: torch.device) -> Iterator[None]:
    """Let float32 products use TF32 where the GPU has it, and put the setting back.

    By the one call that every version of torch has: the Trainer's own argument takes the new one, after which the old
    one, which our search and others use, may raise.
    """
    if device.type != "cuda" or not _has_tensor_cores(device):
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _has_tensor_cores(device: torch.device) -> bool:
    """Whether the GPU multiplies bfloat16 and TF32 in hardware: Ampere and later."""
    if torch.version.hip is not None:
        return True  # AMD's capability numbers are not comparable, and bfloat16 is native on all that torch supports
    return torch.cuda.get_device_capability(device)[0] >= 8


@contextmanager
def _legacy_precision_kept() -> Iterator[None]:
    """With ``torch_compile`` the Trainer's arguments turn TF32 on by torch's new setting; see `tf32`."""
    backends: Any = torch.backends
    before = getattr(backends, "fp32_precision", None)
    try:
        yield
    finally:
        if before is not None:
            backends.fp32_precision = before
