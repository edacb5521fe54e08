"""What every engine gives: `finetune()`, `get_finetuned_model()`, and a result that says what happened."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from llama_index_embft.errors import TrainingError

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding

SELECTION_METRIC: Final = "ndcg@10"


@dataclass(frozen=True)
class FinetuneResult:
    """What a fine-tuning run did.

    Attributes:
        output_path: Folder of the saved model.
        method: ``"full"``, ``"lora"`` or ``"adapter"``.
        metric: The validation metric that chose the checkpoint.
        base_score: Its value for the model before training, in [0, 1]; None without a validation set.
        best_score: Its value for the model that was saved; never below `base_score`.
        best_step: Optimizer step of the model that was saved; 0 is the model before training.
        steps: Optimizer steps in all.
        history: One record an evaluation: ``step``, ``epoch`` and the validation metrics; and the training loss.
            Metrics of a guard set have ``guard_`` in front. Without evaluations, the same records as `losses`.
        seconds: Wall-clock seconds by phase: ``prepare``, ``train``, ``evaluate``, ``save``.
        peak_memory_bytes: Highest resident memory of the process so far; None where the platform does not tell.
        losses: One record every few steps: ``step``, ``epoch``, ``loss``, ``learning_rate``, ``grad_norm``.
        peak_gpu_memory_bytes: Most GPU memory that torch held in the run; None without a GPU.
        mini_batch_size: Rows computed with gradients at a time at the end of the run; None: the whole batch.
        merge_weight: Share of the tuned weights in the saved ones, in [0, 1]; None where nothing was merged.
        merge_curve: A record for each weight tried: ``weight`` and the metrics, those of the guard with ``guard_``.
        tries: Where several models were tried: a row each, the base model first; ``note`` says which was chosen.
        selection: What chose among them, in words; None where there was nothing to choose.
        guard_base_score: `metric` on the guard set for the model before training; None without a guard set.
        guard_score: The same for the model that was saved.
    """

    output_path: Path
    method: str
    metric: str
    base_score: float | None
    best_score: float | None
    best_step: int
    steps: int
    history: list[dict[str, float]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    peak_memory_bytes: int | None = None
    losses: list[dict[str, float]] = field(default_factory=list)
    peak_gpu_memory_bytes: int | None = None
    mini_batch_size: int | None = None
    merge_weight: float | None = None
    merge_curve: list[dict[str, float]] = field(default_factory=list)
    tries: list[dict[str, Any]] = field(default_factory=list)
    selection: str | None = None
    guard_base_score: float | None = None
    guard_score: float | None = None

    @property
    def improved(self) -> bool | None:
        """Whether validation got better; None without a validation set."""
        if self.base_score is None or self.best_score is None:
            return None
        return self.best_score > self.base_score

    def __str__(self) -> str:
        """One line for people."""
        if self.base_score is None or self.best_score is None:
            return f"{self.method}: {self.steps} steps, no validation set, saved to {self.output_path}"
        unchanged = self.best_score == self.base_score
        kept = " (training did not help on validation: the model is the one it began with)" if unchanged else ""
        chosen_by = self.selection or "validation"
        return (
            f"{self.method}: {chosen_by} {self.metric} {self.base_score:.3f} → {self.best_score:.3f} "
            f"at step {self.best_step} of {self.steps}, saved to {self.output_path}{kept}"
        )


class BaseFinetuneEngine(ABC):
    """An engine: construct it with data and a model, call `finetune`, then `get_finetuned_model`."""

    model_output_path: str

    @abstractmethod
    def finetune(self) -> FinetuneResult:
        """Train, choose the best state on validation, and save it to `model_output_path`."""

    def get_finetuned_model(self) -> BaseEmbedding:
        """Load what `finetune` saved, ready for a `VectorStoreIndex`.

        Raises:
            TrainingError: `finetune` has not been called, and the output folder holds no earlier result.
        """
        self._check_trained()
        return self._load()

    def _check_trained(self) -> None:
        if not (Path(self.model_output_path) / "embft.json").is_file():
            raise TrainingError(f"There is no trained model in {self.model_output_path} yet; call finetune() first.")

    @abstractmethod
    def _load(self) -> BaseEmbedding:
        """Load the saved result."""
