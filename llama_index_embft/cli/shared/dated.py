"""Folders named by the time of a run, and a name that always leads to the newest."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Final

LATEST: Final = "latest"


def dated_folder(parent: str | os.PathLike[str], *, now: datetime | None = None) -> Path:
    """A folder name that is free and sorts by time: ``runs/2026-11-27_14-03-59``.

    No older run is replaced, so no result is lost to the next run.

    Args:
        parent: Where runs are kept.
        now: Local time; default the present.
    """
    name = (now or datetime.now()).strftime("%Y-%m-%d_%H-%M-%S")
    folder = Path(parent) / name
    number = 2
    while os.path.lexists(folder):  # two runs in one second
        folder = Path(parent) / f"{name}_{number}"
        number += 1
    return folder


def point_latest(folder: str | os.PathLike[str]) -> Path:
    """Let ``latest`` beside a folder lead to it: a relative link, or a text file where the system has no links.

    A folder or file of the user's own with that name is left alone.

    Returns:
        The link or file; the folder itself if neither could be made.
    """
    target = Path(folder)
    latest = target.parent / LATEST
    temporary = target.parent / f".{LATEST}-{secrets.token_hex(4)}"
    if latest.is_symlink() or not latest.exists():
        with suppress(OSError):
            temporary.symlink_to(target.name, target_is_directory=True)
            temporary.replace(latest)
            return latest
        temporary.unlink(missing_ok=True)
    pointer = target.parent / f"{LATEST}.txt"
    with suppress(OSError):
        temporary.write_text(target.name + "\n", encoding="utf-8")
        temporary.replace(pointer)
        return pointer
    temporary.unlink(missing_ok=True)
    return target
