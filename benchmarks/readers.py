"""Reading 100 mixed office files: seconds, and the highest memory of the process that reads them.

    python benchmarks/readers.py            # a minute, with the extra `office`
    python benchmarks/readers.py --files 10 --no-save    # only shows that it runs
    python benchmarks/readers.py --table-mb 500          # and a CSV file of 500 MB beside them

The files are made in a temporary folder by the libraries that offices' files are read with: Word files of 20 to 40
pages with headings and tables, Excel files of 2,000 rows, presentations, PDFs of 10 pages in two columns with running
lines, mails with attachments, pages of a site with navigation, e-books, RTF, notebooks, code, JSON Lines, older
encodings, and archives of these; one in ten is broken, locked, empty or of another kind. A process of its own reads and
cuts them, so that the memory is that of reading, with Python and the libraries (``MB before``). ``seconds`` are the
clock's, which others on the machine slow down; ``CPU seconds`` are the process's own.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
import zipfile
from email.message import EmailMessage
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _common import parser, print_table, write_results

if TYPE_CHECKING:
    from collections.abc import Callable

TEXT = """plant boiler valve order price customer delivery market contract quarter report growth staff policy travel
budget the of and for with which was will this our under before made gives takes holds year more than each part"""
WORDS = TEXT.split()


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--files", type=int, default=100, help="files of the folder")
    options.add_argument("--table-mb", type=int, default=0, help="add a CSV file of so many megabytes")
    options.add_argument("--no-save", dest="save", action="store_false", help="print only")
    options.add_argument("--read", type=Path, help="only read this folder, and print the figures")
    args = options.parse_args()
    if args.read is not None:
        print(json.dumps(read(args.read)))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        make_files(Path(folder), args.files)
        rows.append({"what": f"{args.files} mixed office files", **measured(folder)})
    if args.table_mb:
        with tempfile.TemporaryDirectory() as folder:
            make_table(Path(folder) / "big.csv", args.table_mb)
            rows.append({"what": f"a CSV file of {args.table_mb} MB", **measured(folder)})
    print_table([{name: value for name, value in row.items() if name != "skipped"} for row in rows])
    if args.save:
        write_results("readers", rows)


def measured(folder: str) -> dict[str, Any]:
    size = sum(path.stat().st_size for path in Path(folder).iterdir())
    command = [sys.executable, __file__, "--read", folder]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return {"MB": size / (1 << 20), **json.loads(done.stdout.splitlines()[-1])}


def read(folder: Path) -> dict[str, Any]:
    from llama_index_embft.dataset import documents_to_nodes, load_documents

    documents_to_nodes(load_documents(__file__, show_progress=False), show_progress=False)  # imports
    before = peak()
    start, cpu = time.perf_counter(), time.process_time()
    documents = load_documents(folder, show_progress=False)
    reading, cpu = time.perf_counter() - start, time.process_time() - cpu
    after_reading = peak()
    nodes = documents_to_nodes(documents, show_progress=False)
    return {
        "seconds": reading,
        "CPU seconds": cpu,
        "seconds to cut": time.perf_counter() - start - reading,
        "peak MB": after_reading,
        "peak MB with chunks": peak(),
        "MB before": before,
        "documents": len(documents),
        "chunks": len(nodes),
        "skipped": documents.sentences(),
    }


def peak() -> float:
    """Megabytes; the kernel counts in kilobytes."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def make_files(folder: Path, n_files: int) -> None:
    rng = random.Random(0)
    bad: list[tuple[str, bytes]] = [
        (".docx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + "EncryptedPackage".encode("utf-16-le")),
        (".xlsx", b"PK\x03\x04 cut off"), (".pdf", b"%PDF-1.7 cut off"), (".txt", b""), (".jpg", b"\xff\xd8"),
    ]  # fmt: skip
    for number in range(n_files):
        if number % 10 == 9:
            ending, raw = bad[number // 10 % len(bad)]
            (folder / f"f{number}{ending}").write_bytes(raw)
        else:
            ending, make = MAKERS[(number - number // 10) % len(MAKERS)]
            make(folder / f"f{number}{ending}", rng)


def times(number: int, size: float) -> int:
    return max(1, int(number * size))


def sentence(rng: random.Random) -> str:
    return " ".join(rng.choices(WORDS, k=rng.randint(6, 18))).capitalize() + "."


def paragraph(rng: random.Random) -> str:
    return " ".join(sentence(rng) for _ in range(rng.randint(3, 8)))


def word(path: Path, rng: random.Random, size: float = 1.0) -> None:
    import docx

    document = docx.Document()
    for _ in range(times(rng.randint(20, 40), size)):
        document.add_heading(sentence(rng), 2)
        for _ in range(4):
            document.add_paragraph(paragraph(rng))
    cells = document.add_table(20, 4)._cells
    for cell in cells:
        cell.text = str(rng.randint(1, 999))
    document.save(path)


def excel(path: Path, rng: random.Random, size: float = 1.0) -> None:
    import openpyxl

    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet("Orders")
    sheet.append(["order", "customer", "price", "remark"])
    for number in range(times(2000, size)):
        sheet.append([number, f"Customer {rng.randint(1, 99)}", rng.random() * 100, sentence(rng)])
    book.save(path)


def slides(path: Path, rng: random.Random, size: float = 1.0) -> None:
    import pptx

    show = pptx.Presentation()
    for _ in range(times(30, size)):
        slide = show.slides.add_slide(show.slide_layouts[1])
        slide.shapes.title.text = sentence(rng)
        slide.placeholders[1].text = "\n".join(sentence(rng) for _ in range(5))
        slide.notes_slide.notes_text_frame.text = paragraph(rng)
    show.save(path)


def pdf(path: Path, rng: random.Random, size: float = 1.0) -> None:
    from pypdf import PdfWriter
    from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

    writer = PdfWriter()
    font = {"/Type": "/Font", "/Subtype": "/Type1", "/BaseFont": "/Courier"}
    entry = writer._add_object(DictionaryObject({NameObject(key): NameObject(value) for key, value in font.items()}))
    for number in range(times(10, size)):
        lines = [(72, 760, f"Annual report   {number + 1}")]
        lines += [(x, 720 - 13 * n, sentence(rng)[:38]) for x in (40, 320) for n in range(50)]
        drawn = DecodedStreamObject()
        drawn.set_data("\n".join(f"BT /F1 10 Tf 1 0 0 1 {x} {y} Tm ({text}) Tj ET" for x, y, text in lines).encode())
        sheet = writer.add_blank_page(612, 792)
        sheet[NameObject("/Resources")] = DictionaryObject(
            {NameObject("/Font"): DictionaryObject({NameObject("/F1"): entry})}
        )
        sheet[NameObject("/Contents")] = writer._add_object(drawn)
    writer.write(path)


def mail(path: Path, rng: random.Random, size: float = 1.0) -> None:
    message = EmailMessage()
    message["Subject"], message["From"], message["To"] = sentence(rng), "a@example.org", "b@example.org"
    message.set_content("\n\n".join(paragraph(rng) for _ in range(4)))
    attached = path.with_suffix(".docx")
    word(attached, rng, size)
    message.add_attachment(attached.read_bytes(), "application", "octet-stream", filename="report.docx")
    attached.unlink()
    path.write_bytes(message.as_bytes())


def page(path: Path, rng: random.Random, size: float = 1.0) -> None:
    menu = "".join(f"<li><a href={n}>Item {n}</a></li>" for n in range(100))
    body = "".join(f"<h2>{sentence(rng)}</h2><p>{paragraph(rng)}</p>" for _ in range(times(100, size)))
    path.write_text(f"<html><body><ul>{menu}</ul><div>{body}</div><footer>Imprint</footer></body></html>")


def old_text(path: Path, rng: random.Random, size: float = 1.0) -> None:
    path.write_bytes("\n\n".join(f"Größe: {paragraph(rng)}" for _ in range(times(200, size))).encode("cp1252"))


def records(path: Path, rng: random.Random, size: float = 1.0) -> None:
    lines = [json.dumps({"question": sentence(rng), "answer": paragraph(rng)}) for _ in range(times(2000, size))]
    path.write_text("\n".join(lines))


def book(path: Path, rng: random.Random, size: float = 1.0) -> None:
    names = [f"c{n}.xhtml" for n in range(times(20, size))]
    items = "".join(f'<item id="{name}" href="{name}" media-type="application/xhtml+xml"/>' for name in names)
    spine = "".join(f'<itemref idref="{name}"/>' for name in names)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("META-INF/container.xml", '<container><rootfile full-path="c.opf"/></container>')
        made.writestr("c.opf", f"<package><manifest>{items}</manifest><spine>{spine}</spine></package>")
        for name in names:
            text = "".join(f"<p>{paragraph(rng)}</p>" for _ in range(40))
            made.writestr(name, f"<html><body><h1>{sentence(rng)}</h1>{text}</body></html>")


def table(path: Path, rng: random.Random, size: float = 1.0) -> None:
    rows = [f'{n};"{sentence(rng)}";{rng.random():.2f}' for n in range(times(5000, size))]
    path.write_text("\n".join(["number;remark;price", *rows]))


def rtf(path: Path, rng: random.Random, size: float = 1.0) -> None:
    path.write_text(r"{\rtf1\ansi " + r"\par ".join(paragraph(rng) for _ in range(times(300, size))) + "}")


def notebook(path: Path, rng: random.Random, size: float = 1.0) -> None:
    cells = [{"cell_type": "markdown", "source": [paragraph(rng)]} for _ in range(times(50, size))]
    path.write_text(json.dumps({"nbformat": 4, "metadata": {}, "cells": cells}))


def code(path: Path, rng: random.Random, size: float = 1.0) -> None:
    path.write_text(
        "\n\n".join(f'def f{n}():\n    """{sentence(rng)}"""\n    return {n}' for n in range(times(200, size)))
    )


def archive(path: Path, rng: random.Random, size: float = 1.0) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for number, (ending, make) in enumerate([(".docx", word), (".html", page), (".csv", table)]):
            inner = path.with_name(f"inner{number}{ending}")
            make(inner, rng, size)
            made.write(inner, f"2024/{inner.name}")
            inner.unlink()


MAKERS: list[tuple[str, Callable[..., None]]] = [
    (".docx", word), (".xlsx", excel), (".pptx", slides), (".pdf", pdf), (".eml", mail), (".html", page),
    (".docx", word), (".txt", old_text), (".jsonl", records), (".epub", book), (".csv", table), (".pdf", pdf),
    (".rtf", rtf), (".ipynb", notebook), (".py", code), (".zip", archive), (".xlsx", excel), (".docx", word),
]  # fmt: skip


def make_table(path: Path, megabytes: int) -> None:
    rng = random.Random(0)
    block = "".join(f'{n},"{sentence(rng)}","{paragraph(rng)}"\n' for n in range(10_000))
    with path.open("w") as file:
        file.write("number,title,text\n")
        while file.tell() < megabytes << 20:
            file.write(block)


if __name__ == "__main__":
    main()
