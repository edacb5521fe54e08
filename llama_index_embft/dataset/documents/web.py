"""Readers of HTML pages and of e-books, which are made of such."""

from __future__ import annotations

import posixpath
import re
import zipfile
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from llama_index_embft._core.checks import first_line
from llama_index_embft.dataset.documents.archives import open_office_zip
from llama_index_embft.dataset.documents.base import LeftOut, Piece, ReadingJob, UnreadableError
from llama_index_embft.dataset.documents.encoding import decode, decode_declared
from llama_index_embft.dataset.documents.text import encoding_note

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from bs4 import BeautifulSoup

    from llama_index_embft.dataset.documents.encoding import TextEncoding

_BLOCKS: Final = (
    "p div section article header footer main table ul ol dl blockquote pre hr figure figcaption h1 h2 h3 h4 h5 h6 nav "
    "aside details summary address form fieldset legend caption select menu dialog hgroup center"
)
_LINES: Final = "li dt dd tr br"  # begin a line, but no paragraph
_CELL: Final = "\x1f"
_CELLS: Final = dict.fromkeys(["td", "th", "option"], _CELL)  # stand beside each other; many are not closed
_CLOSING: Final = {**dict.fromkeys(_BLOCKS.split(), "\n"), **_CELLS}
_OPENING: Final = {**dict.fromkeys(_LINES.split(), "\n"), **_CLOSING}
_IN_LINE: Final = dict.fromkeys(_OPENING, " ")  # in a cell whose row is a line
_SPACES: Final = re.compile(r"\s+")
_HEADINGS: Final = frozenset(["h1", "h2", "h3", "h4", "h5", "h6"])
# Not `head`: its end may be left unsaid, and then the parser puts the whole page into it.
_NO_CONTENT: Final = frozenset(["script", "style", "noscript", "template", "svg", "iframe", "title"])
_PARTS: Final = frozenset(["article", "main", "section"])  # have headers of their own
_LISTS: Final = frozenset(["ul", "ol", "table"])
_ROWS: Final = frozenset(["table", "tr", "td", "th", "pre", *_HEADINGS])  # with one of them a cell is no line
_LONGEST_CELL: Final = 500  # characters; of a longer one, as in a table that only lays out the page, the lines stay
_MOST_TAGS: Final = 100  # in a cell, and in a tag of it
_NAVIGATION_ROLES: Final = frozenset(["navigation", "banner", "contentinfo", "search", "menu", "menubar"])
# What the people who write pages call their menus, in ids and classes.
_NAVIGATION_NAMES: Final = (
    "nav navbar navigation menu breadcrumb breadcrumbs sidebar cookie cookies consent skip toc pagination share social"
)
# What they add to such a name. With any other word it names something else: `share-price`, `social-security`.
_NAVIGATION_PARTS: Final = (
    "main primary secondary sub top bottom left right header footer head foot site page global local mobile desktop "
    "bar banner notice notification popup modal overlay message dialog list items item link links button buttons btn "
    "icon icons media wrapper wrap container inner outer box block section area widget panel row col tool tools "
    "toolbar tree level dropdown drawer toggle trail to content and bs js ui is open closed active fixed sticky hidden "
    "visible"
)
_NAMING: Final = frozenset(_NAVIGATION_NAMES.split())
_ADDED: Final = _NAMING.union(_NAVIGATION_PARTS.split())
_ABOUT_COOKIES: Final = frozenset(["cookie", "cookies", "consent"])  # such a notice may be longer than a page
_LEAST_LINKS: Final = 4  # a shorter list of links may be an answer
_LINK_SHARE: Final = 0.8  # of a list's text that stands in links, from which it is a menu
_MOST: Final = 200  # more of them are a list of teasers
_LEAST_MAIN: Final = 200  # characters in <main>, from which the rest of the page is left out


def read_html(path: Path, job: ReadingJob) -> Iterator[Piece | LeftOut]:
    """Read a page without its navigation; its own statement of its encoding counts, where it is true."""
    markup, encoding = _decoded(job.whole(path))
    yield Piece(html_text(markup))
    yield from encoding_note(encoding)


def _decoded(raw: bytes) -> tuple[str, TextEncoding]:
    from bs4.dammit import EncodingDetector

    return decode_declared(raw, EncodingDetector.find_declared_encoding(raw, is_html=True))


