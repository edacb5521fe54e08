"""One chunk, cut up once for every kind of question: its language, sentences, headings, and who its "we" is."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from llama_index_embft._core.language import detect_language
from llama_index_embft.generation.extractive.terms import ENGLISH_STOP_WORDS
from llama_index_embft.generation.extractive.text import is_prose, split_sentences, word_set, words

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

OTHER: Final = "other"
_HEADING_KEYS: Final = ("title", "document_title", "section_title", "section", "heading", "header", "header_path")
_ORGANISATION: Final = re.compile(
    r"\b((?:[A-Z][\w&’'-]{0,40},? ){1,4})(?:Co\.,? )?"
    r"(?:Inc\b|INC\b|Corporation\b|Corp\b|Ltd\b|Limited\b|LLC\b|plc\b|PLC\b)"
)
# What opens a sentence, and no name.
_NO_NAME: Final = word_set(
    "the a an of by and in to for with between class company borrower parent lender agent holder co corp inc"
)
_NO_END: Final = " .,&’'-"
_LONGEST_NAME: Final = 8  # runs of letters and digits
_FEWEST_MENTIONS: Final = 4
_ALWAYS: Final = 0.6
_SHARE_OF_MENTIONS: Final = 0.07  # of the times that the document says "we"


@dataclass(frozen=True)
class Chunk:
    """One chunk's text, cut up once for every kind.

    Attributes:
        text: Text without metadata, white space normalised within lines.
        headings: Headings and titles, from the metadata and from heading-like lines, best first.
        organisation: Who "we" is in the document; empty where it does not say.
    """

    text: str
    headings: tuple[str, ...] = ()
    organisation: str = ""

    @cached_property
    def language(self) -> str:
        """Which templates fit, as a code such as ``"de"``; ``"other"`` where the language cannot be told."""
        found = detect_language(self.text)
        if found is None:  # "cannot tell" for many a dense English abstract; prose is enough to choose templates
            tokens = words(self.text[:4000])
            english = sum(1 for token in tokens if token.lower() in ENGLISH_STOP_WORDS)
            return "en" if english > 0.15 * len(tokens) else OTHER
        return found

    @cached_property
    def sentences(self) -> tuple[str, ...]:
        """Sentences of running prose in order; lines of tables, dots and page furniture are left out."""
        return tuple(s for s in split_sentences(self.text) if is_prose(s))


def organisation_of(texts: Iterable[str]) -> str:
    """The organisation that a document speaks of as "we": of the names it gives with "Inc." or so, the commonest.

    Args:
        texts: All chunks of one document.

    Returns:
        The name without its legal form ("Best Buy"); empty where the document does not say "we" or no such name.
    """
    flat = re.sub(r"\s+", " ", " | ".join(texts))  # no name out of the end of one chunk and the start of another
    speaks = sum(1 for _ in re.finditer(r"\b(?:[Ww]e|[Oo]ur)\b", flat))
    if speaks < _FEWEST_MENTIONS:
        return ""
    names: set[str] = set()
    for match in _ORGANISATION.finditer(flat):
        parts = match[1].split()
        while parts and parts[0].lower() in _NO_NAME:
            parts.pop(0)
        if parts and parts[-1].rstrip(".,") == "Co":
            parts.pop()
        names |= {" ".join(parts).rstrip(_NO_END), "".join(parts[:1]).rstrip(_NO_END)}
    mentions = _count({name for name in names if len(name) > 1}, flat)
    # A document names many companies, and its own most often; "we" of a paper that names a supplier is its authors.
    best = max(mentions, key=lambda name: (mentions[name], len(name), name), default="")
    enough = mentions[best] >= max(_FEWEST_MENTIONS, _SHARE_OF_MENTIONS * speaks)
    return _whole_name(best, flat) if enough else ""


def _count(names: set[str], text: str) -> Counter[str]:
    """How often each name stands in the text as whole words, in one pass: a register names thousands of companies."""
    first_words = {match[0] for name in names if (match := re.match(r"\w+", name))}
    spans = [match.span() for match in re.finditer(r"\w+", text)]
    found: Counter[str] = Counter()
    for place, (start, end) in enumerate(spans):
        if text[start:end] in first_words:
            found.update(
                name for _, stop in spans[place : place + _LONGEST_NAME] if (name := text[start:stop]) in names
            )
    return found


def _whole_name(name: str, text: str) -> str:
    """A name with the capitalised word that nearly always stands before or behind it: "Best Buy" of "Buy"."""
    n = len(re.findall(rf"\b{re.escape(name)}\b", text))
    for form, whole in (
        (rf"\b([A-Z][\w&-]{{1,40}}) {re.escape(name)}\b", "{beside} {name}"),
        (rf"\b{re.escape(name)} ([A-Z][\w&-]{{1,40}})", "{name} {beside}"),
    ):
        for beside, times in Counter(re.findall(form, text)).most_common(1):
            if times > _ALWAYS * n and beside.lower() not in _NO_NAME:
                return whole.format(beside=beside, name=name)
    return name


def headings_of(metadata: Mapping[str, Any], text: str) -> tuple[str, ...]:
    """Titles and headings of a chunk: its metadata's, the nearest first, then Markdown and heading-like lines."""
    found: list[str] = []
    for key, value in metadata.items():
        if isinstance(value, str) and (key.lower() in _HEADING_KEYS or re.fullmatch(r"header[ _]?\d", key.lower())):
            found += value.strip("/").split("/")[::-1] if key == "header_path" else [value]
    lines = ["", *text.splitlines(), ""]
    for before, line, following in zip(lines, lines[1:], lines[2:], strict=False):
        if match := re.match(r"\s{0,3}#{1,6}\s", line):
            found.append(_without_closing_marks(line[match.end() :].strip()))
        elif len(following) > len(line) and _looks_like_heading(line, alone=not before.strip()):
            found.append(
                re.sub(r"^\s*(?:\d+(?:\.\d+)*\.?|[IVX]+\.|[(（]?[一二三四五六七八九十]+[)）、.])\s*", "", line).strip()
            )
    unique = {re.sub(r"\s+", " ", heading).strip(): None for heading in found}
    return tuple(heading for heading in unique if heading)


def _without_closing_marks(heading: str) -> str:
    """A Markdown heading without the marks that may close it ("# Title ##"); "C#" keeps its own."""
    bare = heading.rstrip("#")
    return bare.rstrip() if not bare or bare[-1].isspace() else heading


def _looks_like_heading(line: str, *, alone: bool) -> bool:
    """A short line without a full stop that has a section number, or stands alone and is in title case."""
    line = line.strip()
    tokens = line.split()
    if not 1 < len(tokens) <= 10 or line[-1] in ".,;:!?。，；：" or not any(c.isalpha() for c in line):
        return False
    if re.match(r"\d+(?:\.\d+)+\.?\s+[A-Z]", line):
        return True
    # Without the blank line before it, a line of a PDF's table or address looks the same.
    long_words = [t for t in tokens if len(t) > 3]
    return alone and bool(long_words) and line[0].isupper() and all(t[0].isupper() for t in long_words)
