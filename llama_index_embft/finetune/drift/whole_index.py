"""From hits kept over a sample of documents to hits kept over a whole index.

The more documents there are, the nearer the best ones lie together, and the fewer of them a map that is a little off
brings back: what is kept over a few hundred documents promises too much for many thousand. Scores of a document by the
new model and by the map are taken for two normal variables of one correlation; then the share that is kept is the
chance that one lies in its upper tail of ``k / n`` where the other does. The correlation is measured on the sample, and
the tail of the whole index gives the estimate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CORRELATIONS: Final = 1.0 - np.geomspace(1.9, 1e-6, 400)  # ascending, and dense near 1
_POINTS: Final = 400
_WIDEST: Final = 0.25  # of a sample: with more of it in the "tail" there is no tail to speak of


def kept_in_whole(
    kept: NDArray[np.float64],
    kept_of_quarters: NDArray[np.float64],
    draws: NDArray[np.int64],
    *,
    k: int,
    documents: int,
    index_size: int,
) -> tuple[float, tuple[float, float]] | None:
    """Estimate the share that is kept over a whole index, with a 95 % interval.

    The interval covers chance, by resampling queries, and the model: one end takes the correlation as it is, the other
    as it would be if it went on changing with the number of documents as it does between a quarter of the sample and
    all of it.

    Args:
        kept: Shape ``(n_queries,)``: share kept over all documents of the sample.
        kept_of_quarters: Shape ``(n_queries,)``: mean share kept over quarters of them.
        draws: Shape ``(n_resamples, n_queries)``: rows of resampled queries.
        k: Hits a query.
        documents: Of the sample.
        index_size: Of the index.

    Returns:
        None where the sample is too small for ``k`` hits to be its upper tail.
    """
    if k > _WIDEST * documents / 4:
        return None
    at_sample, at_quarter, at_whole = (_tail(k / n) for n in (documents, documents / 4, index_size))

    def estimates(all_of_it: NDArray[np.float64], quarters: NDArray[np.float64]) -> NDArray[np.float64]:
        steady = np.interp(all_of_it, at_sample, _CORRELATIONS)
        change = (steady - np.interp(quarters, at_quarter, _CORRELATIONS)) / np.log(4)
        trended = np.clip(steady + change * np.log(index_size / documents), _CORRELATIONS[0], _CORRELATIONS[-1])
        return np.stack([np.interp(one, _CORRELATIONS, at_whole) for one in (steady, trended)])

    found = estimates(kept.mean(keepdims=True), kept_of_quarters.mean(keepdims=True))
    ends = np.quantile(
        estimates(kept[draws].mean(axis=1), kept_of_quarters[draws].mean(axis=1)), [0.025, 0.975], axis=1
    )
    return float(found[0, 0]), (float(ends[0].min()), float(ends[1].max()))


def _tail(share: float) -> NDArray[np.float64]:
    """Chance that a normal variable lies in its upper tail where another does, for each of `_CORRELATIONS`."""
    from scipy.special import ndtr, ndtri

    border = -float(ndtri(share))
    # The other variable at the middles of slices of equal probability of its tail.
    inside = -ndtri(share * (np.arange(_POINTS) + 0.5) / _POINTS)
    rho = _CORRELATIONS[:, None]
    chance: NDArray[np.float64] = ndtr((rho * inside - border) / np.sqrt(1 - rho**2)).mean(axis=1)
    return np.maximum.accumulate(chance)
