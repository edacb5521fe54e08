"""NUDGE: move the document vectors, not the model. No training loop, no re-embedding, seconds on a laptop."""

from __future__ import annotations

import logging
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from llama_index_embft._core.environment import peak_memory_bytes
from llama_index_embft._core.files import check_output_folder
from llama_index_embft.embeddings.describe import folders_below
from llama_index_embft.embeddings.encoding.encoder import as_encoder
from llama_index_embft.embeddings.loading import load_embed_model
from llama_index_embft.embeddings.nudge import save_nudge
from llama_index_embft.errors import ConfigError, DatasetError
from llama_index_embft.finetune.engine import (
    SELECTION_METRIC,
    BaseFinetuneEngine,
)
from llama_index_embft.finetune.nudge.data import hold_out, positives_of, rows_by_text
from llama_index_embft.finetune.nudge.exact_step import closed_form_step
from llama_index_embft.finetune.nudge.result import UNASKED, NudgeResult
from llama_index_embft.finetune.nudge.settings import NudgeOptions, NudgeSettings, Variant
from llama_index_embft.finetune.nudge.steps import (
    Movement,
    StepSearch,
    movement,
    ndcg_if_not_moved,
    own_scores,
    steps_to_try,
)
from llama_index_embft.finetune.record import frozen_base_record

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from numpy.typing import NDArray

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.embeddings.encoding.cache import EmbeddingCache

logger = logging.getLogger(__name__)

_NOTICEABLE: Final = 0.01
_MAX_UNASKED_LOSS: Final = 0.005
_DEPTH: Final = 10
# Training queries that help to foretell what other documents lose: enough for a hundredth, and soon searched.
_FORETELLING: Final = 1000


