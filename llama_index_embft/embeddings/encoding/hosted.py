"""Embedding models behind a web API: many calls at once, within the limits, each text paid for once.

Works with the LlamaIndex integration as it is. Its own fields say how to call: `embed_batch_size` texts a call,
`num_workers` calls at once, `max_retries`, and `rate_limiter` (`llama_index.core.rate_limiter`) requests and tokens a
minute. Finished batches are handed out as they come, so that the encoder can put each into the cache at once: a killed
run pays only for the rest.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import queue
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from llama_index_embft._core.checks import check_number
from llama_index_embft._core.redaction import Redactor
from llama_index_embft.calls.connections import close_own_connections, embeddings_in_order, without_retries
from llama_index_embft.calls.limits import RateLimiter
from llama_index_embft.calls.queue import work_off
from llama_index_embft.calls.running import background_loop
from llama_index_embft.calls.server import ApiServer, GivenUpError, RetryPolicy
from llama_index_embft.calls.tokens import count_tokens
from llama_index_embft.embeddings.encoding.backends import LlamaIndexBackend, TextKind, as_matrix
from llama_index_embft.errors import ConfigError, MissingExtraError, ModelError

if TYPE_CHECKING:
    from collections.abc import Generator

    from llama_index.core.base.embeddings.base import BaseEmbedding
    from numpy.typing import NDArray

    from llama_index_embft.calls.failures import Failure

# Fields that tell a model behind an address from one that computes here.
_ADDRESS_FIELDS: Final = ("api_base", "base_url", "api_url", "endpoint", "azure_endpoint")
_WORKERS: Final = 8
_RETRIES: Final = 5
_TURN: Final = 0.01
# Where queries and texts go to the same address and are treated alike, so that queries can travel in batches too.
_OPENAI: Final = "llama_index.embeddings.openai.base.OpenAIEmbedding"

# Server, model and limits -> what has been spent: several encoders of one model share one budget.
_limiters: dict[tuple[str, str, int | None, int | None], RateLimiter] = {}


def is_hosted(model: BaseEmbedding) -> bool:
    """Whether a model is called over the network: it has a key or an address, or a limit of calls."""
    if model.rate_limiter is not None:
        return True
    fields = type(model).model_fields
    return any((name in _ADDRESS_FIELDS or name.endswith("api_key")) and getattr(model, name, None) for name in fields)


class HostedBackend(LlamaIndexBackend):
    """A LlamaIndex embedding behind a web API.

    Args:
        model: The embedding; it is not changed.
        cached: Whether vectors are kept, for the message when calls fail.
    """

    def __init__(self, model: BaseEmbedding, *, cached: bool) -> None:
        super().__init__(model)
        self.cached = cached
        given: Any = model.rate_limiter
        requests, tokens = (_whole(getattr(given, f"{unit}_per_minute", None)) for unit in ("requests", "tokens"))
        self.server = ApiServer(
            RetryPolicy(limit=int(getattr(model, "max_retries", _RETRIES)) + 1),
            _limiters.setdefault((_address(model), model.model_name, requests, tokens), RateLimiter(requests, tokens)),
            Redactor(model),
            model_kind="embedding",
        )
        # A limiter of another kind (shared over machines, say) is asked before each call.
        self.other_limiter = given if given is not None and requests is None and tokens is None else None
        self.most_tokens = None if tokens is None else max(1, tokens // 2)
        self.workers = model.num_workers or _WORKERS
        self.alike = _queries_are_texts(model)
        # Home-made models often have no async batches of their own: LlamaIndex would call once for each text.
        self.in_threads = not _overrides(model, "_aget_text_embeddings")

    def prompt(self, kind: TextKind) -> str:
        """See `Backend.prompt`: where queries and texts are treated alike, neither is paid for twice."""
        return "document" if self.alike else kind

    def embed(self, texts: list[str], kind: TextKind) -> NDArray[np.float32]:
        """See `Backend.embed`."""
        found = list(self.batches(texts, kind, len(texts)))
        rows = [row for part, _ in found for row in part]
        result: NDArray[np.float32] = np.concatenate([vectors for _, vectors in found])[np.argsort(rows)]
        return result

    def batches(
        self, texts: list[str], kind: TextKind, size: int
    ) -> Generator[tuple[list[int], NDArray[np.float32]], None, None]:
        """See `Backend.batches`; batches come in the order in which they are answered.

        Raises:
            ModelError: A call failed for good, or the server refuses a text.
        """
        del size  # what one call carries is small enough
        done: queue.SimpleQueue[tuple[list[int], NDArray[np.float32]] | None] = queue.SimpleQueue()
        run = _EmbeddingRun(self, texts, kind, done)
        # A loop apart from the one of generation, whose filters embed questions and wait for it.
        future = asyncio.run_coroutine_threadsafe(run.all(), background_loop("embft-embeddings"))
        try:
            while (part := done.get()) is not None:
                yield part
            future.result()
        finally:
            future.cancel()

    def cut(self, texts: list[str], kind: TextKind) -> list[list[int]]:
        """Which texts go in one call, as rows: as many as the model's batch size and half the tokens of a minute."""
        if kind == "query" and not self.alike:
            return [[row] for row in range(len(texts))]
        parts: list[list[int]] = []
        tokens = 0
        for row, text in enumerate(texts):
            more = count_tokens(text) if self.most_tokens is not None else 0
            too_many = self.most_tokens is not None and tokens + more > self.most_tokens
            if not parts or too_many or len(parts[-1]) >= self.model.embed_batch_size:
                parts.append([])
                tokens = 0
            parts[-1].append(row)
            tokens += more
        return parts

    def error(self, failure: Failure, done: int, wanted: int) -> ModelError:
        """The sentence for a call that failed for good."""
        kept = self.cached and self.fingerprint is not None
        rest = f" {done} of {wanted} texts were embedded before" if done else ""
        rest += ", and are kept: run again to go on." if done and kept else "." if done else ""
        address = self.server.redact(_address(self.model))
        at = f" at {address}" if address else ""
        if failure.kind == "unreachable":
            start = f"No connection to the embedding server{at}: {failure.reason} Check the network and the address."
        else:
            start = f"{failure.reason.rstrip('.')} (model {self.model.model_name!r}{at})."
        return ModelError(start + rest)


