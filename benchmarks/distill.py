"""How near does a student of three layers come to its teacher, on the teacher's index, and how much faster is it?

Teacher: all-MiniLM-L6-v2. Student: its own first three layers. A data set with questions that people asked is split by
document (60/10/30). The student learns the teacher's vectors of some passages, and in a second arm of the training
side's questions too; no label is used. Tested on questions that had no part in it, over the whole corpus as the teacher
embedded it: only the model that embeds the queries changes. Speed: the test questions, and some passages, embedded by
both in turns in the same run; other programs on the machine change it.

    python benchmarks/distill.py --data covidqa_en
    python benchmarks/distill.py --data cosqa_en --texts 4000 --epochs 5
"""

from __future__ import annotations

import os
import tempfile
import time
from typing import TYPE_CHECKING, Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
from _common import command, merged, minilm, parser, print_table, write_results
from _human import HumanSet

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from llama_index_embft.embeddings import Encoder

METRICS = ("recall@10", "ndcg@10")
ARMS = ("passages", "passages and questions")
NOTE = "Speed is of one run, beside whatever else the machine does: compare systems, not runs."
KEYS = ("data", "system", "texts", "epochs", "seed")


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--data", default="covidqa_en", help="a set of people's questions, by name")
    options.add_argument("--layers", type=int, default=3, help="of the student")
    options.add_argument("--texts", type=int, default=300, help="most passages to learn from")
    options.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    options.add_argument("--epochs", type=int, default=4)
    options.add_argument("--limit", type=int, default=400, help="most test questions")
    options.add_argument("--seed", type=int, default=0)
    args = options.parse_args()
    for rows in measured(HumanSet.load(args.data_dir, args.data, args.limit), args):
        print_table([{name: value for name, value in row.items() if name != "command"} for row in rows])
        write_results("distill", merged("distill", rows, KEYS), device=args.device, note=NOTE)


def measured(data: HumanSet, args: Any) -> Iterator[list[dict[str, Any]]]:
    """The teacher and the untrained student with their speed, and again with the student after each arm."""
    from sentence_transformers import SentenceTransformer

    from llama_index_embft.embeddings import as_encoder, load_embed_model
    from llama_index_embft.finetune import DistillationEngine, DistillationSettings

    teacher = load_embed_model(minilm(), device=args.device)
    encoder = as_encoder(teacher, show_progress=True)
    documents = encoder.encode_documents(list(data.test.dataset.corpus.values()))
    drawn = np.random.default_rng(args.seed).permutation(len(data.dataset.corpus))[: args.texts]
    texts = [list(data.dataset.corpus.values())[row] for row in np.sort(drawn)]
    asked = {"passages": [], "passages and questions": list(data.split.train.queries.values())}
    settings = DistillationSettings(student_layers=args.layers, epochs=args.epochs, seed=args.seed, device=args.device)
    rows = [_row(data, args, "teacher", encoder.encode_queries(data.test.texts), documents)]
    with tempfile.TemporaryDirectory() as folder:
        for arm in args.arms:
            engine = DistillationEngine(
                texts, teacher, model_output_path=f"{folder}/m", queries=asked[arm], settings=settings,
                show_progress=False,
            )  # fmt: skip
            if len(rows) == 1:
                untrained = as_encoder(engine.student, cache=None)
                rows.append(_row(data, args, "first layers", untrained.encode_queries(data.test.texts), documents))
                for kind, some in (("questions/s", data.test.texts), ("passages/s", texts[:40])):
                    speeds = _speeds([as_encoder(teacher, cache=None), untrained], some)
                    for row, speed in zip(rows, speeds, strict=True):
                        row[kind] = round(speed, 1)
                yield rows
            result = engine.finetune()
            student = as_encoder(SentenceTransformer(f"{folder}/m", device=args.device), cache=None)
            row = _row(data, args, f"student of {arm}", student.encode_queries(data.test.texts), documents)
            row |= {"of the teacher": round(row["ndcg@10"] / rows[0]["ndcg@10"], 3)}
            row |= {"cosine before": round(result.base_score or 0.0, 4), "cosine": round(result.best_score or 0.0, 4)}
            row |= {"agreement@10": round(result.agreement, 4), "train s": round(result.seconds["train"], 1)}
            rows.append(row)
            yield rows


def _row(
    data: HumanSet, args: Any, system: str, queries: NDArray[np.float32], documents: NDArray[np.float32]
) -> dict[str, Any]:
    from llama_index_embft.evaluation import evaluate_embeddings

    report = evaluate_embeddings(data.test.dataset, queries, documents, ks=(10,), metrics=METRICS, label=system)
    row = {"data": data.name, "system": system, "n": len(data.test), "texts": args.texts, "epochs": args.epochs}
    return row | {"seed": args.seed, "command": command()} | {name: round(report.mean(name), 4) for name in METRICS}


def _speeds(encoders: list[Encoder], texts: list[str]) -> list[float]:
    """Texts a second of each, the fastest of three turns."""
    best = [float("inf")] * len(encoders)
    for _ in range(3):
        for place, encoder in enumerate(encoders):
            begin = time.perf_counter()
            encoder.encode_queries(texts)
            best[place] = min(best[place], time.perf_counter() - begin)
    return [len(texts) / seconds for seconds in best]


if __name__ == "__main__":
    main()
