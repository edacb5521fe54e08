"""The whole adapter job, from texts to a saved adapter: ours, the peers', and the bare cost of embedding.

    python benchmarks/adapter.py                    # stdlib, 20 epochs, each kind; a peer's epoch (extra `stock`)
    python benchmarks/adapter.py --data lyft        # Lyft → Uber, 10 epochs; about 7 minutes on two cores
    python benchmarks/adapter.py --no-stock         # ours and the bare cost only
    python benchmarks/adapter.py --peers            # also embedding-adapter and nudge-ft, on cached vectors

stdlib: the functions of Python's standard library split by module, 3,097 training pairs, tested on questions about
other modules. Lyft (668 questions, 334 passages) is tested on Uber. All start from texts and a loaded model, with an
empty cache. The bare cost is `SentenceTransformer.encode` of each distinct text once, in its own default batches.

llama-index-finetuning embeds one by one in every epoch, so on stdlib `--stock-epochs` of them are run (default 1) and
the row says for how many; "ms a pair and epoch" compares. Of ours it is the whole job with an empty cache.

`--peers` compares on vectors that are at hand, each contender in a process of its own, whose peak memory is given; the
loading of libraries is not counted. `embedding-adapter` with one random negative a pair against ours (linear), as many
epochs each; `nudge-ft` (NUDGE-N) against ours on Uber's questions, split by question, since NUDGE learns nothing about
documents that nobody asked about.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from importlib.util import find_spec
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
from _common import adapter_arguments, minilm, parser, print_table, write_results
from adapter_scale import peak_gib

EPOCHS = {"stdlib": 20, "lyft": 10}
PEERS = {"embedding_adapter": "embedding-adapter", "nudge": "nudge-ft"}
KINDS = {
    "linear": {},
    "linear with bias": {"bias": True},
    "low-rank": {"kind": "low-rank", "learning_rate": 1e-3},
    "mlp": {"kind": "mlp"},
    "ridge alone": {"start": "ridge", "epochs": 0},
    "rotation alone": {"start": "procrustes", "epochs": 0},
    "linear, both sides": {"sides": "both"},
    "linear, both sides, half the dimensions": {"sides": "both", "output_dim": 192},
}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--data", choices=EPOCHS, default="stdlib")
    options.add_argument("--no-stock", dest="stock", action="store_false", help="leave llama-index-finetuning out")
    options.add_argument("--stock-epochs", type=int, default=None, help="epochs of it; default: 1 on stdlib, else all")
    options.add_argument("--repeats", type=int, default=3, help="runs of ours and of the bare cost, alternating")
    options.add_argument("--pairs", type=int, default=None, help="train on so many queries only, to try the script")
    options.add_argument("--epochs", type=int, default=None, help="in place of 20 (stdlib) or 10 (lyft)")
    options.add_argument("--peers", action="store_true", help="also the other packages, on cached vectors")
    options.add_argument("--no-save", dest="save", action="store_false", help="do not write the result file")
    args = options.parse_args()
    missing = [package for module, package in PEERS.items() if args.peers and find_spec(module) is None]
    if missing:
        raise SystemExit(f"--peers needs other packages: pip install {' '.join(missing)}")

    from llama_index_embft.embeddings import load_embed_model

    train, val, test = _load(args)
    epochs = args.epochs or EPOCHS[args.data]
    pairs = sum(map(len, train.relevant_docs.values()))
    base = load_embed_model(minilm(), device=args.device)
    _bare(base, train)  # warm-up: first calls allocate and compile
    with tempfile.TemporaryDirectory() as folder:
        rows = _our_rows(base, train, val, test, epochs, args.repeats, Path(folder))
        if args.stock:
            rows += _stock_rows(base, train, test, args.stock_epochs or (1 if args.data == "stdlib" else epochs))
        if args.peers:
            rows += _peer_rows(base, train, test, epochs, args)
    for row in rows:
        if "epochs" in row:
            row["ms a pair and epoch"] = 1000 * row["seconds"] / pairs / row["epochs"]
    print_table([{name: value for name, value in row.items() if name != "tries"} for row in rows])
    if args.save:
        name = "adapter" if args.data == "lyft" else f"adapter_{args.data}"
        write_results(name, rows, device=args.device, epochs=epochs, repeats=args.repeats, pairs=pairs)


def _load(args):
    """Training, validation (None for Lyft) and test set."""
    from llama_index_embft.dataset import EmbeddingQAFinetuneDataset, build_stdlib_dataset
    from llama_index_embft.pipeline import split_for_tuning

    if args.data == "lyft":
        train = EmbeddingQAFinetuneDataset.from_json(args.data_dir / "lyft_10k_2021.json")
        val, test = None, EmbeddingQAFinetuneDataset.from_json(args.data_dir / "uber_10k_2021.json")
    else:
        train, val, test = split_for_tuning(build_stdlib_dataset())
    if args.pairs is not None:
        train, test = (part.subset(list(part.queries)[: args.pairs], keep_corpus=False) for part in (train, test))
        val = val.subset(list(val.queries)[: args.pairs], keep_corpus=False) if val is not None else None
    return train, val, test


def _bare(base, train):
    model = base._model
    started = time.perf_counter()
    model.encode(list(dict.fromkeys(train.corpus.values())), show_progress_bar=False)
    model.encode(list(dict.fromkeys(train.queries.values())), show_progress_bar=False)
    return time.perf_counter() - started


def _our_rows(base, train, val, test, epochs, repeats, folder):
    """The bare cost, ours with an empty and a warm cache, each kind, and the choice among them."""
    from llama_index_embft.embeddings import EmbeddingCache

    bare, cold, warm, scores = [], [], [], None
    for number in range(repeats):
        bare.append(_bare(base, train))
        cache = EmbeddingCache(folder / f"{number}.sqlite")
        for times in (cold, warm):
            seconds, scores, _ = _ours(base, train, test, cache, epochs=epochs)
            times.append(seconds)
    bare_seconds = statistics.median(bare)
    ratio = statistics.median(cold) / bare_seconds
    rows = [
        {"contender": "each distinct text embedded once", "seconds": bare_seconds, "against bare cost": 1.0},
        {
            "contender": "ours, empty cache",
            "seconds": statistics.median(cold),
            "epochs": epochs,
            "against bare cost": ratio,
            **scores,
        },
        {"contender": "ours, second run", "seconds": statistics.median(warm), "epochs": epochs, **scores},
    ]
    for kind, more in KINDS.items():
        seconds, scores, _ = _ours(base, train, test, cache, **{"epochs": epochs, **more})
        rows.append({"contender": f"ours, second run, {kind}", "seconds": seconds, **scores})
        print_table(rows[-1:])
    seconds, scores, result = _ours(base, train, test, cache, epochs=epochs, kind="auto", val_dataset=val)
    print_table(result.tries)
    rows.append({"contender": f"ours, auto ({result.selection})", "seconds": seconds, "tries": result.tries, **scores})
    return rows


def _ours(base, train, test, cache, **options):
    from llama_index_embft.finetune import EmbeddingAdapterFinetuneEngine

    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        options = adapter_arguments(**options)
        engine = EmbeddingAdapterFinetuneEngine(train, base, model_output_path=f"{folder}/a", cache=cache, **options)
        result = engine.finetune()
        seconds = time.perf_counter() - started
        return seconds, _scores(engine.get_finetuned_model(), test, cache), result


def _stock_rows(base, train, test, epochs):
    from llama_index.finetuning import (
        EmbeddingAdapterFinetuneEngine as StockEngine,
        EmbeddingQAFinetuneDataset as StockDataset,
    )

    data = StockDataset(queries=train.queries, corpus=train.corpus, relevant_docs=train.relevant_docs)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        engine = StockEngine(data, base, epochs=epochs, model_output_path=f"{folder}/stock")
        engine.finetune()
        seconds = time.perf_counter() - started
        scores = _scores(engine.get_finetuned_model(), test, None)
    return [{"contender": "llama-index-finetuning", "seconds": seconds, "epochs": epochs, **scores}]


# --- other packages, on vectors that are at hand ----------------------------------------------------------------------


def _peer_rows(base, train, test, epochs, args):
    from llama_index_embft.dataset import EmbeddingQAFinetuneDataset

    rows = []
    arrays = _arrays(base, train, test)
    for name, job in (("embedding-adapter", _embedding_adapter), ("ours", _linear)):
        rows.append({"contender": f"{name}, on cached vectors", "epochs": epochs, **_alone(job, arrays, epochs)})
        print_table(rows[-1:])
    uber = EmbeddingQAFinetuneDataset.from_json(args.data_dir / "uber_10k_2021.json")
    if args.pairs is not None:
        uber = uber.subset(list(uber.queries)[: 2 * args.pairs], keep_corpus=False)
    order = np.random.default_rng(0).permutation(np.array(list(uber.queries))).tolist()
    edges = [0, int(0.7 * len(order)), int(0.85 * len(order)), len(order)]
    parts = [uber.subset(order[low:high]) for low, high in pairwise(edges)]
    arrays = _nudge_arrays(base, dict(zip(("train", "val", "test"), parts, strict=True)))
    for name, job in (("nudge-ft, NUDGE-N", _nudge_ft), ("ours, NUDGE-N", _nudge)):
        rows.append({"contender": f"{name}, on cached vectors", **_alone(job, arrays)})
        print_table(rows[-1:])
    return rows


def _alone(job, *arguments):
    """Run a contender in a fresh process: seconds, nDCG@10 and the most memory it held."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_measured, job, *arguments).result()


