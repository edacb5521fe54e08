"""How much of a full re-embed's recall does each drift map keep, and what does it cost beside re-embedding?

    python benchmarks/drift.py --new path/to/full-tuned-model     # MiniLM -> the tuned model
    python benchmarks/drift.py                                    # MiniLM -> MiniLM turned, bent and cut to 256

The 10-K filing of Uber with its LLM-written questions: all passages are indexed by the old model; each map is fitted
on them (and on the questions of the fit share, as both models embed them) and measured on a fifth of the
questions that neither fit nor choice has seen. "kept" takes the new model's hits over its own vectors as truth;
"recall" is of the labelled passages. "none" sends the new model's queries to the old index as they are.
"""

from __future__ import annotations

import os
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from typing import Any

import numpy as np
from _common import minilm, parser, print_table, write_results
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr


class TurnedEmbedding(BaseEmbedding):
    """A stand-in for another provider's model: rotated, bent, cut to fewer dimensions."""

    dim: int = 256
    _base: Any = PrivateAttr()
    _rotation: Any = PrivateAttr()

    def __init__(self, base: BaseEmbedding, dim: int) -> None:
        super().__init__(model_name=f"turned to {dim}", dim=dim)
        self._base = base
        self._rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(384, 384)))[0][:, :dim]

    def _turn(self, vectors: list[list[float]]) -> list[list[float]]:
        x = np.asarray(vectors, dtype=np.float32) @ self._rotation
        x = x + 0.3 * np.abs(x) ** 1.5
        return (x / np.linalg.norm(x, axis=1, keepdims=True)).tolist()

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._turn([self._base.get_query_embedding(query)])[0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._turn([self._base.get_text_embedding(text)])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._turn(self._base.get_text_embedding_batch(texts))


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--new", help="folder of the new model; default: MiniLM turned")
    options.add_argument("--data", default="uber_10k_2021.json")
    options.add_argument("--dim", type=int, default=256, help="of the turned model")
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--limit", type=int, help="passages, for a quick try")
    args = options.parse_args()

    from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
    from llama_index_embft.embeddings import as_encoder, load_embed_model
    from llama_index_embft.finetune import DriftAdapter

    old = load_embed_model(minilm(), device=args.device)
    new = load_embed_model(args.new, device=args.device) if args.new else TurnedEmbedding(old, args.dim)
    dataset = EmbeddingQAFinetuneDataset.from_json(args.data_dir / args.data)
    if args.limit:
        dataset = _first(dataset, args.limit)
    started = time.perf_counter()
    as_encoder(new, cache=None).encode_documents(list(dataset.corpus.values()))
    reembed = time.perf_counter() - started

    rows = []
    for seed in range(args.seeds):
        drift = DriftAdapter.fit(old, new, dataset, seed=seed)
        report = drift.report
        rows += [
            {
                "seed": seed,
                "map": score.kind + (" (chosen)" if score.kind == report.kind else ""),
                "kept@10": score.kept,
                "ci95": f"{score.ci95[0]:.3f} to {score.ci95[1]:.3f}",
                "recall@10": score.recall,
                "of full re-embed": score.recall / report.full_recall if report.full_recall else None,
                "fit s": score.fit_seconds,
            }
            for score in report.scores
        ]
        rows.append({"seed": seed, "map": "full re-embed", "kept@10": 1.0, "recall@10": report.full_recall})
        rows.append({"seed": seed, "map": "old model", "recall@10": report.old_recall})
    print_table(rows)
    query = np.asarray([new.get_query_embedding("what was revenue in 2021?")], dtype=np.float32)
    started = time.perf_counter()
    for _ in range(1000):
        drift(query)
    micros = (time.perf_counter() - started) * 1000
    print(f"\nre-embedding {len(dataset.corpus):,} passages: {reembed:.1f} s; mapping a query: {micros:.0f} µs")
    write_results(
        "drift",
        rows,
        device=args.device,
        new="tuned model" if args.new else f"MiniLM turned to {args.dim}",
        passages=len(dataset.corpus),
        queries=report.queries,
        reembed_seconds=reembed,
        query_microseconds=micros,
    )


def _first(dataset: Any, n: int) -> Any:
    corpus = dict(list(dataset.corpus.items())[:n])
    queries = {q: text for q, text in dataset.queries.items() if set(dataset.relevant_docs[q]) <= set(corpus)}
    relevant = {q: dataset.relevant_docs[q] for q in queries}
    return type(dataset)(queries=queries, corpus=corpus, relevant_docs=relevant)


if __name__ == "__main__":
    main()