class NudgeFinetuneEngine(BaseFinetuneEngine):
    """Move each document that has a training query towards its queries, as far as validation says.

    Zeighami et al., "NUDGE: Lightweight Non-Parametric Fine-Tuning of Embeddings for Retrieval", arXiv 2409.02343. It
    learns which documents answer which questions and nothing about others: right where users keep asking about the
    same documents, useless for documents nobody has asked about yet.

    Documents with the same text are one: they have one vector, before and after.

    The model stays as it is, so it works on any embedding, hosted ones too, and only the moved vectors have to be
    written back to a vector store.

    Args:
        dataset: Training queries, and the whole corpus of the index.
        embed_model: Any LlamaIndex embedding; it is not changed.
        val_dataset: Queries that choose the step, about the same documents as the training queries, and about others
            as often as users ask about those. None holds out every fifth training query.
        variant: ``"N"`` (default) moves documents on the unit sphere, for cosine, which LlamaIndex's stores use;
            ``"M"`` moves them freely, for stores that rank by the inner product.
        model_output_path: Folder to save to.
        search: How the step is chosen: how many are tried, and what others may lose.
        device: Torch device of the search; None takes a GPU if there is one.
        cache: Where embeddings are kept, see `as_encoder`.
        show_progress: Show progress bars of the embedding.

    Raises:
        ConfigError: An argument is out of range, or a validation query is about a document outside the corpus.
        DatasetError: The training or validation set has no query.
    """

    def __init__(
        self,
        dataset: EmbeddingQAFinetuneDataset,
        embed_model: BaseEmbedding,
        val_dataset: EmbeddingQAFinetuneDataset | None = None,
        *,
        variant: Variant = "N",
        model_output_path: str = "nudge_output",
        search: NudgeSettings | None = None,
        device: str | None = None,
        cache: EmbeddingCache | Literal["default"] | None = "default",
        show_progress: bool = False,
    ) -> None:
        options, search = NudgeOptions(variant=variant, device=device), search or NudgeSettings()
        if not dataset.queries:
            raise DatasetError("The training set has no queries; generate some, or load a data set that has.")
        self.steps = search.steps
        self.max_unasked_loss: float
        if search.max_unasked_loss is not None:
            self.max_unasked_loss = search.max_unasked_loss
        else:
            self.max_unasked_loss = _MAX_UNASKED_LOSS if val_dataset is None else math.inf
        if val_dataset is None:
            dataset, val_dataset = hold_out(dataset)
        elif not val_dataset.queries:
            raise DatasetError("The validation set has no query; give one with queries, or none at all.")
        asked = [doc for ids in val_dataset.relevant_docs.values() for doc in ids]
        outside = [doc for doc in asked if doc not in dataset.corpus]
        if outside:
            raise ConfigError(
                f"The validation queries are about {len(outside)} documents that are not in the training set's corpus "
                f"(first: {outside[0]!r}); give `dataset` the whole corpus of the index."
            )
        other = next((doc for doc in asked if val_dataset.corpus[doc] != dataset.corpus[doc]), None)
        if other is not None:
            raise ConfigError(
                f"The document {other!r} has one text in the training set and another in the validation set, so their "
                "ids do not mean the same; give a validation set about the documents of the training set."
            )
        self.dataset, self.val_dataset = dataset, val_dataset
        self.embed_model = embed_model
        self.variant: Variant = options.variant
        self.device = options.device
        self.model_output_path = str(model_output_path)
        self._encoder = as_encoder(embed_model, cache=cache, show_progress=show_progress)

    def finetune(self) -> NudgeResult:
        """Embed what is not in the cache, find the step, and save the moved vectors to `model_output_path`.

        Raises:
            ModelError: The embedding model returns unusable vectors.
            OutputError: The folder cannot be written.
        """
        started = time.perf_counter()
        check_output_folder(self.model_output_path, keep=folders_below(self.embed_model))
        # Descending ids: the lower row wins a tie, and that must be trec_eval's greater id.
        ids = sorted(self.dataset.corpus, reverse=True)
        row_of = {doc_id: row for row, doc_id in enumerate(ids)}
        same = rows_by_text([self.dataset.corpus[doc_id] for doc_id in ids])
        corpus = self._encoder.encode_documents([self.dataset.corpus[doc_id] for doc_id in ids])
        queries = self._encoder.encode_queries(list(self.dataset.queries.values()))
        positives = positives_of(self.dataset, row_of, same)
        moves = movement(corpus, queries, positives, self.variant)
        prepared = time.perf_counter()
        history = self._validate(corpus, queries, positives, moves, row_of, same)
        asked = len({row for rows in positives for row in rows})
        unasked = 1 - asked / len(ids)
        best = _chosen(history, unasked, self.max_unasked_loss)
        chosen = best["gamma"]
        searched = time.perf_counter()
        moved = [ids[row] for row in moves.rows] if chosen > 0 else []
        self._save(moved, moves, chosen, history[0][SELECTION_METRIC], best[SELECTION_METRIC])
        reachable = {ids[row] for row in moves.rows}
        relevant = self.val_dataset.relevant_docs.values()
        result = NudgeResult(
            output_path=Path(self.model_output_path),
            method="nudge",
            metric=SELECTION_METRIC,
            base_score=history[0][SELECTION_METRIC],
            best_score=best[SELECTION_METRIC],
            best_step=int(best["step"]),
            steps=len(history) - 1,
            history=history,
            seconds={
                "prepare": prepared - started,
                "train": searched - prepared,
                "save": time.perf_counter() - searched,
            },
            peak_memory_bytes=peak_memory_bytes(),
            step=chosen,
            moved_documents=len(moved),
            val_queries=len(self.val_dataset.queries),
            val_queries_reached=sum(not reachable.isdisjoint(docs) for docs in relevant),
            unasked_share=unasked,
            unasked_base=history[0][UNASKED],
            unasked_score=best[UNASKED],
            limited=best is not _chosen(history, unasked, math.inf),
            ids=tuple(moved),
        )
        if chosen == 0 or result.unasked_score < result.unasked_base - _NOTICEABLE:
            logger.warning("%s", result.explanation)
        return result

    def _load(self) -> BaseEmbedding:
        # By force where nothing tells the model from others: it is the very one whose vectors were moved.
        unknown = self._encoder.fingerprint is None
        return load_embed_model(self.model_output_path, base_embed_model=self.embed_model, force=unknown)

    def _validate(
        self,
        corpus: NDArray[np.float32],
        training: NDArray[np.float32],
        positives: list[list[int]],
        moves: Movement,
        row_of: dict[str, int],
        same: list[list[int]],
    ) -> list[dict[str, float]]:
        """Metrics after each step, the first of which is 0."""
        from llama_index_embft.evaluation.metrics import Judgements, find_hits, metric_names, score_hits

        queries = self._encoder.encode_queries(list(self.val_dataset.queries.values()))
        chosen_by = len(queries)
        judgements = Judgements.from_qrels(self.val_dataset.qrels(), tuple(self.val_dataset.queries), row_of)
        names = metric_names()
        wanted = positives_of(self.val_dataset, row_of, same)
        tried = [0.0]
        if len(moves.rows):
            tried += steps_to_try(moves, self.steps).tolist()
            tried.append(closed_form_step(queries, corpus, wanted, moves, device=self.device)[0])
        # If its own document had stayed, a training query tells as much about the others as one held out.
        few = [row for row, rows in enumerate(positives) if len(rows) <= _DEPTH]
        sample = few[:: -(-len(few) // _FORETELLING) or 1]
        queries = np.concatenate([queries, training[sample]])
        wanted = wanted + [positives[row] for row in sample]
        deepest = _DEPTH + max(map(len, wanted))  # ten beside a query's own documents
        search = StepSearch(queries, corpus, moves, depth=min(deepest, len(corpus)), device=self.device)
        own = own_scores(queries, corpus, wanted, moves)
        history = []
        for number, step in enumerate(sorted(set(tried))):
            hits = search.after(step)
            scores = score_hits(find_hits(hits.rows[:chosen_by, :_DEPTH], judgements, len(corpus)), judgements, names)
            means = {name: float(values.mean()) for name, values in scores.items()}
            means[UNASKED] = ndcg_if_not_moved(hits, own, wanted)
            history.append({"step": number, "epoch": 0.0, "gamma": step, **means})
        return history

    def _save(self, moved: list[str], moves: Movement, step: float, base_score: float, score: float) -> None:
        record = frozen_base_record(
            "nudge",
            embed_model=self.embed_model,
            base_fingerprint=self._encoder.fingerprint,
            train=self.dataset,
            val=self.val_dataset,
            scores=(base_score, score),
            settings={
                "variant": self.variant,
                "step": step,
                "steps": self.steps,
                "max_unasked_loss": None if math.isinf(self.max_unasked_loss) else self.max_unasked_loss,
            },
        )
        save_nudge(
            self.model_output_path,
            moved,
            [self.dataset.corpus[doc_id] for doc_id in moved],
            moves.at(step) if moved else np.empty((0, moves.start.shape[1]), dtype=np.float32),
            variant=self.variant,
            step=step,
            base=record["base"],
            base_fingerprint=record["base_fingerprint"],
            record=record,
        )


def _chosen(history: list[dict[str, float]], unasked_share: float, limit: float) -> dict[str, float]:
    """The best step on validation that costs the other documents no more than the limit; of equals the smallest.

    Args:
        history: Metrics after each step, the first of which is 0.
        unasked_share: Of the documents, those without a training query.
        limit: See `max_unasked_loss`.
    """
    allowed = [entry for entry in history if unasked_share * (history[0][UNASKED] - entry[UNASKED]) <= limit]
    return max(allowed, key=lambda entry: (entry[SELECTION_METRIC], -entry["gamma"]))
