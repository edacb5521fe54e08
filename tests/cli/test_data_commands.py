"""`embft split`, `embft inspect`, `embft cache` and `embft doctor`."""

from __future__ import annotations

import json
import os
import sqlite3
import zlib
from contextlib import closing

import numpy as np
import pytest

from llama_index_embft.dataset import (
    EmbeddingQAFinetuneDataset,
    inspect_dataset,
    near_duplicate_groups,
    split_dataset,
    tied_documents,
)
from llama_index_embft.embeddings import EmbeddingCache
from llama_index_embft.embeddings.encoding import cache_contents, prune_cache
from llama_index_embft.embeddings.encoding.cache import cache_key
from llama_index_embft.errors import ConfigError, OutputError

LONG = "The brake of the machine stops the wheel at once when the guard is opened by hand or by the foot of somebody"


def handbook(**changes):
    """Twelve documents of two passages; 0 and 1 share a passage, 2 and 3 a question, 4 and 5 one wide question."""
    corpus = {
        f"d{d}p{p}": f"Manual {d}, page {p}: unit {d * 7 + p} turns {d * 31 + p} times"
        for d in range(12)
        for p in (0, 1)
    }
    corpus["d0p1"] = LONG
    corpus["d1p1"] = LONG + "."
    queries = {f"q{doc}": f"What does {doc} say?" for doc in corpus}
    queries["qd3p0"] = queries["qd2p0"]
    relevant = {f"q{doc}": [doc] for doc in corpus}
    relevant["qd4p0"] = ["d4p0", "d5p0"]
    sources = {doc: f"manual {doc[1:].partition('p')[0]}" for doc in corpus}
    return EmbeddingQAFinetuneDataset(
        queries=queries, corpus=corpus, relevant_docs=relevant, source_documents=sources
    ).replace(**changes)


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    handbook().save_json("data.json")
    return tmp_path


# --- ties and split --------------------------------------------------------------------------------------------------


def test_the_ties_are_named_with_their_reasons():
    found = {one.documents: one for one in tied_documents(handbook(), show_progress=False)}
    assert set(found) == {("manual 0", "manual 1"), ("manual 2", "manual 3"), ("manual 4", "manual 5")}
    assert found["manual 0", "manual 1"].reasons() == "1 passage that several share"
    assert found["manual 2", "manual 3"].reasons() == "1 question asked about several"
    assert found["manual 4", "manual 5"].reasons() == "1 question answered by several"
    assert {one.queries for one in found.values()} == {4}


def test_what_is_tied_is_what_the_split_keeps_together():
    dataset = handbook()
    for seed in range(5):
        sides = split_dataset(dataset, seed=seed, fractions=(0.5, 0.25, 0.25))
        side_of = {
            dataset.document_of(doc): side for side in sides for docs in side.relevant_docs.values() for doc in docs
        }
        for one in tied_documents(dataset, show_progress=False):
            assert len({id(side_of[document]) for document in one.documents}) == 1


def test_a_key_of_ones_own_ties_too():
    by_parity = tied_documents(
        handbook(), by=lambda dataset, query: dataset.relevant_docs[query][0][1], show_progress=False
    )
    assert any(one.keys for one in by_parity)


def test_split_writes_three_files_that_share_no_document(embft, data):
    code, out, err = embft("split", "data.json", "--out", "sides", "--fractions", "0.5", "0.25", "0.25", "--json")
    assert code == 0, err
    record = json.loads(out)
    assert sum(side["queries"] for side in record["sides"].values()) == 24
    assert record["written"] == [f"sides/{name}.json" for name in ("train", "val", "test")]
    assert record["tied"][0]["documents"] == ["manual 0", "manual 1"]
    sides = [EmbeddingQAFinetuneDataset.from_json(file) for file in record["written"]]
    asked = [{side.document_of(doc) for docs in side.relevant_docs.values() for doc in docs} for side in sides]
    assert len(set().union(*asked)) == sum(map(len, asked))
    assert all(len(side.corpus) == 24 for side in sides)
    code, out, _ = embft("split", "data.json", "--out", "two", "--fractions", "0.5", "0", "0.5", "--no-keep-corpus")
    assert code == 0
    assert "hang together in 3 groups" in out
    assert not (data / "two" / "val.json").exists()