def _measured(job, *arguments):
    seconds, ndcg = job(*arguments)
    return {"seconds": seconds, "ndcg@10": ndcg, "peak GiB": peak_gib()}


def _arrays(base, train, test):
    """Vectors of both sides, and rows of relevant documents."""
    from llama_index_embft.embeddings import as_encoder

    encoder = as_encoder(base, cache=None)
    found = {}
    for name, part in (("train", train), ("test", test)):
        row = {doc: number for number, doc in enumerate(part.corpus)}
        found[name] = (
            encoder.encode_queries(list(part.queries.values())),
            encoder.encode_documents(list(part.corpus.values())),
            [[row[doc] for doc in part.relevant_docs[query]] for query in part.queries],
        )
    return found


def _nudge_arrays(base, parts):
    """The same for NUDGE, whose three sets of queries are over one corpus."""
    from llama_index_embft.embeddings import as_encoder

    encoder = as_encoder(base, cache=None)
    corpus = parts["train"].corpus
    row = {doc: number for number, doc in enumerate(corpus)}
    sets = {
        name: (
            encoder.encode_queries(list(part.queries.values())),
            [[row[doc] for doc in part.relevant_docs[query]] for query in part.queries],
        )
        for name, part in parts.items()
    }
    return {"corpus": encoder.encode_documents(list(corpus.values())), **sets}


