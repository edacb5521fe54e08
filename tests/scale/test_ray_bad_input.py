"""What needs no cluster: reading files in shards, addresses where nobody is, arguments that cannot be."""

from __future__ import annotations

import json
import socket

import numpy as np
import pytest

pytest.importorskip("ray")

from llama_index_embft.errors import ConfigError, DocumentError
from llama_index_embft.scale.ray import ScaleError, connected, encode
from llama_index_embft.scale.ray.cluster import sentences
from llama_index_embft.scale.ray.shards import ShardColumns, plan_shards

COLUMNS = ShardColumns("id", "text")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("prefix", ["", "ray://"])
def test_a_cluster_that_is_not_there(prefix, write_texts, tmp_path, monkeypatch):
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    address = f"{prefix}127.0.0.1:{free_port()}"
    with pytest.raises(ScaleError, match=f"No Ray cluster can be joined at {address} .*; start one with `ray start"):
        encode(write_texts(3), "model", tmp_path / "out", address=address)
    assert not (tmp_path / "out").exists()


def test_an_address_that_is_none(monkeypatch):
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(ConfigError, match="The Ray address 'cluster' is not understood"), connected("cluster"):
        pass


def test_usage_reports_are_off(monkeypatch):
    import os

    import ray

    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    with connected(None):
        assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


def test_rays_failures_are_sentences():
    from ray import exceptions

    cases = [
        (exceptions.ObjectStoreFullError("full"), "object store is full, and so is the disk"),
        (exceptions.OutOfDiskError("full"), "object store is full, and so is the disk"),
        (exceptions.OutOfMemoryError("killed"), "A node ran out of memory"),
        (exceptions.NodeDiedError("gone"), "Workers of the cluster died again and again"),
        (exceptions.GetTimeoutError("late"), "The Ray cluster failed \\(late\\)"),
    ]
    for error, message in cases:
        with pytest.raises(ScaleError, match=message) as caught, sentences():
            raise error
        assert "make the same call again to go on" in str(caught.value)
    with pytest.raises(ZeroDivisionError), sentences():
        1 / 0  # noqa: B018


@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_shards_are_read_back_as_they_were_planned(size, tmp_path):
    import pyarrow as pa
    from pyarrow.parquet import write_table

    texts = [f"text {n} – é" for n in range(20)]
    lines = [json.dumps({"id": n, "text": text}, ensure_ascii=False) for n, text in enumerate(texts)]
    lines.insert(4, "")  # blank lines are no rows
    (tmp_path / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    write_table(pa.table({"text": texts, "id": range(100, 120)}), tmp_path / "b.parquet", row_group_size=6)
    shards = plan_shards([tmp_path], COLUMNS, size)
    found = [shard.read(COLUMNS) for shard in shards]
    assert [text for rows in found for text in rows.texts] == texts * 2
    assert [id_ for rows in found for id_ in rows.ids] == [str(n) for n in (*range(20), *range(100, 120))]
    assert [shard.number for shard in shards] == list(range(len(shards)))
    starts = np.cumsum([0, *(shard.n_rows for shard in shards)])[:-1].tolist()
    assert [shard.first_row for shard in shards] == starts
    numbered = plan_shards([tmp_path], ShardColumns(None, "text"), size)
    assert [id_ for shard in numbered for id_ in shard.read(ShardColumns(None, "text")).ids] == [
        str(n) for n in range(40)
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"id": 1, "text": "a"}\nnot json\n', "row 1 is not JSON"),
        ('{"id": 1}\n', "row 0 has no 'text'; its fields are 'id'"),
        ('{"id": 1, "text": 3}\n', "the text of row 0 is int, not a string"),
        ('{"id": null, "text": "a"}\n', "row 0 has no id"),
        ("[1]\n", "row 0 is not an object"),
        ("\n", "has no rows"),
        (b"\xff\xfe\n", "row 0 is not JSON"),
    ],
)
def test_a_bad_row_is_named(content, message, tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DocumentError, match=message):
        plan_shards([path], COLUMNS, 10)


def test_a_bad_file_is_named(tmp_path):
    import pyarrow as pa
    from pyarrow.parquet import write_table

    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DocumentError, match=r"bad\.parquet is not a readable Parquet file"):
        plan_shards([tmp_path / "bad.parquet"], COLUMNS, 10)
    write_table(pa.table({"id": [1], "body": ["a"]}), tmp_path / "named.parquet")
    with pytest.raises(DocumentError, match="no column 'text'; its columns are id, body"):
        plan_shards([tmp_path / "named.parquet"], COLUMNS, 10)
    with pytest.raises(DocumentError, match=r"gone\.jsonl does not exist"):
        plan_shards([tmp_path / "gone.jsonl"], COLUMNS, 10)
    with pytest.raises(DocumentError, match="neither Parquet"):
        plan_shards([tmp_path / "a.csv"], COLUMNS, 10)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DocumentError, match="holds no Parquet and no JSONL file"):
        plan_shards([tmp_path / "empty"], COLUMNS, 10)


def test_a_file_that_changes_is_noticed(tmp_path, write_texts):
    path = write_texts(5)
    (shard,) = plan_shards([path], COLUMNS, 10)
    path.write_text(path.read_text().replace("passage 3", "passage x"))
    with pytest.raises(DocumentError, match="was changed while it was read"):
        shard.read(COLUMNS)
    path.unlink()
    with pytest.raises(DocumentError, match=r"Cannot read .*: No such file"):
        shard.read(COLUMNS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "title"}, "`kind` must be 'query' or 'document'"),
        ({"rows_per_shard": 0}, "`rows_per_shard` must be at least 1"),
        ({"workers": 0}, "`workers` must be at least 1"),
        ({"cpus_per_worker": 0}, "A worker needs a CPU or a GPU"),
    ],
)
def test_arguments_that_cannot_be(options, message, write_texts, tmp_path):
    with pytest.raises(ConfigError, match=message):
        encode(write_texts(2), "model", tmp_path / "out", **options)