def test_no_side_of_an_earlier_split_stays_beside_a_new_one(embft, data):
    assert embft("split", "data.json", "--out", "sides", "--fractions", "0.5", "0.25", "0.25")[0] == 0
    code, _, err = embft("split", "data.json", "--out", "sides", "--fractions", "0.5", "0", "0.5")
    assert code == 2
    assert "val.json is of an earlier split, and this one makes no such side; remove it" in err


def test_a_split_into_a_file_is_one_sentence(embft, data):
    code, _, err = embft("split", "data.json", "--out", "data.json")
    assert code == 2
    assert "Error: Cannot write data.json/train.json" in err


def test_a_split_of_one_document_is_refused(embft, data):
    handbook(source_documents=dict.fromkeys(handbook().corpus, "one")).save_json("one.json")
    code, _, err = embft("split", "one.json", "--out", "sides")
    assert code == 2
    assert "all 24 queries ask about one document" in err
    assert not (data / "sides").exists()


# --- inspect ---------------------------------------------------------------------------------------------------------


def test_a_look_counts_repeats_and_leaks():
    dataset = handbook()
    dataset = dataset.replace(
        queries={**dataset.queries, "qd6p0": "unit 42 turns 186 times", "qd7p0": dataset.corpus["d9p0"]}
    )
    found = inspect_dataset(dataset, show_progress=False)
    assert (found.duplicates.queries, found.duplicates.queries_apart) == (2, 2)
    assert (found.duplicates.passages, found.duplicates.near_groups) == (2, 1)
    assert {leak.kind: (leak.count, leak.example) for leak in found.leaks} == {
        "copied": (1, "qd6p0"), "itself": (1, "qd7p0"),
    }  # fmt: skip
    assert found.stats.queries == 24
    assert len(found.samples) == 10
    assert found.samples == inspect_dataset(dataset, show_progress=False).samples
    assert json.dumps(found.to_dict())


def test_the_language_of_a_passage_is_not_that_of_its_metadata():
    german = "Die Pumpe darf nur von einer Fachkraft geöffnet werden, und nie unter Druck."
    metadata = "The title of this document and the name of the file in which it was found: the manual of the pump. " * 3
    dataset = EmbeddingQAFinetuneDataset(
        queries={"q": "Wer?"}, corpus={"d": metadata + german}, relevant_docs={"q": ["d"]}, bare_texts={"d": german}
    )
    assert inspect_dataset(dataset, show_progress=False).corpus_languages == {"de": 1}


def test_a_copied_query_is_one_of_whole_words():
    dataset = EmbeddingQAFinetuneDataset(
        queries={"q": "art"}, corpus={"d": "They start here."}, relevant_docs={"q": ["d"]}
    )
    assert inspect_dataset(dataset, show_progress=False).leaks == ()


def test_what_two_sets_share_is_named(embft, data):
    train, _, test = split_dataset(handbook(), fractions=(0.5, 0.0, 0.5))
    train.save_json("train.json")
    test.save_json("test.json")
    code, out, _ = embft("inspect", "train.json", "--against", "test.json", "--fail-on-leak")
    assert code == 0
    assert "Nothing is shared with test.json." in out
    both = handbook()
    both.save_json("both.json")
    code, out, _ = embft("inspect", "train.json", "--against", "both.json", "--fail-on-leak", "--json")
    assert code == 1
    kinds = {leak["kind"]: leak["count"] for leak in json.loads(out)["leaks"]}
    assert kinds["shared query"] == len(train.queries)
    assert kinds["shared passage"] == len({doc for docs in train.relevant_docs.values() for doc in docs})
    code, _, err = embft("inspect", "train.json", "--fail-on-leak")
    assert code == 2
    assert "--fail-on-leak needs --against" in err


def test_a_passage_that_nearly_repeats_one_of_the_other_set_is_a_leak_of_its_own_kind():
    def of(text, query):
        return EmbeddingQAFinetuneDataset(queries={"q": query}, corpus={"d": text}, relevant_docs={"q": ["d"]})

    assert near_duplicate_groups([LONG, LONG + " quickly"], 0.8) == [0, 0]
    found = inspect_dataset(of(LONG, "who?"), other=of(LONG + " quickly", "when?"), show_progress=False)
    assert [(leak.kind, leak.count) for leak in found.leaks] == [("near passage", 1)]
    assert inspect_dataset(of(LONG, "who?"), other=of("Unlike it.", "when?"), show_progress=False).leaks == ()


