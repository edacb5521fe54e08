"""Whole retrieval systems on one data set: lexical, dense, hybrid, each with and without a re-ranker, in one table."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from llama_index_embft._core.checks import check_choice, check_number
from llama_index_embft.errors import ConfigError
from llama_index_embft.evaluation.comparing import compare
from llama_index_embft.evaluation.metrics import (
    DEFAULT_KS,
    FAMILIES,
    Judgements,
    metric_names,
    parse_metric,
    rank_order,
)
from llama_index_embft.evaluation.records import RetrievalReport
from llama_index_embft.evaluation.runs import (
    Rankings,
    carried_over,
    check_depth,
    fuse_runs,
    report_on,
    retrieval_metrics,
    task_of,
)
from llama_index_embft.evaluation.systems.embed_model import evaluate_embed_model
from llama_index_embft.evaluation.systems.retriever import evaluate_retriever
from llama_index_embft.evaluation.tasks import RetrievalTask, corpus_text, hash_of, text_in_words
from llama_index_embft.search.lexical import LexicalIndex

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.evaluation.comparison import Comparison
    from llama_index_embft.evaluation.tasks import IndexedText


def compare_systems(
    dataset: EmbeddingQAFinetuneDataset,
    systems: Mapping[str, Any],
    *,
    hybrids: Mapping[str, Sequence[str]] | None = None,
    rerankers: Mapping[str, Any] | None = None,
    depth: int = 50,
    ks: int | Iterable[int] = DEFAULT_KS,
    metrics: str | Iterable[str] = FAMILIES,
    show_progress: bool = False,
    ignore_identical: bool = True,
    **options: Any,
) -> Comparison:
    """Evaluate several systems, their hybrids, and each with each re-ranker, and compare all with the first.

    Args:
        dataset: Queries, corpus and judgements.
        systems: Name -> an embedding model, a LlamaIndex retriever, ``"bm25"``, or a
            `RetrievalReport` that exists already. The first one is the base of the comparison.
        hybrids: Name -> the names of two or more systems to fuse by reciprocal rank.
        rerankers: Name -> a LlamaIndex node postprocessor, a sentence-transformers ``CrossEncoder``, or a function of
            query and texts that returns scores. Each is run on every system and hybrid.
        depth: Hits of each system that are fused and re-ranked.
        ks: Cut-offs, or one.
        metrics: Families or full names.
        show_progress: Show progress bars.
        ignore_identical: A hit that is the query's own text is left out; see `evaluate_run`.
        **options: Passed to `compare`: ``primary``, ``slices``, ``guard``, …

    Raises:
        ConfigError: There are fewer than two systems, or a hybrid names one that does not exist.
    """
    names = metric_names(ks, metrics)
    depth = max([depth, *(parse_metric(name)[1] or 1 for name in names)])
    asked: dict[str, Any] = {"metrics": names, "ignore_identical": ignore_identical}
    reports = {name: _evaluate(dataset, system, name, depth, asked, show_progress) for name, system in systems.items()}
    for name, parts in (hybrids or {}).items():
        missing = [part for part in parts if part not in reports]
        if missing:
            raise ConfigError(f"Hybrid {name!r} is made of {missing[0]!r}, which is none of {', '.join(reports)}.")
        reports[name] = fuse_runs([reports[part] for part in parts], label=name)
    for reranker_name, reranker in (rerankers or {}).items():
        for name, report in list(reports.items()):
            if name in systems or name in (hybrids or {}):
                label = f"{name} + {reranker_name}"
                reports[label] = rerank_run(dataset, report, reranker, label=label, show_progress=show_progress)
    if len(reports) < 2:
        raise ConfigError(
            f"There is only {next(iter(reports), 'nothing')} to compare; give two systems or a re-ranker."
        )
    return compare(*reports.values(), **options)


def evaluate_bm25(
    dataset: EmbeddingQAFinetuneDataset,
    *,
    ks: int | Iterable[int] = DEFAULT_KS,
    metrics: str | Iterable[str] = FAMILIES,
    top_k: int | None = None,
    label: str = "BM25",
    metadata_mode: IndexedText = "embed",
    ignore_identical: bool = True,
) -> RetrievalReport:
    """Evaluate BM25, the lexical baseline that no embedding model should lose to.

    Words are cut as `search.terms` does. Documents that share no word with the query are not returned.

    Args:
        dataset: Queries, corpus and judgements.
        ks: Cut-offs, or one.
        metrics: Families or full names.
        top_k: Hits to keep per query; None: as many as the metrics need.
        label: Name in tables.
        metadata_mode: ``"embed"`` searches the text that the index embeds, ``"none"`` the text alone.
        ignore_identical: A hit that is the query's own text is left out; see `evaluate_run`.

    Raises:
        ConfigError: `top_k` is less than a metric looks at.
    """
    names = metric_names(ks, metrics)
    check_choice("metadata_mode", metadata_mode, ("embed", "none"))
    task = RetrievalTask.of(dataset, ignore_identical=ignore_identical)
    judged = dict(zip(task.query_ids, task.relevant, strict=True))
    depth = check_depth(top_k, names, Judgements.from_qrels(judged, task.query_ids, {}))
    spare = max(map(len, task.own), default=0)
    ids = sorted(dataset.corpus, reverse=True)  # the lower row wins a tie: trec_eval's order
    texts = {doc: corpus_text(dataset, doc, metadata_mode) for doc in ids}
    start = time.perf_counter()
    index = LexicalIndex.build(texts)
    built = time.perf_counter()
    found, scores, latencies = [], [], []
    for query in dataset.queries.values():
        begin = time.perf_counter()
        rows, values = index.search([query], depth + spare)
        best = rows[0] >= 0
        found.append(tuple(ids[row] for row in rows[0][best]))
        scores.append(tuple(values[0][best].tolist()))
        latencies.append(time.perf_counter() - begin)
    seconds = {"index": built - start, "search": sum(latencies)}
    rankings = Rankings(tuple(found), tuple(scores), tuple(latencies), seconds, depth=depth)
    task = replace(task, corpus_hash=hash_of([ids, list(texts.values())]), text=text_in_words(dataset, metadata_mode))
    return report_on(task, rankings, ks=(), metrics=names, label=label)


def rerank_run(
    dataset: EmbeddingQAFinetuneDataset,
    report: RetrievalReport,
    reranker: Any,
    *,
    top_n: int | None = None,
    label: str | None = None,
    metadata_mode: IndexedText = "none",
    show_progress: bool = False,
) -> RetrievalReport:
    """Put the hits of a report into the order of a re-ranker.

    Args:
        dataset: Gives the texts.
        report: The first stage, with hits deep enough to be worth re-ranking (``top_k=50``).
        reranker: A LlamaIndex node postprocessor, a sentence-transformers ``CrossEncoder``, or a function of query and
            texts that returns a score a text.
        top_n: Hits to re-rank per query; the others keep their order below them. None: all.
        label: Name in tables.
        metadata_mode: Which text the re-ranker reads.
        show_progress: Show a progress bar.

    Raises:
        ConfigError: `reranker` is none of these, a hit is not in the data set, or ``top_n`` is below 1.
    """
    from tqdm.auto import tqdm

    check_choice("metadata_mode", metadata_mode, ("embed", "none"))
    if top_n is not None:
        check_number("top_n", top_n, at_least=1)
    order = _reranker(reranker)
    stranger = next((doc for hits in report.hit_ids for doc in hits if doc not in dataset.corpus), None)
    if stranger is not None:
        raise ConfigError(f"The hit {stranger!r} of {report.label!r} is not in the data set, so its text is not known.")
    found, scores, latencies = [], [], []
    name = label or f"{report.label} + re-ranker"
    bar = tqdm(total=len(report.queries), desc=name, unit="query", delay=1.0, disable=not show_progress)
    for query, ids, previous in zip(report.queries, report.hit_ids, report.hit_scores, strict=True):
        begin = time.perf_counter()
        head, tail = ids[:top_n], ids[top_n:] if top_n is not None else ()
        texts = [corpus_text(dataset, doc, metadata_mode) for doc in head]
        ranked = order(query, list(head), texts, previous) if head else []
        found.append((*(doc for doc, _ in ranked), *tail))
        # Scores of the two stages have different scales: below the re-ranked part there are none to give.
        scores.append(tuple(score for _, score in ranked) if not tail else ())
        latencies.append(time.perf_counter() - begin)
        bar.update(1)
    bar.close()
    total = tuple(a + b for a, b in zip(report.latencies, latencies, strict=True)) if report.latencies else ()
    rankings = Rankings(
        tuple(found), tuple(scores), total, {**report.seconds, "re-rank": sum(latencies)}, report.errors, report.notes
    )
    # A re-ranker that returns fewer hits than it got may have cut off what a metric would look at.
    cut = max(map(len, found)) < max(map(len, report.hit_ids))
    shallow: Literal["note", "keep"] = "note" if cut else "keep"
    made = report_on(task_of(report), rankings, metrics=retrieval_metrics(report), label=name, shallow=shallow)
    return carried_over(made, report)


def _evaluate(
    dataset: EmbeddingQAFinetuneDataset,
    system: Any,
    name: str,
    depth: int,
    asked: dict[str, Any],
    show_progress: bool,
) -> RetrievalReport:
    from llama_index.core.base.base_retriever import BaseRetriever

    if isinstance(system, RetrievalReport):
        return replace(system, label=name)
    if isinstance(system, BaseRetriever):
        return evaluate_retriever(dataset, system, label=name, show_progress=show_progress, **asked)
    if isinstance(system, str):
        if system.lower() != "bm25":
            raise ConfigError(f"System {name!r} is {system!r}: give a model, a retriever, a report, or 'bm25'.")
        return evaluate_bm25(dataset, top_k=depth, label=name, **asked)
    return evaluate_embed_model(dataset, system, top_k=depth, label=name, show_progress=show_progress, **asked)


def _reranker(reranker: Any) -> Callable[[str, list[str], list[str], Sequence[float]], list[tuple[str, float]]]:
    """One way to call any kind of re-ranker: query, ids, texts and first scores in; ids and new scores out."""
    from llama_index.core.postprocessor.types import BaseNodePostprocessor

    if isinstance(reranker, BaseNodePostprocessor):
        return lambda query, ids, texts, first: _postprocess(reranker, query, ids, texts, first)
    if hasattr(reranker, "predict"):

        def score(query: str, texts: list[str]) -> Any:
            return reranker.predict([(query, text) for text in texts], show_progress_bar=False)

    elif callable(reranker):
        score = reranker
    else:
        raise ConfigError(
            f"Expected a node postprocessor, a CrossEncoder or a function as re-ranker, got {type(reranker).__name__}."
        )

    def by_score(query: str, ids: list[str], texts: list[str], _: Sequence[float]) -> list[tuple[str, float]]:
        values = np.asarray(score(query, texts), dtype=float).ravel()
        if len(values) != len(ids):
            raise ConfigError(
                f"The re-ranker returned {len(values)} scores for {len(ids)} texts; it must give one each."
            )
        return [(ids[i], float(values[i])) for i in rank_order(ids, values)]

    return by_score


def _postprocess(
    reranker: Any, query: str, ids: list[str], texts: list[str], first: Sequence[float]
) -> list[tuple[str, float]]:
    from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

    # Where the first stage gives no scores its nodes have none, as in use.
    scores: Sequence[float | None] = first[: len(ids)] or [None] * len(ids)
    nodes = [
        NodeWithScore(node=TextNode(id_=doc, text=text), score=score)
        for doc, text, score in zip(ids, texts, scores, strict=True)
    ]
    found = reranker.postprocess_nodes(nodes, query_bundle=QueryBundle(query))
    kept = dict.fromkeys(node.node.node_id for node in found)  # each once, at its best place
    # Its order is what users get, whatever scores it leaves; falling ones carry that order.
    return [(doc, float(len(kept) - i)) for i, doc in enumerate(kept)]
