"""Renames that hold on every system: patient where a virus scanner holds a file, without a gap where possible."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_WAITS: Final = (0.05, 0.1, 0.2, 0.4, 0.8)  # seconds; scanners and indexers let go within these
_AT_FDCWD: Final = -100
_RENAME_EXCHANGE: Final = 2  # linux/fs.h
_RENAME_SWAP: Final = 2  # macOS, sys/stdio.h
# The file system or the kernel cannot exchange two names; the caller renames twice.
_UNSUPPORTED: Final = frozenset({errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM})


def rename_with_patience(source: Path, target: Path, *, replace: bool = False) -> None:
    """Rename, and try again for about 1.5 seconds where another process holds a name open (Windows).

    Raises:
        OSError: It was refused to the end, or for another reason than permission.
    """
    for wait in _WAITS:
        with suppress(PermissionError):
            _rename(source, target, replace=replace)
            return
        if not source.exists():
            break
        time.sleep(wait)
    _rename(source, target, replace=replace)


def _rename(source: Path, target: Path, *, replace: bool) -> None:
    if replace:
        source.replace(target)
    else:
        source.rename(target)


def exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step of the file system, so that no moment is without either.

    Returns:
        Whether the system can; if not, nothing has changed.

    Raises:
        OSError: It can and was refused.
    """
    call = _exchange_call()
    if call is None:
        return False
    if call(os.fsencode(one), os.fsencode(other)) == 0:
        return True
    number = ctypes.get_errno()
    if number in _UNSUPPORTED and one.exists():
        return False
    raise OSError(number, os.strerror(number), str(one), None, str(other))


def _exchange_call() -> Callable[[bytes, bytes], int] | None:
    """The system's call that exchanges two names, as a function of both; None where there is none."""
    if sys.platform == "win32":
        return None
    library = ctypes.CDLL(None, use_errno=True)
    if hasattr(library, "renameat2"):
        return lambda one, other: library.renameat2(_AT_FDCWD, one, _AT_FDCWD, other, _RENAME_EXCHANGE)
    if hasattr(library, "renamex_np"):
        return lambda one, other: library.renamex_np(one, other, _RENAME_SWAP)
    return None
