"""Questions about an index that exists, labelled by node ids, texts or pages; and `embft evaluate --index`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from uuid import UUID

import pytest
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.embeddings.huggingface import HuggingFaceEmbedding

from llama_index_embft.errors import DatasetError
from llama_index_embft.index import StoreError, questions_for_index, stamp_index
from llama_index_embft.index.stores import open_index


@pytest.fixture(scope="module")
def base(tiny_model_path):
    return HuggingFaceEmbedding(model_name=tiny_model_path, device="cpu")


def node(number: int) -> TextNode:
    """Four pages a file."""
    file, page = f"manual{number // 4}.pdf", str(number % 4 + 1)
    return TextNode(
        text=f"Unit {number} turns the wheel {number * 7} times before the bell of hall {number} rings.",
        id_=str(UUID(int=number + 1)),
        metadata={"file_name": file, "file_path": f"/data/{file}", "page_label": page},
        excluded_embed_metadata_keys=["file_name", "file_path", "page_label"],
        relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=f"doc-{file}-{page}")},
    )


NODES = [node(number) for number in range(12)]


def build(kind: str, folder: Path, base: HuggingFaceEmbedding) -> None:
    if kind == "qdrant":
        from llama_index.vector_stores.qdrant import QdrantVectorStore
        from qdrant_client import QdrantClient

        client = QdrantClient(path=str(folder))
        context = StorageContext.from_defaults(vector_store=QdrantVectorStore(client=client, collection_name="mine"))
        VectorStoreIndex(NODES, storage_context=context, embed_model=base)
        client.close()
    elif kind == "lancedb":
        from llama_index.vector_stores.lancedb import LanceDBVectorStore

        context = StorageContext.from_defaults(vector_store=LanceDBVectorStore(uri=str(folder), table_name="mine"))
        VectorStoreIndex(NODES, storage_context=context, embed_model=base)
    elif kind == "faiss":
        import faiss
        from llama_index.vector_stores.faiss import FaissVectorStore

        store = FaissVectorStore(faiss_index=faiss.IndexFlatIP(32))
        index = VectorStoreIndex(
            NODES, storage_context=StorageContext.from_defaults(vector_store=store), embed_model=base
        )
        index.storage_context.persist(str(folder))
    else:
        VectorStoreIndex(NODES, embed_model=base).storage_context.persist(str(folder))


@pytest.fixture
def opened(tmp_path, base):
    build("simple", tmp_path / "storage", base)
    return open_index(str(tmp_path / "storage"), embed_model=base)


def ids(*numbers: int) -> list[str]:
    return [NODES[number].node_id for number in numbers]


def labelled(opened, file: Path, rows, **options):
    if file.suffix == ".jsonl":
        file.write_text("\n".join(map(json.dumps, rows)))
    else:
        file.write_text(rows)
    found = questions_for_index(opened.index, file, persist_dir=opened.persist_dir, **options)
    by_query = {found.dataset.queries[q]: docs for q, docs in found.dataset.relevant_docs.items()}
    return found, by_query


def test_labels_are_node_ids(opened, tmp_path):
    rows = [
        {"question": "a?", "node_ids": ids(1, 2)},
        {"query": "b?", "node_id": ids(3)[0]},
        {"query": "b?", "node_id": ids(4)[0]},
    ]
    found, by_query = labelled(opened, tmp_path / "q.jsonl", rows)
    assert by_query == {"a?": ids(1, 2), "b?": ids(3, 4)}
    assert found.labels == "node ids"
    assert len(found.dataset.corpus) == 12
    assert found.dataset.document_of(ids(5)[0]) == "/data/manual1.pdf"  # and not its page
    assert found.dataset.corpus[ids(0)[0]] == NODES[0].text


def test_labels_are_documents_and_pages_as_a_spreadsheet_has_them(opened, tmp_path):
    rows = ("a?,manual0.pdf,2", "b?,/data/manual1.pdf,", "c?,data/manual2.pdf,4", "d?,doc-manual0.pdf-1,")
    found, by_query = labelled(opened, tmp_path / "q.csv", "\n".join(["question,document,page", *rows]))
    assert by_query == {"a?": ids(1), "b?": ids(4, 5, 6, 7), "c?": ids(11), "d?": ids(0)}
    assert found.labels == "documents"
    _, by_query = labelled(
        opened, tmp_path / "q.jsonl", [{"question": "a?", "file_name": "manual0.pdf", "pages": [1, 3.0]}]
    )
    assert by_query == {"a?": ids(0, 2)}


def test_labels_are_texts_whole_quoted_or_around_a_node(opened, tmp_path):
    rows = [
        {"question": "whole?", "context": NODES[5].text.upper()},
        {"question": "quoted?", "context": "the bell of hall 7 rings"},
        {"question": "around?", "context": f"Page 3. {NODES[8].text} {NODES[9].text} End."},
    ]
    found, by_query = labelled(opened, tmp_path / "q.jsonl", rows)
    assert {query: sorted(docs) for query, docs in by_query.items()} == {
        "whole?": ids(5), "quoted?": ids(7), "around?": ids(8, 9),
    }  # fmt: skip
    assert found.labels == "texts"


def test_a_data_set_of_any_format_finds_its_nodes_by_id(opened, tmp_path):
    content = {"queries": {"q": "x?"}, "corpus": {ids(2)[0]: "old text"}, "relevant_docs": {"q": ids(2)}}
    (tmp_path / "d.json").write_text(json.dumps(content))
    found = questions_for_index(opened.index, tmp_path / "d.json", persist_dir=opened.persist_dir)
    assert found.dataset.relevant_docs == {"q": ids(2)}
    assert found.dataset.corpus[ids(2)[0]] == NODES[2].text  # the index has the say


NO_DOCUMENT = r"no document 'manual9.pdf' \(did you mean 'manual"
NO_TEXT = "Nobody ever wrote this sentence here."
WRONG = {
    "a node": ([{"question": "a?", "node_ids": ["nope"]}], "there is no node 'nope'"),
    "a document": ([{"question": "a?", "document": "manual9.pdf"}], NO_DOCUMENT),
    "one node of two": ([{"question": "a?", "node_ids": [ids(1)[0], "nope"]}], "there is no node 'nope'"),
    "a node in a second row": (
        [{"question": "a?", "node_id": "nope"}, {"question": "a?", "node_id": ids(1)[0]}], "there is no node 'nope'"
    ),
    "one document of two": ([{"question": "a?", "document": ["manual0.pdf", "manual9.pdf"]}], NO_DOCUMENT),
    "a document of the name elsewhere": (
        [{"question": "a?", "document": "/other/manual0.pdf"}], r"'/other/manual0.pdf' \(did you mean '/data/man"
    ),
    "one page of two": ([{"question": "a?", "document": "manual0.pdf", "page": [1, 9]}], "has no page 9; its pages"),
    "a page": ([{"question": "a?", "document": "manual0.pdf", "page": 9}], "has no page 9; its pages are 1, 2, 3, 4"),
    "a text": ([{"question": "a?", "context": NO_TEXT}], "no node has the text 'Nobody"),
    "a word cut short": ([{"question": "a?", "context": "the wheel 7 times before the bell of hal"}], "no node has"),
    "one text of two": (
        [{"question": "a?", "context": NODES[5].text}, {"question": "a?", "context": NO_TEXT}], "no node has the text"
    ),
    "a short text": ([{"question": "a?", "context": "the bell"}], "no node has the text 'the bell'"),
    "no label": ([{"question": "a?", "document": "manual0.pdf"}, {"question": "b?"}], "neither node_ids nor a"),
    "no question": ([{"node_ids": ids(1)}], "Row 1 has no question; its columns are node_ids"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_labels_that_name_nothing_are_refused_or_left_out(opened, tmp_path, case):
    rows, message = WRONG[case]
    with pytest.raises(DatasetError, match=message):
        labelled(opened, tmp_path / "q.jsonl", rows)


def test_a_file_name_that_several_folders_have_is_not_guessed(tmp_path, base):
    nodes = [
        TextNode(
            text=f"Page of {folder}.", metadata={"file_path": f"/docs/{folder}/readme.md", "file_name": "readme.md"}
        )
        for folder in ("red", "blue")
    ]
    index = VectorStoreIndex(nodes, embed_model=base)
    file = tmp_path / "q.csv"
    for name in ("red/readme.md", r"C:\docs\red\readme.md", "/docs/red/readme.md"):
        file.write_text(f"question,document\na?,{name}\n")
        assert list(questions_for_index(index, file).dataset.relevant_docs.values()) == [[nodes[0].node_id]]
    file.write_text("question,document\na?,readme.md\n")
    with pytest.raises(DatasetError, match=r"may be '/docs/red/readme\.md' or '/docs/blue/readme\.md'; give more"):
        questions_for_index(index, file)


def test_what_is_left_out_is_counted_and_never_everything(opened, tmp_path):
    rows = [{"question": "a?", "node_ids": ["nope"]}, {"question": "b?", "node_ids": ids(1)}]
    with pytest.raises(DatasetError, match="a label of 'a\\?' names nothing in the index"):
        labelled(opened, tmp_path / "q.jsonl", rows)
    found, by_query = labelled(opened, tmp_path / "q.jsonl", rows, drop=True)
    assert by_query == {"b?": ids(1)}
    assert found.dropped == {"a?": "there is no node 'nope'"}
    with pytest.raises(DatasetError, match="names nothing"):
        labelled(opened, tmp_path / "q.jsonl", rows[:1], drop=True)


def test_an_index_without_texts_is_refused(tmp_path, base):
    index = VectorStoreIndex([], embed_model=base)
    with pytest.raises(StoreError, match="holds no node with a text"):
        questions_for_index(index, tmp_path / "q.jsonl")


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def embft(monkeypatch, capsys, tmp_path):
    from llama_index_embft.cli.app import main

    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["embft", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as stopped:
            main()
        said = capsys.readouterr()
        return stopped.value.code, said.out, said.err

    return call


@pytest.mark.parametrize("kind", ["simple", "faiss", "qdrant", "lancedb"])
def test_every_store_is_searched_as_it_is(embft, tmp_path, base, tiny_model_path, kind):
    build(kind, tmp_path / "index", base)
    rows = [{"question": one.text, "node_ids": [one.node_id]} for one in NODES[:6]]
    Path("q.jsonl").write_text("\n".join(map(json.dumps, rows)))
    arguments = ["evaluate", "--index", "index", "--questions", "q.jsonl", "--embed-model", tiny_model_path]
    code, out, err = embft(*arguments, "--json", "--k", 1, "--k", 3, "--out", "r.json")
    assert code == 0, err
    record = json.loads(out)
    assert (record["queries"], record["corpus"], record["labels"], record["stamped"]) == (6, 12, "node ids", False)
    assert record["metrics"]["hit_rate@3"] > 0.5  # of random weights, but each question is its node
    assert Path("r.json").exists()


def test_a_stamp_of_another_model_is_refused_and_none_is_said(embft, tmp_path, base, tiny_model_path, minilm_path):
    build("simple", tmp_path / "index", base)
    Path("q.jsonl").write_text(json.dumps({"question": "a?", "node_ids": ids(1)}) + "\n")
    arguments = ["evaluate", "--index", "index", "--questions", "q.jsonl", "--embed-model"]
    assert "does not say which model embedded it" in embft(*arguments, tiny_model_path)[1]
    opened = open_index("index", embed_model=base)
    stamp_index(opened.index, base, persist_dir=opened.persist_dir)
    code, out, _ = embft(*arguments, tiny_model_path)
    assert (code, "does not say" in out) == (0, False)
    code, _, err = embft(*arguments, minilm_path)
    assert code == 2
    assert "Error: " in err


def test_options_that_do_not_go_together_are_one_sentence(embft, tiny_model_path):
    for arguments, message in {
        ("d.json", "--index", "i"): "one of the two",
        ("--embed-model", "m"): "one of the two",
        ("--index", "i", "--embed-model", "m"): "--index and --questions belong together",
        ("d.json",): "Name the embedding model with --embed-model",
        ("d.json", "--drop", "--embed-model", "m"): "--drop is for --index; leave it out",
        ("--index", "none", "--questions", "q", "--embed-model", tiny_model_path): "There is no index at none",
    }.items():
        code, _, err = embft("evaluate", *arguments)
        assert code == 2
        assert message in err
