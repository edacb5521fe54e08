"""NUDGE: move the document vectors, not the model. No training loop, no re-embedding, seconds on a laptop."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, get_args

import numpy as np

from llama_index_embft._core.environment import peak_memory_bytes
from llama_index_embft._core.files import check_output_folder
from llama_index_embft.embeddings.encoding.encoder import as_encoder
from llama_index_embft.embeddings.loading import load_embed_model
from llama_index_embft.embeddings.nudge import save_nudge
from llama_index_embft.errors import ConfigError, DatasetError
from llama_index_embft.finetune.engine import (
    SELECTION_METRIC,
    BaseFinetuneEngine,
    FinetuneResult,
    frozen_base_record,
)
from llama_index_embft.finetune.nudge.exact_step import closed_form_step
from llama_index_embft.finetune.nudge.steps import (
    Movement,
    StepSearch,
    Variant,
    movement,
    ndcg_if_not_moved,
    own_scores,
    steps_to_try,
)

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from numpy.typing import NDArray

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.embeddings.encoding.cache import EmbeddingCache

logger = logging.getLogger(__name__)

# Where there is no validation set, every fifth query chooses how far to move.
_HELD_OUT: Final = 5
_TRIED: Final = 32
# The record's name of what is expected for documents without a training query, see `ndcg_if_not_moved`.
UNASKED: Final = "unasked_ndcg@10"
_NOTICEABLE: Final = 0.01
_MAX_UNASKED_LOSS: Final = 0.005
_DEPTH: Final = 10
# Training queries that help to foretell what other documents lose: enough for a hundredth, and soon searched.
_FORETELLING: Final = 1000
# Below this the score that chooses the step is mostly chance.
_FEW: Final = 30


@dataclass(frozen=True)
class NudgeResult(FinetuneResult):
    """What `NudgeFinetuneEngine.finetune` did.

    Attributes:
        step: How far documents moved: N: an angle in radians; M: a length. 0: nothing moved.
        moved_documents: Documents whose vector changed: all that must be written to a vector store.
        val_queries: Validation queries that chose the step.
        val_queries_reached: Those of them whose relevant document has a training query, and so can move at all.
        unasked_share: Of the documents, those without a training query, between 0 and 1: they stay where they are.
        unasked_base: nDCG@10 of the validation queries and up to 1,000 training queries before the movement, with one
            relevant document each.
        unasked_score: The same if their own documents had stayed and all others had moved: what to expect of a query
            about a document without a training query.
        limited: Whether a step that is better on validation was left out for `max_unasked_loss`.
    """

    step: float = 0.0
    moved_documents: int = 0
    val_queries: int = 0
    val_queries_reached: int = 0
    unasked_share: float = 0.0
    unasked_base: float = 0.0
    unasked_score: float = 0.0
    limited: bool = False
    ids: tuple[str, ...] = field(default=(), repr=False)

    @property
    def explanation(self) -> str:
        """Why nothing moved, or how far the result reaches, in one or two sentences."""
        share = f"{self.val_queries_reached} of {self.val_queries} validation queries are about a document that has a"
        if self.step > 0:
            few = "So few say little about it: give a val_dataset. " if self.val_queries < _FEW else ""
            return (
                f"{self.moved_documents} documents moved. {share} training query. {few}{self.unasked_share:.0%} of the "
                f"documents have none and stayed: for queries about them expect nDCG@10 {self.unasked_score:.3f}, "
                f"where it was {self.unasked_base:.3f}." + (f" For their sake {self._left_out}" if self.limited else "")
            )
        if self.val_queries_reached == 0:
            return (
                f"Nothing moved: {share} training query, and NUDGE moves only documents that have one. It helps with "
                "new questions about the same documents, so split by query, not by document; for unseen documents "
                "train an adapter or the model."
            )
        if self.limited:
            return f"Nothing moved: {share} training query, and {self._left_out}"
        return f"Nothing moved: {share} training query, and no step improved {self.metric} on them all."

    @property
    def _left_out(self) -> str:
        best = max(self.history, key=lambda entry: entry[self.metric])
        return (
            f"the step that is best on them ({self.metric} {best[self.metric]:.3f}) was not taken: queries about the "
            f"{self.unasked_share:.0%} of the documents without a training query would fall to {best[UNASKED]:.3f} "
            "(max_unasked_loss)."
        )

    def __str__(self) -> str:
        """Two lines for people."""
        return f"{super().__str__()}\n{self.explanation}"


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
        steps: How many steps to try, beside the closed form's: the one that puts a relevant document first for the most
            validation queries.
        max_unasked_loss: How much nDCG@10 a step may cost queries about documents without a training query, times the
            share of these documents: they stay where they are, while others come nearer to all queries. None: 0.005
            where training queries were held out, which are never about such documents; no limit with a `val_dataset`.
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
        steps: int = _TRIED,
        max_unasked_loss: float | None = None,
        device: str | None = None,
        cache: EmbeddingCache | Literal["default"] | None = "default",
        show_progress: bool = False,
    ) -> None:
        if variant not in get_args(Variant):
            raise ConfigError(f"variant is {variant!r}; choose 'N' (cosine) or 'M' (inner product).")
        if steps < 1:
            raise ConfigError(f"steps is {steps}; it must be at least 1.")
        if not dataset.queries:
            raise DatasetError("The training set has no query; generate or load one that has.")
        if max_unasked_loss is not None and not max_unasked_loss >= 0:
            raise ConfigError(f"max_unasked_loss is {max_unasked_loss}; it must be 0 or more.")
        if max_unasked_loss is None:
            max_unasked_loss = _MAX_UNASKED_LOSS if val_dataset is None else math.inf
        self.max_unasked_loss = max_unasked_loss
        if val_dataset is None:
            dataset, val_dataset = _hold_out(dataset)
        elif not val_dataset.queries:
            raise DatasetError("The validation set has no query; give one with queries, or none at all.")
        outside = [doc for ids in val_dataset.relevant_docs.values() for doc in ids if doc not in dataset.corpus]
        if outside:
            raise ConfigError(
                f"The validation queries are about {len(outside)} documents that are not in the training set's corpus "
                f"(first: {outside[0]!r}); give `dataset` the whole corpus of the index."
            )
        self.dataset, self.val_dataset = dataset, val_dataset
        self.embed_model = embed_model
        self.variant: Variant = variant
        self.model_output_path = str(model_output_path)
        self.steps = steps
        self.device = device
        self._encoder = as_encoder(embed_model, cache=cache, show_progress=show_progress)

    def finetune(self) -> NudgeResult:
        """Embed what is not in the cache, find the step, and save the moved vectors to `model_output_path`.

        Raises:
            ModelError: The embedding model returns unusable vectors.
            OutputError: The folder cannot be written.
        """
        started = time.perf_counter()
        check_output_folder(self.model_output_path)
        # Descending ids: the lower row wins a tie, and that must be trec_eval's greater id.
        ids = sorted(self.dataset.corpus, reverse=True)
        row_of = {doc_id: row for row, doc_id in enumerate(ids)}
        same = _rows_by_text([self.dataset.corpus[doc_id] for doc_id in ids])
        corpus = self._encoder.encode_documents([self.dataset.corpus[doc_id] for doc_id in ids])
        queries = self._encoder.encode_queries(list(self.dataset.queries.values()))
        positives = _positives(self.dataset, row_of, same)
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
        wanted = _positives(self.val_dataset, row_of, same)
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


def _rows_by_text(texts: list[str]) -> list[list[int]]:
    """For each row the rows with the same text, itself included: an embedding cannot tell them apart."""
    rows_of: dict[str, list[int]] = {}
    for row, text in enumerate(texts):
        rows_of.setdefault(text, []).append(row)
    return [rows_of[text] for text in texts]


def _positives(dataset: EmbeddingQAFinetuneDataset, row_of: dict[str, int], same: list[list[int]]) -> list[list[int]]:
    """Corpus rows relevant to each query, copies of a relevant document included."""
    return [
        sorted({twin for doc in dataset.relevant_docs[query] for twin in same[row_of[doc]]})
        for query in dataset.queries
    ]


def _hold_out(dataset: EmbeddingQAFinetuneDataset) -> tuple[EmbeddingQAFinetuneDataset, EmbeddingQAFinetuneDataset]:
    """Take every fifth query of those whose documents have another one, so that what is held out can be reached."""
    texts_of = {
        query: {dataset.corpus[doc] for doc in docs} for query, docs in dataset.relevant_docs.items()
    }  # documents of one text move together, so they count as one
    asked: dict[str, int] = {}
    for texts in texts_of.values():
        for text in texts:
            asked[text] = asked.get(text, 0) + 1
    held: list[str] = []
    shared = 0
    for query_id in dataset.queries:
        texts = texts_of[query_id]
        if any(asked[text] > 1 for text in texts):
            shared += 1
            if shared % _HELD_OUT == 0:
                held.append(query_id)
                for text in texts:
                    asked[text] -= 1
    if not held:
        raise DatasetError(
            "There are no queries to choose the step with: hardly any document has two of them; give a val_dataset "
            "with other queries about the same documents."
        )
    kept = set(held)
    return dataset.subset([query for query in dataset.queries if query not in kept]), dataset.subset(held)
