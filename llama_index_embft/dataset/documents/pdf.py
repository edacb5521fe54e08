"""Reader of PDF files: a document a page, with what printing does to a text taken back."""

from __future__ import annotations

import logging
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from llama_index_embft._core.checks import first_line
from llama_index_embft.dataset.documents.base import LeftOut, Piece, ReadingJob, UnreadableError
from llama_index_embft.dataset.documents.printed import columns_to_lines, printed_to_plain, without_running_lines

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pypdf import PageObject, PdfReader

_LOCKED: Final = (
    "is encrypted and needs a password; remove it, for example with: qpdf --decrypt --password=… in.pdf out.pdf"
)
_SHORT: Final = 500  # characters; of a shorter page the layout may have left something out
_COMPLETE: Final = 0.8
_RIGHT_TO_LEFT: Final = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff]")


def read_pdf(path: Path, job: ReadingJob) -> Iterator[Piece | LeftOut]:
    """Read a PDF page by page, tell its troubles apart, and show progress."""
    from pypdf import PdfReader
    from pypdf.errors import DependencyError
    from tqdm.auto import tqdm

    job.check_size(path.stat().st_size, "has")
    try:
        with _quiet_pypdf():
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
    with _quiet_pypdf():
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


@contextmanager
def _quiet_pypdf() -> Iterator[None]:
    """Without a warning for each oddity of each page."""
    log = logging.getLogger("pypdf")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


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


def _page_text(page: PageObject) -> str | None:
    """The text of a page in reading order.

    pypdf's layout mode puts words together by where they stand, so that fewer are torn, and rows of tables stay rows.
    It knows neither right-to-left scripts nor turned text, which its plain mode does.
    """
    try:
        text = columns_to_lines(page.extract_text(extraction_mode="layout"))
    except Exception:  # noqa: BLE001 - a parser that stumbles over a file of somebody else's
        text = ""
    if len(text) > _SHORT and not _RIGHT_TO_LEFT.search(text):
        return text
    try:
        plain = str(page.extract_text())
    except Exception:  # noqa: BLE001 - one damaged page is no reason to lose the others
        return text or None
    complete = len("".join(text.split())) >= _COMPLETE * len("".join(plain.split()))
    return text if complete and not _RIGHT_TO_LEFT.search(text) else plain


def _page_labels(pdf: PdfReader, n_pages: int) -> list[str]:
    """Printed page numbers ("iv", "12"), or plain counting where the file's table of them is damaged."""
    try:
        labels = list(pdf.page_labels)  # computed anew at each access
    except Exception:  # noqa: BLE001 - see above
        labels = []
    return labels if len(labels) == n_pages else [str(number + 1) for number in range(n_pages)]
