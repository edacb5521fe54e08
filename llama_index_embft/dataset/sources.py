"""Files of other people: unpacked, decoded and cut into lines, with a place for every complaint.

Nothing here trusts a file. A packed file that swells beyond reason, a line without end, a byte that is no text: each
ends in a `DatasetError` that names the file and the line.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from llama_index_embft._core.checks import first_line
from llama_index_embft.errors import DatasetError, EmbftError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAX_LINE: Final = 1 << 26
"""Bytes of one line: 64 MiB. The longest honest line is a document; a file without line ends is no JSON Lines file."""
MAX_BLANK_LINES: Final = 1_000_000
"""Lines without a word; a file has no more of them, but a packed one of a few kilobytes may unpack to a billion."""
MAX_RATIO: Final = 200
"""How many times its size a packed file may grow. Text shrinks 3 to 20 times; DEFLATE's bound, a bomb's, is 1032."""
FREE_BYTES: Final = 1 << 24
"""Unpacked bytes below which the ratio is not looked at: a short file of one repeated word is no bomb."""

_PACKED: Final = {
    b"PK\x03\x04": ("a zip archive", "unpack it first"),
    b"BZh": ("a bzip2 file", "unpack it first"),
    b"\xfd7zXZ": ("an xz file", "unpack it first"),
    b"\x28\xb5\x2f\xfd": ("a zstd file", "unpack it first"),
    b"PAR1": ("a Parquet file", "name it `.parquet`"),
}
_WIDE_MARKS: Final = {b"\xff\xfe\x00\x00": "utf-32", b"\x00\x00\xfe\xff": "utf-32", b"\xff\xfe": "utf-16"} | {
    b"\xfe\xff": "utf-16"
}


class At(NamedTuple):
    """Where something stands: a file, and in it a line, row or entry."""

    file: str
    number: int | None = None
    unit: str = "line"

    def __str__(self) -> str:
        return self.file if self.number is None else f"{self.file}, {self.unit} {self.number}"


class FaultError(DatasetError):
    """Something wrong at a place; `reason` is what it is counted under when it may be left out."""

    def __init__(self, at: At, reason: str, statement: str) -> None:
        self.reason = reason
        super().__init__(f"{at}: {clipped(statement)}.")

    def __reduce__(self) -> tuple[Any, ...]:  # the default would call __init__ with the message alone
        return (DatasetError, (str(self),))


class Repeated(dict[str, Any]):
    """A JSON object in which at least one key stood more than once; the first value of each key is kept.

    Attributes:
        extra: Key -> how many times too often it stood there.
        conflicting: The keys whose values differ, so that nobody can tell which one was meant.
    """

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__()
        self.extra: dict[str, int] = {}
        self.conflicting: set[str] = set()
        for key, value in pairs:
            if key not in self:
                self[key] = value
                continue
            self.extra[key] = self.extra.get(key, 0) + 1
            if value != self[key]:
                self.conflicting.add(key)


class _RepeatedKeyError(ValueError):
    pass


class one_sentence:  # noqa: N801  # a context manager; `contextlib.contextmanager` would stop what a generator yields
    """The boundary around readers of foreign data: whatever another library raises becomes one sentence.

    Args:
        statement: What did not work, as the beginning of the sentence.
    """

    def __init__(self, statement: str) -> None:
        self._statement = statement

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, err: BaseException | None, trace: object) -> None:
        if isinstance(err, Exception) and not isinstance(err, EmbftError):
            reason = "it nests too deeply" if isinstance(err, RecursionError) else clipped(first_line(err))[:300]
            raise DatasetError(f"{self._statement}: {reason}.") from err


def clipped(statement: str) -> str:
    """A statement without the middle of what is far too long for one, such as an id of a million characters."""
    return statement if len(statement) <= 600 else f"{statement[:400]} […] {statement[-150:]}"


def shown(value: object) -> str:
    """A value for a message, in at most 60 characters and its type."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested too deeply; a whole number of too many digits
        text = "something"
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"


# --- bytes ------------------------------------------------------------------------------------------------------------


class _Bounded(io.RawIOBase):
    """An unpacked stream that stops when it has grown beyond all reason."""

    def __init__(self, stream: gzip.GzipFile, path: Path) -> None:
        self._stream, self._path = stream, path
        self._left = max(FREE_BYTES, MAX_RATIO * path.stat().st_size)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        self._left -= len(data)
        if self._left < 0:
            raise DatasetError(
                f"{self._path} unpacks to more than {MAX_RATIO} times its size, as no text does (a zip bomb?); unpack "
                "it yourself if you trust it."
            )
        buffer[: len(data)] = data
        return len(data)


