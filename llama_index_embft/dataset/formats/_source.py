"""Files of other people: decoded, unpacked and cut into lines, with a place for every complaint.

Nothing here trusts a file. A packed file that swells beyond reason, a line without end, a byte that is no text: each
ends in a `DatasetError` that names the file and the line.
"""

from __future__ import annotations

import gzip
import json
import math
import os
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NamedTuple, cast

from llama_index_embft.dataset.checks import clipped
from llama_index_embft.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAX_LINE: Final = 1 << 26
"""Bytes of one line: 64 MiB. The longest honest line is a document; a file without line ends is no JSON Lines file."""
MAX_RATIO: Final = 200
"""How many times its size a gzip file may grow. Text shrinks 3 to 20 times; DEFLATE's bound, a bomb's, is 1032."""
FREE_BYTES: Final = 1 << 26
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


class RepeatedKeyError(ValueError):
    """A key that stands twice in one JSON object."""


# --- bytes ------------------------------------------------------------------------------------------------------------


class _Unpacked:
    """A gzip stream that stops when it has grown beyond all reason."""

    def __init__(self, stream: BinaryIO, path: Path) -> None:
        self._stream, self._path = stream, path
        self._allowed = max(FREE_BYTES, MAX_RATIO * path.stat().st_size)
        self._seen = 0

    def _counted(self, data: bytes) -> bytes:
        self._seen += len(data)
        if self._seen > self._allowed:
            raise DatasetError(
                f"{self._path} unpacks to more than {MAX_RATIO} times its size, as no text does (a zip bomb?); unpack "
                "it yourself if you trust it."
            )
        return data

    def readline(self, size: int = -1) -> bytes:
        return self._counted(self._stream.readline(size))

    def read(self, size: int = -1) -> bytes:
        if size >= 0:
            return self._counted(self._stream.read(size))
        return b"".join(iter(lambda: self.read(1 << 20), b""))


@contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """Open a file, unpacked if it is gzip, whatever its name.

    Raises:
        DatasetError: It cannot be read, is packed in a way that is not read here, is cut short, or is a bomb.
    """
    try:
        with path.open("rb") as file:
            head = file.read(8)
            file.seek(0)
            for mark, (what, advice) in _PACKED.items():
                if head.startswith(mark):
                    raise DatasetError(f"{path} is {what}; {advice}.")
            if head.startswith(b"\x1f\x8b"):
                with gzip.open(file) as unpacked:
                    yield cast("BinaryIO", _Unpacked(cast("BinaryIO", unpacked), path))
            else:
                yield file
    except FileNotFoundError:
        raise DatasetError(f"There is no file {path}; check the path.") from None
    except IsADirectoryError:
        raise DatasetError(f"{path} is a folder; give the file in it.") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as err:
        raise DatasetError(f"{path} is a broken gzip file ({err}); it was probably cut off: fetch it again.") from err
    except DatasetError:
        raise
    except OSError as err:
        raise DatasetError(f"Cannot read {path}: {err.strerror or err}.") from err


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    r"""Lines of a text file with their numbers from 1, line ends kept (``\n`` ends a line, nothing else does).

    UTF-8 with or without a mark; UTF-16 and UTF-32 with one. Memory: one line.

    Raises:
        DatasetError: See `open_bytes`; or a line is not text of that encoding, or longer than `MAX_LINE` bytes.
    """
    with open_bytes(path) as file:
        first = file.readline(MAX_LINE + 1)
        encoding = next((name for mark, name in _WIDE_MARKS.items() if first.startswith(mark)), None)
        if encoding is not None:  # rare, and its line ends are not single bytes: decoded as a whole
            text = _decode(first + file.read(), encoding, path, 1)
            for number, line in enumerate(_split(text), 1):
                yield number, line.removeprefix("\ufeff") if number == 1 else line
            return
        line_bytes, number = first.removeprefix(b"\xef\xbb\xbf"), 1
        while line_bytes:
            if len(line_bytes) > MAX_LINE:
                raise DatasetError(
                    f"{path}, line {number}: the line is longer than {MAX_LINE:,} bytes; this is no file of lines."
                )
            yield number, _decode(line_bytes, "utf-8", path, number)
            line_bytes, number = file.readline(MAX_LINE + 1), number + 1


def _split(text: str) -> list[str]:
    return [line + "\n" for line in text.split("\n")[:-1]] + [tail for tail in text.split("\n")[-1:] if tail]


def _decode(data: bytes, encoding: str, path: Path, number: int) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as err:
        place = f"{path}, line {number}" if encoding == "utf-8" else f"{path}"
        raise DatasetError(
            f"{place}: not {encoding.upper()} text (byte {err.start} of it); save the file as UTF-8."
        ) from err


