"""What printing does to a text is taken back: running lines, hyphens, ligatures, columns, scanned pages."""

from __future__ import annotations

from pathlib import Path

import pytest
from llama_index.core import Document
from pypdf import PdfWriter
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject, NumberObject

from llama_index_embft.dataset import ReadingSettings, dataset_corpus, documents_to_nodes, load_documents
from llama_index_embft.dataset.documents.printed import printed_to_plain
from llama_index_embft.errors import DocumentError

Line = tuple[int, int, str]  # x, y in points, text


FONT = {"/Type": "/Font", "/Subtype": "/Type1", "/BaseFont": "/Courier"}


def pdf(path: Path, *pages: list[Line]) -> Path:
    """A PDF whose lines are drawn in the given order; a page without lines holds an image."""
    writer = PdfWriter()
    for drawing in pages:
        page = writer.add_blank_page(612, 792)
        font = DictionaryObject({NameObject(key): NameObject(value) for key, value in FONT.items()})
        parts = {NameObject("/Font"): DictionaryObject({NameObject("/F1"): writer._add_object(font)})}
        drawn = DecodedStreamObject()
        if not drawing:
            image = DecodedStreamObject()
            image.set_data(b"\xff")
            for key, value in {"/Width": 1, "/Height": 1, "/BitsPerComponent": 8}.items():
                image[NameObject(key)] = NumberObject(value)
            image[NameObject("/Type")], image[NameObject("/Subtype")] = NameObject("/XObject"), NameObject("/Image")
            image[NameObject("/ColorSpace")] = NameObject("/DeviceGray")
            parts[NameObject("/XObject")] = DictionaryObject({NameObject("/I"): writer._add_object(image)})
            drawn.set_data(b"/I Do")
        else:
            drawn.set_data(
                "".join(f"BT /F1 10 Tf 1 0 0 1 {x} {y} Tm ({text}) Tj ET\n" for x, y, text in drawing).encode()
            )
        page[NameObject("/Resources")] = DictionaryObject(parts)
        page[NameObject("/Contents")] = writer._add_object(drawn)
    writer.write(path)
    return path


def lines(document: Document) -> list[str]:
    return [line for line in document.text.splitlines() if line]


WORDS = ["boilers", "hinges", "valves", "pumps", "filters", "motors"]


def report(path: Path) -> Path:
    pages = [
        [
            (72, 760, f"Annual report 2024   {number}"),
            (72, 740, "Works Ltd"),
            (72, 700, f"The plant made many {word} this year, and the mainte-"),
            (72, 685, f"nance of {word} was cheap."),
            (72, 670, f"Sold: {number * 7 % 5}"),
            (72, 40, f"{number + 10}"),
        ]
        for number, word in enumerate(WORDS)
    ]
    return pdf(path, *pages)


def test_running_lines_are_left_out_and_words_are_joined(tmp_path: Path) -> None:
    documents = load_documents(report(tmp_path / "r.pdf"))
    assert [document.text for document in documents] == [
        f"The plant made many {word} this year, and the maintenance of {word} was cheap.\nSold: {number * 7 % 5}"
        for number, word in enumerate(WORDS)
    ]


def test_running_lines_can_be_kept(tmp_path: Path) -> None:
    documents = load_documents(report(tmp_path / "r.pdf"), settings=ReadingSettings(keep_headers=True))
    assert lines(documents[2])[:2] == ["Annual report 2024 2", "Works Ltd"]
    assert lines(documents[2])[-1] == "12"


def test_numbers_that_do_not_count_pages_stay(tmp_path: Path) -> None:
    pages = [[(72, 700, f"Total of {word}"), (72, 680, value)] for word, value in zip(WORDS, "381927", strict=True)]
    documents = load_documents(pdf(tmp_path / "t.pdf", *pages))
    assert [document.text.splitlines()[-1] for document in documents] == list("381927")


