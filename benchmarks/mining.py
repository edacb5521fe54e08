"""Mining hard negatives against the peers, on the same ready embeddings: seconds and peak extra memory.

    python benchmarks/mining.py                           stdlib, cmrc, 20k x 20k x 256
    python benchmarks/mining.py --sizes 100k              100k x 100k x 256: minutes
    python benchmarks/mining.py --full                    183k x 369k x 512, the Chinese seed's scale: long
    python benchmarks/mining.py --device cuda --only topk --sizes 100k full

Every contender takes 15 negatives at random from the ranks 11 to 210 and runs in a process of its own. Memory is what
the process uses at its peak beyond what it held when the embeddings were loaded (on a GPU: memory of the GPU).
``product`` is the blocked float32 matrix product alone, without looking at the scores. ``ours (top k)`` is
`top_k(..., k=210)` without the positives; ``ours`` is `mine_hard_negatives` down to the finished data set;
``ours, text rules`` also keeps near duplicates of positives and overlapping chunks out, which no peer does.
FlagEmbedding's logic is written down here in our words: a flat FAISS index, batches of 64 queries, a random sample of
the ranks. On a GPU the peers but FAISS run there too.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from _common import minilm, parser, print_table, write_results

RANGE = (10, 210)
NEGATIVES = 15
SIZES = {"20k": (20_000, 20_000, 256), "100k": (100_000, 100_000, 256), "full": (183_000, 369_000, 512)}
CONTENDERS = [
    "product",
    "product, low precision",
    "ours (top k)",
    "ours (top k, float32)",
    "ours",
    "ours, text rules",
    "sentence-transformers",
    "sentence-transformers, FAISS",
    "FlagEmbedding's logic",
    "ours, HNSW",
    "ours, IVF",
]
TOPK = CONTENDERS[:4]


def main() -> None:
    """Prepare the data, run every contender in its own process, print and write the table."""
    options = parser(__doc__)
    options.add_argument("--sizes", nargs="+", default=["stdlib", "cmrc", "20k"], help="stdlib cmrc 20k 100k full")
    options.add_argument("--full", action="store_true", help="add the full size")
    options.add_argument("--only", choices=["topk"], help="the search alone, without the peers")
    options.add_argument("--contenders", nargs="+", help="names as in the table")
    options.add_argument("--repeats", type=int, default=3, help="runs each, of which the fastest counts")
    options.add_argument("--name", default="mining", help="file name of the results")
    options.add_argument("--folder", type=Path, help="where embeddings are kept between runs; default: a temporary one")
    options.add_argument("--run", nargs=2, help="internal: contender and folder")
    args = options.parse_args()
    if args.run:
        run(args.run[0], Path(args.run[1]), args.device, args.repeats)
        return
    sizes = [*args.sizes, *(["full"] if args.full and "full" not in args.sizes else [])]
    contenders = args.contenders or (TOPK if args.only == "topk" else CONTENDERS)
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for size in sizes:
            folder = (args.folder or Path(temporary)) / size
            prepare(size, folder, args.data_dir, texts=any(name not in TOPK for name in contenders))
            for contender in contenders:
                rows.append(measure(contender, size, folder, args))
                print_table(rows[-1:])
    relate(rows)
    print()
    print_table(rows)
    write_results(args.name, rows, device=args.device)


def prepare(size: str, folder: Path, data_dir: Path, *, texts: bool) -> None:
    """Write queries.npy, corpus.npy, positives.npy (pairs of rows) and the data set, unless they are there.

    The search alone needs no texts, and so runs where only torch and numpy are installed.
    """
    if (folder / "dataset.json").exists() or (not texts and (folder / "positives.npy").exists()):
        return
    folder.mkdir(parents=True, exist_ok=True)
    if size in SIZES and not (folder / "positives.npy").exists():
        n_queries, n_docs, dim = SIZES[size]
        for name, n, seed in (("queries", n_queries, 1), ("corpus", n_docs, 2)):
            matrix = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.float32, (n, dim))
            rng = np.random.default_rng(seed)
            for start in range(0, n, 10_000):
                block = rng.standard_normal((min(10_000, n - start), dim), dtype=np.float32)
                matrix[start : start + len(block)] = block / np.linalg.norm(block, axis=1, keepdims=True)
            matrix.flush()
        np.save(folder / "positives.npy", np.stack([np.arange(n_queries), np.arange(n_queries) % n_docs], axis=1))
    if size in SIZES and not texts:
        return
    from llama_index_embft.dataset import EmbeddingQAFinetuneDataset, build_stdlib_dataset

    if size in SIZES:
        n_queries, n_docs, _ = SIZES[size]
        dataset = EmbeddingQAFinetuneDataset(
            queries={f"q{i}": f"query {i}" for i in range(n_queries)},
            corpus={f"d{i}": f"document {i}" for i in range(n_docs)},
            relevant_docs={f"q{i}": [f"d{i % n_docs}"] for i in range(n_queries)},
        )
    else:
        dataset = (
            build_stdlib_dataset()
            if size == "stdlib"
            else EmbeddingQAFinetuneDataset.from_json(data_dir / "cmrc2018_dev_zh.json")
        )
        from sentence_transformers import SentenceTransformer

        from llama_index_embft.embeddings import as_encoder

        encoder = as_encoder(SentenceTransformer(minilm(), device="cpu"), show_progress=True)
        np.save(folder / "corpus.npy", encoder.encode_documents(list(dataset.corpus.values())))
        np.save(folder / "queries.npy", encoder.encode_queries(list(dataset.queries.values())))
        row_of = {doc: row for row, doc in enumerate(dataset.corpus)}
        owners = [(n, row_of[doc]) for n, docs in enumerate(dataset.relevant_docs.values()) for doc in docs]
        np.save(folder / "positives.npy", np.array(owners))
    dataset.save_json(folder / "dataset.json")


def measure(contender: str, size: str, folder: Path, args) -> dict:
    """One row, from a process of its own."""
    repeats = 1 if size == "full" or contender in ("ours, HNSW", "ours, IVF") else args.repeats
    command = [sys.executable, __file__, "--run", contender, str(folder), "--device", args.device]
    done = subprocess.run([*command, "--repeats", str(repeats)], capture_output=True, text=True)
    queries, corpus = (np.load(folder / f"{name}.npy", mmap_mode="r").shape for name in ("queries", "corpus"))
    row = {"data": size, "shape": f"{queries[0]}x{corpus[0]}x{corpus[1]}", "contender": contender}
    if done.returncode < 0:
        note = f"killed by signal {-done.returncode}, most likely for lack of memory"
        return {**row, "seconds": None, "extra_mib": None, "note": note}
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [""]
        return {**row, "seconds": None, "extra_mib": None, "note": last[0][:120]}
    return {**row, **json.loads(done.stdout.strip().splitlines()[-1])}


def relate(rows: list[dict]) -> None:
    """Add the time in units of the float32 matrix product."""
    base = {row["data"]: row["seconds"] for row in rows if row["contender"] == "product"}
    for row in rows:
        if row["seconds"] is not None and base.get(row["data"]):
            row["x_product"] = row["seconds"] / base[row["data"]]


def run(contender: str, folder: Path, device: str, repeats: int) -> None:
    """Time one contender and print one line of JSON."""
    queries, corpus = np.load(folder / "queries.npy"), np.load(folder / "corpus.npy")
    work, finish = WORK[contender](queries, corpus, folder, device)
    seconds, note, extra = [], "", 0.0
    for _ in range(repeats):
        gc.collect()
        reset_peak(device)
        before = held(device)
        started = time.perf_counter()
        result = work()
        if device == "cuda":
            import torch

            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
        extra = max(extra, peak(device) - before)
        note = finish(result)
        del result
    print(json.dumps({"seconds": min(seconds), "extra_mib": extra / 2**20, "note": note}))


def reset_peak(device: str) -> None:
    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")


def held(device: str) -> float:
    if device == "cuda":
        import torch

        return torch.cuda.memory_allocated()
    return status("VmRSS")


def peak(device: str) -> float:
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated()
    return status("VmHWM")


def status(field: str) -> float:
    """Bytes, from the kernel's account of this process."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(field))
    return int(line.split()[1]) * 1024