def read_text(path: Path) -> str:
    """A whole text file; see `read_lines`."""
    return "".join(line for _, line in _lines_of_any_length(path))


def _lines_of_any_length(path: Path) -> Iterator[tuple[int, str]]:
    with open_bytes(path) as file:
        data = file.read()
    encoding = next((name for mark, name in _WIDE_MARKS.items() if data.startswith(mark)), "utf-8")
    yield 1, _decode(data, encoding, path, 1).removeprefix("\ufeff")


# --- JSON -------------------------------------------------------------------------------------------------------------


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise RepeatedKeyError(f"the key {key!r} stands twice in one object")
            seen.add(key)
    return made


def parse_json(text: str, at: At, *, repeated_keys: bool = False) -> Any:
    """JSON of foreign origin.

    Args:
        text: The JSON.
        at: Where it stands.
        repeated_keys: Let an object have a key twice, for whoever only looks what a file is.

    Raises:
        FaultError: It is no JSON, is cut short, nests too deeply, or an object has a key twice.
    """
    try:
        return json.loads(text, object_pairs_hook=dict if repeated_keys else _object)
    except json.JSONDecodeError as err:
        cut = err.pos >= len(text.rstrip()) or err.msg.startswith("Unterminated string")
        place = f"line {err.lineno}, column {err.colno}" if at.number is None else f"column {err.colno}"
        what = "ends in the middle (cut off while it was written or copied?)" if cut else f"is not JSON: {err.msg}"
        raise FaultError(at, "line that is not JSON", f"{'it' if at.number else 'the file'} {what} at {place}") from err
    except RepeatedKeyError as err:
        raise FaultError(at, "key given twice", f"{err}; keep one of them") from err
    except (ValueError, RecursionError) as err:
        raise FaultError(at, "line that is not JSON", f"cannot be read as JSON ({err})") from err


def read_json(path: Path, *, repeated_keys: bool = False) -> Any:
    """The value of a JSON file, plain or gzip. Memory: the file and its parsed value.

    Raises:
        DatasetError: See `parse_json` and `open_bytes`; or the file is empty.
    """
    text = read_text(path)
    if not text.strip():
        raise DatasetError(f"{path} is empty; it should hold a data set as JSON.")
    return parse_json(text, At(os.fspath(path)), repeated_keys=repeated_keys)


# --- values -----------------------------------------------------------------------------------------------------------


def shown(value: object) -> str:
    """A value for a message, in at most 60 characters."""
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"


def as_text(value: Any, name: str, at: At) -> str:
    """A text that can be embedded.

    Raises:
        FaultError: It is no string, is empty, or holds half of a surrogate pair.
    """
    if not isinstance(value, str):
        raise FaultError(at, "wrong type", f"{name} should be a string, got {shown(value)}")
    if not value.strip():
        raise FaultError(at, "empty text", f"{name} is empty; give it a text")
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as err:
            raise FaultError(at, "broken text", f"{name} holds half of a character (a lone surrogate)") from err
    return value


def as_texts(value: Any, name: str, at: At) -> list[str]:
    """A list of texts; one text alone counts as a list of one, and none (null) as an empty list."""
    if value is None:
        return []
    values = value if isinstance(value, (list, tuple)) else [value]
    return [as_text(item, name if len(values) == 1 else f"{name}[{n}]", at) for n, item in enumerate(values)]


def as_id(value: Any, name: str, at: At) -> str:
    """An id: a string that is not empty, or a whole number, which many files have in its place.

    Raises:
        FaultError: It is anything else.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise FaultError(at, "wrong type", f"{name} should be a string or a whole number, got {shown(value)}")
    return as_text(value, name, at)


def as_number(value: Any, name: str, at: At) -> float:
    """A finite number, given as one or in words of digits (CSV has nothing else).

    Raises:
        FaultError: It is none, or NaN or infinite.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise FaultError(at, "wrong type", f"{name} should be a number, got {shown(value)}")
    try:
        number = float(value)
    except (ValueError, OverflowError) as err:
        raise FaultError(at, "wrong type", f"{name} should be a number, got {shown(value)}") from err
    if not math.isfinite(number):
        raise FaultError(at, "score that is no number", f"{name} is {number}, which is no score; remove the line")
    return number


def as_grade(value: Any, name: str, at: At) -> int:
    """A whole number; 0 and below say "judged, and not relevant".

    Raises:
        FaultError: It is no whole number.
    """
    number = as_number(value, name, at)
    if number != int(number):
        raise FaultError(at, "grade that is no whole number", f"{name} should be a whole number, got {shown(value)}")
    return int(number)
