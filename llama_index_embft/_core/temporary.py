"""Temporary names beside a target that say whose they are, so that what the dead left behind can be cleared away."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import secrets
import shutil
import tempfile
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator

_NAME: Final = re.compile(r"\.embft-([0-9a-f]{8})-(\d+)-(\d+)-[0-9a-f]{8}\.tmp")


def temporary_beside(target: Path) -> Path:
    """Make up a free name in the target's folder that holds this machine and process.

    It holds nothing of the target's own name, which may already be as long as the file system allows.
    """
    process = os.getpid()
    return target.parent / f".embft-{_machine()}-{process}-{_started(process)}-{secrets.token_hex(4)}.tmp"


@contextmanager
def scratch_folder(beside: Path | None = None) -> Iterator[Path]:
    """A folder of this process that is gone after the block; what killed processes left at its place goes first.

    Args:
        beside: Make it beside this path, for what has to lie on the same disk; None: in the system's temporary folder.
    """
    target = Path(tempfile.gettempdir(), "scratch") if beside is None else beside
    remove_dead(target.parent)
    folder = temporary_beside(target)
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def aside_of(target: Path) -> Path:
    """Where an older result waits between two renames; the same for every process, so that the next one finds it."""
    return target.parent / f".embft-old-{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]}"


def is_dead(path: Path) -> bool:
    """Whether a temporary name is one of ours, of this machine, and its process has ended."""
    match = _NAME.fullmatch(path.name)
    if match is None or match[1] != _machine():
        return False
    return _started(int(match[2])) != int(match[3])


def is_temporary(name: str) -> bool:
    """Whether a relative path, with forward slashes, is or lies in a temporary name of ours, of whatever process."""
    return any(_NAME.fullmatch(part) for part in name.split("/"))


def remove_folder(folder: Path) -> None:
    """Remove a folder at once: to others, it is whole or not there. What cannot be removed stays."""
    going = temporary_beside(folder)
    try:
        folder.rename(going)
    except OSError:  # not there; or a file in it is open, on Windows
        going = folder
    shutil.rmtree(going, ignore_errors=True)


def remove_dead(folder: Path) -> None:
    """Clear away temporary files and folders of processes that have ended; those of live ones stay."""
    for path in folder.glob(".embft-*.tmp"):
        if is_dead(path):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with suppress(OSError):
                    path.unlink()


def _started(process: int) -> int:
    """When a process began, in whole seconds since 1970; 0 if there is none. A number alone may be given out again."""
    try:
        return int(psutil.Process(process).create_time())
    except psutil.Error:
        return 0


@lru_cache(maxsize=1)
def _machine() -> str:
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]
