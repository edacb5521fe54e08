"""What does a `StackRetriever` cost beside the dense retriever, and how well does each way to cut words search?

    python benchmarks/stack.py                       # latency of retrieve() and of updates, 10,000 nodes
    python benchmarks/stack.py --nodes 100000
    python benchmarks/stack.py --words               # nDCG@10 of BM25 by tokens, on each set that is there

Latency: real passages of the shared sets as nodes of an index in FAISS and of one in memory, with random vectors of 384
dimensions for passages and queries (a search takes the same time whatever stands in them), so that the time to embed a
query, which both pay, is left out. "adds" is the median of the differences between both retrievers on one query, asked
right after each other. Milliseconds are of processor time, which other programs on the machine do not stretch.
"""

from __future__ import annotations

import os
import statistics
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _common import parser, print_table, write_results
from llama_index.core.base.embeddings.base import BaseEmbedding

SETS = {
    "covidqa": "human/covidqa_en.json",
    "norquad": "human/norquad_no.json",
    "cosqa": "human/cosqa_en.json",
    "cranfield": "human/cranfield_en.json",
    "stard": "human/stard_zh_law.json",
    "cmrc": "cmrc2018_dev_zh.json",
    "pubmedqa": "pubmedqa_labeled.json",
    "lyft": "lyft_10k_2021.json",
}
DIM = 384