def test_lengths_are_measured_against_the_model(embft, data, tiny_model_path):
    corpus = {**handbook().corpus, "d0p0": "word " * 300}
    handbook(corpus=corpus).save_json("long.json")
    code, out, _ = embft("inspect", "long.json", "--embed-model", tiny_model_path, "--json")
    assert code == 0
    cut = json.loads(out)["truncation"]
    assert cut["corpus"]["limit"] == 64
    assert 0 < cut["corpus"]["share"] < 1
    assert "longer than the 64 tokens" in embft("inspect", "long.json", "--embed-model", tiny_model_path)[1]


# --- cache -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("EMBFT_CACHE_DIR", str(tmp_path / "cache"))
    cache = EmbeddingCache.default()
    for model, count in (("big", 300), ("small", 20)):
        cache.put_many(((cache_key(model, str(n)), np.ones(64, dtype=np.float32)) for n in range(count)), model)
    cache.close()
    journal = tmp_path / "cache" / "journals" / "gpt.sqlite"
    journal.parent.mkdir()
    journal.write_bytes(b"x" * 1000)
    (tmp_path / "cache" / "tune" / "abc").mkdir(parents=True)
    (tmp_path / "cache" / "tune" / "abc" / "model").write_bytes(b"y" * 500)
    return tmp_path / "cache"


def set_used(folder, model, day):
    with sqlite3.connect(folder / "embeddings.sqlite") as connection:
        connection.execute("UPDATE models SET used = ? WHERE name = ?", (day, model))


def test_the_cache_says_of_which_models_it_is(embft, folder):
    code, out, _ = embft("cache", "--json")
    assert code == 0
    record = json.loads(out)
    assert [(one["name"], one["vectors"], one["bytes"]) for one in record["models"]] == [
        ("big", 300, 300 * 256), ("small", 20, 20 * 256),
    ]  # fmt: skip
    assert {one["name"]: (one["files"], one["bytes"]) for one in record["others"]} == {
        "journals": (1, 1000), "unfinished": (1, 500),
    }  # fmt: skip
    assert "big" in embft("cache")[1]


def test_one_model_is_taken_out_and_the_other_stays(embft, folder):
    before = cache_contents().vector_bytes
    code, out, _ = embft("cache", "--prune", "--embed-model", "big", "--dry-run")
    assert code == 0
    assert "Would take out: vectors of big" in out
    assert [one.name for one in cache_contents().models] == ["big", "small"]
    code, out, _ = embft("cache", "--prune", "--embed-model", "big")
    assert "Taken out: vectors of big" in out
    assert [one.name for one in cache_contents().models] == ["small"]
    assert cache_contents().vector_bytes < before
    keys = [cache_key("small", str(n)) for n in range(20)]
    assert len(EmbeddingCache.default().get_many(keys)) == 20
    assert (folder / "tune" / "abc").exists()


def test_what_was_not_used_for_days_goes_and_reading_counts_as_use(folder):
    for model in ("big", "small"):
        set_used(folder, model, "2020-01-01")
    assert EmbeddingCache.default().get_many([cache_key("small", "3")])
    pruned = prune_cache(unused_days=30)
    assert [one.name for one in pruned.models] == ["big"]
    assert [one.name for one in cache_contents().models] == ["small"]
    assert pruned.searches == 0  # the folder is of today
    assert prune_cache(unused_days=0).searches == 1
    assert (folder / "journals" / "gpt.sqlite").exists()


