"""Evaluate any LlamaIndex retriever, query by query, as its users meet it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from llama_index_embft._core.checks import check_number, first_line
from llama_index_embft.errors import EvaluationError
from llama_index_embft.evaluation.metrics import DEFAULT_KS, FAMILIES, metric_names
from llama_index_embft.evaluation.runs import Rankings, report_on
from llama_index_embft.evaluation.systems.matching import Match, Matcher
from llama_index_embft.evaluation.systems.seen import mark_seen
from llama_index_embft.evaluation.tasks import RetrievalTask, hash_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence

    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from llama_index.core.schema import NodeWithScore

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.evaluation.records import RetrievalReport

_Ranking = tuple[tuple[str, ...], tuple[float, ...]]

T = TypeVar("T")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RetrieverResponse:
    """What came back for one query."""

    nodes: Sequence[NodeWithScore]
    seconds: float
    error: Exception | None = None


def evaluate_retriever(
    dataset: EmbeddingQAFinetuneDataset,
    retriever: BaseRetriever,
    *,
    ks: int | Iterable[int] = DEFAULT_KS,
    metrics: str | Iterable[str] = FAMILIES,
    label: str | None = None,
    match: Match = "id",
    postprocessors: Sequence[BaseNodePostprocessor] = (),
    num_workers: int = 1,
    show_progress: bool = False,
    ignore_identical: bool = True,
) -> RetrievalReport:
    """Ask a retriever every query of a data set and score what it returns.

    The order it returns is the ranking; only neighbours with equal scores are put in trec_eval's order (id,
    descending), so that luck decides nothing. A query that fails scores 0, counts, and stands in the report's
    ``errors``. A node that comes twice counts once, at its best place.

    Args:
        dataset: Queries and judgements.
        retriever: Any LlamaIndex retriever: vector, BM25, fusion, auto-merging, … Let it return at least ``max(ks)``:
            metrics are named by what was measured, ``"ndcg@2"`` where it never returned more than two.
        ks: Cut-offs, or one.
        metrics: Families or full names.
        label: Name in tables; None: the class name.
        match: How nodes are told: by ``"id"``; by ``"text"``, where the index was built from other nodes of the same
            texts; by source ``"document"``, where chunks differ (judgements then are about documents); or a function
            from a node to its id, its ids, or None.
        postprocessors: Run on each result, in order: re-rankers, filters.
        num_workers: Queries asked at the same time, in threads. 1 suits models that run here; more suit remote ones.
        show_progress: Show a progress bar.
        ignore_identical: A hit that is the query's own text is left out and counted; see `evaluate_run`.

    Raises:
        EvaluationError: Every query failed, or no node returned is in the data set.
        ConfigError: An argument has a value that is not allowed.
    """
    run = RetrieverRun(dataset, retriever, ks, metrics, label, match, num_workers, ignore_identical)
    ask = partial(_ask, retriever, postprocessors, waits=False)
    start = time.perf_counter()
    return run.report(in_threads(ask, run.task.queries, num_workers, show_progress), time.perf_counter() - start)


async def aevaluate_retriever(
    dataset: EmbeddingQAFinetuneDataset,
    retriever: BaseRetriever,
    *,
    ks: int | Iterable[int] = DEFAULT_KS,
    metrics: str | Iterable[str] = FAMILIES,
    label: str | None = None,
    match: Match = "id",
    postprocessors: Sequence[BaseNodePostprocessor] = (),
    num_workers: int = 8,
    show_progress: bool = False,
    ignore_identical: bool = True,
) -> RetrievalReport:
    """`evaluate_retriever`, asynchronous: up to `num_workers` queries are on their way at the same time.

    Arguments and errors are those of `evaluate_retriever`.
    """
    run = RetrieverRun(dataset, retriever, ks, metrics, label, match, num_workers, ignore_identical)
    ask = partial(_ask, retriever, postprocessors, waits=True)
    start = time.perf_counter()
    answers = await gather(map(ask, run.task.queries), len(run.task.queries), num_workers, show_progress)
    return run.report(answers, time.perf_counter() - start)


async def _ask(
    retriever: BaseRetriever, postprocessors: Sequence[BaseNodePostprocessor], text: str, *, waits: bool
) -> RetrieverResponse:
    """One query; ``waits`` says by which of LlamaIndex' two ways."""
    from llama_index.core.schema import QueryBundle

    start, bundle = time.perf_counter(), QueryBundle(text)
    try:
        nodes = await retriever.aretrieve(text) if waits else retriever.retrieve(text)
        for one in postprocessors:
            if waits:
                nodes = await one.apostprocess_nodes(nodes, query_bundle=bundle)
            else:
                nodes = one.postprocess_nodes(nodes, query_bundle=bundle)
    except Exception as err:  # noqa: BLE001  # whatever a store or model raises: it is counted and shown
        return RetrieverResponse((), time.perf_counter() - start, err)
    return RetrieverResponse(nodes, time.perf_counter() - start)


