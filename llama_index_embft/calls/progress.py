"""A progress bar with requests a second, tokens and cost."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llama_index_embft.calls.counts import CallCounts, Prices


class CallProgress:
    """A progress bar over calls; silent unless asked for.

    Args:
        total: Requests to go through.
        counts: Where the figures are counted.
        prices: For the cost.
        show: Draw the bar, on standard error.
        label: What is going on.
        unit: What is counted.
    """

    def __init__(
        self, total: int, counts: CallCounts, prices: Prices | None, *, show: bool, label: str, unit: str = "chunk"
    ) -> None:
        from tqdm.auto import tqdm

        self._counts = counts
        self._prices = prices
        self._started = time.monotonic()
        self._requests_before = counts.requests
        self._show = show
        self._bar = tqdm(total=total, desc=label, unit=unit, disable=not show)

    async def advance(self) -> None:
        """Count a finished request; the bar redraws itself at most ten times a second."""
        self._redraw(1)

    def close(self) -> None:
        """Draw the bar a last time."""
        self._redraw(0)
        self._bar.close()

    def say(self, text: str) -> None:
        """Write lines without breaking the bar, where the bar is shown."""
        if self._show:
            self._bar.write(text, file=sys.stderr)

    def _redraw(self, finished: int) -> None:
        counts = self._counts
        if self._prices is not None:
            counts.cost = self._prices.cost(counts.prompt_tokens, counts.completion_tokens)
        if self._show:
            rate = (counts.requests - self._requests_before) / max(time.monotonic() - self._started, 1e-3)
            failed = f", {len(counts.failed)} failed" if counts.failed else ""
            self._bar.set_postfix_str(f"{rate:.1f} req/s, {counts.tokens}{failed}", refresh=False)
        self._bar.update(finished)
