"""How much better does retrieval get? Base, stock engine and ours on real data, several seeds, with intervals.

    python benchmarks/quality.py                       # base, adapter, full: Lyft → Uber, 3 seeds
    python benchmarks/quality.py --methods stock       # adds the peer's row (extra `stock`)
    python benchmarks/quality.py --methods full --negatives rank:1-100 margin:0.95 --num-negatives 1
    python benchmarks/quality.py --data cmrc --methods bm25 full --guard
    python benchmarks/quality.py --methods full --set merge=auto epochs=2
    python benchmarks/quality.py --methods full --negatives rank:1-100 --num-negatives 2 --teacher bm25
    python benchmarks/quality.py --data stdlib lyft-uber uber-queries --methods adapters nudge      # each kind; minutes
    python benchmarks/quality.py --methods full+adapter
    python benchmarks/quality.py --device cuda --seeds 5

`--negatives` trains with each strategy (``+`` joins several: ``rank:10-50+margin:0.95``) instead of in-batch negatives
alone, mined with the base model. `--teacher bm25` distils BM25's scores of a query's documents into the model beside
the contrastive loss, and drops negatives that it scores as high as the positive. `--guard` adds nDCG@10 on PubMedQA,
which no method saw. `--set` passes arguments to the engine.

Lyft → Uber is the LlamaIndex tutorial's pair: train on the questions about one 10-K filing, test on those about
another. Nothing is chosen on the test set: the epochs are fixed, and the defaults were chosen in the other direction
(Uber → Lyft) and on the standard library. CMRC is Chinese, split by passage: 80 % of the passages with their questions
train, the questions of the others are searched among all passages. `uber-queries` splits questions and not passages:
new questions about passages that have been asked about, which is what NUDGE is for. stdlib, the standard library's
functions, is split by module.

`adapters` stands for each kind of adapter, over the frozen base. `full+adapter` trains an adapter on the vectors of
what `full` gave, with the same training questions. `recipe` has temperature, learning rate and epochs chosen on a part
of the training questions, within half an hour, and trains on all with them.
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
from _common import RESULTS, adapter_arguments, command, minilm, parser, print_table, write_results

METRICS = ("hit_rate@1", "hit_rate@5", "hit_rate@10", "ndcg@10", "mrr@10")


def main() -> None:
    args = _arguments()
    from llama_index_embft.dataset import EmbeddingQAFinetuneDataset

    rows = []
    guard = EmbeddingQAFinetuneDataset.from_json(args.data_dir / "pubmedqa_labeled.json") if args.guard else None
    for data in args.data:
        train, test = _load(data, args.data_dir)
        base, base_scores, _ = _evaluate(minilm(), test, args.device, guard, trained=False)
        rows.append({"data": data, "method": "base", **base, "seeds": 1, "ci95": None, "command": command()})
        for method in args.methods:
            for negatives in args.negatives if method == "full" and args.negatives else [None]:
                if method == "bm25":
                    runs = [_bm25(test)]
                else:
                    material, taught = (train, {}) if negatives is None else _mined(train, negatives, args)
                    runs = [_run(method, material, test, seed, args, guard, taught) for seed in range(args.seeds)]
                name = method if negatives is None else f"{method} negatives={negatives}:{args.num_negatives}"
                name += f" teacher={args.teacher}" if method == "full" and args.teacher else ""
                row = _row(data, name, runs, base_scores, test)
                print_table([row])
                rows.append({**row, "command": command()})
                if args.save:  # now, and not at the end: a row can take an hour
                    write_results("quality", _merged(rows), device=args.device)
    print_table([{name: value for name, value in row.items() if name != "command"} for row in rows])


DATASETS = {
    "lyft-uber": ("lyft_10k_2021", "uber_10k_2021"),
    "uber-lyft": ("uber_10k_2021", "lyft_10k_2021"),
    "cmrc": ("cmrc2018_dev_zh", None),
    "uber-queries": ("uber_10k_2021", None),
    "stdlib": (None, None),
}
ADAPTERS = {
    "adapter": {},
    "adapter low-rank": {"kind": "low-rank", "learning_rate": 1e-3},
    "adapter mlp": {"kind": "mlp"},
    "adapter ridge": {"start": "ridge", "epochs": 0},
    "adapter both sides": {"sides": "both"},
    "adapter auto": {"kind": "auto"},
}
METHODS = [*ADAPTERS, "nudge", "full", "full+adapter", "recipe", "stock", "bm25"]
TUNED = ("full", "full+adapter", "recipe", "stock")


def _load(data, folder):
    """The training and the test side."""
    from llama_index_embft.dataset import EmbeddingQAFinetuneDataset, split_dataset

    if data == "stdlib":
        from llama_index_embft.dataset import build_stdlib_dataset

        split = split_dataset(build_stdlib_dataset(), by="document", fractions=(0.8, 0.0, 0.2))
        return split.train, split.test
    train_name, test_name = DATASETS[data]
    train = EmbeddingQAFinetuneDataset.from_json(folder / f"{train_name}.json")
    if test_name is not None:
        return train, EmbeddingQAFinetuneDataset.from_json(folder / f"{test_name}.json")
    if data.endswith("-queries"):  # new questions about the same passages, as users of one index ask them
        order = np.random.default_rng(0).permutation(list(train.queries)).tolist()
        cut = round(0.8 * len(order))
        return train.subset(order[:cut]), train.subset(order[cut:])
    split = split_dataset(train, by="chunk", fractions=(0.8, 0.0, 0.2))
    return split.train, split.test


def _arguments():
    options = parser(__doc__)
    options.add_argument("--data", nargs="+", default=["lyft-uber"], choices=DATASETS)
    options.add_argument(
        "--methods",
        nargs="+",
        default=["adapter", "full"],
        choices=[*METHODS, "adapters"],
        metavar="METHOD",
        help=", ".join([*METHODS, "adapters"]),
    )
    options.add_argument("--negatives", nargs="+", default=[], help="strategies of embft mine; + joins several")
    options.add_argument("--num-negatives", type=int, default=1)
    options.add_argument("--teacher", choices=["bm25"], help="distil its scores; with --negatives")
    options.add_argument("--guard", action="store_true", help="evaluate on PubMedQA too")
    options.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="arguments of the engine")
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--no-save", dest="save", action="store_false", help="print only, keep quality.json")
    args = options.parse_args()
    if args.teacher and not args.negatives:
        options.error("--teacher scores a query's negatives: add --negatives")
    if "adapters" in args.methods:
        args.methods = [*ADAPTERS, *(name for name in args.methods if name != "adapters" and name not in ADAPTERS)]
    return args


def _run(method, train, test, seed, args, guard, taught):
    """One training: metrics, scores of each query, and what was set by hand."""
    folder = Path(tempfile.mkdtemp())
    chosen = {name: _value(text) for name, _, text in (item.partition("=") for item in args.set)}
    try:
        model = _trained(method, train, seed, folder, args.device, {**chosen, **taught})
        return (*_evaluate(model, test, args.device, guard, trained=method in TUNED)[:2], chosen)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _value(text):
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _mined(train, strategies, args):
    """The training set with negatives, and the engine's arguments about the teacher."""
    from llama_index_embft.embeddings import load_embed_model
    from llama_index_embft.mining import CrossEncoder, MiningSettings, mine_hard_negatives

    base = load_embed_model(minilm(), device=args.device)
    chosen = strategies.split("+")
    if args.teacher:
        chosen.append(CrossEncoder(_LexicalReranker(map(train.bare_text, train.corpus)), cache=None))
    settings = MiningSettings(pad=True)
    mined = mine_hard_negatives(train, base, chosen, args.num_negatives, device=args.device, settings=settings)
    return mined, {"teacher_scores": mined.teacher_scores} if args.teacher else {}


