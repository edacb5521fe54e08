"""Files as offices have them, made by the libraries that offices use, and read."""

from __future__ import annotations

import base64
import datetime
import json
import logging
import mailbox
import tarfile
import zipfile
import zlib
from email.message import EmailMessage
from pathlib import Path

import docx
import openpyxl
import pptx
import pytest
import xlrd
from docx.oxml import parse_xml

from llama_index_embft.dataset import ReadingSettings, documents_to_nodes, load_documents
from llama_index_embft.errors import ConfigError

W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
# An Excel file of 1997: "part, price, since, sold" over "Hinge, 2.5, 2020-01-31, TRUE", in a sheet "Prices".
OLD_EXCEL = (
    "c-rk)O=uHA6#iy6X?|$)Q&XiCN+?)uZ3Xe-rQIskdP#{M{G*_0vXs!0giSAcv08H!1W$^WLOpn}>ct;a(3=OLq6a|`5<T`LD0pbI"
    "zIoY|v{q<93zhl8ym>z}Z(e5R&Ft>m#b|l%VMhgPFbEx0JAkG-ouCqMg$T%Q+mdx_KNVYHOCjK=g>3TTS<4%rTtm6u6=-<ic|{cX"
    "Ol1rOjOKG@d=qh)V@L@Z!vIl%+oTDhoug`Hnr6C<>3weboaqp2t}z{;wq<b^i^gd0L1!1A*1Fghg7o{C`+Q{0ezf7W+{Kr!i&|SR"
    "4q4gM)D|;zdYUm0TF?<QXIfGY;|_wr8A5*|(LX#~MvNAF9^dUa@XgKYmvN=vT)hD4f2`K~{-F2MBCgfn&^*8l?DL!?CEC<GJhenl"
    "TG_N&T*f}y72raKLdu#Zwjga(7qhvvN$O&LDnsJ2Y;M8~%4437g~+O7p@q|>nP>)K=A)c65sGX1?$>vT@uYE%H8Xq_)Gmx&GCtV2"
    "EPGJr5L+~+($dTPUZz*r>rUo7n8qk>s=JeI4s&#t+gxR9H;r?E@!r^7$L}G&v~>JQXX%U4L;S)><zj5%gE5CLy1+8jU;bv%C;G&#"
    "n-WhAw-(Of@`-8tZwHNEi#V~{&aD{6icBp+lxa<pvm<^<nlo25Nhe8ne2H~@3HBvt=LJP0*w>OSkG+%kH1gxs{G`))gh8zpk9azV"
    ">aOY_6ciK`6ciK`6cpBha302W=W*QYJnZ|N?>Z|~s_HYze~S~y({GwyDvuyXwS@}}?Vs)N3fGs|U?2B;p~NW~-NGcsIgZJO_b<Jy"
    "iTeMu;f|5NmqLw>Uu`7Le?0zA7fsdI"
)


def texts(path: Path, **settings: object) -> list[str]:
    return [document.text for document in load_documents(path, settings=ReadingSettings(**settings))]


def make_docx(path: Path) -> Path:
    document = docx.Document()
    document.sections[0].header.paragraphs[0].text = "Company confidential"
    document.add_heading("Travel policy", 0)
    document.add_heading("Flights", 2)
    document.add_paragraph("Economy class is the rule.")
    table = document.add_table(2, 2)
    for cell, text in zip(
        [c for row in table.rows for c in row.cells], ["Zone", "Rate", "Europe", "40 EUR"], strict=True
    ):
        cell.text = text
    for xml in (
        "<w:p {}><w:r><w:t>Kept </w:t></w:r><w:ins w:id='1'><w:r><w:t>inserted</w:t></w:r></w:ins>"
        "<w:del w:id='2'><w:r><w:delText>deleted</w:delText></w:r></w:del></w:p>",
        "<w:sdt {}><w:sdtContent><w:p><w:r><w:t>From a form field.</w:t></w:r></w:p></w:sdtContent></w:sdt>",
    ):
        document.element.body.insert(-1, parse_xml(xml.format(W)))
    document.save(path)
    return path


def test_word_files_keep_headings_tables_and_what_was_inserted(tmp_path: Path) -> None:
    (text,) = texts(make_docx(tmp_path / "a.docx"))
    assert text == (
        "# Travel policy\n\n## Flights\n\nEconomy class is the rule.\n\nZone | Rate\nEurope | 40 EUR\n\n"
        "Kept inserted\n\nFrom a form field."
    )