def html_text(markup: str) -> str:
    """Reduce a page to its text: a line a block, headings marked as in Markdown.

    Scripts, menus and buttons are left out, as are the page's header and footer, and lists of nothing but links. If the
    page says where its main part is, that is all that counts; articles without the page's heading that hold the smaller
    part of its text are teasers, and no main part. A page of nothing but these is kept whole.

    Raises:
        UnreadableError: It cannot be parsed.
    """
    page = _parsed(markup)
    named = page.find_all("main") or page.find_all(role="main")
    marked = named or page.find_all("article")
    mains: list[Any] = [tag for tag in marked if tag.find_parent(tag.name) is None] if len(marked) <= _MOST else []
    if sum(len(tag.get_text(strip=True)) for tag in mains) < _LEAST_MAIN:
        mains = []
    may_be_teasers = bool(mains) and not named and all(tag.h1 is None for tag in mains)
    # Nothing that holds the title or the main part is navigation, whatever its name.
    holders: set[int] = set()
    for tag in page.find_all(["h1", "main", "article"]):
        holder: Any = tag
        while holder is not None and id(holder) not in holders:
            holders.add(id(holder))
            holder = holder.parent
    heart = _heart(page)

    def text_of(roots: list[Any], *, parts: bool) -> str:
        return _walked(roots, lambda tag, inside: _is_navigation(tag, holders, heart, parts or inside))

    text = text_of(mains or [page], parts=bool(mains))
    if may_be_teasers and len(whole := text_of([page], parts=False)) > 2 * len(text):
        text = whole
    text = text or _walked([page], None)
    title = page.title.get_text(" ", strip=True) if page.title and not page.title.find_parent(["svg", "nav"]) else ""
    heading = text.split("\n", 1)[0].lstrip("# ")
    return f"{title}\n\n{text}".strip() if title and title != heading else text


def _parsed(markup: str) -> BeautifulSoup:
    from bs4 import BeautifulSoup
    from bs4.exceptions import ParserRejectedMarkup

    errors = (ParserRejectedMarkup, AssertionError, ValueError, RecursionError)
    try:
        return BeautifulSoup(markup, "html.parser")
    except errors:
        # Declarations such as `<![foo[ x ]]>`, which nobody knows.
        try:
            return BeautifulSoup(re.sub("<!(?!--|doctype)", "&lt;!", markup, flags=re.IGNORECASE), "html.parser")
        except errors as err:
            raise UnreadableError(f"is HTML that cannot be parsed ({first_line(err)}); save it again") from err


def _walked(roots: Iterable[Any], is_navigation: Callable[[Any, bool], bool] | None) -> str:
    """One walk over the page, so that the time grows with its size and no faster.

    Args:
        roots: Where to begin.
        is_navigation: Says whether to leave a tag out; also told whether it lies in a part with headers of its own.
            None: everything is kept, menus too.
    """
    from bs4.element import CData, NavigableString, Tag

    pieces: list[str] = []
    words = 0  # pieces that say something
    links = [0, 0, 0]  # characters, characters in links, and links, so far
    in_link = inside = in_pre = in_line = 0  # open tags of a kind: links; parts with headers; text as it stands; lines
    todo: list[Any] = list(reversed(list(roots)))
    while todo:
        node = todo.pop()
        if isinstance(node, tuple):  # the end of a tag: is it a cell in a line, where did it begin, what was before
            tag, is_line, mark, before, links_before = node
            in_link -= tag.name == "a"
            inside -= tag.name in _PARTS
            in_pre -= tag.name == "pre"
            in_line -= is_line
            if tag.name in _HEADINGS and words == before:
                pieces[mark] = ""
            if is_navigation and tag.name in _LISTS and _is_menu(links, links_before):
                del pieces[mark:]
            pieces.append((_IN_LINE if in_line else _CLOSING).get(tag.name, ""))
        elif isinstance(node, Tag):
            if node.name in _NO_CONTENT or (is_navigation and is_navigation(node, bool(inside))):
                continue
            in_link += node.name == "a"
            links[2] += node.name == "a"
            inside += node.name in _PARTS
            in_pre += node.name == "pre"
            pieces.append((_IN_LINE if in_line else _OPENING).get(node.name, ""))
            mark = len(pieces)
            is_line = node.name in ("td", "th") and _is_line(node)
            in_line += is_line
            if node.name in _HEADINGS:
                pieces.append("#" * int(node.name[1]) + " ")
            todo.append((node, is_line, mark, words, tuple(links)))
            todo.extend(reversed(node.contents))
        elif type(node) in (NavigableString, CData):
            pieces.append(str(node) if in_pre else _SPACES.sub(" ", node))
            length = len(node.strip())
            words += length > 0
            links[0] += length
            links[1] += length * (in_link > 0)
    rows = [line.split(_CELL) for line in "".join(pieces).splitlines()]
    lines = [" | ".join(filter(None, (" ".join(cell.split()) for cell in row))) for row in rows]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def _is_line(cell: Any) -> bool:
    """Whether a cell is short enough for its row to be a line; looks at no more than that takes."""
    from bs4.element import Tag

    characters = tags = 0
    todo: list[Any] = [cell]
    while todo:
        node = todo.pop()
        if not isinstance(node, Tag):
            characters += len(node.strip())
            continue
        tags += 1
        if (node is not cell and node.name in _ROWS) or tags + len(node.contents) > _MOST_TAGS:
            return False
        todo.extend(node.contents)
    return characters <= _LONGEST_CELL


