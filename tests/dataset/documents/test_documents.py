"""From files to nodes to a corpus: what is read, what is embedded, what is refused and how."""

from __future__ import annotations

import logging
import re
import shutil
from pathlib import Path

import pytest
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.schema import MetadataMode, NodeWithScore, TextNode
from pypdf import PdfWriter
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

from llama_index_embft._core.files import write_folder_atomically
from llama_index_embft.dataset import dataset_corpus, documents_to_nodes, load_documents
from llama_index_embft.errors import ConfigError, DatasetError, DocumentError


def pdf(path: Path, *pages: str, password: str | None = None, algorithm: str = "RC4-128") -> Path:
    """Write a real PDF with one line of text a page; an empty string makes a page without text, as a scan is."""
    writer = PdfWriter()
    for text in pages:
        page = writer.add_blank_page(612, 792)
        if text:
            font = {"/Type": "/Font", "/Subtype": "/Type1", "/BaseFont": "/Helvetica"}
            font_object = DictionaryObject({NameObject(key): NameObject(value) for key, value in font.items()})
            fonts = DictionaryObject({NameObject("/F1"): writer._add_object(font_object)})
            page[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): fonts})
            stream = DecodedStreamObject()
            stream.set_data(f"BT /F1 12 Tf 72 700 Td ({text}) Tj ET".encode("latin-1"))
            page[NameObject("/Contents")] = writer._add_object(stream)
    if password is not None:
        writer.encrypt(user_password=password, owner_password="owner", algorithm=algorithm)
    writer.write(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "docs"
    (root / "deep").mkdir(parents=True)
    pdf(root / "report.pdf", "Profit rose by half.", "", "Costs fell.")
    (root / "deep" / "notes.md").write_text("# Title\n\nSome notes.\n")
    (root / "page.html").write_text(
        "<html><head><title>Site</title><style>p{}</style></head><body><nav>Menu</nav><h2>Head</h2><p>One <b>bold</b> "
        "word.</p><ul><li>first</li><li>second</li></ul><script>alert(1)</script></body></html>"
    )
    (root / "plain.txt").write_bytes("﻿Grüße".encode())
    (root / ".hidden.txt").write_text("secret")
    (root / "photo.jpg").write_bytes(b"\xff\xd8\xff")
    return root


def test_a_folder_gives_its_readable_files_in_a_fixed_order(folder: Path) -> None:
    documents = load_documents(folder)
    assert [document.id_ for document in documents] == [
        "deep/notes.md",
        "page.html",
        "plain.txt",
        "report.pdf#1",
        "report.pdf#3",
    ]
    texts = {document.id_: document.text for document in documents}
    assert texts["deep/notes.md"] == "# Title\n\nSome notes.\n"
    assert texts["plain.txt"] == "Grüße"
    assert texts["page.html"] == "Site\n\n## Head\n\nOne bold word.\n\nfirst\nsecond"
    assert texts["report.pdf#3"].strip() == "Costs fell."


def test_results_of_earlier_runs_are_no_documents(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with write_folder_atomically(folder / "runs" / "first") as result:
        (result / "report.html").write_text("<p>nDCG 0.5</p>")
    assert len(load_documents(folder)) == 5
    assert "runs/first is a result of llama-index-embft and no document" in caplog.text
    assert len(load_documents(folder / "runs" / "first")) == 1  # named, it is read


def test_file_name_and_page_label_are_embedded_and_the_path_is_not(folder: Path, tmp_path: Path) -> None:
    document = load_documents(folder)[-1]
    assert document.metadata == {"page_label": "3", "file_name": "report.pdf", "file_path": "report.pdf"}
    embedded = document.get_content(MetadataMode.EMBED)
    assert embedded == f"page_label: 3\nfile_name: report.pdf\n\n{document.text}"
    nodes = documents_to_nodes(load_documents(folder))
    for node in nodes:
        assert str(tmp_path) not in node.get_content(MetadataMode.ALL)
        assert "file_path" not in node.get_content(MetadataMode.EMBED) + node.get_content(MetadataMode.LLM)


def test_an_index_over_the_nodes_embeds_the_corpus_text(folder: Path) -> None:
    seen: list[str] = []

    class Spy(MockEmbedding):
        def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
            seen.extend(texts)
            return [[1.0, 0.0]] * len(texts)

        def _get_text_embedding(self, text: str) -> list[float]:
            return self._get_text_embeddings([text])[0]

    nodes = documents_to_nodes(load_documents(folder))
    VectorStoreIndex(nodes, embed_model=Spy(embed_dim=2))
    assert sorted(seen) == sorted(dataset_corpus(nodes).corpus.values())


def test_ids_are_the_same_on_every_machine_and_follow_the_content(folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere" / "docs"
    shutil.copytree(folder, elsewhere)
    here = documents_to_nodes(load_documents(folder))
    there = documents_to_nodes(load_documents(elsewhere))
    assert [node.node_id for node in here] == [node.node_id for node in there]
    assert dataset_corpus(here) == dataset_corpus(there)
    (elsewhere / "plain.txt").write_text("other")
    changed = documents_to_nodes(load_documents(elsewhere))
    assert [a.node_id == b.node_id for a, b in zip(here, changed, strict=True)] == [True, True, False, True, True]
    assert len({node.node_id for node in here}) == len(here)


def test_long_documents_are_cut_with_ids_that_depend_on_the_cut(tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("\n".join(f"Sentence number {n} is here." for n in range(200)))
    documents = load_documents(tmp_path)
    nodes = documents_to_nodes(documents, chunk_size=100, chunk_overlap=10)
    assert len(nodes) > 5
    assert nodes[0].next_node.node_id == nodes[1].node_id
    assert all(node.ref_doc_id == "long.txt" for node in nodes)
    other = documents_to_nodes(documents, chunk_size=120, chunk_overlap=10)
    assert not {node.node_id for node in nodes} & {node.node_id for node in other}
    corpus = dataset_corpus(nodes)
    assert set(corpus.source_documents.values()) == {"long.txt"}
    first = nodes[0].node_id
    assert corpus.corpus[first] == f"file_name: long.txt\n\n{corpus.bare_texts[first]}"


def test_pages_of_one_pdf_have_one_source(folder: Path) -> None:
    corpus = dataset_corpus(documents_to_nodes(load_documents(folder / "report.pdf")))
    assert list(corpus.source_documents.values()) == ["report.pdf", "report.pdf"]


def test_several_paths_are_named_from_their_common_root(folder: Path) -> None:
    documents = load_documents([folder / "deep", str(folder / "plain.txt"), folder / "plain.txt"])
    assert [document.id_ for document in documents] == ["deep/notes.md", "plain.txt"]


def test_a_file_given_by_name_is_read_whatever_its_ending(tmp_path: Path) -> None:
    (tmp_path / "LICENSE").write_text("Permission is granted")
    assert load_documents(tmp_path / "LICENSE")[0].text == "Permission is granted"


def test_a_pdf_reads_as_llama_index_reads_it(folder: Path) -> None:
    from llama_index.readers.file import PDFReader

    theirs = [d for d in PDFReader().load_data(folder / "report.pdf") if d.text.strip()]
    ours = load_documents(folder / "report.pdf")
    assert [d.text for d in ours] == [d.text for d in theirs]
    for a, b in zip(ours, theirs, strict=True):
        assert a.get_content(MetadataMode.EMBED) == b.get_content(MetadataMode.EMBED)


def test_an_empty_user_password_is_no_obstacle(tmp_path: Path) -> None:
    assert load_documents(pdf(tmp_path / "open.pdf", "Readable.", password=""))[0].text.strip() == "Readable."


# --- bad input --------------------------------------------------------------------------------------------------------


def scanned(path: Path) -> None:
    pdf(path / "scan.pdf", "", "")


def locked(path: Path) -> None:
    pdf(path / "locked.pdf", "Secret.", password="open sesame")


def locked_aes(path: Path) -> None:
    pdf(path / "aes.pdf", "Secret.", password="open sesame", algorithm="AES-256")


def truncated(path: Path) -> None:
    whole = pdf(path / "cut.pdf", *["text"] * 5).read_bytes()
    (path / "cut.pdf").write_bytes(whole[:100])


BAD = [
    (scanned, "scan.pdf has no text on any of its 2 pages, so it is probably scanned; add a text layer by OCR"),
    (locked, "locked.pdf is encrypted and needs a password; remove it, for example with: qpdf --decrypt"),
    (locked_aes, "aes.pdf is encrypted and needs a password"),
    (truncated, "cut.pdf is a broken PDF ("),
    (lambda p: (p / "fake.pdf").write_text("hello"), "fake.pdf is a broken PDF ("),
    (lambda p: (p / "junk.txt").write_bytes(bytes(range(256)) * 8), "junk.txt is not text but binary data"),
    (lambda p: (p / "ctrl.txt").write_bytes(b"\x01\x02\x03abc" * 50), "ctrl.txt is not text but binary data"),
    (lambda p: (p / "empty.md").touch(), "empty.md is empty; remove it or fill it"),
    (lambda p: (p / "blank.txt").write_text(" \n\n"), "blank.txt holds no text"),
    (lambda p: (p / "bare.html").write_text("<html><script>x</script></html>"), "bare.html holds no text"),
    (lambda p: (p / "bad.xlsx").write_bytes(b"junk"), "bad.xlsx "),
    (lambda p: None, "docs holds no files; put your documents there or give another folder"),
    (lambda p: (p / ".git").mkdir(), "docs holds no files"),
    (
        lambda p: [(p / name).write_bytes(b"x") for name in ("a.jpg", "b.JPG", "c.mp3", "Makefile")],
        "holds no file of a kind that can be read, only .jpg (2), .mp3 (1), no ending (1); supported are .pdf, .html",
    ),
]


@pytest.mark.parametrize(("make", "message"), BAD, ids=[str(n) for n in range(len(BAD))])
def test_bad_input_is_one_sentence_that_says_what_to_do(tmp_path: Path, make, message: str) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    make(folder)
    with pytest.raises(DocumentError, match=re.escape(message)) as caught:
        load_documents(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match=r"There is no file or folder .*nowhere; check the path"):
        load_documents(tmp_path / "nowhere")
    with pytest.raises(DocumentError, match="No documents: give at least one file or folder"):
        load_documents([])
    with pytest.raises(DocumentError, match="is neither a file nor a folder"):
        load_documents("/dev/null")


def test_aes_without_cryptography_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pypdf.errors import DependencyError

    path = pdf(tmp_path / "aes.pdf", "Secret.", password="", algorithm="AES-256")

    def decrypt(*args: object) -> None:
        raise DependencyError("cryptography>=3.1 is required for AES algorithm")

    monkeypatch.setattr("pypdf.PdfReader.decrypt", decrypt)
    with pytest.raises(DocumentError, match="install it with: pip install cryptography"):
        load_documents(path)


def test_bad_files_among_good_ones_are_skipped_with_one_warning(folder: Path, caplog) -> None:
    locked(folder)
    (folder / "empty.txt").touch()
    with caplog.at_level(logging.WARNING):
        documents = load_documents(folder)
    assert len(documents) == 5
    warnings = [record.message for record in caplog.records if record.name.startswith("llama_index_embft")]
    assert len(warnings) == 1
    assert warnings[0].split(". ") == [
        "Read 4 of 7 files as 5 documents",
        "Skipped 1 file (empty): empty.txt is empty; remove it or fill it",
        "Skipped 1 file (encrypted): locked.pdf is encrypted and needs a password; remove it, for example with: qpdf "
        "--decrypt --password=… in.pdf out.pdf",
        "Skipped 1 file (of a kind that is not read): .jpg (1).",
    ]
    assert {one.name for one in documents.skipped} == {"empty.txt", "locked.pdf", "photo.jpg"}


def test_when_all_files_are_bad_the_first_few_are_named(tmp_path: Path) -> None:
    for n in range(5):
        (tmp_path / f"{n}.txt").touch()
    with pytest.raises(DocumentError, match=r"None of the 5 files can be used: .*0\.txt is empty.*; and 2 more\."):
        load_documents(tmp_path)


def test_a_broken_page_costs_only_itself(tmp_path: Path, monkeypatch, caplog) -> None:
    from pypdf import PageObject

    path = pdf(tmp_path / "x.pdf", "One.", "Two.", "Three.")
    extract = PageObject.extract_text

    def sometimes(page: PageObject, **options: object) -> str:
        if page.page_number == 1:
            raise KeyError("/Font")
        return extract(page, **options)

    monkeypatch.setattr(PageObject, "extract_text", sometimes)
    assert [d.id_ for d in load_documents(path)] == ["x.pdf#1", "x.pdf#3"]
    assert "x.pdf has 1 broken pages of 3, which were left out" in caplog.text


def test_broken_characters_do_not_get_through(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("pypdf.PageObject.extract_text", lambda self, **_: "half \ud83d and \x00 nul")
    text = load_documents(pdf(tmp_path / "x.pdf", "x"))[0].text
    text.encode("utf-8")
    assert "\x00" not in text


@pytest.mark.parametrize(("size", "overlap"), [(0, 0), (-5, 0), (100, 100), (100, -1)])
def test_chunk_sizes_are_checked(size: int, overlap: int) -> None:
    with pytest.raises(ConfigError, match="`chunk_size` must be positive and `chunk_overlap` from 0"):
        documents_to_nodes([Document(text="x")], chunk_size=size, chunk_overlap=overlap)


def test_metadata_longer_than_a_chunk_is_explained() -> None:
    with pytest.raises(ConfigError, match="Cannot cut documents into chunks of 10 tokens"):
        documents_to_nodes([Document(text="x", metadata={"a": "word " * 50})], chunk_size=10, chunk_overlap=0)


def test_documents_without_text_give_no_nodes() -> None:
    with pytest.raises(DocumentError, match="hold no text to cut into chunks"):
        documents_to_nodes([])


def test_corpus_of_any_nodes(caplog) -> None:
    nodes = [
        TextNode(id_="a", text="bare", metadata={"k": "v"}),
        TextNode(id_="b", text="alone"),
        TextNode(id_="c", text=" "),
    ]
    corpus = dataset_corpus(nodes)
    assert corpus == ({"a": "k: v\n\nbare", "b": "alone"}, {"a": "bare"}, {})
    assert "Left out 1 nodes without text" in caplog.text
    assert dataset_corpus(nodes[:2], metadata_mode=MetadataMode.NONE) == ({"a": "bare", "b": "alone"}, {}, {})
    with pytest.raises(DatasetError, match="Two nodes have the id 'a'"):
        dataset_corpus([nodes[0], nodes[0]])
    with pytest.raises(ConfigError, match="`metadata_mode` must be one of 'all', 'embed', 'llm', 'none', got 'bare'"):
        dataset_corpus(nodes, metadata_mode="bare")


@pytest.mark.data
def test_a_real_annual_report(shared_data: Path, tmp_path: Path) -> None:
    from pypdf import PdfReader

    source = shared_data / "pdf" / "NIKE_2018_10K.pdf"
    writer = PdfWriter()
    for page in PdfReader(source).pages[:4]:  # the whole file takes half a minute
        writer.add_page(page)
    writer.write(tmp_path / "NIKE_2018_10K.pdf")
    nodes = documents_to_nodes(load_documents(tmp_path))
    corpus = dataset_corpus(nodes)
    assert len(nodes) >= 4
    assert all("file_name: NIKE_2018_10K.pdf\n\n" in text for text in corpus.corpus.values())
    assert any("NIKE, Inc." in text for text in corpus.bare_texts.values())


def test_a_paragraph_without_end_goes_to_the_sentence_splitter_in_pieces(monkeypatch) -> None:
    """The splitter gives up on long ones: 10 MB of one paragraph ended with a time-out that nobody had asked for."""
    from llama_index_embft.dataset.documents import loading

    monkeypatch.setattr(loading, "_PARAGRAPH", 500)
    text = " ".join(f"Word number {n} stands here." for n in range(200))
    nodes = documents_to_nodes([Document(text=text, id_="a")], chunk_size=64, chunk_overlap=0)
    assert " ".join(node.text for node in nodes).split() == text.split()
    assert "".join(loading._sentences()("x" * 1700)) == "x" * 1700  # without a space to cut at


def test_half_a_character_in_a_node_ends_nothing() -> None:
    nodes = [TextNode(id_="a", text="Half: \ud83d.", metadata={"m": "\ud83d\ude00"})]
    found = dataset_corpus(nodes)
    assert (found.corpus["a"], found.bare_texts["a"]) == ("m: \U0001f600\n\nHalf: \ufffd.", "Half: \ufffd.")


@pytest.mark.parametrize("other", ["a text", None, NodeWithScore(node=TextNode(text="x"), score=1.0)])
def test_what_is_no_node_is_one_sentence(other: object) -> None:
    with pytest.raises(DatasetError, match=r"Expected LlamaIndex nodes, got .*; texts are nodes: "):
        dataset_corpus([other])  # type: ignore[list-item]
    with pytest.raises(DocumentError, match=r"Expected LlamaIndex documents, got .*; texts are documents as "):
        documents_to_nodes([other])  # type: ignore[list-item]


def test_an_empty_path_is_not_the_working_folder() -> None:
    with pytest.raises(DocumentError, match="No documents: give at least one file or folder"):
        load_documents("")
