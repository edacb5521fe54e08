"""Distil a model's vectors into a small student, which then answers queries on the index that the model has filled."""

from __future__ import annotations

import logging
import time
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llama_index_embft._core.environment import package_versions, peak_memory_bytes
from llama_index_embft._core.files import atomic_write_text, check_output_folder, write_folder_atomically
from llama_index_embft.dataset.hashes import text_hash
from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
from llama_index_embft.embeddings.describe import describe_base, folders_below
from llama_index_embft.embeddings.distilled import DISTILLED, DistilledEmbedding, teacher_record
from llama_index_embft.embeddings.identity import ModelIdentity, known_identity
from llama_index_embft.embeddings.loading import load_embed_model
from llama_index_embft.embeddings.truncation import warn_if_cut
from llama_index_embft.errors import ConfigError
from llama_index_embft.finetune.distill.result import AGREEMENT, COSINE, DistillationResult
from llama_index_embft.finetune.distill.settings import DistillationSettings
from llama_index_embft.finetune.distill.student import load_student, with_projection
from llama_index_embft.finetune.distill.targets import DistillationTexts, ask_teacher, check_sides
from llama_index_embft.finetune.distill.training import train_student
from llama_index_embft.finetune.distill.validation import TeacherAgreement
from llama_index_embft.finetune.engine import BaseFinetuneEngine
from llama_index_embft.finetune.model_card import model_card
from llama_index_embft.finetune.record import write_record
from llama_index_embft.finetune.running.arguments import check_compiler
from llama_index_embft.finetune.running.checkpoints import Checkpoints, checkpoint_folder
from llama_index_embft.finetune.running.processes import world_size
from llama_index_embft.finetune.running.run import RunEnvironment

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

    from llama_index_embft.embeddings.encoding.cache import EmbeddingCache
    from llama_index_embft.finetune.distill.targets import Targets
    from llama_index_embft.finetune.distill.training import TrainedStudent

logger = logging.getLogger(__name__)