class RetrieverRun:
    """What the synchronous and the asynchronous way share: checks before, bookkeeping after."""

    def __init__(
        self,
        dataset: EmbeddingQAFinetuneDataset,
        retriever: Any,
        ks: int | Iterable[int],
        metrics: str | Iterable[str],
        label: str | None,
        match: Match,
        num_workers: int,
        ignore_identical: bool = True,
        shallow: Literal["rename", "note"] = "rename",
    ) -> None:
        check_number("num_workers", num_workers, at_least=1)
        if not dataset.queries:
            raise EvaluationError("The data set has no query; evaluation needs at least one.")
        self.names = metric_names(ks, metrics)  # before the work: a typing error must not cost an hour
        self.matcher = Matcher(dataset, match)
        task = RetrievalTask.of(dataset, ignore_identical=ignore_identical)
        self.task = _by_document(task, dataset) if match == "document" else task
        self.label = label or type(retriever).__name__
        self._dataset, self._system = dataset, retriever
        self._shallow = shallow
        self.unknown = ""

    def report(self, answers: Sequence[RetrieverResponse], seconds: float) -> RetrievalReport:
        """Score the answers; `seconds` is the time all of them took together."""
        counts: Counter[str] = Counter()
        found = [
            self._ranking(answer.nodes, relevant, counts)
            for answer, relevant in zip(answers, self.task.relevant, strict=True)
        ]
        errors = {
            query: f"{type(answer.error).__name__}: {first_line(answer.error)}"
            for query, answer in zip(self.task.query_ids, answers, strict=True)
            if answer.error is not None
        }
        if len(errors) == len(answers):
            raise EvaluationError(
                f"All {len(answers)} queries failed; the first one: {next(iter(errors.values()))}"
            ) from answers[0].error
        if counts["nodes"] and counts["unknown"] == counts["nodes"]:
            raise EvaluationError(
                f"None of the {counts['nodes']} nodes that {self.label} returned is in the data set (first: "
                f"{self.unknown!r}); if the index was built from other nodes, use match='text' or match='document'."
            )
        rankings = Rankings(
            ids=tuple(ids for ids, _ in found),
            scores=tuple(scores for _, scores in found),
            latencies=tuple(answer.seconds for answer in answers),
            seconds={"retrieve": seconds},
            errors=errors,
            notes=self._notes(counts),
            # Hits that were counted once, at their best place, were returned all the same.
            depth=max(1, *(len(answer.nodes) for answer in answers), *(len(ids) for ids, _ in found)),
        )
        for note in rankings.notes:
            logger.warning("%s: %s", self.label, note)
        if errors:
            logger.warning(
                "%s: %d queries failed and score 0 (first: %s).", self.label, len(errors), next(iter(errors.values()))
            )
        report = report_on(self.task, rankings, label=self.label, ks=(), metrics=self.names, shallow=self._shallow)
        for note in report.notes[len(rankings.notes) :]:
            logger.warning("%s: %s", self.label, note)
        return mark_seen(report, self._dataset, self._system)

    def _ranking(self, nodes: Sequence[NodeWithScore], relevant: Mapping[str, int], counts: Counter[str]) -> _Ranking:
        best: dict[str, float | None] = {}
        for node in nodes:
            ids = self.matcher(node)
            counts["nodes"] += 1
            if not any(doc in self.matcher.known for doc in ids):
                counts["unknown"] += 1
                self.unknown = self.unknown or (ids[0] if ids else node.node.node_id)
            if len(ids) > 1:
                # All of it stands at this place: what answers the query counts, and which of the rest comes first
                # would only be luck.
                counts["several"] += 1
                ids = sorted((doc for doc in ids if doc in relevant), key=lambda doc: -relevant[doc]) or ids[:1]
            for doc in ids:
                if doc in best:
                    counts["repeated"] += 1
                else:
                    best[doc] = node.score
        scores = list(best.values())
        if any(score is None or np.isnan(score) for score in scores):
            # Some retrievers give no scores; a NaN is none either. The order returned still stands.
            counts["no number"] += sum(score is not None for score in scores if score is None or np.isnan(score))
            return tuple(best), ()
        return _settle_ties(list(best), [float(score) for score in scores if score is not None])

    def _notes(self, counts: Counter[str]) -> tuple[str, ...]:
        notes = []
        if counts["unknown"]:
            notes.append(
                f"{counts['unknown']} of {counts['nodes']} nodes returned are not in the data set and count as not "
                f"relevant (first: {self.unknown!r})."
            )
        if counts["repeated"]:
            notes.append(f"{counts['repeated']} repeated hits were counted once, at their best place.")
        if counts["several"]:
            notes.append(
                f"{counts['several']} nodes hold several entries of the corpus; such a node counts as those that are "
                "relevant to the query, else as one."
            )
        if counts["no number"]:
            notes.append(f"{counts['no number']} scores are not a number; the order returned was kept.")
        return tuple(notes)


