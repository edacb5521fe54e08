"""Evaluate a query engine: what it retrieved, and what it answered."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from llama_index_embft._core.checks import first_line
from llama_index_embft._core.vectors import unit_rows
from llama_index_embft.errors import EvaluationError
from llama_index_embft.evaluation.metrics import DEFAULT_KS, FAMILIES
from llama_index_embft.evaluation.systems.retriever import RetrieverResponse, RetrieverRun, finished, gather, in_threads
from llama_index_embft.search.tokenizing import words

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from llama_index.core.base.base_query_engine import BaseQueryEngine
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.evaluation import BaseEvaluator, EvaluationResult
    from numpy.typing import NDArray

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.evaluation.records import RetrievalReport
    from llama_index_embft.evaluation.systems.matching import Match

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Judgement:
    """What a judge says of one answer: a score on its own scale, or whether it passes, or why there is neither."""

    score: float | None = None
    passing: bool | None = None
    reason: str = ""

    @classmethod
    def of(cls, result: EvaluationResult) -> _Judgement:
        finite = result.score is not None and bool(np.isfinite(result.score))
        return cls(float(result.score) if finite and result.score is not None else None, result.passing)

    @classmethod
    def failed(cls, err: Exception) -> _Judgement:
        return cls(reason=f"{type(err).__name__}: {first_line(err)}")


@dataclass(frozen=True)
class _AnsweredQuery:
    """One query to an engine and what came back; an empty answer where it failed."""

    response: RetrieverResponse
    answer: str = ""

    @property
    def contexts(self) -> list[str]:
        return [node.get_content() for node in self.response.nodes]


def evaluate_query_engine(
    dataset: EmbeddingQAFinetuneDataset,
    query_engine: BaseQueryEngine,
    *,
    ks: int | Iterable[int] = DEFAULT_KS,
    metrics: str | Iterable[str] = FAMILIES,
    label: str | None = None,
    match: Match = "id",
    embed_model: BaseEmbedding | None = None,
    judges: Mapping[str, BaseEvaluator] | None = None,
    num_workers: int = 1,
    show_progress: bool = False,
    ignore_identical: bool = True,
) -> RetrievalReport:
    """Ask a query engine every query; score its source nodes, and its answers against the reference answers.

    Besides the retrieval metrics the report holds, where the data set has ``reference_answers``: ``answer_f1``, the
    overlap in words; and with `embed_model` ``answer_similarity``, the cosine of answer and reference (below 0 counts
    as 0). Each judge adds a metric of its name. All of them can be compared like any other metric:
    ``compare(base, tuned, primary="answer_f1")``.

    An engine answers from what it retrieves, which is often less than the metrics look at: a note then says so.

    What the engine and the judges have said is paid for and is never thrown away: an answer that a judge cannot be
    asked about, or gives no score for, counts 0 there, and a judge that scores nothing at all is left out; the notes of
    the report say so.

    Args:
        dataset: Queries, judgements, and perhaps reference answers.
        query_engine: Any LlamaIndex query engine; streaming ones are read to the end.
        ks: Cut-offs, or one.
        metrics: Families or full names.
        label: Name in tables; None: the class name.
        match: How source nodes are told; see `evaluate_retriever`.
        embed_model: Compares answers with references by meaning.
        judges: Name -> a LlamaIndex evaluator (faithfulness, relevancy, correctness, …). Its scores count if they are
            in [0, 1]; those of a `CorrectnessEvaluator`, and where one of them is above 1, are taken as 1 to 5 and
            scaled to that; without a score, passing counts 1.
        num_workers: Queries asked at the same time, in threads.
        show_progress: Show a progress bar.
        ignore_identical: A hit that is the query's own text is left out and counted; see `evaluate_run`.

    Returns:
        A report with the texts in `answers`. A query that fails has an empty answer and scores 0 everywhere.

    Raises:
        EvaluationError: Every query failed, no source node is in the data set, or a query has no reference answer
            while others have.
    """
    run = RetrieverRun(dataset, query_engine, ks, metrics, label, match, num_workers, ignore_identical, "note")
    references = _references(dataset, run.task.query_ids)

    start = time.perf_counter()
    ask = partial(_ask, query_engine, waits=False)
    found = in_threads(ask, run.task.queries, num_workers, show_progress)
    seconds = time.perf_counter() - start
    judgements = {
        name: [
            finished(_judge(judge, *row, waits=False)) for row in zip(run.task.queries, found, references, strict=True)
        ]
        for name, judge in (judges or {}).items()
    }
    return _report(run, found, seconds, references, embed_model, judgements, _to_five(judges))


async def aevaluate_query_engine(
    dataset: EmbeddingQAFinetuneDataset,
    query_engine: BaseQueryEngine,
    *,
    ks: int | Iterable[int] = DEFAULT_KS,
    metrics: str | Iterable[str] = FAMILIES,
    label: str | None = None,
    match: Match = "id",
    embed_model: BaseEmbedding | None = None,
    judges: Mapping[str, BaseEvaluator] | None = None,
    num_workers: int = 8,
    show_progress: bool = False,
    ignore_identical: bool = True,
) -> RetrievalReport:
    """`evaluate_query_engine`, asynchronous: up to `num_workers` queries, and then judgements, are under way at once.

    Arguments and errors are those of `evaluate_query_engine`. With `embed_model`, the answers are embedded in a thread.
    """
    run = RetrieverRun(dataset, query_engine, ks, metrics, label, match, num_workers, ignore_identical, "note")
    references = _references(dataset, run.task.query_ids)

    start = time.perf_counter()
    asked = (_ask(query_engine, text, waits=True) for text in run.task.queries)
    found = await gather(asked, len(run.task.queries), num_workers, show_progress)
    seconds = time.perf_counter() - start
    judgements = {}
    for name, judge in (judges or {}).items():
        rows = zip(run.task.queries, found, references, strict=True)
        judged = (_judge(judge, *row, waits=True) for row in rows)
        judgements[name] = await gather(judged, len(found), num_workers, show_progress, f"Judging: {name}")
    fives = _to_five(judges)
    return await asyncio.to_thread(_report, run, found, seconds, references, embed_model, judgements, fives)


async def _ask(query_engine: BaseQueryEngine, text: str, *, waits: bool) -> _AnsweredQuery:
    """One query; ``waits`` says by which of LlamaIndex' two ways."""
    start = time.perf_counter()
    try:
        response = await query_engine.aquery(text) if waits else query_engine.query(text)
        answer = await aanswer_text(response) if waits else answer_text(response)
    except Exception as err:  # noqa: BLE001  # whatever an engine raises: it is counted and shown
        return _AnsweredQuery(RetrieverResponse((), time.perf_counter() - start, err))
    return _AnsweredQuery(RetrieverResponse(response.source_nodes, time.perf_counter() - start), answer)


