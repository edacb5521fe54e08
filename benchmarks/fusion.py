"""How should dense and lexical hits be mixed, with what weight, and what do 50 questions tell? Base model and BM25.

For each data set of `human.py`, on its test questions: nDCG@10 of every fusion at 21 weights of the dense part; the
copied-sentence share, and what the prior weight that follows from it scores; and, for many draws of 50 of the other
questions, the weight learnt from them. Nothing is trained, so all figures follow from two searches a question.

    python benchmarks/fusion.py                     # minutes, once the corpora are embedded
    python benchmarks/fusion.py --data covidqa_en cranfield_en --draws 200
"""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
from _common import minilm, parser, print_table, write_results
from _human import DEPTH, HUMAN, OLDER, HumanSet, copied_share, draws

STEPS = 21
FUSIONS = ("zscore", "minmax", "dbsf", "rrf")


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--data", nargs="+", default=[*HUMAN, *OLDER], metavar="SET")
    options.add_argument("--few", type=int, default=50, help="questions a draw")
    options.add_argument("--draws", type=int, default=100)
    options.add_argument("--limit", type=int, default=800, help="most test questions")
    options.add_argument("--no-save", dest="save", action="store_false", help="print only")
    args = options.parse_args()
    rows: list[dict[str, Any]] = []
    for name in args.data:
        rows += set_rows(HumanSet.load(args.data_dir, name, args.limit), args)
    print_table([{name: value for name, value in row.items() if name != "curve"} for row in rows])
    if args.save:
        write_results("fusion", rows, device=args.device, depth=DEPTH, model="all-MiniLM-L6-v2")


def set_rows(data: HumanSet, args: Any) -> list[dict[str, Any]]:
    """One row a fusion: its best weight, equal weight, the prior and the learnt weight, as nDCG@10."""
    from llama_index_embft.embeddings import as_encoder, load_embed_model
    from llama_index_embft.retrievers import learn_weight, prior_weight
    from llama_index_embft.search import fuse

    encoder = as_encoder(load_embed_model(minilm(), device=args.device))
    index, n_documents = data.documents(encoder), len(data.ids)
    share = copied_share(data, encoder)
    grid = [step / (STEPS - 1) for step in range(STEPS)]
    test = data.test
    dense = index.search(encoder.encode_queries(test.texts), DEPTH)
    lexical = data.lexical.search(test.texts, DEPTH)
    pool = data.questions(data.known)
    found = index.search(encoder.encode_queries(pool.texts), DEPTH), data.lexical.search(pool.texts, DEPTH)
    rows = []
    for method in FUSIONS:
        curve = [float(test.values(fuse(dense, lexical, weight, method), n_documents).mean()) for weight in grid]
        best, single = int(np.argmax(curve)), max(curve[0], curve[-1])
        learnt = []
        for ids in draws(pool.ids, args.few, args.draws):
            places = np.array([pool.row_of[query] for query in ids])
            hits = (type(part)(part.rows[places], part.scores[places]) for part in found)
            choice = learn_weight(*hits, data.questions(ids).judgements, prior=prior_weight(share), method=method)
            learnt.append(curve[grid.index(choice.weight)])
        prior = prior_weight(share)
        rows.append(
            {
                "data": data.name,
                "n": len(test),
                "copied share": round(share, 4),
                "fusion": method,
                "BM25": curve[0],
                "base": curve[-1],
                "equal weight": curve[STEPS // 2],
                "best weight": grid[best],
                "best": curve[best],
                "prior": prior,
                "at prior": float(np.interp(prior, grid, curve)),
                f"learnt from {args.few}": float(np.mean(learnt)),
                "5 % worst draws": float(np.quantile(learnt, 0.05)),
                "prior - single": float(np.interp(prior, grid, curve)) - single,
                "learnt - single": float(np.mean(learnt)) - single,
                "curve": [round(value, 4) for value in curve],
            }
        )
    return rows


if __name__ == "__main__":
    main()
