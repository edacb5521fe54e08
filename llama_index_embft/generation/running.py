"""Running async code from ordinary functions, in notebooks too."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from concurrent.futures import Future

T = TypeVar("T")

# Seconds that Ctrl-C waits for cancelled work to close its files; a second Ctrl-C does not wait.
_PATIENCE: Final = 10.0

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None


def run_sync(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, whether or not the caller's thread has a running event loop.

    All calls share one loop in a thread of its own that lives as long as the process. A loop for each call would end
    the connections that an LLM client keeps open, and the next call would fail with "Event loop is closed".
    Ctrl-C cancels the work, waits until it has put away what it holds, and is raised again.
    """
    loop = _background_loop()
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


def _background_loop() -> asyncio.AbstractEventLoop:
    global _loop
    with _lock:
        if _loop is None or _loop.is_closed():
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, name="embft-generation", daemon=True).start()
        return _loop
