"""Does a reranker trained from the embedding model pay, and what does it cost? And how fast is training one?

``quality``: a data set with questions that people asked, split by document (60/10/30). The first stage is BM25 and the
base model, mixed by the weight that `prior_weight` gives; a reranker made of the same base model (late interaction, or
a cross-encoder) is trained on its hits with the questions of the training side, takes its share in the ranking from
those of validation, and is tested on questions that had no part in it; beside it late interaction before training, at
its default share. Intervals are paired and resampled by document.

``speed``: labelled pairs, an epoch with the stock engine and with ours, in one run; and 100 candidates scored by
``CrossEncoder.predict`` and by ours.

``loop``: `tune` with ``methods="distill"`` and ``reranker="train"``: full training, a reranker trained on what the
stack finds, and the trained model taught by it. A line for each candidate, on the questions that choose, and one for
the proof.

    python benchmarks/reranker.py --parts quality --data covidqa_en --train-limit 400 --limit 150 --depth 20
    python benchmarks/reranker.py --parts speed
"""

from __future__ import annotations

import itertools
import os
import random
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
from _common import command, merged, minilm, parser, print_table, write_results
from _human import METRIC, HumanSet, copied_share

if TYPE_CHECKING:
    from llama_index_embft.search import TopK

NAMES = ("covidqa_en", "norquad_no", "cranfield_en", "cosqa_en")


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--parts", nargs="+", default=["quality", "speed"], choices=("quality", "speed", "loop"))
    options.add_argument("--data", nargs="+", default=list(NAMES), metavar="SET", help=", ".join(NAMES))
    options.add_argument("--seeds", nargs="+", type=int, default=[0])
    options.add_argument("--kinds", nargs="+", default=["late-interaction"], help="or cross-encoder")
    options.add_argument("--losses", nargs="+", default=["default"], help="list_net, lambda, …; default: of the kind")
    options.add_argument("--train-limit", type=int, default=2000, help="most questions to train on")
    options.add_argument("--val-limit", type=int, default=100, help="most questions that choose")
    options.add_argument("--limit", type=int, default=400, help="most test questions")
    options.add_argument(
        "--dense-weight", type=float, help="of the first stage; 1 is the model alone; default: see above"
    )
    options.add_argument("--depth", type=int, default=50, help="hits that are reranked")
    options.add_argument("--negatives", type=int, default=7)
    options.add_argument("--epochs", type=int, default=2)
    options.add_argument("--max-length", type=int, default=256)
    options.add_argument("--budget", default="2 h", help="of the part 'loop'")
    options.add_argument("--pairs", type=int, default=400, help="of the part 'speed'")
    args = options.parse_args()
    if "quality" in args.parts:
        for name in args.data:
            for kind, loss, seed in itertools.product(args.kinds, args.losses, args.seeds):
                rows = quality(HumanSet.load(args.data_dir, name, args.limit), args, kind, loss, seed)
                print_table(rows)
                save(rows, ("part", "data", "kind", "loss", "seed", "first stage", "system"), args)
    if "loop" in args.parts:
        for name in args.data:
            for seed in args.seeds:
                rows = loop(HumanSet.load(args.data_dir, name), args, seed)
                print_table(rows)
                save(rows, ("part", "data", "seed", "system"), args)
    if "speed" in args.parts:
        rows = speed(args)
        print_table(rows)
        save(rows, ("part", "what", "system"), args)


def save(rows: list[dict[str, Any]], keys: tuple[str, ...], args: Any) -> None:
    """Now, and not at the end: a set can take an hour."""
    write_results("reranker", merged("reranker", rows, keys), device=args.device, model="all-MiniLM-L6-v2")


