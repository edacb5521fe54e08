"""What the training of a reranker may be told.

No torch here: the command line reads these classes for its options.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, Literal, TypeAlias, get_args

from llama_index_embft._core.checks import check_choice, check_number
from llama_index_embft._core.options import option
from llama_index_embft.errors import ConfigError
from llama_index_embft.finetune.running.settings import HardwareSettings, LoraSettings

RerankerLoss: TypeAlias = Literal["list_net", "lambda", "rank_net", "bce", "in_batch"]
RerankerKind: TypeAlias = Literal["auto", "cross-encoder", "late-interaction"]
Method: TypeAlias = Literal["full", "lora"]
LOSSES: Final = get_args(RerankerLoss)

# A layer that is put on knows nothing yet, and the model below it has to learn a new task; token vectors have only to
# be moved.
_LEARNING_RATES: Final = {
    ("full", "cross-encoder"): 5e-5,
    ("full", "late-interaction"): 3e-5,
    ("lora", "cross-encoder"): 2e-4,
    ("lora", "late-interaction"): 2e-4,
}
_LOSS_OF: Final[dict[str, RerankerLoss]] = {"cross-encoder": "list_net", "late-interaction": "in_batch"}


@dataclass(frozen=True, kw_only=True)
class CandidateSettings:
    """What the reranker is given to rank: the hits of the first stage, in training as in use.

    Raises:
        ConfigError: A value is out of range.
    """

    depth: int = option(
        50, "Hits of the first stage that are negatives in training; so many are ranked anew on validation."
    )
    dense_weight: float = option(
        0.5,
        "Share of the embedding model in the first stage, beside BM25; see StackSettings. Without an embedding model "
        "the first stage is BM25 alone.",
    )
    negatives: int = option(
        7, "Negatives of each question, drawn from these hits; hard negatives of the data set come first."
    )
    max_val_queries: int = option(
        200, "Questions of the validation set that are ranked, drawn by the seed: each costs `depth` pairs."
    )

    def __post_init__(self) -> None:
        check_number("candidate_depth", self.depth, at_least=2, whole=True)
        check_number("candidate_dense_weight", self.dense_weight, at_least=0, at_most=1)
        check_number("candidate_negatives", self.negatives, at_least=1, whole=True)
        check_number("candidate_max_val_queries", self.max_val_queries, at_least=1, whole=True)


@dataclass(frozen=True, kw_only=True)
class RerankerOptions:
    """The plain options of `RerankerFinetuneEngine`, with its defaults.

    Raises:
        ConfigError: A value is out of range.
    """

    kind: RerankerKind = option(
        "auto",
        "cross-encoder: reads question and passage together. late-interaction: compares their tokens by the vectors of "
        "an embedding model. auto: late interaction for an embedding model, which knows much of it before training, "
        "and a cross-encoder for all others.",
    )
    batch_size: int = option(8, "Questions a step, each with its positives and negatives.")
    epochs: int = option(2, "Passes over the training set.")
    loss: RerankerLoss | None = option(
        None,
        "list_net: which of a question's passages is right (softmax over the list). lambda: LambdaLoss, by what a swap "
        "is worth in nDCG. rank_net: each pair of passages. bce: each passage by itself, relevant or not; for "
        "cross-encoders. in_batch: softmax over the passages of all questions of a batch; for late interaction. "
        "Default: list_net for a cross-encoder, in_batch for late interaction.",
    )
    method: Method = option("full", "full trains all weights; lora small matrices beside them, added up on save.")
    learning_rate: float | None = option(
        None,
        "Peak of a linear schedule with 10 % warm-up. Default: 5e-5 for all weights of a cross-encoder, 3e-5 for those "
        "of late interaction, 2e-4 for LoRA.",
    )
    weight_decay: float = option(0.01, "Of AdamW.")
    max_length: int | None = option(
        None,
        "Tokens of question and passage together that are read, or of each text with late interaction. Default: as "
        "many as the model reads, at most 512.",
    )
    evaluation_steps: int | None = option(
        None, "Optimizer steps between two evaluations on the validation set. Default: once an epoch."
    )
    patience: int = option(3, "Evaluations without a better score before training stops.")
    trust_remote_code: bool = option(False, "Run code that comes with the model. Only for models you have read.")
    device: str | None = option(None, "Torch device: cpu, cuda, cuda:1, mps. Default: a GPU if there is one.")
    save_checkpoints: bool = option(False, "Save checkpoints on the way, below checkpoints/ in the current folder.")
    resume_from_checkpoint: bool = option(False, "Go on from the newest checkpoint, if there is one.")
    checkpoint_save_steps: int = option(500, "Optimizer steps between two checkpoints.")
    checkpoint_save_total_limit: int = option(2, "Checkpoints to keep; 0 keeps all.")
    seed: int = option(0, "Of negatives, shuffling, dropout, and the first weights of a new scoring layer.")

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, get_args(RerankerKind))
        if self.loss is not None:
            check_choice("loss", self.loss, LOSSES)
        check_choice("method", self.method, get_args(Method))
        for name in ("batch_size", "epochs", "checkpoint_save_steps", "evaluation_steps", "patience", "max_length"):
            if getattr(self, name) is not None or name not in ("evaluation_steps", "max_length"):
                check_number(name, getattr(self, name), at_least=1, whole=True)
        if self.learning_rate is not None:
            check_number("learning_rate", self.learning_rate, above=0, below=math.inf)
        check_number("weight_decay", self.weight_decay, at_least=0, below=math.inf)
        check_number("checkpoint_save_total_limit", self.checkpoint_save_total_limit, at_least=0, whole=True)
        check_number("seed", self.seed, at_least=0, below=2**32, whole=True)


@dataclass(frozen=True, kw_only=True)
class RerankerSettings(RerankerOptions):
    """All settings of `RerankerFinetuneEngine` as one.

    Raises:
        ConfigError: A value is out of range.
    """

    candidates: CandidateSettings = field(default_factory=CandidateSettings)
    lora: LoraSettings = field(default_factory=LoraSettings)
    hardware: HardwareSettings = field(default_factory=HardwareSettings)

    def decided(self, kind: Literal["cross-encoder", "late-interaction"]) -> RerankerSettings:
        """The settings of a model of a kind, with the loss and the learning rate that go with it where none is given.

        Raises:
            ConfigError: The loss is for the other kind.
        """
        loss = self.loss or _LOSS_OF[kind]
        if loss == ("bce" if kind == "late-interaction" else "in_batch"):
            usable = [one for one in LOSSES if one not in ("bce", "in_batch")] + [_LOSS_OF[kind]]
            raise ConfigError(
                f"`loss` is {loss!r}, which is not for a reranker of the kind {kind!r}; use one of "
                f"{', '.join(dict.fromkeys(usable))}, or leave it out."
            )
        rate = self.learning_rate or _LEARNING_RATES[self.method, kind]
        return replace(self, kind=kind, loss=loss, learning_rate=rate)

    @property
    def peak_rate(self) -> float:
        """The peak of the schedule; of a kind that is not decided, a cross-encoder's."""
        kind = "late-interaction" if self.kind == "late-interaction" else "cross-encoder"
        return self.learning_rate or _LEARNING_RATES[self.method, kind]

    def as_record(self) -> dict[str, Any]:
        """The settings as JSON types in one row, for ``embft.json``."""
        found: dict[str, Any] = {}
        for part, prefix in ((self, ""), (self.candidates, "candidate_"), (self.hardware, "")):
            for one in fields(part):
                if one.name not in ("candidates", "lora", "hardware", "device", *_NOT_THE_COURSE):
                    found[prefix + one.name] = getattr(part, one.name)
        if self.method == "lora":
            found |= {f"lora_{one.name}": getattr(self.lora, one.name) for one in fields(self.lora)}
            found["lora_targets"] = None if self.lora.targets is None else list(self.lora.targets)
        return found


# What changes time and memory, and not the weights.
_NOT_THE_COURSE: Final = (
    "save_checkpoints", "resume_from_checkpoint", "checkpoint_save_steps", "checkpoint_save_total_limit", "compile",
    "trust_remote_code",
)  # fmt: skip

# Argument of the engine -> its settings class, and what stands before its fields where all options are in one row.
SETTINGS: Final[dict[str, tuple[type, str]]] = {
    "candidates": (CandidateSettings, "candidate_"),
    "lora": (LoraSettings, "lora_"),
    "hardware": (HardwareSettings, ""),
}
