"""A mean that may be looked at after every value: intervals that hold at all times at once.

An ordinary 95 % interval is right if it is computed once. Whoever looks every day and stops when it excludes something
is wrong far more often: at one look of many, chance excludes the truth. The interval here holds at every look at the
same time, however often one looks and whenever one stops. It is the hedged capital process of Waudby-Smith and Ramdas,
"Estimating means of bounded random variables by betting" (JRSS B 2024, arXiv 2010.09686): for each candidate mean a
gambler bets against it with a stake that only the past decides; a candidate against which the gambler grows rich is
out.

The mean must stay the same while values come in: each value, given those before it, has this mean. An interval that has
become empty shows that it did not.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from llama_index_embft._core.checks import check_number
from llama_index_embft.errors import EvaluationError

if TYPE_CHECKING:
    from collections.abc import Iterable

_STEPS: Final = 1000  # candidates for the mean: the interval is exact to a thousandth of the range
_BOLDEST: Final = 0.5  # share of the capital that a bet may put at risk; the paper's default


@dataclass(frozen=True)
class AnytimeMean:
    """A mean, and an interval that holds at all times at once.

    Attributes:
        n: Values so far.
        estimate: Their mean; None before the first.
        interval: Of `level`; None where no mean fits all values, because it changed while they came in.
        level: Probability that all the intervals of a stream, at every look, hold its mean.
    """

    n: int
    estimate: float | None
    interval: tuple[float, float] | None
    level: float

    def excludes(self, value: float) -> bool:
        """Whether this is not the mean; it stays so however many values follow."""
        return self.interval is not None and not self.interval[0] <= value <= self.interval[1]

    def to_dict(self) -> dict[str, Any]:
        """The same as plain data."""
        return asdict(self)


class MeanSequence:
    """Takes values one after another, in constant memory, and tells the mean at any time.

    Args:
        lowest: No value is below it.
        highest: No value is above it.
        level: See `AnytimeMean`.

    Raises:
        ConfigError: ``lowest`` is not below ``highest``, or the level is not between 0 and 1.
    """

    def __init__(self, lowest: float = 0.0, highest: float = 1.0, *, level: float = 0.95) -> None:
        check_number("level", level, above=0, below=1)
        check_number("lowest", lowest, above=-math.inf)
        check_number("highest", highest, above=lowest, below=math.inf)
        self._lowest, self._range, self._level = lowest, highest - lowest, level
        self._candidates = np.linspace(0.0, 1.0, _STEPS + 1)
        self._above = np.zeros(_STEPS + 1)  # logarithm of the capital of who bets that the mean is higher
        self._below = np.zeros(_STEPS + 1)
        self._fits = np.ones(_STEPS + 1, dtype=bool)
        self._n, self._sum, self._spread = 0, 0.0, 0.25  # scaled to 0 to 1; the spread begins with one value at 1/2

    def add(self, value: float) -> None:
        """Take one more value.

        Raises:
            EvaluationError: It is not between ``lowest`` and ``highest``.
        """
        x = (value - self._lowest) / self._range if isinstance(value, Real) else math.nan
        if not -1e-9 <= x <= 1 + 1e-9:  # NaN is not
            raise EvaluationError(
                f"A value is {value}; it must be between {self._lowest} and {self._lowest + self._range}."
            )
        x = min(max(x, 0.0), 1.0)
        self._n += 1
        n, variance = self._n, self._spread / self._n
        stake = math.sqrt(2 * math.log(2 / (1 - self._level)) / (variance * n * math.log(1 + n)))
        with np.errstate(divide="ignore"):
            self._above += np.log1p(np.minimum(stake, _BOLDEST / self._candidates) * (x - self._candidates))
            self._below += np.log1p(np.minimum(stake, _BOLDEST / (1 - self._candidates)) * (self._candidates - x))
        # Half of the capital bets on either side, so each has to be worth twice as much.
        self._fits &= np.maximum(self._above, self._below) < math.log(2 / (1 - self._level))
        self._sum += x
        self._spread += (x - (0.5 + self._sum) / (n + 1)) ** 2

    def extend(self, values: Iterable[float]) -> MeanSequence:
        """Take several more values in their order; returns itself."""
        for value in values:
            self.add(value)
        return self

    @property
    def result(self) -> AnytimeMean:
        """What the values so far say."""
        fitting = self._candidates[self._fits]
        interval = None
        if len(fitting):
            step = 1 / _STEPS  # the truth may lie between two candidates
            ends = max(float(fitting[0]) - step, 0.0), min(float(fitting[-1]) + step, 1.0)
            interval = self._unscaled(ends[0]), self._unscaled(ends[1])
        estimate = self._unscaled(self._sum / self._n) if self._n else None
        return AnytimeMean(self._n, estimate, interval, self._level)

    def _unscaled(self, x: float) -> float:
        return self._lowest + self._range * x


def anytime_mean(
    values: Iterable[float], *, lowest: float = 0.0, highest: float = 1.0, level: float = 0.95
) -> AnytimeMean:
    """The mean of values in the order in which they came, with an interval that allows looking at any time.

    For the difference of two systems on the same questions give the differences, with ``lowest=-1``: a stream of them
    may be watched, and stopped as soon as the interval excludes 0.

    Args:
        values: Shape ``(n,)``, in their order, each between ``lowest`` and ``highest``.
        lowest: No value is below it.
        highest: No value is above it.
        level: Probability that the intervals of a stream, at every look, hold its mean.

    Raises:
        EvaluationError: A value is outside its bounds.
        ConfigError: See `MeanSequence`.
    """
    return MeanSequence(lowest, highest, level=level).extend(values).result