def quality(data: HumanSet, args: Any, kind: Any, loss: Any, seed: int) -> list[dict[str, Any]]:
    """One training on one data set: the first stage, the reranker alone, and both mixed."""
    from llama_index_embft.embeddings import as_encoder, load_embed_model
    from llama_index_embft.evaluation import compare
    from llama_index_embft.finetune import CandidateSettings, RerankerFinetuneEngine, RerankerSettings
    from llama_index_embft.retrievers import LateInteractionReranker, prior_weight, ranked_hits
    from llama_index_embft.search import TopK, fuse

    base = load_embed_model(minilm(), device=args.device)
    encoder = as_encoder(base)
    weight = args.dense_weight if args.dense_weight is not None else prior_weight(copied_share(data, encoder))
    train, val = data.split.train, data.split.val
    train = train.subset(list(train.queries)[: args.train_limit], keep_corpus=True)
    candidates = CandidateSettings(
        depth=args.depth, dense_weight=weight, negatives=args.negatives, max_val_queries=args.val_limit
    )
    settings = RerankerSettings(
        kind=kind,
        epochs=args.epochs,
        loss=None if loss == "default" else loss,
        seed=seed,
        max_length=args.max_length,
        candidates=candidates,
        device=args.device,
    )
    with tempfile.TemporaryDirectory() as folder:
        engine = RerankerFinetuneEngine(
            _whole(data, train), minilm(), f"{folder}/m", _whole(data, val), embed_model=base, settings=settings
        )
        result = engine.finetune()
        reranker = engine.get_finetuned_model()
    dense = data.documents(encoder).search(encoder.encode_queries(data.test.texts), 100)
    fused = fuse(dense, data.lexical.search(data.test.texts, 100), weight)
    first = TopK(fused.rows[:, : args.depth], fused.scores[:, : args.depth])
    begin = time.perf_counter()
    second = ranked_hits(_scores(data, reranker, first), first.rows)
    read = time.perf_counter() - begin
    systems = {"first stage": first}
    if kind == "late-interaction":
        untrained = LateInteractionReranker(base, cache_mb=4096)
        before = ranked_hits(_scores(data, untrained, first), first.rows)
        systems["untrained, at its default share"] = fuse(before, first, untrained.weight, depth=args.depth)
    systems |= {
        "reranker alone": second,
        f"both, {reranker.weight:.0%} reranker": fuse(second, first, reranker.weight, depth=args.depth),
    }
    reports = {name: data.report(_cut(hits, args.depth), data.test, name) for name, hits in systems.items()}
    rows = []
    for name, report in reports.items():
        row: dict[str, Any] = {"part": "quality", "data": data.name, "kind": kind, "loss": loss, "seed": seed}
        row |= {
            "first stage": "dense" if weight == 1 else "dense + BM25",
            "system": name.partition(",")[0],
            "weight": reranker.weight,
            "n": len(data.test),
        }
        row |= {METRIC: round(report.mean(METRIC), 4), "gain": None, "gain, 95 %": None}
        if name != "first stage":
            found = compare(reports["first stage"], report, primary=METRIC).systems[0].metrics[METRIC].test
            row["gain"], row["gain, 95 %"] = round(found.difference, 4), [round(end, 4) for end in found.interval]
        row |= {"train questions": len(train.queries), "depth": args.depth, "negatives": args.negatives}
        row |= {"epochs": args.epochs, "max length": args.max_length, "train s": round(result.seconds["train"], 1)}
        rows.append(row | {"ms a query": round(1000 * read / len(data.test), 1), "command": command()})
    return rows


def _scores(data: HumanSet, reranker: Any, first: TopK) -> Any:
    texts = [[data.dataset.corpus[data.ids[row]] for row in rows] for rows in first.rows.tolist()]
    return np.stack([reranker.scores(query, some) for query, some in zip(data.test.texts, texts, strict=True)])


def loop(data: HumanSet, args: Any, seed: int) -> list[dict[str, Any]]:
    """One search with the whole round: what each step brought on the questions that choose, and the proof."""
    from llama_index_embft import tune
    from llama_index_embft.embeddings import load_embed_model

    drawn = random.Random(seed).sample(data.known, min(args.train_limit, len(data.known)))  # about many documents
    source = data.dataset.subset(drawn, keep_corpus=True)
    model = load_embed_model(minilm(), device=args.device)
    result = tune(source, model=model, methods="distill", reranker="train", budget=args.budget, seed=seed)
    print(result)
    head = {
        "part": "loop",
        "data": data.name,
        "seed": seed,
        "train questions": len(train.queries) if (train := result.evidence.train) else 0,
    }
    rows = [
        {**head, "system": row.name, "n": len(result.evidence.choose.queries), METRIC: row.score}
        | {"seconds": round(row.seconds, 1), "note": row.note, "command": command()}
        for row in result.rows
    ]
    test = result.comparison.systems[0].metrics[METRIC].test
    proof = {"system": f"proof: {result.chosen.label}", "n": result.evidence.tested}
    proof |= {METRIC: result.proof["chosen"].mean(METRIC), "gain": round(test.difference, 4)}
    proof |= {"gain, 95 %": [round(end, 4) for end in test.interval], "seconds": round(result.seconds["total"], 1)}
    return [*rows, head | proof | {"command": command()}]