def _embedding_adapter(arrays, epochs):
    from embedding_adapter.embedding_adapter import EmbeddingAdapter

    queries, documents, positives = arrays["train"]
    owners = np.repeat(np.arange(len(positives)), [len(rows) for rows in positives])
    right = np.concatenate(positives)
    wrong = np.random.default_rng(0).integers(0, len(documents), len(right))
    labels = [1.0] * len(right) + [-1.0] * len(wrong)
    adapter = EmbeddingAdapter()
    started = time.perf_counter()
    adapter.fit(queries[np.tile(owners, 2)], documents[np.concatenate([right, wrong])], labels, num_epochs=epochs)
    seconds = time.perf_counter() - started
    tested, corpus, relevant = arrays["test"]
    return seconds, _ndcg(tested @ adapter._adapter.T, corpus, relevant)


def _linear(arrays, epochs):
    from llama_index_embft.embeddings import apply_adapter, linear_adapter
    from llama_index_embft.finetune.adapter import AdapterOptions, AdapterSettings, train_adapter, training_data

    queries, documents, positives = arrays["train"]
    options, settings = AdapterOptions(epochs=epochs), AdapterSettings()
    # torch loads its optimizers at the first step; the other package loads torch when it is imported.
    train_adapter(linear_adapter(2), np.eye(2), np.eye(2), [[0], [1]], replace(options, epochs=1), settings)
    started = time.perf_counter()
    data = training_data(queries, documents, positives)
    adapter = linear_adapter(data.dim)
    train_adapter(adapter, data.queries, data.documents, data.positives, options, settings, candidates=data.candidates)
    seconds = time.perf_counter() - started
    tested, corpus, relevant = arrays["test"]
    return seconds, _ndcg(apply_adapter(adapter, tested), corpus, relevant)


def _nudge_ft(arrays):
    from nudge import NUDGEN

    train, val = ({"q_embs": queries, "q_ans_indx": rows} for queries, rows in (arrays["train"], arrays["val"]))
    started = time.perf_counter()
    moved = NUDGEN().finetune_embeddings(arrays["corpus"], train, val)
    return time.perf_counter() - started, _ndcg(arrays["test"][0], moved, arrays["test"][1])


def _nudge(arrays):
    from llama_index_embft.finetune.nudge import StepSearch, closed_form_step, movement, steps_to_try

    corpus, (queries, positives), (val, wanted) = arrays["corpus"], arrays["train"], arrays["val"]
    _ndcg(corpus[:2], corpus[:2], [[0], [1]])  # loads torch, as importing the other package does
    started = time.perf_counter()
    moves = movement(corpus, queries, positives, "N")
    search = StepSearch(val, corpus, moves, depth=10)
    steps = [0.0, closed_form_step(val, corpus, wanted, moves)[0], *steps_to_try(moves, 32)]
    best = max(steps, key=lambda step: _ndcg_of(search.after(step).rows, wanted))
    result = np.array(corpus)
    result[moves.rows] = moves.at(best)
    return time.perf_counter() - started, _ndcg(arrays["test"][0], result, arrays["test"][1])


def _ndcg(queries, corpus, relevant):
    from llama_index_embft.search import top_k

    return _ndcg_of(top_k(queries.astype(np.float32), corpus, 10).rows, relevant)


def _ndcg_of(found, relevant):
    """Mean nDCG@10 with relevance 0 or 1."""
    discount = 1 / np.log2(np.arange(2, 12))
    scores = [
        (np.isin(rows, wanted) * discount[: len(rows)]).sum() / discount[: len(wanted)].sum()
        for rows, wanted in zip(found, relevant, strict=True)
    ]
    return float(np.mean(scores))


def _scores(model, test, cache):
    from llama_index_embft.evaluation import evaluate_embed_model

    report = evaluate_embed_model(test, model, cache=cache)
    return {"test ndcg@10": report.mean("ndcg@10"), "test hit_rate@10": report.mean("hit_rate@10")}


if __name__ == "__main__":
    main()
