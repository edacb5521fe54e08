"""The plan past one machine: arithmetic for 10⁶, 10⁸ and 10⁹ passages, and a run at a thousandth that checks it.

    python benchmarks/scale_simulation.py --plan --tokens-per-second 8951                   # arithmetic alone
    python benchmarks/scale_simulation.py --plan --tokens-per-second 8951 --machines 64 --price-per-hour YOURS
    python benchmarks/scale_simulation.py                                                   # and the check: minutes
    python benchmarks/scale_simulation.py --scale 0.02 --no-save                            # a small check

The check embeds a thousandth of 10⁶ passages (sentences of the 10-K filings) with all-MiniLM-L6-v2, and stores,
compresses and searches a thousandth of 10⁸ vectors. Each quantity is predicted first, from the plan's formulas and
the seconds of a tenth and of two tenths of that size, then measured, and both are printed with the error. Recall is
of the exact top 10, on random vectors and on MiniLM's own.

No price is built in: ``--price-per-hour`` is of one machine, in any currency.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
from _common import minilm, parser, print_table, write_results

SIZES = (10**6, 10**8, 10**9)
K = 10
NPY_HEADER = 128  # bytes before the numbers of a .npy file
PQ_ID = 8  # FAISS keeps a 64-bit id beside each code


class Plan(NamedTuple):
    """What the arithmetic needs to know; see the options of the same names."""

    tokens_per_passage: float
    tokens_per_second: float
    machines: int
    dim: int
    pq_bytes: int
    queries: int
    flops: float
    probed: float


def embed_hours(passages: int, plan: Plan) -> float:
    """Wall-clock hours of embedding: passages · tokens / (tokens a second · machines) / 3600."""
    return passages * plan.tokens_per_passage / (plan.tokens_per_second * plan.machines) / 3600


def store_bytes(passages: int, dim: int, pq_bytes: int) -> dict[str, int]:
    """Bytes of the vectors by precision, without ids and texts."""
    return {
        "fp32": 4 * dim * passages,
        "fp16": 2 * dim * passages,
        "int8": dim * passages,
        "binary": dim // 8 * passages,
        "binary + int8 rescoring": (dim // 8 + dim) * passages,
        "IVF-PQ": ivf_pq_bytes(passages, dim, pq_bytes),
    }


def lists_of(passages: int) -> int:
    """Lists of an inverted file: 4 · sqrt(passages), the middle of what FAISS's guide advises."""
    return max(1, round(4 * passages**0.5))


def ivf_pq_bytes(passages: int, dim: int, pq_bytes: int) -> int:
    """Codes and ids of the passages, centroids of the lists, and the code book."""
    return passages * (pq_bytes + PQ_ID) + 4 * dim * lists_of(passages) + 4 * 256 * dim


def mining_seconds(passages: int, plan: Plan) -> dict[str, float]:
    """Seconds of finding the nearest passages of all training queries on all machines, exactly and by IVF-PQ.

    Exact: 2 · queries · passages · dim operations. IVF-PQ: as many for the centroids, and a look-up and an addition a
    byte of each code in the lists that are probed; counted as one operation each at the same rate, which flatters it.
    """
    rate = plan.flops * plan.machines
    exact = 2 * plan.queries * passages * plan.dim
    ivf = 2 * plan.queries * (lists_of(passages) * plan.dim + plan.probed * passages * plan.pq_bytes)
    return {"exact": exact / rate, "IVF-PQ": ivf / rate}


def plan_rows(plan: Plan, price: float | None) -> list[dict[str, Any]]:
    """A row a size."""
    rows = []
    for passages in SIZES:
        hours = embed_hours(passages, plan)
        row: dict[str, Any] = {"passages": f"{passages:.0e}".replace("e+0", "e"), "embed hours": f"{hours:,.1f}"}
        if price is not None:
            row["embed cost"] = f"{hours * plan.machines * price:,.0f}"
        row |= {
            f"{name} GB": f"{size / 1e9:,.2f}" for name, size in store_bytes(passages, plan.dim, plan.pq_bytes).items()
        }
        if plan.flops:
            row |= {f"mine {name} h": f"{value / 3600:,.3f}" for name, value in mining_seconds(passages, plan).items()}
        rows.append(row)
    return rows


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--plan", action="store_true", help="arithmetic alone")
    options.add_argument("--tokens-per-second", type=float, help="of one machine; default: as the check measured it")
    options.add_argument("--tokens-per-passage", type=float, default=243.0, help="as the model reads them; see docs")
    options.add_argument("--machines", type=int, default=1)
    options.add_argument("--price-per-hour", type=float, help="of one machine; without it no cost is printed")
    options.add_argument("--dim", type=int, default=384)
    options.add_argument("--pq-bytes", type=int, default=48, help="bytes of a code of IVF-PQ")
    options.add_argument("--queries", type=int, default=100_000, help="training queries to mine for")
    options.add_argument(
        "--flops", type=float, help="operations a second of the search; default: measured, and with --plan none"
    )
    options.add_argument("--probed", type=float, default=0.02, help="share of the lists that IVF-PQ looks into")
    options.add_argument("--scale", type=float, default=1.0, help="of the check; 1 is a thousandth of the plan")
    options.add_argument("--precision", default="auto", help="of the embedding: auto, float32, bfloat16, float16")
    options.add_argument("--no-save", dest="save", action="store_false", help="print only")
    args = options.parse_args()
    checked: list[dict[str, Any]] = []
    if not args.plan:
        checked = check(args)
        print("\nprediction and measurement at a thousandth")
        print_table(checked)
    if args.tokens_per_second is None or args.flops is None:
        measured = {row["what"]: row["measured"] for row in checked}
        args.tokens_per_second = args.tokens_per_second or measured.get("tokens/s")
        args.flops = args.flops or measured.get("exact search, FLOP/s")
    if args.tokens_per_second is None:
        raise SystemExit("--plan alone needs --tokens-per-second; without --plan it is measured.")
    plan = Plan(
        args.tokens_per_passage, args.tokens_per_second, args.machines, args.dim, args.pq_bytes, args.queries,
        args.flops or 0.0, args.probed,
    )  # fmt: skip
    print(f"\nplan: {plan}")
    rows = plan_rows(plan, args.price_per_hour)
    print_table(rows)
    if args.save and not args.plan:
        write_results("scale_simulation", checked, device=args.device, plan=rows, of=plan._asdict(), scale=args.scale)


