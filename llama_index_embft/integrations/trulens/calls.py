"""Questions to a judge: within a limit, tried again where that helps, and stopped where it cannot."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

from llama_index_embft._core.optional import require
from llama_index_embft.calls.asking import is_synchronous, model_name
from llama_index_embft.calls.connections import without_retries
from llama_index_embft.calls.failures import Redactor, classify
from llama_index_embft.calls.limits import RateLimiter
from llama_index_embft.calls.retrying import Patience, RetryPolicy
from llama_index_embft.errors import EvaluationError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_index.core.llms import LLM, ChatMessage


def require_trulens(feature: str) -> None:
    """Import TruLens, or say which extra to install; its remark on a package that it does not need stays out.

    Raises:
        MissingExtraError: The extra ``trulens`` is not installed.
    """
    log = logging.getLogger("trulens.core.utils.imports")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        for module in ("trulens.core", "trulens.feedback", "trulens.apps.llamaindex"):
            require(module, feature=feature)
    except ModuleNotFoundError as err:
        if not (err.name or "").startswith("trulens."):
            raise
        # One of its distributions is there and another is not: they share the name `trulens`.
        command = 'pip install "llama-index-embft[trulens]"'
        raise MissingExtraError(f"{feature} needs `{err.name}`; install it with: {command}") from err
    finally:
        log.setLevel(level)


class JudgeUnavailableError(EvaluationError):
    """No further call to the judge can succeed: wrong key, unknown model, nobody listens."""


class JudgeCallError(Exception):
    """One question has no answer after all attempts; others may have one."""


class JudgeCalls:
    """Calls to one LLM, from any number of threads.

    Args:
        llm: Any LlamaIndex LLM. Its own retries are switched off on a copy, so that they are not multiplied.
        requests_per_minute: Most requests in any window of a minute, attempts included; None for no limit.
        retry_limit: Attempts a question; waiting for a rate limit does not count.
        first_wait: Upper bound of the first pause between attempts in seconds; it doubles.

    Attributes:
        requests: Requests sent.
        retries: Those of them that repeated a question.
        policy: How long to try, for `Patience`.
        limiter: Shared by all threads, under a lock.
        redact: Hides the key in messages.
        proven: A call has succeeded, so the server is there and accepts us.

    Raises:
        ConfigError: `requests_per_minute` or `retry_limit` is below 1.
    """

    def __init__(
        self, llm: LLM, *, requests_per_minute: int | None = None, retry_limit: int = 3, first_wait: float = 1.0
    ) -> None:
        self.limiter = RateLimiter(requests_per_minute)
        self.policy = RetryPolicy(limit=retry_limit, first_wait=first_wait)
        self.redact = Redactor(llm)
        self.proven = False
        self._llm: Any = without_retries(llm)
        self.name = model_name(llm)
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._fatal = ""
        # Local models must not be called by two threads at once.
        self._one_at_a_time = threading.Lock() if is_synchronous(llm) else None
        self.requests = 0
        self.retries = 0

    @property
    def concurrent(self) -> bool:
        """Whether several questions may be on their way at the same time."""
        return self._one_at_a_time is None

    def stop(self) -> None:
        """End all waiting; questions from now on fail with `JudgeCallError`."""
        self._stopped.set()

    def forgive(self) -> None:
        """Let the next question be asked, even if no call could succeed before."""
        self._fatal = ""

    def chat(self, messages: Sequence[ChatMessage]) -> str:
        """Ask until there is an answer; returns its text, empty if the model said nothing.

        Raises:
            JudgeUnavailableError: No call can succeed; every later question fails at once with the same words.
            JudgeCallError: This question got no answer.
        """
        from tenacity import Retrying, retry_if_exception, sleep_using_event

        patience = Patience(self)
        try:
            for attempt in Retrying(
                retry=retry_if_exception(patience.should_retry),
                wait=patience.wait,
                stop=patience.stop,
                sleep=sleep_using_event(self._stopped),  # ends early when the evaluation is stopped
                reraise=True,
            ):
                self._wait_for_turn()  # outside the attempt: what it raises is no failure of the call
                with attempt:
                    text = self._send(messages, again=attempt.retry_state.attempt_number > 1)
                    self.proven = True
                    return text
        except (JudgeUnavailableError, JudgeCallError):
            raise
        except Exception as err:  # noqa: BLE001  # every LLM client has its own exceptions; classify() sorts them
            failure = classify(err, self.redact)
            if failure.kind == "fatal" or (failure.kind == "unreachable" and not self.proven):
                advice = " Check the network and the address." if failure.kind == "unreachable" else ""
                self._fatal = f"The judge {self.name!r} cannot be asked: {failure.reason.rstrip('.')}.{advice}"
                # Not `from err`: a logged traceback would show the server's words, with the key in them.
                raise JudgeUnavailableError(self._fatal) from None
            raise JudgeCallError(failure.reason) from None
        raise AssertionError("tenacity returns or raises")  # pragma: no cover

    def _send(self, messages: Sequence[ChatMessage], *, again: bool) -> str:
        with self._lock:
            self.requests += 1
            self.retries += again
        if self._one_at_a_time is None:
            return str(self._llm.chat(list(messages)).message.content or "")
        with self._one_at_a_time:
            return str(self._llm.chat(list(messages)).message.content or "")

    def _wait_for_turn(self) -> None:
        while True:
            if self._fatal:
                raise JudgeUnavailableError(self._fatal)
            if self._stopped.is_set():
                raise JudgeCallError("The evaluation was stopped before the judge was asked.")
            with self._lock:
                seconds = self.limiter.wait_seconds()
                if seconds <= 0:
                    self.limiter.spend()
                    return
            self._stopped.wait(seconds)
