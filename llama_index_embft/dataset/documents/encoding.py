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
_ONE_BYTE: Final = ("ascii", "cp125", "iso8859", "koi8")
_WIDE: Final = ("utf-16", "utf-32")
_LEAST_UTF8: Final = 0.2  # of the lines beyond ASCII, above which a file mixes UTF-8 with another encoding
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
        damaged: It is Unicode, but for single bytes.
    """

    name: str
    fallback: str = ""
    damaged: bool = False

    @property
    def note(self) -> str:
        """What the user should know; empty for Unicode."""
        if self.fallback:
            return f"mixes UTF-8 and {self.fallback}, read line by line; save it as UTF-8 if words look wrong"
        if self.damaged:
            kind = self.name.removesuffix("-sig").removesuffix("-le").removesuffix("-be").upper()
            return f"is {kind} with damaged characters, which are shown as \ufffd; save it again as UTF-8"
        if not self.name.startswith("utf"):
            return f"is not UTF-8 and was read as {self.name}; save it as UTF-8 if words look wrong"
        return ""


def clean(text: str) -> str:
    """Drop what no tokenizer or file format takes, marks of direction, and the greater part of dot leaders.

    NUL and halves of surrogate pairs are the former. A line of a hundred dots says nothing, and splitters of sentences
    take minutes for a page of them.
    """
    text = _LEADERS.sub(r"\1\1\1", text.replace("\x00", ""))
    return text if text.isascii() else _DIRECTIONS.sub("", whole_characters(text))


def whole_characters(text: str) -> str:
    """A text that every tokenizer and file takes: two halves of a character as one, and a single half as U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def decode(raw: bytes) -> tuple[str, TextEncoding]:
    """Decode a text file.

    Raises:
        UnreadableError: It is not text, or nobody knows its encoding.
    """
    encoding = _encoding_of(raw, whole=True)
    if encoding.name.startswith(_WIDE):
        text = raw.decode(encoding.name, "replace")
        encoding = encoding._replace(damaged="\ufffd" in text)
    elif encoding.fallback or encoding.damaged:
        text = "".join(_decoded_line(line, encoding.fallback) for line in raw.splitlines(keepends=True))
    else:
        text = raw.decode(encoding.name, "strict" if encoding.name == "utf-8-sig" else "replace")
    _refuse_binary(text[:4096])
    return text, encoding


def decode_declared(raw: bytes, declared: str | None) -> tuple[str, TextEncoding]:
    """Decode a text that names its encoding, as pages and messages do; where the name is wrong, as `decode` does.

    Western and other names of one byte a character are put on everything: what is UTF-8 all the same is read so, and
    ISO-8859-1 means cp1252, as in browsers. A byte order mark is stronger than a name, and UTF-16 is none without a
    zero byte.

    Raises:
        UnreadableError: See `decode`.
    """
    try:
        name = codecs.lookup(declared or "utf-8").name
        if not _is_false(name, raw):
            name = "cp1252" if name in ("ascii", "iso8859-1") else name
            return raw.decode(name), TextEncoding("utf-8-sig")
    except (LookupError, ValueError):  # a name that nobody knows, or a wrong one
        pass
    return decode(raw)


def _is_false(name: str, raw: bytes) -> bool:
    """Whether a declared encoding is to be found out like one that is not."""
    if name.startswith("utf-8") or raw.startswith((codecs.BOM_UTF8, *(mark for mark, _ in _MARKS))):
        return True
    if name.startswith(_WIDE):
        return 0 not in raw
    return name.startswith(_ONE_BYTE) and _is_utf8(raw)


class TextLines:
    """The lines of a file with their ends, read one by one, so that memory does not grow with it.

    Attributes:
        encoding: As its first megabytes tell it, and as the lines that were read so far do.

    Args:
        path: The file.
        longest: Bytes of a line.

    Raises:
        UnreadableError: It is not text, or a line is too long (while reading).
    """

    def __init__(self, path: Path, longest: int) -> None:
        with path.open("rb") as file:
            sample = file.read(_SAMPLE)
        if len(sample) == _SAMPLE and b"\n" in sample:
            sample = sample[: sample.rindex(b"\n") + 1]
        self.encoding = _encoding_of(sample, whole=False)
        _refuse_binary(sample[:4096].decode(self.encoding.name, "replace"))
        self._path, self._longest = path, longest

    def __iter__(self) -> Iterator[str]:
        with self._path.open("rb") as file:
            if self.encoding.name.startswith(_WIDE):
                for line in io.TextIOWrapper(file, self.encoding.name, "replace", newline=""):
                    if not self.encoding.damaged and "\ufffd" in line:
                        self.encoding = self.encoding._replace(damaged=True)
                    yield line
                return
            while raw := file.readline(self._longest + 1):
                if len(raw) > self._longest:
                    size = self._longest >> 20
                    raise UnreadableError(f"holds a line of more than {size} MB; is it a table?", "too large")
                yield self._decoded(raw)

    def _decoded(self, raw: bytes) -> str:
        if self.encoding.name != "utf-8-sig":
            return raw.decode(self.encoding.name, "replace")
        if not self.encoding.fallback and not _is_utf8(raw):  # behind the part that was looked at
            older = "" if _is_damaged(raw) else _older_encoding(raw) or "cp1252"
            self.encoding = TextEncoding("utf-8-sig", older, damaged=not older)
        return _decoded_line(raw, self.encoding.fallback)


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
        return _mixed(raw) or _wholly_older(raw, err.start)
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


def _wholly_older(raw: bytes, odd: int) -> TextEncoding:
    older = _older_encoding(raw[max(0, odd - _AROUND) : odd + _AROUND])
    if older is None:
        raise UnreadableError(f"is not UTF-8 text (byte {odd}); save it as UTF-8", "not text") from None
    return TextEncoding(older)


def _mixed(raw: bytes) -> TextEncoding | None:
    """A file of which many lines beyond ASCII are UTF-8, which none of an older encoding is by accident.

    Lines that are UTF-8 but for single bytes are among them. None: there are not many.
    """
    lines = [line for line in raw.splitlines() if not line.isascii()]
    odd = [line for line in lines if not _is_utf8(line)]
    older = [line for line in odd if not _is_damaged(line)]
    if len(lines) - len(older) <= _LEAST_UTF8 * len(lines):
        return None
    fallback = _older_encoding(b"\n".join(older)[: 2 * _AROUND]) if older else None
    return TextEncoding("utf-8-sig", fallback or "", damaged=fallback is None)


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_damaged(line: bytes) -> bool:
    """Whether a line that is not UTF-8 is so but for single bytes, as where a program cut it within a character."""
    text = line.decode(errors="replace")
    bad = text.count("\ufffd")
    return sum(char > "\x7f" for char in text) >= 2 * bad


def _decoded_line(line: bytes, fallback: str) -> str:
    if fallback and not _is_utf8(line) and not _is_damaged(line):
        return line.decode(fallback, "replace")
    return line.decode("utf-8-sig", "replace")


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