def _heart(page: BeautifulSoup) -> set[int]:
    """The tags, one in the other, that hold the greater part of the page's text outside links: none is a menu.

    Programs name the box around a whole page after the state of its menu: `menu-open`, `sidebar-right`.
    """
    from bs4.element import NavigableString, Tag

    prose: dict[int, int] = {}  # characters in a tag
    todo: list[Any] = [page]
    while todo:
        node = todo.pop()
        if isinstance(node, tuple):  # the end of a tag, whose children are counted
            tag = node[0]
            prose[id(tag)] = sum(
                prose.get(id(child), 0) if isinstance(child, Tag) else len(child.strip())
                for child in tag.contents
                if isinstance(child, Tag) or type(child) is NavigableString
            )
        elif node.name not in _NO_CONTENT and node.name != "a":
            todo.append((node,))
            todo.extend(child for child in node.contents if isinstance(child, Tag))
    heart: set[int] = set()
    tag = page
    while tag is not None:
        heart.add(id(tag))
        tag = next((one for one in tag.contents if 2 * prose.get(id(one), 0) > prose[id(page)]), None)
    return heart


def _is_navigation(tag: Any, holders: set[int], heart: set[int], inside: bool) -> bool:
    if tag.name in ("nav", "button") or tag.get("role") in _NAVIGATION_ROLES or tag.has_attr("hidden"):
        return True
    if id(tag) in holders or tag.name not in ("div", "ul", "ol", "section", "aside", "header", "footer"):
        return False
    if not inside and tag.name in ("header", "footer", "aside"):
        return True
    names = list(tag.get("class") or [])
    if tag.name != "section" or not tag.find(_HEADINGS, recursive=False):  # whose id may be its heading: `cookies`
        names.append(str(tag.get("id") or ""))
    named = _ABOUT_COOKIES if id(tag) in heart else _NAMING
    words = (re.findall(r"[^-_\d]+", name.lower()) for name in names)
    return any(not named.isdisjoint(parts) and _ADDED.issuperset(parts) for parts in words)


def _is_menu(links: list[int], before: tuple[int, int, int]) -> bool:
    characters, in_links, number = (now - then for now, then in zip(links, before, strict=True))
    # Sources and further reading are long; a menu's items are a few words.
    return number >= _LEAST_LINKS and in_links >= _LINK_SHARE * characters and in_links < 40 * number


# --- e-books ----------------------------------------------------------------------------------------------------------


def read_epub(path: Path, job: ReadingJob) -> Iterator[Piece | LeftOut]:
    """Read the chapters of an e-book in the order in which they are read, a document a chapter."""
    members = set(open_office_zip(path, job))
    broken = 0
    notes: dict[TextEncoding, None] = {}
    with zipfile.ZipFile(path) as book:
        for name in _chapters(book, members):
            try:
                markup = book.read(name)
            except (KeyError, zipfile.BadZipFile, OSError, EOFError):
                broken += 1
                continue
            if not markup.strip():
                continue
            if b"<" not in markup[:2048]:
                raise UnreadableError("is locked to a reader's account (DRM); ask for a copy without", "encrypted")
            text, encoding = _decoded(markup)
            notes[encoding] = None
            yield Piece(html_text(text))
    for encoding in notes:
        yield from encoding_note(encoding)
    if broken:
        yield LeftOut(f"has {broken} broken chapters, which were left out", "broken")


def _chapters(book: zipfile.ZipFile, members: set[str]) -> list[str]:
    try:
        container = _parsed(decode(book.read("META-INF/container.xml"))[0])
        root = str(container.find("rootfile")["full-path"])  # type: ignore[index]
        package = _parsed(decode(book.read(root))[0])
    except (KeyError, TypeError, zipfile.BadZipFile) as err:
        raise UnreadableError("is no e-book, or a broken one: its list of contents is missing") from err
    tags = [(str(tag.name).rpartition(":")[2], tag) for tag in package.find_all(True)]
    files = {tag.get("id"): tag for name, tag in tags if name == "item"}
    order = [files.get(tag.get("idref")) for name, tag in tags if name == "itemref"]
    names = []
    for item in order:
        if item is None or "html" not in str(item.get("media-type")) or "nav" in str(item.get("properties")).split():
            continue
        names.append(posixpath.normpath(posixpath.join(posixpath.dirname(root), unquote(str(item.get("href"))))))
    found = [name for name in names if name in members]
    if not found:
        raise UnreadableError("is an e-book without chapters of text")
    return found
