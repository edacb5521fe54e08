"""One run of sentence-transformers' trainer: texts and the teacher's vectors in, the best weights out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments

from llama_index_embft._core.temporary import scratch_folder
from llama_index_embft.embeddings.sentence_transformer import has_router
from llama_index_embft.finetune.distill.result import COSINE
from llama_index_embft.finetune.running.arguments import DeviceArguments, legacy_precision_kept, run_options
from llama_index_embft.finetune.running.callbacks import BestStateCallback
from llama_index_embft.finetune.running.dropout import dropout_off
from llama_index_embft.finetune.running.run import run_trainer
from llama_index_embft.finetune.running.trainer import ResumableTrainer, equal_parts
from llama_index_embft.finetune.validation import BestState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from llama_index_embft.finetune.distill.settings import DistillationSettings
    from llama_index_embft.finetune.distill.student import Student
    from llama_index_embft.finetune.distill.targets import Targets
    from llama_index_embft.finetune.running.run import RunEnvironment

_ON_DEVICE: Final = 1 << 30  # bytes of the teacher's vectors that may lie beside the model


@dataclass
class DistillationArguments(DeviceArguments, SentenceTransformerTrainingArguments):
    """The trainer's arguments, on the device that the model lies on."""


class DistillationTrainer(ResumableTrainer, SentenceTransformerTrainer):
    """The trainer of one run."""


class TeacherDistance(torch.nn.Module):
    """Squared distance of the student's vector to the teacher's, both of length 1: twice what the cosine lacks to 1.

    The loss of LEAF (arXiv 2509.12539). A label is the row of the teacher's vector: a batch carries no vectors.

    Args:
        model: The student.
        vectors: The teacher's, of length 1, shape ``(n, dim)``.
    """

    def __init__(self, model: Any, vectors: NDArray[Any]) -> None:
        super().__init__()
        self.model = model
        self._vectors = torch.from_numpy(vectors)
        if vectors.nbytes <= _ON_DEVICE:
            self._vectors = self._vectors.to(model.device)

    def forward(self, features: Sequence[dict[str, Any]], labels: torch.Tensor) -> torch.Tensor:
        """Mean over the rows of a batch."""
        found = self.model(features[0])["sentence_embedding"].float()
        wanted = self._vectors[labels.to(self._vectors.device)].to(found.device)
        return (torch.nn.functional.normalize(found) - wanted).pow(2).sum(dim=1).mean()


@dataclass
class TrainedStudent:
    """What `train_student` did; the best weights are in the model.

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


def train_student(
    student: Student,
    targets: Targets,
    settings: DistillationSettings,
    environment: RunEnvironment,
    *,
    evaluate: Callable[[], dict[str, float]],
) -> TrainedStudent:
    """Train, and leave the best weights in the model.

    Args:
        student: Its model is trained in place.
        targets: Texts with the teacher's vectors.
        settings: The numbers.
        environment: Checkpoints, bars.
        evaluate: Figures of the model as it stands.

    Raises:
        TrainingError: The loss is not a number, memory does not suffice, or Ctrl-C was pressed.
        OutputError: A checkpoint cannot be written.
    """
    model = student.model
    best = BestState(model, metric=COSINE)
    hardware = settings.hardware
    fused = hardware.attention_dropout is False or (hardware.attention_dropout is None and model.device.type == "cpu")
    restore_dropout = dropout_off(model, attention=fused, hidden=hardware.hidden_dropout is False)
    try:
        with scratch_folder() as scratch:
            trainer = _trainer(student, targets, settings, environment, best, scratch)
            watcher = BestStateCallback(best, evaluate, every=settings.evaluation_steps, patience=settings.patience)
            trainer.add_callback(watcher)
            run_trainer(trainer, watcher, environment)
    finally:
        restore_dropout()
    best.restore()
    model.eval()
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    return TrainedStudent(best, int(trainer.state.global_step), logged, watcher.evaluate_seconds)


def _trainer(
    student: Student,
    targets: Targets,
    settings: DistillationSettings,
    environment: RunEnvironment,
    best: BestState,
    folder: Path,
) -> DistillationTrainer:
    import numpy as np
    from datasets import Dataset, DatasetDict

    rows, vectors, first = {}, [], 0
    for kind, some in targets.training():
        texts = [targets.texts[kind][row] for row in some]
        rows[kind] = Dataset.from_dict({"text": texts, "label": list(range(first, first + len(some)))})
        vectors.append(targets.vectors[kind][some])
        first += len(some)
    batch = min(settings.batch_size, first)
    parts = equal_parts(batch, settings.hardware.mini_batch_size)
    # Each part holds texts of one kind, whose last one may be smaller.
    in_epoch = sum(-(-len(data) // (batch // parts)) for data in rows.values())
    routes: dict[str, Any] = {}
    if has_router(student.model):
        routes = {"router_mapping": {kind: {"text": kind} for kind in rows}}
    with legacy_precision_kept():
        arguments = DistillationArguments(
            per_device_train_batch_size=batch // parts,
            gradient_accumulation_steps=parts,
            prompts={str(kind): {"text": student.prompts[kind]} for kind in rows},
            **routes,
            **run_options(
                settings.hardware,
                device=student.model.device,
                folder=folder,
                name=environment.name,
                epochs=settings.epochs,
                steps=-(-in_epoch // parts) * settings.epochs,
                learning_rate=settings.peak_rate,
                weight_decay=settings.weight_decay,
                seed=settings.seed,
                save_steps=settings.checkpoint_save_steps if environment.save_checkpoints else None,
                progress=environment.progress,
            ),
        )
    return DistillationTrainer(
        model=student.model,
        args=arguments,
        train_dataset=DatasetDict(rows),
        loss=TeacherDistance(student.model, np.concatenate(vectors)),
        checkpoints=environment.checkpoints,
        best=best,
        trainable_only=False,
        mini_batch_size=settings.hardware.mini_batch_size,
    )
