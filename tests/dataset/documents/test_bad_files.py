"""Broken, locked, huge and hostile files: one sentence for each kind, and never a traceback."""

from __future__ import annotations

import csv
import io
import logging
import os
import struct
import tarfile
import zipfile
from pathlib import Path

import openpyxl
import pytest

from llama_index_embft.dataset import ReadingSettings, load_documents
from llama_index_embft.errors import DocumentError

SEALED = "Subject: x\nContent-Type: multipart/encrypted\n\nx"
OFFICE = [".docx", ".xlsx", ".pptx", ".epub"]


def locked_office(path: Path) -> None:
    """As Office saves a file with a password: an OLE container that holds the encrypted package."""
    path.write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(2000) + "EncryptedPackage".encode("utf-16-le"))


def zipped(path: Path, **members: str | bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def locked_zip(path: Path) -> None:
    raw = zipped(path, **{"a.txt": "secret"}).read_bytes()
    at = raw.index(b"PK\x01\x02")
    path.write_bytes(raw[:6] + b"\x01\x00" + raw[8 : at + 8] + b"\x01\x00" + raw[at + 10 :])


def bomb(path: Path) -> None:
    zipped(path, **{f"{n}.txt": bytes(20 << 20) for n in range(2)})


def nested(path: Path) -> None:
    raw = b"text"
    for n in range(5):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("a.txt" if n == 0 else "a.zip", raw)
        raw = buffer.getvalue()
    path.write_bytes(raw)


def tar_bomb(path: Path) -> None:
    with tarfile.open(path, "w:gz") as archive:
        info = tarfile.TarInfo("a.txt")
        info.size = 40 << 20
        archive.addfile(info, io.BytesIO(bytes(40 << 20)))


def cut(path: Path, make=None) -> None:
    openpyxl.Workbook().save(path)
    path.write_bytes(path.read_bytes()[:-200])


BAD = [
    *[(f"locked{e}", locked_office, "is encrypted and needs a password; save it without one") for e in OFFICE],
    *[(f"junk{e}", lambda p: p.write_bytes(b"junk"), f"is no {e} file, or a broken one; open it in") for e in OFFICE],
    *[(f"other{e}", lambda p: zipped(p, **{"x.xml": "<x/>"}), "cannot be read (") for e in OFFICE[:3]],
    ("cut.xlsx", cut, "is no .xlsx file, or a broken one"),
    ("old.docx", lambda p: p.write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" * 99), "is an office file of before 2007"),
    ("empty.epub", lambda p: zipped(p, mimetype="x"), "is no e-book, or a broken one"),
    ("old.doc", lambda p: p.write_bytes(b"x"), "is a Word file of before 2007; save it as .docx"),
    ("old.ppt", lambda p: p.write_bytes(b"x"), "is a PowerPoint file of before 2007; save it as .pptx"),
    ("mail.msg", lambda p: p.write_bytes(b"x"), "is a message of Outlook; save it as .eml"),
    ("junk.xls", lambda p: p.write_bytes(b"junk" * 600), "is no Excel file ("),
    ("junk.rtf", lambda p: p.write_bytes(b"junk"), "is no RTF file; save it again"),
    ("junk.eml", lambda p: p.write_bytes(b"\x00\x01junk"), "is no e-mail: it has neither subject nor sender"),
    ("sealed.eml", lambda p: p.write_text(SEALED), "is an encrypted e-mail; save it decrypted"),
    ("junk.ipynb", lambda p: p.write_text("[]"), "is no Jupyter notebook (version 3 or 4); save it again"),
    ("junk.json", lambda p: p.write_text('{"a": '), "is broken JSON (Expecting value: line 1 column 7 (char 6))"),
    ("deep.json", lambda p: p.write_text("[" * 100_000), "cannot be read ("),
    ("all.jsonl", lambda p: p.write_text("a\nb\n"), "holds 2 lines that are no JSON and were left out"),
    ("head.csv", lambda p: p.write_text("\n , ,\n"), "holds no text; remove it or give another file"),
    ("junk.csv", lambda p: p.write_bytes(bytes(range(256)) * 9), "is not text but binary data"),
    ("junk.zip", lambda p: p.write_bytes(b"PK\x03\x04junk"), "is a broken zip archive (File is not a zip file)"),
    ("junk.tar", lambda p: p.write_bytes(b"junk" * 400), "is a broken tar archive ("),
    ("locked.zip", locked_zip, "locked.zip/a.txt is encrypted and needs a password; pack it without one"),
    ("bomb.zip", bomb, "times its size, as a zip bomb does; unpack it yourself if you trust it"),
    ("bomb.tgz", tar_bomb, "times its size, as a zip bomb does; unpack it yourself if you trust it"),
    ("deep.zip", nested, "deep.zip/a.zip/a.zip/a.zip lies more than 3 archives deep; unpack it yourself"),
    ("out.zip", lambda p: zipped(p, **{"../../x.txt": "x"}), "../../x.txt has a name that leads out of the archive"),
    ("root.zip", lambda p: zipped(p, **{"/etc/x.txt": "x"}), "/etc/x.txt has a name that leads out of the archive"),
    ("exe.zip", lambda p: zipped(p, **{"x.exe": "x"}), "exe.zip/x.exe is of a kind that is not read (.exe)"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "make", "message"), BAD, ids=[name for name, _, _ in BAD])
def test_a_bad_file_is_one_sentence(tmp_path: Path, name: str, make, message: str) -> None:
    make(tmp_path / name)
    with pytest.raises(DocumentError) as caught:
        load_documents(tmp_path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / name))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    assert str(caught.value).endswith(".")


def test_a_folder_of_all_of_them_says_each_reason_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name, make, _ in BAD:
        make(tmp_path / name)
    (tmp_path / "good.txt").write_text("Good.")
    with caplog.at_level(logging.WARNING, logger="llama_index_embft"):
        documents = load_documents(tmp_path)
    assert [document.text for document in documents] == ["Good."]
    assert len({one.name.split("/")[0] for one in documents.skipped}) == len(BAD)
    (said,) = [record.message for record in caplog.records]
    assert said == " ".join(documents.sentences())
    for cause in ("broken", "encrypted", "too large", "unsafe", "in an old format", "not text", "without text"):
        assert said.count(f" ({cause}): ") == 1


def test_links_loops_pipes_and_closed_folders_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "docs"
    (root / "deep").mkdir(parents=True)
    (root / "a.txt").write_text("Text.")
    (root / "deep" / "up").symlink_to(root)
    (root / "loop.txt").symlink_to(root / "pool.txt")
    (root / "pool.txt").symlink_to(root / "loop.txt")
    (root / "gone.txt").symlink_to(root / "nowhere.txt")
    (root / "same.txt").symlink_to(root / "a.txt")
    os.mkfifo(root / "pipe.txt")
    (root / "closed").mkdir()
    scan = os.scandir

    def scandir(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    documents = load_documents(root)
    assert [d.id_ for d in documents] == ["a.txt"]
    assert {one.name: one.cause for one in documents.skipped} == {
        "closed": "unreadable",
        "deep/up": "a link",
        "gone.txt": "a link",
        "loop.txt": "a link",
        "pool.txt": "a link",
        "pipe.txt": "of a kind that is not read",
        "same.txt": "a link",
    }


def test_a_file_that_only_links_show_is_read_once(tmp_path: Path) -> None:
    (tmp_path / ".data").mkdir()
    (tmp_path / ".data" / "a.txt").write_text("Text.")
    for name in ("one.txt", "two.txt"):
        (tmp_path / name).symlink_to(tmp_path / ".data" / "a.txt")
    documents = load_documents(tmp_path)
    assert [d.id_ for d in documents] == ["one.txt"]
    assert documents.skipped[0].reason == "is a link to one.txt, which is read under that name"


def test_odd_names_are_read_and_every_document_has_an_id_of_its_own(tmp_path: Path) -> None:
    members = {"Chapter 1: start.txt": "One.", ".": "x", "b\x1b.txt": "Two.", "C:\\x.txt": "x"}
    zipped(tmp_path / "z.zip", **members)
    (tmp_path / "a.csv").write_text("name,size\nx,big\ny,small\n")
    (tmp_path / "a.csv#1").write_text("Three.")
    (tmp_path / os.fsdecode(b"caf\xe9\n.txt")).write_text("Four.")
    documents = load_documents([tmp_path, tmp_path / "a.csv#1"])
    assert {d.id_: d.text for d in documents} == {
        "a.csv#1": "name: x\nsize: big",
        "a.csv#2": "name: y\nsize: small",
        "a.csv#1#": "Three.",
        "caf\\xe9\\x0a.txt": "Four.",
        "z.zip/Chapter 1: start.txt": "One.",
        "z.zip/b\\x1b.txt": "Two.",
    }
    left_out = {one.name: one.cause for one in documents.skipped}
    assert left_out == {
        "z.zip/.": "of a kind that is not read",
        "z.zip/C:\\x.txt": "unsafe",
        "a.csv#1": "of a kind that is not read",
    }


def test_an_unreadable_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("x")

    def closed(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", closed)
    with pytest.raises(DocumentError, match=r"a\.txt cannot be read: Permission denied\."):
        load_documents(tmp_path)


def test_a_large_table_is_streamed_up_to_a_limit_that_says_so(tmp_path: Path) -> None:
    import tracemalloc

    with (tmp_path / "big.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["question", "answer"])
        rows.writerows([f"Question {n}?", "An answer. " * 40] for n in range(50_000))  # 23 MB
    settings = ReadingSettings(max_rows=100, max_file_mb=1)
    tracemalloc.start()
    documents = load_documents(tmp_path, settings=settings)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(documents) == 100
    assert peak < 50 << 20
    assert documents.sentences()[1:] == [
        "Read 1 file with a reservation (too large): big.csv holds more than 100 rows, of which the first 100 were "
        "read; raise `max_rows` for more."
    ]


def test_other_large_files_are_named_before_they_are_parsed(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"word " * 500_000)
    zipped(tmp_path / "b.docx", **{"word/document.xml": b"word " * 500_000})
    zipped(tmp_path / "c.xlsx", **{"xl/sharedStrings.xml": b"word " * 500_000})
    (tmp_path / "d.jsonl").write_bytes(b"[" + b"1," * 1_000_000)
    (tmp_path / "good.md").write_text("Good.")
    documents = load_documents(tmp_path, settings=ReadingSettings(max_file_mb=1))
    reasons = {one.name: one.reason for one in documents.skipped}
    limit = "MB; what is parsed in memory may have 1: cut it into parts, or raise `max_file_mb`"
    assert reasons == {
        "a.txt": f"has 2 {limit}",
        "b.docx": f"holds text of 2 {limit}",
        "c.xlsx": f"holds text of 2 {limit}",
        "d.jsonl": "holds a line of more than 1 MB; is it a table?",
    }
    with pytest.raises(DocumentError, match="unpacks to more than 1 MB, as a zip bomb does"):
        load_documents(tmp_path / "b.docx", settings=ReadingSettings(max_unpacked_mb=1))


def test_a_folder_or_archive_of_too_many_files_is_refused(tmp_path: Path) -> None:
    for n in range(5):
        (tmp_path / f"{n}.txt").write_text("x")
    with pytest.raises(DocumentError, match=r"holds more than 4 files; give the folders that matter, or raise `max_f"):
        load_documents(tmp_path, settings=ReadingSettings(max_files=4))
    path = zipped(tmp_path / "z.zip", **{f"{n}.txt": "x" for n in range(5)})
    with pytest.raises(DocumentError, match=r"z\.zip holds more than 4 files; unpack what you need"):
        load_documents(path, settings=ReadingSettings(max_files=4))


def test_a_size_that_lies_unpacks_no_more_than_it_says(tmp_path: Path) -> None:
    raw = zipped(tmp_path / "a.zip", **{"a.txt": b"x" * 100_000}).read_bytes()
    true, lie = struct.pack("<I", 100_000), struct.pack("<I", 10)
    (tmp_path / "a.zip").write_bytes(raw.replace(true, lie))
    with pytest.raises(DocumentError, match=r"a\.zip/a\.txt cannot be unpacked \(Bad CRC-32"):
        load_documents(tmp_path)


def test_a_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    openpyxl.Workbook().save(tmp_path / "a.xlsx")
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(DocumentError) as caught:
        load_documents(tmp_path)
    assert str(caught.value).endswith(
        'a.xlsx needs the package `openpyxl`; install it with: pip install "llama-index-embft[office]".'
    )
