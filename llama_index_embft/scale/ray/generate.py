"""Questions by an LLM on a cluster: calls are spread over workers, one limit holds for all of them."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from llama_index_embft._core.optional import require
from llama_index_embft._core.redaction import Redactor
from llama_index_embft.calls.asking import LLMCaller, LLMRequest, LLMResponse, is_synchronous
from llama_index_embft.calls.counts import CallCounts
from llama_index_embft.calls.limits import RateLimiter, Ticket
from llama_index_embft.calls.running import run_sync
from llama_index_embft.calls.server import ApiServer, GivenUpError
from llama_index_embft.errors import ConfigError, GenerationError
from llama_index_embft.generation.run import GenerationRun, RunOptions
from llama_index_embft.scale.ray.cluster import connected, count_of, on_node, remote

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_index.core.llms import LLM
    from llama_index.core.schema import BaseNode

    from llama_index_embft.calls.failures import Failure
    from llama_index_embft.calls.server import RetryPolicy
    from llama_index_embft.calls.settings import Structured
    from llama_index_embft.generation.assemble import GeneratedDataset

_IN_FLIGHT: Final = 16


class RequestOutcome(NamedTuple):
    """How a question ended: exceptions of LLM clients do not survive the way between processes."""

    response: LLMResponse | None
    failure: Failure | None
    fatal: str | None
    counts: CallCounts


class LimiterActor:
    """The one rate limiter of a run.

    Args:
        requests_per_minute: As in `RateLimiter`.
        tokens_per_minute: As in `RateLimiter`.
    """

    def __init__(self, requests_per_minute: int | None, tokens_per_minute: int | None) -> None:
        self._limiter = RateLimiter(requests_per_minute, tokens_per_minute)
        self._tickets: dict[int, Ticket | None] = {}
        self._numbers = itertools.count()

    async def acquire(self, tokens: float) -> int:
        """Wait until a request may go; returns the number of its ticket."""
        ticket = await self._limiter.acquire(tokens)
        number = next(self._numbers)
        if ticket is not None:
            self._tickets[number] = ticket
        return number

    async def settle(self, number: int, tokens: float) -> None:
        """See `RateLimiter.settle`."""
        self._limiter.settle(self._tickets.pop(number, None), tokens)

    async def pause(self, seconds: float) -> None:
        """See `RateLimiter.pause`."""
        self._limiter.pause(seconds)


class SharedLimiter(RateLimiter):
    """A `RateLimiter` that asks the one of the run.

    Args:
        actor: The `LimiterActor`.
        counts_tokens: Whether it has a limit of tokens.
    """

    def __init__(self, actor: Any, counts_tokens: bool) -> None:
        super().__init__()
        self._actor, self._counts = actor, counts_tokens

    @property
    def counts_tokens(self) -> bool:
        """See `RateLimiter.counts_tokens`."""
        return self._counts

    async def acquire(self, tokens: float = 0) -> Ticket | None:
        """See `RateLimiter.acquire`."""
        number = await self._actor.acquire.remote(tokens)
        return Ticket(tokens, [number])

    def settle(self, ticket: Ticket | None, tokens: float) -> None:
        """See `RateLimiter.settle`; not waited for."""
        if ticket is not None and self._counts:
            self._actor.settle.remote(int(ticket.entry[0]), tokens)

    def pause(self, seconds: float) -> None:
        """See `RateLimiter.pause`; not waited for."""
        self._actor.pause.remote(seconds)


class AskingActor:
    """Holds an LLM client and asks questions, many at a time.

    Args:
        llm: The LLM.
        structured: How answers come.
        limiter: The `LimiterActor`.
        counts_tokens: Whether it has a limit of tokens.
        policy: How long to try.
    """

    def __init__(
        self, llm: LLM, structured: Structured, limiter: Any, counts_tokens: bool, policy: RetryPolicy
    ) -> None:
        self._llm, self._structured, self._policy = llm, structured, policy
        self._limiter = SharedLimiter(limiter, counts_tokens)

    async def ask(self, request: LLMRequest, proven: bool) -> RequestOutcome:
        """Ask until there is an answer, or none can be had."""
        counts = CallCounts()
        caller = self._caller(counts, proven)
        response, failure, fatal = None, None, None
        try:
            response = await caller.ask(request)
        except GivenUpError as err:
            failure = err.failure
        except GenerationError as err:
            fatal = str(err)
        self._first.mode = caller.mode  # a server that takes no tools is not asked with them again
        return RequestOutcome(response, failure, fatal, counts)

    def _caller(self, counts: CallCounts, proven: bool) -> LLMCaller:
        """A caller with counts of its own, so that those of calls in flight are not mixed up."""
        if not hasattr(self, "_first"):
            server = ApiServer(self._policy, self._limiter, Redactor(self._llm))
            self._first = LLMCaller.with_server(self._llm, self._structured, server)
        server = replace(self._first.server, counts=counts, proven=proven)
        return replace(self._first, server=server)


@dataclass
class SpreadCaller(LLMCaller):
    """An `LLMCaller` whose requests are sent by workers.

    Attributes:
        actors: The workers.
    """

    actors: list[Any] = field(default_factory=list)
    _busy: list[int] = field(default_factory=list)

    async def ask(self, request: LLMRequest) -> LLMResponse:
        """See `LLMCaller.ask`."""
        number = self._busy.index(min(self._busy))
        self._busy[number] += 1
        try:
            outcome: RequestOutcome = await self.actors[number].ask.remote(request, self.server.proven)
        finally:
            self._busy[number] -= 1
        self.server.counts.add(outcome.counts)
        if outcome.fatal is not None:
            raise GenerationError(outcome.fatal)
        if outcome.failure is not None:
            raise GivenUpError(outcome.failure)
        assert outcome.response is not None
        self.server.proven = True
        return outcome.response


class _ClusterRun(GenerationRun):
    """A run whose questions are asked by workers; journal, filters and data set stay with the caller."""

    def __init__(self, nodes: Sequence[BaseNode], llm: LLM, options: RunOptions, workers: int) -> None:
        super().__init__(nodes, llm, options)
        import ray

        calls = options.calls
        counts_tokens = calls.tokens_per_minute is not None
        # With the caller: if that machine is lost the run is over anyway, and a limiter that starts anew elsewhere
        # would have forgotten what was sent in the last minute.
        here = on_node(ray.get_runtime_context().get_node_id())
        limiter = remote(LimiterActor, num_cpus=0, scheduling_strategy=here).remote(
            calls.requests_per_minute, calls.tokens_per_minute
        )
        in_flight = 1 if is_synchronous(llm) else _IN_FLIGHT
        each = max(1, -(-calls.num_workers // workers)) if calls.num_workers else in_flight
        lasting = {"max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": "SPREAD"}
        actor = remote(AskingActor, num_cpus=0, max_concurrency=each, **lasting)
        local = self.caller
        self.actors = [
            actor.remote(llm, calls.structured, limiter, counts_tokens, local.server.policy) for _ in range(workers)
        ]
        self.caller = SpreadCaller(
            local.llm,
            local.mode,
            local.may_fall_back,
            local.server,
            local.callers_llm,
            actors=self.actors,
            _busy=[0] * workers,
        )
        self.num_workers = calls.num_workers or each * workers
        self._limiter = limiter

    def close(self) -> None:
        """End the workers."""
        import ray

        for actor in (*self.actors, self._limiter):
            ray.kill(actor)


async def agenerate_qa_embedding_pairs(
    nodes: Sequence[BaseNode],
    llm: LLM,
    *,
    workers: int | None = None,
    address: str | None = None,
    **options: Any,
) -> GeneratedDataset:
    """Let an LLM write questions for nodes, asked by the workers of a Ray cluster.

    The result is that of `generation.agenerate_qa_embedding_pairs`, with its journal: killed at any moment and called
    again, it asks only for what is missing. The journal is written here, by one process. The limits of ``calls`` hold
    for all workers together. Where a worker is lost, its questions are asked again; the
    journal keeps one answer to each.

    This pays where the client itself is the work: a local model on each machine (`CustomLLM`), or more connections than
    one process can serve. The LLM is sent to the workers as it is, its key included, through Ray.

    Args:
        nodes: The nodes of the index.
        llm: Any LlamaIndex LLM that can be pickled.
        workers: Processes that ask; None takes one for each CPU of the cluster.
        address: The cluster, see `connected`.
        **options: The other arguments of `generation.agenerate_qa_embedding_pairs`, by name. ``calls.num_workers`` is
            the number of requests in flight in all; None takes 16 for each worker, or 1 for an LLM without real async
            calls.

    Raises:
        ConfigError: An argument is not allowed, or the LLM cannot be sent to workers.
        ScaleError: No cluster answers.
        GenerationError: As there.
        MissingExtraError: Ray is not installed.
    """
    require("ray", feature="Generating on a Ray cluster")
    if workers is not None and workers < 1:
        raise ConfigError(f"`workers` must be at least 1, got {workers}.")
    try:
        run_options = RunOptions(**options)
    except TypeError as err:
        raise ConfigError(f"An argument is not known: {err}.") from err
    with connected(address):
        _check_sendable(llm)
        run = await asyncio.to_thread(_ClusterRun, nodes, llm, run_options, workers or count_of("CPU"))
        try:
            return await run.generate()
        finally:
            run.close()


def generate_qa_embedding_pairs(
    nodes: Sequence[BaseNode],
    llm: LLM,
    *,
    workers: int | None = None,
    address: str | None = None,
    **options: Any,
) -> GeneratedDataset:
    """Let an LLM write questions on a cluster: `agenerate_qa_embedding_pairs` for code that is not async."""
    return run_sync(agenerate_qa_embedding_pairs(nodes, llm, workers=workers, address=address, **options))


def _check_sendable(llm: LLM) -> None:
    import ray

    try:
        ray.put(llm)
    except TypeError as err:
        raise ConfigError(
            f"The LLM {type(llm).__name__} cannot be sent to other processes ({str(err).splitlines()[0]}); use a "
            "client that can be pickled."
        ) from err
