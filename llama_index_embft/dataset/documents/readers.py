"""Read one file into LlamaIndex documents, or say in a few words why that cannot be done."""

from __future__ import annotations

import logging
import re
import unicodedata
from typing import TYPE_CHECKING, Any, Final

from llama_index_embft._core.checks import first_line

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
_HEADINGS: Final = frozenset(["h1", "h2", "h3", "h4", "h5", "h6"])
_LINES: Final = frozenset(["li", "dt", "dd", "tr", "br"])  # begin a line, but no paragraph
_NO_CONTENT: Final = ["script", "style", "noscript", "template", "nav", "svg", "iframe"]
# Control characters that text files hold: tab, line feed, form feed, carriage return.
_TEXT_CONTROLS: Final = "\t\n\x0b\x0c\r\x1b"


_LEADERS: Final = re.compile(r"([.?!·…_=~*-])(?:[ \t]?\1){19,}")


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
    except UnreadableError:
        raise
    except Exception as err:  # a parser of somebody else's, at a file of somebody else's
        raise UnreadableError(f"cannot be read: {first_line(err)}") from err
    documents = [document for document in documents if document.text.strip()]
    if not documents:
        raise UnreadableError("holds no text; remove it or give another file")
    return documents


def _document(path: Path, text: str, **metadata: str) -> Document:
    from llama_index.core.schema import Document

    # The order is that of LlamaIndex's own PDF reader, since it is embedded with the text.
    return Document(text=_clean(text), metadata={**metadata, "file_name": path.name})


def _clean(text: str) -> str:
    """Drop what no tokenizer or file format takes, NUL and halves of surrogate pairs, and shorten dot leaders.

    A line of a hundred dots says nothing, and splitters of sentences take minutes for a page of them.
    """
    text = _LEADERS.sub(r"\1\1\1", text.replace("\x00", ""))
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
        text = _decoded(path, raw, err)
    start = text[:4096]
    odd = sum(1 for char in start if unicodedata.category(char) == "Cc" and char not in _TEXT_CONTROLS)
    if odd > len(start) / 100:
        raise UnreadableError("is not text but binary data; give a text, PDF or HTML file")
    return [_document(path, text)]


_OLD_ENCODINGS: Final = [
    "cp1252", "cp1250", "cp1251", "koi8_r", "cp1253", "cp1254", "cp1255", "cp1256", "cp874", "gb18030", "big5",
    "cp932", "euc_jp", "euc_kr",
]  # fmt: skip


def _decoded(path: Path, raw: bytes, err: UnicodeDecodeError) -> str:
    """Text of an older encoding, told by charset-normalizer from the part around the first odd byte."""
    from charset_normalizer import from_bytes

    found = from_bytes(raw[max(0, err.start - 20_000) : err.start + 20_000], cp_isolation=_OLD_ENCODINGS)
    best = found.best()
    if best is None:
        raise UnreadableError(f"is not UTF-8 text (byte {err.start}); save it as UTF-8") from None
    # Short texts of Western Europe fit many code pages alike; theirs is the likeliest of these.
    likely = [match for match in found if match.chaos <= best.chaos + 0.05]
    western = any("cp1252" in (match.encoding, *match.could_be_from_charset) for match in likely)
    encoding = "cp1252" if western else best.encoding
    try:
        text = raw.decode(encoding)
    except (UnicodeDecodeError, LookupError):
        raise UnreadableError(f"is not UTF-8 text (byte {err.start}); save it as UTF-8") from None
    logger.warning("%s is not UTF-8; read as %s. Save it as UTF-8 if words look wrong.", path, encoding)
    return text


# --- HTML -------------------------------------------------------------------------------------------------------------


def _read_html(path: Path, show_progress: bool) -> list[Document]:
    del show_progress
    from bs4 import BeautifulSoup
    from bs4.exceptions import ParserRejectedMarkup

    raw = path.read_bytes()  # bytes, so that the page's own statement of its encoding counts
    try:
        page = BeautifulSoup(raw, "html.parser")
    except (ParserRejectedMarkup, AssertionError, ValueError, RecursionError):
        # Declarations such as `<![foo[ x ]]>`, which nobody knows.
        raw = re.sub(rb"<!(?!--|doctype)", b"&lt;!", raw, flags=re.IGNORECASE)
        try:
            page = BeautifulSoup(raw, "html.parser")
        except (ParserRejectedMarkup, AssertionError, ValueError, RecursionError) as err:
            raise UnreadableError(f"is HTML that cannot be parsed ({first_line(err)}); save it again") from err
    return [_document(path, html_to_text(page))]


