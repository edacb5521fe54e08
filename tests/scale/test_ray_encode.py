"""Embedding on a real cluster: same vectors, same order, nothing twice, and every failure a sentence."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

pytest.importorskip("ray")

from scale_models import DIM, HashEmbedding, MakeHashEmbedding

from llama_index_embft.embeddings import as_encoder, load_embed_model
from llama_index_embft.errors import ConfigError, OutputError
from llama_index_embft.scale.ray import ScaleError, encode, iter_embeddings, read_embeddings

pytestmark = pytest.mark.e2e


def texts_of(path: Path) -> list[str]:
    return [json.loads(line)["text"] for line in path.read_text().splitlines()]


def times_of(folder: Path) -> dict[str, tuple[int, int]]:
    return {file.name: (file.stat().st_mtime_ns, file.stat().st_ino) for file in folder.glob("*.parquet")}


def test_vectors_and_order_are_those_of_one_machine(cluster, tiny_model_path, write_texts, tmp_path):
    import pyarrow as pa
    from pyarrow.parquet import write_table

    first = write_texts(50, "a.jsonl")
    rest = write_texts(33, "b.jsonl", word="letter")
    records = [json.loads(line) for line in rest.read_text().splitlines()]
    ids = [f"e{n}" for n in range(len(records))]
    write_table(pa.table({"id": ids, "text": [r["text"] for r in records]}), tmp_path / "b.parquet", row_group_size=10)
    done = encode([first, tmp_path / "b.parquet"], tiny_model_path, tmp_path / "out", rows_per_shard=20)
    assert (done.rows, done.dim, done.shards, done.written) == (83, 32, 5, 5)
    texts = texts_of(first) + texts_of(rest)
    alone = as_encoder(load_embed_model(tiny_model_path, device="cpu"), cache=None).encode_documents(texts)
    found = read_embeddings(tmp_path / "out")
    assert found.ids == [f"d{n}" for n in range(50)] + ids
    np.testing.assert_allclose(found.vectors, alone, atol=1e-6)
    rows = [row for content in iter_embeddings(tmp_path / "out") for row in content.rows.tolist()]
    assert rows == list(range(83))

    # Again: nothing is written. Without one shard: that one alone, under its name.
    before = times_of(tmp_path / "out")
    assert encode([first, tmp_path / "b.parquet"], tiny_model_path, tmp_path / "out", rows_per_shard=20).written == 0
    assert times_of(tmp_path / "out") == before
    lost = sorted(before)[2]
    (tmp_path / "out" / lost).unlink()
    assert encode([first, tmp_path / "b.parquet"], tiny_model_path, tmp_path / "out", rows_per_shard=20).written == 1
    after = times_of(tmp_path / "out")
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] != before[name]} == {lost}


def test_a_lost_node_costs_time_and_nothing_else(cluster, new_node, write_texts, tmp_path):
    log, out = tmp_path / "log", tmp_path / "out"
    log.mkdir()
    path = write_texts(60)
    victim = new_node(cluster, num_cpus=1)
    killed = threading.Event()

    def kill() -> None:
        while len(list(out.glob("*.parquet"))) < 4:
            time.sleep(0.02)
        cluster.remove_node(victim, allow_graceful=False)
        killed.set()

    threading.Thread(target=kill, daemon=True).start()
    done = encode(path, MakeHashEmbedding(log=str(log), seconds=0.1), out, rows_per_shard=3, workers=3)
    assert killed.wait(60)
    assert (done.rows, done.shards) == (60, 20)
    found = read_embeddings(out)
    assert found.ids == [f"d{n}" for n in range(60)]
    alone = as_encoder(HashEmbedding(model_name="hash"), cache=None).encode_documents(texts_of(path))
    np.testing.assert_allclose(found.vectors, alone, atol=1e-6)
    assert len(list(out.glob("*.parquet"))) == 20
    # A shard in work when its node was lost was embedded twice; none was that had been written.
    again = [len(file.read_text().splitlines()) for file in log.iterdir()]
    assert sum(again) - len(again) <= 3 * 2
    assert not list(out.glob(".embft-*"))


def test_a_shard_that_fails_is_named_after_the_others_are_done(cluster, write_texts, tmp_path):
    log, out = tmp_path / "log", tmp_path / "out"
    log.mkdir()
    path = write_texts(20)
    path.write_text(path.read_text().replace("passage 7 ", "passage seven "))
    model = MakeHashEmbedding(log=str(log), poison="seven")
    message = r"1 of 4 shards could not be embedded, the first is shard 1 \(ids 'd5' to 'd9' of texts.jsonl\): "
    with pytest.raises(ScaleError, match=message + "RuntimeError: cannot read seven") as caught:
        encode(path, model, out, rows_per_shard=5, workers=1)
    assert len(caught.value.failed) == 1
    assert len(list(out.glob("*.parquet"))) == 3
    (failure,) = json.loads((out / "failed.json").read_text())
    assert failure["ids"] == ["d5", "d6", "d7", "d8", "d9"]
    with pytest.raises(OutputError, match="not complete; make the same call of `encode` again"):
        read_embeddings(out)
    before = times_of(out)
    (log / "cured").touch()
    assert encode(path, model, out, rows_per_shard=5, workers=1).written == 1
    assert before.items() <= times_of(out).items()
    assert not (out / "failed.json").exists()
    assert read_embeddings(out).vectors.shape == (20, DIM)


def test_a_folder_of_another_run_is_refused(cluster, write_texts, tmp_path):
    path, out = write_texts(6), tmp_path / "out"
    encode(path, MakeHashEmbedding(), out, rows_per_shard=3, workers=1)
    before = times_of(out)
    other = write_texts(6, "other.jsonl", word="memo")
    with pytest.raises(OutputError, match="embeddings of another job \\(other texts\\); choose a new folder"):
        encode(other, MakeHashEmbedding(), out, rows_per_shard=3)
    with pytest.raises(OutputError, match="another `rows_per_shard`"):
        encode(path, MakeHashEmbedding(), out, rows_per_shard=2)
    with pytest.raises(OutputError, match="another model"):
        encode(path, MakeHashEmbedding(model_name="another"), out, rows_per_shard=3)
    assert times_of(out) == before
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="holds no embeddings made by `encode`"):
        encode(path, MakeHashEmbedding(), strange)
    assert [file.name for file in strange.iterdir()] == ["thesis.txt"]


def test_a_node_without_the_model_is_named(cluster, write_texts, tmp_path):
    gone = str(tmp_path / "model")
    with pytest.raises(ScaleError, match=r"The node [\d.]+ \(\w+\) cannot use the model: The model folder .* Every"):
        encode(write_texts(3), gone, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nodes_with_different_models_are_noticed(cluster, write_texts, tmp_path):
    def by_process() -> HashEmbedding:
        import os

        return HashEmbedding(model_name=f"hash-{os.getpid()}")

    with pytest.raises(ScaleError, match="Nodes have different models under the name"):
        encode(write_texts(3), by_process, tmp_path / "out")


def test_straight_into_a_vector_store(cluster, write_texts, tmp_path):
    from llama_index.core.vector_stores.simple import SimpleVectorStore
    from llama_index.core.vector_stores.types import VectorStoreQuery

    class Recording(SimpleVectorStore):
        added: ClassVar[list] = []
        deleted: ClassVar[list] = []

        def add(self, nodes, **options):
            self.added.extend(nodes)
            return super().add(nodes, **options)

        def delete_nodes(self, node_ids=None, filters=None, **options):
            self.deleted.extend(node_ids or ())
            super().delete_nodes(node_ids, filters, **options)

    path, out, store = write_texts(10), tmp_path / "out", Recording()
    encode(path, MakeHashEmbedding(), out, rows_per_shard=4, workers=1, vector_store=store, store_name="demo")
    assert [node.node_id for node in store.added] == [f"d{n}" for n in range(10)]
    assert [node.text for node in store.added] == texts_of(path)
    found = read_embeddings(out)
    hits = store.query(VectorStoreQuery(query_embedding=found.vectors[3].tolist(), similarity_top_k=1))
    assert hits.ids == ["d3"]

    # Again: all is in it. Stopped after the first shard: what follows is deleted and added, once.
    encode(path, MakeHashEmbedding(), out, rows_per_shard=4, workers=1, vector_store=store, store_name="demo")
    assert len(store.added) == 10
    (note,) = out.glob("store-*.json")
    note.write_text(json.dumps({"shards": 1}))
    store.added.clear()
    store.deleted.clear()
    encode(path, MakeHashEmbedding(), out, rows_per_shard=4, workers=1, vector_store=store, store_name="demo")
    assert [node.node_id for node in store.added] == store.deleted == [f"d{n}" for n in range(4, 10)]
    with pytest.raises(ConfigError, match="`store_name` names a vector store, and there is none"):
        encode(path, MakeHashEmbedding(), tmp_path / "new", store_name="demo")
