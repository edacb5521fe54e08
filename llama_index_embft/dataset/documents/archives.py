"""Readers of zip and tar archives, and a look into office files, which are such, before a parser opens them.

A member is unpacked to a name of ours, read, and deleted. Nothing that an archive says is trusted.
"""

from __future__ import annotations

import re
import stat
import tarfile
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Final

from llama_index_embft._core.checks import first_line
from llama_index_embft._core.temporary import scratch_folder
from llama_index_embft.dataset.documents.base import (
    LeftOut,
    Piece,
    ReadingJob,
    UnreadableError,
    ending_of,
    unread_kind,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_DEEPEST: Final = 3
_BLOCK: Final = 1 << 20
_FREE: Final = 16 << 20  # bytes below which the ratio is not looked at: a short file of one repeated word is no bomb
_MAX_RATIO: Final = 200  # text shrinks 3 to 20 times; DEFLATE's bound, a bomb's, is 1032

_OLD_OFFICE: Final = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_ENCRYPTED: Final = "EncryptedPackage".encode("utf-16-le")
_STREAMED: Final = "xl/worksheets/"
_DRIVE: Final = re.compile(r"[A-Za-z]:[/\\]")
_TEXT_PARTS: Final = (".xml", ".rels", ".html", ".xhtml", ".htm")


def read_zip(path: Path, job: ReadingJob) -> Iterator[Piece | LeftOut]:
    """Read the files of a zip archive."""
    check_depth(job)
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as err:
        raise UnreadableError(f"is a broken zip archive ({first_line(err)}); pack it again") from err
    with archive:
        members = [member for member in archive.infolist() if not member.is_dir()]
        unpacked = sum(member.file_size for member in members)
        if unpacked > _FREE and unpacked > _MAX_RATIO * path.stat().st_size:
            raise UnreadableError(_bomb(unpacked, path), "too large")
        job.budget.take(unpacked, len(members))
        for member in members:
            name = member.filename
            if member.flag_bits & 1:
                yield LeftOut("is encrypted and needs a password; pack it without one", "encrypted", name, False)
            elif stat.S_ISLNK(member.external_attr >> 16):
                yield LeftOut("is a link in an archive, which is not followed", "links", name, False)
            else:
                try:
                    with archive.open(member) as file:
                        yield from read_member(_blocks(file), name, job)
                except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError) as err:
                    yield LeftOut(f"cannot be unpacked ({first_line(err)}); pack it again", "broken", name, False)


def read_tar(path: Path, job: ReadingJob) -> Iterator[Piece | LeftOut]:
    """Read the files of a tar archive, packed or not, in one pass."""
    check_depth(job)
    unpacked = 0
    try:
        with tarfile.open(path, "r|*") as archive:
            for member in archive:
                unpacked += member.size
                job.budget.take(member.size, 1)
                if unpacked > _FREE and unpacked > _MAX_RATIO * path.stat().st_size:
                    raise UnreadableError(_bomb(unpacked, path), "too large")
                if member.issym() or member.islnk():
                    yield LeftOut("is a link in an archive, which is not followed", "links", member.name, False)
                file = archive.extractfile(member) if member.isfile() else None
                if file is not None:
                    yield from read_member(_blocks(file), member.name, job)
    except (tarfile.TarError, zlib.error, EOFError, OSError) as err:
        raise UnreadableError(f"is a broken tar archive ({first_line(err)}); pack it again") from err


def read_member(blocks: Iterable[bytes], name: str, job: ReadingJob) -> Iterator[Piece | LeftOut]:
    """Read a file that came out of another.

    Args:
        blocks: Its content.
        name: Its name in the archive, which is shown and never used as a path.
        job: That of the archive.
    """
    inside = PurePosixPath(name.replace("\\", "/"))
    if inside.is_absolute() or ".." in inside.parts or _DRIVE.match(name):
        yield LeftOut("has a name that leads out of the archive, as in an attack", "unsafe", name, False)
        return
    if any(part.startswith(".") or part == "__MACOSX" for part in inside.parts):
        return
    if ending_of(inside.name) not in job.kinds:
        yield LeftOut(*unread_kind(inside.name), name, False)
        return
    with scratch_folder() as folder:
        copy = folder / f"member{ending_of(inside.name)}"
        with copy.open("wb") as file:
            for block in blocks:
                file.write(block)
        found = False
        try:
            for item in job.read(copy, replace(job, depth=job.depth + 1)):
                found = found or isinstance(item, Piece)
                yield replace(item, member=f"{name}/{item.member}" if item.member else name)
        except UnreadableError as err:
            yield LeftOut(str(err), err.cause, name, found)


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    while block := file.read(_BLOCK):
        yield block


def _bomb(unpacked: int, path: Path) -> str:
    times = unpacked // max(1, path.stat().st_size)
    return f"unpacks to {times:,} times its size, as a zip bomb does; unpack it yourself if you trust it"


def check_depth(job: ReadingJob) -> None:
    """Stop at archives in archives in archives.

    Raises:
        UnreadableError: It lies too deep.
    """
    if job.depth >= _DEEPEST:
        raise UnreadableError(f"lies more than {_DEEPEST} archives deep; unpack it yourself", "too large")


def open_office_zip(path: Path, job: ReadingJob, *, streamed: bool = False) -> list[str]:
    """Check that a file is a zip archive that can be unpacked within the limits.

    Args:
        path: The file.
        job: Holds the limits.
        streamed: Its sheets are read row by row, so that their size does not matter.

    Returns:
        Names of its members.

    Raises:
        UnreadableError: It is encrypted, an office file of before 2007, no zip archive, or too large.
    """
    with path.open("rb") as file:
        start = file.read(8)
    if start == _OLD_OFFICE:
        if _holds(path, _ENCRYPTED):
            raise UnreadableError("is encrypted and needs a password; save it without one", "encrypted")
        raise UnreadableError(f"is an office file of before 2007; save it as {path.suffix.lower()} anew", "broken")
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as err:
        raise UnreadableError(
            f"is no {path.suffix.lower()} file, or a broken one; open it in the program that made it and save it again"
        ) from err
    if any(member.flag_bits & 1 for member in members):
        raise UnreadableError("is encrypted and needs a password; save it without one", "encrypted")
    job.budget.take(sum(member.file_size for member in members))
    texts = [member for member in members if member.filename.lower().endswith(_TEXT_PARTS)]
    held = sum(member.file_size for member in texts if not (streamed and member.filename.startswith(_STREAMED)))
    job.check_size(held, "holds text of")
    return [member.filename for member in members]


def _holds(path: Path, wanted: bytes) -> bool:
    before = b""
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            if wanted in before + block:
                return True
            before = block[-len(wanted) :]
    return False