def test_left_and_right_pages_chapters_and_roman_numbers(tmp_path: Path) -> None:
    heads = [["The book  {r}", "1 Of {w}  {r}"][n % 2] for n in range(12)]
    roman = ["i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x", "xi", "xii"]
    words = [WORDS[n // 6] for n in range(12)]
    pages = [
        [
            (72, 760, head.format(r=number, w=word)),
            (72, 700, f"Text of page {n * n} alone"),
            (72, 690, f"and {n * n} more."),
        ]
        for n, (head, number, word) in enumerate(zip(heads, roman, words, strict=True))
    ]
    documents = load_documents(pdf(tmp_path / "b.pdf", *pages))
    assert [document.text for document in documents[:6]] == [
        f"Text of page {n * n} alone\nand {n * n} more." for n in range(6)
    ]


def test_short_pages_that_repeat_each_other_are_text(tmp_path: Path) -> None:
    pages = [
        [(72, 700, "Certificate of attendance"), (72, 680, f"Name: {word}"), (72, 660, "Seminar on pumps, in May")]
        for word in WORDS
    ]
    documents = load_documents(pdf(tmp_path / "c.pdf", *pages, *[[(72, 700, "Valid for one year")]] * 4))
    assert [lines(document) for document in documents] == [
        *(["Certificate of attendance", f"Name: {word}", "Seminar on pumps, in May"] for word in WORDS),
        *[["Valid for one year"]] * 4,
    ]


def test_a_large_pdf_is_named_before_it_is_parsed(tmp_path: Path) -> None:
    report(tmp_path / "r.pdf")
    with (tmp_path / "r.pdf").open("ab") as file:
        file.write(bytes(2 << 20))
    with pytest.raises(DocumentError, match=r"has 2 MB; what is parsed in memory may have 1: cut it into parts"):
        load_documents(tmp_path, settings=ReadingSettings(max_file_mb=1))


def test_index_and_training_read_the_same_text(tmp_path: Path) -> None:
    nodes = documents_to_nodes(load_documents(report(tmp_path / "r.pdf")))
    corpus = dataset_corpus(nodes).corpus
    assert [node.get_content("embed") for node in nodes] == list(corpus.values())
    assert not any("Annual report" in text or "mainte-" in text for text in corpus.values())


LEFT = [f"The left column says in line {n} that" for n in range(10)]
NOTE = "A note below both columns that is wide enough to run over the gutter"
RIGHT = [f"while the right one says in line {n}" for n in range(10)]


def columns(left: list[str], right: list[str], *, row_by_row: bool) -> list[Line]:
    pairs = [((72, 700 - 12 * n, a), (320, 700 - 12 * n, b)) for n, (a, b) in enumerate(zip(left, right, strict=True))]
    body = [line for pair in pairs for line in pair] if row_by_row else [a for a, _ in pairs] + [b for _, b in pairs]
    return [(72, 740, "A title over both"), *body, (72, 500, NOTE)]


@pytest.mark.parametrize("row_by_row", [True, False])
def test_columns_are_read_one_after_the_other(tmp_path: Path, row_by_row: bool) -> None:
    (document,) = load_documents(pdf(tmp_path / "c.pdf", columns(LEFT, RIGHT, row_by_row=row_by_row)))
    assert lines(document) == ["A title over both", *LEFT, *RIGHT, NOTE]


def test_three_columns_of_unequal_length_around_a_line_over_all(tmp_path: Path) -> None:
    texts = [[f"Column {name} in its line {n} says" for n in range(12 - 2 * at)] for at, name in enumerate("abc")]
    drawing = [(20 + 200 * at, 700 - 12 * n, line) for at, column in enumerate(texts) for n, line in enumerate(column)]
    drawing += [(20, 500, "A line that goes over all of the three columns without a gap in it, as wide as the page is")]
    drawing += [(x, y - 220, line.replace("says", "adds")) for x, y, line in drawing[:-1]]
    (document,) = load_documents(pdf(tmp_path / "c.pdf", drawing))
    first = [line for column in texts for line in column]
    assert lines(document) == [*first, drawing[30][2], *(line.replace("says", "adds") for line in first)]


def test_tables_are_read_row_by_row(tmp_path: Path) -> None:
    names, values = (
        [f"Revenue of the part number {n}" for n in range(10)],
        [f"{n},250.00 of 9,999.99" for n in range(10)],
    )
    (document,) = load_documents(pdf(tmp_path / "t.pdf", columns(names, values, row_by_row=True)))
    assert lines(document)[4] == "Revenue of the part number 3 3,250.00 of 9,999.99"


def test_scanned_pages_in_a_file_with_text_are_counted(tmp_path: Path) -> None:
    documents = load_documents(pdf(tmp_path / "s.pdf", [(72, 700, "Text.")], [], []))
    assert [document.text for document in documents] == ["Text."]
    (said,) = documents.skipped
    assert (said.cause, said.partly) == ("scanned", True)
    assert said.reason.startswith("has 2 scanned pages of 3, which were left out; add a text layer by OCR")


def test_printed_forms_of_arabic_letters_are_letters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pypdf.PageObject.extract_text", lambda self, **_: "\ufedf\ufea4\ufee4 \ufb01ne x\u00b2")
    (document,) = load_documents(pdf(tmp_path / "a.pdf", [(72, 700, "x")]))
    assert document.text == "\u0644\u062d\u0645 fine x\u00b2"


def test_a_hyphen_that_stands_for_half_a_word_stays() -> None:
    page = "The short-\nand long-term rent, die Haupt-\nund Nebenkosten, the thous-\nand"
    assert printed_to_plain(page, frozenset(["thousand"])) == (
        "The short- and long-term rent, die Haupt- und Nebenkosten, the thousand"
    )