@dataclass
class _EmbeddingRun:
    """The calls for one list of texts."""

    backend: HostedBackend
    texts: list[str]
    kind: TextKind
    finished: queue.SimpleQueue[tuple[list[int], NDArray[np.float32]] | None]
    count: int = 0
    todo: list[list[int]] = field(default_factory=list)
    model: Any = None

    async def all(self) -> None:
        """Make all calls; the end, good or bad, is a None in the queue."""
        backend = self.backend
        try:
            self.todo = backend.cut(self.texts, self.kind)[::-1]
            self.model = without_retries(backend.model).model_copy(update={"rate_limiter": None})
            embeddings_in_order(self.model, backend.model, backend.name)
            try:
                await work_off(self._step, backend.server, min(backend.workers, len(self.todo)))
            finally:
                await close_own_connections(self.model, backend.model)
        finally:
            self.finished.put(None)

    async def _step(self) -> bool:
        while self.finished.qsize() > self.backend.workers:
            await asyncio.sleep(_TURN)  # whoever stores the vectors is behind; what is not stored can be lost
        if not self.todo:
            return False
        await self._embed(self.todo.pop())
        return True

    async def _embed(self, rows: list[int]) -> None:
        """Embed some texts; a call that the server refuses is cut in two until the text to blame is found."""
        texts = [self.texts[row] for row in rows]
        try:
            vectors = await self.backend.server.try_often(lambda: self._attempt(texts))
        except GivenUpError as err:
            if err.failure.kind != "passage":
                raise self.backend.error(err.failure, self.count, len(self.texts)) from None
            if len(rows) == 1:
                raise ModelError(
                    f"{self.backend.name} refuses the text {texts[0][:80]!r} ({len(texts[0])} characters): "
                    f"{err.failure.reason.rstrip('.')}; shorten it, or leave it out."
                ) from None
            half = len(rows) // 2
            await self._embed(rows[:half])
            await self._embed(rows[half:])
            return
        self.count += len(rows)
        self.finished.put((rows, as_matrix(vectors, len(rows), self.backend.name)))

    async def _attempt(self, texts: list[str]) -> Any:
        backend = self.backend
        tokens = 0
        if backend.server.limiter.counts_tokens or backend.other_limiter is not None:
            tokens = sum(map(count_tokens, texts))
        await backend.server.admit(tokens)
        if backend.other_limiter is not None:
            await backend.other_limiter.async_acquire(tokens)
        return await self._call(texts)

    async def _call(self, texts: list[str]) -> Any:
        as_query = self.kind == "query" and not self.backend.alike
        if self.backend.in_threads:
            if as_query:
                return [await asyncio.to_thread(self.model.get_query_embedding, texts[0])]
            return await asyncio.to_thread(self.model.get_text_embedding_batch, texts)
        if as_query:
            return [await self.model.aget_query_embedding(texts[0])]
        return await self.model.aget_text_embedding_batch(texts)


