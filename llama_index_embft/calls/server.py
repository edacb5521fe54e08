"""One web API as a run sees it: the one retry loop, within the limits, with backoff and the server's own word."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, TypeVar

from llama_index_embft._core.checks import check_number
from llama_index_embft.calls.counts import CallCounts
from llama_index_embft.calls.failures import Failure, classify
from llama_index_embft.errors import EmbftError, GenerationError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tenacity import RetryCallState

    from llama_index_embft._core.redaction import Redactor
    from llama_index_embft.calls.counts import Prices
    from llama_index_embft.calls.limits import RateLimiter, Ticket

T = TypeVar("T")

# So many requests refused with a 403, and none answered: it is not about one passage.
_REFUSALS_THAT_PROVE: Final = 10
# From this wait on for one request, the server's own word does not shorten the pause any more.
_WAITS_TAKEN_AT_THEIR_WORD: Final = 8


@dataclass(frozen=True)
class RetryPolicy:
    """How long to try.

    Args:
        limit: Attempts a request; waiting for a rate limit does not count.
        first_wait: Upper bound of the first pause in seconds; the bound doubles, the pause is drawn below it.
        max_wait: Longest pause in seconds.
        patience: Longest time in seconds that one request waits for rate limits in all.

    Raises:
        ConfigError: ``limit`` is below 1.
    """

    limit: int = 3
    first_wait: float = 1.0
    max_wait: float = 30.0
    patience: float = 900.0

    def __post_init__(self) -> None:
        check_number("retry_limit", self.limit, at_least=1)


class GivenUpError(Exception):
    """A request without a usable answer after all attempts; carries the last `Failure`."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.reason)
        self.failure = failure


@dataclass
class ApiServer:
    """A server with a model behind it; shared by everything in a run that calls it.

    Attributes:
        policy: How long to try.
        limiter: Requests and tokens a minute.
        redact: Hides keys.
        counts: Where requests, retries and tokens are counted.
        model_kind: What the sentences call it, ``"LLM"`` or ``"embedding"``.
        proven: A call has succeeded, so the server is there and accepts us.
        prices: For ``max_cost``.
        max_cost: US dollars from which nothing more is sent; None for no limit.
    """

    policy: RetryPolicy
    limiter: RateLimiter
    redact: Redactor
    counts: CallCounts = field(default_factory=CallCounts)
    model_kind: str = "LLM"
    proven: bool = False
    prices: Prices | None = None
    max_cost: float | None = None
    _forbidden: int = 0

    async def admit(self, tokens: float) -> Ticket | None:
        """Wait until one request of about ``tokens`` tokens may go, and count it.

        Raises:
            GenerationError: ``max_cost`` has been spent.
        """
        counts = self.counts
        if self.prices is not None and self.max_cost is not None:
            spent = self.prices.cost(counts.prompt_tokens, counts.completion_tokens)
            if spent >= self.max_cost:
                raise GenerationError(
                    f"${spent:.4f} have been spent, and `max_cost` is {self.max_cost}; answers so far are stored: "
                    "raise it and run again to go on."
                )
        ticket = await self.limiter.acquire(tokens)
        self.counts.requests += 1
        return ticket

    async def try_often(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Make an attempt again and again, as long as that may help.

        Raises:
            GivenUpError: No attempt succeeded, or another cannot.
            EmbftError: What the attempt itself raised with a sentence of its own.
        """
        from tenacity import AsyncRetrying, retry_if_exception

        decision = RetryDecision(self)
        try:
            async for state in AsyncRetrying(
                retry=retry_if_exception(decision.should_retry),
                wait=decision.wait,
                stop=decision.stop,
                sleep=asyncio.sleep,
                reraise=True,
            ):
                with state:
                    self.counts.retries += state.retry_state.attempt_number > 1
                    result = await attempt()
                    self.proven = True
                    return result
        except EmbftError:
            raise
        except Exception as err:  # noqa: BLE001 - every client has its own exceptions; classify() sorts them
            # Not `from err`: a traceback that somebody logs would show the server's words, with the key in them.
            raise GivenUpError(self._judge_refusal(self.classify(err))) from None
        raise AssertionError("tenacity returns or raises")  # pragma: no cover

    def classify(self, err: BaseException) -> Failure:
        """What a failed call means."""
        return classify(err, self.redact, self.model_kind)

    def _judge_refusal(self, failure: Failure) -> Failure:
        """Tell a 403 for everything (a key without rights) from one for a passage (a firewall, a content filter)."""
        if failure.kind != "forbidden":
            return failure
        self._forbidden += 1
        if self.proven or self._forbidden < _REFUSALS_THAT_PROVE:
            return replace(failure, kind="passage")
        reason = f"The {self.model_kind} server refused each of {self._forbidden} requests ({failure.reason})"
        return replace(failure, kind="fatal", reason=f"{reason}; check the key and what it may do.")

    def refuses_all(self, failure: Failure) -> bool:
        """Whether no further call can succeed: wrong key, unknown model, nobody listens."""
        return failure.kind == "fatal" or (failure.kind == "unreachable" and not self.proven)


class RetryDecision:
    """The three decisions of tenacity for one request: is another try worth it, after how long, when is it over."""

    def __init__(self, server: ApiServer) -> None:
        from tenacity import wait_random_exponential

        self._server = server
        self._policy = server.policy
        self._faults = 0
        self._waited = 0.0
        self._waits = 0
        self._backoff = wait_random_exponential(multiplier=server.policy.first_wait, max=server.policy.max_wait)

    def should_retry(self, err: BaseException) -> bool:
        """Whether another try is worth it."""
        if not isinstance(err, Exception) or isinstance(err, EmbftError):
            return False
        kind = self._server.classify(err).kind
        return kind in ("retry", "wait") or (kind == "unreachable" and self._server.proven)

    def wait(self, state: RetryCallState) -> float:
        """Seconds until then; a server's own word holds all callers back."""
        failure = self._failure(state)
        backoff = float(self._backoff(state))
        self._waits += 1
        if failure.retry_after is None:
            return backoff
        if self._waits > _WAITS_TAKEN_AT_THEIR_WORD and failure.retry_after < backoff:
            return backoff
        if failure.retry_after <= self._policy.patience:
            # All workers hear the server's word at once, and jitter keeps them from coming back at once.
            self._server.limiter.pause(failure.retry_after)
        return failure.retry_after + min(backoff, 0.1 * failure.retry_after + 0.05)

    def stop(self, state: RetryCallState) -> bool:
        """Whether it is over."""
        if self._failure(state).kind == "wait":
            self._waited += state.upcoming_sleep
            return self._waited > self._policy.patience
        self._faults += 1
        return self._faults >= self._policy.limit

    def _failure(self, state: RetryCallState) -> Failure:
        assert state.outcome is not None
        err = state.outcome.exception()
        assert err is not None
        return self._server.classify(err)
