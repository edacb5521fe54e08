"""Running async code from ordinary functions, in notebooks too."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import threading
from typing import TYPE_CHECKING, Any, Final, TypeVar

from typing_extensions import ParamSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from concurrent.futures import Future

P = ParamSpec("P")
T = TypeVar("T")

# Seconds that Ctrl-C waits for cancelled work to close its files; a second Ctrl-C does not wait.
_PATIENCE: Final = 10.0

_lock = threading.Lock()
_loops: dict[str, asyncio.AbstractEventLoop] = {}


def run_sync(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, whether or not the caller's thread has a running event loop.

    All calls share one loop in a thread of its own that lives as long as the process. A loop for each call would end
    the connections that an LLM client keeps open, and the next call would fail with "Event loop is closed".
    Ctrl-C cancels the work, waits until it has put away what it holds, and is raised again.
    """
    loop = background_loop()
    context = contextvars.copy_context()  # the caller's traces and callbacks see the calls as theirs
    ended = threading.Event()

    async def in_context() -> T:
        try:
            # create_task copies the context it is called in; its `context` argument needs Python 3.11.
            task: asyncio.Task[T] = context.run(asyncio.get_running_loop().create_task, work)
            return await task  # a cancellation is passed on to the task, and its end is awaited
        finally:
            ended.set()

    outcome: Future[T] = asyncio.run_coroutine_threadsafe(in_context(), loop)
    try:
        return outcome.result()
    except KeyboardInterrupt:
        outcome.cancel()
        ended.wait(_PATIENCE)
        raise


def synchronous(work: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """The function of an async one for code that is not async: same arguments, its name without the leading "a"."""

    @functools.wraps(work)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        return run_sync(work(*args, **kwargs))

    call.__name__ = call.__qualname__ = work.__name__.removeprefix("a")
    return call


def background_loop(name: str = "embft-calls") -> asyncio.AbstractEventLoop:
    """An event loop that runs in a thread of its own for as long as the process lives."""
    with _lock:
        loop = _loops.get(name)
        if loop is None or loop.is_closed():
            loop = _loops[name] = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name=name, daemon=True).start()
        return loop
