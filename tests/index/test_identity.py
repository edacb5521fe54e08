"""An index knows who embedded it: after a restart, in every store."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from index_helpers import CountingEmbedding, Place, make_nodes
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.llms import MockLLM
from llama_index.core.vector_stores import SimpleVectorStore

from llama_index_embft.embeddings import AdapterEmbedding, linear_adapter, save_adapter
from llama_index_embft.embeddings.identity import ModelIdentity, identify
from llama_index_embft.errors import ConfigError, ModelError
from llama_index_embft.index import StoreError, check_index, checked_retriever, stamp_index
from llama_index_embft.index.stamp import Stamp
from llama_index_embft.index.stores import open_table


class ByName(BaseEmbedding):
    """As a hosted model: nothing but its name says what answers."""

    version: int = 1
    asked: int = 0

    def _get_text_embedding(self, text: str) -> list[float]:
        self.asked += 1
        dice = random.Random(f"{self.version} {text}")
        return [dice.gauss(0, 1) for _ in range(32)]

    _get_query_embedding = _get_text_embedding

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


class Shorter(ByName):
    """Of another dimension."""

    def _get_text_embedding(self, text: str) -> list[float]:
        return super()._get_text_embedding(text)[:16]


def test_another_model_behind_the_same_name_is_noticed_once_at_the_start(place: Place) -> None:
    model, name = ByName(model_name="m"), {"identity": "m, by name"}
    index = place.build(make_nodes(), model)
    made = stamp_index(index, model, persist_dir=place.persist_dir, **name)
    assert len(made.canaries) == 2
    place.close(index)

    again = place.reopen(model)
    before = model.asked
    retriever = checked_retriever(again, model, similarity_top_k=1, **name)
    assert model.asked - before == 2
    retriever.retrieve("a")
    retriever.retrieve("b")
    assert model.asked - before == 4
    for changed in (ByName(model_name="m", version=2), Shorter(model_name="m")):
        with pytest.raises(ModelError, match="another model answers behind its name"):
            checked_retriever(again, changed, **name)
        with pytest.raises(ModelError, match="another model answers behind its name"):
            check_index(again, changed, **name)
        check_index(again, changed, canaries=False, **name)


def test_a_stamp_survives_a_restart_and_another_model_is_refused(place: Place, old_model, new_model) -> None:
    index = place.build(make_nodes(), old_model)
    with pytest.raises(StoreError, match=r"does not say which model embedded it; stamp it once .*stamp_index"):
        check_index(index, old_model)
    made = stamp_index(index, old_model, persist_dir=place.persist_dir)
    assert made == Stamp(model=identify(old_model), dim=32)
    place.close(index)

    again = place.reopen(old_model)
    assert check_index(again, old_model, verify=2) == made
    with pytest.raises(ModelError) as caught:
        check_index(again, new_model)
    assert old_model.model_name in str(caught.value)
    assert new_model.model_name in str(caught.value)
    with pytest.raises(ModelError, match="cannot be searched with"):
        checked_retriever(again, new_model)
    wanted = make_nodes()[7]
    hits = checked_retriever(again, old_model, similarity_top_k=3).retrieve(wanted.get_content("embed"))
    assert len(hits) == 3
    assert hits[0].node.node_id == wanted.node_id
    place.close(again)


def test_a_wrong_stamp_is_noticed(place: Place, old_model, new_model) -> None:
    index = place.build(make_nodes(8), old_model)
    with pytest.raises(ModelError, match=r"holds another vector for the node .* makes now \(cosine"):
        stamp_index(index, new_model)
    stamp_index(index, new_model, verify=0)  # believed
    with pytest.raises(ModelError, match="holds another vector"):
        check_index(index, new_model, verify=3)
    with pytest.raises(ModelError, match="overwrite=True"):
        stamp_index(index, old_model)
    stamp_index(index, old_model, overwrite=True)
    check_index(index, old_model)
    place.close(index)


def test_nodes_without_a_text_do_not_hide_a_wrong_model(old_model, new_model) -> None:
    nodes = make_nodes(8)
    for node in nodes[:5]:
        node.set_content("")
        node.metadata = {}
    index = VectorStoreIndex(nodes, embed_model=old_model)
    with pytest.raises(ModelError, match="holds another vector for the node"):
        stamp_index(index, new_model)
    stamp_index(index, old_model)


def test_a_query_side_adapter_works_on_the_existing_index_without_embedding_a_document(
    place: Place, tiny_model_path: str, tmp_path: Path
) -> None:
    import torch

    base = CountingEmbedding(model_name=tiny_model_path, device="cpu")
    index = place.build(make_nodes(), base)
    stamp_index(index, base, verify=0, persist_dir=place.persist_dir)
    adapter = linear_adapter(32)
    with torch.no_grad():
        adapter.weight.add_(0.3 * torch.randn(32, 32, generator=torch.Generator().manual_seed(0)))
    save_adapter(tmp_path / "adapter", adapter, base={}, base_fingerprint=None, record={})
    tuned = AdapterEmbedding(base, tmp_path / "adapter", force=True)
    before = base.counted["document"]

    assert identify(tuned) == identify(base)
    assert identify(tuned, "query") != identify(base, "query")
    check_index(index, tuned)
    question = "the old king paints the moon"
    plain = index.as_retriever(similarity_top_k=10).retrieve(question)
    direct = index.as_retriever(embed_model=tuned, similarity_top_k=10).retrieve(question)
    checked = checked_retriever(index, tuned, similarity_top_k=10)
    ids = [hit.node.node_id for hit in direct]
    assert [hit.node.node_id for hit in checked.retrieve(question)] == ids
    assert ids != [hit.node.node_id for hit in plain]  # the adapter does something
    if place.kind != "qdrant":  # its embedded client has no second, asynchronous one on the same folder
        assert [hit.node.node_id for hit in asyncio.run(checked.aretrieve(question))] == ids
    engine = index.as_query_engine(llm=MockLLM(), embed_model=tuned, similarity_top_k=10)
    assert [hit.node.node_id for hit in engine.query(question).source_nodes] == ids
    assert base.counted["document"] == before
    assert checked.counts[ids[0]] >= 1
    place.close(index)


def test_a_document_side_adapter_has_an_identity_of_its_own(old_model, tmp_path: Path) -> None:
    for name, documents in (("query", False), ("both", True)):
        save_adapter(
            tmp_path / name,
            linear_adapter(32),
            base={},
            base_fingerprint=None,
            record={},
            transform_documents=documents,
        )
    assert identify(AdapterEmbedding(old_model, tmp_path / "query", force=True)) == identify(old_model)
    assert identify(AdapterEmbedding(old_model, tmp_path / "both", force=True)) != identify(old_model)


def test_a_prompt_is_part_of_the_identity(tiny_model_path: str, old_model) -> None:
    prompted = CountingEmbedding(model_name=tiny_model_path, device="cpu", text_instruction="passage: ")
    assert identify(prompted).fingerprint != identify(old_model).fingerprint


def test_a_retriever_notices_an_update_that_starts_later(place_of: Callable[..., Place], old_model, new_model) -> None:
    index = place_of("simple").build(make_nodes(8), old_model)
    stamp = stamp_index(index, old_model)
    retriever = checked_retriever(index, old_model)
    retriever.retrieve("a river")
    busy = dataclasses.replace(stamp, state="updating", target=identify(new_model), journal="/somewhere/j.sqlite")
    open_table(index).write_stamp(busy)
    with pytest.raises(StoreError, match=r"being updated from .* to .*/somewhere/j\.sqlite"):
        retriever.retrieve("a river")
    with pytest.raises(StoreError, match="being updated"):
        stamp_index(index, old_model)


def test_bad_stamps_and_stores(place_of: Callable[..., Place], old_model, tmp_path: Path) -> None:
    stamp = Stamp(model=ModelIdentity("f" * 32, "m"), dim=3)
    assert Stamp.from_json(stamp.to_json(), "x") == stamp
    with pytest.raises(StoreError, match="stamp of the index is damaged"):
        Stamp.from_json(stamp.to_json()[:20], "the index")
    with pytest.raises(StoreError, match="newer"):
        Stamp.from_json(json.dumps({**json.loads(stamp.to_json()), "format": 9}), "the index")
    with pytest.raises(ConfigError, match="pass the VectorStoreIndex"):
        open_table(SimpleVectorStore())
    with pytest.raises(ConfigError, match="`index` is a str; it must be a VectorStoreIndex"):
        open_table("folder")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"persist the index there first"):
        open_table(VectorStoreIndex([], embed_model=old_model), persist_dir=tmp_path)
    empty = VectorStoreIndex([], storage_context=StorageContext.from_defaults(), embed_model=old_model)
    with pytest.raises(StoreError, match="is empty"):
        stamp_index(empty, old_model)
    for kind in ("qdrant", "lancedb"):
        store = place_of(kind).vector_store()
        with pytest.raises(StoreError, match=r"does not exist; check the name"):
            stamp_index(store, old_model)
    with pytest.raises(ConfigError, match="leave it out"):
        open_table(store, persist_dir=tmp_path)


def test_a_postgres_server_that_does_not_answer(old_model) -> None:
    place = Place("postgres", Path(), "postgresql://nobody:@localhost:1/none", "t")
    with pytest.raises(StoreError, match="cannot be reached"):
        open_table(place.vector_store())
