"""Which reader reads which ending, and one file read by it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from llama_index_embft._core.checks import first_line
from llama_index_embft.dataset.documents.archives import read_tar, read_zip
from llama_index_embft.dataset.documents.base import (
    LeftOut,
    Piece,
    Reader,
    ReadingJob,
    ReadingSettings,
    UnpackBudget,
    UnreadableError,
    ending_of,
)
from llama_index_embft.dataset.documents.mail import read_eml, read_mbox
from llama_index_embft.dataset.documents.office import read_docx, read_pptx, read_rtf, refuse_old_office
from llama_index_embft.dataset.documents.pdf import read_pdf
from llama_index_embft.dataset.documents.tables import read_csv, read_json, read_jsonl, read_xls, read_xlsx
from llama_index_embft.dataset.documents.text import read_notebook, read_text
from llama_index_embft.dataset.documents.web import read_epub, read_html

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def read_file(path: Path, settings: ReadingSettings, *, show_progress: bool = False) -> Iterator[Piece | LeftOut]:
    """Read a file with the reader for its ending; one of no known ending is tried as text.

    Returns:
        Texts, none of them blank, and what was left out, one after another as they are read.

    Raises:
        UnreadableError: The file is empty, broken, encrypted, of the wrong kind, or needs a package that is missing.
            Texts that were yielded before are good.
    """
    return _read(path, ReadingJob(settings, show_progress, _read, frozenset(READERS), UnpackBudget(settings)))


def _read(path: Path, job: ReadingJob) -> Iterator[Piece | LeftOut]:
    found = False
    try:
        if path.stat().st_size == 0:
            raise UnreadableError("is empty; remove it or fill it", "empty")
        for item in READERS.get(ending_of(path.name), read_text)(path, job):
            if isinstance(item, LeftOut) or item.text.strip():
                found = True
                yield item
    except OSError as err:
        raise UnreadableError(f"cannot be read: {err.strerror or first_line(err)}", "unreadable") from err
    except UnreadableError:
        raise
    except Exception as err:  # a parser of somebody else's, at a file of somebody else's
        raise UnreadableError(f"cannot be read ({first_line(err)}); save it again, or leave it out") from err
    if not found:
        raise UnreadableError("holds no text; remove it or give another file", "without text")


def _read_by_llama_index(path: Path, job: ReadingJob) -> Iterator[Piece | LeftOut]:
    from llama_index.core import SimpleDirectoryReader

    job.check_size(path.stat().st_size, "has")

    def no_metadata(_: str) -> dict[str, Any]:  # paths, sizes and dates are this machine's business
        return {}

    try:
        read = SimpleDirectoryReader.load_file(path, no_metadata, {}, raise_on_error=True)
    except ImportError as err:
        raise UnreadableError(
            "needs another package; install it with: pip install olefile", "in need of another package"
        ) from err
    for document in read:
        yield Piece(document.text)


_TEXT: Final = ".txt .text .md .markdown .mdx .rst .adoc .org .tex .log .srt .vtt"
_CODE: Final = (
    ".py .pyi .js .mjs .cjs .jsx .ts .tsx .java .kt .kts .scala .groovy .c .h .cc .cpp .cxx .hpp .cs .go .rs .rb .php "
    ".swift .m .r .jl .lua .pl .pm .sh .bash .ps1 .sql .dart .ex .exs .erl .hs .clj .f90 .proto .graphql .tf "
    ".yaml .yml .toml .ini .cfg .conf .properties"
)

READERS: Final[dict[str, Reader]] = {
    ".pdf": read_pdf,
    **dict.fromkeys([".html", ".htm", ".xhtml"], read_html),
    ".docx": read_docx,
    ".pptx": read_pptx,
    **dict.fromkeys([".xlsx", ".xlsm"], read_xlsx),
    ".xls": read_xls,
    **dict.fromkeys([".csv", ".tsv", ".tab"], read_csv),
    ".json": read_json,
    **dict.fromkeys([".jsonl", ".ndjson"], read_jsonl),
    ".epub": read_epub,
    ".rtf": read_rtf,
    ".eml": read_eml,
    ".mbox": read_mbox,
    ".ipynb": read_notebook,
    ".zip": read_zip,
    ".tar": read_tar,
    **dict.fromkeys(_TEXT.split(), read_text),
    **dict.fromkeys(_CODE.split(), read_text),
    ".hwp": _read_by_llama_index,
    **dict.fromkeys([".doc", ".ppt", ".msg"], refuse_old_office),
}
"""File ending -> reader. A folder is searched for these endings; any other file, given by name, is tried as text."""
