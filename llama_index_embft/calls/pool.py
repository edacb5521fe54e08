"""Many questions at once: a bounded number in flight, each answered from the journal or stored in it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from llama_index_embft.calls.asking import Asker, GivenUpError, Question
from llama_index_embft.calls.journal import Answer, Identity, Journal
from llama_index_embft.errors import GenerationError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

OnFailure = Literal["continue", "fail"]

# After so many stored answers in a row other tasks get a turn; looking one up takes about 10 microseconds.
_LOOKUPS_A_TURN: Final = 200
# With fewer failures a bad start proves nothing: the first pages of a document are often the oddest.
_FAILURES_THAT_PROVE: Final = 20


class Task(NamedTuple):
    """One question with its place in the journal.

    Attributes:
        label: What to call it in messages, such as a chunk's id.
        identity: Key of the answer.
        question: What to ask; called only if the journal has no answer.
    """

    label: str
    identity: Identity
    question: Callable[[], Question]


@dataclass
class Pool:
    """Asks questions through one `Asker` and one `Journal`.

    Attributes:
        asker: Asks one question.
        journal: Answers known already, and the place for new ones.
        num_workers: Questions in flight.
        on_failure: ``"continue"`` records a question without an answer and goes on; ``"fail"`` stops at the first.
        answered: Questions answered by the LLM so far.
        from_journal: Questions answered by the journal so far.
    """

    asker: Asker
    journal: Journal
    num_workers: int
    on_failure: OnFailure
    answered: int = 0
    from_journal: int = 0
    _asked_now: set[str] = field(default_factory=set)
    _failures: int = 0
    _outages: int = 0

    async def ask_all(
        self,
        tasks: Iterable[Task],
        *,
        on_done: Callable[[], Awaitable[None]] | None = None,
        on_failed: Callable[[str, str], None] | None = None,
    ) -> None:
        """Get every question answered, into the journal; read the answers from there.

        Memory does not grow with the number of tasks: an iterator is drawn from as workers become free.

        Args:
            tasks: Questions; one that is asked twice is sent once.
            on_done: Awaited after each question, answered or not.
            on_failed: Called with label and reason of a question without an answer.

        Raises:
            GenerationError: No further call can succeed, nothing at all is usable, or ``on_failure="fail"``.
        """
        run = _Run(self, iter(tasks), on_done, on_failed)
        workers: list[asyncio.Task[None]] = []
        try:
            # Until one call has come back there is one at a time: a wrong key costs one call, not one a worker.
            while not self.asker.proven and await run.one():
                pass
            workers = [asyncio.create_task(run.work()) for _ in range(self.num_workers)]
            # The first error is raised here, in the caller's task, while the others are still waiting for answers.
            for finished in asyncio.as_completed(workers):
                await finished
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
            await self.asker.hang_up()

    def _check_outage(self, err: GivenUpError) -> None:
        enough = max(_FAILURES_THAT_PROVE, 2 * self.num_workers)
        self._failures += 1
        from_server = err.failure.kind in ("retry", "wait", "unreachable") and not err.failure.unusable
        self._outages = self._outages + 1 if from_server else 0
        if not self.answered and not self.from_journal and self._failures >= enough:
            raise GenerationError(
                f"None of the first {self._failures} questions to the LLM got a usable answer, so the run was stopped; "
                f"the last one failed with: {err.failure.reason}"
            )
        if self._outages >= enough:
            raise GenerationError(
                f"The last {self._outages} questions to the LLM failed one after another, so the run was stopped "
                f"({err.failure.reason}). Answers so far are stored: run again to go on."
            )


@dataclass
class _Run:
    """One `Pool.ask_all`: the tasks, drawn by all workers."""

    pool: Pool
    tasks: Iterator[Task]
    on_done: Callable[[], Awaitable[None]] | None
    on_failed: Callable[[str, str], None] | None

    async def work(self) -> None:
        while await self.one():
            pass

    async def one(self) -> bool:
        """Ask the next question that has no answer; False when there is none left."""
        task = await self._next()
        if task is None:
            return False
        pool = self.pool
        try:
            reply = await pool.asker.ask(task.question())
            await pool.journal.put(task.identity, Answer(reply.payload, reply.prompt_tokens, reply.completion_tokens))
            pool.answered += 1
            pool._outages = 0
        except GivenUpError as err:
            await pool.journal.put_failure(task.identity, err.failure.reason)
            if self.on_failed is not None:
                self.on_failed(task.label, err.failure.reason)
            if pool.on_failure == "fail":
                raise GenerationError(
                    f"{task.label}: {err.failure.reason} The run was stopped (on_failure='fail'); answers so far are "
                    "stored: run again to go on."
                ) from None
            pool._check_outage(err)
        finally:
            pool._asked_now.discard(task.identity.key)
        if self.on_done is not None:
            await self.on_done()
        return True

    async def _next(self) -> Task | None:
        for lookups, task in enumerate(self.tasks, start=1):
            key = task.identity.key
            if key not in self.pool._asked_now and key not in self.pool.journal:
                self.pool._asked_now.add(key)
                return task
            self.pool.from_journal += key not in self.pool._asked_now
            if self.on_done is not None:
                await self.on_done()
            if lookups % _LOOKUPS_A_TURN == 0:
                await asyncio.sleep(0)
        return None