def _address(model: BaseEmbedding) -> str:
    return next((str(found) for name in _ADDRESS_FIELDS if (found := getattr(model, name, None))), "")


def _whole(limit: float | None) -> int | None:
    return None if limit is None else max(1, int(limit))


def _queries_are_texts(model: BaseEmbedding) -> bool:
    """Whether a query and a text with the same words get the same vector by the same call."""
    if f"{type(model).__module__}.{type(model).__qualname__}" != _OPENAI:
        return False  # a subclass may do more than its parent
    engines = {getattr(model, name, None) for name in ("_query_engine", "_text_engine")}
    return len(engines) == 1 and None not in engines


def _overrides(model: BaseEmbedding, method: str) -> bool:
    from llama_index.core.base.embeddings.base import BaseEmbedding

    # LlamaIndex wraps the methods of every subclass for its instrumentation.
    return inspect.unwrap(getattr(type(model), method)) is not inspect.unwrap(getattr(BaseEmbedding, method))


def make_embed_model(
    name: str,
    *,
    api_base: str | None = None,
    requests_per_minute: int | None = None,
    tokens_per_minute: int | None = None,
) -> BaseEmbedding:
    """Make a hosted embedding model from its name, for the command line; the key comes from the environment.

    Args:
        name: ``openai:MODEL``, such as ``openai:text-embedding-3-small``; also for servers that speak OpenAI's
            protocol, with `api_base`. ``OPENAI_API_KEY`` is the key; servers of your own need none.
        api_base: Address of the server; None: OpenAI's.
        requests_per_minute: None for no limit.
        tokens_per_minute: None for no limit.

    Raises:
        ConfigError: The name is of another form, or a limit is below 1.
        MissingExtraError: The client is not installed.
    """
    provider, _, model = name.partition(":")
    if provider != "openai" or not model:
        raise ConfigError(
            f"The hosted embedding model {name!r} must be named as openai:MODEL; for other providers call the engine "
            "in Python, with any LlamaIndex embedding."
        )
    for limit, value in (("requests_per_minute", requests_per_minute), ("tokens_per_minute", tokens_per_minute)):
        if value is not None:
            check_number(limit, value, at_least=1)
    from llama_index.core.rate_limiter import TokenBucketRateLimiter

    try:
        from llama_index.embeddings.openai import OpenAIEmbedding
    except ModuleNotFoundError as err:
        raise MissingExtraError(
            'The client of OpenAI\'s embeddings is not installed; install it: pip install "llama-index-embft[openai]"'
        ) from err
    limiter = None
    if requests_per_minute is not None or tokens_per_minute is not None:
        limiter = TokenBucketRateLimiter(requests_per_minute=requests_per_minute, tokens_per_minute=tokens_per_minute)
    options: dict[str, Any] = {"api_base": api_base} if api_base else {}
    key = os.environ.get("OPENAI_API_KEY")
    if key is None and api_base is None:
        raise ConfigError(f"{name} needs a key: set OPENAI_API_KEY in the environment.")
    # By `model_name`, since `model` takes OpenAI's own names only.
    made: BaseEmbedding = OpenAIEmbedding(model_name=model, api_key=key or "none", rate_limiter=limiter, **options)
    return made
