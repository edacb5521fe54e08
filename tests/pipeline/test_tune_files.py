"""What a search says of the files it was given: what was skipped, and how long chunks are."""

from __future__ import annotations

from pathlib import Path

import pytest
from llama_index.core.embeddings import MockEmbedding

from llama_index_embft import load_embed_model
from llama_index_embft.dataset import ReadingSettings, documents_to_nodes, load_documents
from llama_index_embft.embeddings import model_tokens
from llama_index_embft.errors import ConfigError, DocumentError
from llama_index_embft.pipeline import TuneSettings, tune
from llama_index_embft.pipeline.sources import check_apart, read_source


def folder_of(tmp_path: Path) -> Path:
    root = tmp_path / "docs"
    root.mkdir()
    for number, word in enumerate(["boiler", "hinge", "valve", "pump", "filter", "motor"]):
        lines = [f"The {word} of plant {n} was made in {1900 + n * number} by the {word} works." for n in range(8)]
        (root / f"{word}.txt").write_text(" ".join(lines))
    (root / "rows.csv").write_text("question,answer\nWhy?,So.\nHow?,Thus.\n")
    (root / "locked.docx").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + "EncryptedPackage".encode("utf-16-le"))
    (root / "photo.jpg").write_bytes(b"x")
    return root


def test_the_report_counts_what_was_skipped_with_its_reason(tmp_path, tiny_model_path) -> None:
    settings = TuneSettings(reading=ReadingSettings(max_rows=1))
    root = folder_of(tmp_path)
    result = tune(root, model=tiny_model_path, methods="none", settings=settings, show_progress=False)
    notes = result.to_dict()["notes"]
    for sentence in (
        "Read 7 of 9 files as 7 documents.",
        "Skipped 1 file (encrypted): locked.docx is encrypted and needs a password; save it without one.",
        "Skipped 1 file (of a kind that is not read): .jpg (1).",
        "Read 1 file with a reservation (too large): rows.csv holds more than 1 rows, of which the first 1 were read; "
        "raise `max_rows` for more.",
        "Chunks have 62 tokens and not 256: the model reads no more.",
    ):
        assert sentence in notes


def test_a_search_and_an_index_cut_the_same_chunks(tmp_path, tiny_model_path) -> None:
    root = folder_of(tmp_path)
    embed_model = load_embed_model(tiny_model_path)
    found = read_source(root, embed_model=embed_model, settings=TuneSettings(), show_progress=False)
    nodes = documents_to_nodes(load_documents(root), tokens=model_tokens(embed_model))
    assert {node.node_id: node.get_content("embed") for node in nodes} == found.corpus.corpus


def test_a_folder_of_documents_named_collection_is_no_index(tmp_path) -> None:
    (tmp_path / "docs" / "collection").mkdir(parents=True)
    (tmp_path / "docs" / "collection" / "room.txt").write_text("The first room holds paintings of the harbour.")
    found = read_source(tmp_path / "docs", embed_model=MockEmbedding(4), settings=TuneSettings(), show_progress=False)
    assert len(found.nodes) == 1
    with pytest.raises(DocumentError, match="No documents: give at least one file or folder"):
        read_source("", embed_model=MockEmbedding(4), settings=TuneSettings(), show_progress=False)


def test_questions_are_no_documents(tmp_path) -> None:
    root = folder_of(tmp_path)
    for asked in (root / "asked.jsonl", root / "beir" / "queries.jsonl"):
        asked.parent.mkdir(exist_ok=True)
        asked.write_text('{"query": "Who made the boiler?", "positive": "The boiler works."}\n')
        for source in (root, [root], [root / "valve.txt", asked]):
            with pytest.raises(ConfigError, match="lie among the documents, and would be read as one"):
                tune(source, model="nobody/none", questions=asked if asked.parent == root else asked.parent)
    (root / "asked.parquet").write_bytes(b"PAR1")
    check_apart(root / "asked.parquet", root, TuneSettings())  # which is not read
