"""Evaluate a query engine: what it retrieved, and what it answered."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from llama_index_embft.errors import EvaluationError
from llama_index_embft.evaluation.metrics import DEFAULT_KS, FAMILIES
from llama_index_embft.evaluation.systems.retriever import Answer, RetrieverRun, progress
from llama_index_embft.evaluation.systems.table import tokens

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from llama_index.core.base.base_query_engine import BaseQueryEngine
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.evaluation import BaseEvaluator
    from numpy.typing import NDArray

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.evaluation.records import RetrievalReport
    from llama_index_embft.evaluation.systems.matching import Match


def evaluate_query_engine(
    dataset: EmbeddingQAFinetuneDataset,
    query_engine: BaseQueryEngine,
    *,
    ks: Iterable[int] = DEFAULT_KS,
    metrics: Iterable[str] = FAMILIES,
    label: str | None = None,
    match: Match = "id",
    embed_model: BaseEmbedding | None = None,
    judges: Mapping[str, BaseEvaluator] | None = None,
    num_workers: int = 1,
    show_progress: bool = False,
) -> RetrievalReport:
    """Ask a query engine every query; score its source nodes, and its answers against the reference answers.

    Besides the retrieval metrics the report holds, where the data set has ``reference_answers``: ``answer_f1``, the
    overlap in words; and with `embed_model` ``answer_similarity``, the cosine of answer and reference (below 0 counts
    as 0). Each judge adds a metric of its name. All of them can be compared like any other metric:
    ``compare(base, tuned, primary="answer_f1")``.

    Args:
        dataset: Queries, judgements, and perhaps reference answers.
        query_engine: Any LlamaIndex query engine; streaming ones are read to the end.
        ks: Cut-offs.
        metrics: Families or full names.
        label: Name in tables; None: the class name.
        match: How source nodes are told; see `evaluate_retriever`.
        embed_model: Compares answers with references by meaning.
        judges: Name -> a LlamaIndex evaluator (faithfulness, relevancy, correctness, …). Its score counts if it is in
            [0, 1]; one of 1 to 5 is scaled to that; without a score, passing counts 1.
        num_workers: Queries asked at the same time, in threads.
        show_progress: Show a progress bar.

    Returns:
        A report with the texts in `answers`. A query that fails has an empty answer and scores 0 everywhere.

    Raises:
        EvaluationError: Every query failed, no source node is in the data set, or a query has no reference answer
            while others have.
    """
    run = RetrieverRun(dataset, query_engine, ks, metrics, label, match, num_workers)
    references = _references(dataset, run.task.query_ids)

    def ask(text: str) -> tuple[Answer, str, list[str]]:
        start = time.perf_counter()
        try:
            response = query_engine.query(text)
            answer = _text_of(response)
        except Exception as err:  # noqa: BLE001  # whatever an engine raises: it is counted and shown
            return Answer((), time.perf_counter() - start, err), "", []
        nodes = response.source_nodes
        return Answer(nodes, time.perf_counter() - start), answer, [node.get_content() for node in nodes]

    total = len(run.task.queries)
    start = time.perf_counter()
    if num_workers == 1:
        found = list(progress(map(ask, run.task.queries), total, show_progress))
    else:
        with ThreadPoolExecutor(num_workers) as pool:
            found = list(progress(pool.map(ask, run.task.queries), total, show_progress))
    report = run.report([answer for answer, _, _ in found], time.perf_counter() - start)

    answers = [text for _, text, _ in found]
    values = dict(report.values)
    notes = list(report.notes)
    if references:
        values["answer_f1"] = np.array([word_f1(*pair) for pair in zip(answers, references, strict=True)])
        if embed_model is not None:
            values["answer_similarity"] = _similarities(embed_model, answers, references)
    for name, judge in (judges or {}).items():
        scores = [
            _judge(judge, query, answer, contexts, references[i] if references else None)
            if query_id not in report.errors
            else 0.0
            for i, (query_id, query, (_, answer, contexts)) in enumerate(
                zip(run.task.query_ids, run.task.queries, found, strict=True)
            )
        ]
        unscored = sum(score is None for score in scores)
        if unscored == len(scores):
            raise EvaluationError(f"The judge {name!r} gave no score for any answer; check its LLM and its prompt.")
        if unscored:
            notes.append(f"The judge {name!r} gave no score for {unscored} answers; they count as 0.")
        values[name] = np.array([score or 0.0 for score in scores])
    return replace(report, values=values, notes=tuple(notes), answers=tuple(answers))


def word_f1(answer: str, reference: str) -> float:
    """Overlap of two texts in words, 0 to 1: the harmonic mean of precision and recall over word counts."""
    mine, theirs = Counter(tokens(answer)), Counter(tokens(reference))
    shared = sum((mine & theirs).values())
    return 2 * shared / (sum(mine.values()) + sum(theirs.values())) if shared else 0.0


def _references(dataset: EmbeddingQAFinetuneDataset, query_ids: Sequence[str]) -> list[str]:
    missing = [query for query in query_ids if query not in dataset.reference_answers]
    if len(missing) == len(query_ids):
        return []
    if missing:
        raise EvaluationError(
            f"{len(missing)} of {len(query_ids)} queries have no reference answer, for example {missing[0]!r}; "
            "evaluate a `subset` of those that have one."
        )
    return [dataset.reference_answers[query] for query in query_ids]


def _text_of(response: Any) -> str:
    """The answer in words; a stream is read to its end."""
    whole = response.get_response() if hasattr(response, "get_response") else response
    return str(whole.response or "") if hasattr(whole, "response") else str(whole)


def _similarities(model: BaseEmbedding, answers: list[str], references: list[str]) -> NDArray[np.float64]:
    from llama_index_embft.embeddings.encoding.encoder import as_encoder

    encoder = as_encoder(model)
    # An empty answer has no meaning to compare; a model would still give it a vector.
    pairs = [encoder.encode_documents([text or " " for text in texts]) for texts in (answers, references)]
    one, two = (vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12) for vectors in pairs)
    cosine: NDArray[np.float64] = np.clip(np.einsum("ij,ij->i", one, two).astype(np.float64), 0.0, 1.0)
    return np.where([bool(answer.strip()) for answer in answers], cosine, 0.0)


def _judge(judge: BaseEvaluator, query: str, answer: str, contexts: list[str], reference: str | None) -> float | None:
    result = judge.evaluate(query=query, response=answer, contexts=contexts, reference=reference)
    if result.score is None or not np.isfinite(result.score):
        return None if result.passing is None else float(result.passing)
    score = float(result.score)
    return min(1.0, max(0.0, (score - 1) / 4 if score > 1 else score))
