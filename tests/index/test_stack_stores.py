"""A stack over every kind of store: one ranking everywhere, and nodes that come and go are noticed."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest
from index_helpers import make_nodes
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters

from llama_index_embft.errors import ConfigError
from llama_index_embft.index import StoreError
from llama_index_embft.index.stores import open_table
from llama_index_embft.retrievers import StackRetriever, StackSettings, load_retriever, save_retriever

QUERIES = ["a red fox sees the moon", "my computer", "two letters of the tax office", "green"]
NEW, OTHER = (str(UUID(int=number)) for number in (1000, 1001))


@pytest.fixture
def index(place, old_model):
    built = place.build(make_nodes(), old_model)
    yield built
    place.close(built)


def ids(hits):
    return [hit.node.node_id for hit in hits]


@pytest.fixture(scope="module")
def expected(request):
    """The rankings over the store in memory."""
    from llama_index.core import VectorStoreIndex

    model = request.getfixturevalue("old_model")
    retriever = StackRetriever(VectorStoreIndex(make_nodes(), embed_model=model), StackSettings(0.7, "tmm"))
    return {
        query: [(hit.node.node_id, hit.score, hit.node.get_content()) for hit in retriever.retrieve(query)]
        for query in QUERIES
    }


def test_one_ranking_over_any_store(index, expected):
    retriever = StackRetriever(index, StackSettings(0.7, "tmm"))  # the fusion that needs real cosines
    for query, wanted in expected.items():
        hits = retriever.retrieve(query)
        assert [hit.node.get_content() for hit in hits] == [text for _, _, text in wanted]
        assert ids(hits) == [node_id for node_id, _, _ in wanted]
        assert [hit.score for hit in hits] == pytest.approx([score for _, score, _ in wanted], abs=2e-3)


def test_nodes_that_come_and_go_are_noticed(index, place, monkeypatch):
    monkeypatch.setattr("llama_index_embft.retrievers.lexical_part._SECONDS_BETWEEN_LOOKS", 0)
    table = open_table(index)
    for weight in (0.0, 0.5):
        retriever = StackRetriever(index, StackSettings(dense_weight=weight))
        before = table.version()
        index.insert_nodes([TextNode(text="an aardvark digs", id_=NEW, metadata={"row": 1000})])
        assert table.version() != before
        assert ids(retriever.retrieve("aardvark"))[0] == NEW
        if place.kind == "faiss":
            return  # plain FAISS cannot delete
        before = table.version()
        table.delete(index, [NEW])
        assert table.version() != before
        assert NEW not in ids(retriever.retrieve("aardvark"))
        # One goes and another comes between two looks: their number is the same.
        index.insert_nodes([TextNode(text="an aardvark digs", id_=NEW, metadata={"row": 1000})])
        assert NEW in ids(retriever.retrieve("aardvark"))
        table.delete(index, [NEW])
        index.insert_nodes([TextNode(text="a platypus swims", id_=OTHER, metadata={"row": 1001})])
        assert ids(retriever.retrieve("platypus"))[0] == OTHER
        assert NEW not in retriever.lexical.ids
        table.delete(index, [OTHER])


def test_a_database_is_asked_now_and_then_and_a_stranger_tells_at_once(index, place, monkeypatch):
    monkeypatch.setattr("llama_index_embft.retrievers.lexical_part._SECONDS_BETWEEN_LOOKS", 1000)
    retriever = StackRetriever(index)
    asked = []
    version_of = retriever._words.source.table.version
    monkeypatch.setattr(retriever._words.source.table, "version", lambda: asked.append(1) or version_of())
    for _ in range(20):
        retriever.retrieve("a red fox")
    assert len(asked) == (20 if place.persist_dir else 1)
    index.insert_nodes([TextNode(text="an aardvark digs", id_=NEW, metadata={"row": 1000})])
    assert NEW in ids(retriever.retrieve("an aardvark digs"))
    assert NEW in retriever.lexical.ids


def test_filters_hold_for_both_parts(index, place):
    filters = MetadataFilters(filters=[MetadataFilter(key="row", value=30, operator=">=")])
    if place.kind.startswith("faiss"):
        with pytest.raises(ConfigError, match="FAISS cannot filter"):
            StackRetriever(index, filters=filters)
        return
    for weight in (0.0, 0.5, 1.0):
        hits = StackRetriever(index, StackSettings(dense_weight=weight), filters=filters).retrieve(
            "my computer paints the moon"
        )
        assert hits
        assert all(hit.node.metadata["row"] >= 30 for hit in hits)


def test_a_saved_one_is_put_over_the_reopened_store(index, place, old_model, tmp_path):
    retriever = StackRetriever(index, StackSettings(dense_weight=0.4))
    folder = save_retriever(retriever, tmp_path / "retriever")
    expected = {query: ids(retriever.retrieve(query)) for query in QUERIES}
    place.close(index)
    reopened = place.reopen(old_model)
    loaded = load_retriever(folder, reopened)
    assert {query: ids(loaded.retrieve(query)) for query in QUERIES} == expected
    place.close(reopened)


def test_asynchronous_search_is_the_same(index, place):
    if place.kind == "qdrant":
        return  # the embedded Qdrant has no asynchronous client for the same folder
    retriever = StackRetriever(index)
    assert ids(asyncio.run(retriever.aretrieve(QUERIES[0]))) == ids(retriever.retrieve(QUERIES[0]))


def test_a_store_without_texts_is_refused(place, old_model):
    if place.kind not in ("simple", "faiss_map"):
        return
    built = place.build(make_nodes(6), old_model)
    for node_id in list(built.docstore.docs):
        built.docstore.delete_document(node_id)
    with pytest.raises(StoreError, match="has 6 nodes, but no text is kept; give `nodes`"):
        StackRetriever(built)