def test_a_file_of_the_format_before_keeps_its_vectors(tmp_path):
    file = tmp_path / "embeddings.sqlite"
    vector = np.ones(8, dtype="<f4").tobytes()
    with sqlite3.connect(file) as connection:
        connection.execute(
            "CREATE TABLE vectors (key BLOB PRIMARY KEY, vector BLOB NOT NULL, checksum INTEGER NOT NULL)"
        )
        connection.execute("INSERT INTO vectors VALUES (?, ?, ?)", (cache_key("m"), vector, zlib.crc32(vector)))
        connection.execute("PRAGMA user_version=2")
    assert [(one.name, one.vectors) for one in cache_contents(tmp_path).models] == [("", 1)]
    cache = EmbeddingCache(file)
    assert cache.get_many([cache_key("m")])
    cache.put_many([(cache_key("n"), np.ones(8, dtype=np.float32))], "n")
    cache.close()
    assert {one.name: one.vectors for one in cache_contents(tmp_path).models} == {"": 1, "n": 1}
    assert len(prune_cache(unused_days=400, folder=tmp_path).models) == 1  # of no date
    assert [one.name for one in cache_contents(tmp_path).models] == ["n"]


@pytest.mark.parametrize("statement", ["ALTER", "CREATE TABLE IF NOT EXISTS models", "PRAGMA user_version="])
def test_a_file_of_the_format_before_survives_a_kill_in_the_middle(tmp_path, statement):
    file, key = tmp_path / "embeddings.sqlite", cache_key("m")
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE vectors (key BLOB PRIMARY KEY, vector BLOB, checksum INTEGER)")
        vector = np.ones(8, dtype="<f4").tobytes()
        connection.execute("INSERT INTO vectors VALUES (?, ?, ?)", (key, vector, zlib.crc32(vector)))
        connection.execute("PRAGMA user_version=2")

    class Killed(sqlite3.Connection):
        def execute(self, sql, *arguments):
            if sql.startswith(statement):
                self.close()
                raise KeyboardInterrupt
            return super().execute(sql, *arguments)

    from llama_index_embft.embeddings.encoding.cache import _prepare

    with pytest.raises((KeyboardInterrupt, sqlite3.ProgrammingError)):
        _prepare(sqlite3.connect(file, factory=Killed), file)
    cache = EmbeddingCache(file)
    cache.put_many([(cache_key("n"), np.ones(8, dtype=np.float32))], "n")
    assert set(cache.get_many([key, cache_key("n")])) == {key, cache_key("n")}
    cache.close()


def test_a_half_changed_file_is_finished(tmp_path):
    file = tmp_path / "embeddings.sqlite"
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE vectors (key BLOB PRIMARY KEY, vector BLOB, checksum INTEGER, model INTEGER)")
        connection.execute("PRAGMA user_version=2")
    cache = EmbeddingCache(file)
    cache.put_many([(b"k", np.ones(3, dtype=np.float32))], "m")
    assert list(cache.get_many([b"k"])) == [b"k"]
    cache.close()


def test_vectors_without_a_name_are_told_apart_by_what_is_known_of_them(folder):
    cache = EmbeddingCache.default()
    cache.put_many([(b"unnamed", np.ones(3, dtype=np.float32))])
    cache.close()
    with closing(sqlite3.connect(folder / "embeddings.sqlite")) as connection, connection:
        connection.execute("UPDATE vectors SET model = NULL WHERE key = ?", (cache_key("small", "1"),))
        connection.execute("UPDATE vectors SET model = 99 WHERE key = ?", (cache_key("small", "2"),))
    assert [(one.name, one.vectors) for one in prune_cache(unused_days=30).models] == [("", 2)]  # of no date
    assert sorted((one.name, one.vectors) for one in cache_contents().models) == [("", 1), ("big", 300), ("small", 18)]
    assert len(prune_cache(unused_days=0).models) == 3
    assert cache_contents().models == ()
    assert prune_cache(unused_days=10**12).models == ()


def test_what_an_interrupted_call_left_is_given_back_by_the_next(folder):
    before = cache_contents().vector_bytes
    with closing(sqlite3.connect(folder / "embeddings.sqlite")) as connection, connection:
        connection.execute("DELETE FROM vectors WHERE model = (SELECT id FROM models WHERE name = 'big')")
    assert prune_cache(unused_days=30).freed_bytes > 0
    assert cache_contents().vector_bytes < before


