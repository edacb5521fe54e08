"""What is each kind of extractive question worth? Train on passages alone, test on questions that people or LLMs wrote.

For every kind and data set: questions are made from the training passages, a linear query adapter is trained on them
over cached vectors, and the test questions, which training never saw, are asked before and after. Differences are
paired, resampled by relevant passage, and averaged over the seeds first; a seed changes the questions, the batches and
their order. `without_labels.py` does the same with the whole model.

    python benchmarks/extractive.py                                                # minutes, on two CPU cores
    python benchmarks/extractive.py --data covidqa_en norquad_no cosqa_en          # people's questions; the last table
                                                                                   # leaves one out at a time
"""

from __future__ import annotations

import json
import logging
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _common import command, merged, minilm, parser, print_table, write_results

from llama_index_embft.embeddings import Encoder, as_encoder
from llama_index_embft.evaluation import Judgements, find_hits, paired_tests, score_hits
from llama_index_embft.generation.extractive import KINDS, generate_extractive_pairs
from llama_index_embft.search import top_k

METRICS = ("hit_rate@1", "hit_rate@5", "hit_rate@10", "ndcg@10")
# name -> (file whose passages are trained on, file whose questions are asked)
DATA_SETS = {
    "lyft-uber": ("lyft_10k_2021", "uber_10k_2021"),
    "uber": ("uber_10k_2021", "uber_10k_2021"),
    "pubmedqa": ("pubmedqa_labeled", "pubmedqa_labeled"),
    "cmrc": ("cmrc2018_dev_zh", "cmrc2018_dev_zh"),
    **{name: (f"human/{name}", f"human/{name}") for name in ("covidqa_en", "norquad_no", "cosqa_en", "stard_zh_law")},
}
USUAL = ("lyft-uber", "uber", "pubmedqa", "cmrc")
# What the package does where no kind is named: patterns, and others for chunks that no template fits.
DEFAULT = "default"
# Not a kind: the questions that came with the training passages, as the mark to compare with. Only where the test
# questions are others.
LABELS = "labels"


@dataclass
class Task:
    """Passages to learn from, and questions over a corpus to be tested with."""

    passages: dict[str, str]
    labels: dict[str, list[str]]  # passage id -> its own questions; empty where those are the test questions
    corpus_ids: list[str]  # descending, so that ties fall as in trec_eval
    corpus: list[str]
    query_ids: list[str]
    queries: list[str]
    judgements: Judgements
    clusters: list[str]


def load_task(folder: Path, name: str) -> Task:
    train, test = (json.loads((folder / f"{file}.json").read_text(encoding="utf-8")) for file in DATA_SETS[name])
    labels: dict[str, list[str]] = {}
    if DATA_SETS[name][0] != DATA_SETS[name][1]:
        for query_id, ids in train["relevant_docs"].items():
            labels.setdefault(ids[0], []).append(train["queries"][query_id])
    corpus_ids = sorted(test["corpus"], reverse=True)
    query_ids = sorted(test["queries"])
    qrels = {q: dict.fromkeys(test["relevant_docs"][q], 1) for q in query_ids}
    return Task(
        passages=train["corpus"],
        labels=labels,
        corpus_ids=corpus_ids,
        corpus=[test["corpus"][i] for i in corpus_ids],
        query_ids=query_ids,
        queries=[test["queries"][q] for q in query_ids],
        judgements=Judgements.from_qrels(qrels, query_ids, {doc: row for row, doc in enumerate(corpus_ids)}),
        clusters=[test["relevant_docs"][q][0] for q in query_ids],
    )


def make_pairs(task: Task, kinds: str, args: Any, seed: int) -> list[tuple[str, str]]:
    """(question, passage id) for kinds joined by "+"; the same for every method."""
    from llama_index.core.schema import TextNode

    if kinds == LABELS:
        return [(question, doc) for doc, questions in task.labels.items() for question in questions]
    dataset = generate_extractive_pairs(
        [TextNode(id_=doc, text=text) for doc, text in task.passages.items()],
        kinds=None if kinds == DEFAULT else kinds.split("+"),
        num_questions_per_chunk=args.questions_per_chunk,
        seed=seed,
    )
    return [(question, dataset.relevant_docs[q][0]) for q, question in dataset.queries.items()]


