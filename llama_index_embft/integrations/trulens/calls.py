"""Questions to a judge, from TruLens' threads: through the one queue, stopped where no call can succeed."""

from __future__ import annotations

import asyncio
import logging
import weakref
from concurrent.futures import CancelledError, Future
from typing import TYPE_CHECKING, Final

from llama_index_embft._core.optional import require
from llama_index_embft._core.redaction import Redactor, redact
from llama_index_embft.calls.asking import (
    LLMCaller,
    LLMRequest,
    default_journal,
    is_synchronous,
    model_identity,
    model_name,
)
from llama_index_embft.calls.counts import CallCounts
from llama_index_embft.calls.journal import Journal, RequestIdentity
from llama_index_embft.calls.limits import RateLimiter
from llama_index_embft.calls.queue import QueuedRequest, RequestQueue
from llama_index_embft.calls.running import background_loop
from llama_index_embft.calls.server import ApiServer, GivenUpError, RetryPolicy
from llama_index_embft.errors import EvaluationError, GenerationError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from llama_index.core.llms import LLM, ChatMessage


_AT_ONCE: Final = 64
_EXPECTED_TOKENS: Final = 200
_STOPPED: Final = "The evaluation was stopped before the judge was asked."


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
    """Calls to one LLM, from any number of threads, each answer kept in a journal.

    Args:
        llm: Any LlamaIndex LLM. Its own retries are switched off on a copy, so that they are not multiplied.
        requests_per_minute: Most requests in any window of a minute, attempts included; None for no limit.
        retry_limit: Attempts a question; waiting for a rate limit does not count.
        first_wait: Upper bound of the first pause between attempts in seconds; it doubles.
        journal_path: File of the journal, which gives the same answer to the same question in a later run; None takes
            that of the model, see `CallSettings`.

    Attributes:
        name: The model.
        counts: Requests, retries and tokens.

    Raises:
        ConfigError: `requests_per_minute` or `retry_limit` is below 1.
        OutputError: The journal cannot be opened.
    """

    def __init__(
        self,
        llm: LLM,
        *,
        requests_per_minute: int | None = None,
        retry_limit: int = 3,
        first_wait: float = 1.0,
        journal_path: str | Path | None = None,
    ) -> None:
        self.name = model_name(llm)
        self.counts = CallCounts()
        policy = RetryPolicy(limit=retry_limit, first_wait=first_wait)
        server = ApiServer(policy, RateLimiter(requests_per_minute), Redactor(llm), self.counts)
        caller = LLMCaller.with_server(llm, "text", server)
        self.concurrent = not is_synchronous(llm)  # local models must not be called by two threads at once
        self._queue = RequestQueue(caller, Journal(journal_path or default_journal(llm)), num_workers=1)
        self._identity = model_identity(llm)
        self._turns = asyncio.Semaphore(_AT_ONCE if self.concurrent else 1)
        self._loop = background_loop()
        self._waiting: set[Future[str]] = set()
        self._stopped = False
        self._fatal = ""
        weakref.finalize(self, _close, self._queue, self._loop)

    @property
    def requests(self) -> int:
        """Requests sent."""
        return self.counts.requests

    @property
    def retries(self) -> int:
        """Those of them that repeated a question."""
        return self.counts.retries

    def stop(self) -> None:
        """End all waiting; questions from now on fail with `JudgeCallError`."""
        self._stopped = True
        for future in list(self._waiting):
            future.cancel()

    def forgive(self) -> None:
        """Let the next question be asked, even if no call could succeed before."""
        self._fatal = ""

    def chat(self, messages: Sequence[ChatMessage]) -> str:
        """Ask until there is an answer; returns its text, empty if the model said nothing.

        Raises:
            JudgeUnavailableError: No call can succeed; every later question fails at once with the same words.
            JudgeCallError: This question got no answer.
        """
        if self._fatal:
            raise JudgeUnavailableError(self._fatal)
        if self._stopped:
            raise JudgeCallError(_STOPPED)
        future = asyncio.run_coroutine_threadsafe(self._ask(messages), self._loop)
        self._waiting.add(future)
        try:
            return future.result()
        except CancelledError:
            raise JudgeCallError(_STOPPED) from None
        except GivenUpError as err:
            raise JudgeCallError(err.failure.reason) from None
        except GenerationError as err:
            self._fatal = f"The judge {self.name!r} cannot be asked: {redact(str(err))}"
            raise JudgeUnavailableError(self._fatal) from None
        finally:
            self._waiting.discard(future)

    async def _ask(self, messages: Sequence[ChatMessage]) -> str:
        text = "\n\n".join(f"{message.role.value}: {message.content}" for message in messages)
        identity = RequestIdentity.of("chat", text, prompt="", model=self._identity)
        request = LLMRequest(text, "", None, str, _EXPECTED_TOKENS, tuple(messages))
        async with self._turns:
            return str(
                await self._queue.get(
                    QueuedRequest("judging", identity, lambda: request, lambda found: isinstance(found, str))
                )
            )


def _close(queue: RequestQueue, loop: asyncio.AbstractEventLoop) -> None:
    """When nobody asks any more: close the journal and the connections, in the loop that they belong to."""

    async def close() -> None:
        queue.journal.close()
        await queue.caller.hang_up()

    if not loop.is_closed():
        asyncio.run_coroutine_threadsafe(close(), loop)
