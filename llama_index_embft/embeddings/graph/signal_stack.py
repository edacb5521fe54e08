"""The stack on which a thread handles signals, put back after a library has replaced it.

OpenVINO's CPU plugin gives the thread that compiles a model an alternate signal stack, frees it, and leaves it set
(seen with 2026.4 on a processor with AMX). The next signal, Ctrl-C for instance, is then delivered into freed memory,
and the process dies of a segmentation fault where Python would have raised `KeyboardInterrupt`.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Stack(ctypes.Structure):
    """``stack_t`` of Linux."""

    _fields_: ClassVar = [("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]


def signal_stack() -> tuple[int | None, int, int] | None:
    """Start, flags and size of this thread's alternate signal stack; None on systems other than Linux."""
    if not sys.platform.startswith("linux"):
        return None
    stack = _Stack()
    ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack))
    return stack.start, stack.flags, stack.size


@contextlib.contextmanager
def kept_signal_stack() -> Iterator[None]:
    """Put this thread's alternate signal stack back at the end."""
    before = signal_stack()
    try:
        yield
    finally:
        if before is not None and signal_stack() != before:
            ctypes.CDLL(None).sigaltstack(ctypes.byref(_Stack(*before)), None)
