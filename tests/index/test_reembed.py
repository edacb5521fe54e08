"""Another model, into a second store, while the first one serves: no search ever mixes two spaces."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from index_places import Place, PlainEmbedding, TurnedPlain, make_nodes
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores import SimpleVectorStore

from llama_index_embft.embeddings import DriftEmbedding
from llama_index_embft.embeddings.identity import identify
from llama_index_embft.errors import ConfigError, ModelError
from llama_index_embft.finetune import DriftAdapter
from llama_index_embft.index import (
    MigratingRetriever,
    StoreError,
    check_index,
    checked_retriever,
    reembed_index,
    sample_index,
    stamp_index,
)
from llama_index_embft.index.identity import required_stamp
from llama_index_embft.index.stores import open_table

OLD = PlainEmbedding(model_name="old")
NEW = TurnedPlain(model_name="new")


@pytest.fixture
def drift(tmp_path: Path) -> DriftEmbedding:
    texts = [f"text {i}" for i in range(400)]
    DriftAdapter.fit(OLD, NEW, texts, kind="procrustes", cache=None).save(tmp_path / "drift")
    return DriftEmbedding(NEW, tmp_path / "drift")


def old_index(place: Place, n: int = 40) -> VectorStoreIndex:
    index = place.build(make_nodes(n), OLD)
    stamp_index(index, OLD)
    return index


def empty_index() -> VectorStoreIndex:
    context = StorageContext.from_defaults(vector_store=SimpleVectorStore())
    return VectorStoreIndex([], storage_context=context, embed_model=NEW)


@pytest.mark.parametrize("kind", ["simple", "qdrant", "lancedb", "postgres"])
def test_in_pieces_most_retrieved_first_into_every_store(place_of: Callable[..., Place], kind: str) -> None:
    nodes = make_nodes(40)
    old = old_index(place_of("simple"))
    place = place_of(kind)
    new = empty_index() if kind == "simple" else place.vector_store(24)
    counts = Counter({nodes[30].node_id: 5, nodes[20].node_id: 3, nodes[10].node_id: 2})

    first = reembed_index(old, NEW, new, counts=counts, batch_size=1, max_nodes=2, cache=None)
    assert (first.done, first.total, first.complete) == (2, 40, False)
    assert first.retrieved == pytest.approx(0.8)
    table = open_table(new)
    assert {i for batch in table.id_batches(10) for i in batch} == {nodes[30].node_id, nodes[20].node_id}
    assert required_stamp(table).state == "building"
    with pytest.raises(StoreError, match="is being filled with the vectors of new"):
        check_index(new, NEW)

    second = reembed_index(old, NEW, new, counts=counts, batch_size=16, cache=None)
    assert (second.done, second.retrieved, second.complete) == (40, 1.0, True)
    index = new if kind == "simple" else VectorStoreIndex.from_vector_store(new, embed_model=NEW)
    check_index(index, NEW, verify=40)
    question = nodes[17].get_content("embed")
    assert checked_retriever(index, NEW).retrieve(question)[0].node.node_id == nodes[17].node_id
    if kind == "qdrant":
        new.client.close()


def test_only_what_is_missing_is_embedded_and_what_left_is_taken_out(
    place_of: Callable[..., Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded: list[str] = []
    real = TurnedPlain._get_text_embedding
    monkeypatch.setattr(
        TurnedPlain, "_get_text_embedding", lambda self, text: (embedded.append(text), real(self, text))[1]
    )
    nodes = make_nodes(42)
    old, new = old_index(place_of("simple")), empty_index()
    reembed_index(old, NEW, new, max_nodes=10, cache=None)
    assert len(embedded) == 10
    reembed_index(old, NEW, new, cache=None)
    assert len(embedded) == len(set(embedded)) == 40
    old.insert_nodes([nodes[40]])
    old.delete_nodes([nodes[0].node_id])
    result = reembed_index(old, NEW, new, cache=None)
    assert len(embedded) == 41
    assert (result.done, result.total, result.complete) == (40, 40, True)
    assert nodes[0].node_id not in open_table(new).fetch([nodes[0].node_id])


@pytest.mark.parametrize("kind", ["qdrant", "lancedb", "faiss_map"])
def test_what_left_the_old_index_is_taken_out_of_every_store(place_of: Callable[..., Place], kind: str) -> None:
    nodes = make_nodes(12)
    old, place = old_index(place_of("simple"), 12), place_of(kind)
    new = place.build([], NEW, 24) if kind == "faiss_map" else place.reopen(NEW)
    assert reembed_index(old, NEW, new, cache=None).complete
    old.delete_nodes([nodes[0].node_id, nodes[5].node_id])
    assert reembed_index(old, NEW, new, cache=None).complete
    left = {i for batch in open_table(new).id_batches(5) for i in batch}
    assert left == {node.node_id for node in nodes} - {nodes[0].node_id, nodes[5].node_id}
    place.close(new)


@pytest.mark.parametrize("kind", ["simple", "qdrant", "lancedb", "postgres", "faiss_map"])
def test_a_text_that_changed_under_its_id_is_embedded_again(place_of: Callable[..., Place], kind: str) -> None:
    nodes, place = make_nodes(8), place_of(kind)
    old = old_index(place_of("simple"), 8)
    if kind in ("simple", "faiss_map"):
        new = empty_index() if kind == "simple" else place.build([], NEW, 24)
    else:
        new = VectorStoreIndex.from_vector_store(place.vector_store(24), embed_model=NEW)
    reembed_index(old, NEW, new, cache=None)
    changed = [TextNode(id_=node.node_id, text=f"another text {i}") for i, node in enumerate(nodes[3:5])]
    old.delete_nodes([node.node_id for node in changed])
    old.insert_nodes([*changed, make_nodes(9)[8]])

    first = reembed_index(old, NEW, new, max_nodes=2, cache=None)  # what is new, and one of the changed
    assert (first.done, first.total, first.complete) == (8, 9, False)
    assert required_stamp(open_table(new)).state == "building"
    assert reembed_index(old, NEW, new, cache=None).complete
    check_index(new, NEW, verify=9)
    for node in changed:
        assert checked_retriever(new, NEW).retrieve(node.text)[0].node.text == node.text
    place.close(new)


def test_a_changed_text_leaves_a_store_that_cannot_delete_ready(place_of: Callable[..., Place]) -> None:
    old, new = old_index(place_of("simple"), 4), place_of("faiss").build([], NEW, 24)
    reembed_index(old, NEW, new, cache=None)
    node = TextNode(id_=make_nodes(1)[0].node_id, text="another text")
    old.delete_nodes([node.node_id])
    old.insert_nodes([node])
    with pytest.raises(StoreError, match="changed there"):
        reembed_index(old, NEW, new, cache=None)
    assert check_index(new, NEW).state == "ready"


def test_nodes_after_a_gap_in_a_faiss_map_take_nobodys_place(place_of: Callable[..., Place]) -> None:
    nodes = make_nodes(10)
    old, new = old_index(place_of("simple"), 6), place_of("faiss_map").build([], NEW, 24)
    reembed_index(old, NEW, new, cache=None)
    old.delete_nodes([nodes[0].node_id])
    reembed_index(old, NEW, new, cache=None)
    old.insert_nodes(nodes[6:])
    assert reembed_index(old, NEW, new, cache=None).complete
    check_index(new, NEW, verify=9)
    for node in nodes[1:]:
        assert checked_retriever(new, NEW).retrieve(node.get_content("embed"))[0].node.node_id == node.node_id


def test_a_store_that_cannot_delete_says_so(place_of: Callable[..., Place]) -> None:
    old, new = old_index(place_of("simple"), 12), place_of("faiss").build([], NEW, 24)
    reembed_index(old, NEW, new, cache=None)
    old.delete_nodes([make_nodes(1)[0].node_id])
    with pytest.raises(StoreError, match="cannot delete the 1 nodes"):
        reembed_index(old, NEW, new, cache=None)


def test_each_answer_is_of_one_space_and_the_new_index_takes_over(
    place_of: Callable[..., Place], drift: DriftEmbedding, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = make_nodes(40)
    old, new = old_index(place_of("simple")), empty_index()
    asked: list[tuple[object, int]] = []
    query = SimpleVectorStore.query

    def recorded(self, wanted, **options):
        asked.append((self, len(wanted.query_embedding)))
        return query(self, wanted, **options)

    monkeypatch.setattr(SimpleVectorStore, "query", recorded)
    retriever = MigratingRetriever(old, new, drift, similarity_top_k=3, candidates=6)
    question = nodes[7].get_content("embed")
    before = [hit.node.node_id for hit in retriever.retrieve(question)]
    assert before[0] == nodes[7].node_id

    # The six candidates of this question are embedded first: from now on its answer has the new model's scores.
    candidates = [hit.node.node_id for hit in checked_retriever(old, drift, similarity_top_k=6).retrieve(question)]
    reembed_index(old, NEW, new, counts=Counter(candidates), max_nodes=6, cache=None)
    hits = retriever.retrieve(question)
    vector = np.array(NEW.get_query_embedding(question))
    for hit in hits:
        assert hit.score == pytest.approx(
            float(vector @ NEW.get_text_embedding(hit.node.get_content("embed"))), abs=1e-5
        )
    other = nodes[8].get_content("embed")  # a question whose candidates are not all there
    assert retriever.retrieve(other)[0].node.node_id == nodes[8].node_id
    assert dict(retriever.served_by) == {"old": 2, "old, ranked by new": 1}

    reembed_index(old, NEW, new, cache=None)
    assert retriever.retrieve(other)[0].node.node_id == nodes[8].node_id
    assert retriever.served_by["new"] == 1
    # The old store was only ever searched with 32 dimensions, the new one with 24 and only when whole.
    assert {(store is old.vector_store, dim) for store, dim in asked} == {(True, 32), (False, 24)}
    assert sum(store is new.vector_store for store, _ in asked) == 1
    assert retriever.counts[nodes[8].node_id] >= 2


def test_a_drift_embedding_serves_on_the_stamped_index(place_of: Callable[..., Place], drift: DriftEmbedding) -> None:
    old = old_index(place_of("simple"))
    nodes = make_nodes(40)
    with pytest.raises(ModelError, match="fit a DriftAdapter"):
        check_index(old, NEW)
    assert check_index(old, drift).model == identify(OLD)
    assert checked_retriever(old, drift).retrieve(nodes[3].get_content("embed"))[0].node.node_id == nodes[3].node_id
    with pytest.raises(ConfigError, match="cannot be verified"):
        check_index(old, drift, verify=1)


def test_a_sample_of_the_index_replaces_the_old_model(place_of: Callable[..., Place], tmp_path: Path) -> None:
    index = place_of("simple").build(make_nodes(96), OLD)
    stamp_index(index, OLD)
    sample = sample_index(index, 80, seed=1)
    assert (len(sample.texts), sample.vectors.shape, sample.model) == (80, (80, 32), identify(OLD))
    adapter = DriftAdapter.fit(
        sample.vectors, NEW, sample.texts, kind="procrustes", old_identity=sample.model, cache=None
    )
    adapter.save(tmp_path / "d")
    check_index(index, DriftEmbedding(NEW, tmp_path / "d"))


def test_bad_targets(place_of: Callable[..., Place]) -> None:
    old = old_index(place_of("simple"), 6)
    with pytest.raises(StoreError, match="cannot be re-embedded into itself"):
        reembed_index(old, NEW, old)
    held = place_of("simple").build(make_nodes(3), OLD)
    with pytest.raises(StoreError, match="already holds unknown vectors"):
        reembed_index(old, NEW, held)
    stamp_index(held, OLD)
    with pytest.raises(StoreError, match="already holds vectors of old"):
        reembed_index(old, NEW, held)
    with pytest.raises(ConfigError, match="pass an empty index over it"):
        reembed_index(old, NEW, SimpleVectorStore())
    with pytest.raises(ConfigError, match="at least 1"):
        reembed_index(old, NEW, empty_index(), batch_size=0)