def load(folder: Path):
    from llama_index_embft.dataset import EmbeddingQAFinetuneDataset

    return EmbeddingQAFinetuneDataset.from_json(folder / "dataset.json")


def positives(folder: Path) -> list[np.ndarray]:
    owners, rows = np.load(folder / "positives.npy").T
    return np.split(rows, np.flatnonzero(np.diff(owners)) + 1)


def product(low: bool):
    def make(queries, corpus, _folder, device):
        import torch

        dtype = (torch.float16 if device == "cuda" else torch.bfloat16) if low else torch.float32
        height, width = (8192, 16384) if device == "cuda" else (2048, 8192)
        left = torch.from_numpy(queries).to(device, dtype)
        right = torch.from_numpy(corpus).to(device, dtype)
        out = torch.empty(height * width, dtype=dtype, device=device)

        def work():
            for column in range(0, len(right), width):
                block = right[column : column + width]
                for top in range(0, len(left), height):
                    part = left[top : top + height]
                    torch.mm(part, block.T, out=out[: len(part) * len(block)].view(len(part), len(block)))

        work()  # the first call chooses kernels
        return work, lambda _: str(dtype).removeprefix("torch.")

    return make


def top_k(precision: str):
    def make(queries, corpus, folder, device):
        import torch

        from llama_index_embft.search import ExactIndex, top_k as search

        barred = positives(folder)
        k = min(RANGE[1], len(corpus) - 1)
        if device == "cuda":
            queries, corpus = torch.from_numpy(queries).to(device), torch.from_numpy(corpus).to(device)
        ExactIndex(corpus[:9000], device=device, precision=precision).search(queries[:4000], 10)

        def finish(hits):
            return verdict(queries, corpus, barred, hits)

        return lambda: search(queries, corpus, k, exclude=barred, device=device, precision=precision), finish

    return make