class _LexicalReranker:
    """BM25 in the shape of a cross-encoder: no model to fetch, and on exact words better than a small dense one."""

    def __init__(self, texts):
        import bm25s

        from llama_index_embft.evaluation import tokens

        self._tokens = tokens
        self._row = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        self._index = bm25s.BM25()
        self._index.index([tokens(text) for text in self._row], show_progress=False)

    def predict(self, pairs, **_):
        scores = {query: self._index.get_scores(self._tokens(query)) for query, _ in pairs}
        return np.array([scores[query][self._row[text]] for query, text in pairs], dtype=np.float32)


def _bm25(test):
    from llama_index_embft.evaluation import evaluate_bm25

    frame = evaluate_bm25(test).to_pandas()
    return {name: float(frame[name].mean()) for name in METRICS}, frame["ndcg@10"], {}


def _trained(method, train, seed, folder, device, chosen):
    out = str(folder / "model")
    if method == "stock":
        from llama_index.finetuning import (
            EmbeddingQAFinetuneDataset as StockDataset,
            SentenceTransformersFinetuneEngine as StockEngine,
        )
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
    if method == "nudge":
        from llama_index_embft.embeddings import load_embed_model
        from llama_index_embft.finetune import NudgeFinetuneEngine
        from llama_index_embft.finetune.nudge import NudgeSettings

        search = NudgeSettings(**{name: chosen.pop(name) for name in ("steps", "max_unasked_loss") if name in chosen})
        base = load_embed_model(minilm(), device=device)
        engine = NudgeFinetuneEngine(train, base, model_output_path=out, device=device, search=search, **chosen)
    elif method in ADAPTERS:
        from llama_index_embft.embeddings import load_embed_model

        base = load_embed_model(minilm(), device=device)
        return _adapted(base, train, seed, folder / "model", device, {**ADAPTERS[method], **chosen})
    else:
        from llama_index_embft.finetune import SentenceTransformersFinetuneEngine, choose_recipe
        from llama_index_embft.finetune.full import engine_arguments

        arguments = engine_arguments(**chosen)
        if method == "recipe":
            recipe = choose_recipe(train, minilm(), time_budget=1800, device=device, seed=seed, **arguments)
            print_table(recipe.rows())
            print(recipe)
            arguments |= recipe.engine_arguments(arguments.get("loss_settings"))
        engine = SentenceTransformersFinetuneEngine(
            train, minilm(), out, device=device, seed=seed, show_progress_bar=False, **arguments
        )
    engine.finetune()
    model = engine.get_finetuned_model()
    return _adapted(model, train, seed, folder / "adapter", device, {}) if method == "full+adapter" else model