def test_excel_gives_a_document_a_row_with_its_sheet(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "Prices"
    sheet.append(["Price list 2024"])
    sheet.append([])
    sheet.append(["part", "price", "since"])
    sheet.append(["Hinge", 2.5, datetime.datetime(2020, 1, 31)])
    sheet.append([None, None, None])
    sheet.append(["Bolt", 3, None])
    notes = book.create_sheet("Notes")
    notes.append(["These prices hold until the end of the year."])
    book.save(tmp_path / "p.xlsx")
    documents = load_documents(tmp_path / "p.xlsx")
    assert [(d.id_, d.text) for d in documents] == [
        ("p.xlsx#1", "Price list 2024"),
        ("p.xlsx#2", "part: Hinge\nprice: 2.5\nsince: 2020-01-31"),
        ("p.xlsx#3", "part: Bolt\nprice: 3"),
        ("p.xlsx#4", "These prices hold until the end of the year."),
    ]
    assert [d.metadata["sheet"] for d in documents] == ["Prices"] * 3 + ["Notes"]
    assert documents[0].get_content("embed").startswith("sheet: Prices\nfile_name: p.xlsx\n\nPrice list")


def test_excel_of_before_2007(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "o.xls").write_bytes(zlib.decompress(base64.b85decode("".join(OLD_EXCEL))))
    (document,) = load_documents(tmp_path / "o.xls")
    assert document.text == "part: Hinge\nprice: 2.5\nsince: 2020-01-31\nsold: True"
    assert document.metadata["sheet"] == "Prices"
    read = xlrd.sheet.Sheet.cell_value
    monkeypatch.setattr("xlrd.sheet.Sheet.row", lambda self, row: [
        xlrd.sheet.Cell(*((xlrd.XL_CELL_ERROR, 42) if (row, at) == (1, 1) else (1, str(read(self, row, at)))))
        for at in range(self.ncols)
    ])  # fmt: skip
    assert "price: #N/A\n" in texts(tmp_path / "o.xls")[0]


def test_slides_have_their_title_their_notes_and_their_number(tmp_path: Path) -> None:
    show = pptx.Presentation()
    slide = show.slides.add_slide(show.slide_layouts[1])
    slide.shapes.title.text = "Results"
    slide.placeholders[1].text = "Sales grew\nCosts fell"
    table = slide.shapes.add_table(1, 2, 0, 5_000_000, 100, 100).table
    table.cell(0, 0).text, table.cell(0, 1).text = "2023", "12 %"
    group = slide.shapes.add_group_shape()
    group.shapes.add_textbox(0, 6_000_000, 10, 10).text_frame.text = "In a group"
    slide.notes_slide.notes_text_frame.text = "Mention the new plant."
    show.slides.add_slide(show.slide_layouts[6])
    show.slides.add_slide(show.slide_layouts[5]).shapes.title.text = "Thanks"
    show.save(tmp_path / "s.pptx")
    documents = load_documents(tmp_path / "s.pptx")
    assert [d.metadata["page_label"] for d in documents] == ["1", "3"]
    blocks = documents[0].text.split("\n\n")
    assert (blocks[0], blocks[-1]) == ("# Results", "Notes: Mention the new plant.")
    assert sorted(blocks[1:-1]) == ["2023 | 12 %", "In a group", "Sales grew\nCosts fell"]


def test_books_are_read_chapter_by_chapter_in_their_own_order(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "b.epub", "w") as book:
        book.writestr("mimetype", "application/epub+zip")
        book.writestr(
            "META-INF/container.xml", '<container><rootfiles><rootfile full-path="in/c.opf"/></rootfiles></container>'
        )
        book.writestr(
            "in/c.opf",
            '<package><manifest><item id="n" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/>'
            '<item id="z" href="z%20first.xhtml" media-type="application/xhtml+xml"/>'
            '<item id="a" href="a.xhtml" media-type="application/xhtml+xml"/></manifest>'
            '<spine><itemref idref="n"/><itemref idref="z"/><itemref idref="a"/></spine></package>',
        )
        book.writestr("in/nav.xhtml", "<html><body>Contents</body></html>")
        book.writestr("in/z first.xhtml", "<html><body><h1>One</h1><p>It began.</p></body></html>")
        book.writestr("in/a.xhtml", "<html><body><h1>Two</h1><p>It ended.</p></body></html>")
    assert texts(tmp_path / "b.epub") == ["# One\n\nIt began.", "# Two\n\nIt ended."]


def test_rtf_notebooks_and_source_code(tmp_path: Path) -> None:
    (tmp_path / "a.rtf").write_text(r"{\rtf1\ansi Caf\'e9 {\b bold}\par Next\u8364?}")
    cells = [
        {"cell_type": "markdown", "source": ["# Load\n", "the data"]},
        {"cell_type": "code", "source": "x = 1", "outputs": [{"text": "noise"}]},
    ]
    told = {"language_info": {"name": "python"}}
    (tmp_path / "b.ipynb").write_text(json.dumps({"nbformat": 4, "cells": cells, "metadata": told}))
    (tmp_path / "c.py").write_text("def f():\n    return 1\n")
    assert texts(tmp_path) == [
        "Café bold\nNext€", "# Load\nthe data\n\n```python\nx = 1\n```", "def f():\n    return 1\n"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", "name,year\nAda,1815\n\nAlan,1912\n", ["name: Ada\nyear: 1815", "name: Alan\nyear: 1912"]),
        ("b.csv", 'frage;antwort\n"Wie; viel?";"40\nEUR"\n', ["frage: Wie; viel?\nantwort: 40\nEUR"]),
        ("c.tsv", "q\ta\nwhy, though\tso\n", ["q: why, though\na: so"]),
        ("d.csv", "1,2\n3,4\n", ["1, 2\n3, 4"]),
        ("e.csv", 'text\n"A sentence, with a comma."\n', ["text: A sentence, with a comma."]),
        ("f.json", '[{"q": "why", "by": {"name": "Ada"}, "tags": ["a", "b"], "n": null}, "bare"]',
         ["q: why\nby.name: Ada\ntags: a; b", "bare"]),
        ("g.json", '{"version": 2, "rows": [{"a": 1}, {"a": 2}]}', ["a: 1", "a: 2"]),
        ("h.json", '{"title": "One", "parts": {"x": [1, 2]}}', ["title: One\nparts.x: 1; 2"]),
        ("i.json", '{"a": 1}\n{"a": 2}\n', ["a: 1", "a: 2"]),
        ("j.jsonl", '{"a": 1}\nnot json\n\n{"a": 2}\n', ["a: 1", "a: 2"]),
    ],
)  # fmt: skip
def test_rows_and_records_become_documents(tmp_path: Path, name: str, content: str, expected: list[str]) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert texts(tmp_path / name) == expected