def html_to_text(page: BeautifulSoup) -> str:
    """Reduce a page to its text: a line a block, headings marked as in Markdown, no scripts, menus or forms.

    One walk over the page, so that the time grows with its size and no faster.
    """
    from bs4.element import CData, NavigableString, Tag

    pieces: list[str] = []
    words = 0  # pieces that say something
    todo: list[Any] = [page]
    while todo:
        node = todo.pop()
        if isinstance(node, tuple):  # the end of a tag: its name, where its heading's mark stands, words before it
            name, mark, before = node
            if mark is not None and words == before:
                pieces[mark] = ""
            if name in _BLOCKS:
                pieces.append("\n")
        elif isinstance(node, Tag):
            if node.name in _NO_CONTENT or node.name == "head":
                continue
            if node.name in _BLOCKS or node.name in _LINES:
                pieces.append("\n")
            mark = None
            if node.name in _HEADINGS:
                mark = len(pieces)
                pieces.append("#" * int(node.name[1]) + " ")
            todo.append((node.name, mark, words))
            todo.extend(reversed(node.contents))
        elif type(node) in (NavigableString, CData):
            pieces.append(str(node))
            words += not node.isspace()
    lines = [" ".join(line.split()) for line in "".join(pieces).splitlines()]
    text = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
    title = page.title.get_text(" ", strip=True) if page.title and not page.title.find_parent(_NO_CONTENT) else ""
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
            f"is a broken PDF ({first_line(err)}); repair it, for example with: qpdf in.pdf out.pdf"
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
    words = frozenset(re.findall(r"[\w-]+", "\n".join(filter(None, texts))))
    return [
        _document(path, _printed_to_plain(text, words), page_label=label)
        for text, label in zip(texts, labels, strict=True)
        if text
    ]


_LIGATURES: Final = re.compile("[\ufb00-\ufb06\ufb13-\ufb17]")
_LINE_END_HYPHEN: Final = re.compile(r"(\w+)[-\u2010][ \t]*\r?\n[ \t]*(\w+)")


def _printed_to_plain(text: str, words: frozenset[str]) -> str:
    """Take back what setting a page does to words: ligatures, soft hyphens, and words broken at the end of a line.

    A hyphen that the word has elsewhere in the file ("long-term"), or that stands before a capital or a digit, stays.
    """
    text = _LIGATURES.sub(lambda match: unicodedata.normalize("NFKC", match[0]), text)
    text = re.sub("\u00ad[ \t]*(?:\r?\n[ \t]*)?", "", text)

    def joined(match: re.Match[str]) -> str:
        first, rest = match[1], match[2]
        keep = not rest[0].islower() or (f"{first}-{rest}" in words and first + rest not in words)
        return f"{first}-{rest}" if keep else first + rest

    return _LINE_END_HYPHEN.sub(joined, text)


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


# What LlamaIndex's readers need beyond llama-index-readers-file.
_PACKAGES: Final = {
    ".docx": "docx2txt", ".pptx": "python-pptx", ".xlsx": "openpyxl", ".xls": "xlrd", ".epub": "EbookLib html2text"
}  # fmt: skip

# --- the rest, by LlamaIndex's readers --------------------------------------------------------------------------------


def _read_by_llama_index(path: Path, show_progress: bool) -> list[Document]:
    del show_progress
    from llama_index.core import SimpleDirectoryReader

    def no_metadata(_: str) -> dict[str, Any]:  # paths, sizes and dates are this machine's business
        return {}

    try:
        read = SimpleDirectoryReader.load_file(path, no_metadata, {}, raise_on_error=True)
    except ImportError as err:
        package = _PACKAGES.get(path.suffix.lower())
        advice = f"install it with: pip install {package}" if package else first_line(err)
        raise UnreadableError(f"needs another package; {advice}") from err
    except Exception as err:
        raise UnreadableError(f"cannot be read as {path.suffix}: {first_line(err.__cause__ or err)}") from err
    return [_document(path, document.text) for document in read]


READERS: Final[dict[str, Callable[[Path, bool], list[Document]]]] = {
    ".pdf": _read_pdf,
    **dict.fromkeys([".html", ".htm", ".xhtml"], _read_html),
    **dict.fromkeys([".txt", ".text", ".md", ".markdown", ".mdx", ".rst", ".adoc", ".org", ".tex"], _read_text),
    **dict.fromkeys(
        [".docx", ".pptx", ".epub", ".ipynb", ".csv", ".xlsx", ".xls", ".hwp", ".mbox"], _read_by_llama_index
    ),
}
"""File ending -> reader. A folder is searched for these endings; any other file, given by name, is tried as text."""
