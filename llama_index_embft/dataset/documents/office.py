"""Readers of Word, PowerPoint and RTF files."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from llama_index_embft.dataset.documents.archives import open_office_zip
from llama_index_embft.dataset.documents.base import LeftOut, Piece, ReadingJob, UnreadableError, needed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_W: Final = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_FALLBACK: Final = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"  # the same text once more
_CELL_END: Final = "\x1f"
_WORD_TEXT: Final = {f"{_W}tab": "\t", f"{_W}br": "\n", f"{_W}cr": "\n", f"{_W}noBreakHyphen": "-"}


def read_docx(path: Path, job: ReadingJob) -> Iterator[Piece | LeftOut]:
    """Read a Word file in its order: headings as in Markdown, tables a line a row, footnotes at the end.

    Headers and footers of the pages are left out, and so is what was deleted under "track changes".
    """
    open_office_zip(path, job)
    document = needed("docx").Document(str(path))
    levels = {style.style_id: _heading_level(style.name or "") for style in document.styles}
    parts = [_word_text(document.element.body, levels)]
    for relation in document.part.rels.values():
        if relation.reltype.endswith(("/footnotes", "/endnotes")) and not relation.is_external:
            notes = needed("docx.oxml").parse_xml(relation.target_part.blob)
            parts.append(_word_text(notes, {}))
    yield Piece("\n\n".join(filter(None, parts)))


def _heading_level(style: str) -> int:
    found = re.fullmatch(r"heading ([1-6])", style.lower())
    return int(found[1]) if found else int(style.lower() == "title")


def _word_text(root: Any, levels: dict[str, int]) -> str:
    """The text below an element, without recursion: nested tables and text boxes go as deep as their author likes."""
    pieces: list[str] = []
    todo: list[Any] = [root]
    while todo:
        node = todo.pop()
        if isinstance(node, str):
            pieces.append(node)
            continue
        tag = node.tag
        if tag == f"{_W}t":
            pieces.append(node.text or "")
        elif tag in _WORD_TEXT:
            pieces.append(_WORD_TEXT[tag])
        elif tag in (f"{_W}del", f"{_W}moveFrom", f"{_W}pPr", f"{_W}instrText", _FALLBACK):
            continue
        else:
            before, after = _around(node, levels)
            todo.append(after)
            todo.extend(reversed(list(node)))
            todo.append(before)
    text = re.sub(rf"[ \t]*({_CELL_END}|\n)[ \t]*", r"\1", "".join(pieces))
    text = re.sub(rf"{_CELL_END}+(?=\n|$)", "", text).replace(_CELL_END, " | ")
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def _around(node: Any, levels: dict[str, int]) -> tuple[str, str]:
    if node.tag == f"{_W}p":
        if node.getparent().tag == f"{_W}tc":  # a line of a cell: the row stays a line
            return "", " "
        style = node.find(f"{_W}pPr/{_W}pStyle")
        level = levels.get(style.get(f"{_W}val"), 0) if style is not None else 0
        return ("#" * level + " " if level else ""), "\n\n"
    if node.tag == f"{_W}tc":
        return "", _CELL_END
    return "", "\n" if node.tag in (f"{_W}tr", f"{_W}tbl") else ""


def read_pptx(path: Path, job: ReadingJob) -> Iterator[Piece | LeftOut]:
    """Read a presentation, a document a slide, with the speaker's notes."""
    open_office_zip(path, job)
    slides = needed("pptx").Presentation(str(path)).slides
    for number, slide in enumerate(slides, start=1):
        title = slide.shapes.title
        lines = [f"# {title.text_frame.text.strip()}"] if title is not None and title.text_frame.text.strip() else []
        shapes = [shape for shape in slide.shapes if title is None or shape.shape_id != title.shape_id]
        for shape in sorted(shapes, key=lambda shape: (shape.top or 0, shape.left or 0)):
            lines.extend(_shape_lines(shape))
        if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
            notes = slide.notes_slide.notes_text_frame.text.strip()
            lines.extend([f"Notes: {notes}"] if notes else [])
        yield Piece("\n\n".join(lines).replace("\x0b", "\n"), {"page_label": str(number)})


def _shape_lines(shape: Any) -> Iterator[str]:
    kind = getattr(shape, "placeholder_format", None) if shape.is_placeholder else None
    if kind is not None and str(kind.type).split(" ", 1)[0] in ("SLIDE_NUMBER", "FOOTER", "DATE"):
        return  # the running lines of a presentation
    if hasattr(shape, "shapes"):  # a group
        for inner in shape.shapes:
            yield from _shape_lines(inner)
    elif getattr(shape, "has_table", False):
        rows = [[cell.text.strip() for cell in row.cells] for row in shape.table.rows]
        yield "\n".join(" | ".join(filter(None, row)) for row in rows)
    elif shape.has_text_frame and shape.text_frame.text.strip():
        yield shape.text_frame.text.strip()


def read_rtf(path: Path, job: ReadingJob) -> Iterator[Piece | LeftOut]:
    """Read the text of an RTF file."""
    raw = job.whole(path)
    if not raw.lstrip().startswith(b"{\\rtf"):
        raise UnreadableError("is no RTF file; save it again from the program that made it")
    yield Piece(needed("striprtf.striprtf").rtf_to_text(raw.decode("latin-1"), errors="replace"))


def refuse_old_office(path: Path, job: ReadingJob) -> Iterator[Piece | LeftOut]:
    """Say what to do with office files of before 2007, whose format no kept library reads, and with Outlook's."""
    del job
    new = {".doc": "a Word file of before 2007; save it as .docx", ".msg": "a message of Outlook; save it as .eml"}
    wanted = new.get(path.suffix.lower(), "a PowerPoint file of before 2007; save it as .pptx")
    raise UnreadableError(f"is {wanted}", "in an old format")