def message(subject: str, body: str) -> EmailMessage:
    mail = EmailMessage()
    mail["Subject"], mail["From"], mail["To"] = subject, "Ada <ada@example.org>", "office@example.org"
    mail.set_content(body)
    return mail


def test_mail_is_read_with_its_attachments(tmp_path: Path) -> None:
    mail = message("Größe", "Siehe Anhang.")
    mail.add_alternative("<p>Siehe <b>Anhang</b>.</p>", subtype="html")
    mail.add_attachment(make_docx(tmp_path / "x.docx").read_bytes(), "application", "octet-stream", filename="x.docx")
    mail.add_attachment(b"\x89PNG", "image", "png", filename="logo.png")
    mail.add_attachment(b"junk", "application", "octet-stream", filename="tool.exe")
    mail.add_attachment(message("Sent on", "The inner text."))
    (tmp_path / "m.eml").write_bytes(mail.as_bytes())
    documents = load_documents(tmp_path / "m.eml")
    found = {d.id_: d.text for d in documents}
    assert found["m.eml"] == "# Größe\n\nFrom: Ada <ada@example.org>\nTo: office@example.org\n\nSiehe Anhang."
    assert found["m.eml/x.docx"].startswith("# Travel policy")
    assert found["m.eml/message 4.eml"].endswith("The inner text.")
    assert [(one.name, one.cause) for one in documents.skipped] == [("m.eml/tool.exe", "of a kind that is not read")]


HEAD = b"Subject: S\nFrom: a@b.c\nMIME-Version: 1.0\n"