class DistillationEngine(BaseFinetuneEngine):
    """Teach a small model to give a larger or hosted model's vectors, so that queries are embedded here and at once.

    After LEAF (arXiv 2509.12539): texts and the teacher's vectors of them are all that is needed, no labels. The index
    that the teacher filled stays as it is: the result embeds queries by the student and documents by the teacher, and
    the index takes it for the teacher. The teacher is asked once for each text; its vectors come from the cache where
    they are known, so a run that broke off asks for the rest only.

    Args:
        texts: Documents as they are embedded (``MetadataMode.EMBED``); or a data set, which gives its corpus and its
            questions, and whose labels are not used.
        teacher: Whose vectors are learned: any LlamaIndex embedding, a folder or a name; or its vectors of the texts,
            shape ``(len(texts), dim)``, in their order.
        model_id: The student: folder or hub name of a SentenceTransformer, or a loaded one, which is copied; None: made
            of the teacher's first layers, see ``settings.student_layers``. A linear layer is put on where its vectors
            have another dimension than the teacher's, or lie in another space.
        model_output_path: Folder to save to: a plain SentenceTransformer with ``embft.json`` beside it.
        queries: Questions as users ask them, without labels: the student is for queries, and learns most from such. A
            data set's own where None is given.
        query_vectors: The teacher's vectors of `queries`, where `teacher` is an array.
        settings: The numbers; None takes the defaults.
        teacher_identity: Whose vectors `teacher` holds, where it is an array; the stamp of the index says it.
        show_progress: Show bars.
        cache: Where the teacher's vectors are kept, see `as_encoder`.

    Attributes:
        teacher: The teacher; None where only its vectors are known.
        student: The student, as it stands.

    Raises:
        ConfigError: A value is out of range, vectors do not fit the texts, or the student is not named once.
        DatasetError: There are fewer than 10 documents, or queries; or a text is no valid Unicode.
        ModelError: A model cannot be loaded, or vectors are NaN or zero.
    """

    def __init__(
        self,
        texts: Sequence[str] | EmbeddingQAFinetuneDataset,
        teacher: BaseEmbedding | str | Path | NDArray[np.float32],
        model_id: str | Path | SentenceTransformer | None = None,
        model_output_path: str = "exp_finetune_distilled",
        *,
        queries: Sequence[str] | None = None,
        query_vectors: NDArray[np.float32] | None = None,
        settings: DistillationSettings | None = None,
        teacher_identity: ModelIdentity | None = None,
        show_progress: bool = True,
        cache: EmbeddingCache | Literal["default"] | None = "default",
    ) -> None:
        if world_size() > 1:
            raise ConfigError("A distillation runs in one process; call it without torchrun.")
        self.settings = settings or DistillationSettings()
        self.model_output_path = str(model_output_path)
        self.show_progress, self._cache = show_progress, cache
        if isinstance(texts, EmbeddingQAFinetuneDataset):
            queries = list(texts.queries.values()) if queries is None else queries
            texts = list(texts.corpus.values())
        queries = list(queries or ())
        self.teacher, given = self._teacher(teacher, query_vectors, bool(queries), teacher_identity)
        self._data = DistillationTexts.of({"document": list(texts), "query": queries}, given)
        self._teacher_identity = teacher_identity
        check_sides(self._data, *self._identities)
        documents = self._data.texts["document"]
        model_id = str(model_id) if isinstance(model_id, Path) else model_id
        self._student = load_student(model_id, self.teacher, documents, self.settings, with_queries=bool(queries))
        self.student: SentenceTransformer = self._student.model
        if self.settings.hardware.compile:
            check_compiler(self.student.device.type)

    def finetune(self) -> DistillationResult:
        """Ask the teacher, train the student, keep its best weights, and save to `model_output_path`.

        Raises:
            ConfigError: A checkpoint belongs to another run.
            ModelError: The teacher failed for good, or gave vectors of no use.
            TrainingError: The loss is not a number, memory does not suffice, or Ctrl-C was pressed.
            OutputError: A folder cannot be written.
        """
        started = time.perf_counter()
        check_output_folder(self.model_output_path, keep=folders_below(self.teacher))
        if not self._student.reads_all:
            warn_if_cut(self.student, self._data.texts["document"])
        asking = time.perf_counter()
        targets = ask_teacher(
            self.teacher, self._data, self.settings, cache=self._cache, show_progress=self.show_progress
        )
        asked = time.perf_counter()
        with_projection(self._student, targets)
        agreement = TeacherAgreement(targets)
        encoder = self._student.encoder()
        checkpoints = self._checkpoints(targets)
        training = time.perf_counter()
        trained = train_student(
            self._student,
            targets,
            self.settings,
            RunEnvironment(
                checkpoints,
                name=Path(self.model_output_path).name,
                save_checkpoints=self.settings.save_checkpoints,
                resume=self.settings.resume_from_checkpoint,
                progress=self.show_progress,
            ),
            evaluate=lambda: self._measure(agreement, encoder),
        )
        done = time.perf_counter()
        seconds = {
            "prepare": training - started - (asked - asking),
            "teacher": asked - asking,
            "train": done - training - trained.evaluate_seconds,
            "evaluate": trained.evaluate_seconds,
        }
        result = self._result(targets, trained, seconds)
        if not result.improved:
            logger.warning(
                "Training did not bring the student nearer to its teacher (cosine %.4f before); the saved model is the "
                "one that training began with.",
                result.base_score,
            )
        self._save(result, targets)
        seconds["save"] = time.perf_counter() - done
        return result

    def _teacher(
        self,
        teacher: BaseEmbedding | str | Path | NDArray[np.float32],
        query_vectors: NDArray[np.float32] | None,
        with_queries: bool,
        identity: ModelIdentity | None,
    ) -> tuple[BaseEmbedding | None, dict[Any, Any]]:
        """The model that is asked, or the vectors that are there already."""
        from llama_index.core.base.embeddings.base import BaseEmbedding

        if isinstance(teacher, (str, Path, BaseEmbedding)):
            if query_vectors is not None or identity is not None:
                name = "query_vectors" if query_vectors is not None else "teacher_identity"
                raise ConfigError(
                    f"`{name}` is for a `teacher` that is given as vectors, and a model is; leave it out."
                )
            if isinstance(teacher, BaseEmbedding):
                return teacher, {}
            trust, device = self.settings.trust_remote_code, self.settings.device
            return load_embed_model(teacher, device=device, trust_remote_code=trust), {}
        if with_queries != (query_vectors is not None):
            have, miss = ("queries", "query_vectors") if with_queries else ("query_vectors", "queries")
            raise ConfigError(
                f"`{have}` is given without `{miss}`, and vectors as `teacher` cannot be asked; give both or none."
            )
        return None, {"document": teacher} | ({} if query_vectors is None else {"query": query_vectors})

    def _measure(self, agreement: TeacherAgreement, encoder: Any) -> dict[str, float]:
        """Figures of the student as it stands: every score of this engine comes from here."""
        training = self.student.training
        self.student.eval()
        found = agreement.metrics(encoder)
        self.student.train(training)
        return found

    def _result(self, targets: Targets, trained: TrainedStudent, seconds: dict[str, float]) -> DistillationResult:
        import torch

        best, device = trained.best, self.student.device
        at_best = next(entry for entry in best.history if entry["step"] == best.step)
        return DistillationResult(
            output_path=Path(self.model_output_path),
            method="distill",
            metric=COSINE,
            base_score=best.base_score,
            best_score=best.score,
            best_step=best.step,
            steps=trained.steps,
            history=best.history,
            seconds=seconds,
            peak_memory_bytes=peak_memory_bytes(),
            losses=trained.losses,
            peak_gpu_memory_bytes=torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
            mini_batch_size=self.settings.hardware.mini_batch_size,
            agreement=at_best[AGREEMENT],
            base_agreement=best.history[0][AGREEMENT],
            texts=len(targets.texts["document"]),
            queries=len(targets.texts.get("query", ())),
            held_out=len(targets.held_out),
            dropped=self._data.dropped,
            teacher_texts=targets.teacher_texts,
        )

    def _load(self) -> BaseEmbedding:
        return DistilledEmbedding(
            self.model_output_path,
            self.teacher,
            device=self.settings.device,
            force=self.teacher
            is not None,  # it is the one that was asked, whether or not something tells it from others
            trust_remote_code=self.settings.trust_remote_code,
        )

    @cached_property
    def _identities(self) -> tuple[ModelIdentity | None, ModelIdentity | None]:
        """Who makes the document vectors and the query vectors that are learned; a large teacher is hashed once."""
        if self.teacher is None:
            return self._teacher_identity, None
        return known_identity(self.teacher, "document"), known_identity(self.teacher, "query")

    def _checkpoints(self, targets: Targets) -> Checkpoints:
        settings = self.settings
        document, query = self._identities
        checkpoints = Checkpoints(
            checkpoint_folder(self.model_output_path),
            keep=settings.checkpoint_save_total_limit,
            signature={
                # Of a model that is known by its identity the vectors may differ in a last bit.
                "texts": targets.digest(with_vectors=document is None or (query is None and "query" in targets.texts)),
                "teacher": None if document is None else document.fingerprint,
                "teacher_of_queries": None if query is None or "query" not in targets.texts else query.fingerprint,
                "student": self._student.fingerprint,
                "prompts": dict(self._student.prompts),
                **settings.as_record(),
            },
        )
        if settings.save_checkpoints:
            checkpoints.check()
        return checkpoints

    def _save(self, result: DistillationResult, targets: Targets) -> None:
        document, query = self._identities
        name = self.teacher.model_name if self.teacher is not None else "vectors of an unnamed model"
        if self.teacher is None and document is not None:
            name = document.name
        length = self.student.max_seq_length
        record = {
            "format": 1,
            "kind": DISTILLED,
            "base": self._student.description,
            "base_fingerprint": self._student.fingerprint,
            "teacher": teacher_record(
                name, {} if self.teacher is None else describe_base(self.teacher), document, query
            ),
            "prompts": dict(self._student.prompts),
            "max_length": length if isinstance(length, int) else None,
            "data": {
                "texts": result.texts,
                "queries": result.queries,
                "held_out": result.held_out,
                "texts_hash": targets.digest(with_vectors=False),
            },
            # No label was seen, but the vectors of these very questions were learned.
            "trained_on": {
                "queries": sorted({text_hash(text) for text in targets.texts.get("query", ())}),
                "documents": [],
                "document_sketches": [],
            },
            "metrics": {
                "metric": COSINE,
                "base": result.base_score,
                "best": result.best_score,
                "base_agreement": result.base_agreement,
                "agreement": result.agreement,
            },
            "seconds": {phase: round(value, 2) for phase, value in result.seconds.items()},
            "settings": self.settings.as_record(),
            "versions": package_versions(),
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        model, prompts = self.student, self._student.prompts
        model.prompts, model.default_prompt_name = {str(kind): text for kind, text in prompts.items()}, None
        with write_folder_atomically(self.model_output_path) as target:
            model.save_pretrained(str(target), create_model_card=False)
            write_record(target, record)
            atomic_write_text(target / "README.md", model_card(record))
