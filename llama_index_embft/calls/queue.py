"""The one queue: many requests, a bounded number in flight, each answered from the journal or stored in it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from llama_index_embft.calls.asking import default_journal, workers_for
from llama_index_embft.calls.counts import as_prices
from llama_index_embft.calls.journal import Journal, RequestIdentity, StoredAnswer
from llama_index_embft.calls.progress import CallProgress
from llama_index_embft.calls.server import GivenUpError
from llama_index_embft.errors import GenerationError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

    from llama_index_embft.calls.asking import LLMCaller, LLMRequest
    from llama_index_embft.calls.counts import CallCounts
    from llama_index_embft.calls.server import ApiServer
    from llama_index_embft.calls.settings import CallSettings, OnFailure

# After so many stored answers in a row others get a turn; looking one up takes about 10 microseconds.
_LOOKUPS_A_TURN: Final = 200
# With fewer failures a bad start proves nothing: the first pages of a document are often the oddest.
_FAILURES_THAT_PROVE: Final = 20


async def work_off(step: Callable[[], Awaitable[bool]], server: ApiServer, num_workers: int) -> None:
    """Repeat a step in several workers until it returns False; the first exception ends all of them.

    Until one call has come back there is one at a time: a wrong key costs one call, not one a worker.

    Args:
        step: Does one piece of work; False when there is none left.
        server: What the work calls.
        num_workers: Steps at the same time.
    """

    async def work() -> None:
        while await step():
            pass

    workers: list[asyncio.Task[None]] = []
    try:
        while not server.proven:
            if not await step():
                return
        workers = [asyncio.create_task(work()) for _ in range(num_workers)]
        # The first error is raised here, in the caller's task, while the others are still waiting for answers.
        for finished in asyncio.as_completed(workers):
            await finished
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


class QueuedRequest(NamedTuple):
    """One request with its place in the journal.

    Attributes:
        label: What to call it in messages, such as a chunk's id.
        identity: Key of the answer.
        request: What to ask; called only if the journal has no answer.
        valid: Whether content that the journal holds is such as this request stores.
    """

    label: str
    identity: RequestIdentity
    request: Callable[[], LLMRequest]
    valid: Callable[[Any], bool] = lambda _: True


@dataclass
class RequestQueue:
    """Sends requests through one `LLMCaller` and keeps the answers in one `Journal`.

    Attributes:
        caller: Asks the LLM.
        journal: Answers known already, and the place for new ones.
        num_workers: Requests in flight.
        on_failure: ``"continue"`` records a request without an answer and goes on; ``"fail"`` stops at the first.
        answered: Requests answered by the LLM so far.
        from_journal: Requests answered by the journal so far.
    """

    caller: LLMCaller
    journal: Journal
    num_workers: int
    on_failure: OnFailure = "continue"
    answered: int = 0
    from_journal: int = 0
    _in_flight: set[str] = field(default_factory=set)
    _failures: int = 0
    _outages: int = 0

    async def get_all(
        self,
        requests: Iterable[QueuedRequest],
        *,
        on_done: Callable[[], Awaitable[None]] | None = None,
        on_failed: Callable[[str, str], None] | None = None,
    ) -> None:
        """Get every request answered, into the journal; read the answers from there.

        Memory does not grow with the number of requests: an iterator is drawn from as workers become free.

        Args:
            requests: One that stands there twice is sent once.
            on_done: Awaited after each request, answered or not.
            on_failed: Called with label and reason of a request without an answer.

        Raises:
            GenerationError: No further call can succeed, nothing at all is usable, or ``on_failure="fail"``.
        """
        waiting = iter(requests)

        async def step() -> bool:
            queued = await self._next(waiting, on_done)
            if queued is None:
                return False
            try:
                await self._get(queued)
            except GivenUpError as err:
                if on_failed is not None:
                    on_failed(queued.label, err.failure.reason)
                self._check_failure(queued, err)
            finally:
                self._in_flight.discard(queued.identity.key)
            if on_done is not None:
                await on_done()
            return True

        try:
            await work_off(step, self.caller.server, self.num_workers)
        finally:
            await self.caller.hang_up()

    async def get(self, queued: QueuedRequest) -> Any:
        """Get one request answered, by the journal or the LLM; returns what the answer was read as.

        Raises:
            GivenUpError: No attempt gave a usable answer.
            GenerationError: No further call can succeed.
        """
        known = self.journal.get(queued.identity.key, queued.valid)
        if known is not None:
            self.from_journal += 1
            return known.payload
        return await self._get(queued)

    async def _get(self, queued: QueuedRequest) -> Any:
        try:
            response = await self.caller.ask(queued.request())
        except GivenUpError as err:
            await self.journal.put_failure(queued.identity, err.failure.reason)
            raise
        await self.journal.put(queued.identity, StoredAnswer(*response))
        self.answered += 1
        self._outages = 0
        return response.payload

    def _check_failure(self, queued: QueuedRequest, err: GivenUpError) -> None:
        if self.on_failure == "fail":
            raise GenerationError(
                f"{queued.label}: {err.failure.reason} The run was stopped (on_failure='fail'); answers so far are "
                "stored: run again to go on."
            ) from None
        enough = max(_FAILURES_THAT_PROVE, 2 * self.num_workers)
        self._failures += 1
        from_server = err.failure.kind in ("retry", "wait", "unreachable") and not err.failure.unusable
        self._outages = self._outages + 1 if from_server else 0
        if not self.answered and not self.from_journal and self._failures >= enough:
            raise GenerationError(
                f"None of the first {self._failures} requests to the LLM got a usable answer, so the run was stopped; "
                f"the last one failed with: {err.failure.reason}"
            )
        if self._outages >= enough:
            raise GenerationError(
                f"The last {self._outages} requests to the LLM failed one after another, so the run was stopped "
                f"({err.failure.reason}). Answers so far are stored: run again to go on."
            )

    async def _next(
        self, waiting: Iterator[QueuedRequest], on_done: Callable[[], Awaitable[None]] | None
    ) -> QueuedRequest | None:
        for lookups, queued in enumerate(waiting, start=1):
            key = queued.identity.key
            if key not in self._in_flight and self.journal.get(key, queued.valid) is None:
                self._in_flight.add(key)
                return queued
            self.from_journal += key not in self._in_flight
            if on_done is not None:
                await on_done()
            if lookups % _LOOKUPS_A_TURN == 0:
                await asyncio.sleep(0)
        return None


async def answer_all(
    requests: Sequence[QueuedRequest],
    caller: LLMCaller,
    settings: CallSettings,
    counts: CallCounts,
    *,
    on_failure: OnFailure = "continue",
    show_progress: bool = True,
    label: str = "Asking",
    unit: str = "request",
) -> list[Any]:
    """Get requests answered from the journal of the settings, or by the LLM, with a progress bar.

    Args:
        requests: What to ask.
        caller: Asks the LLM.
        settings: Requests in flight, prices, and the journal.
        counts: Where the run counts; `failed` is filled by label.
        on_failure: See `RequestQueue`.
        show_progress: Draw the bar, on standard error.
        label: What is going on, in the bar.
        unit: What is counted, in the bar.

    Returns:
        What each answer was read as, in the order of the requests; None for a request without a usable answer.

    Raises:
        GenerationError: See `RequestQueue.get_all`.
        OutputError: The journal cannot be written.
    """
    llm = caller.callers_llm
    with Journal(settings.journal_path or default_journal(llm)) as journal:
        queue = RequestQueue(caller, journal, workers_for(llm, settings), on_failure)
        prices = as_prices(settings.prices)
        progress = CallProgress(len(requests), counts, prices, show=show_progress, label=label, unit=unit)
        try:
            await queue.get_all(requests, on_done=progress.advance, on_failed=counts.failed.__setitem__)
        finally:
            counts.answered, counts.from_journal = queue.answered, queue.from_journal
            progress.close()
        answers = [journal.get(queued.identity.key, queued.valid) for queued in requests]
    return [None if answer is None else answer.payload for answer in answers]