def test_a_file_that_somebody_reads_is_pruned_and_given_back_later(folder, caplog, monkeypatch):
    from llama_index_embft.embeddings.encoding import upkeep

    monkeypatch.setattr(upkeep, "_SECONDS", 0.1)
    EmbeddingCache.default().put_many([(b"k", np.ones(3, dtype=np.float32))], "new")
    with closing(sqlite3.connect(folder / "embeddings.sqlite")) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM vectors").fetchone()
        pruned = prune_cache("big")
        assert ([one.name for one in pruned.models], pruned.freed_bytes) == (["big"], 0)
        assert "Another process reads the embedding cache" in caplog.text
        assert {one.name for one in cache_contents().models} == {"new", "small"}
    assert prune_cache(unused_days=30).freed_bytes > 300 * 256 / 2


def test_candidates_of_a_running_search_and_fresh_ones_stay(folder):
    from filelock import FileLock

    search = folder / "tune" / "abc"
    with FileLock(folder / "tune" / "abc.lock"):
        assert prune_cache(unused_days=0, dry_run=True).searches == 0
        assert prune_cache(unused_days=0).searches == 0
        assert (search / "model").exists()
    os.utime(search, (0, 0))  # the folder is old, what is in it is of today
    assert prune_cache(unused_days=30).searches == 0
    os.utime(search / "model", (0, 0))
    assert prune_cache(unused_days=30, dry_run=True).searches == 1
    assert prune_cache(unused_days=30).searches == 1
    assert not search.exists()


def test_what_cannot_be_pruned_is_one_sentence(embft, folder):
    for arguments, message in {
        ("--prune",): "--prune needs --embed-model NAME or --unused-days N.",
        ("--prune", "--embed-model", "none"): "No model in the cache has 'none' in its name; there are: big, small.",
        ("--dry-run",): "give --prune too",
    }.items():
        code, _, err = embft("cache", *arguments)
        assert code == 2
        assert message in err
    with pytest.raises(ConfigError, match="`unused_days` is -1"):
        prune_cache(unused_days=-1)
    (folder / "embeddings.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(OutputError, match="cannot be read"):
        cache_contents()


def test_an_empty_cache_is_no_error(embft, tmp_path, monkeypatch):
    monkeypatch.setenv("EMBFT_CACHE_DIR", str(tmp_path / "nowhere"))
    assert json.loads(embft("cache", "--json")[1])["bytes"] == 0
    assert not (tmp_path / "nowhere").exists()


# --- doctor ----------------------------------------------------------------------------------------------------------


def test_the_doctor_runs_everything_once(embft):
    code, out, err = embft("doctor", "--device", "cpu", "--json")
    assert code == 0, out
    record = json.loads(out)
    assert record["works"] is True
    assert [check["name"] for check in record["checks"]] == [
        "versions", "device", "precision", "memory", "disk", "cache", "hub", "extras", "self-test",
    ]  # fmt: skip
    assert record["checks"][-1]["text"] == "trained, saved, loaded and searched 24 questions on cpu"
    assert {"lora", "llm", "openai", "ray"} <= record["extras"].keys()
    assert err == ""


def test_the_doctor_finds_what_is_broken(embft, monkeypatch, tmp_path):
    from importlib import metadata

    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "0.1" if name == "torch" else real(name))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EMBFT_CACHE_DIR", str(tmp_path / "file" / "below"))
    code, out, _ = embft("doctor", "--no-self-test")
    assert code == 1
    assert "torch 0.1 is not >=2.6" in out
    assert "broken   versions" in out
    assert "warning  cache" in out
    assert "Something that is needed is broken." in out


def test_a_hub_that_does_not_answer_is_a_warning_and_costs_no_time(monkeypatch):
    import time

    from huggingface_hub import constants

    from llama_index_embft.finetune import check_installation

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    started = time.monotonic()
    hub = next(check for check in check_installation(self_test=False).checks if check.name == "hub")
    assert (hub.status, time.monotonic() - started < 10) == ("warning", True)
    assert "does not answer" in hub.text
    monkeypatch.setattr(constants, "ENDPOINT", "file:///etc/passwd")
    hub = next(check for check in check_installation(self_test=False).checks if check.name == "hub")
    assert "no address of the web" in hub.text


def test_a_device_that_does_not_exist_is_no_broken_installation(embft):
    code, _, err = embft("doctor", "--device", "gpu")
    assert code == 2
    assert "`device` is 'gpu', which torch does not know" in err
