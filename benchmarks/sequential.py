"""How often are intervals wrong when somebody looks after every value, and what does looking cost?

Streams of values whose mean is known are looked at after each value, from the twentieth on. Counted is how many streams
have at least one look at which the interval excludes the mean: at most 5 % may, for the interval of `MeanSequence`. The
usual interval (mean ± 1.96 standard errors) is looked at in the same way. The price is the width at the end.

    python benchmarks/sequential.py            # about two minutes on one core
    python benchmarks/sequential.py --quick    # seconds
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from _common import parser, print_table, write_results

from llama_index_embft.evaluation import MeanSequence

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

VALUES = 500
FIRST_LOOK = 20
KINDS: dict[str, tuple[Callable[[np.random.Generator, int], Array], float]] = {
    "clicks, 50 %": (lambda rng, n: (rng.random(n) < 0.5).astype(np.float64), 0.5),
    "clicks, 5 %": (lambda rng, n: (rng.random(n) < 0.05).astype(np.float64), 0.05),
    "scores around 0.5": (lambda rng, n: rng.beta(2, 2, n), 0.5),
    "scores around 0.8": (lambda rng, n: rng.beta(8, 2, n), 0.8),
}


def one_kind(name: str, streams: int) -> dict[str, Any]:
    """Look at streams of one kind."""
    draw, mean = KINDS[name]
    rng = np.random.default_rng(0)
    wrong = usual_wrong = 0
    widths: list[float] = []
    usual_widths: list[float] = []
    n = np.arange(1, VALUES + 1)
    for _ in range(streams):
        values = draw(rng, VALUES)
        sequence, missed = MeanSequence(), False
        for seen, value in enumerate(values.tolist(), 1):
            sequence.add(value)
            missed |= seen >= FIRST_LOOK and sequence.result.excludes(mean)
        wrong += missed
        low, high = sequence.result.interval or (mean, mean)
        widths.append(high - low)
        means = np.cumsum(values) / n
        errors = np.sqrt(np.maximum(np.cumsum(values**2) / n - means**2, 0) / np.maximum(n - 1, 1))
        usual_wrong += bool((np.abs(means - mean) > 1.96 * errors)[FIRST_LOOK - 1 :].any())
        usual_widths.append(float(2 * 1.96 * errors[-1]))
    return {
        "values": name,
        "streams": streams,
        "wrong at some look": wrong / streams,
        "usual, wrong at some look": usual_wrong / streams,
        "width at the end": float(np.mean(widths)),
        "usual, width at the end": float(np.mean(usual_widths)),
    }


def main() -> None:
    """Run it."""
    options = parser(__doc__)
    options.add_argument("--quick", action="store_true", help="few streams")
    arguments = options.parse_args()
    rows = [one_kind(name, 50 if arguments.quick else 1000) for name in KINDS]
    print_table(rows)
    if not arguments.quick:
        write_results("sequential", rows)


if __name__ == "__main__":
    main()