@pytest.mark.parametrize(
    ("kind", "body", "expected", "note"),
    [
        (b"", "Grüße".encode(), "Grüße", ""),
        (b"text/plain; charset=us-ascii", "Grüße".encode(), "Grüße", ""),
        (b"text/plain; charset=iso-8859-1", "Grüße für 3 €".encode("cp1252"), "Grüße für 3 €", ""),
        (b"text/plain; charset=utf-8", "Grüße aus München".encode("cp1252"), "Grüße aus München", "read as cp1252"),
        (b"text/plain; charset=x-odd", "Grüße aus München".encode("cp1252"), "Grüße aus München", "read as cp1252"),
        (b"text/html; charset=koi8-r", "<p>Привет</p>".encode("koi8-r"), "Привет", ""),
    ],
)
def test_the_words_of_a_message_survive_a_wrong_charset(
    tmp_path: Path, kind: bytes, body: bytes, expected: str, note: str
) -> None:
    stated = b"Content-Type: " + kind + b"\n" if kind else b""
    (tmp_path / "m.eml").write_bytes(HEAD + stated + b"Content-Transfer-Encoding: 8bit\n\n" + body)
    loaded = load_documents(tmp_path / "m.eml")
    assert loaded[0].text == f"# S\n\nFrom: a@b.c\n\n{expected}"
    assert [note in one.reason for one in loaded.skipped] == [True] * bool(note)


def test_letters_that_stand_in_a_header_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "m.eml").write_bytes("Subject: Grüße aus München\nFrom: a@b.c\n\nText".encode())
    assert texts(tmp_path / "m.eml") == ["# Grüße aus München\n\nFrom: a@b.c\n\nText"]


def test_no_part_of_a_message_is_lost(tmp_path: Path) -> None:
    empty = message("S", "\n")
    empty.add_alternative("<p>The offer is 300 euro.</p>", subtype="html")
    (tmp_path / "a.eml").write_bytes(empty.as_bytes())
    assert texts(tmp_path / "a.eml")[0].endswith("\n\nThe offer is 300 euro.")
    two = message("S", "First half.")
    two.add_attachment("Second half.", disposition="inline")
    (tmp_path / "b.eml").write_bytes(two.as_bytes())
    assert texts(tmp_path / "b.eml")[0].endswith("First half.\n\nSecond half.")
    inner = EmailMessage()
    inner.set_content("Signed.")
    inner.add_attachment("The contract.", filename="contract.txt")
    sign = b"--XX\nContent-Type: application/pgp-signature; name=s.asc\n\nx\n--XX--\n"
    signed = b"Content-Type: multipart/signed; boundary=XX\n\n--XX\n" + inner.as_bytes() + b"\n" + sign
    (tmp_path / "c.eml").write_bytes(HEAD + signed)
    loaded = load_documents(tmp_path / "c.eml")
    assert [one.text.rsplit("\n", 1)[-1].strip() or one.text.strip() for one in loaded] == ["Signed.", "The contract."]
    assert not loaded.skipped
    two.add_attachment("Unnamed.")
    (tmp_path / "d.eml").write_bytes(two.as_bytes())
    assert [one.text.strip() for one in load_documents(tmp_path / "d.eml")][1:] == ["Unnamed."]
    (tmp_path / "all.mbox").write_bytes(b"From a@b.c Thu Jan  1 00:00:00 2020\n" + two.as_bytes())
    assert "holds 1 attachments, which were left out" in load_documents(tmp_path / "all.mbox").skipped[0].reason


def test_a_mailbox_gives_a_document_a_message(tmp_path: Path) -> None:
    box = mailbox.mbox(tmp_path / "all.mbox")
    for number in range(2):
        box.add(message(f"Nr {number}", "Text."))
    box.close()
    assert [text.splitlines()[0] for text in texts(tmp_path / "all.mbox")] == ["# Nr 0", "# Nr 1"]