def verdict(queries, corpus, barred, hits) -> str:
    """Compare with brute force in float64, for 100 queries."""
    picked = np.sort(np.random.default_rng(3).choice(len(queries), min(100, len(queries)), replace=False))
    left, right = (np.asarray(x.cpu() if hasattr(x, "cpu") else x) for x in (queries[picked], corpus))
    left = left.astype(np.float64)
    left /= np.linalg.norm(left, axis=1, keepdims=True)
    scores = np.empty((len(picked), len(right)))
    for start in range(0, len(right), 20_000):
        block = right[start : start + 20_000].astype(np.float64)
        scores[:, start : start + 20_000] = left @ (block / np.linalg.norm(block, axis=1, keepdims=True)).T
    wrong, error = 0, 0.0
    for line, query in enumerate(picked):
        scores[line, barred[query]] = -np.inf
        best = np.argsort(-scores[line], kind="stable")[: hits.rows.shape[1]]
        found = hits.rows[query]
        error = max(error, np.abs(hits.scores[query] - scores[line, best]).max())
        wrong += int((np.abs(scores[line, found] - scores[line, best]) > 1e-6).sum())
    return f"{wrong} hits off by > 1e-6 of float64, scores within {error:.0e}"


def ours(near_duplicates: float | None, search: str = "exact"):
    def make(queries, corpus, folder, device):
        from llama_index_embft.mining import MiningSettings, mine_hard_negatives

        dataset = load(folder)

        def work():
            return mine_hard_negatives(
                dataset,
                (queries, corpus),
                f"rank:{RANGE[0] + 1}-{RANGE[1]}:random",
                NEGATIVES,
                device=device if search == "exact" else None,
                settings=MiningSettings(near_duplicates=near_duplicates, search=search),
            )

        return work, lambda mined: f"{mined.report.n_negatives} negatives. " + " ".join(mined.report.notes)

    return make


