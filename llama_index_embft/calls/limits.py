"""Requests and tokens a minute, kept exactly: never more in any window of one minute than allowed.

Why not a library: a leaky bucket (aiolimiter) lets a full minute's quota go at once and refills while it drains, so up
to twice the limit falls into one sliding minute, which a strict server answers with 429. `limits` has an exact moving
window, but only as a test that must be polled, and none where the cost of a call (its tokens) is known only afterwards.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from llama_index_embft.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

# The server counts when a request arrives, we count when it leaves: a margin for how much travel times differ.
_TRAVEL_SECONDS: Final = 1.0
# One answer that was much longer than expected is forgotten after some hundred calls.
_FORGETTING: Final = 0.99


class SlidingWindow:
    """At most ``limit`` units in any window of ``period`` seconds.

    Args:
        limit: Units (requests, tokens) a window.
        period: Length of the window in seconds.
        clock: Seconds from any origin; replaced in tests.
    """

    def __init__(self, limit: int, *, period: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = limit
        self.period = period
        self._clock = clock
        self._spent: deque[list[float]] = deque()  # [time, units], oldest first; memory: one entry a call in the window
        self._total = 0.0

    def wait_seconds(self, units: float) -> float:
        """Seconds until ``units`` more fit; 0 when they fit now.

        More units than the whole limit fit when the window is empty: otherwise such a call would wait for ever.
        """
        now = self._clock()
        self._forget(now)
        room = self.limit - self._total
        if units <= room or not self._spent:
            return 0.0
        for when, amount in self._spent:
            room += amount
            if units <= room:
                return max(0.0, when + self.period - now)
        return max(0.0, self._spent[-1][0] + self.period - now)

    def spend(self, units: float) -> list[float]:
        """Count units from now on; the returned entry is the handle for `correct`."""
        entry = [self._clock(), float(units)]
        self._spent.append(entry)
        self._total += units
        return entry

    def correct(self, entry: list[float], units: float) -> None:
        """Replace an estimate by what was really spent, as of now: the server may count it when it answers."""
        now = self._clock()
        extra = units - entry[1]
        if entry[0] > now - self.period:
            self._total += min(extra, 0.0)
            entry[1] += min(extra, 0.0)
        if extra > 0:
            self._spent.append([now, extra])
            self._total += extra

    def _forget(self, now: float) -> None:
        while self._spent and self._spent[0][0] <= now - self.period:
            self._total -= self._spent.popleft()[1]


class Ticket(NamedTuple):
    """A call that was let through.

    Attributes:
        estimate: Tokens that the caller expected.
        entry: What was counted for it.
    """

    estimate: float
    entry: list[float]


class RateLimiter:
    """Lets calls through, first come first served, as fast as both limits allow.

    Args:
        requests_per_minute: None for no limit. Every attempt counts, retries too.
        tokens_per_minute: None for no limit. Prompt plus answer; estimated before the call, corrected after it.
        period: Seconds in a "minute"; shorter in tests.
        travel: Seconds by which the travel times of two calls may differ; the window is longer by them.
        clock: Seconds from any origin; replaced in tests.

    Raises:
        ConfigError: A limit is below 1.
    """

    def __init__(
        self,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        *,
        period: float = 60.0,
        travel: float = _TRAVEL_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        for name, limit in (("requests_per_minute", requests_per_minute), ("tokens_per_minute", tokens_per_minute)):
            if limit is not None and limit < 1:
                raise ConfigError(f"`{name}` must be at least 1, got {limit}; use None for no limit.")
        window = period + travel
        self._requests = None if requests_per_minute is None else self._window(requests_per_minute, window, clock)
        self._tokens = None if tokens_per_minute is None else self._window(tokens_per_minute, window, clock)
        self._clock = clock
        self._closed_until = 0.0
        self._scale = 1.0  # tokens that calls really take for each that was estimated; see `settle`
        self._turn = asyncio.Lock()  # fair: waiters are served in order, so no big call starves

    @staticmethod
    def _window(limit: int, period: float, clock: Callable[[], float]) -> SlidingWindow:
        return SlidingWindow(limit, period=period, clock=clock)

    @property
    def counts_tokens(self) -> bool:
        """Whether callers need to estimate tokens at all."""
        return self._tokens is not None

    async def acquire(self, tokens: float = 0) -> Ticket | None:
        """Wait until one request of about ``tokens`` tokens may go, and count it; returns the handle for `settle`."""
        if self._requests is None and self._tokens is None and self._closed_until <= self._clock():
            return None
        async with self._turn:
            while (seconds := self.wait_seconds(tokens)) > 0:
                await asyncio.sleep(seconds)
            return self.spend(tokens)

    def wait_seconds(self, tokens: float = 0) -> float:
        """Seconds until one request of about ``tokens`` tokens may go; 0 when it may now.

        With `spend` this is `acquire` for threads, which hold a lock around the two.
        """
        wait = max(0.0, self._closed_until - self._clock())
        if self._requests is not None:
            wait = max(wait, self._requests.wait_seconds(1))
        if self._tokens is not None:
            wait = max(wait, self._tokens.wait_seconds(tokens * self._scale))
        return wait

    def spend(self, tokens: float = 0) -> Ticket | None:
        """Count one request of about ``tokens`` tokens from now on; returns the handle for `settle`."""
        if self._requests is not None:
            self._requests.spend(1)
        return Ticket(tokens, self._tokens.spend(tokens * self._scale)) if self._tokens is not None else None

    def settle(self, ticket: Ticket | None, tokens: float) -> None:
        """Correct the estimate of `acquire` by the usage that the server reported.

        Later estimates are scaled up too: a model whose tokenizer makes a third more tokens than ours would otherwise
        overrun the limit with every call that is in flight.
        """
        if ticket is not None and self._tokens is not None:
            self._tokens.correct(ticket.entry, tokens)
            self._scale = max(1.0, self._scale * _FORGETTING, tokens / max(ticket.estimate, 1.0))

    def pause(self, seconds: float) -> None:
        """Hold every call back: the server said when to come again, and that is meant for all workers."""
        self._closed_until = max(self._closed_until, self._clock() + seconds)