async def _judge(
    judge: BaseEvaluator, query: str, found: _AnsweredQuery, reference: str | None, *, waits: bool
) -> _Judgement | None:
    if found.response.error:
        return None
    asked: dict[str, Any] = {
        "query": query,
        "response": found.answer,
        "contexts": found.contexts,
        "reference": reference,
    }
    try:
        return _Judgement.of(await judge.aevaluate(**asked) if waits else judge.evaluate(**asked))
    except Exception as err:  # noqa: BLE001  # one call of many paid ones
        return _Judgement.failed(err)


def _report(
    run: RetrieverRun,
    found: Sequence[_AnsweredQuery],
    seconds: float,
    references: Sequence[str | None],
    embed_model: BaseEmbedding | None,
    judgements: Mapping[str, Sequence[_Judgement | None]],
    fives: set[str],
) -> RetrievalReport:
    report = run.report([answered.response for answered in found], seconds)
    answers = [answered.answer for answered in found]
    values = dict(report.values)
    notes = list(report.notes)
    known = [reference for reference in references if reference is not None]
    if known:
        values["answer_f1"] = np.array([word_f1(*pair) for pair in zip(answers, known, strict=True)])
        if embed_model is not None:
            values["answer_similarity"] = _similarities(embed_model, answers, known)
    for name, judged in judgements.items():
        scores = _on_one_scale([one for one in judged if one is not None], to_five=name in fives)
        rows = iter(scores)
        reasons = [one.reason for one, score in zip(filter(None, judged), scores, strict=True) if score is None]
        unscored = len(reasons)
        why = next((f" (first: {reason})" for reason in reasons if reason), "")
        if unscored == len(scores):
            notes.append(f"The judge {name!r} gave no score for any answer{why}, so there is no such metric.")
        else:
            if unscored:
                notes.append(f"The judge {name!r} gave no score for {unscored} answers{why}; they count as 0.")
            values[name] = np.array([0.0 if one is None else next(rows) or 0.0 for one in judged])
    for note in notes[len(report.notes) :]:
        logger.warning("%s: %s", report.label, note)
    return replace(report, values=values, notes=tuple(notes), answers=tuple(answers))


