"""One run of sentence-transformers' trainer for cross-encoders: rows in, the best weights out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments, losses
from torch import nn

from llama_index_embft._core.temporary import scratch_folder
from llama_index_embft.errors import ConfigError
from llama_index_embft.finetune.reranker.late_interaction import InBatchLoss, LateInteractionModel
from llama_index_embft.finetune.reranker.rows import columns
from llama_index_embft.finetune.running.arguments import DeviceArguments, legacy_precision_kept, run_options
from llama_index_embft.finetune.running.callbacks import BestStateCallback
from llama_index_embft.finetune.running.dropout import dropout_off
from llama_index_embft.finetune.running.run import run_trainer
from llama_index_embft.finetune.running.trainer import ResumableTrainer, equal_parts
from llama_index_embft.finetune.validation import BestState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from sentence_transformers import CrossEncoder

    from llama_index_embft.finetune.reranker.rows import RerankerRow
    from llama_index_embft.finetune.reranker.settings import RerankerLoss, RerankerSettings
    from llama_index_embft.finetune.running.run import RunEnvironment


@dataclass
class RerankerArguments(DeviceArguments, CrossEncoderTrainingArguments):
    """The trainer's arguments, on the device that the model lies on."""


class RerankerTrainer(ResumableTrainer, CrossEncoderTrainer):
    """The trainer of one run."""


@dataclass
class TrainedReranker:
    """What `train_reranker` did; the best weights are in the model.

    Attributes:
        best: Evaluations, and the weights with the best score.
        steps: Optimizer steps.
        losses: Records of the trainer.
        evaluate_seconds: Wall-clock seconds of the evaluations.
    """

    best: BestState
    steps: int
    losses: list[dict[str, float]]
    evaluate_seconds: float


def make_loss(
    model: CrossEncoder,
    loss: RerankerLoss | Any,
    forbidden: Mapping[str, frozenset[str]] | None = None,
    mini_batch_size: int | None = None,
) -> Any:
    """A loss by its name here, or one that a function makes of the model.

    Args:
        model: What is trained.
        loss: The name or the function.
        forbidden: Question -> passages that are not to be its negatives, for a loss that looks beyond its own list.
        mini_batch_size: Questions at a time, for a loss that must see the batch as a whole.

    Raises:
        ConfigError: It is neither.
    """
    if callable(loss):
        made = loss(model)
        if not isinstance(made, nn.Module):
            raise ConfigError(
                f"`loss` makes a {type(made).__name__} of the model; it must make a loss of sentence-transformers, as "
                "the class LambdaLoss does."
            )
        return made
    # Pairs that are scored at a time: on a CPU few, so that short ones are not padded to the longest of all.
    options: dict[str, Any] = {"mini_batch_size": 0 if model.device.type == "cuda" else 16}
    if loss == "list_net":
        return losses.ListNetLoss(model, **options)
    if loss == "lambda":
        return losses.LambdaLoss(model, **options)
    if loss == "rank_net":
        return losses.RankNetLoss(model, **options)
    if loss == "bce":
        return losses.BinaryCrossEntropyLoss(model)
    if loss == "in_batch":
        assert isinstance(model, LateInteractionModel)  # see `RerankerSettings.decided`
        return InBatchLoss(model, forbidden, mini_batch_size)
    raise ConfigError(f"`loss` is {loss!r}; name one, or give a function that makes it of the model.")


def train_reranker(
    model: CrossEncoder,
    rows: Sequence[RerankerRow],
    settings: RerankerSettings,
    environment: RunEnvironment,
    *,
    loss: Any,
    evaluate: Callable[[], dict[str, float]] | None,
    before: dict[str, float] | None,
) -> TrainedReranker:
    """Train, and leave the best weights in the model.

    Args:
        model: Trained in place; only parameters that require gradients change.
        rows: Questions with passages.
        settings: The numbers.
        environment: Checkpoints, bars.
        loss: See `make_loss`.
        evaluate: Figures of the model as it stands; None: the last weights are the best.
        before: Its figures before training, where they are known; None: they are measured.

    Raises:
        TrainingError: The loss is not a number, memory does not suffice, or Ctrl-C was pressed.
        OutputError: A checkpoint cannot be written.
    """
    best = BestState(model, trainable_only=settings.method == "lora")
    hardware = settings.hardware
    fused = hardware.attention_dropout is False or (hardware.attention_dropout is None and model.device.type == "cpu")
    restore_dropout = dropout_off(model, attention=fused, hidden=hardware.hidden_dropout is False)
    try:
        with scratch_folder() as scratch:
            trainer = _trainer(model, rows, settings, environment, loss, best, scratch)
            watcher = BestStateCallback(
                best,
                evaluate,
                every=settings.evaluation_steps,
                patience=settings.patience,
                save_at_end=environment.save_at_end,
            )
            trainer.add_callback(watcher)
            run_trainer(trainer, watcher, environment, before=before)
    finally:
        restore_dropout()
    best.restore()
    model.eval()
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    return TrainedReranker(best, int(trainer.state.global_step), logged, watcher.evaluate_seconds)


def _trainer(
    model: CrossEncoder,
    rows: Sequence[RerankerRow],
    settings: RerankerSettings,
    environment: RunEnvironment,
    loss: Any,
    best: BestState,
    folder: Path,
) -> RerankerTrainer:
    from datasets import Dataset

    data = Dataset.from_dict(columns(rows, loss))
    a_row = len(data) / len(rows)  # a loss on single passages has as many rows for a question as it has passages
    batch = max(1, min(round(settings.batch_size * a_row), len(data)))
    at_once = settings.hardware.mini_batch_size
    parts = 1 if loss == "in_batch" else equal_parts(batch, max(1, round((at_once or settings.batch_size) * a_row)))
    steps = -(-len(data) // batch) * settings.epochs
    with legacy_precision_kept():
        arguments = RerankerArguments(
            per_device_train_batch_size=batch // parts,
            gradient_accumulation_steps=parts,
            **run_options(
                settings.hardware,
                device=model.device,
                folder=folder,
                name=environment.name,
                epochs=settings.epochs,
                steps=steps,
                learning_rate=settings.peak_rate,
                weight_decay=settings.weight_decay,
                seed=settings.seed,
                save_steps=settings.checkpoint_save_steps if environment.save_checkpoints else None,
                progress=environment.progress,
            ),
        )
    return RerankerTrainer(
        model=model,
        args=arguments,
        train_dataset=data,
        loss=make_loss(model, loss, _no_negatives(rows), at_once),
        checkpoints=environment.checkpoints,
        best=best,
        trainable_only=settings.method == "lora",
        mini_batch_size=settings.hardware.mini_batch_size,
    )


def _no_negatives(rows: Sequence[RerankerRow]) -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for row in rows:
        found[row.query] = found.get(row.query, frozenset()) | row.no_negatives
    return found
