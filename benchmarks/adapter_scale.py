"""Memory and time of adapters and NUDGE over many documents, and what an adapter adds to one query.

    python benchmarks/adapter_scale.py                                     # 1,000,000 x 768 documents, 100,000 queries
    python benchmarks/adapter_scale.py --docs 10000 --queries 1000 --no-save   # a hundredth of it

Random document vectors in a memory-mapped `.npy` file; a query is its document, turned by one fixed rotation, with
noise. Each part runs in a process of its own, whose peak resident memory is what is reported: the pages of the file
that the system keeps mapped count in it. The adapter is linear, compared with a sample of all documents; NUDGE is
variant N with 8 steps and the closed form. Both are validated on 1,000 other queries against the whole corpus.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from _common import parser, print_table, write_results

_BLOCK = 16_384
PARTS = ("adapter", "nudge", "apply")


def main() -> None:
    args = _arguments()
    if args.part is not None:
        print(json.dumps({"adapter": _adapter, "nudge": _nudge, "apply": _apply}[args.part](args)))
        return
    rows = []
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        _write_vectors(Path(folder), args)
        for part in args.parts:
            rows += _in_process(part, folder, args)
            print_table(rows[-1:])
    print_table(rows)
    if args.save:
        sizes = {
            name: getattr(args, name) for name in ("docs", "queries", "val", "dim", "epochs", "negatives", "batch")
        }
        write_results("adapter_scale", rows, threads=args.threads, **sizes)


def _arguments() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--docs", type=int, default=1_000_000)
    options.add_argument("--queries", type=int, default=100_000, help="training queries, each about one document")
    options.add_argument("--val", type=int, default=1_000, help="validation queries")
    options.add_argument("--dim", type=int, default=768)
    options.add_argument("--epochs", type=int, default=1)
    options.add_argument("--batch", type=int, default=256)
    options.add_argument("--negatives", type=int, default=8192, help="documents that a query is compared with")
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--folder", default=None, help="for the vectors: docs x dim x 4 bytes")
    options.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    options.add_argument("--no-save", dest="save", action="store_false", help="do not write the result file")
    options.add_argument("--part", choices=PARTS, default=None, help=argparse.SUPPRESS)
    options.add_argument("--vectors", type=Path, default=None, help=argparse.SUPPRESS)
    return options.parse_args()


def _write_vectors(folder: Path, args: argparse.Namespace) -> None:
    """Documents, training and validation queries as `.npy` files, written block by block."""
    dice = np.random.default_rng(0)
    documents = np.lib.format.open_memmap(
        folder / "documents.npy", mode="w+", dtype=np.float32, shape=(args.docs, args.dim)
    )
    for start in range(0, args.docs, _BLOCK):
        rows = min(_BLOCK, args.docs - start)
        documents[start : start + rows] = _unit(dice.standard_normal((rows, args.dim), dtype=np.float32))
    turn, upper = np.linalg.qr(np.eye(args.dim) + 2.0 / np.sqrt(args.dim) * dice.standard_normal((args.dim, args.dim)))
    turn = (turn * np.sign(np.diag(upper))).astype(np.float32)
    # Validation asks about documents that have a training query: NUDGE moves no others.
    targets = dice.permutation(args.docs)[: args.queries]
    asked = {"train": targets, "val": dice.choice(targets, args.val)}
    for name, rows in asked.items():
        parts = [rows[start : start + _BLOCK] for start in range(0, len(rows), _BLOCK)]
        queries = np.concatenate([_queries(documents, part, turn, dice) for part in parts])
        np.save(folder / f"{name}.npy", queries)
        np.save(folder / f"{name}_targets.npy", rows)
    documents.flush()


def _queries(documents, rows, turn, dice):
    noise = dice.standard_normal((len(rows), turn.shape[0]), dtype=np.float32) / np.sqrt(turn.shape[0])
    return _unit(documents[rows] @ turn + 1.5 * noise)


def _unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def _in_process(part: str, folder: str, args: argparse.Namespace) -> list[dict]:
    names = ("docs", "queries", "val", "dim", "epochs", "batch", "negatives", "threads")
    command = [sys.executable, __file__, "--part", part, "--vectors", folder]
    command += [word for name in names for word in (f"--{name}", str(getattr(args, name)))]
    environment = {**os.environ, "OMP_NUM_THREADS": str(args.threads)}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def _load(args: argparse.Namespace):
    documents = np.load(args.vectors / "documents.npy", mmap_mode="r")
    return documents, *(np.load(args.vectors / f"{n}.npy") for n in ("train", "train_targets", "val", "val_targets"))


def _ndcg(rows, targets) -> float:
    """nDCG@10 where each query has one relevant document."""
    at, rank = np.nonzero(rows == targets[:, None])
    return float((1 / np.log2(rank + 2)).sum() / len(targets)) if len(at) else 0.0


def peak_gib() -> float:
    """The most memory that this process had resident.

    Not ``ru_maxrss`` where there is another way: it begins with what the parent had when it started this process.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _adapter(args: argparse.Namespace) -> list[dict]:
    import torch

    from llama_index_embft.embeddings import apply_adapter, linear_adapter
    from llama_index_embft.finetune.adapter import AdapterOptions, AdapterSettings, train_adapter
    from llama_index_embft.search import top_k

    torch.set_num_threads(args.threads)
    documents, queries, targets, val, val_targets = _load(args)
    searching = 0.0

    def validate(adapter):
        nonlocal searching
        started = time.perf_counter()
        hits = top_k(apply_adapter(adapter, val), documents, 10)
        searching += time.perf_counter() - started
        return {"ndcg@10": _ndcg(hits.rows, val_targets)}

    options = AdapterOptions(epochs=args.epochs, batch_size=args.batch, learning_rate=1e-3)
    settings = AdapterSettings(temperature=0.05, max_negatives=args.negatives)
    loaded, started = peak_gib(), time.perf_counter()
    positives = [[int(row)] for row in targets]
    adapter = linear_adapter(args.dim)
    best, steps = train_adapter(adapter, queries, documents, positives, options, settings, validate=validate)
    seconds = time.perf_counter() - started
    return [
        {
            "part": "adapter",
            "seconds": seconds,
            "of it searching for validation": searching,
            "steps": steps,
            "peak GiB": peak_gib(),
            "GiB before": loaded,
            "ndcg@10 before": best.base_score,
            "ndcg@10 after": best.score,
        }
    ]