def word_f1(answer: str, reference: str) -> float:
    """Overlap of two texts in words, 0 to 1: the harmonic mean of precision and recall over word counts."""
    mine, theirs = Counter(words(answer)), Counter(words(reference))
    shared = sum((mine & theirs).values())
    return 2 * shared / (sum(mine.values()) + sum(theirs.values())) if shared else 0.0


def _references(dataset: EmbeddingQAFinetuneDataset, query_ids: Sequence[str]) -> list[str | None]:
    """The reference answer of each query; all None where the data set has none."""
    missing = [query for query in query_ids if query not in dataset.reference_answers]
    if missing and len(missing) < len(query_ids):
        raise EvaluationError(
            f"{len(missing)} of {len(query_ids)} queries have no reference answer, for example {missing[0]!r}; "
            "evaluate a `subset` of those that have one."
        )
    return [dataset.reference_answers.get(query) for query in query_ids]


def answer_text(response: Any) -> str:
    """The answer in words; a stream is read to its end, or to where it has been read already."""
    whole = response.get_response() if hasattr(response, "get_response") else response
    return str(whole.response or "") if hasattr(whole, "response") else str(whole)


async def aanswer_text(response: Any) -> str:
    """`answer_text` of what an asynchronous engine returned."""
    whole = response.get_response() if hasattr(response, "get_response") else response
    whole = await whole if inspect.isawaitable(whole) else whole
    return str(whole.response or "") if hasattr(whole, "response") else str(whole)


def _similarities(model: BaseEmbedding, answers: list[str], references: list[str]) -> NDArray[np.float64]:
    from llama_index_embft.embeddings.encoding.encoder import as_encoder

    encoder = as_encoder(model)
    # An empty answer has no meaning to compare; a model would still give it a vector.
    pairs = [encoder.encode_documents([text or " " for text in texts]) for texts in (answers, references)]
    one, two = map(unit_rows, pairs)
    cosine: NDArray[np.float64] = np.clip(np.einsum("ij,ij->i", one, two).astype(np.float64), 0.0, 1.0)
    return np.where([bool(answer.strip()) for answer in answers], cosine, 0.0)


def _to_five(judges: Mapping[str, BaseEvaluator] | None) -> set[str]:
    """The judges that are known to give 1 to 5."""
    from llama_index.core.evaluation import CorrectnessEvaluator

    return {name for name, judge in (judges or {}).items() if isinstance(judge, CorrectnessEvaluator)}


def _on_one_scale(judged: Sequence[_Judgement], *, to_five: bool) -> list[float | None]:
    """Scores in [0, 1]. A 1 is the worst of 1 to 5 and the best of 0 to 1: only all scores together tell which.

    Args:
        judged: What one judge said.
        to_five: It is known to give 1 to 5, whatever these are.
    """
    to_five = to_five or any(one.score is not None and one.score > 1 for one in judged)
    found: list[float | None] = []
    for one in judged:
        if one.score is not None:
            found.append(min(1.0, max(0.0, (one.score - 1) / 4 if to_five else one.score)))
        else:
            found.append(None if one.passing is None else float(one.passing))
    return found
