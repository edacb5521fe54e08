"""Evaluation of a model: embedding, exact search and metrics; against sentence-transformers' evaluator."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
from kit import unit_vectors

if TYPE_CHECKING:
    from kit import Kit


def run(kit: Kit) -> None:
    """Compare metrics over the same vectors with the CPU's, then measure the whole and the search with metrics."""
    from llama_index_embft.evaluation import Judgements, find_hits, metric_names, score_hits
    from llama_index_embft.search import top_k

    def scores(n_queries: int, n_docs: int, dim: int, k: int, device: str) -> dict[str, np.ndarray]:
        corpus = unit_vectors(n_docs, dim, seed=11)
        wanted = np.arange(n_queries) * (n_docs // n_queries)
        queries = corpus[wanted] + 1.5 * unit_vectors(n_queries, dim, seed=12)
        judged = Judgements(np.arange(n_queries + 1), wanted, np.ones(n_queries))
        start = time.perf_counter()
        rows = top_k(queries, corpus, k, device=device).rows
        result = score_hits(find_hits(rows, judged, n_docs), judged, metric_names())
        seconds["search and metrics"] = time.perf_counter() - start
        return result

    seconds: dict[str, float] = {}
    here, there = (scores(50, 500, 32, 10, device) for device in (kit.device, kit.reference_device()))
    off = max(float(np.abs(here[name] - there[name]).max()) for name in there)
    kit.check("evaluation: largest difference of a metric of a query to the CPU's", off, 0)
    kit.check("evaluation: not all the same", float(np.ptp(there["ndcg@10"])), 0.1, at_least=True)

    n_queries, n_docs, dim = kit.size(100_000, 60), kit.size(500_000, 600), kit.size(384, 32)
    scores(n_queries, n_docs, dim, 10, kit.device)
    kit.add(what=f"search and metrics, {n_queries} x {n_docs} x {dim}", seconds=seconds["search and metrics"])
    if kit.has_time_for("evaluate_embed_model", 0.5):
        _whole(kit)


def _whole(kit: Kit) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

    from llama_index_embft.evaluation import evaluate_embed_model

    data = kit.dataset(kit.size(4000, 20))
    model = SentenceTransformer(kit.model_folder("bge-small"), device=kit.device)
    start = time.perf_counter()
    report = evaluate_embed_model(data, model, cache=None, device=kit.device)
    kit.sync()
    ours = time.perf_counter() - start
    shape = f"bge-small shape, {len(data.queries)} questions and passages"
    kit.add(what="evaluate_embed_model", shape=shape, seconds=ours)
    if not (kit.peer and kit.has_time_for("InformationRetrievalEvaluator", 0.3)):
        return
    relevant = {query: set(docs) for query, docs in data.relevant_docs.items()}
    peer = InformationRetrievalEvaluator(data.queries, data.corpus, relevant, ndcg_at_k=[10], write_csv=False)
    start = time.perf_counter()
    found = peer(model)
    kit.sync()
    seconds = time.perf_counter() - start
    kit.add(
        **{"what": "InformationRetrievalEvaluator", "shape": shape, "seconds": seconds, "times ours": seconds / ours}
    )
    key = next(name for name in found if name.endswith("cosine_ndcg@10"))
    kit.check(
        "evaluation: nDCG@10, difference to sentence-transformers", abs(found[key] - report.mean("ndcg@10")), 0.01
    )
