"""Which stack: the dense part, its share beside BM25, and whether a reranker looks at the hits."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from llama_index_embft.evaluation.metrics import Judgements
from llama_index_embft.evaluation.statistics import SwitchingCost
from llama_index_embft.evaluation.tasks import hash_of
from llama_index_embft.pipeline.parts import DEPTH, is_trainable
from llama_index_embft.pipeline.status import CandidateRow
from llama_index_embft.retrievers.fusion import learn_weight
from llama_index_embft.retrievers.reranking import CrossEncoderReranker, ranked_hits
from llama_index_embft.search.fusion import DEFAULT_FUSION, Fusion, fuse
from llama_index_embft.search.topk import TopK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.evaluation import RetrievalReport
    from llama_index_embft.pipeline.evidence import Evidence
    from llama_index_embft.pipeline.parts import DenseModel, StackParts

METRIC: Final = "ndcg@10"
# A dearer candidate has to win by more than noise: by half a standard error of the difference.
_ERRORS: Final = 0.5

RIVALS: Final[tuple[Fusion, ...]] = ("rrf", "dbsf")
"""Fusions at equal weight, as many systems have them, beside the mixture whose weight is learnt."""


@dataclass(frozen=True)
class Stack:
    """What a retriever is made of.

    Attributes:
        model: The dense part.
        weight: Its share in the mixture with BM25, 0 (BM25 alone) to 1 (the model alone).
        fusion: How the two are brought to one scale.
        reranked: Whether the reranker looks at the first hits.
        rerank_weight: Its share in the order of these hits; None: it decides alone, or has a way of its own.
    """

    model: DenseModel
    weight: float
    fusion: Fusion
    reranked: bool = False
    rerank_weight: float | None = None

    @property
    def label(self) -> str:
        """The stack in a few words."""
        if self.weight <= 0:
            name = "BM25"
        elif self.weight >= 1:
            name = self.model.name
        elif self.fusion in RIVALS:
            name = f"{self.model.name} + BM25 by {self.fusion.upper()}"
        else:
            name = f"{self.model.name} {self.weight:.0%} + BM25 {1 - self.weight:.0%}"
        share = "" if self.rerank_weight in (None, 1) else f" {self.rerank_weight:.0%}"
        return f"{name}, reranked{share}" if self.reranked else name


def hits_of(stack: Stack, parts: StackParts, questions: EmbeddingQAFinetuneDataset) -> TopK:
    """What a stack finds, before any reranker: no part is searched that has no share."""
    if stack.weight <= 0:
        return parts.lexical(questions)
    dense = parts.dense(stack.model, questions)
    if stack.weight >= 1:
        return dense
    mixed = fuse(dense, parts.lexical(questions), stack.weight, stack.fusion, depth=DEPTH)
    return TopK(mixed.rows[:, :DEPTH], mixed.scores[:, :DEPTH])


def report_of(
    stack: Stack, parts: StackParts, questions: EmbeddingQAFinetuneDataset, *, reranker: Any = None
) -> RetrievalReport:
    """Score a stack on questions; one that is reranked needs the reranker."""
    from llama_index_embft.evaluation.systems.table import rerank_run

    report = parts.report(hits_of(stack, parts, questions), questions, stack.label)
    if stack.reranked:
        reranker = reranker_of(stack, reranker)
        report = rerank_run(questions, report, reranker, top_n=RERANK_DEPTH, label=stack.label, metadata_mode="embed")
    return parts.seen(report, questions, stack.model)


def reranker_of(stack: Stack, reranker: Any) -> Any:
    """The reranker with the share that it has in a stack."""
    if isinstance(reranker, CrossEncoderReranker) and stack.rerank_weight is not None:
        return reranker.with_weight(stack.rerank_weight)
    return reranker


def with_reranker(
    stack: Stack, parts: StackParts, questions: EmbeddingQAFinetuneDataset, reranker: Any, *, learn: bool
) -> Stack:
    """A stack with a reranker on top, and the share that some questions give it.

    Args:
        stack: Without a reranker.
        parts: Searches the corpus.
        questions: By people, where the share is learnt.
        reranker: One of ours has a share; others put hits into an order of their own.
        learn: Learn the share; otherwise it stays as it is.
    """
    if not (learn and isinstance(reranker, CrossEncoderReranker)):
        return replace(stack, reranked=True)
    hits = hits_of(stack, parts, questions)
    first = TopK(hits.rows[:, :RERANK_DEPTH], hits.scores[:, :RERANK_DEPTH])
    scores = np.full(first.rows.shape, -np.inf, dtype=np.float32)
    for place, (query, rows) in enumerate(zip(questions.queries.values(), first.rows.tolist(), strict=True)):
        texts = [parts.corpus.corpus[parts.ids[row]] for row in rows if row >= 0]
        scores[place, : len(texts)] = reranker.scores(query, texts)
    judgements = Judgements.from_qrels(
        questions.qrels(), tuple(questions.queries), {doc: row for row, doc in enumerate(parts.ids)}
    )
    found = learn_weight(ranked_hits(scores, first.rows), first, judgements, prior=reranker.prior, depth=RERANK_DEPTH)
    return replace(stack, reranked=True, rerank_weight=found.weight)


_TIMED: Final = 15
_READ: Final = 3
RERANK_DEPTH: Final = 30
"""Hits that a reranker reads."""


def weighed(
    model: DenseModel, parts: StackParts, questions: EmbeddingQAFinetuneDataset, *, prior: float, fusion: Fusion
) -> Stack:
    """The best share of a model beside BM25, learnt from questions by people and drawn towards the prior."""
    judgements = Judgements.from_qrels(
        questions.qrels(), tuple(questions.queries), {doc: row for row, doc in enumerate(parts.ids)}
    )
    found = learn_weight(
        parts.dense(model, questions), parts.lexical(questions), judgements, prior=prior, method=fusion
    )
    return Stack(model, found.weight, fusion)


def best_of(scores: Sequence[NDArray[np.float64]]) -> int:
    """Number of the best candidate; a later, dearer one must beat the best so far by half a standard error.

    Args:
        scores: A row for each candidate, from cheap to dear: its score on each question.
    """
    best = 0
    for at in range(1, len(scores)):
        gain = scores[at] - scores[best]
        error = float(gain.std(ddof=1)) / np.sqrt(len(gain)) if len(gain) > 1 else np.inf
        if float(gain.mean()) > _ERRORS * error:
            best = at
    return best


class Choosing:
    """Candidates as they come, and the best of them on the questions that choose.

    Each model is a candidate in one form, its best mixture with BM25: at 0 and 1 that is BM25 or the model alone, and
    between them it is seldom much worse than the better of the two. Where people's questions choose, the model in use
    is also mixed as others do, see `RIVALS`.

    Args:
        parts: Searches the corpus.
        evidence: The roles of the questions.
        prior: Share of the dense part where no questions by people tell.
    """

    def __init__(self, parts: StackParts, evidence: Evidence, prior: float) -> None:
        self._parts, self._evidence, self._prior = parts, evidence, prior
        self._models: list[DenseModel] = []
        self._reranker: Any = None

    @property
    def base(self) -> DenseModel:
        """The model in use."""
        return self._models[0]

    @property
    def furthest(self) -> DenseModel:
        """The last model whose weights were trained; the model in use where none was."""
        return next((model for model in reversed(self._models) if model.moves_documents), self.base)

    def consider(self, model: DenseModel) -> list[CandidateRow]:
        """Measure what a model gives alone and beside BM25."""
        before = time.perf_counter()
        self._parts.embed(model)
        questions = self._evidence.choose
        singles = [Stack(model, 1.0, DEFAULT_FUSION)]
        if not self._models:
            singles.append(Stack(model, 0.0, DEFAULT_FUSION))
        self._models.append(model)
        mixed = self._mixture(model, questions)
        rows = []
        for stack in [*singles, *([mixed] if 0 < mixed.weight < 1 else []), *self._rivals(model)]:
            report = report_of(stack, self._parts, questions)
            seconds = model.seconds + time.perf_counter() - before if stack.weight == 1 else 0.0
            rows.append(_row(stack, report, seconds))
        return rows

    def _mixture(self, model: DenseModel, questions: EmbeddingQAFinetuneDataset) -> Stack:
        if self._evidence.proof_by != "people":
            return Stack(model, self._prior, DEFAULT_FUSION)
        return weighed(model, self._parts, questions, prior=self._prior, fusion=DEFAULT_FUSION)

    def _rivals(self, model: DenseModel) -> list[Stack]:
        if self._evidence.proof_by != "people" or model is not self.base:
            return []
        return [Stack(model, 0.5, fusion) for fusion in RIVALS]

    def consider_reranker(self, reranker: Any) -> CandidateRow:
        """Measure the best stack with the reranker on top."""
        before = time.perf_counter()
        self._reranker = None
        stack = self._reranked(self.final(), self._evidence.choose, reranker)
        report = report_of(stack, self._parts, self._evidence.choose, reranker=reranker)
        self._reranker = reranker
        return _row(stack, report, time.perf_counter() - before)

    @property
    def reranks(self) -> bool:
        """Whether a reranker is among the candidates."""
        return self._reranker is not None

    def drop_reranker(self) -> None:
        """Leave the reranker out."""
        self._reranker = None

    def final(self, *, without_new_documents: bool = False) -> Stack:
        """The stack to hand over.

        Args:
            without_new_documents: Leave out models for which an index would have to be embedded again.
        """
        return self._chosen_on(self._evidence.choose, self._usable(without_new_documents))

    def _usable(self, without_new_documents: bool) -> list[DenseModel]:
        return [model for model in self._models if not (without_new_documents and model.moves_documents)]

    def _chosen_on(self, questions: EmbeddingQAFinetuneDataset, models: Sequence[DenseModel]) -> Stack:
        """What is chosen on some questions."""
        stacks = [stack for model in models for stack in (self._mixture(model, questions), *self._rivals(model))]
        # Without people's questions the share of BM25 is the rule's; the dense parts are told apart each alone.
        compared = stacks if self._evidence.proof_by == "people" else [replace(stack, weight=1.0) for stack in stacks]
        scores = [report_of(stack, self._parts, questions).values[METRIC] for stack in compared]
        best = stacks[best_of(scores)]
        if self._reranker is None:
            return best
        reranked = self._reranked(best, questions, self._reranker)
        both = [report_of(one, self._parts, questions, reranker=self._reranker) for one in (best, reranked)]
        return (best, reranked)[best_of([report.values[METRIC] for report in both])]

    def _reranked(self, stack: Stack, questions: EmbeddingQAFinetuneDataset, reranker: Any) -> Stack:
        learn = self._evidence.proof_by == "people"
        return with_reranker(stack, self._parts, questions, reranker, learn=learn)

    def proof(self, *, without_new_documents: bool = False) -> dict[str, RetrievalReport]:
        """The base model, BM25 and the chosen stack on questions that had no part in the choice; see `final`."""
        models = self._usable(without_new_documents)
        pieces: dict[str, list[RetrievalReport]] = {}
        for fold in self._evidence.folds:
            for name, stack in (
                ("base", Stack(self.base, 1.0, DEFAULT_FUSION)),
                ("bm25", Stack(self.base, 0.0, DEFAULT_FUSION)),
                ("chosen", self._chosen_on(fold.choose, models)),
            ):
                report = report_of(stack, self._parts, fold.prove, reranker=self._reranker)
                pieces.setdefault(name, []).append(report)
        whole = {name: _joined(reports) for name, reports in pieces.items()}
        return {
            **whole,
            "chosen": replace(
                whole["chosen"], label=f"chosen ({self._chosen_on(self._evidence.choose, models).label})"
            ),
        }


def switching_cost(
    chosen: Stack, base: DenseModel, parts: StackParts, evidence: Evidence, reranker: Any = None
) -> SwitchingCost:
    """What it costs to use the stack instead of the model in use; a model behind a web API is not timed."""
    anew = chosen.weight > 0 and chosen.model.moves_documents
    latency = None
    if is_trainable(base.embed_model):
        questions = evidence.folds[0].prove
        before = _latency_of(Stack(base, 1.0, DEFAULT_FUSION), parts, questions)
        read = reading_seconds(reranker, parts, questions, RERANK_DEPTH) if chosen.reranked else 0.0
        latency = before, _latency_of(chosen, parts, questions) + read
    return SwitchingCost(
        texts=len(parts.ids) if anew else 0,
        seconds=parts.anew.get(chosen.model.name) if anew else None,
        latency=latency,
        measured_on=_machine(),
    )


def _machine() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} CPU cores"


def _latency_of(stack: Stack, parts: StackParts, questions: EmbeddingQAFinetuneDataset) -> float:
    """Median seconds from a question to the hits of a stack, without a reranker, one question at a time."""
    seconds = []
    for question in list(questions.queries.values())[:_TIMED]:
        started = time.perf_counter()
        parts.ask(question, stack.model if stack.weight > 0 else None, words=stack.weight < 1)
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds))


def reading_seconds(
    reranker: Any, parts: StackParts, questions: EmbeddingQAFinetuneDataset, candidates: int, *, known: bool = False
) -> float:
    """Median seconds that a reranker takes for the hits of a question; 0 for one that is not ours to time.

    Args:
        reranker: The reranker.
        parts: With the texts.
        questions: A few are asked.
        candidates: Hits that are read.
        known: As if they had been read for another question before.
    """
    if not isinstance(reranker, CrossEncoderReranker):
        return 0.0
    fresh = reranker.model_copy(update={"remember": False}) if known else reranker.forgetful()
    texts = [parts.corpus.corpus[doc] for doc in parts.ids[:candidates]]
    if known:
        fresh.scores("", texts)
    seconds = []
    for question in list(questions.queries.values())[:_READ]:
        started = time.perf_counter()
        fresh.scores(question, texts)
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds))


def _row(stack: Stack, report: RetrievalReport, seconds: float) -> CandidateRow:
    return CandidateRow(stack.label, report.mean(METRIC), report.mean("hit_rate@10"), seconds)


def _joined(reports: Sequence[RetrievalReport]) -> RetrievalReport:
    """Reports over different questions as one."""
    first = reports[0]
    if len(reports) == 1:
        return first
    return replace(
        first,
        query_ids=tuple(query for report in reports for query in report.query_ids),
        queries=tuple(text for report in reports for text in report.queries),
        documents=tuple(document for report in reports for document in report.documents),
        relevant=tuple(relevant for report in reports for relevant in report.relevant),
        hit_ids=tuple(ids for report in reports for ids in report.hit_ids),
        hit_scores=tuple(scores for report in reports for scores in report.hit_scores),
        values={name: np.concatenate([report.values[name] for report in reports]) for name in first.metrics},
        latencies=(),
        seconds={},
        notes=tuple(dict.fromkeys(note for report in reports for note in report.notes)),
        overlap={
            name: sum(report.overlap.get(name, 0) for report in reports)
            for name in dict.fromkeys(name for report in reports for name in report.overlap)
        },
        data_hash=hash_of([[report.data_hash for report in reports]]),
        folds=len(reports),
    )
