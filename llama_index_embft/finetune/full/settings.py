"""What a training of all weights or LoRA may be told: the engine's plain options, and settings objects for the rest.

No torch here: the command line reads these classes for its options.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence  # noqa: TC003 (the command line reads the types of the fields)
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, get_args

from llama_index_embft._core.checks import check_choice, check_number
from llama_index_embft._core.options import option
from llama_index_embft.errors import ConfigError
from llama_index_embft.finetune.options import grouped
from llama_index_embft.finetune.running.settings import HardwareSettings, LoraSettings, TextSettings, check_if_given

Method: TypeAlias = Literal["full", "lora"]
Distill: TypeAlias = Literal["kl", "margin"]
Sampler: TypeAlias = Literal["no_false_negatives", "no_duplicates", "no_duplicates_hashed", "batch_sampler"]


@dataclass(frozen=True, kw_only=True)
class FullOptions:
    """The plain options of `SentenceTransformersFinetuneEngine`, with its defaults.

    Raises:
        ConfigError: A value is out of range.
    """

    batch_size: int = option(
        64,
        "Rows per step over all processes; a question meets the passages of the whole batch.",
    )
    epochs: int = option(2, "Passes over the training set; with mining_rounds, per round.")
    evaluation_steps: int | None = option(
        None, "Optimizer steps between two evaluations on the validation set. Default: once an epoch."
    )
    use_all_docs: bool = option(True, "Train on every relevant document of a question, not only on the first.")
    trust_remote_code: bool = option(
        False, "Run code that comes with the model, now and when the result is loaded. Only for models you have read."
    )
    device: str | None = option(None, "Torch device: cpu, cuda, cuda:1, mps. Default: a GPU if there is one.")
    save_checkpoints: bool = option(
        False, "Save checkpoints during training, in checkpoints/ below the current folder."
    )
    resume_from_checkpoint: bool = option(False, "Resume from the newest checkpoint, if there is one.")
    checkpoint_save_steps: int = option(500, "Optimizer steps between two checkpoints.")
    checkpoint_save_total_limit: int = option(
        2, "Checkpoints to keep: 2, because each holds the best weights as well. 0 keeps all."
    )
    method: Method = option(
        "full", "full trains all weights; lora trains small matrices beside them and merges them on save."
    )
    learning_rate: float | None = option(
        None,
        "Peak of a linear schedule with 10 % warm-up. Default: 1e-4 for full training, half of it for models wider "
        "than 384, and 2e-4 for LoRA.",
    )
    seed: int = option(0, "Random seed for shuffling, dropout, LoRA's initial values and val_split.")

    def __post_init__(self) -> None:
        check_choice("method", self.method, get_args(Method))
        for name in ("batch_size", "epochs", "checkpoint_save_steps"):
            check_number(name, getattr(self, name), at_least=1, whole=True)
        check_if_given("evaluation_steps", self.evaluation_steps, at_least=1, whole=True)
        check_if_given("learning_rate", self.learning_rate, above=0, below=math.inf)
        check_number("checkpoint_save_total_limit", self.checkpoint_save_total_limit, at_least=0, whole=True)
        check_number("seed", self.seed, at_least=0, below=2**32, whole=True)  # numpy takes no other
        if self.device is not None and not str(self.device).strip():
            raise ConfigError("`device` is empty; name a torch device such as 'cpu' or 'cuda:0', or leave it out.")


@dataclass(frozen=True, kw_only=True)
class LossSettings:
    """What is minimised: temperature, teacher, guide, and what stands as a negative in a batch.

    Raises:
        ConfigError: A value is out of range.
    """

    temperature: float = option(
        0.05,
        "Divides the cosine before the softmax; 0.05 is sentence-transformers' scale of 20. Use the one that the base "
        "model was trained with: 0.01 to 0.02 for BGE and E5.",
    )
    weight_decay: float = option(0.01, "Of AdamW.")
    distill: Distill = option(
        "kl",
        "How to learn from teacher scores in the data set. kl: match the teacher's distribution over a question's "
        "passages. margin: match its score differences.",
    )
    distill_weight: float = option(0.5, "Weight of the teacher's loss; the contrastive loss has the rest.")
    teacher_temperature: float | None = option(
        None,
        "Divides the teacher's scores. Default: 1 for logits, the temperature for scores within [-1, 1].",
    )
    guide_model: str | object | None = option(
        None,
        "A SentenceTransformer or its path. In-batch negatives that it finds about as near to the question as the "
        "positive are left out (GISTEmbed).",
    )
    guide_margin: float = option(
        0.05, "Relative margin: in-batch negatives that score above (1 - margin) times the positive are left out."
    )
    matryoshka_dims: Sequence[int] | None = option(
        None,
        "Matryoshka dimensions: also optimise vectors cut to these lengths, so that they can be truncated; the full "
        "width is added.",
    )
    near_duplicates: float | None = option(
        0.8,
        "Word overlap from which two passages count as duplicates when batches are made; none: only identical texts.",
    )
    batch_sampler: Sampler = option(
        "no_false_negatives",
        "no_false_negatives puts no passage into a batch as a negative of a question that it answers; the others are "
        "sentence-transformers'.",
    )

    def __post_init__(self) -> None:
        check_number("temperature", self.temperature, above=0, below=math.inf)
        check_number("weight_decay", self.weight_decay, at_least=0, below=math.inf)
        check_choice("distill", self.distill, get_args(Distill))
        check_number("distill_weight", self.distill_weight, at_least=0, at_most=1)
        check_if_given("teacher_temperature", self.teacher_temperature, above=0, below=math.inf)
        check_number("guide_margin", self.guide_margin, at_least=0, at_most=1)
        check_if_given("near_duplicates", self.near_duplicates, above=0, at_most=1)
        check_choice("batch_sampler", self.batch_sampler, get_args(Sampler))
        if self.matryoshka_dims is not None:
            if not self.matryoshka_dims:
                raise ConfigError("`matryoshka_dims` is empty; name the dimensions, or leave it out.")
            for number, dim in enumerate(self.matryoshka_dims):
                check_number(f"matryoshka_dims[{number}]", dim, at_least=1, whole=True)


@dataclass(frozen=True, kw_only=True)
class ValidationSettings:
    """What is measured on the way, what it decides, and where it is reported.

    Raises:
        ConfigError: A value is out of range.
    """

    val_split: float | None = option(
        None, "Share of the questions to hold out for validation, by document; instead of val_dataset."
    )
    patience: int = option(3, "Evaluations without a better score before training stops.")
    merge: Literal["auto"] | float | None = option(
        None,
        "Interpolate between base (0) and trained weights (1). auto: the weight that is best on validation and "
        "costs at most max_guard_loss on guard_dataset. A number: that weight, or 0 if it breaks the limit.",
    )
    max_guard_loss: float = option(0.005, "Largest loss of nDCG@10 on the guard that merging accepts.")
    evaluators: Sequence[object] = option(
        (), "Evaluators of sentence-transformers, run at each evaluation; their metrics go into the history."
    )
    report_to: str | Sequence[str] = option(
        "none", "Trackers of transformers: tensorboard, wandb, mlflow, …, or several."
    )

    def __post_init__(self) -> None:
        check_if_given("val_split", self.val_split, above=0, below=1)
        check_number("patience", self.patience, at_least=1, whole=True)
        check_number("max_guard_loss", self.max_guard_loss, at_least=0)
        if isinstance(self.merge, str):
            check_choice("merge", self.merge, ["auto"], hint="or a number between 0 and 1, or None")
        else:
            check_if_given("merge", self.merge, at_least=0, at_most=1)


@dataclass(frozen=True, kw_only=True)
class RoundsSettings:
    """Training in rounds, each on hard negatives that the model as it then stands finds (ANCE).

    Raises:
        ConfigError: A value is out of range, or another one is given without rounds.
    """

    rounds: int = option(
        0,
        "Number of rounds; each mines hard negatives with the model as it stands and trains for `epochs`. 0 trains "
        "once, on the data as they are. A round that does not improve on validation is the last, and its weights "
        "are discarded.",
    )
    strategies: str | Sequence[str | object] | None = option(
        None, "Which negatives to mine; see embft mine --help. Default: as mine_hard_negatives."
    )
    negatives: int | None = option(
        None, "Negatives per question; each takes about as long to train on as the positive. Default: 1."
    )
    options: Mapping[str, Any] | None = option(
        None,
        "Further arguments of `mine_hard_negatives`. Questions with too few negatives are filled up with random "
        "documents (`pad`) unless it says otherwise: training needs as many for each.",
    )

    def __post_init__(self) -> None:
        check_number("mining_rounds", self.rounds, at_least=0, whole=True)
        check_if_given("mining_negatives", self.negatives, at_least=1, whole=True)
        if self.rounds == 0:
            for name in ("strategies", "negatives", "options"):
                if getattr(self, name) is not None:
                    raise ConfigError(f"`mining_{name}` is for mining_rounds; give both, or leave it out.")


# Argument of the engine -> its settings class, and what stands before its fields where all options are in one row.
SETTINGS: Final[dict[str, tuple[type, str]]] = {
    "text": (TextSettings, ""),
    "loss_settings": (LossSettings, ""),
    "validation": (ValidationSettings, ""),
    "lora": (LoraSettings, "lora_"),
    "mining": (RoundsSettings, "mining_"),
    "hardware": (HardwareSettings, ""),
}


def engine_arguments(**options: Any) -> dict[str, Any]:
    """Options in one row, as on the command line (``lora_rank=8``), as arguments of the engine (``lora=…``).

    Args:
        **options: By their names there; arguments of the engine itself stay as they are.

    Raises:
        ConfigError: A value is out of range.
    """
    return grouped(options, SETTINGS)