def scores(queries: Any, corpus: Any, task: Task) -> np.ndarray:
    """Score each query; returns shape ``(n_queries, n_metrics)``."""
    hits = find_hits(top_k(queries, corpus, 10).rows, task.judgements, len(task.corpus))
    by_name = score_hits(hits, task.judgements, METRICS)
    return np.column_stack([by_name[name] for name in METRICS])


def keep_found(task: Task, pairs: list[tuple[str, str]], encoder: Encoder, depth: int) -> list[tuple[str, str]]:
    """Keep the questions whose passage the base finds among its first `depth` (round-trip consistency)."""
    row_of = {doc: row for row, doc in enumerate(task.passages)}
    questions = encoder.encode_queries([question for question, _ in pairs])
    found = top_k(questions, encoder.encode_documents(list(task.passages.values())), depth).rows
    return [pair for pair, rows in zip(pairs, found, strict=True) if row_of[pair[1]] in rows]


def headroom(task: Task, encoder: Encoder) -> float:
    """How often the base finds, among its first ten, the passage that a sentence was copied from."""
    from llama_index.core.schema import TextNode

    nodes = [TextNode(id_=doc, text=text) for doc, text in zip(task.corpus_ids, task.corpus, strict=True)]
    copied = generate_extractive_pairs(nodes, kinds=["cloze"])
    row_of = {doc: row for row, doc in enumerate(task.corpus_ids)}
    judgements = Judgements.from_qrels(copied.qrels(), list(copied.queries), row_of)
    found = top_k(encoder.encode_queries(list(copied.queries.values())), encoder.encode_documents(task.corpus), 10)
    hits = find_hits(found.rows, judgements, len(task.corpus))
    return float(score_hits(hits, judgements, ["hit_rate@10"])["hit_rate@10"].mean())


