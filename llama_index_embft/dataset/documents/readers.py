"""Read one file into LlamaIndex documents, or say in a few words why that cannot be done."""

from __future__ import annotations

import logging
import re
import unicodedata
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bs4 import BeautifulSoup
    from llama_index.core.schema import Document
    from pypdf import PageObject, PdfReader

logger = logging.getLogger(__name__)

_BLOCKS: Final = frozenset(
    ["p", "div", "section", "article", "header", "footer", "main", "table", "ul", "ol", "dl", "blockquote", "pre", "hr"]
).union(["figure", "figcaption", "h1", "h2", "h3", "h4", "h5", "h6"])
_LINES: Final = frozenset(["li", "dt", "dd", "tr", "br"])  # begin a line, but no paragraph
_NO_CONTENT: Final = ["script", "style", "noscript", "template", "nav", "svg", "iframe"]
# Control characters that text files hold: tab, line feed, form feed, carriage return.
_TEXT_CONTROLS: Final = "\t\n\x0b\x0c\r\x1b"


class UnreadableError(Exception):
    """Why a file cannot be read and what to do, as the end of a sentence that begins with its name."""


def read_file(path: Path, show_progress: bool) -> list[Document]:
    """Read a file with the reader for its ending.

    Returns:
        One document a page for a PDF and one for most other files, each with text; ``metadata`` holds ``file_name``,
        and ``page_label`` for pages.

    Raises:
        UnreadableError: The file is empty, broken, encrypted, of the wrong kind, or needs a package that is missing.
    """
    try:
        if path.stat().st_size == 0:
            raise UnreadableError("is empty; remove it or fill it")
        documents = READERS.get(path.suffix.lower(), _read_text)(path, show_progress)
    except OSError as err:
        raise UnreadableError(f"cannot be read: {err.strerror or err}") from err
    documents = [document for document in documents if document.text.strip()]
    if not documents:
        raise UnreadableError("holds no text; remove it or give another file")
    return documents


def _document(path: Path, text: str, **metadata: str) -> Document:
    from llama_index.core.schema import Document

    # The order is that of LlamaIndex's own PDF reader, since it is embedded with the text.
    return Document(text=_clean(text), metadata={**metadata, "file_name": path.name})


def _clean(text: str) -> str:
    """Drop what no tokenizer or file format takes: NUL, and halves of surrogate pairs that PDF fonts may yield."""
    text = text.replace("\x00", "")
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


# --- text -------------------------------------------------------------------------------------------------------------


def _read_text(path: Path, show_progress: bool) -> list[Document]:
    del show_progress
    raw = path.read_bytes()
    encoding = "utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as err:
        if b"\x00" in raw[:4096]:
            raise UnreadableError("is not text but binary data; give a text, PDF or HTML file") from None
        raise UnreadableError(f"is not UTF-8 text (byte {err.start}); save it as UTF-8") from None
    start = text[:4096]
    odd = sum(1 for char in start if unicodedata.category(char) == "Cc" and char not in _TEXT_CONTROLS)
    if odd > len(start) / 100:
        raise UnreadableError("is not text but binary data; give a text, PDF or HTML file")
    return [_document(path, text)]


# --- HTML -------------------------------------------------------------------------------------------------------------


def _read_html(path: Path, show_progress: bool) -> list[Document]:
    del show_progress
    from bs4 import BeautifulSoup

    # From bytes, so that the page's own statement of its encoding counts.
    return [_document(path, html_to_text(BeautifulSoup(path.read_bytes(), "html.parser")))]


def html_to_text(page: BeautifulSoup) -> str:
    """Reduce a page to its text: a line a block, headings marked as in Markdown, no scripts, menus or forms."""
    for tag in page.find_all(_NO_CONTENT):
        tag.decompose()
    title = page.title.get_text(" ", strip=True) if page.title else ""
    if page.head is not None:
        page.head.decompose()
    for tag in page.find_all(_BLOCKS | _LINES):
        if tag.name[0] == "h" and tag.name[1:].isdigit() and tag.get_text(strip=True):
            tag.insert(0, "#" * int(tag.name[1]) + " ")
        tag.insert_before("\n")
        if tag.name in _BLOCKS:
            tag.insert_after("\n")
    lines = [" ".join(line.split()) for line in page.get_text().splitlines()]
    text = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
    heading = text.split("\n", 1)[0].lstrip("# ")
    return f"{title}\n\n{text}".strip() if title and title != heading else text


