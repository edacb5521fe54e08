"""How much better does retrieval get? Base, stock engine and ours on real data, several seeds, with intervals.

    python benchmarks/quality.py                       # base, adapter, full: Lyft → Uber, 3 seeds
    python benchmarks/quality.py --methods stock       # adds the peer's row (extra `stock`)
    python benchmarks/quality.py --device cuda --seeds 5

Lyft → Uber is the LlamaIndex tutorial's pair: train on the questions about one 10-K filing, test on those about
another. Nothing is chosen on the test set: the epochs are fixed, and the defaults were chosen in the other direction
(Uber → Lyft) and on the standard library.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
from _common import RESULTS, minilm, parser, print_table, write_results

METRICS = ("hit_rate@1", "hit_rate@5", "hit_rate@10", "ndcg@10", "mrr@10")


def main() -> None:
    args = _arguments()
    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset

    rows = []
    for data in args.data:
        train_name, test_name = DATASETS[data]
        train = EmbeddingQAFinetuneDataset.from_json(args.data_dir / f"{train_name}.json")
        test = EmbeddingQAFinetuneDataset.from_json(args.data_dir / f"{test_name}.json")
        base, base_scores, _ = _evaluate(minilm(), test, args.device)
        rows.append({"data": data, "method": "base", **base, "seeds": 1, "ci95": None})
        for method in args.methods:
            runs = [_run(method, train, test, seed, args) for seed in range(args.seeds)]
            rows.append(_row(data, method, runs, base_scores, test))
            print_table([rows[-1]])
    print_table(rows)
    if args.save:
        write_results("quality", _merged(rows), device=args.device)


DATASETS = {
    "lyft-uber": ("lyft_10k_2021", "uber_10k_2021"),
    "uber-lyft": ("uber_10k_2021", "lyft_10k_2021"),
}


def _arguments():
    options = parser(__doc__)
    options.add_argument("--data", nargs="+", default=["lyft-uber"], choices=DATASETS)
    options.add_argument("--methods", nargs="+", default=["adapter", "full"], choices=["adapter", "full", "stock"])
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--epochs", type=int)
    options.add_argument("--learning-rate", type=float)
    options.add_argument("--temperature", type=float)
    options.add_argument("--batch-size", type=int)
    options.add_argument("--no-save", dest="save", action="store_false", help="print only, keep quality.json")
    return options.parse_args()


def _run(method, train, test, seed, args):
    """One training: metrics, scores of each query, and what was set by hand."""
    folder = Path(tempfile.mkdtemp())
    chosen = {
        name: value
        for name in ("epochs", "learning_rate", "temperature", "batch_size")
        if (value := getattr(args, name)) is not None
    }
    try:
        model = _trained(method, train, seed, folder, args.device, chosen)
        return (*_evaluate(model, test, args.device)[:2], chosen)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _trained(method, train, seed, folder, device, chosen):
    out = str(folder / "model")
    if method == "stock":
        from llama_index.finetuning import EmbeddingQAFinetuneDataset as StockDataset
        from llama_index.finetuning import SentenceTransformersFinetuneEngine as StockEngine
        from transformers import set_seed

        set_seed(seed)  # the peer has no seed of its own
        data = StockDataset(queries=train.queries, corpus=train.corpus, relevant_docs=train.relevant_docs)
        # A validation set is needed to start at all; one query keeps its cost out of the timing.
        first = next(iter(train.queries))
        one = StockDataset(
            queries={first: train.queries[first]},
            corpus=dict([next(iter(train.corpus.items()))]),
            relevant_docs={first: [next(iter(train.corpus))]},
        )
        engine = StockEngine(data, model_id=minilm(), model_output_path=out, val_dataset=one, evaluation_steps=10**6)
        engine.finetune()
        return out
    if method == "adapter":
        from llama_index_embft.dataset import split_dataset
        from llama_index_embft.embeddings.loading import load_embed_model
        from llama_index_embft.finetune.adapter import EmbeddingAdapterFinetuneEngine

        base = load_embed_model(minilm(), device=device)
        # An adapter overfits soon: a part of the training questions, by passage, says when to stop.
        part = split_dataset(train, by="chunk", fractions=(0.85, 0.15, 0.0), seed=seed)
        engine = EmbeddingAdapterFinetuneEngine(
            part.train, base, val_dataset=part.val, device=device, model_output_path=out, seed=seed, **chosen
        )
    else:
        from llama_index_embft.finetune.sentence_transformer import SentenceTransformersFinetuneEngine

        engine = SentenceTransformersFinetuneEngine(
            train, minilm(), out, device=device, seed=seed, show_progress_bar=False, **chosen
        )
    engine.finetune()
    return engine.get_finetuned_model()


def _evaluate(model, test, device):
    from llama_index_embft.embeddings.loading import load_embed_model
    from llama_index_embft.evaluation.retrieval import evaluate_embed_model

    if isinstance(model, str):
        model = load_embed_model(model, device=device)
    report = evaluate_embed_model(test, model, cache=None)
    frame = report.to_pandas()
    return {name: float(frame[name].mean()) for name in METRICS}, frame["ndcg@10"], report


def _row(data, method, runs, base_scores, dataset):
    """Mean over seeds; the interval is of the gain in nDCG@10 over the base.

    It is paired by query, with the seeds averaged first, and clustered by passage: two questions about one passage are
    not independent.
    """
    from llama_index_embft.evaluation.significance import paired_tests

    means = {name: float(np.mean([metrics[name] for metrics, *_ in runs])) for name in METRICS}
    per_query = np.mean([scores.to_numpy() for _, scores, *_ in runs], axis=0)
    passages = [dataset.relevant_docs[query_id][0] for query_id in base_scores.index]
    test = paired_tests((per_query - base_scores.to_numpy())[:, None], passages)[0]
    chosen = " ".join(f"{name}={value}" for name, value in runs[0][2].items())
    return {
        "data": data,
        "method": f"{method} {chosen}".strip(),
        **means,
        "seeds": len(runs),
        "ci95": [round(float(bound), 4) for bound in test.ci95],
        "sd": float(np.std([metrics["ndcg@10"] for metrics, *_ in runs])),
    }


def _merged(rows):
    """Keep the rows of earlier runs that this run does not replace, so that slow rows need not be run again."""
    path = RESULTS / "quality.json"
    kept = json.loads(path.read_text())["rows"] if path.exists() else []
    new = {(row["data"], row["method"]) for row in rows}
    return [row for row in kept if (row["data"], row["method"]) not in new] + rows


if __name__ == "__main__":
    main()
