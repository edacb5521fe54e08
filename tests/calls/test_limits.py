"""No window of a minute ever holds more than the limit; nobody waits longer than that needs."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given, settings, strategies as st

from llama_index_embft.calls import RateLimiter
from llama_index_embft.calls.limits import SlidingWindow
from llama_index_embft.errors import ConfigError


class Clock:
    """A clock that `asyncio.sleep` turns, so that an hour takes no time."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class InstantLoop(asyncio.SelectorEventLoop):
    """An event loop whose waits take no time: a busy machine, which wakes a caller late, changes no result."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        wait = self._selector.select

        def select(timeout: float | None = None):
            self.now += timeout or 0.0
            return wait(0)

        self._selector.select = select

    def time(self) -> float:
        return self.now


def run(main):
    loop = InstantLoop()
    try:
        return loop.run_until_complete(main)
    finally:
        loop.close()


def worst_window(events: list[tuple[float, float]], period: float) -> float:
    """The most units in any half-open window of ``period``."""
    return max(sum(units for when, units in events if start <= when < start + period) for start, _ in events)


@given(
    st.integers(1, 20),
    st.lists(st.tuples(st.floats(0, 5), st.integers(1, 5)), min_size=1, max_size=60),
)
def test_a_window_never_holds_more_than_its_limit(limit: int, calls: list[tuple[float, int]]) -> None:
    clock = Clock()
    window = SlidingWindow(limit, period=10.0, clock=clock)
    events = []
    for pause, units in calls:
        units = min(units, limit)
        clock.now += pause
        waited = window.wait_seconds(units)
        clock.now += waited
        assert window.wait_seconds(units) < 1e-6
        window.spend(units)
        events.append((clock.now, float(units)))
    # A hair shorter than the period: the sum of two floats may fall a bit below the window's edge.
    assert worst_window(events, 10.0 - 1e-6) <= limit


def test_nobody_waits_without_need() -> None:
    clock = Clock()
    window = SlidingWindow(3, period=10.0, clock=clock)
    for _ in range(3):
        assert window.wait_seconds(1) == 0
        window.spend(1)
        clock.now += 1
    assert window.wait_seconds(1) == pytest.approx(7.0)  # the first leaves ten seconds after it came
    assert window.wait_seconds(2) == pytest.approx(8.0)


def test_a_call_larger_than_the_limit_goes_alone_instead_of_never() -> None:
    clock = Clock()
    window = SlidingWindow(100, period=10.0, clock=clock)
    assert window.wait_seconds(500) == 0
    window.spend(500)
    assert window.wait_seconds(1) == pytest.approx(10.0)


def test_an_estimate_is_corrected_both_ways() -> None:
    clock = Clock()
    window = SlidingWindow(100, period=10.0, clock=clock)
    entry = window.spend(90)
    window.correct(entry, 20)
    assert window.wait_seconds(80) == 0
    assert window.wait_seconds(81) > 0
    clock.now += 5
    window.correct(entry, 60)
    assert window.wait_seconds(41) == pytest.approx(5.0)  # the first 20 leave with the call itself
    assert window.wait_seconds(61) == pytest.approx(10.0)  # the rest counts from when it was known


@settings(max_examples=6, deadline=None)
@given(st.integers(1, 30), st.integers(0, 10_000))
def test_many_workers_keep_both_limits(rpm: int, seed: int) -> None:
    dice = random.Random(seed)
    starts: list[float] = []
    ends: list[tuple[float, float]] = []
    period = 0.2

    async def main() -> None:
        loop = asyncio.get_running_loop()
        limiter = RateLimiter(rpm, 1000, period=period, travel=0.01, clock=loop.time)

        async def call() -> None:
            tokens = dice.randint(1, 300)
            entry = await limiter.acquire(tokens)
            starts.append(loop.time())
            limiter.settle(entry, tokens)
            ends.append((loop.time(), tokens))

        await asyncio.gather(*(call() for _ in range(rpm + 5)))

    run(main())
    assert worst_window([(when, 1.0) for when in starts], period) <= rpm
    assert worst_window(ends, period) <= 1000


def test_a_pause_holds_everyone_back() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        limiter = RateLimiter(clock=loop.time)
        limiter.pause(0.1)
        started = loop.time()
        await asyncio.gather(*(limiter.acquire() for _ in range(5)))
        return loop.time() - started

    assert run(main()) >= 0.1


def test_a_tokenizer_that_counts_more_than_ours_does_not_overrun_the_limit() -> None:
    period, spent = 0.3, []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        limiter = RateLimiter(None, 1000, period=period, travel=0.2, clock=loop.time)

        async def call() -> None:
            ticket = await limiter.acquire(50)
            await asyncio.sleep(0.005)
            spent.append((loop.time(), 100.0))
            limiter.settle(ticket, 100)

        await call()  # the first call of a run goes alone
        await asyncio.gather(*(call() for _ in range(30)))

    run(main())
    assert worst_window(spent, period) <= 1000


@pytest.mark.parametrize("options", [{"requests_per_minute": 0}, {"tokens_per_minute": -5}])
def test_senseless_limits_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="must be at least 1"):
        RateLimiter(**options)
