"""Bytes to text: UTF-8 and its wide sisters, older encodings told by charset-normalizer, and mixtures of two."""

from __future__ import annotations

import codecs
import io
import re
import unicodedata
from typing import TYPE_CHECKING, Final, NamedTuple

from llama_index_embft.dataset.documents.base import UnreadableError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_OLD_ENCODINGS: Final = [
    "cp1252", "cp1250", "cp1251", "koi8_r", "cp1253", "cp1254", "cp1255", "cp1256", "cp874", "gb18030", "big5",
    "cp932", "euc_jp", "euc_kr",
]  # fmt: skip
_LATIN: Final = ["cp1252", "cp1250", "cp1254"]
_LEAST_WORDS: Final = 0.2  # of the runs of letters beyond ASCII, from which it is another script
_MARKS: Final = [
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
]  # fmt: skip
_SAMPLE: Final = 4 << 20
_AROUND: Final = 20_000  # bytes on both sides of the first odd one that are looked at
# Control characters that text files hold: tab, line feed, form feed, carriage return.
_TEXT_CONTROLS: Final = "\t\n\x0b\x0c\r\x1b"
_LEADERS: Final = re.compile(r"([.?!·…_=~*-])(?:[ \t]?\1){19,}")
# Marks that only tell a screen in which direction to write; the order of the characters is the same without them.
_DIRECTIONS: Final = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class TextEncoding(NamedTuple):
    """How a file is encoded.

    Attributes:
        name: For Python.
        fallback: Encoding of the lines that are not UTF-8, in a file that mixes both; empty: there are none.
    """

    name: str
    fallback: str = ""

    @property
    def note(self) -> str:
        """What the user should know; empty for Unicode."""
        if self.fallback:
            return f"mixes UTF-8 and {self.fallback}, read line by line; save it as UTF-8 if words look wrong"
        if not self.name.startswith("utf"):
            return f"is not UTF-8 and was read as {self.name}; save it as UTF-8 if words look wrong"
        return ""


def clean(text: str) -> str:
    """Drop what no tokenizer or file format takes, marks of direction, and the greater part of dot leaders.

    NUL and halves of surrogate pairs are the former. A line of a hundred dots says nothing, and splitters of sentences
    take minutes for a page of them.
    """
    text = _LEADERS.sub(r"\1\1\1", text.replace("\x00", ""))
    if text.isascii():
        return text
    return _DIRECTIONS.sub("", text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))


def decode(raw: bytes) -> tuple[str, TextEncoding]:
    """Decode a text file.

    Raises:
        UnreadableError: It is not text, or nobody knows its encoding.
    """
    encoding = _encoding_of(raw, whole=True)
    if encoding.fallback:
        text = "".join(_decoded_line(line, encoding.fallback) for line in raw.splitlines(keepends=True))
    else:
        text = raw.decode(encoding.name, "strict" if encoding.name == "utf-8-sig" else "replace")
    _refuse_binary(text[:4096])
    return text, encoding


def text_lines(path: Path, longest: int) -> tuple[Iterator[str], TextEncoding]:
    """Read a file line by line, so that memory does not grow with it.

    Args:
        path: The file.
        longest: Bytes of a line.

    Returns:
        The lines with their ends, and the encoding as its first megabytes tell it.

    Raises:
        UnreadableError: It is not text, or a line is too long (while reading).
    """
    with path.open("rb") as file:
        sample = file.read(_SAMPLE)
    if len(sample) == _SAMPLE and b"\n" in sample:
        sample = sample[: sample.rindex(b"\n") + 1]
    encoding = _encoding_of(sample, whole=False)
    _refuse_binary(sample[:4096].decode(encoding.name, "replace"))
    return _lines(path, encoding, longest), encoding


def _lines(path: Path, encoding: TextEncoding, longest: int) -> Iterator[str]:
    with path.open("rb") as file:
        if encoding.name.startswith(("utf-16", "utf-32")):
            yield from io.TextIOWrapper(file, encoding.name, "replace", newline="")
            return
        first, fallback = True, encoding.fallback
        while raw := file.readline(longest + 1):
            if len(raw) > longest:
                raise UnreadableError(f"holds a line of more than {longest >> 20} MB; is it a table?", "too large")
            if encoding.name != "utf-8-sig":
                line = raw.decode(encoding.name, "replace")
            else:
                raw = raw.removeprefix(codecs.BOM_UTF8) if first else raw
                try:
                    line = raw.decode()
                except UnicodeDecodeError:  # behind the part that was looked at
                    fallback = fallback or _older_encoding(raw) or "cp1252"
                    line = raw.decode(fallback, "replace")
            first = False
            yield line


def _encoding_of(raw: bytes, *, whole: bool) -> TextEncoding:
    for mark, name in _MARKS:
        if raw.startswith(mark):
            return TextEncoding(name)
    if wide := _wide_without_mark(raw[:4096]):
        return TextEncoding(wide)
    try:
        raw.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        if not whole and err.end == len(raw) and err.reason == "unexpected end of data":
            return TextEncoding("utf-8-sig")
        if b"\x00" in raw[:4096]:
            raise UnreadableError(_BINARY, "not text") from None
        older = _older_encoding(raw[max(0, err.start - _AROUND) : err.start + _AROUND])
        if older is None:
            raise UnreadableError(f"is not UTF-8 text (byte {err.start}); save it as UTF-8", "not text") from None
        return TextEncoding("utf-8-sig", older) if _is_mixed(raw) else TextEncoding(older)
    return TextEncoding("utf-8-sig")


def _wide_without_mark(start: bytes) -> str:
    """UTF-16 without a byte order mark, as Windows writes it: every other byte of Western text is zero."""
    half = len(start) // 2
    if half < 2:
        return ""
    even, odd = start[0 : half * 2 : 2].count(0), start[1 : half * 2 : 2].count(0)
    if odd > 0.6 * half and even < 0.1 * half:
        return "utf-16-le"
    return "utf-16-be" if even > 0.6 * half and odd < 0.1 * half else ""


def _is_mixed(raw: bytes) -> bool:
    """Whether a good part of the lines beyond ASCII is UTF-8, which no text of an older encoding is by accident."""
    lines = [line for line in raw.splitlines() if not line.isascii()]
    return sum(_is_utf8(line) for line in lines) > 0.2 * len(lines)


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _decoded_line(line: bytes, fallback: str) -> str:
    return line.decode("utf-8-sig") if _is_utf8(line) else line.decode(fallback, "replace")


def _older_encoding(raw: bytes) -> str | None:
    from charset_normalizer import from_bytes

    # Letters beyond ASCII stand alone among those of Latin scripts, and in words of their own in all others.
    runs = re.findall(rb"[\x80-\xff]+", raw)
    latin = sum(len(run) > 2 for run in runs) < _LEAST_WORDS * len(runs)
    found = from_bytes(raw, cp_isolation=_LATIN if latin else _OLD_ENCODINGS)
    best = found.best()
    if best is None:
        return None
    # Short texts of Western Europe fit many code pages alike; theirs is the likeliest of these.
    likely = [match for match in found if match.chaos <= best.chaos + 0.05]
    western = any("cp1252" in (match.encoding, *match.could_be_from_charset) for match in likely)
    return "cp1252" if western else best.encoding


_BINARY: Final = "is not text but binary data; give a text, PDF, office or HTML file"


def _refuse_binary(start: str) -> None:
    odd = sum(1 for char in start if unicodedata.category(char) == "Cc" and char not in _TEXT_CONTROLS)
    if odd > len(start) / 100:
        raise UnreadableError(_BINARY, "not text")
