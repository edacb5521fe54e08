"""Does the decision rule keep its promises? Simulated error rates, coverage and power, from 1 document to 10,000.

Thousands of evaluations are drawn in which the tuned system is exactly as good as the base over all documents, and the
rule that `compare` uses judges each. The share of "gain" must stay at 2.5 %, and 95 % intervals must hold the truth.
Then the true gain is set to what the rule itself calls detectable, and it must be found in 80 % of the cases.

    python benchmarks/calibration.py            # all sizes, about ten minutes on one core
    python benchmarks/calibration.py --quick    # a few, in seconds

The rules that were not taken are measured on the same data by ``calibration_others.py``.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
from _common import parser, print_table, write_results

from llama_index_embft.evaluation.statistics import paired_tests

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

DOCUMENTS = (2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 30, 40)
MANY = (100, 400, 1_000, 10_000)
SIZES = ("20 each", "unequal", "one holds half", "1 each")
DIFFERENCES = ("normal", "skewed", "mostly 0", "rare losses", "whole documents", "whole or untouched")
WHOLE = DIFFERENCES[4:]  # every question of a document moves alike: nothing is measured inside one
SPREAD = 0.3  # standard deviation of one query's difference, as nDCG@10 has on real data
COLUMNS = 500  # experiments that share their cluster sizes


def cluster_sizes(n_documents: int, kind: str, rng: np.random.Generator) -> NDArray[np.int64]:
    """Questions about each document."""
    if kind == "unequal":  # document lengths are about lognormal: the largest of ten has a third of the questions
        return np.maximum(1, np.round(rng.lognormal(2.3, 1.0, n_documents))).astype(np.int64)
    sizes = np.full(n_documents, {"20 each": 20, "1 each": 1, "one holds half": 10}[kind])
    if kind == "one holds half":
        sizes[0] = 10 * (n_documents - 1)
    return sizes


def differences(kind: str, sizes: NDArray[np.int64], shared: float, columns: int, rng: np.random.Generator) -> Array:
    """Differences of queries with mean 0 over all documents, shape ``(n_queries, columns)``.

    Args:
        kind: ``"normal"``; ``"skewed"``: many small gains and few large losses, exponential, in documents and queries;
            ``"mostly 0"``: 85 % of the queries do not change, the others by 0.1 to 1 to either side;
            ``"rare losses"``: 12 % gain 0.2, 3 % lose 0.8; ``"whole documents"``: each document is won or lost whole,
            by the toss of a coin, and by 0.05, 0.3 or a whole point; ``"whole or untouched"``: half do not change.
        sizes: Questions about each document.
        shared: Share of the variance that the queries about one document have in common.
        columns: Number of experiments.
        rng: Source of the draws.
    """
    owner = np.repeat(np.arange(len(sizes)), sizes)
    documents, queries = (len(sizes), columns), (len(owner), columns)
    if kind == "normal":
        both = np.sqrt(shared) * rng.standard_normal(documents)[owner]
        return SPREAD * (both + np.sqrt(1 - shared) * rng.standard_normal(queries))
    if kind == "skewed":
        both = np.sqrt(shared) * (1 - rng.exponential(size=documents))[owner]
        return SPREAD * (both + np.sqrt(1 - shared) * (1 - rng.exponential(size=queries)))
    if kind in WHOLE:
        sides = (-1.0, 1.0) if kind == "whole documents" else (-1.0, 0.0, 0.0, 1.0)
        return (rng.choice((0.05, 0.3, 1.0), columns) * rng.choice(sides, documents))[owner]
    changed = rng.random(queries) < 0.15
    tendency = 1 / max(shared, 0.01) - 1
    if kind == "mostly 0":
        better = rng.random(queries) < rng.beta(0.5 * tendency, 0.5 * tendency, documents)[owner]
        return np.where(changed, np.where(better, 1.0, -1.0) * rng.uniform(0.1, 1.0, queries), 0.0)
    worse = rng.random(queries) < rng.beta(0.2 * tendency, 0.8 * tendency, documents)[owner]
    return np.where(changed, np.where(worse, -0.8, 0.2), 0.0)


def experiments(
    n_documents: int, sizes: str, kind: str, shared: float, n: int, seed: int
) -> list[tuple[NDArray[np.int64], Array]]:
    """Cluster labels and differences; cluster sizes are drawn anew for every `COLUMNS` experiments."""
    rng = np.random.default_rng([seed, n_documents, SIZES.index(sizes), DIFFERENCES.index(kind)])
    blocks = []
    for begin in range(0, n, COLUMNS):
        drawn = cluster_sizes(n_documents, sizes, rng)
        values = differences(kind, drawn, shared, min(COLUMNS, n - begin), rng)
        blocks.append((np.repeat(np.arange(n_documents), drawn), values))
    return blocks


def rates_of_the_rule(n_documents: int, sizes: str, kind: str, shared: float, n: int) -> dict[str, Any]:
    """False gains and losses, coverage, and power at the detectable difference, in per cent."""
    blocks = experiments(n_documents, sizes, kind, shared, n, seed=0)
    gains = losses = covered = found = tested = contradictions = 0
    detectable = []
    for number, (owner, values) in enumerate(blocks):
        results = paired_tests(values, owner)
        gains += sum(test.p < 0.05 and test.difference > 0 for test in results)
        losses += sum(test.p < 0.05 and test.difference < 0 for test in results)
        covered += sum(not (test.interval[0] > 0 or test.interval[1] < 0) for test in results)
        contradictions += sum((test.p < 0.05) != (test.interval[0] > 0 or test.interval[1] < 0) for test in results)
        true = float(np.mean([test.detectable for test in results]))
        detectable.append(true)
        if number % 2 == 0 and np.isfinite(
            true
        ):  # the same data moved by the gain; half of them are enough for a figure near 80 %
            tested += len(results)
            found += sum(test.p < 0.05 and test.difference > 0 for test in paired_tests(values + true, owner))
    return {
        "documents": n_documents,
        "questions": sizes,
        "differences": kind,
        "shared": shared,
        "false gain": round(100 * gains / n, 2),
        "false loss": round(100 * losses / n, 2),
        "coverage": round(100 * covered / n, 2),
        "detectable": round(100 * float(np.mean(detectable)), 1) if tested else None,  # None: no gain is ever proven
        "power": round(100 * found / tested, 1) if tested else None,
        "contradictions": contradictions,
        "experiments": n,
    }


def rule_rows(*, quick: bool, n: int) -> list[dict[str, Any]]:
    """A row a number of documents, kind of sizes and kind of differences."""
    designs = [(g, sizes, 0.2) for g in ((3, 8, 20) if quick else DOCUMENTS) for sizes in SIZES]
    if not quick:
        designs += [(g, sizes, shared) for g in (5, 12, 40) for sizes in SIZES[:3] for shared in (0.05, 0.6)]
        designs += [(g, "1 each", 0.2) for g in MANY] + [(100, "20 each", 0.2), (400, "unequal", 0.2)]
    rows = []
    for n_documents, sizes, shared in designs:
        for kind in DIFFERENCES if shared == 0.2 else DIFFERENCES[:4]:  # whole documents share all of the variance
            cells = n_documents * (1 if sizes == "1 each" else 20)
            fewer = min(n, max(1_000, 20_000_000 // cells // COLUMNS * COLUMNS))
            rows.append(rates_of_the_rule(n_documents, sizes, kind, shared, fewer))
    return rows


def worst(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By number of documents: the worst of every figure over sizes, differences and shares."""
    found = []
    for n_documents in sorted({row["documents"] for row in rows}):
        these = [row for row in rows if row["documents"] == n_documents]
        # Whole documents are there for false gains; in sets of so few values what is detectable is a guess.
        powers = [(r["power"], r["differences"]) for r in these if r["power"] is not None]
        normal, varied = ([p for p, kind in powers if kind in kinds] for kinds in (("normal",), DIFFERENCES[:4]))
        found.append(
            {
                "documents": n_documents,
                "false gain": max(row["false gain"] for row in these),
                "false loss": max(row["false loss"] for row in these),
                "coverage": min(row["coverage"] for row in these),
                "power, normal": f"{min(normal):.0f} to {max(normal):.0f}" if normal else "–",
                "power, varied": f"{min(varied):.0f} to {max(varied):.0f}" if varied else "–",
                "contradictions": sum(row["contradictions"] for row in these),
            }
        )
    return found


def main() -> None:
    """Simulate, print and write."""
    options = parser(__doc__)
    options.add_argument("--quick", action="store_true", help="three sizes, 1,000 experiments each, nothing written")
    options.add_argument("--experiments", type=int, default=4_000, help="evaluations drawn for each figure")
    args = options.parse_args()
    start = time.perf_counter()
    rows = rule_rows(quick=args.quick, n=1_000 if args.quick else args.experiments)
    print_table(rows)
    print()
    print_table(worst(rows))
    print(f"\n{time.perf_counter() - start:.0f} s")
    if not args.quick:
        write_results("calibration", rows)


if __name__ == "__main__":
    main()
