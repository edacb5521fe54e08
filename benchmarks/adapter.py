"""The whole adapter job, from texts to a saved adapter: ours, the peer's, and the bare cost of embedding.

    python benchmarks/adapter.py            # needs the extra `stock`; about 7 minutes on two cores
    python benchmarks/adapter.py --no-stock # ours and the bare cost only

Lyft (668 questions, 334 passages), 10 epochs, tested on Uber. All start from texts and a loaded model, with an empty
cache. The bare cost is `SentenceTransformer.encode` of each distinct text once, in its own default batches.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from _common import minilm, parser, print_table, write_results

EPOCHS = 10


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--no-stock", dest="stock", action="store_false", help="leave the peer out")
    options.add_argument("--repeats", type=int, default=3, help="runs of ours and of the bare cost, alternating")
    args = options.parse_args()

    from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
    from llama_index_embft.embeddings.loading import load_embed_model

    train = EmbeddingQAFinetuneDataset.from_json(args.data_dir / "lyft_10k_2021.json")
    test = EmbeddingQAFinetuneDataset.from_json(args.data_dir / "uber_10k_2021.json")
    base = load_embed_model(minilm(), device=args.device)
    _bare(base, train)  # warm-up: first calls allocate and compile
    bare, ours, warm, scores = [], [], [], None
    for _ in range(args.repeats):
        bare.append(_bare(base, train))
        seconds, again, scores = _ours(base, train, test)
        ours.append(seconds)
        warm.append(again)
    bare_seconds, our_seconds = statistics.median(bare), statistics.median(ours)
    rows = [
        {"contender": "each distinct text embedded once", "seconds": bare_seconds, "against bare cost": 1.0},
        {
            "contender": "ours, empty cache",
            "seconds": our_seconds,
            "against bare cost": our_seconds / bare_seconds,
            **scores,
        },
        {"contender": "ours, second run", "seconds": statistics.median(warm), **scores},
    ]
    if args.stock:
        seconds, scores = _stock(base, train, test)
        rows.append(
            {
                "contender": "llama-index-finetuning",
                "seconds": seconds,
                "against bare cost": seconds / bare_seconds,
                **scores,
            }
        )
        for row in rows[1:]:
            row["times faster than llama-index-finetuning"] = seconds / row["seconds"]
    print_table(rows)
    write_results("adapter", rows, device=args.device, epochs=EPOCHS, repeats=args.repeats)


def _bare(base, train):
    model = base._model
    started = time.perf_counter()
    model.encode(list(dict.fromkeys(train.corpus.values())), show_progress_bar=False)
    model.encode(list(dict.fromkeys(train.queries.values())), show_progress_bar=False)
    return time.perf_counter() - started


def _ours(base, train, test):
    from llama_index_embft.embeddings.cache import EmbeddingCache
    from llama_index_embft.finetune.adapter import EmbeddingAdapterFinetuneEngine

    with tempfile.TemporaryDirectory() as folder:
        cache = EmbeddingCache(Path(folder) / "cache.sqlite")
        times = []
        for name in ("first", "second"):
            started = time.perf_counter()
            engine = EmbeddingAdapterFinetuneEngine(
                train, base, epochs=EPOCHS, model_output_path=str(Path(folder) / name), cache=cache
            )
            engine.finetune()
            times.append(time.perf_counter() - started)
        return *times, _scores(engine.get_finetuned_model(), test)


def _stock(base, train, test):
    from llama_index.finetuning import EmbeddingAdapterFinetuneEngine as StockEngine
    from llama_index.finetuning import EmbeddingQAFinetuneDataset as StockDataset

    data = StockDataset(queries=train.queries, corpus=train.corpus, relevant_docs=train.relevant_docs)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        engine = StockEngine(data, base, epochs=EPOCHS, model_output_path=str(Path(folder) / "stock"))
        engine.finetune()
        seconds = time.perf_counter() - started
        return seconds, _scores(engine.get_finetuned_model(), test)


def _scores(model, test):
    from llama_index_embft.evaluation import evaluate_embed_model

    report = evaluate_embed_model(test, model, cache=None)
    return {"uber ndcg@10": report.mean("ndcg@10"), "uber hit_rate@10": report.mean("hit_rate@10")}


if __name__ == "__main__":
    main()