# --- PDF --------------------------------------------------------------------------------------------------------------


def _read_pdf(path: Path, show_progress: bool) -> list[Document]:
    """Read a PDF page by page, as LlamaIndex's ``PDFReader`` does, but tell its troubles apart and show progress."""
    from pypdf import PdfReader
    from pypdf.errors import DependencyError
    from tqdm.auto import tqdm

    try:
        pdf = PdfReader(path)
        _unlock(pdf)
        pages = list(pdf.pages)
    except (OSError, UnreadableError):
        raise
    except DependencyError:
        raise UnreadableError(
            "is encrypted with AES, which pypdf reads with another package; install it with: pip install cryptography"
        ) from None
    except Exception as err:
        raise UnreadableError(
            f"is a broken PDF ({_first_line(err)}); repair it, for example with: qpdf in.pdf out.pdf"
        ) from err
    labels = _page_labels(pdf, len(pages))
    bar = tqdm(pages, desc=path.name, unit="page", delay=2, leave=False, disable=not show_progress)
    texts = [_page_text(page) for page in bar]
    broken = sum(text is None for text in texts)
    if broken:
        logger.warning("%s: left out %d of %d pages, which are broken.", path, broken, len(pages))
    if not any((text or "").strip() for text in texts):
        raise UnreadableError(
            f"has no text on any of its {len(pages)} pages, so it is probably scanned; add a text layer by OCR, for "
            "example with: ocrmypdf in.pdf out.pdf"
        )
    return [_document(path, text, page_label=label) for text, label in zip(texts, labels, strict=True) if text]


def _page_text(page: PageObject) -> str | None:
    try:
        return page.extract_text()
    except Exception:  # noqa: BLE001 - one damaged page is no reason to lose the others
        return None


def _page_labels(pdf: PdfReader, n_pages: int) -> list[str]:
    """Printed page numbers ("iv", "12"), or plain counting where the file's table of them is damaged."""
    try:
        labels = list(pdf.page_labels)  # computed anew at each access
    except Exception:  # noqa: BLE001 - see above
        labels = []
    return labels if len(labels) == n_pages else [str(number + 1) for number in range(n_pages)]


_LOCKED: Final = (
    "is encrypted and needs a password; remove it, for example with: qpdf --decrypt --password=… in.pdf out.pdf"
)


def _unlock(pdf: PdfReader) -> None:
    # Many files are encrypted only against changes; the empty password opens them.
    if pdf.is_encrypted and not pdf.decrypt(""):
        raise UnreadableError(_LOCKED)


# --- the rest, by LlamaIndex's readers --------------------------------------------------------------------------------


def _read_by_llama_index(path: Path, show_progress: bool) -> list[Document]:
    del show_progress
    from llama_index.core import SimpleDirectoryReader

    def no_metadata(_: str) -> dict[str, Any]:  # paths, sizes and dates are this machine's business
        return {}

    try:
        read = SimpleDirectoryReader.load_file(path, no_metadata, {}, raise_on_error=True)
    except ImportError as err:
        raise UnreadableError(f"needs another package: {_first_line(err)}") from err
    except Exception as err:
        raise UnreadableError(f"cannot be read as {path.suffix}: {_first_line(err.__cause__ or err)}") from err
    return [_document(path, document.text) for document in read]


def _first_line(err: BaseException) -> str:
    lines = str(err).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(err).__name__


READERS: Final[dict[str, Callable[[Path, bool], list[Document]]]] = {
    ".pdf": _read_pdf,
    **dict.fromkeys([".html", ".htm", ".xhtml"], _read_html),
    **dict.fromkeys([".txt", ".text", ".md", ".markdown", ".mdx", ".rst", ".adoc", ".org", ".tex"], _read_text),
    **dict.fromkeys(
        [".docx", ".pptx", ".epub", ".ipynb", ".csv", ".xlsx", ".xls", ".hwp", ".mbox"], _read_by_llama_index
    ),
}
"""File ending -> reader. A folder is searched for these endings; any other file, given by name, is tried as text."""