def _whole(data: HumanSet, part: Any) -> Any:
    """A side of the split over the whole corpus, which is what is searched in use."""
    return data.dataset.subset(list(part.queries), keep_corpus=True)


def _cut(hits: Any, depth: int) -> Any:
    from llama_index_embft.search import TopK

    return TopK(hits.rows[:, :depth], hits.scores[:, :depth])


def speed(args: Any) -> list[dict[str, Any]]:
    """Labelled pairs of Lyft's questions: an epoch of both engines, and 100 candidates scored."""
    from llama_index_embft import CrossEncoderFinetuneEngine, CrossEncoderFinetuningDatasetSample, read_dataset
    from llama_index_embft.embeddings import load_cross_encoder, pair_logits
    from llama_index_embft.finetune import RerankerSettings

    data = read_dataset(args.data_dir / "lyft_10k_2021.json")
    passages = list(data.corpus.values())
    samples = []
    for number, (query, docs) in enumerate(data.relevant_docs.items()):
        wrong = passages[(7 * number + 3) % len(passages)]
        for text, score in ((data.corpus[docs[0]], 1), (wrong, 0)):
            samples.append(CrossEncoderFinetuningDatasetSample(data.queries[query], text, score))
    samples = samples[: args.pairs]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        start = Path(folder) / "start"
        load_cross_encoder(minilm(), add_head=True, max_length=args.max_length).save_pretrained(str(start))
        for system in ("stock", "ours"):
            begin = time.perf_counter()
            if system == "stock":
                _stock(samples, start, Path(folder) / "stock")
            else:
                settings = RerankerSettings(device=args.device, max_length=args.max_length, learning_rate=2e-5)
                CrossEncoderFinetuneEngine(
                    samples, str(start), f"{folder}/ours", epochs=1, show_progress_bar=False, settings=settings
                ).finetune()
            seconds = time.perf_counter() - begin
            rows.append(_timed("an epoch", system, len(samples), seconds))
        model = load_cross_encoder(start, device=args.device)
        query = next(iter(data.queries.values()))
        pairs = [(query, text) for text in passages[:100]]
        calls = {"CrossEncoder.predict": lambda: model.predict(pairs), "ours": lambda: pair_logits(model, pairs)}
        times: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(3):
            for name, call in calls.items():
                begin = time.perf_counter()
                call()
                times[name].append(time.perf_counter() - begin)
        rows += [_timed("100 candidates", name, 100, min(found)) for name, found in times.items()]
    return rows


def _timed(what: str, system: str, n: int, seconds: float) -> dict[str, Any]:
    row = {"part": "speed", "what": what, "system": system, "pairs": n}
    return row | {"seconds": round(seconds, 2), "pairs/s": round(n / seconds, 1), "command": command()}


def _stock(samples: list[Any], start: Path, out: Path) -> None:
    from llama_index.finetuning.cross_encoders import CrossEncoderFinetuneEngine as Stock
    from llama_index.finetuning.cross_encoders.dataset_gen import CrossEncoderFinetuningDatasetSample as Sample

    old = [Sample(query=one.query, context=one.context, score=one.score) for one in samples]
    # Without a validation set it does not run with today's sentence-transformers; two pairs cost it nothing.
    quiet = {"show_progress_bar": False, "evaluation_steps": 10_000}
    Stock(old, str(start), str(out), val_dataset=old[:2], epochs=1, **quiet).finetune()


if __name__ == "__main__":
    main()