def _nudge(args: argparse.Namespace) -> list[dict]:
    import torch

    from llama_index_embft.finetune.nudge import StepSearch, closed_form_step, movement, steps_to_try

    torch.set_num_threads(args.threads)
    documents, queries, targets, val, val_targets = _load(args)
    loaded, started = peak_gib(), time.perf_counter()
    moves = movement(documents, queries, [[int(row)] for row in targets], "N")
    moved = time.perf_counter()
    step, _ = closed_form_step(val, documents, [[int(row)] for row in val_targets], moves)
    solved = time.perf_counter()
    search = StepSearch(val, documents, moves, depth=10)
    scores = {x: _ndcg(search.after(x).rows, val_targets) for x in (0.0, step, *steps_to_try(moves, 8).tolist())}
    return [
        {
            "part": "nudge",
            "seconds": time.perf_counter() - started,
            "of it the closed form": solved - moved,
            "steps": len(scores) - 1,
            "peak GiB": peak_gib(),
            "GiB before": loaded,
            "ndcg@10 before": scores[0.0],
            "ndcg@10 after": max(scores.values()),
        }
    ]


def _apply(args: argparse.Namespace) -> list[dict]:
    """Microseconds from the base model's vector to the adapter's, as a list of floats each."""
    import torch
    from llama_index.core.embeddings import MockEmbedding

    from llama_index_embft.embeddings import (
        AdapterEmbedding,
        linear_adapter,
        low_rank_adapter,
        mlp_adapter,
        save_adapter,
    )

    torch.set_num_threads(1)  # one vector is less work than waking a thread
    rows = []
    for dim in sorted({384, args.dim}):
        base = MockEmbedding(embed_dim=dim)
        plain = _microseconds(lambda base=base: base.get_query_embedding("x"))
        kinds = {"linear": linear_adapter(dim), "low-rank": low_rank_adapter(dim, 32), "mlp": mlp_adapter(dim)}
        for kind, module in kinds.items():
            with tempfile.TemporaryDirectory() as folder:
                save_adapter(f"{folder}/a", module, base={}, base_fingerprint=None, record={}, normalize=True)
                model = AdapterEmbedding(base, f"{folder}/a")
            vector = np.random.default_rng(0).standard_normal(dim).tolist()
            added = _microseconds(lambda model=model, vector=vector: model._change_query(vector))
            whole = _microseconds(lambda model=model: model.get_query_embedding("x"))
            rows.append(
                {
                    "part": f"apply {kind}, {dim} dimensions",
                    "microseconds of the adapter": added,
                    "microseconds of a call through both models' LlamaIndex layers": whole,
                    "of the base model's layer alone": plain,
                }
            )
    return rows


def _microseconds(call, repeats: int = 2000) -> float:
    for _ in range(100):
        call()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return 1e6 * statistics.median(times)


if __name__ == "__main__":
    main()
