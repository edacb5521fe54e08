"""How much time a search for the best retriever may take, and what is left of it."""

from __future__ import annotations

import re
import time
from typing import Final

from llama_index_embft.errors import ConfigError

_UNITS: Final = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), 60),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 3600),
}
_WRITTEN: Final = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s{0,9}([a-z]{1,7})")


def parse_budget(budget: str | float) -> float:
    """Seconds of a budget such as ``"10 min"``, ``"1.5 h"`` or ``600``.

    Raises:
        ConfigError: It is no such time, or none at all.
    """
    seconds: float | None = None
    if isinstance(budget, str):
        found = _WRITTEN.fullmatch(budget.strip().lower())
        scale = _UNITS.get(found.group(2)) if found else None
        if found and scale:
            seconds = float(found.group(1)) * scale
    elif isinstance(budget, (int, float)) and not isinstance(budget, bool):
        seconds = float(budget)
    if seconds is None or not 0 < seconds < float("inf"):
        raise ConfigError(
            f"`budget` is {budget!r}; it must be a time above 0, such as '10 min', '1 h' or 600 (seconds)."
        )
    return seconds


def in_words(seconds: float) -> str:
    """A time for people: ``"40 s"``, ``"7 min"``, ``"1.5 h"``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"


class Clock:
    """What is left of a budget.

    Args:
        seconds: The budget.

    Attributes:
        budget: The same.
    """

    def __init__(self, seconds: float) -> None:
        self.budget = seconds
        self._start = time.monotonic()

    @property
    def spent(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    @property
    def left(self) -> float:
        """Seconds that are left; below 0 where more was spent."""
        return self.budget - self.spent
