"""The HTTP connections of a model's client: no hidden retries, many at once, closed in the loop that they belong to."""

from __future__ import annotations

import inspect
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.request import getproxies

from llama_index_embft.errors import ModelError

if TYPE_CHECKING:
    from llama_index.core.schema import BaseComponent

ClientT = TypeVar("ClientT", bound="BaseComponent")  # an LLM or an embedding

_SDK_CLIENTS: Final = ("AsyncHttpxClientWrapper", "SyncHttpxClientWrapper")
# Enough that a pool holds one or two of the connections that people use; a pool costs nothing until it is used.
_POOLS: Final = 32


def without_retries(llm: ClientT) -> ClientT:
    """A copy of an LLM or embedding that does not retry by itself, so that retries and limits are not multiplied.

    Clients retry inside one call, out of sight of the rate limiter: OpenAI's does so twice over, in the HTTP client and
    around it, which turns ``retry_limit=3`` into up to 36 requests. The caller's object is left as it is.
    """
    if not getattr(llm, "max_retries", 0):
        return llm
    quiet: Any = llm.model_copy(update={"max_retries": 0})
    private = getattr(quiet, "__pydantic_private__", None) or {}
    made_now = private.get("_aclient", quiet) is None and hasattr(quiet, "_get_aclient")
    if made_now:
        with suppress(Exception):  # such as a missing key, which the first call reports
            quiet._get_aclient()  # so that it gets connections like one that was used before
    for name, client in private.items():
        retries = bool(getattr(client, "max_retries", 0))
        if hasattr(client, "with_options") and (retries or (made_now and name == "_aclient")):
            private[name] = client.with_options(max_retries=0, **_fresh_connections(client))
    result: ClientT = quiet
    return result


def _fresh_connections(client: Any) -> dict[str, Any]:
    """New connections for a client that has been used before: its open ones belong to an event loop that may be closed.

    Only where the connections are the ones that the SDK makes itself; a user's own HTTP client (proxy, certificates) is
    kept.
    """
    connections: Any = getattr(client, "_client", None)
    kind = type(connections).__name__
    if kind not in _SDK_CLIENTS:
        return {}
    make: Any = type(connections)
    # With a transport of ours httpx would not look for proxies in the environment.
    spread = {"transport": _spread_transport()} if kind.startswith("Async") and not getproxies() else {}
    return {"http_client": make(**spread)}


def _spread_transport() -> Any:
    """A transport over many connection pools.

    httpx's pool compares all its connections with one another at every request: with 64 of them that took two thirds of
    the client's time. In small pools there is little to compare.
    """
    import httpx

    context = httpx.create_ssl_context()  # reading the certificates takes 30 ms, so all pools share them
    unlimited = httpx.Limits(max_connections=None, max_keepalive_connections=None)

    class SpreadTransport(httpx.AsyncBaseTransport):
        def __init__(self) -> None:
            self._pools = [httpx.AsyncHTTPTransport(verify=context, limits=unlimited) for _ in range(_POOLS)]
            self._busy = [0] * _POOLS

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            # The first among equals, so that a run with few workers uses few connections, again and again.
            number = self._busy.index(min(self._busy))
            self._busy[number] += 1
            try:
                return await self._pools[number].handle_async_request(request)
            finally:
                self._busy[number] -= 1

        async def aclose(self) -> None:
            for pool in self._pools:
                await pool.aclose()

    return SpreadTransport()


def embeddings_in_order(quiet: BaseComponent, callers: BaseComponent, name: str) -> None:
    """Let the OpenAI client of a copy put vectors into the order of their texts: a server may answer in any.

    LlamaIndex takes the vectors as they come and does not look at their ``index``.
    """
    private = getattr(quiet, "__pydantic_private__", None) or {}
    if "_aclient" not in private or not hasattr(quiet, "_get_aclient"):
        return
    with suppress(Exception):  # such as a missing key, which the first call reports
        quiet._get_aclient()
    client: Any = private.get("_aclient")
    if not hasattr(getattr(client, "embeddings", None), "create"):
        return
    theirs = (getattr(callers, "__pydantic_private__", None) or {}).get("_aclient")
    client = client.with_options(**(_fresh_connections(client) if client is theirs else {}))
    create = client.embeddings.create

    async def in_order(*args: Any, **options: Any) -> Any:
        response = await create(*args, **options)
        numbers = [getattr(one, "index", None) for one in response.data]
        if len(numbers) > 1 and any(number is not None for number in numbers):
            if {number for number in numbers if type(number) is int} != set(range(len(numbers))):
                raise ModelError(
                    f"{name} returned vectors with the numbers {numbers[:5]}…, so vectors cannot be matched to "
                    "texts; repair the server, or set `embed_batch_size=1`."
                )
            response.data = sorted(response.data, key=lambda one: one.index)
        return response

    client.embeddings.create = in_order
    private["_aclient"] = client


async def close_own_connections(quiet: BaseComponent, callers: BaseComponent) -> None:
    """Close what the clients of a copy made by `without_retries` opened, and let them open new connections when asked.

    Left to the garbage collector, OpenAI's client closes its connections in whatever event loop runs in the thread that
    collects, a notebook's for instance, and not in the loop that they belong to. asyncio is not made for that: now and
    then the loop stopped listening to a connection just opened, and a call waited until its timeout.
    """
    private = getattr(quiet, "__pydantic_private__", None) or {}
    shared = getattr(callers, "__pydantic_private__", None) or {}
    for name, client in private.items():
        fresh = _fresh_connections(client)
        if not fresh or client is shared.get(name):
            continue
        private[name] = client.with_options(**fresh)
        closed = client.close()
        if inspect.isawaitable(closed):
            await closed
