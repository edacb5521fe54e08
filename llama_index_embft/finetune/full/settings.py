"""The numbers of a training run, checked once and in one place."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

from llama_index_embft.errors import ConfigError
from llama_index_embft.finetune.full.checkpoints import digest

METHODS: Final = ("full", "lora")
DISTILL: Final = ("kl", "margin")
SAMPLERS: Final = ("no_false_negatives", "no_duplicates", "no_duplicates_hashed", "batch_sampler")
# LoRA starts from zero and moves few weights, so it takes steps some four times as long (peft's and
# sentence-transformers' examples use 1e-4 to 5e-4).
LEARNING_RATES: Final = {"full": 1e-4, "lora": 2e-4}
# Half of it above the width of small models: wide ones move more by each step. Measured with MiniLM (384) only.
_SMALL: Final = 384

Method = Literal["full", "lora"]
Distill = Literal["kl", "margin"]


@dataclass(frozen=True)
class LoraSettings:
    """Low-rank matrices beside the frozen weights; added up on save.

    Attributes:
        rank: Inner width of the matrices. sentence-transformers' measurements with 64 lost 0.002 nDCG against full
            training; 16 is enough for a few hundred pairs.
        alpha: The update is scaled by alpha / rank.
        dropout: Share of inputs of the matrices that are dropped in training.
        targets: Names, or ends of names, of the linear layers to adapt; None: all of them, which is what the QLoRA
            paper found to matter more than the rank.
    """

    rank: int = 64
    alpha: float = 128.0
    dropout: float = 0.1
    targets: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        _require_positive(lora_rank=self.rank, lora_alpha=self.alpha)
        if not 0.0 <= self.dropout < 1.0:
            raise ConfigError(f"The dropout of LoRA is {self.dropout}; it must be at least 0 and below 1.")
        if isinstance(self.targets, str):
            object.__setattr__(self, "targets", (self.targets,))


@dataclass(frozen=True)
class TrainSettings:
    """See the arguments of `SentenceTransformersFinetuneEngine` of the same names."""

    method: Method = "full"
    batch_size: int = 64
    epochs: int = 2
    learning_rate: float | None = None
    temperature: float = 0.05
    weight_decay: float = 0.01
    warmup: float = 0.1
    patience: int = 3
    evaluation_steps: int | None = None
    mini_batch_size: int | None = None
    matryoshka_dims: tuple[int, ...] | None = None
    distill: Distill = "kl"
    distill_weight: float = 0.5
    teacher_temperature: float | None = None
    guide_margin: float = 0.05
    near_duplicates: float | None = 0.8
    batch_sampler: str = "no_false_negatives"
    use_all_docs: bool = True
    max_seq_length: int | None = None
    bf16: bool | None = None
    attention_dropout: bool | None = None
    hidden_dropout: bool | None = None
    gradient_checkpointing: bool = False
    compile: bool = False
    checkpoint_save_steps: int = 500
    seed: int = 42
    lora: LoraSettings = field(default_factory=LoraSettings)

    def __post_init__(self) -> None:
        for name, allowed in (("method", METHODS), ("distill", DISTILL), ("batch_sampler", SAMPLERS)):
            if getattr(self, name) not in allowed:
                choices = ", ".join(map(repr, allowed))
                raise ConfigError(f"{name} is {getattr(self, name)!r}; it must be one of {choices}.")
        if self.learning_rate is None:
            object.__setattr__(self, "learning_rate", LEARNING_RATES[self.method])
        _require_positive(
            batch_size=self.batch_size,
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            temperature=self.temperature,
            patience=self.patience,
            checkpoint_save_steps=self.checkpoint_save_steps,
            evaluation_steps=self.evaluation_steps,
            mini_batch_size=self.mini_batch_size,
            teacher_temperature=self.teacher_temperature,
            max_seq_length=self.max_seq_length,
        )
        for name in ("distill_weight", "warmup", "guide_margin"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be between 0 and 1.")
        if not 0.0 <= self.weight_decay < math.inf:
            raise ConfigError(f"weight_decay is {self.weight_decay}; it must be 0 or more.")
        if not 0 <= self.seed < 2**32:  # numpy takes no other
            raise ConfigError(f"seed is {self.seed}; it must be at least 0 and below 2**32.")
        if self.matryoshka_dims is not None:
            object.__setattr__(self, "matryoshka_dims", tuple(self.matryoshka_dims))
            if not self.matryoshka_dims:
                raise ConfigError("matryoshka_dims is empty; name the dimensions, or leave it out.")
            _require_positive(**{f"matryoshka_dims[{n}]": dim for n, dim in enumerate(self.matryoshka_dims)})

    @staticmethod
    def default_learning_rate(method: Method, width: int | None) -> float:
        """The peak of the schedule where none is given.

        Args:
            method: Full or LoRA training.
            width: Dimension of the model's embeddings.
        """
        halved = method == "full" and width is not None and width > _SMALL
        return LEARNING_RATES[method] / 2 if halved else LEARNING_RATES[method]

    def as_record(self) -> dict[str, Any]:
        """The settings as JSON types, for ``embft.json`` and for the check of a resumed run."""
        record = asdict(self)
        if self.method != "lora":
            del record["lora"]
        return record

    def course(self) -> dict[str, Any]:
        """What of the settings decides the course of a run, as JSON types."""
        record = self.as_record()
        for name in ("checkpoint_save_steps", "mini_batch_size", "compile"):
            del record[name]
        record = {name: list(value) if isinstance(value, tuple) else value for name, value in record.items()}
        if "lora" in record:
            record["lora"] = digest(record["lora"])
        return record


def _require_positive(**values: float | None) -> None:
    for name, value in values.items():
        if value is not None and not 0 < value < math.inf:
            raise ConfigError(f"{name} is {value}; it must be above 0{' and finite' if value == math.inf else ''}.")
