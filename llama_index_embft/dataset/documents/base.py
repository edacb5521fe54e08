"""What readers of files share: the settings, what they yield, and how they say that something cannot be read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from llama_index_embft._core.checks import check_number
from llama_index_embft._core.optional import require
from llama_index_embft._core.options import option
from llama_index_embft.errors import MissingExtraError

if TYPE_CHECKING:
    from types import ModuleType

MEGABYTE: Final = 1 << 20
# Control characters, ends of lines, and bytes that Python could not decode.
_UNPRINTABLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_PACKED_TAR: Final = (".tar.gz", ".tar.bz2", ".tar.xz", ".tgz", ".tbz2", ".txz")


@dataclass(frozen=True, kw_only=True)
class ReadingSettings:
    """How files are read, and where reading stops.

    The limits are there for files that nobody meant to give. Whatever is left out by one of them is named.

    Attributes:
        keep_headers: Keep the running headers and footers of PDFs.
        max_files: Files of one folder or archive.
        max_file_mb: Megabytes of a file that is parsed in memory, or of the text in an office file or e-book.
        max_rows: Rows read from one table. Tables (CSV, JSON Lines, XLSX) are streamed, whatever their size.
        max_unpacked_mb: Megabytes that one archive or office file may unpack to.

    Raises:
        ConfigError: A limit is below 1.
    """

    keep_headers: bool = option(False, "Keep the running headers and footers of PDFs; they say the same on each page.")
    max_files: int = option(100_000, "Files of one folder or archive.")
    max_file_mb: int = option(50, "Megabytes of a file that is parsed in memory; tables are streamed.")
    max_rows: int = option(100_000, "Rows read from one table.")
    max_unpacked_mb: int = option(1000, "Megabytes that one archive may unpack to.")

    def __post_init__(self) -> None:
        for name in ("max_files", "max_file_mb", "max_rows", "max_unpacked_mb"):
            check_number(name, getattr(self, name), at_least=1)


class UnreadableError(Exception):
    """Why a file cannot be read and what to do, as the end of a sentence that begins with its name.

    Args:
        reason: The end of the sentence, without full stop.
        cause: What it is counted under, as in "Skipped 3 files (broken)".
    """

    def __init__(self, reason: str, cause: str = "broken") -> None:
        super().__init__(reason)
        self.cause = cause


@dataclass(frozen=True)
class Piece:
    """A text of a file that becomes a document: the whole file, a page, a slide or a row.

    Attributes:
        text: The text.
        metadata: What is embedded with it beside the file's name, such as ``page_label``.
        member: Where it stands in an archive or an e-mail: ``"2021/report.pdf"``; empty: in the file itself.
    """

    text: str
    metadata: dict[str, str] = field(default_factory=dict)
    member: str = ""


@dataclass(frozen=True)
class LeftOut:
    """A part of a file that was not read.

    Attributes:
        reason: The end of a sentence that begins with the name of the file or member.
        cause: What it is counted under.
        member: A file in an archive or e-mail that is left out as a whole; empty: a part of the file itself.
        partly: Some of it was read.
    """

    reason: str
    cause: str
    member: str = ""
    partly: bool = True


class UnpackBudget:
    """What may still be unpacked from one file that the user gave, archives in archives included."""

    def __init__(self, settings: ReadingSettings) -> None:
        self._settings = settings
        self._bytes, self._files = settings.max_unpacked_mb * MEGABYTE, settings.max_files

    def take(self, n_bytes: int, n_files: int = 0) -> None:
        """Count bytes and files before they are unpacked.

        Raises:
            UnreadableError: It is more than the settings allow.
        """
        if n_bytes > self._bytes:
            raise UnreadableError(
                f"unpacks to more than {self._settings.max_unpacked_mb} MB, as a zip bomb does; unpack it yourself, or "
                "raise `max_unpacked_mb`",
                "too large",
            )
        if n_files > self._files:
            raise UnreadableError(
                f"holds more than {self._settings.max_files:,} files; unpack what you need, or raise `max_files`",
                "too large",
            )
        self._bytes -= n_bytes
        self._files -= n_files


@dataclass(frozen=True)
class ReadingJob:
    """What a reader is told beside the path.

    Attributes:
        settings: The settings.
        show_progress: Show bars within long files.
        read: Reads a file that came out of another one.
        kinds: Endings of the files that can be read.
        budget: What may still be unpacked.
        depth: How many archives deep the file lies.
    """

    settings: ReadingSettings
    show_progress: bool
    read: Callable[[Path, ReadingJob], Iterator[Piece | LeftOut]]
    kinds: frozenset[str]
    budget: UnpackBudget
    depth: int = 0

    def whole(self, path: Path) -> bytes:
        """A file's bytes, if it is small enough to be parsed in memory.

        Raises:
            UnreadableError: It is larger than the settings allow.
        """
        self.check_size(path.stat().st_size, "has")
        return path.read_bytes()

    def check_size(self, n_bytes: int, verb: str) -> None:
        """Refuse more than is parsed in memory.

        Raises:
            UnreadableError: It is larger than the settings allow.
        """
        if n_bytes > self.settings.max_file_mb * MEGABYTE:
            raise UnreadableError(
                f"{verb} {n_bytes // MEGABYTE} MB; what is parsed in memory may have {self.settings.max_file_mb}: cut "
                "it into parts, or raise `max_file_mb`",
                "too large",
            )


Reader = Callable[[Path, ReadingJob], Iterator[Piece | LeftOut]]


def needed(module: str) -> ModuleType:
    """Import an optional module.

    Raises:
        UnreadableError: It is not installed; the message names the extra.
    """
    try:
        return require(module, feature="It")
    except MissingExtraError as err:
        raise UnreadableError(str(err).removeprefix("It ").rstrip("."), "in need of another package") from err


def printable_name(name: str) -> str:
    """A file's name as it may be shown and saved: control characters and undecoded bytes by their numbers."""
    return _UNPRINTABLE.sub(lambda match: f"\\x{ord(match[0]) % 0xDC00:02x}", name)


def ending_of(name: str) -> str:
    """The ending that says what kind of file it is, in small letters: ``.tar`` for a packed one too."""
    name = name.lower()
    return ".tar" if name.endswith(_PACKED_TAR) else Path(name).suffix


def unread_kind(name: str) -> tuple[str, str]:
    """Reason and cause for a file whose ending no reader knows."""
    ending = ending_of(name)
    return (f"is of a kind that is not read ({ending or 'no ending'})", "of a kind that is not read")
