"""When to try a failed call again: jittered backoff, and what the server itself asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from llama_index_embft.calls.failures import Failure, Redactor, classify
from llama_index_embft.errors import ConfigError, EmbftError

if TYPE_CHECKING:
    from tenacity import RetryCallState

    from llama_index_embft.calls.limits import RateLimiter


@dataclass(frozen=True)
class RetryPolicy:
    """How long to try.

    Args:
        limit: Attempts a question; waiting for a rate limit does not count.
        first_wait: Upper bound of the first pause in seconds; the bound doubles, the pause is drawn below it.
        max_wait: Longest pause in seconds.
        patience: Longest time in seconds that one question waits for rate limits in all.

    Raises:
        ConfigError: ``limit`` is below 1.
    """

    limit: int = 3
    first_wait: float = 1.0
    max_wait: float = 30.0
    patience: float = 900.0

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise ConfigError(f"`retry_limit` must be at least 1, got {self.limit}.")


class Caller(Protocol):
    """What makes calls: its policy, its limits, and whether a call has succeeded before."""

    policy: RetryPolicy
    limiter: RateLimiter
    redact: Redactor
    proven: bool


class Patience:
    """The three decisions of tenacity for one call: is another try worth it, after how long, when is it over."""

    def __init__(self, caller: Caller) -> None:
        from tenacity import wait_random_exponential

        self._caller = caller
        self._policy = caller.policy
        self._faults = 0
        self._waited = 0.0
        self._backoff = wait_random_exponential(multiplier=caller.policy.first_wait, max=caller.policy.max_wait)

    def should_retry(self, err: BaseException) -> bool:
        """Whether another try is worth it."""
        if not isinstance(err, Exception) or isinstance(err, EmbftError):
            return False
        kind = classify(err, self._caller.redact).kind
        return kind in ("retry", "wait") or (kind == "unreachable" and self._caller.proven)

    def wait(self, state: RetryCallState) -> float:
        """Seconds until then; a server's own word holds all callers back."""
        failure = self._failure(state)
        backoff = float(self._backoff(state))
        if failure.retry_after is None:
            return backoff
        if failure.retry_after <= self._policy.patience:
            # All workers hear the server's word at once, and jitter keeps them from coming back at once.
            self._caller.limiter.pause(failure.retry_after)
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
        return classify(err, self._caller.redact)
