"""The arguments of sentence-transformers' trainers: device, precision and schedule of a run."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainingArguments

from llama_index_embft._core.checks import check_choice, first_line
from llama_index_embft.errors import ConfigError
from llama_index_embft.finetune.running.processes import world_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from llama_index_embft.finetune.running.settings import HardwareSettings

_WARMUP = 0.1  # share of the steps in which the learning rate rises


@dataclass
class DeviceArguments(TrainingArguments):
    """A trainer's arguments, on the device that the model lies on.

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


def run_options(
    hardware: HardwareSettings,
    *,
    device: torch.device,
    folder: Path,
    name: str,
    epochs: int,
    steps: int,
    learning_rate: float,
    weight_decay: float,
    seed: int,
    save_steps: int | None,
    report_to: str | Sequence[str] = "none",
    progress: bool = True,
) -> dict[str, Any]:
    """What the trainers' arguments have in common: a linear schedule with 10 % warm-up, device, precision, logs.

    Make the arguments within `legacy_precision_kept`.

    Args:
        hardware: Speed and memory.
        device: Of the model.
        folder: Where trackers write.
        name: Of the run, for them.
        epochs: Passes over the rows.
        steps: Optimizer steps of the run.
        learning_rate: Peak of the schedule.
        weight_decay: Of AdamW.
        seed: Of shuffling and dropout.
        save_steps: Steps between two checkpoints; None: none are written.
        report_to: Trackers.
        progress: Show a bar.
    """
    on_cpu = device.type == "cpu"
    options: dict[str, Any] = {}
    if hardware.gradient_checkpointing:  # named only when used: its name is about to change in transformers
        options = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}}
    if save_steps is not None:
        options["save_steps"] = save_steps
    if device.type == "cuda":  # a batch goes over while the step before is computed; it lies in pinned memory
        options["accelerator_config"] = {"non_blocking": True}
    return {
        "model_device": str(device),
        "output_dir": str(folder),
        "run_name": name,
        "num_train_epochs": epochs,
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "warmup_steps": max(1, round(steps * _WARMUP)),
        "lr_scheduler_type": "linear",
        "bf16": use_bf16(hardware.bf16, device),
        "torch_compile": hardware.compile,
        "use_cpu": on_cpu,
        "ddp_backend": "gloo" if on_cpu and world_size() > 1 else None,
        "save_strategy": "no" if save_steps is None else "steps",
        "save_total_limit": None,  # our own pruning
        "logging_steps": max(1, min(10, steps // epochs)),
        "logging_nan_inf_filter": False,  # it would show a NaN as 0
        "disable_tqdm": not progress,
        "report_to": report_to if isinstance(report_to, str) else list(report_to),
        "seed": seed,
        **options,
    }


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
def legacy_precision_kept() -> Iterator[None]:
    """With ``torch_compile`` the Trainer's arguments turn TF32 on by torch's new setting; see `tf32`."""
    backends: Any = torch.backends
    before = getattr(backends, "fp32_precision", None)
    try:
        yield
    finally:
        if before is not None:
            backends.fp32_precision = before


def check_trackers(report_to: str | Sequence[str]) -> None:
    """Refuse trackers that transformers does not know, or whose packages are missing, before the work.

    Raises:
        ConfigError: There is one.
    """
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    for name in [report_to] if isinstance(report_to, str) else report_to:
        if name in ("none", "all"):
            continue
        check_choice("report_to", name, ["none", "all", *INTEGRATION_TO_CALLBACK])
        try:
            INTEGRATION_TO_CALLBACK[name]()  # as the Trainer will
        except (ImportError, RuntimeError) as err:
            raise ConfigError(f"`report_to` is {name!r}, which cannot be used: {first_line(err)}.") from err


def check_compiler(device: str) -> None:
    """Refuse `torch.compile` on a CPU without a C++ compiler, which PyTorch looks for only after the first batch.

    Raises:
        ConfigError: There is none.
    """
    name = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "cl" if os.name == "nt" else "g++")
    if device == "cpu" and shutil.which(name) is None:
        raise ConfigError(
            f"compile=True needs a C++ compiler on a CPU, and there is no {name}; install one, or leave compile out."
        )