def test_archives_are_opened_and_their_files_named(tmp_path: Path) -> None:
    make_docx(tmp_path / "p.docx")
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        archive.writestr("notes.txt", "Inner notes.")
    with tarfile.open(tmp_path / "t.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "p.docx", "2024/p.docx")
        archive.add(tmp_path / "in.zip", "2024/in.zip")
    for used in ("p.docx", "in.zip"):
        (tmp_path / used).unlink()
    documents = load_documents(tmp_path)
    assert [d.id_ for d in documents] == ["t.tar.gz/2024/p.docx", "t.tar.gz/2024/in.zip/notes.txt"]
    assert documents[1].metadata == {"file_name": "notes.txt", "file_path": "t.tar.gz/2024/in.zip/notes.txt"}
    assert documents_to_nodes(documents)


PAGE = """<html><head><title>Rates - Site</title></head><body>
<header><a href=/>Home</a> Welcome to the site</header>
<div id="cookie-banner">We use cookies.</div>
<ul><li><a href=1>Start</a></li><li><a href=2>Products</a></li>
<li><a href=3>Press</a></li><li><a href=4>Jobs</a></li></ul>
<div class="content has-sidebar-none"><h1>Rates</h1><p>A day costs <a href=5>40 euros</a>.</p>
<ul><li>Europe: <a href=6>40</a></li><li>Asia: 50</li></ul></div>
<footer>All rights reserved</footer></body></html>"""


def test_pages_are_read_without_navigation(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(PAGE)
    assert texts(tmp_path) == ["Rates - Site\n\n# Rates\n\nA day costs 40 euros.\n\nEurope: 40\nAsia: 50"]
    long = "A sentence of the main part. " * 10
    (tmp_path / "a.html").write_text(f"<body><div>Teaser</div><main><header><h2>Head</h2></header>{long}</main></body>")
    assert texts(tmp_path) == [f"## Head\n\n{long.strip()}"]
    (tmp_path / "a.html").write_text("<body><nav><a href=1>One</a> <a href=2>Two</a></nav></body>")
    assert texts(tmp_path) == ["One Two"]  # a page of nothing else: better that than nothing


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("<table><caption>Rates</caption><tr><th>Zone<th>Day<tr><td>Europe</td><td></td><td>40 euros</td></tr></table>",
         "Rates\n\nZone | Day\nEurope | 40 euros"),
        ("<label>Unit</label><select><option>gram</option><option>ounce</option></select>", "Unit\ngram | ounce"),
        ("<details><summary>May I?</summary>You may.</details>", "May I?\nYou may."),
        ("<div class='share-price'>The share costs 3 euros.</div><div id=social-security>Everybody pays.</div>"
         "<div class='social-media-links'>Tweet</div><div id=cookie-banner2>We use some.</div>"
         "<ul class=nav__list>Go</ul>",
         "The share costs 3 euros.\n\nEverybody pays."),
        ("<section id=cookies><h2>Cookies</h2>The server sets one.</section>", "## Cookies\nThe server sets one."),
    ],
)  # fmt: skip
def test_pages_lose_no_cell_and_no_block(tmp_path: Path, body: str, expected: str) -> None:
    (tmp_path / "a.html").write_text(f"<body>{body}</body>")
    (text,) = texts(tmp_path)
    assert text == expected


RUSSIAN = "Договор вступает в силу со дня его подписания обеими сторонами и действует один год."
CHINESE = "本合同自双方签字盖章之日起生效,有效期为一年,期满后可以续签。"
POLISH = "Zażółć gęślą jaźń, bo tak trzeba robić zawsze."


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (POLISH.encode("cp1250"), POLISH),
        (("Größe: the order of the plant. " * 40).encode("cp1252"), "Größe: the order of the plant. " * 40),
        (RUSSIAN.encode("cp1251"), RUSSIAN),
        (CHINESE.encode("gb18030"), CHINESE),
        (f"id,name\n1,{CHINESE}\n".encode("gb18030"), f"id,name\n1,{CHINESE}\n"),
        ("Grüße".encode("utf-16"), "Grüße"),
        ("Grüße aus Köln".encode("utf-16-le"), "Grüße aus Köln"),
        ("Grüße".encode("utf-32"), "Grüße"),
        ("Größe eins\n".encode() + "Größe zwei\n".encode("cp1252"), "Größe eins\nGröße zwei\n"),
        ("\u202bשלום עולם\u202c \u200fمرحبا\u200e".encode(), "שלום עולם مرحبا"),
    ],
)  # fmt: skip
def test_any_encoding_is_read(tmp_path: Path, raw: bytes, expected: str) -> None:
    (tmp_path / "a.txt").write_bytes(raw)
    assert texts(tmp_path) == [expected]


def test_one_bad_byte_does_not_make_another_encoding_of_utf8(tmp_path: Path) -> None:
    raw = RUSSIAN.encode()
    (tmp_path / "a.txt").write_bytes(raw[:15] + b"\xff" + raw[15:])
    loaded = load_documents(tmp_path)
    assert loaded[0].text == f"{RUSSIAN[:8]}\ufffd{RUSSIAN[8:]}"
    assert loaded.skipped[0].reason.startswith("is UTF-8 with damaged characters, which are shown as \ufffd")


def test_what_is_no_utf8_far_down_a_table_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llama_index_embft.dataset.documents.encoding._SAMPLE", 20)
    (tmp_path / "a.csv").write_bytes(b"name,place\n" + b"Ann,Rome\n" * 9 + "Jörg,Düsseldorf\n".encode("cp1252"))
    loaded = load_documents(tmp_path)
    assert loaded[-1].text == "name: Jörg\nplace: Düsseldorf"
    assert loaded.skipped[0].reason.startswith("mixes UTF-8 and cp1252")


