"""Changing document vectors in place: only what changed, back again, and nothing mixed that goes unnoticed."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from index_helpers import CountingEmbedding, Place, make_nodes
from index_places import PlainEmbedding, TurnedPlain
from llama_index.core.schema import TextNode

from llama_index_embft.embeddings import AdapterEmbedding, NudgedEmbedding, as_encoder, linear_adapter, save_adapter
from llama_index_embft.embeddings.identity import identify
from llama_index_embft.embeddings.local import LocalEmbedding
from llama_index_embft.embeddings.nudge import save_nudge
from llama_index_embft.errors import ConfigError, ModelError, OutputError
from llama_index_embft.index import (
    StoreError,
    check_index,
    checked_retriever,
    plan_update,
    resume_update,
    rollback_index,
    stamp_index,
    update_index,
)
from llama_index_embft.index.journal import UpdateJournal
from llama_index_embft.index.stores import open_table
from llama_index_embft.index.stores.memory import SimpleTable


def all_vectors(index) -> dict[str, np.ndarray]:
    table = open_table(index)
    return {i: vector for batch in table.id_batches(7) for i, vector in table.fetch(batch).items()}


def assert_same(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    for node_id, vector in expected.items():
        np.testing.assert_allclose(found[node_id], vector, atol=2e-6)


def delete(index, node_id: str) -> None:
    if type(index.vector_store).__name__ == "LanceDBVectorStore":  # its delete_nodes fails with lancedb 0.40
        index.vector_store.table.delete(f"id = '{node_id}'")
    else:
        index.vector_store.delete_nodes([node_id])


def both_sides(base, folder: Path, seed: int = 0) -> AdapterEmbedding:
    adapter = linear_adapter(32)
    with torch.no_grad():
        rotation, _ = torch.linalg.qr(torch.randn(32, 32, generator=torch.Generator().manual_seed(seed)))
        adapter.weight.copy_(rotation)  # lengths stay: a store that scales to length 1 holds the same
    save_adapter(folder, adapter, base={}, base_fingerprint=None, record={}, transform_documents=True)
    return AdapterEmbedding(base, folder, force=True)


def test_an_adapter_that_needs_the_lengths_a_store_has_dropped_embeds_again(place_of, tiny_model_path, tmp_path):
    """Qdrant keeps vectors of length 1; with a bias the adapter turns these otherwise than the longer ones it knows."""
    place = place_of("qdrant")
    base = LocalEmbedding(tiny_model_path, normalize=False, device="cpu")
    del base._model[-1]  # which scales to length 1
    index = place.build(make_nodes(), base)
    stamp_index(index, base)
    adapter = linear_adapter(32, bias=True)
    with torch.no_grad():
        adapter.bias[0] = 3.0
    save_adapter(tmp_path / "a", adapter, base={}, base_fingerprint=None, record={}, transform_documents=True)
    model = AdapterEmbedding(base, tmp_path / "a", force=True)
    update_index(index, model, journal=tmp_path / "j", cache=None)
    check_index(index, model, verify=3)
    place.close(index)


def nudged(base, folder: Path, nodes: list, rows: tuple[int, ...]) -> NudgedEmbedding:
    texts = [nodes[row].get_content("embed") for row in rows]
    vectors = as_encoder(base, cache=None).encode_documents(texts)
    vectors = np.roll(vectors, 1, axis=1)
    save_nudge(
        folder,
        [nodes[row].node_id for row in rows],
        texts,
        vectors,
        variant="N",
        step=1.0,
        base={},
        base_fingerprint=None,
        record={},
    )
    return NudgedEmbedding(base, folder, force=True)


def test_a_document_side_adapter_updates_every_store_and_is_rolled_back(
    place: Place, tiny_model_path: str, tmp_path: Path
) -> None:
    base = CountingEmbedding(model_name=tiny_model_path, device="cpu")
    nodes = make_nodes()
    index = place.build(nodes, base)
    stamp_index(index, base, verify=0, persist_dir=place.persist_dir)
    before, embedded = all_vectors(index), base.counted["document"]
    model = both_sides(base, tmp_path / "adapter")
    journal = tmp_path / "update.journal"

    plan = plan_update(index, model)
    assert (plan.nodes, plan.changed, plan.source, plan.target) == (60, 60, identify(base), identify(model))
    assert_same(all_vectors(index), before)  # a plan writes nothing

    result = update_index(index, model, journal=journal, persist_dir=place.persist_dir, batch_size=25)
    assert (result.written, result.unchanged, result.lost) == (60, 0, 0)
    assert base.counted["document"] == embedded  # no text was embedded again
    place.close(index)

    again = place.reopen(model)
    assert check_index(again, model).model == identify(model)
    with pytest.raises(ModelError, match="cannot be searched with"):
        check_index(again, base)
    moved = all_vectors(again)
    matrix = np.array([v for _, v in sorted(before.items())]) @ model.adapter.weight.detach().numpy().T
    np.testing.assert_allclose(np.array([v for _, v in sorted(moved.items())]), matrix, atol=2e-6)
    top = checked_retriever(again, model, similarity_top_k=1).retrieve(nodes[40].get_content("embed"))[0]
    assert top.node.node_id == nodes[40].node_id
    assert top.node.get_content("embed") == nodes[40].get_content("embed")  # text and metadata are as they were
    # The same call again, and a resumption, change nothing.
    assert update_index(again, model, journal=journal, persist_dir=place.persist_dir).written == 60
    assert resume_update(again, journal, persist_dir=place.persist_dir).written == 60

    back = rollback_index(again, journal, persist_dir=place.persist_dir)
    assert (back.source, back.target, back.written) == (identify(model), identify(base), 60)
    place.close(again)
    restored = place.reopen(base)
    assert_same(all_vectors(restored), before)
    check_index(restored, base, verify=2)
    place.close(restored)


def test_nudge_writes_only_the_moved_vectors(place: Place, old_model, tmp_path: Path, monkeypatch) -> None:
    nodes = make_nodes()
    index = place.build(nodes, old_model)
    stamp_index(index, old_model)
    before = all_vectors(index)
    model = nudged(old_model, tmp_path / "nudge", nodes, (3, 5, 8))
    table = open_table(index)
    written: list[str] = []
    write = type(table).write
    monkeypatch.setattr(type(table), "write", lambda self, ids, v: (written.extend(ids), write(self, ids, v))[1])

    result = update_index(index, model, journal=tmp_path / "j")
    assert (result.written, result.unchanged) == (3, 0)
    assert sorted(written) == [nodes[row].node_id for row in (3, 5, 8)]
    after = all_vectors(index)
    for row, node in enumerate(nodes):
        assert np.allclose(after[node.node_id], before[node.node_id], atol=1e-6) == (row not in (3, 5, 8))
    check_index(index, model, verify=5)
    with pytest.raises(ModelError):
        check_index(index, old_model)
    rollback_index(index, tmp_path / "j")
    assert_same(all_vectors(index), before)
    check_index(index, old_model)
    place.close(index)


def test_another_model_of_the_same_dimension_embeds_every_text_again(
    place: Place, old_model, new_model, tmp_path: Path
) -> None:
    nodes = make_nodes(20)
    index = place.build(nodes, old_model)
    stamp_index(index, old_model)
    assert plan_update(index, new_model).changed is None
    update_index(index, new_model, journal=tmp_path / "j", batch_size=8)
    check_index(index, new_model, verify=20)
    place.close(index)


def test_vectors_by_id_must_cover_the_index_unless_they_are_the_same_models(
    place_of: Callable[..., Place], old_model, new_model, tmp_path: Path
) -> None:
    nodes = make_nodes(6)
    index = place_of("simple").build(nodes, old_model)
    stamp_index(index, old_model)
    some = {node.node_id: [1.0] + [0.0] * 31 for node in nodes[:4]}
    with pytest.raises(ConfigError, match="do not say who made them"):
        update_index(index, some, journal=tmp_path / "a")
    with pytest.raises(StoreError, match=r"No vector is given for 2 nodes .* give vectors for all nodes"):
        update_index(index, some, embed_model=new_model, journal=tmp_path / "b")
    check_index(index, old_model, verify=6)  # untouched
    # Of the model that embedded the index some vectors are enough, and those that are the same are not written.
    known = all_vectors(index)
    result = update_index(
        index,
        {nodes[0].node_id: some[nodes[0].node_id], nodes[1].node_id: known[nodes[1].node_id].tolist()},
        embed_model=old_model,
        journal=tmp_path / "c",
    )
    assert (result.written, result.unchanged) == (1, 1)
    every = {node.node_id: [0.0, 1.0] + [0.0] * 30 for node in nodes}
    assert update_index(index, every, embed_model=new_model, journal=tmp_path / "d").written == 6
    # The first update cannot be taken back before the second.
    with pytest.raises(StoreError, match="roll back the later update first"):
        rollback_index(index, tmp_path / "c")
    rollback_index(index, tmp_path / "d")
    rollback_index(index, tmp_path / "c")
    assert_same(all_vectors(index), known)


@pytest.mark.parametrize("kind", ["simple", "faiss_map", "qdrant", "lancedb", "postgres"])
def test_a_store_that_lost_rows(place_of: Callable[..., Place], kind: str, old_model, tmp_path: Path) -> None:
    place = place_of(kind)
    nodes = make_nodes(20)
    index = place.build(nodes, old_model)
    stamp_index(index, old_model)
    model = nudged(old_model, tmp_path / "nudge", nodes, (3, 5, 8))
    delete(index, nodes[5].node_id)
    with pytest.raises(StoreError, match=rf"1 nodes are not in .* \(first: {nodes[5].node_id}\).*='skip'"):
        update_index(index, model, journal=tmp_path / "j")
    check_index(index, old_model)  # nothing has happened
    assert update_index(index, model, journal=tmp_path / "j", missing="skip").written == 2
    delete(index, nodes[8].node_id)
    with pytest.raises(StoreError, match="any more"):
        rollback_index(index, tmp_path / "j")
    with pytest.raises(StoreError, match="being updated"):  # and the half way is seen
        check_index(index, old_model)
    back = rollback_index(index, tmp_path / "j", missing="skip")
    assert (back.written, back.lost) == (1, 1)
    check_index(index, old_model)
    place.close(index)


def test_a_model_that_now_returns_another_dimension(place_of: Callable[..., Place], old_model, tmp_path: Path) -> None:
    index, narrow = place_of("simple").build(make_nodes(6), old_model), TurnedPlain(model_name="narrow")
    with pytest.raises(ModelError, match=r"holds vectors of 32 dimensions and .* makes 24"):
        stamp_index(index, narrow)
    stamp_index(index, old_model)
    with pytest.raises(StoreError, match=r"24 dimensions, but .* holds 32.*reembed_index"):
        update_index(index, narrow, journal=tmp_path / "j")
    check_index(index, old_model, verify=3)


def test_faiss_that_keeps_no_exact_vectors_cannot_update(old_model, tmp_path: Path) -> None:
    import faiss
    from llama_index.core import StorageContext, VectorStoreIndex
    from llama_index.vector_stores.faiss import FaissVectorStore

    nodes = make_nodes(60)
    lossy = faiss.index_factory(32, "PQ4x4", faiss.METRIC_INNER_PRODUCT)
    lossy.train(as_encoder(old_model, cache=None).encode_documents([node.get_content("embed") for node in nodes]))
    context = StorageContext.from_defaults(vector_store=FaissVectorStore(lossy))
    index = VectorStoreIndex(nodes, storage_context=context, embed_model=old_model)
    stamp_index(index, old_model, verify=0)
    with pytest.raises(StoreError, match=r"cannot update in place; re-embed into a new index: reembed_index"):
        update_index(index, both_sides(old_model, tmp_path / "a"), journal=tmp_path / "j")
    check_index(index, old_model)


def test_nodes_added_later(place_of: Callable[..., Place], old_model, tmp_path: Path, monkeypatch) -> None:
    nodes = make_nodes(12)
    index = place_of("lancedb").build(nodes[:10], old_model)
    stamp_index(index, old_model)
    model = both_sides(old_model, tmp_path / "a")
    # One node comes in between planning and writing: it is updated as well.
    table_class = type(open_table(index))
    write_stamp = table_class.write_stamp
    late = iter([nodes[10]])

    def stamp_late(self, stamp) -> None:
        for node in itertools.islice(late, 1):
            index.insert_nodes([node])
        write_stamp(self, stamp)

    monkeypatch.setattr(table_class, "write_stamp", stamp_late)
    assert update_index(index, model, journal=tmp_path / "j").written == 11
    check_index(index, model, verify=11)
    # One comes after the update: its vector cannot be taken back.
    index._embed_model = model
    index.insert_nodes([nodes[11]])
    with pytest.raises(StoreError, match=r"1 nodes were added .* delete them before the rollback"):
        rollback_index(index, tmp_path / "j")
    check_index(index, model)


def test_lancedb_with_nodes_of_other_metadata(place_of: Callable[..., Place], tmp_path: Path) -> None:
    one, two = PlainEmbedding(model_name="one"), PlainEmbedding(model_name="two")
    index = place_of("lancedb").build(make_nodes(4), one)
    index.insert_nodes([TextNode(text="without the metadata of the others")])
    stamp_index(index, one, verify=5)
    assert update_index(index, two, journal=tmp_path / "j", cache=None).written == 5
    check_index(index, two, verify=5)


def test_somebody_else_wrote_a_vector(place_of: Callable[..., Place], old_model, tmp_path: Path) -> None:
    nodes = make_nodes(6)
    index = place_of("simple").build(nodes, old_model)
    stamp_index(index, old_model)
    update_index(index, both_sides(old_model, tmp_path / "a"), journal=tmp_path / "j")
    index.vector_store.data.embedding_dict[nodes[2].node_id] = [1.0] * 32
    with pytest.raises(StoreError, match=r"neither the old one nor the new one"):
        rollback_index(index, tmp_path / "j")


def test_wrong_journals(place_of: Callable[..., Place], old_model, new_model, tmp_path: Path) -> None:
    nodes = make_nodes(6)
    index = place_of("simple").build(nodes, old_model)
    other = place_of("simple").build(nodes, old_model)
    stamp_index(index, old_model)
    stamp_index(other, old_model)
    one, two = both_sides(old_model, tmp_path / "a"), both_sides(old_model, tmp_path / "b", seed=2)
    update_index(index, one, journal=tmp_path / "j")
    with pytest.raises(StoreError, match="is of another update"):
        update_index(other, one, journal=tmp_path / "j")
    with pytest.raises(StoreError, match="is of another update"):
        update_index(index, two, journal=tmp_path / "j")
    with pytest.raises(StoreError, match="belongs to"):
        rollback_index(other, tmp_path / "j")
    rollback_index(index, tmp_path / "j")
    with pytest.raises(StoreError, match="taken back; give another path"):
        update_index(index, one, journal=tmp_path / "j")
    with pytest.raises(StoreError, match="taken back"):
        resume_update(index, tmp_path / "j")
    with pytest.raises(OutputError, match="There is no journal"):
        rollback_index(index, tmp_path / "none")
    (tmp_path / "text").write_text("hello " * 100)
    with pytest.raises(OutputError, match="Cannot open the journal"):
        rollback_index(index, tmp_path / "text")
    with UpdateJournal(tmp_path / "j"), pytest.raises(OutputError, match="another process is using it"):
        rollback_index(index, tmp_path / "j")
    with pytest.raises(ConfigError, match="batch_size"):
        update_index(index, one, journal=tmp_path / "k", batch_size=0)
    with pytest.raises(ConfigError, match="missing"):
        update_index(index, one, journal=tmp_path / "k", missing="no")  # type: ignore[arg-type]


def test_a_journal_of_an_update_before_the_last_one_changes_nothing(
    place_of: Callable[..., Place], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = [PlainEmbedding(model_name=name) for name in ("one", "two", "three")]
    index = place_of("simple").build(make_nodes(6), models[0])
    stamp_index(index, models[0])
    update_index(index, models[1], journal=tmp_path / "first", cache=None)
    update_index(index, models[2], journal=tmp_path / "second", cache=None)
    for call in (resume_update, rollback_index):
        with pytest.raises(StoreError, match=r"was embedded by three .* since"):
            call(index, tmp_path / "first")
    check_index(index, models[2], verify=6)

    rollback_index(index, tmp_path / "second")
    monkeypatch.setattr(SimpleTable, "write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        update_index(index, models[2], journal=tmp_path / "third", cache=None)
    monkeypatch.undo()
    for call in (resume_update, rollback_index):
        with pytest.raises(StoreError, match="under another update, to three"):
            call(index, tmp_path / "first")
    with pytest.raises(StoreError, match="under another update, to three"):
        plan_update(index, models[0])
    assert plan_update(index, models[2]).nodes == 6  # the one that is under way
    resume_update(index, tmp_path / "third")
    check_index(index, models[2], verify=6)


def test_nan_and_zero_vectors_are_refused(place_of: Callable[..., Place], old_model, tmp_path: Path) -> None:
    nodes = make_nodes(4)
    index = place_of("simple").build(nodes, old_model)
    stamp_index(index, old_model)
    for name, bad in (("nan", float("nan")), ("zero", 0.0)):
        with pytest.raises(ModelError, match="NaN, infinite or zero; nothing was written"):
            update_index(index, {nodes[1].node_id: [bad] * 32}, embed_model=old_model, journal=tmp_path / name)
    check_index(index, old_model, verify=4)