@contextmanager
def open_bytes(path: Path) -> Iterator[io.BufferedReader]:
    """Open a file, unpacked if it is gzip, whatever its name.

    Raises:
        DatasetError: It cannot be read, is packed in a way that is not read here, is cut short, or is a bomb.
    """
    try:
        with path.open("rb") as file:
            head = file.peek(8)
            for mark, (what, advice) in _PACKED.items():
                if head.startswith(mark):
                    raise DatasetError(f"{path} is {what}; {advice}.")
            if head.startswith(b"\x1f\x8b"):
                with gzip.open(file) as unpacked:
                    yield io.BufferedReader(_Bounded(unpacked, path))
            else:
                yield file
    except FileNotFoundError:
        raise DatasetError(f"There is no file {path}; check the path.") from None
    except IsADirectoryError:
        raise DatasetError(f"{path} is a folder; give the file in it.") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as err:
        raise DatasetError(f"{path} is a broken gzip file ({err}); it was probably cut off: fetch it again.") from err
    except OSError as err:
        raise DatasetError(f"Cannot read {path}: {err.strerror or err}.") from err


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    r"""Lines of a text file with their numbers from 1, line ends kept (``\n`` ends a line, nothing else does).

    UTF-8 with or without a mark; UTF-16 and UTF-32 with one. Memory: one line.

    Raises:
        DatasetError: See `open_bytes`; or a line is not text of that encoding, or longer than `MAX_LINE` bytes, or more
            than `MAX_BLANK_LINES` lines are empty.
    """
    with open_bytes(path) as file:
        encoding, number, blank = _encoding(file.peek(4)), 0, 0
        wide = None if encoding == "utf-8" else io.TextIOWrapper(file, encoding, newline="\n")
        while True:
            number += 1
            try:
                data = file.readline(MAX_LINE + 1) if wide is None else wide.readline(MAX_LINE + 1)
                line = data if isinstance(data, str) else data.decode()
            except UnicodeError as err:
                raise _not_text(f"{path}, line {number}", encoding, err) from err
            if not data:
                return
            if len(data) > MAX_LINE:
                raise DatasetError(
                    f"{path}, line {number}: the line is longer than {MAX_LINE:,} bytes; this is not a file of lines."
                )
            if len(data) <= 2 and not line.strip():
                blank += 1
                if blank > MAX_BLANK_LINES:
                    raise DatasetError(f"{path} has more than {MAX_BLANK_LINES:,} empty lines; take them out.")
            yield number, line.removeprefix("\ufeff") if number == 1 else line


def read_text(path: Path) -> str:
    """A whole text file; see `read_lines`, without its bounds of lines."""
    with open_bytes(path) as file:
        data = file.read()
    encoding = _encoding(data[:4])
    try:
        return data.decode(encoding).removeprefix("\ufeff")
    except UnicodeError as err:
        raise _not_text(os.fspath(path), encoding, err) from err


def _encoding(head: bytes) -> str:
    return next((name for mark, name in _WIDE_MARKS.items() if head.startswith(mark)), "utf-8")


def _not_text(place: str, encoding: str, err: UnicodeError) -> DatasetError:
    where = f" (byte {err.start})" if isinstance(err, UnicodeDecodeError) else ""
    return DatasetError(f"{place}: not {encoding.upper()} text{where}; save the file as UTF-8.")


# --- JSON -------------------------------------------------------------------------------------------------------------


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise _RepeatedKeyError(f"the key {min(Repeated(pairs).extra)!r} appears twice in one object")
    return made


def _marked(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    return made if len(made) == len(pairs) else Repeated(pairs)


def parse_json(text: str, at: At, *, repeated_keys: bool = False) -> Any:
    """JSON of foreign origin.

    Raises:
        FaultError: It is no JSON, is cut short, nests too deeply, or an object has a key twice.
    """
    try:
        return json.loads(text, object_pairs_hook=_marked if repeated_keys else _unique)
    except json.JSONDecodeError as err:
        place = f"line {err.lineno}, column {err.colno}" if at.number is None else f"column {err.colno}"
        what = f"is not JSON: {err.msg} at {place}"
        if err.pos >= len(text.rstrip()) or err.msg.startswith("Unterminated string"):
            what = f"ends in the middle (cut off while it was written or copied?) at {place}"
        elif err.msg == "Extra data":
            what += " (it looks like JSON Lines; name such a file .jsonl)"
        raise FaultError(at, "line that is not JSON", f"{'it' if at.number else 'the file'} {what}") from err
    except _RepeatedKeyError as err:
        raise FaultError(at, "key given twice", f"{err}; keep one of them") from err
    except RecursionError as err:
        raise FaultError(at, "line that is not JSON", "cannot be read as JSON: it nests too deeply") from err
    except ValueError as err:
        raise FaultError(at, "line that is not JSON", f"cannot be read as JSON: {first_line(err)}") from err


def read_json(path: Path, *, repeated_keys: bool = False) -> Any:
    """The value of a JSON file, plain or gzip. Memory: the file and its parsed value.

    Raises:
        DatasetError: See `parse_json` and `open_bytes`; or the file is empty.
    """
    text = read_text(path)
    if not text.strip():
        raise DatasetError(f"{path} is empty; it should hold a data set as JSON.")
    return parse_json(text, At(os.fspath(path)), repeated_keys=repeated_keys)


def read_json_object(path: Path) -> dict[str, Any]:
    """The data set's own JSON: one object, whose sections may be `Repeated`.

    Raises:
        DatasetError: See `read_json`; or it is no object, or has a section twice.
    """
    data = read_json(path, repeated_keys=True)
    if not isinstance(data, dict):
        raise DatasetError(
            f"{path} holds {shown(data)}; a data set is one JSON object with `queries`, `corpus` and `relevant_docs`."
        )
    if isinstance(data, Repeated):
        raise DatasetError(f"{path} has the section {min(data.extra)!r} twice; join the two into one.")
    return data
