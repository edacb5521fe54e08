"""Questions to a judge: within a limit, tried again where that helps, and stopped where it cannot."""

from __future__ import annotations

import logging
import random
import threading
from typing import TYPE_CHECKING, Any, Final

from llama_index_embft._optional import require
from llama_index_embft.calls.connections import without_retries
from llama_index_embft.calls.failures import Failure, Redactor, classify
from llama_index_embft.calls.limits import SlidingWindow
from llama_index_embft.errors import ConfigError, EvaluationError, MissingExtraError
from llama_index_embft.generation.asking import RetryPolicy, is_synchronous, model_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_index.core.llms import LLM, ChatMessage

# As in generation: the server counts when a request arrives, we count when it leaves.
_MINUTE: Final = 61.0


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

    Raises:
        ConfigError: `requests_per_minute` or `retry_limit` is below 1.
    """

    def __init__(
        self, llm: LLM, *, requests_per_minute: int | None = None, retry_limit: int = 3, first_wait: float = 1.0
    ) -> None:
        if requests_per_minute is not None and requests_per_minute < 1:
            raise ConfigError(f"`requests_per_minute` must be at least 1, got {requests_per_minute}; None: no limit.")
        self._policy = RetryPolicy(limit=retry_limit, first_wait=first_wait)
        self._redact = Redactor(llm)
        self._llm: Any = without_retries(llm)
        self.name = model_name(llm)
        self._window = None if requests_per_minute is None else SlidingWindow(requests_per_minute, period=_MINUTE)
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._fatal = ""
        self._proven = False
        self._dice = random.Random(0)
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
        faults, waited = 0, 0.0
        while True:
            self._wait_for_turn()
            try:
                text = self._send(messages)
            except Exception as err:  # noqa: BLE001  # every LLM client has its own exceptions; classify() sorts them
                failure = classify(err, self._redact)
            else:
                self._proven = True
                return text
            self._give_up_if_fatal(failure)
            faults += failure.kind != "wait"
            if failure.kind == "passage" or faults >= self._policy.limit:
                raise JudgeCallError(failure.reason)
            pause = self._pause(faults) if failure.retry_after is None else failure.retry_after
            waited += pause if failure.kind == "wait" else 0.0
            if waited > self._policy.patience:
                raise JudgeCallError(failure.reason)
            with self._lock:
                self.retries += 1
            self._stopped.wait(pause)

    def _send(self, messages: Sequence[ChatMessage]) -> str:
        with self._lock:
            self.requests += 1
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
            if self._window is None:
                return
            with self._lock:
                seconds = self._window.wait_seconds(1)
                if seconds <= 0:
                    self._window.spend(1)
                    return
            self._stopped.wait(seconds)

    def _give_up_if_fatal(self, failure: Failure) -> None:
        if failure.kind == "fatal" or (failure.kind == "unreachable" and not self._proven):
            advice = " Check the network and the address." if failure.kind == "unreachable" else ""
            self._fatal = f"The judge {self.name!r} cannot be asked: {failure.reason.rstrip('.')}.{advice}"
            # Not `from` the client's error: a logged traceback would show the server's words, with the key in them.
            raise JudgeUnavailableError(self._fatal) from None

    def _pause(self, faults: int) -> float:
        bound = min(self._policy.max_wait, self._policy.first_wait * 2 ** max(0, faults - 1))
        with self._lock:
            return self._dice.uniform(0, bound)
