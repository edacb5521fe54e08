"""Reader of PDF files: a document a page, with what printing does to a text taken back."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from llama_index_embft._core.checks import first_line
from llama_index_embft.dataset.documents.base import LeftOut, Piece, ReadingJob, UnreadableError
from llama_index_embft.dataset.documents.printed import printed_to_plain, without_running_lines

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pypdf import PageObject, PdfReader

_LOCKED: Final = (
    "is encrypted and needs a password; remove it, for example with: qpdf --decrypt --password=… in.pdf out.pdf"
)
_LEAST_LINES: Final = 8  # of two columns; fewer are no page of columns
_LEAST_COLUMN: Final = 20  # characters of a line of a column, in the middle; a table's cells are shorter
_LEAST_LETTERS: Final = 0.6  # of the characters in a column; a table holds numbers


def read_pdf(path: Path, job: ReadingJob) -> Iterator[Piece | LeftOut]:
    """Read a PDF page by page, tell its troubles apart, and show progress."""
    from pypdf import PdfReader
    from pypdf.errors import DependencyError
    from tqdm.auto import tqdm

    logging.getLogger("pypdf").setLevel(logging.ERROR)  # it warns of each oddity of each page
    try:
        pdf = PdfReader(path)
        # Many files are encrypted only against changes; the empty password opens them.
        if pdf.is_encrypted and not pdf.decrypt(""):
            raise UnreadableError(_LOCKED, "encrypted")
        pages = list(pdf.pages)
    except (OSError, UnreadableError):
        raise
    except DependencyError:
        raise UnreadableError(
            "is encrypted with AES, which pypdf reads with another package; install it with: pip install cryptography",
            "in need of another package",
        ) from None
    except Exception as err:
        raise UnreadableError(
            f"is a broken PDF ({first_line(err)}); repair it, for example with: qpdf in.pdf out.pdf"
        ) from err
    labels = _page_labels(pdf, len(pages))
    bar = tqdm(pages, desc=path.name, unit="page", delay=2, leave=False, disable=not job.show_progress)
    found = [_page_text(page) for page in bar]
    texts = [text or "" for text in found]
    empty = sum(not text.strip() for text in texts)
    if empty == len(texts):
        raise UnreadableError(
            f"has no text on any of its {len(pages)} pages, so it is probably scanned; add a text layer by OCR, for "
            "example with: ocrmypdf in.pdf out.pdf",
            "scanned",
        )
    if not job.settings.keep_headers:
        texts = without_running_lines(texts)
    words = frozenset(re.findall(r"[\w-]+", "\n".join(texts)))
    for text, label in zip(texts, labels, strict=True):
        if text.strip():
            yield Piece(printed_to_plain(text, words), {"page_label": label})
    yield from _left_out(found, pages)


def _left_out(found: list[str | None], pages: list[PageObject]) -> Iterator[LeftOut]:
    broken = sum(text is None for text in found)
    if broken:
        yield LeftOut(f"has {broken} broken pages of {len(found)}, which were left out", "broken")
    blank = [page for text, page in zip(found, pages, strict=True) if text is not None and not text.strip()]
    scans = sum(_has_image(page) for page in blank)
    if scans:
        yield LeftOut(
            f"has {scans} scanned pages of {len(found)}, which were left out; add a text layer by OCR, for example "
            "with: ocrmypdf --skip-text in.pdf out.pdf",
            "scanned",
        )


def _has_image(page: PageObject) -> bool:
    try:
        objects = page["/Resources"]["/XObject"]  # type: ignore[index]
        return any(one.get_object().get("/Subtype") == "/Image" for one in objects.values())
    except Exception:  # noqa: BLE001 - a page without resources, or with broken ones
        return False


class _Printed(NamedTuple):
    """A piece of text where it stands on its page, in points from the lower left."""

    text: str
    x: float
    y: float


def _page_text(page: PageObject) -> str | None:
    printed: list[_Printed] = []

    def collect(text: str, cm: Any, tm: Any, font: Any, size: Any) -> None:
        del font, size
        if text.strip():
            x, y = tm[4], tm[5]
            printed.append(_Printed(text, cm[0] * x + cm[2] * y + cm[4], cm[1] * x + cm[3] * y + cm[5]))

    try:
        text = page.extract_text(visitor_text=collect)
    except Exception:  # noqa: BLE001 - one damaged page is no reason to lose the others
        return None
    return _by_columns(printed) or text


def _by_columns(printed: list[_Printed]) -> str:
    """The text column by column, where the file holds it line by line across two columns; else an empty string.

    Most programs write a column after the other, and the order of the file is right. The others are told by lines that
    go left, right, left, right, each side with words enough to be prose and not a table.
    """
    lines: dict[int, list[_Printed]] = {}
    for piece in printed:
        lines.setdefault(round(piece.y), []).append(piece)
    pairs = [line for line in lines.values() if len(line) == 2 and line[0].x < line[1].x]
    if len(pairs) < _LEAST_LINES or len(pairs) < 0.5 * len(lines):
        return ""
    starts = [round(right.x) for _, right in pairs]
    gutter = max(set(starts), key=starts.count)
    pairs = [pair for pair in pairs if abs(pair[1].x - gutter) < 3]
    sides = [[pair[side].text.strip() for pair in pairs] for side in (0, 1)]
    if len(pairs) < _LEAST_LINES or not all(_is_prose(side) for side in sides):
        return ""
    tops = {round(pair[0].y) for pair in pairs}
    first, last = max(tops), min(tops)
    above: list[str] = []
    left: list[str] = []
    right: list[str] = []
    below: list[str] = []
    for piece in printed:
        y = round(piece.y)
        if y > first:
            above.append(piece.text)
        elif y < last:
            below.append(piece.text)
        else:
            (right if piece.x > gutter - 3 else left).append(piece.text)
    return "\n".join(text.strip("\n") for text in [*above, *left, *right, *below])


def _is_prose(lines: list[str]) -> bool:
    if sorted(map(len, lines))[len(lines) // 2] < _LEAST_COLUMN:
        return False
    characters = "".join(lines)
    return sum(character.isalpha() for character in characters) >= _LEAST_LETTERS * len(characters)


def _page_labels(pdf: PdfReader, n_pages: int) -> list[str]:
    """Printed page numbers ("iv", "12"), or plain counting where the file's table of them is damaged."""
    try:
        labels = list(pdf.page_labels)  # computed anew at each access
    except Exception:  # noqa: BLE001 - see above
        labels = []
    return labels if len(labels) == n_pages else [str(number + 1) for number in range(n_pages)]