def check(args: Any) -> list[dict[str, Any]]:
    """Predict, measure, compare."""
    vectors, rows = _check_embedding(args)
    docs = max(2000, int(100_000 * args.scale))
    queries = max(20, int(100 * args.scale))
    rng = np.random.default_rng(0)
    random = _unit(rng.standard_normal((docs + queries, args.dim), dtype=np.float32))
    with tempfile.TemporaryDirectory() as folder:
        rows += _check_bytes(random[:docs], args, Path(folder))
    rows += _check_search(random[:docs], random[docs:])
    for name, data, n in (("random", random, queries), ("MiniLM", vectors, max(20, len(vectors) // 20))):
        rows += recall_rows(name, data[:-n], data[-n:], args.pq_bytes, args.probed)
    return rows


def _row(what: str, predicted: float | None, measured: float) -> dict[str, Any]:
    error = None if predicted is None else f"{100 * (predicted - measured) / measured:+.1f} %"
    return {"what": what, "predicted": predicted, "measured": measured, "error": error}


def _check_embedding(args: Any) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Embed a thousandth of 10⁶ passages, block by block; two of its tenths predict the whole."""
    from sentence_transformers import SentenceTransformer

    from llama_index_embft.embeddings import encode_texts

    texts = sentences(args.data_dir)
    n = min(len(texts), max(100, int(1000 * args.scale)))
    model = SentenceTransformer(minilm(), device=args.device)
    ids = model.tokenizer(texts, truncation=True, max_length=model.max_seq_length)["input_ids"]
    lengths = np.array([len(row) for row in ids])
    encode_texts(model, texts[:64], precision=args.precision)  # the first call allocates
    predicted = _from_tenths(lambda rows: encode_texts(model, texts[:rows], precision=args.precision), n)
    start = time.perf_counter()
    vectors = encode_texts(model, texts[:n], precision=args.precision)
    seconds = time.perf_counter() - start
    rows = [
        _row(f"embed {n} passages, s", predicted, seconds),
        _row("tokens/s", float(lengths[:n].sum() / predicted), float(lengths[:n].sum() / seconds)),
    ]
    more = texts[n : max(400, int(10_000 * args.scale))]  # recall needs more vectors than the timing does
    if more:
        vectors = np.concatenate([vectors, encode_texts(model, more, precision=args.precision)])
    return vectors, rows


def _fastest(work: Any) -> float:
    times = []
    for _ in range(3):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def _from_tenths(work: Any, n: int) -> float:
    """Seconds for `n` rows, from the line through a tenth and two tenths: what each start costs is not multiplied."""
    one, two = _fastest(lambda: work(n // 10)), _fastest(lambda: work(2 * (n // 10)))
    return max(one, one + (n / (n // 10) - 1) * (two - one))


def sentences(folder: Path) -> list[str]:
    """Sentences of 40 characters and more from the 10-K filings and PubMed abstracts, each once, in random order."""
    found: dict[str, None] = {}
    for name in ("uber_10k_2021", "lyft_10k_2021", "pubmedqa_labeled"):
        corpus = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))["corpus"]
        for text in corpus.values():
            found |= dict.fromkeys(s for s in re.split(r"(?<=[.!?])\s+", text) if len(s) >= 40)
    texts = list(found)
    return [texts[row] for row in np.random.default_rng(0).permutation(len(texts))]


def _check_bytes(vectors: np.ndarray, args: Any, folder: Path) -> list[dict[str, Any]]:
    """Write the vectors in each precision; what the files weigh against the arithmetic."""
    import faiss

    n, dim = vectors.shape
    expected = store_bytes(n, dim, args.pq_bytes)
    forms = {
        "fp32": vectors,
        "fp16": vectors.astype(np.float16),
        "int8": to_int8(vectors),
        "binary": np.packbits(vectors > 0, axis=1),
    }
    rows = []
    for name, array in forms.items():
        np.save(folder / f"{name}.npy", array)
        size = (folder / f"{name}.npy").stat().st_size - NPY_HEADER
        rows.append(_row(f"{name}, bytes of {n} x {dim}", expected[name], size))
    index = ivf_pq(vectors, args.pq_bytes)
    faiss.write_index(index, str(folder / "index"))
    rows.append(_row(f"IVF-PQ, bytes of {n} x {dim}", expected["IVF-PQ"], (folder / "index").stat().st_size))
    return rows


def _check_search(corpus: np.ndarray, queries: np.ndarray) -> list[dict[str, Any]]:
    """Exact search: two tenths of the corpus predict the whole."""
    from llama_index_embft.search import top_k

    dim = corpus.shape[1]
    # As many queries as documents of the tenth are too few to be told from the cost of starting.
    many = np.concatenate([queries] * max(1, 2000 // len(queries)))

    def search(rows: int) -> None:
        top_k(many, corpus[:rows], K, device="cpu")

    search(1000)
    predicted = _from_tenths(search, len(corpus))
    work = 2 * len(many) * len(corpus) * dim
    measured = _fastest(lambda: search(len(corpus)))
    return [
        _row(f"exact top {K} of {len(many)} queries in {len(corpus)}, s", predicted, measured),
        _row("exact search, FLOP/s", work / predicted, work / measured),
    ]


def recall_rows(
    name: str, corpus: np.ndarray, queries: np.ndarray, pq_bytes: int, probed: float
) -> list[dict[str, Any]]:
    """Share of the exact top 10 that each way of compressing keeps; rescoring looks at 100 candidates."""
    from llama_index_embft.search import top_k

    exact = top_k(queries, corpus, K, device="cpu").rows
    small = to_int8(corpus) * int8_scale(corpus)
    bits, query_bits = (np.packbits(x > 0, axis=1) for x in (corpus, queries))
    hamming = np.stack([np.bitwise_count(bits ^ row).sum(axis=1, dtype=np.int32) for row in query_bits])
    candidates = min(100, len(corpus))
    near = np.argsort(hamming, axis=1, kind="stable")[:, :candidates]
    found = {
        "int8": top_k(queries, small, K, device="cpu").rows,
        "binary": near[:, :K],
        "binary + int8 rescoring": _rescored(queries, small, near),
    }
    index = ivf_pq(corpus, pq_bytes)
    for share in (probed, 5 * probed, 1.0):
        index.nprobe = min(index.nlist, max(1, round(share * index.nlist)))
        way = f"IVF-PQ, {index.nprobe} of {index.nlist} lists"
        if share == probed:
            found[way] = index.search(queries, K)[1]
        found[f"{way}, fp32 rescoring"] = _rescored(queries, corpus, index.search(queries, candidates)[1])
    return [
        _row(f"recall@{K}, {name} {len(corpus)}: {way}", None, float(_overlap(rows, exact)))
        for way, rows in found.items()
    ]


def _overlap(found: Any, exact: np.ndarray) -> float:
    return float(np.mean([len(np.intersect1d(a, b)) / len(b) for a, b in zip(found, exact, strict=True)]))


def _rescored(queries: np.ndarray, corpus: np.ndarray, near: np.ndarray) -> np.ndarray:
    """The best of each query's candidates by inner product; -1 is no candidate."""
    scores = np.einsum("qd,qcd->qc", queries, corpus[near])
    scores[near < 0] = -np.inf
    return np.take_along_axis(near, np.argsort(-scores, axis=1, kind="stable")[:, :K], axis=1)


def to_int8(vectors: np.ndarray) -> np.ndarray:
    """Numbers from -127 to 127, one scale a dimension."""
    return np.round(vectors / int8_scale(vectors)).astype(np.int8)


def int8_scale(vectors: np.ndarray) -> np.ndarray:
    """What one step of int8 stands for in each dimension, by its largest value."""
    largest = np.abs(vectors).max(axis=0) / 127
    return np.where(largest > 0, largest, 1).astype(np.float32)


def ivf_pq(vectors: np.ndarray, pq_bytes: int) -> Any:
    """A FAISS index of cosine over unit vectors, trained on 50,000 of them at most."""
    import faiss

    n, dim = vectors.shape
    faiss.omp_set_num_threads(1)  # the same clusters on every machine
    index = faiss.IndexIVFPQ(faiss.IndexFlatIP(dim), dim, lists_of(n), pq_bytes, 8, faiss.METRIC_INNER_PRODUCT)
    index.cp.min_points_per_centroid = 1  # a small check is not worth a warning
    index.pq.cp.min_points_per_centroid = 1
    index.cp.niter = index.pq.cp.niter = 10
    index.train(vectors[:50_000])
    index.add(vectors)
    return index


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


if __name__ == "__main__":
    main()