@pytest.mark.parametrize(
    ("declared", "written", "note"),
    [("iso-8859-1", "utf-8", ""), ("windows-1251", "windows-1251", ""), ("utf-8", "windows-1251", "read as cp1251"),
     ("utf-16", "utf-8", ""), ("windows-1251", "utf-8", ""), ("windows-1251", "utf-8-sig", "")],
)  # fmt: skip
def test_a_page_declares_its_encoding_not_always_truly(tmp_path: Path, declared: str, written: str, note: str) -> None:
    (tmp_path / "a.html").write_bytes(f'<meta charset="{declared}"><p>{RUSSIAN}</p>'.encode(written))
    loaded = load_documents(tmp_path)
    assert loaded[0].text == RUSSIAN
    assert [note in one.reason for one in loaded.skipped] == [True] * bool(note)


def test_a_table_with_mixed_encodings_is_read_line_by_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [b"name,stadt\n", "Jürgen,Köln\n".encode(), "Jörg,Düsseldorf\n".encode("cp1252")]
    (tmp_path / "a.csv").write_bytes(b"".join(rows))
    with caplog.at_level(logging.WARNING):
        assert texts(tmp_path) == ["name: Jürgen\nstadt: Köln", "name: Jörg\nstadt: Düsseldorf"]
    assert "a.csv mixes UTF-8 and cp1252, read line by line" in caplog.text


def test_limits_are_checked() -> None:
    with pytest.raises(ConfigError, match="`max_rows` is 0; it must be at least 1"):
        ReadingSettings(max_rows=0)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", "Country,Capital,Capital\nGermany,Berlin,Bonn\nItaly,Rome,Turin\n",
         ["Country: Germany\nCapital: Berlin\nCapital 2: Bonn", "Country: Italy\nCapital: Rome\nCapital 2: Turin"]),
        ("b.csv", "Country,2019,Note\nGermany,good,fine\n", ["Country: Germany\n2019: good\nNote: fine"]),
        ("c.csv", "Ada,1815\nAlan,1912\nEmmy,1882\n", ["Ada, 1815\nAlan, 1912\nEmmy, 1882"]),
        ("d.csv", "a,5,7\nb,c,d\ne,f,g\n", ["a, 5, 7\nb, c, d\ne, f, g"]),
        ("e.csv", "The report\nname,city\nAda,London\n", ["The report", "name: Ada\ncity: London"]),
        ("f.json", '{"title": "On trees", "authors": [{"name": "Ann"}, {"name": "Bob"}]}',
         ["name: Ann", "name: Bob", "title: On trees"]),
    ],
)  # fmt: skip
def test_no_row_and_no_record_loses_its_place(tmp_path: Path, name: str, content: str, expected: list[str]) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert texts(tmp_path / name) == expected


def test_a_quote_that_nothing_closes_swallows_no_rows(tmp_path: Path) -> None:
    lines = [f"item{n},{n}" for n in range(100)]
    lines[60] = 'broken,"12'
    (tmp_path / "a.csv").write_text("name,size\n" + "\n".join(lines) + "\n")
    loaded = load_documents(tmp_path / "a.csv")
    assert [loaded[60].text, loaded[99].text, len(loaded)] == ['name: broken\nsize: "12', "name: item99\nsize: 99", 100]
    assert "has a quote that nothing closes; its last 40 lines" in loaded.skipped[0].reason


def test_what_a_sheet_holds_beyond_the_limits_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llama_index_embft.dataset.documents.tables._BLANK_ROWS", 10)
    book = openpyxl.Workbook()
    for row in (["name", "ean"], ["x", 4006381333931.0], ["y", "=B2*2"], ["z", 0.1 + 0.2, *"a" * 60]):
        book.active.append(row)
    book.active.cell(30, 1, "late")
    book.save(tmp_path / "a.xlsx")
    loaded = load_documents(tmp_path / "a.xlsx")
    assert [one.text for one in loaded][:2] == ["name: x\nean: 4006381333931", "name: y"]
    assert loaded[2].text.startswith("name: z\nean: 0.3\n")
    said = " ".join(one.reason for one in loaded.skipped)
    for words in ("holds 1 rows in the sheet Sheet with more than 50 cells", "holds more than 10 blank rows on end",
                  "holds 1 formulas without a stored value"):  # fmt: skip
        assert words in said
