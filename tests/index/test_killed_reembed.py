"""SIGKILL while an index is re-embedded: the half-filled one is not searched, and the same call finishes it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from index_places import TURNED_DIM, Place, PlainEmbedding, TurnedPlain, make_nodes, run_and_die
from killed_reembed import killed_reembed, log_texts
from llama_index.core import VectorStoreIndex

from llama_index_embft.embeddings import DriftEmbedding, EmbeddingCache
from llama_index_embft.errors import ConfigError
from llama_index_embft.finetune import DriftAdapter
from llama_index_embft.index import (
    MigratingRetriever,
    StoreError,
    check_index,
    checked_retriever,
    reembed_index,
    stamp_index,
)
from llama_index_embft.index.stores import open_table

OLD, NEW = PlainEmbedding(model_name="old"), TurnedPlain(model_name="new")
NODES = make_nodes(40)
QUESTION = NODES[17].get_content("embed")

# What dies, after how many calls; what the new index then says of itself, and how many vectors it holds.
CASES = [
    ("simple", "store", "add", 3, "building", 0),  # in memory: of the vectors nothing is on the disk
    ("simple", "table", "save_nodes", 1, "building", 0),
    ("simple", "table", "flush", 1, "building", 40),  # all vectors are there, and nobody has said so
    ("lancedb", "table", "write_stamp", 1, "building", 0),
    ("lancedb", "store", "add", 2, "building", 20),
    ("qdrant", "table", "create", 1, None, 0),
    ("qdrant", "store", "add", 1, "building", 10),
    ("qdrant", "store", "add", 4, "building", 40),
    ("postgres", "table", "write_stamp", 1, "building", 0),
    ("postgres", "store", "add", 2, "building", 20),
    ("postgres", "store", "add", 4, "building", 40),
]


def all_vectors(index: VectorStoreIndex) -> dict[str, np.ndarray]:
    table = open_table(index)
    return {i: vector for batch in table.id_batches(7) for i, vector in table.fetch(batch).items()}


@pytest.fixture
def old(place_of: Callable[..., Place]) -> tuple[Place, VectorStoreIndex]:
    place = place_of("simple")
    index = place.build(NODES, OLD)
    stamp_index(index, OLD, persist_dir=place.persist_dir)
    return place, index


def empty(place: Place) -> VectorStoreIndex:
    return place.build([], NEW) if place.kind == "simple" else place.reopen(NEW)


def reembed_and_die(
    place: Place, old: Place, cache: Path | None, log: Path, owner: str, method: str, calls: int
) -> None:
    places = (place.kind, place.folder, place.uri or "", place.table, old.folder)
    run_and_die(killed_reembed, *places, cache or "", log, owner, method, calls)


@pytest.mark.parametrize(("kind", "owner", "method", "calls", "state", "stored"), CASES)
def test_a_killed_re_embedding_is_seen_and_finished_by_the_same_call(
    place_of: Callable[..., Place],
    old: tuple[Place, VectorStoreIndex],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    owner: str,
    method: str,
    calls: int,
    state: str | None,
    stored: int,
    tmp_path: Path,
) -> None:
    old_place, old_index = old
    whole_place, place = place_of(kind), place_of(kind)
    whole_place.dim = place.dim = TURNED_DIM
    whole = empty(whole_place)
    reembed_index(old_index, NEW, whole, batch_size=10, persist_dir=whole_place.persist_dir, cache=None)
    expected = all_vectors(whole)
    assert len(expected) == 40
    whole_place.close(whole)
    place.close(empty(place))

    cache, log = tmp_path / "cache.sqlite", tmp_path / "embedded.txt"
    reembed_and_die(place, old_place, cache, log, owner, method, calls)
    new = place.reopen(NEW)
    stamp = open_table(new).read_stamp()
    assert (None if stamp is None else stamp.state) == state
    assert len(all_vectors(new)) == stored
    said = "does not say which model" if state is None else "is being filled with the vectors of new"
    for ask in (lambda: check_index(new, NEW), lambda: checked_retriever(new, NEW).retrieve(QUESTION)):
        with pytest.raises(StoreError, match=said):
            ask()
    DriftAdapter.fit(OLD, NEW, [f"text {i}" for i in range(100)], kind="procrustes", cache=None).save(
        tmp_path / "drift"
    )
    migrating = MigratingRetriever(old_index, new, DriftEmbedding(NEW, tmp_path / "drift"), similarity_top_k=3)
    assert migrating.retrieve(QUESTION)[0].node.node_id == NODES[17].node_id
    assert migrating.served_by["new"] == 0

    monkeypatch.setattr(TurnedPlain, "_get_text_embedding", TurnedPlain._get_text_embedding)  # is put back
    log_texts(log)
    options = {"batch_size": 10, "persist_dir": place.persist_dir}
    result = reembed_index(old_index, NEW, new, cache=EmbeddingCache(cache), **options)
    monkeypatch.undo()
    assert (result.done, result.total, result.complete) == (40, 40, True)
    paid = Counter(log.read_text(encoding="utf-8").splitlines())
    assert len(paid) == 40
    assert set(paid.values()) == {1}
    place.close(new)

    new = place.reopen(NEW)  # what is on the disk
    found = all_vectors(new)
    assert found.keys() == expected.keys()
    for node_id, vector in expected.items():
        # Qdrant scales vectors to length 1 once more whenever it opens a folder.
        np.testing.assert_allclose(found[node_id], vector, rtol=0, atol=1e-7 if kind == "qdrant" else 0)
    check_index(new, NEW, verify=40)
    assert checked_retriever(new, NEW).retrieve(QUESTION)[0].node.node_id == NODES[17].node_id
    assert MigratingRetriever(old_index, new, DriftEmbedding(NEW, tmp_path / "drift")).retrieve(QUESTION)
    place.close(new)


def test_without_a_cache_what_is_stored_is_not_paid_for_again(
    place_of: Callable[..., Place],
    old: tuple[Place, VectorStoreIndex],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    place, log = place_of("lancedb"), tmp_path / "embedded.txt"
    reembed_and_die(place, old[0], None, log, "store", "add", 2)
    monkeypatch.setattr(TurnedPlain, "_get_text_embedding", TurnedPlain._get_text_embedding)
    log_texts(log)
    assert reembed_index(old[1], NEW, place.reopen(NEW), batch_size=10, cache=None).complete
    assert set(Counter(log.read_text(encoding="utf-8").splitlines()).values()) == {1}


def test_an_index_in_memory_is_kept_in_pieces_and_follows_the_old_one(
    place_of: Callable[..., Place], old: tuple[Place, VectorStoreIndex]
) -> None:
    place, old_index = place_of("simple"), old[1]
    place.build([], NEW)
    options = {"persist_dir": place.persist_dir, "cache": None}
    first = reembed_index(old_index, NEW, place.reopen(NEW), max_nodes=15, **options)
    assert (first.done, first.complete) == (15, False)
    assert len(all_vectors(place.reopen(NEW))) == 15
    assert reembed_index(old_index, NEW, place.reopen(NEW), **options).complete
    old_index.delete_nodes([NODES[0].node_id])
    assert reembed_index(old_index, NEW, place.reopen(NEW), **options).complete
    index = place.reopen(NEW)
    assert len(all_vectors(index)) == 39
    assert checked_retriever(index, NEW).retrieve(QUESTION)[0].node.node_id == NODES[17].node_id


def test_where_an_index_in_memory_cannot_be_kept(
    place_of: Callable[..., Place], old: tuple[Place, VectorStoreIndex], tmp_path: Path
) -> None:
    old_place, old_index = old
    place = place_of("simple")
    new = place.build([], NEW)
    with pytest.raises(ConfigError, match="holds another index than"):
        reembed_index(old_index, NEW, new, persist_dir=old_place.persist_dir)
    with pytest.raises(ConfigError, match="persist the index there first"):
        reembed_index(old_index, NEW, new, persist_dir=tmp_path / "nowhere")
    for kind, said in (("faiss_map", "files that cannot be replaced at once"), ("lancedb", "for indexes in memory")):
        other = place_of(kind)
        index = other.build([], NEW, 24) if kind == "faiss_map" else other.reopen(NEW)
        with pytest.raises(ConfigError, match=said):
            reembed_index(old_index, NEW, index, persist_dir=other.folder)
