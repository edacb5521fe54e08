"""What a distillation of vectors may be told.

No torch here: the command line reads these classes for its options.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any, Final

from llama_index_embft._core.checks import check_number
from llama_index_embft._core.options import option
from llama_index_embft.finetune.running.settings import HardwareSettings, TextSettings, check_if_given


@dataclass(frozen=True, kw_only=True)
class DistillationOptions:
    """The plain options of `DistillationEngine`, with its defaults.

    Raises:
        ConfigError: A value is out of range.
    """

    student_layers: int | None = option(
        None,
        "Make the student of so many first layers of the teacher, which must be a transformer that runs here; instead "
        "of naming a student. Three of six keep most of a small model.",
    )
    batch_size: int = option(32, "Texts a step. Small ones suffice: no text is compared with another.")
    epochs: int = option(5, "Passes over the texts.")
    learning_rate: float | None = option(None, "Peak of a linear schedule with 10 % warm-up. Default: 2e-4.")
    weight_decay: float = option(0.01, "Of AdamW.")
    val_share: float = option(
        0.1, "Share of the queries, or without queries of the documents, that is held out to choose the weights."
    )
    max_val_texts: int = option(1000, "That are held out at most: all of them are embedded at each evaluation.")
    evaluation_steps: int | None = option(None, "Optimizer steps between two evaluations. Default: once an epoch.")
    patience: int = option(3, "Evaluations without a better score before training stops.")
    trust_remote_code: bool = option(
        False, "Run code that comes with the teacher or the student. Only for models you have read."
    )
    device: str | None = option(None, "Torch device: cpu, cuda, cuda:1, mps. Default: a GPU if there is one.")
    save_checkpoints: bool = option(False, "Save checkpoints on the way, below checkpoints/ in the current folder.")
    resume_from_checkpoint: bool = option(False, "Go on from the newest checkpoint, if there is one.")
    checkpoint_save_steps: int = option(500, "Optimizer steps between two checkpoints.")
    checkpoint_save_total_limit: int = option(2, "Checkpoints to keep; 0 keeps all.")
    seed: int = option(0, "Of the held-out share, shuffling and dropout.")

    def __post_init__(self) -> None:
        for name in ("batch_size", "epochs", "max_val_texts", "patience", "checkpoint_save_steps"):
            check_number(name, getattr(self, name), at_least=1, whole=True)
        for name in ("student_layers", "evaluation_steps"):
            check_if_given(name, getattr(self, name), at_least=1, whole=True)
        check_if_given("learning_rate", self.learning_rate, above=0, below=math.inf)
        check_number("weight_decay", self.weight_decay, at_least=0, below=math.inf)
        check_number("val_share", self.val_share, above=0, below=1)
        check_number("checkpoint_save_total_limit", self.checkpoint_save_total_limit, at_least=0, whole=True)
        check_number("seed", self.seed, at_least=0, below=2**32, whole=True)


@dataclass(frozen=True, kw_only=True)
class DistillationSettings(DistillationOptions):
    """All settings of `DistillationEngine` as one.

    Raises:
        ConfigError: A value is out of range.
    """

    text: TextSettings = field(default_factory=TextSettings)
    hardware: HardwareSettings = field(default_factory=HardwareSettings)

    @property
    def peak_rate(self) -> float:
        """The peak of the schedule."""
        return self.learning_rate or _LEARNING_RATE

    def as_record(self) -> dict[str, Any]:
        """The settings as JSON types in one row, for ``embft.json``."""
        found: dict[str, Any] = {}
        for part in (self, self.text, self.hardware):
            for one in fields(part):
                if one.name not in ("text", "hardware", "device", "query_prompt", "document_prompt", *_NOT_THE_COURSE):
                    found[one.name] = getattr(part, one.name)
        return found | {"learning_rate": self.peak_rate}


# Between that of full training (1e-4) and what a few frozen layers bear: each row has a target of its own, so steps
# are less noisy than those of a contrastive loss.
_LEARNING_RATE: Final = 2e-4
# What changes time and memory, and not the weights.
_NOT_THE_COURSE: Final = (
    "save_checkpoints", "resume_from_checkpoint", "checkpoint_save_steps", "checkpoint_save_total_limit", "compile",
    "trust_remote_code",
)  # fmt: skip

# Argument of the engine -> its settings class, and what stands before its fields where all options are in one row.
SETTINGS: Final[dict[str, tuple[type, str]]] = {"text": (TextSettings, ""), "hardware": (HardwareSettings, "")}
