"""Evaluation: against the tutorial's loop, against ranx, and the cost of honest statistics.

    python benchmarks/evaluate.py            # all three parts
    python benchmarks/evaluate.py --part uber --rounds 3

uber       Uber's 10-K, 790 queries over 395 passages, all-MiniLM-L6-v2. The tutorial's way (a `VectorStoreIndex` over
           the corpus, `retriever.retrieve` for each query), `evaluate_embed_model`, and the floor: embedding each
           distinct text once in plain batches of the model's own `encode`. Each starts from an empty cache; the order
           rotates by round and the medians are reported. The hits of both must be the same.
metrics    Metrics of 100,000 queries with 1,000 hits each, from rows of ids, against ranx on its fastest input (numba
           lists), compiled and warm. One relevant document a query, and up to twenty.
bootstrap  10,000 resamples of 10,000 queries, one metric and 24.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from _common import minilm, parser, print_table, write_results


def uber(folder: Path, device: str, rounds: int) -> list[dict]:
    from llama_index.core import VectorStoreIndex
    from llama_index.core.schema import TextNode
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding

    from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
    from llama_index_embft.embeddings import EmbeddingCache
    from llama_index_embft.evaluation import evaluate_embed_model

    dataset = EmbeddingQAFinetuneDataset.from_json(folder / "uber_10k_2021.json")
    model = HuggingFaceEmbedding(minilm(), device=device)
    sentence_transformer = model._model
    sentence_transformer.encode(["warm up"] * 32)
    hits: dict[str, list[tuple[str, ...]]] = {}

    def tutorial() -> None:
        nodes = [TextNode(id_=doc, text=text) for doc, text in dataset.corpus.items()]
        index = VectorStoreIndex(nodes, embed_model=model)
        retriever = index.as_retriever(similarity_top_k=10)
        hits["tutorial"] = [
            tuple(node.node.node_id for node in retriever.retrieve(query)) for query in dataset.queries.values()
        ]

    def ours() -> None:
        with tempfile.TemporaryDirectory() as fresh:
            report = evaluate_embed_model(dataset, model, cache=EmbeddingCache(Path(fresh) / "cache"))
        hits["ours"] = list(report.hit_ids)

    def floor() -> None:
        for texts in (dataset.queries, dataset.corpus):
            distinct = list(dict.fromkeys(texts.values()))
            sentence_transformer.encode(distinct, batch_size=32, convert_to_numpy=True, show_progress_bar=False)

    ways = {"tutorial loop": tutorial, "evaluate_embed_model": ours, "embedding once, batches of 32": floor}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    order = list(ways)
    for turn in range(rounds):
        for name in order[turn % 3 :] + order[: turn % 3]:
            start = time.perf_counter()
            ways[name]()
            seconds[name].append(time.perf_counter() - start)
    same = [mine == theirs for mine, theirs in zip(hits["ours"], hits["tutorial"], strict=True)]
    same_sets = [set(mine) == set(theirs) for mine, theirs in zip(hits["ours"], hits["tutorial"], strict=True)]
    best = statistics.median(seconds["embedding once, batches of 32"])
    return [
        {
            "part": "uber",
            "what": name,
            "seconds": statistics.median(times),
            "spread": max(times) - min(times),
            "times the floor": statistics.median(times) / best,
            "same hits in order": f"{sum(same)}/{len(same)}" if name == "evaluate_embed_model" else None,
            "same hits": f"{sum(same_sets)}/{len(same)}" if name == "evaluate_embed_model" else None,
        }
        for name, times in seconds.items()
    ]


def metrics(n_queries: int, depth: int, rounds: int) -> list[dict]:
    import ranx
    from numba.typed import List

    from llama_index_embft.evaluation import Judgements, find_hits, score_hits

    rng = np.random.default_rng(0)
    n_docs = 1_000_000
    rows = np.empty((n_queries, depth), dtype=np.int64)
    for row in rows:  # a stride that shares no factor with n_docs never meets the same document twice
        row[:] = (rng.integers(n_docs) + np.arange(depth) * (10 * int(rng.integers(n_docs // 10)) + 1)) % n_docs
    names = [f"{name}@{k}" for k in (10, depth) for name in ("hit_rate", "mrr", "ndcg", "map", "recall", "precision")]
    table = []
    for most in (1, 20):
        counts = rng.integers(1, most + 1, n_queries) if most > 1 else np.ones(n_queries, dtype=np.int64)
        found = [rng.choice(depth, size=count, replace=False) for count in counts]
        judged = [rows[q, places] for q, places in enumerate(found)]
        grades = [rng.integers(1, 4, len(docs)).astype(float) for docs in judged]
        order = [np.argsort(-grade, kind="stable") for grade in grades]
        offsets = np.concatenate([[0], np.cumsum(counts)])
        judgements = Judgements(
            offsets,
            np.concatenate([docs[o] for docs, o in zip(judged, order, strict=True)]),
            np.concatenate([grade[o] for grade, o in zip(grades, order, strict=True)]),
        )

        def ours(judgements: Judgements = judgements) -> dict:
            return score_hits(find_hits(rows, judgements, n_docs), judgements, names)

        # ranx's own compiled input: one (n, 2) array of id and grade or score a query, best first
        falling = np.arange(depth, 0, -1, dtype=float)
        run = List([np.column_stack([row, falling]) for row in rows])
        qrels = List(
            [np.column_stack([docs[o], grade[o]]) for docs, grade, o in zip(judged, grades, order, strict=True)]
        )

        def theirs(qrels: List = qrels, run: List = run) -> dict:
            return ranx.evaluate(qrels, run, names, return_mean=False)

        ranx.evaluate(qrels[:20], run[:20], names, return_mean=False)  # compile
        seconds: dict[str, list[float]] = {"ours": [], "ranx": []}
        for _ in range(rounds):
            for name, way in (("ours", ours), ("ranx", theirs)):
                start = time.perf_counter()
                result = way()
                seconds[name].append(time.perf_counter() - start)
                if name == "ours":
                    mine = result
        worst = max(float(np.abs(mine[name] - result[name]).max()) for name in names)
        for name, times in seconds.items():
            table.append(
                {
                    "part": "metrics",
                    "what": f"{name}, {n_queries:,} x {depth:,}, {'1' if most == 1 else f'1 to {most}'} relevant",
                    "seconds": statistics.median(times),
                    "spread": max(times) - min(times),
                    "times as fast": statistics.median(seconds["ranx"]) / statistics.median(times),
                    "largest difference": worst,
                }
            )
        del run, qrels
    return table


def bootstrap(rounds: int) -> list[dict]:
    from llama_index_embft.evaluation import paired_tests

    rng = np.random.default_rng(0)
    table = []
    paired_tests(rng.normal(size=(100, 1)))  # scipy is imported at the first call
    for columns in (1, 24):
        differences = rng.normal(0.01, 0.3, size=(10_000, columns))
        times = []
        for _ in range(rounds):
            start = time.perf_counter()
            paired_tests(differences, n_resamples=10_000)
            times.append(time.perf_counter() - start)
        table.append(
            {
                "part": "bootstrap",
                "what": f"interval, randomisation and t-test, 10,000 x 10,000 queries, {columns} metric(s)",
                "seconds": statistics.median(times),
                "spread": max(times) - min(times),
            }
        )
    return table


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--part", choices=["uber", "metrics", "bootstrap"], action="append", help="default: all")
    arguments.add_argument("--rounds", type=int, default=3, help="repeats of each measurement")
    arguments.add_argument("--queries", type=int, default=100_000, help="queries of the metrics part")
    options = arguments.parse_args()
    parts = options.part or ["uber", "metrics", "bootstrap"]
    rows: list[dict] = []
    if "uber" in parts:
        rows += uber(options.data_dir, options.device, options.rounds)
    if "metrics" in parts:
        rows += metrics(options.queries, 1000, options.rounds)
    if "bootstrap" in parts:
        rows += bootstrap(options.rounds)
    for part in parts:
        print()
        print_table([{k: v for k, v in row.items() if k != "part"} for row in rows if row["part"] == part])
    write_results("evaluate", rows, device=options.device)


if __name__ == "__main__":
    main()