def _settle_ties(ids: list[str], scores: list[float]) -> _Ranking:
    """Put neighbours with equal scores in descending order of id."""
    single = np.asarray(scores, dtype=np.float32)
    group = np.concatenate([[0], np.cumsum(single[1:] != single[:-1])])
    order = sorted(range(len(ids)), key=lambda i: ids[i], reverse=True)
    order.sort(key=lambda i: int(group[i]))
    return tuple(ids[i] for i in order), tuple(scores[i] for i in order)


def _by_document(task: RetrievalTask, dataset: EmbeddingQAFinetuneDataset) -> RetrievalTask:
    """The same queries, judged by source document: a document is as relevant as its best chunk."""
    relevant = []
    for judged in task.relevant:
        grades: dict[str, int] = {}
        for chunk, grade in judged.items():
            document = dataset.source_documents.get(chunk, chunk)
            grades[document] = max(grade, grades.get(document, 0))
        relevant.append(grades)
    return replace(
        task,
        relevant=tuple(relevant),
        corpus_size=len({dataset.source_documents.get(doc, doc) for doc in dataset.corpus}),
        data_hash=hash_of([task.query_ids, task.queries, relevant]),
        text="source documents, found by any of their chunks",
        own=(),
    )


def progress(found: Iterable[T], total: int, show: bool, what: str = "Retrieving") -> Iterable[T]:
    """Pass results on, with a progress bar if wanted."""
    from tqdm.auto import tqdm

    with tqdm(total=total, desc=what, unit="query", delay=1.0, disable=not show) as bar:
        for result in found:
            bar.update(1)
            yield result


def in_threads(
    ask: Callable[[str], Coroutine[Any, Any, T]], texts: Sequence[str], num_workers: int, show: bool
) -> list[T]:
    """Results, in order, of coroutines that wait for nothing; one by one in this thread if `num_workers` is 1."""

    def answer(text: str) -> T:
        return finished(ask(text))

    if num_workers == 1:
        return list(progress(map(answer, texts), len(texts), show))
    with ThreadPoolExecutor(num_workers) as pool:
        return list(progress(pool.map(answer, texts), len(texts), show))


def finished(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that waits for nothing; no event loop is needed."""
    try:
        work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise AssertionError("the coroutine waits for something")


async def gather(
    work: Iterable[Coroutine[Any, Any, T]], total: int, num_workers: int, show: bool, what: str = "Retrieving"
) -> list[T]:
    """Results in order; at most `num_workers` are waited for at the same time."""
    from tqdm.auto import tqdm

    gate = asyncio.Semaphore(num_workers)
    with tqdm(total=total, desc=what, unit="query", delay=1.0, disable=not show) as bar:

        async def one(waiting: Coroutine[Any, Any, T]) -> T:
            async with gate:
                result = await waiting
            bar.update(1)
            return result

        return list(await asyncio.gather(*map(one, work)))
