"""All settings of a run of full training or LoRA as one: its record, and what of them decides its course."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final

from llama_index_embft.finetune.full.settings import (
    FullOptions,
    LossSettings,
    RoundsSettings,
    ValidationSettings,
)
from llama_index_embft.finetune.running.settings import HardwareSettings, LoraSettings, TextSettings

# LoRA starts from zero and moves few weights, so it takes steps some four times as long (peft's and
# sentence-transformers' examples use 1e-4 to 5e-4).
_LEARNING_RATES: Final = {"full": 1e-4, "lora": 2e-4}
# Half of it above the width of small models: wide ones move more by each step. Measured with MiniLM (384) only.
_SMALL: Final = 384
# Objects that no JSON holds, and what the record says elsewhere.
_NOT_RECORDED: Final = frozenset(
    {"device", "evaluators", "guide_model", "query_prompt", "document_prompt", "save_checkpoints"}
    | {"resume_from_checkpoint", "checkpoint_save_total_limit", "report_to", "val_split", "merge", "max_guard_loss"}
)
# What changes time and memory, and not the weights.
_NOT_THE_COURSE: Final = ("checkpoint_save_steps", "mini_batch_size", "compile", "trust_remote_code", "mining_rounds")


@dataclass(frozen=True, kw_only=True)
class TrainSettings(FullOptions):
    """All settings of a run as one."""

    text: TextSettings = field(default_factory=TextSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    validation: ValidationSettings = field(default_factory=ValidationSettings)
    lora: LoraSettings = field(default_factory=LoraSettings)
    mining: RoundsSettings = field(default_factory=RoundsSettings)
    hardware: HardwareSettings = field(default_factory=HardwareSettings)

    def default_learning_rate(self, width: int | None) -> float:
        """The peak of the schedule where none is given."""
        rate = _LEARNING_RATES[self.method]
        return rate / 2 if self.method == "full" and width is not None and width > _SMALL else rate

    def as_record(self) -> dict[str, Any]:
        """The settings as JSON types in one row, for ``embft.json``; LoRA's and mining's only where they are used."""
        parts: list[tuple[Any, str]] = [
            (self, ""), (self.text, ""), (self.loss, ""), (self.validation, ""), (self.hardware, "")
        ]  # fmt: skip
        if self.method == "lora":
            parts.append((self.lora, "lora_"))
        if self.mining.rounds:
            parts.append((self.mining, "mining_"))
        found: dict[str, Any] = {}
        for part, prefix in parts:
            for one in fields(part):
                name, value = prefix + one.name, getattr(part, one.name)
                if name not in _NOT_RECORDED and one.name not in _GROUPS:
                    found[name] = _as_json(value)
        return found

    def course(self) -> dict[str, Any]:
        """What of the settings decides the course of a run, as JSON types."""
        return {name: value for name, value in self.as_record().items() if name not in _NOT_THE_COURSE}


_GROUPS: Final = frozenset({"text", "loss", "validation", "lora", "mining", "hardware"})


def _as_json(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {str(name): _as_json(part) for name, part in value.items()}
    return [_as_json(part) for part in value] if isinstance(value, Sequence) else str(value)
