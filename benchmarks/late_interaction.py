"""Does the embedding model as it is, reading hits token by token, rank better than its single vectors?

Nothing is trained. ``quality``: data sets with questions that people asked, split by document (60/10/30); the test
questions are searched by the base model, and by its mixture with BM25 at the weight that `prior_weight` gives. The
first hits of each are put in order by `LateInteractionReranker` at several shares: 0 leaves them as they are, 1 is the
reranker alone, 0.5 the default. Intervals are paired and resampled by document.

``price`` is what a question costs, with the token vectors of its hits to be computed, and with all of them in memory.

    python benchmarks/late_interaction.py --limit 200 --parts quality
    python benchmarks/late_interaction.py --data covidqa_en --parts price
"""

from __future__ import annotations

import os
import time
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
from _common import command, merged, minilm, parser, print_table, write_results
from _human import HUMAN, METRIC, OLDER, HumanSet, copied_share

SETS = (*HUMAN[:-1], *OLDER)  # the laws of stard_zh_law are 55,000 and Chinese: hours for a model of English
WEIGHTS = (0.25, 0.5, 0.75, 1.0)
TIMED = 20


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--parts", nargs="+", default=["quality", "price"], choices=("quality", "price"))
    options.add_argument("--data", nargs="+", default=list(SETS), metavar="SET", help=", ".join(SETS))
    options.add_argument("--model", default=minilm(), help="folder or name of an embedding model")
    options.add_argument("--limit", type=int, default=400, help="most test questions")
    options.add_argument("--depth", type=int, default=30, help="hits that are reranked; `tune` reads so many")
    args = options.parse_args()
    for name in args.data:
        data = HumanSet.load(args.data_dir, name, args.limit)
        rows = quality(data, args) if "quality" in args.parts else []
        rows += price(data, args) if "price" in args.parts else []
        print_table(rows)
        keys = ("part", "data", "model", "first stage", "share")
        # Now, and not at the end: a set takes minutes.
        write_results("late_interaction", merged("late_interaction", rows, keys), device=args.device)


def quality(data: HumanSet, args: Any) -> list[dict[str, Any]]:
    """Both first stages of one data set, and the reranker on top at each share."""
    from llama_index_embft.embeddings import as_encoder, load_embed_model
    from llama_index_embft.evaluation import compare
    from llama_index_embft.retrievers import LateInteractionReranker, prior_weight, ranked_hits
    from llama_index_embft.search import TopK, fuse

    base = load_embed_model(args.model, device=args.device)
    encoder = as_encoder(base)
    reranker = LateInteractionReranker(base, cache_mb=4096)
    weight = prior_weight(copied_share(data, encoder))
    dense = data.documents(encoder).search(encoder.encode_queries(data.test.texts), 100)
    mixture = fuse(dense, data.lexical.search(data.test.texts, 100), weight)
    head = {"part": "quality", **named(data, args)}
    rows = []
    for stage, hits in (("dense", dense), (f"dense {weight:.0%} + BM25", mixture)):
        first = TopK(hits.rows[:, : args.depth], hits.scores[:, : args.depth])
        scores = np.full(first.rows.shape, -np.inf, dtype=np.float32)
        for place, (query, found) in enumerate(zip(data.test.texts, first.rows.tolist(), strict=True)):
            texts = [data.dataset.corpus[data.ids[row]] for row in found if row >= 0]
            scores[place, : len(texts)] = reranker.scores(query, texts)
        second = ranked_hits(scores, first.rows)
        reports = {0.0: data.report(first, data.test, "first stage")}
        for share in WEIGHTS:
            both = fuse(second, first, share, depth=args.depth)
            cut = TopK(both.rows[:, : args.depth], both.scores[:, : args.depth])
            reports[share] = data.report(cut, data.test, f"share {share}")
        for share, report in reports.items():
            row: dict[str, Any] = {**head, "first stage": stage.partition(" ")[0] + (" + BM25" if "+" in stage else "")}
            row |= {"share": share, "dense weight": 1.0 if stage == "dense" else weight, "n": len(data.test)}
            row |= {METRIC: round(report.mean(METRIC), 4), "gain": None, "gain, 95 %": None, "p": None}
            if share:
                found = compare(reports[0.0], report, primary=METRIC).systems[0].metrics[METRIC].test
                row["gain"], row["gain, 95 %"] = round(found.difference, 4), [round(end, 4) for end in found.interval]
                row["p"] = round(found.p, 4)
            rows.append(row | {"depth": args.depth, "command": command()})
    return rows


def price(data: HumanSet, args: Any) -> list[dict[str, Any]]:
    """Median milliseconds to read the first hits of BM25, for some questions one after another."""
    from llama_index_embft.embeddings import load_embed_model
    from llama_index_embft.retrievers import LateInteractionReranker

    questions = data.test.texts[:TIMED]
    found = data.lexical.search(questions, args.depth).rows.tolist()
    hits = [[data.dataset.corpus[data.ids[row]] for row in rows if row >= 0] for rows in found]
    reranker = LateInteractionReranker(load_embed_model(args.model, device=args.device), cache_mb=4096)
    row: dict[str, Any] = {"part": "price", **named(data, args), "n": len(questions), "depth": args.depth}
    for name, asked in (("ms, nothing in memory", reranker.forgetful()), ("", reranker), ("ms, in memory", reranker)):
        took = []
        for query, texts in zip(questions, hits, strict=True):
            begin = time.perf_counter()
            asked.scores(query, texts)
            took.append(time.perf_counter() - begin)
        if name:
            row[name] = round(1000 * float(np.median(took)), 1)
    return [row | {"command": command()}]


def named(data: HumanSet, args: Any) -> dict[str, Any]:
    """Data set and model of a row."""
    return {"data": data.name, "model": "all-MiniLM-L6-v2" if args.model == minilm() else args.model}


if __name__ == "__main__":
    main()