def _adapted(base, train, seed, folder, device, chosen):
    """An adapter overfits soon: a part of the training questions, by passage, says when to stop."""
    from llama_index_embft.dataset import split_dataset
    from llama_index_embft.finetune import EmbeddingAdapterFinetuneEngine

    part = split_dataset(train, by="chunk", fractions=(0.85, 0.15, 0.0), seed=seed)
    chosen = adapter_arguments(**chosen)
    engine = EmbeddingAdapterFinetuneEngine(
        part.train, base, val_dataset=part.val, device=device, model_output_path=str(folder), seed=seed, **chosen
    )
    engine.finetune()
    return engine.get_finetuned_model()


def _evaluate(model, test, device, guard=None, *, trained=True):
    """`trained`: its weights are new, so that nothing of it is worth keeping in the cache."""
    from llama_index_embft.embeddings import load_embed_model
    from llama_index_embft.evaluation import evaluate_embed_model

    if isinstance(model, str):
        model = load_embed_model(model, device=device)
    cache = None if trained else "default"
    report = evaluate_embed_model(test, model, cache=cache)
    frame = report.to_pandas()
    means = {name: float(frame[name].mean()) for name in METRICS}
    if guard is not None:
        means["guard ndcg@10"] = evaluate_embed_model(guard, model, cache=cache).mean("ndcg@10")
    return means, frame["ndcg@10"], report


def _row(data, method, runs, base_scores, dataset):
    """Mean over seeds; the interval is of the gain in nDCG@10 over the base.

    It is paired by query, with the seeds averaged first, and clustered by passage: two questions about one passage are
    not independent.
    """
    from llama_index_embft.evaluation import paired_tests

    means = {name: float(np.mean([metrics[name] for metrics, *_ in runs])) for name in runs[0][0]}
    per_query = np.mean([scores.to_numpy() for _, scores, *_ in runs], axis=0)
    passages = [dataset.relevant_docs[query_id][0] for query_id in base_scores.index]
    test = paired_tests((per_query - base_scores.to_numpy())[:, None], passages)[0]
    chosen = " ".join(f"{name}={value}" for name, value in runs[0][2].items())
    return {
        "data": data,
        "method": f"{method} {chosen}".strip(),
        **means,
        "seeds": len(runs),
        "ci95": [round(float(bound), 4) for bound in test.interval],
        "sd": float(np.std([metrics["ndcg@10"] for metrics, *_ in runs])),
    }


def _merged(rows):
    """Keep the rows of earlier runs that this run does not replace, so that slow rows need not be run again."""
    path = RESULTS / "quality.json"
    kept = json.loads(path.read_text())["rows"] if path.exists() else []
    guarded = {(row["data"], row["method"]) for row in kept if "guard ndcg@10" in row and row["method"] == "base"}
    rows = [row for row in rows if "guard ndcg@10" in row or (row["data"], row["method"]) not in guarded]
    new = {(row["data"], row["method"]) for row in rows}
    return [row for row in kept if (row["data"], row["method"]) not in new] + rows


if __name__ == "__main__":
    main()