def adapter_scores(task: Task, pairs: list[tuple[str, str]], encoder: Encoder, args: Any, seed: int) -> np.ndarray:
    """Train a linear query adapter from the identity, each question against all training passages."""
    import torch

    torch.manual_seed(seed)
    row_of = {doc: row for row, doc in enumerate(task.passages)}
    documents = torch.from_numpy(encoder.encode_documents(list(task.passages.values())))
    questions = torch.from_numpy(encoder.encode_queries([question for question, _ in pairs]))
    target = torch.tensor([row_of[doc] for _, doc in pairs])
    documents = torch.nn.functional.normalize(documents, dim=1)
    change = torch.zeros(documents.shape[1], documents.shape[1], requires_grad=True)
    optimizer = torch.optim.AdamW([change], lr=args.adapter_lr, weight_decay=0.1)  # decays towards the identity
    batch = 64
    for _ in range(args.adapter_epochs):
        for rows in torch.randperm(len(questions)).split(batch):
            turned = torch.nn.functional.normalize(questions[rows] + questions[rows] @ change, dim=1)
            loss = torch.nn.functional.cross_entropy(20 * turned @ documents.T, target[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    asked = encoder.encode_queries(task.queries)
    with torch.no_grad():
        turned_queries = asked + asked @ change.numpy()
    return scores(turned_queries, encoder.encode_documents(task.corpus), task)


def make_row(name: str, kinds: str, n_pairs: int, base: np.ndarray, tuned: np.ndarray, task: Task) -> dict:
    """One line of the table; significance on nDCG@10."""
    difference = tuned - base
    test = paired_tests(difference, task.clusters)[METRICS.index("ndcg@10")]
    row: dict[str, Any] = {"data": name, "kinds": kinds, "pairs": n_pairs}
    for m, metric in enumerate(METRICS):
        row[metric] = round(float(tuned[:, m].mean()), 4)
    row |= {
        "base ndcg@10": round(float(base[:, METRICS.index("ndcg@10")].mean()), 4),
        "difference": round(test.difference, 4),
        "low": round(test.interval[0], 4),
        "high": round(test.interval[1], 4),
        "p": round(test.p, 4),
        "verdict": "same" if test.p >= 0.05 else ("better" if test.difference > 0 else "WORSE"),
    }
    return row


def leave_one_out(rows: list[dict]) -> list[dict]:
    """For each data set, the kinds that are best on the mean of the others, and what they gain on it."""
    gains: dict[str, dict[str, float]] = {}
    for row in rows:
        if row["kinds"] != LABELS:
            gains.setdefault(row["data"], {})[row["kinds"]] = row["difference"]
    chosen = []
    for left_out, own in gains.items():
        others = [gains[name] for name in gains if name != left_out]
        common = set(own).intersection(*others)
        if others and common:
            best = max(sorted(common), key=lambda kinds: sum(gain[kinds] for gain in others))
            chosen.append({"left out": left_out, "chosen by the others": best, "difference": own[best]})
    return chosen


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--model-path", default=None, help="SentenceTransformer folder; default all-MiniLM-L6-v2")
    options.add_argument("--data", nargs="+", choices=list(DATA_SETS), default=list(USUAL))
    # No data set here has titles or headings to make questions from.
    kinds = [DEFAULT, *(kind for kind in KINDS if kind != "title"), "pattern+phrases", "pattern+phrases+cloze", LABELS]
    options.add_argument("--kinds", nargs="+", default=kinds, help="names, mixes joined by +")
    options.add_argument("--questions-per-chunk", type=int, default=2)
    options.add_argument("--round-trip", type=int, help="keep questions whose passage the base finds in its first N")
    options.add_argument("--seeds", type=int, default=1)
    options.add_argument("--adapter-lr", type=float, default=1e-4)
    options.add_argument("--adapter-epochs", type=int, default=10)
    options.add_argument("--max-seq-length", type=int, default=256)
    options.add_argument("--limit-passages", type=int, default=None, help="train on N random passages only")
    options.add_argument("--out", default="extractive", help="name of the JSON in benchmarks/results")
    args = options.parse_args()
    args.model_path = args.model_path or minilm()

    import transformers
    from sentence_transformers import SentenceTransformer

    transformers.logging.set_verbosity_error()
    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)
    model = SentenceTransformer(args.model_path, device=args.device)
    model.max_seq_length = args.max_seq_length
    encoder = as_encoder(model)
    rows = []
    for name in args.data:
        task = load_task(args.data_dir, name)
        if args.limit_passages:
            kept = random.Random(0).sample(sorted(task.passages), min(args.limit_passages, len(task.passages)))
            task.passages = {doc: task.passages[doc] for doc in kept}
            task.labels = {doc: task.labels[doc] for doc in kept if doc in task.labels}
        base = scores(encoder.encode_queries(task.queries), encoder.encode_documents(task.corpus), task)
        copied = round(headroom(task, encoder), 4)
        print(f"{name}: the base finds the passage of a copied sentence among its first ten in {copied:.1%} of cases")
        for kinds in args.kinds:
            if kinds == LABELS and not task.labels:
                continue
            started = time.perf_counter()
            results = []
            for seed in range(args.seeds):
                pairs = make_pairs(task, kinds, args, seed)
                if args.round_trip:
                    pairs = keep_found(task, pairs, encoder, args.round_trip)
                results.append(adapter_scores(task, pairs, encoder, args, seed))
            seconds = (time.perf_counter() - started) / args.seeds
            row = make_row(name, kinds, len(pairs), base, np.mean(results, axis=0), task)
            rows.append(row | {"copied hit@10": copied, "seconds": round(seconds, 1), "command": command()})
            print_table(rows[-1:])
    print()
    print_table(rows)
    print_table(leave_one_out(rows))
    settings = {k: v for k, v in vars(args).items() if k not in ("data_dir", "model_path", "out", "kinds", "data")}
    rows = merged(args.out, rows, ("data", "kinds"))
    write_results(args.out, rows, device=args.device, settings=settings, model=Path(args.model_path).name)


if __name__ == "__main__":
    main()
