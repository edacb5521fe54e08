"""Pages, e-books, messages and tables as other programs leave them: nothing is lost in silence."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from llama_index_embft.dataset import ReadingSettings, load_documents
from llama_index_embft.dataset.documents.readers import read_file

LONG = "A day costs forty euros, and every day behind the first costs ten euros less. " * 4
TEASERS = "".join(f"<article><h3>Offer {n}</h3>{'Words about something else. ' * 3}</article>" for n in range(4))


def texts(path: Path) -> list[str]:
    return [document.text for document in load_documents(path, show_progress=False)]


@pytest.mark.parametrize(
    ("markup", "expected"),
    [
        (f"<head><title>Site</title><meta charset=utf-8><body><h1>Rates</h1><p>{LONG}", "Site\n\n# Rates\n\n"),
        (f"<html><head><title>Site</title><h1>Rates</h1><p>{LONG}", "Site\n\n# Rates\n\n"),
        (f"<body><div><h1>Rates</h1>{LONG * 3}</div>{TEASERS}", "# Rates\n"),
        (f"<body><div class='menu-open wide'><h2>Rates</h2>{LONG}</div><p>Copyright</p>", "## Rates\n"),
        (f"<div id=cookie-notice>{LONG * 9}</div><div><h2>Rates</h2>{LONG}</div>", "## Rates\n"),
    ],
)
def test_no_page_loses_its_main_part(tmp_path: Path, markup: str, expected: str) -> None:
    (tmp_path / "a.html").write_text(markup)
    (text,) = texts(tmp_path)
    assert text.startswith(expected + LONG.strip())


def test_articles_with_the_heading_or_most_of_the_text_are_the_main_part(tmp_path: Path) -> None:
    for heading, body in (("h1", LONG), ("h2", LONG * 9)):
        post = f"<article><{heading}>Rates</{heading}>{body}</article>"
        (tmp_path / "a.html").write_text(f"<body>{post}<div>{'A comment. ' * 99}</div>")
        assert "comment" not in texts(tmp_path)[0]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("<table>\n<tr>\n<td>\nEurope\n</td>\n<td>40\neuros</td>\n</tr>\n</table>", "Europe | 40 euros"),
        ("<table><tr><td><p>Europe</p></td><td><ul><li>40</li><li>50</li></ul></td></tr></table>", "Europe | 40 50"),
        ("<table><tr><td>Europe<br>(EU)<td>40<tr><td>Asia<td>50</table>", "Europe\n(EU) | 40\nAsia | 50"),
        ("<table><tr><td><h2>Rates</h2><p>Low.</p></td></tr></table>", "## Rates\n\nLow."),
        (f"<table><tr><td><p>{LONG}</p><p>{LONG}</p></td></tr></table>", f"{LONG.strip()}\n\n{LONG.strip()}"),
        ("<p>A line that\nthe source breaks.</p><pre>one\ntwo</pre>", "A line that the source breaks.\n\none\ntwo"),
    ],
)
def test_a_row_is_a_line_however_the_source_is_set(tmp_path: Path, body: str, expected: str) -> None:
    (tmp_path / "a.html").write_text(f"<body>{body}")
    assert texts(tmp_path / "a.html") == [expected]


def test_an_empty_chapter_does_not_end_a_book(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "b.epub", "w") as book:
        book.writestr("META-INF/container.xml", '<container><rootfile full-path="c.opf"/></container>')
        chapters = {"a": "<p>One</p>", "b": "", "c": "<p>Two</p>"}
        items = "".join(f'<item id="{n}" href="{n}.xhtml" media-type="application/xhtml+xml"/>' for n in chapters)
        order = "".join(f'<itemref idref="{n}"/>' for n in chapters)
        book.writestr("c.opf", f"<package><manifest>{items}</manifest><spine>{order}</spine></package>")
        for name, text in chapters.items():
            book.writestr(f"{name}.xhtml", text)
    loaded = load_documents(tmp_path / "b.epub")
    assert [document.text for document in loaded] == ["One", "Two"]
    assert not loaded.skipped


BROKEN = ['"a" <', "a: b@c.d; e: f@g.h", "=?utf-8?b?####?=", "a@["]


@pytest.mark.parametrize("header", BROKEN)
def test_a_header_that_pythons_parser_stumbles_over_costs_no_message(tmp_path: Path, header: str) -> None:
    inner = f"Subject: Inner\nTo: {header}, {'x' * 90}\n\nText."
    (tmp_path / "m.eml").write_text(f"Subject: Outer\nFrom: {header}\nContent-Type: message/rfc822\n\n{inner}\n")
    assert [text.splitlines()[0] for text in texts(tmp_path / "m.eml")] == ["# Outer", "# Inner"]
    mail = f"From a\nSubject: One\n\nText.\n\nFrom b\n{inner}\n\nFrom c\nSubject: Three\n\nText.\n"
    (tmp_path / "all.mbox").write_text(mail)
    assert [text.splitlines()[0] for text in texts(tmp_path / "all.mbox")] == ["# One", "# Inner", "# Three"]


def test_a_message_that_no_parser_takes_costs_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from llama_index_embft.dataset.documents import mail

    read = mail._letter

    def stumbling(message):
        if message["Subject"] == "Two":
            raise AttributeError("local_part")
        return read(message)

    monkeypatch.setattr(mail, "_letter", stumbling)
    (tmp_path / "all.mbox").write_text("".join(f"From a\nSubject: {n}\n\nText.\n\n" for n in ("One", "Two", "Three")))
    loaded = load_documents(tmp_path / "all.mbox")
    assert len(loaded) == 2
    assert [one.reason for one in loaded.skipped] == ["holds 1 broken messages, which were left out"]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("mac.csv", 'name,city\rAnna,Rome\rB,"Ulm\r2"\r', ["name: Anna\ncity: Rome", "name: B\ncity: Ulm\r2"]),
        ("lines.json", '\n{"a": "x\u2028y"}\n{"a": "z"}\n', ["a: x\u2028y", "a: z"]),
    ],
)  # fmt: skip
def test_ends_of_lines_of_other_programs(tmp_path: Path, name: str, content: str, expected: list[str]) -> None:
    (tmp_path / name).write_bytes(content.encode())
    assert texts(tmp_path / name) == expected


@pytest.mark.parametrize("name", ["a.txt", "a.csv"])
def test_damaged_utf16_is_said(tmp_path: Path, name: str) -> None:
    raw = "id,name\n1,Größe ".encode("utf-16-le") + b"\x00\xd8" + " zwei".encode("utf-16-le")
    (tmp_path / name).write_bytes(b"\xff\xfe" + raw)
    loaded = load_documents(tmp_path / name)
    assert loaded[0].text.endswith("Größe \ufffd zwei")
    assert [one.reason[:36] for one in loaded.skipped] == ["is UTF-16 with damaged characters, w"]


def test_long_cells_are_read_while_another_thread_ends_reading(tmp_path: Path) -> None:
    rows = "Bert,short\n" * 30
    (tmp_path / "a.csv").write_text(f"name,text\n{rows}Anna,{'word ' * 40_000}\n")
    first, second = (read_file(tmp_path / "a.csv", ReadingSettings()) for _ in range(2))
    next(first), next(second)
    assert len(list(first)) == len(list(second)) == 30