class Ready:
    """What sentence-transformers' function needs of a model, with embeddings that are ready."""

    def __init__(self, queries, corpus, device) -> None:
        import torch

        self.device, self.queries, self.corpus = torch.device(device), queries, corpus

    def encode_query(self, _texts, **_options):
        return self.queries

    def encode_document(self, _texts, **_options):
        return self.corpus

    def get_embedding_dimension(self) -> int:
        return self.corpus.shape[1]

    def similarity(self, a, b):
        from sentence_transformers.util import cos_sim

        return cos_sim(a, b)

    def similarity_pairwise(self, a, b):
        from sentence_transformers.util import pairwise_cos_sim

        return pairwise_cos_sim(a, b)


def sentence_transformers(faiss: bool):
    def make(queries, corpus, folder, device):
        from datasets import Dataset
        from sentence_transformers.util import mine_hard_negatives

        from llama_index_embft.mining import pairs

        dataset = load(folder)
        texts = list(dataset.corpus.values())
        if len(set(texts)) < len(texts) or len(set(dataset.queries.values())) < len(dataset.queries):
            queries, corpus = distinct(dataset, queries, corpus)
        texts = list(dict.fromkeys(texts))
        rows = Dataset.from_list(list(pairs(dataset)))
        model = Ready(queries, corpus, device)

        def work():
            return mine_hard_negatives(
                rows,
                model,
                corpus=texts,
                range_min=RANGE[0],
                range_max=min(RANGE[1], len(texts) - 1),
                num_negatives=NEGATIVES,
                sampling_strategy="random",
                output_format="n-tuple",
                use_faiss=faiss,
                verbose=False,
            )

        return work, lambda mined: f"{len(mined) * NEGATIVES} negatives"

    return make


def distinct(dataset, queries, corpus):
    """Embeddings of the distinct texts, in the order in which sentence-transformers meets them."""
    first = {text: row for row, text in reversed(list(enumerate(dataset.corpus.values())))}
    asked = {text: row for row, text in reversed(list(enumerate(dataset.queries.values())))}
    kept = [first[text] for text in dict.fromkeys(dataset.corpus.values())]
    return queries[[asked[text] for text in dict.fromkeys(dataset.queries.values())]], corpus[kept]


def flag_embedding(queries, corpus, folder, _device):
    """A flat index, batches of 64 queries, and a random sample of the ranks that are no positives."""
    import random

    import faiss

    dataset = load(folder)
    texts, asked = list(dataset.corpus.values()), list(dataset.queries.values())
    relevant = [[dataset.corpus[doc] for doc in docs] for docs in dataset.relevant_docs.values()]

    def work():
        index = faiss.IndexFlatIP(corpus.shape[1])
        index.add(np.ascontiguousarray(corpus, dtype=np.float32))
        mined = []
        for start in range(0, len(queries), 64):
            _, found = index.search(queries[start : start + 64], min(RANGE[1], len(texts)))
            for query, rows in enumerate(found.tolist(), start=start):
                usable = [row for row in rows[RANGE[0] :] if texts[row] not in relevant[query]]
                usable = [row for row in usable if texts[row] != asked[query]]
                chosen = random.sample(usable, NEGATIVES) if len(usable) > NEGATIVES else usable
                mined.append({"query": asked[query], "pos": relevant[query], "neg": [texts[row] for row in chosen]})
        return mined

    return work, lambda mined: f"{sum(len(row['neg']) for row in mined)} negatives"


WORK = {
    "product": product(low=False),
    "product, low precision": product(low=True),
    "ours (top k)": top_k("auto"),
    "ours (top k, float32)": top_k("float32"),
    "ours": ours(None),
    "ours, text rules": ours(0.8),
    "sentence-transformers": sentence_transformers(faiss=False),
    "sentence-transformers, FAISS": sentence_transformers(faiss=True),
    "FlagEmbedding's logic": flag_embedding,
    "ours, HNSW": ours(None, "hnsw"),
    "ours, IVF": ours(None, "ivf"),
}

if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