class RandomEmbedding(BaseEmbedding):
    """A new direction for every text."""

    def _vector(self, text: str) -> list[float]:
        vector = np.random.default_rng(abs(hash(text))).normal(size=DIM)
        return (vector / np.linalg.norm(vector)).tolist()

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._vector(text)

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._vector(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._vector(query)


def load(folder: Path, name: str) -> Any:
    from llama_index_embft.dataset import EmbeddingQAFinetuneDataset

    path = folder / SETS[name]
    return EmbeddingQAFinetuneDataset.from_json(str(path)) if path.exists() else None


def milliseconds(run: Callable[[], Any]) -> float:
    start = time.process_time()
    run()
    return 1000 * (time.process_time() - start)


def latency(folder: Path, n_nodes: int, n_queries: int, store: str) -> dict[str, Any]:
    import faiss
    from llama_index.core import StorageContext, VectorStoreIndex
    from llama_index.core.schema import TextNode

    from llama_index_embft.retrievers import StackRetriever, StackSettings

    datasets = [dataset for name in SETS if (dataset := load(folder, name)) is not None]
    texts = [text for dataset in datasets for text in dataset.corpus.values()]
    queries = [query for dataset in datasets for query in list(dataset.queries.values())[:n_queries]]
    rng = np.random.default_rng(0)
    picked = [texts[i % len(texts)] for i in rng.permutation(max(n_nodes, len(texts)))[:n_nodes]]
    queries = [queries[i] for i in rng.permutation(len(queries))[:n_queries]]
    model = RandomEmbedding(model_name="random")
    nodes = [TextNode(text=text, id_=f"n{i}", embedding=model._vector(f"n{i}")) for i, text in enumerate(picked)]
    context = StorageContext.from_defaults()
    if store == "FAISS":
        from llama_index.vector_stores.faiss import FaissVectorStore

        context = StorageContext.from_defaults(vector_store=FaissVectorStore(faiss.IndexFlatIP(DIM)))
    index = VectorStoreIndex(nodes, embed_model=model, storage_context=context)
    dense = index.as_retriever(similarity_top_k=10)
    stack: StackRetriever | None = None

    def build() -> None:
        nonlocal stack
        stack = StackRetriever(index, StackSettings(dense_weight=0.5))

    built = milliseconds(build)
    assert stack is not None
    words_alone = StackRetriever(index, StackSettings(dense_weight=0), lexical=stack.lexical)
    pairs, alone = [], []
    for query in queries:
        stack.retrieve(query)  # both find the caches of the processor alike
        a, b = milliseconds(lambda q=query: dense.retrieve(q)), milliseconds(lambda q=query: stack.retrieve(q))
        pairs.append((a, b))
        alone.append(milliseconds(lambda q=query: words_alone.retrieve(q)))
    index.insert_nodes([TextNode(text="one more", id_="more", embedding=model._vector("more"))])
    update = milliseconds(lambda: stack.retrieve("one more"))
    return {
        "store": store,
        "nodes": n_nodes,
        "queries": len(queries),
        "dense (ms)": statistics.median(a for a, _ in pairs),
        "stack (ms)": statistics.median(b for _, b in pairs),
        "adds (ms)": statistics.median(b - a for a, b in pairs),
        "adds, p95 (ms)": float(np.quantile([b - a for a, b in pairs], 0.95)),
        "words alone (ms)": statistics.median(alone),
        "build (ms)": built,
        "first query after an insert (ms)": update,
    }


def words_table(folder: Path, n_queries: int) -> list[dict[str, Any]]:
    """nDCG@10 of BM25 by way to cut words; questions of each set's test split where it names documents."""
    import bm25s

    from llama_index_embft.dataset import split_dataset
    from llama_index_embft.evaluation import evaluate_run
    from llama_index_embft.search import LexicalIndex, terms, words

    english = set(bm25s.stopwords.STOPWORDS_EN)

    def stemmed(text: str) -> list[str]:
        """Harman's S-stemmer: plural endings of English."""
        return [_without_s(word) for word in words(text)]

    ways: dict[str, Callable[[str], list[str]]] = {
        "split at spaces": lambda text: text.lower().split(),
        "words": words,
        "words, without English stop words": lambda text: [word for word in words(text) if word not in english],
        "words, English plurals stemmed": stemmed,
        "first 5 letters alone": lambda text: [word[1:] if word[0] == "^" else word for word in beginnings(text)],
        "words and first 5 letters (terms)": terms,
    }

    def beginnings(text: str) -> list[str]:
        found = terms(text)
        short = [term for term in found if term.startswith("^")]
        return short + found[len(short) : len(found) - len(short)]  # scripts without spaces have none and stay

    rows: list[dict[str, Any]] = [{"tokens": way} for way in ways]
    for name in SETS:
        dataset = load(folder, name)
        if dataset is None:
            continue
        if SETS[name].startswith("human/"):
            dataset = split_dataset(dataset, by="document", fractions=(0.6, 0.1, 0.3), seed=0).test
        dataset = dataset.subset(list(dataset.queries)[:n_queries])
        for row, way in zip(rows, ways.values(), strict=True):
            index = LexicalIndex.build(dataset.corpus, tokens=way)
            hits = index.search(list(dataset.queries.values()), 20)
            run = {
                query: {index.ids[r]: float(s) for r, s in zip(found, scores, strict=True) if r >= 0}
                for query, found, scores in zip(dataset.queries, hits.rows, hits.scores, strict=True)
            }
            row[name] = evaluate_run(dataset, run, top_k=10, metrics=["ndcg@10"]).mean("ndcg@10")
    return rows


def _without_s(word: str) -> str:
    if not word.isascii() or len(word) < 4 or not word.endswith("s") or word.endswith(("us", "ss")):
        return word
    if word.endswith("ies") and not word.endswith(("eies", "aies")):
        return word[:-3] + "y"
    return word[:-1]


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--nodes", type=int, default=10_000)
    options.add_argument("--queries", type=int, default=300, help="queries (of each set, with --words)")
    options.add_argument("--stores", default="FAISS,SimpleVectorStore")
    options.add_argument("--words", action="store_true", help="compare ways to cut words")
    args = options.parse_args()
    if args.words:
        rows = words_table(args.data_dir, args.queries)
    else:
        stores = args.stores.split(",")
        rows = [latency(args.data_dir, args.nodes, args.queries, store) for store in stores]
    print_table(rows)
    write_results("stack_words" if args.words else "stack", rows)


if __name__ == "__main__":
    main()
