"""Other people's files as they are found, faults with their places, and what is promised about writing."""

from __future__ import annotations

import gzip
import json
import logging
import os
import subprocess
import sys
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import llama_index_embft.dataset.formats.rows as rows_
import llama_index_embft.dataset.sources as sources
from llama_index_embft.dataset import (
    EmbeddingQAFinetuneDataset,
    Provenance,
    guess_format,
    read_dataset,
    to_datasets,
    write_dataset,
)
from llama_index_embft.dataset.formats.build import Builder, content_id
from llama_index_embft.dataset.formats.registry import FORMATS
from llama_index_embft.dataset.formats.rows import read_rows, write_rows
from llama_index_embft.errors import ConfigError, DatasetError, OutputError

DATASET = EmbeddingQAFinetuneDataset(
    queries={"q1": "who pays?", "q2": "谁付钱?"},
    corpus={"a": "Alice pays.", "b": "鲍勃付钱。", "c": "Nobody.", "d": "Left over."},
    relevant_docs={"q1": ["a", "b"], "q2": ["b"]},
    negative_docs={"q1": ["c"], "q2": ["a", "c"]},
    reference_answers={"q1": "Alice"},
    relevance_grades={"q1": {"a": 3}},
)


def lay(folder: Path, files: dict[str, Any]) -> Path:
    """Write files: rows as JSON Lines, anything else as JSON, strings as they are."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, list) and not name.endswith(".json"):
            content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content)
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return folder


def texts(dataset: EmbeddingQAFinetuneDataset, section: str = "relevant_docs") -> dict[str, list[str]]:
    """Query text -> texts of its documents."""
    linked = getattr(dataset, section)
    return {dataset.queries[query]: [dataset.corpus[doc] for doc in docs] for query, docs in linked.items()}


# --- layouts as they are found ----------------------------------------------------------------------------------------


def test_beir_with_titles_numbers_as_ids_and_several_splits(tmp_path: Path) -> None:
    folder = lay(
        tmp_path,
        {
            "corpus.jsonl": [
                {"_id": 1, "title": "A title", "text": "and a text", "metadata": {"url": "x"}},
                {"_id": "2", "title": "", "text": "text alone", "metadata": {}},
                {"_id": "3", "title": "A headline alone", "text": ""},
            ],
            "queries.jsonl": [{"_id": 10, "text": "ten"}, {"_id": 11, "text": "eleven"}, {"_id": 12, "text": "twelve"}],
            "qrels/train.tsv": "query-id\tcorpus-id\tscore\n11\t2\t1\n",
            "qrels/test.tsv": "query-id\tcorpus-id\tscore\r\n10\t1\t2\r\n10\t2\t0\r\n12\t3\t-1\r\n",
        },
    )
    with pytest.raises(DatasetError, match="several splits of the qrels; give one of them as `split`: test, tr"):
        read_dataset(folder)
    dataset = read_dataset(folder, split="test")
    assert guess_format(folder) == "beir"
    assert dataset.queries == {"10": "ten"}
    assert dataset.corpus == {"1": "A title and a text", "2": "text alone", "3": "A headline alone"}
    assert dataset.bare_texts == {"1": "and a text"}
    assert dataset.qrels() == {"10": {"1": 2}}
    assert dataset.negative_docs == {"10": ["2"]}
    assert dataset.dropped.counts == {"query without a relevant document in this split": 2}
    with pytest.raises(DatasetError, match="there is no split 'dev'"):
        read_dataset(folder, split="dev")


def test_air_bench_as_on_the_hub_with_qrels_elsewhere(tmp_path: Path) -> None:
    folder = lay(
        tmp_path / "AIR-Bench_24.05" / "default",
        {
            "corpus.jsonl": [{"id": "d1", "text": "糖尿病的症状。"}, {"id": "d2", "text": "别的。"}],
            "dev_queries.jsonl": [{"id": "q1", "text": "糖尿病有什么症状?"}],
            "test_queries.jsonl": [{"id": "q2", "text": "没有评测的问题"}],
        },
    )
    qrels = lay(tmp_path, {"qrels_default_dev.jsonl": [{"qid": "q1", "docid": "d1", "relevance": 1},
                                                       {"qid": "q1", "docid": "d2", "relevance": 0}]})  # fmt: skip
    dataset = read_dataset(folder, "air-bench", split="dev", qrels=qrels / "qrels_default_dev.jsonl")
    assert texts(dataset) == {"糖尿病有什么症状?": ["糖尿病的症状。"]}
    assert dataset.negative_docs == {"q1": ["d2"]}
    assert not dataset.dropped
    from datasets import Dataset, DatasetDict

    # As `load_dataset` gives it: two repositories, splits named after parts.
    rows = {name: [json.loads(line) for line in path.read_text("utf-8").splitlines()] for name, path in
            (("corpus_default", folder / "corpus.jsonl"), ("queries_default", folder / "dev_queries.jsonl"),
             ("qrels_default_dev", qrels / "qrels_default_dev.jsonl"))}  # fmt: skip
    parts = DatasetDict({name: Dataset.from_list(of_part) for name, of_part in rows.items()})
    assert read_dataset(parts) == dataset
    judged = parts.pop("qrels_default_dev")
    assert read_dataset(parts, "air-bench", qrels=judged) == dataset


def test_mteb_as_parquet_shards_on_the_hub(tmp_path: Path) -> None:
    write_rows([{"_id": "d1", "title": "", "text": "one"}], tmp_path / "corpus" / "corpus-00000-of-00002.parquet")
    write_rows([{"_id": "d2", "title": "T", "text": "two"}], tmp_path / "corpus" / "corpus-00001-of-00002.parquet")
    write_rows([{"_id": "q", "text": "which?"}], tmp_path / "queries" / "queries-00000-of-00001.parquet")
    row = {"query-id": "q", "corpus-id": "d2", "score": 1.0}
    write_rows([row], tmp_path / "data" / "test-00000-of-00001.parquet")
    assert guess_format(tmp_path) == "mteb"
    assert texts(read_dataset(tmp_path)) == {"which?": ["T two"]}


def test_the_layout_of_infgrad_retrieval_data_llm(tmp_path: Path) -> None:
    rows = [
        {"Query": "问题一", "Positive Document": "好", "Hard Negative Document": "坏"},
        {"Query": "问题一", "Positive Document": "好", "Hard Negative Document": "更坏"},
        {"Query": "问题二", "Positive Document": "坏", "Hard Negative Document": "好"},
    ]
    path = lay(tmp_path, {"train.jsonl": rows}) / "train.jsonl"
    dataset = read_dataset(path)
    assert guess_format(path) == "infgrad"
    assert texts(dataset) == {"问题一": ["好"], "问题二": ["坏"]}
    assert texts(dataset, "negative_docs") == {"问题一": ["坏", "更坏"], "问题二": ["好"]}
    assert len(dataset.corpus) == 3  # the same text has the same id
    assert dataset.relevant_docs[content_id("问题一", "q-")] == [content_id("好", "d-")]
    assert read_dataset(rows, "infgrad") == dataset


SQUAD = {"title": "T", "paragraphs": [{"context": "Alice pays.", "qas": [
    {"id": "1", "question": "who?", "answers": [{"text": "Alice", "answer_start": 0}, {"text": "Alice."}]},
    {"id": "2", "question": "why?", "answers": [], "is_impossible": True}]}]}  # fmt: skip
CMRC = [{"context_id": "T_0", "context_text": "甲付钱。", "title": "钱", "qas": [
    {"query_id": "T_0_Q", "query_text": "谁?", "answers": ["甲", "甲"]}]}]  # fmt: skip
DRCD = {"title": "T", "id": "1147", "paragraphs": [{"id": "1147-5", "context": "乙付錢。", "qas": [
    {"id": "1147-5-1", "question": "誰?", "answers": [{"id": "1", "text": "乙", "answer_start": 0}]}]}]}  # fmt: skip


def test_squad_and_its_kin(tmp_path: Path) -> None:
    folder = lay(tmp_path, {"squad.json": {"version": "v2.0", "data": [SQUAD]}, "cmrc.json": CMRC,
                            "drcd.json": {"version": "1.3", "data": [DRCD]}})  # fmt: skip
    squad = read_dataset(folder / "squad.json")
    assert texts(squad) == {"who?": ["Alice pays."]}
    assert squad.reference_answers == {"1": "Alice"}
    assert list(squad.source_documents.values()) == ["T"]
    assert squad.dropped.counts == {"question without an answer in the text": 1}
    cmrc = read_dataset(folder / "cmrc.json")
    assert (cmrc.corpus, cmrc.relevant_docs) == ({"T_0": "甲付钱。"}, {"T_0_Q": ["T_0"]})
    assert cmrc.reference_answers == {"T_0_Q": "甲"}
    drcd = read_dataset(folder / "drcd.json")
    assert drcd.relevant_docs == {"1147-5-1": ["1147-5"]}
    rows = [
        {"id": "1", "title": "T", "context": "c", "question": "q?", "answers": {"text": ["c"], "answer_start": [0]}}
    ]
    assert texts(read_dataset(rows, "squad")) == {"q?": ["c"]}


def test_trec_as_tsv_with_negatives_from_a_run(tmp_path: Path) -> None:
    folder = lay(tmp_path, {
        "collection.tsv": '1\tAlice "pays".\n2\tBob.\n3\tNobody.\n4\tEve.\n',
        "queries.dev.tsv": "9\twho pays?\n8\tno\n",
        "qrels.dev.txt": "9 0 1 1\n", "run.bm25.txt": "9 Q0 1 1 9.5 x\n9 Q0 2 2 3 x\n9 Q0 4 3 3 x\n9 Q0 3 4 1.5 x\n",
    })  # fmt: skip
    assert guess_format(folder) == "trec"
    dataset = read_dataset(folder)
    assert texts(dataset) == {"who pays?": ['Alice "pays".']}
    assert dataset.negative_docs == {}
    assert dataset.dropped.counts == {"topic without a relevant document": 1}
    mined = read_dataset(folder, negatives_from_run=2)
    assert mined.negative_docs == {"9": ["4", "2"]}  # equal scores: the higher id first, as trec_eval has it


def test_trec_writes_tsv_and_counts_what_becomes_a_space(tmp_path: Path) -> None:
    dataset = EmbeddingQAFinetuneDataset(queries={"1": "a\tb"}, corpus={"2": "c\nd"}, relevant_docs={"1": ["2"]})
    written = write_dataset(dataset, tmp_path / "t", "trec", tables="tsv")
    assert written.lost == {"texts whose tabs or line ends became spaces": 2}
    assert texts(read_dataset(tmp_path / "t")) == {"a b": ["c d"]}
    spaced = EmbeddingQAFinetuneDataset(queries={"a b": "q"}, corpus={"2": "c"}, relevant_docs={"a b": ["2"]})
    with pytest.raises(DatasetError, match="cannot hold the id 'a b'"):
        write_dataset(spaced, tmp_path / "u", "trec")
    assert not (tmp_path / "u").exists()


def test_ragas_old_names_csv_and_conversations(tmp_path: Path) -> None:
    old = [{"question": "q?", "contexts": ["c1", "c2"], "ground_truth": "a", "evolution_type": "simple"}]
    dataset = read_dataset(lay(tmp_path, {"old.jsonl": old}) / "old.jsonl")
    assert texts(dataset) == {"q?": ["c1", "c2"]}
    assert list(dataset.reference_answers.values()) == ["a"]
    (tmp_path / "new.csv").write_text(
        'user_input,reference_contexts,reference\nq?,"[\'it\\\'s\', ""two\\nlines""]",a\n', encoding="utf-8"
    )
    assert texts(read_dataset(tmp_path / "new.csv")) == {"q?": ["it's", "two\nlines"]}
    (tmp_path / "evil.csv").write_text(
        "user_input,reference_contexts\nq?,__import__('os').getcwd()\n", encoding="utf-8"
    )
    with pytest.raises(DatasetError, match=r"evil.csv, line 2: the contexts are not a list in Python's notation"):
        read_dataset(tmp_path / "evil.csv")
    ids = [{"user_input": "q?", "reference_contexts": ["c"], "reference": None, "reference_context_ids": ["x"]}]
    assert read_dataset(ids, "ragas").corpus == {"x": "c"}
    with pytest.raises(DatasetError, match="conversation of several turns"):
        read_dataset([{"user_input": [{"content": "hi"}], "reference_contexts": ["c"]}], "ragas")


def test_labelled_rag_of_llama_index_and_the_object_itself(tmp_path: Path) -> None:
    example = {"query": "q?", "query_by": {"model_name": "gpt-4", "type": "ai"}, "reference_contexts": ["c1", "c2"],
               "reference_answer": "a", "reference_answer_by": {"model_name": "", "type": "human"}}  # fmt: skip
    path = lay(tmp_path, {"d.json": {"examples": [example]}}) / "d.json"
    dataset = read_dataset(path)
    assert texts(dataset) == {"q?": ["c1", "c2"]}
    made = SimpleNamespace(examples=[SimpleNamespace(model_dump=lambda mode: example)])
    assert read_dataset(made) == dataset
    write_dataset(dataset, tmp_path / "back.json", "labelled-rag")
    back = json.loads((tmp_path / "back.json").read_text())["examples"]
    assert back == [{**example, "query_by": None, "reference_answer_by": None}]


def test_flag_embedding_scores_come_and_go(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [{"query": "q", "pos": ["yes"], "neg": ["no", "never"], "pos_scores": [0.9], "neg_scores": [0.5, 0.1],
             "prompt": "p", "type": "x"}]  # fmt: skip
    path = lay(tmp_path, {"f.jsonl": rows}) / "f.jsonl"
    with caplog.at_level(logging.WARNING):
        dataset = read_dataset(path)
    assert "not kept: 1 field 'prompt', 1 field 'type'" in caplog.text
    assert sorted(dataset.teacher_scores[content_id("q", "q-")].values()) == [0.1, 0.5, 0.9]
    write_dataset(dataset, tmp_path / "back.jsonl", "flag-embedding", prompt="p")
    back = json.loads((tmp_path / "back.jsonl").read_text())
    assert back == {name: value for name, value in rows[0].items() if name != "type"}
    write_dataset(dataset, tmp_path / "plain.jsonl", "flag-embedding", teacher_scores=False)
    assert "pos_scores" not in (tmp_path / "plain.jsonl").read_text()


def test_scored_pairs_and_their_threshold() -> None:
    rows = [{"sentence1": "q", "sentence2": text, "score": score} for text, score in (("a", 4.5), ("b", 3), ("c", 0))]
    dataset = read_dataset(rows, "scored", threshold=3)
    assert texts(dataset) == {"q": ["a", "b"]}
    assert texts(dataset, "negative_docs") == {"q": ["c"]}
    with pytest.raises(DatasetError, match="there is no query with a relevant document"):
        read_dataset(rows, "scored", threshold=5)


def test_columns_of_any_name_and_rows_for_distillation() -> None:
    rows = [{"instruction": "q", "response": "a"}]
    assert texts(read_dataset(rows, "pairs", columns={"anchor": "instruction", "positive": "response"})) == {"q": ["a"]}
    with pytest.raises(DatasetError, match="no column is known as the anchor among 'instruction', 'response'"):
        read_dataset(rows, "pairs")
    taught = [{"query": "q", "positive": "a", "negative_1": "b", "label": [3.0, 1.0]}]
    scores = read_dataset(taught, "ntuples").teacher_scores
    assert list(scores[content_id("q", "q-")].values()) == [3.0, 1.0]


def test_datasets_in_memory_and_on_disk(tmp_path: Path) -> None:
    parts = to_datasets(DATASET)
    assert set(parts) == {"corpus", "queries", "qrels"}
    assert read_dataset(parts) == DATASET
    write_dataset(DATASET, tmp_path / "d", "datasets")
    assert guess_format(tmp_path / "d") == "datasets"
    assert read_dataset(tmp_path / "d") == DATASET
    triplets = to_datasets(DATASET, "triplets")
    assert triplets.column_names == ["anchor", "positive", "negative"]
    assert len(triplets) == 4
    assert texts(read_dataset(triplets)) == texts(DATASET)
    write_dataset(DATASET, tmp_path / "t", "triplets")
    assert texts(read_dataset(tmp_path / "t")) == texts(DATASET)
    from datasets import DatasetDict

    both = DatasetDict({"train": triplets, "test": triplets.select([0])})
    assert len(read_dataset(both, split="test").queries) == 1
    with pytest.raises(DatasetError, match="it has several splits; give one of them as `split`: train, test"):
        read_dataset(both)
    with pytest.raises(ConfigError, match="The format 'beir' has no rows"):
        to_datasets(DATASET, "beir")


# --- faults and their places ------------------------------------------------------------------------------------------

CORPUS_ROWS = [{"_id": "d1", "text": "one"}, {"_id": "d2", "text": "two"}]
FAULTS: list[tuple[str, str, dict[str, Any], str]] = [
    ("pairs", "p.jsonl", {"p.jsonl": '{"anchor": "q", "positive": "a"}\n{"anchor": "q", "pos'},
     "p.jsonl, line 2: it ends in the middle"),
    ("pairs", "p.jsonl", {"p.jsonl": '{"anchor": "q", "positive": "a", "positive": "b"}\n'},
     "line 1: the key 'positive' appears twice in one object"),
    ("pairs", "p.jsonl", {"p.jsonl": [{"anchor": "q", "positive": 7}]},
     "line 1: positive should be a string, got 7 (int)"),
    ("pairs", "p.jsonl", {"p.jsonl": '{"anchor": "q", "positive": "\\ud83d"}'},
     "line 1: positive contains an unpaired surrogate"),
    ("pairs", "p.csv", {"p.csv": 'anchor,positive\nq,"a\n'}, "p.csv, line 2: not well-formed CSV"),
    ("pairs", "p.csv", {"p.csv": "anchor,positive\nq,a,b\n"}, "line 2: 3 cells in a table of 2 columns"),
    ("pairs", "p.csv", {"p.csv": "anchor,anchor\nq,a\n"}, "line 1: the column 'anchor' appears twice"),
    ("scored", "s.jsonl", {"s.jsonl": '{"sentence1": "a", "sentence2": "b", "score": NaN}'}, "line 1: score is nan"),
    ("scored", "s.csv", {"s.csv": "sentence1,sentence2,score\na,b,nan\n"}, "line 2: score is nan"),
    ("flag-embedding", "f.jsonl", {"f.jsonl": [{"query": "q", "pos": [], "neg": ["x"]}]}, "line 1: `pos` is empty"),
    ("flag-embedding", "f.jsonl", {"f.jsonl": [{"query": "q", "pos": ["x"], "neg": ["y", "x"]}]},
     "is both relevant and negative for the query"),
    ("flag-embedding", "f.jsonl", {"f.jsonl": [{"query": "q", "pos": ["x"], "pos_scores": [1, 2]}]},
     "pos_scores should be a list of 1 scores"),
    ("beir", "", {"corpus.jsonl": CORPUS_ROWS, "queries.jsonl": [{"_id": "q", "text": "?"}],
                  "qrels/test.tsv": "query-id\tcorpus-id\tscore\nq\td1\t1\nq\td9\t1\n"},
     "test.tsv, line 3: the query 'q' names the document 'd9', which is not there"),
    ("beir", "", {"corpus.jsonl": CORPUS_ROWS, "queries.jsonl": [{"_id": "q", "text": "?"}],
                  "qrels/test.tsv": "query-id\tcorpus-id\tscore\nq\td1\t1\nz\td1\t1\n"},
     "test.tsv, line 3: judges the query 'z', which is not there"),
    ("beir", "", {"corpus.jsonl": CORPUS_ROWS, "queries.jsonl": [{"_id": "q", "text": "?"}],
                  "qrels/test.tsv": "query-id\tcorpus-id\tscore\nq\td1\t0.5\n"},
     "line 2: score of the query 'q' should be a whole number, got '0.5'"),
    ("beir", "", {"corpus.jsonl": [*CORPUS_ROWS, {"_id": "d1", "text": "else"}], "queries.jsonl": [],
                  "qrels/test.tsv": ""}, "corpus.jsonl, line 3: the document id 'd1' stands for another text already"),
    ("beir", "", {"corpus.jsonl": [{"_id": "d1", "text": ""}], "queries.jsonl": [], "qrels/test.tsv": ""},
     "line 1: the text of the document 'd1' is empty"),
    ("beir", "", {"corpus.jsonl": [{"_id": 1.5, "text": "x"}], "queries.jsonl": [], "qrels/test.tsv": ""},
     "line 1: the document's _id should be a string or a whole number, got 1.5 (float)"),
    ("beir", "", {"corpus.jsonl": CORPUS_ROWS, "qrels/test.tsv": ""}, "has no queries"),
    ("trec", "", {"docs.tsv": "1\tone\textra\n", "topics.tsv": "", "qrels.txt": ""},
     "docs.tsv, line 1: expected an id, a tab and a text, got 3 cells"),
    ("trec", "", {"docs.tsv": "1\tone\n", "topics.tsv": "2\ttwo\n", "qrels.txt": "2 0 1\n"},
     "qrels.txt, line 1: expected `query 0 document grade`, got 3 fields"),
    ("squad", "s.json", {"s.json": {"data": [{"title": "T", "paragraphs": [{"context": "c", "qas": [{"id": "7"}]}]}]}},
     "article 1: the question '7' should be a string"),
    ("squad", "s.json", {"s.json": {"data": 3}}, "`data` should be a list, got 3 (int)"),
    ("ragas", "r.jsonl", {"r.jsonl": [{"user_input": "q"}]}, "line 1: the question has no reference context"),
    ("labelled-rag", "l.json", {"l.json": {"examples": {}}}, "should hold one JSON object with a list of `examples`"),
    ("rag", "d.json", {"d.json": '{"queries": {"a": "x", "a": "y"}, "corpus": {}, "relevant_docs": {}}'},
     "`queries` holds the id 'a' more than once"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "source", "files", "message"), FAULTS, ids=[fault[3][:50] for fault in FAULTS])
def test_a_fault_is_told_with_file_line_and_id(
    name: str, source: str, files: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DatasetError) as caught:
        read_dataset(lay(tmp_path, files) / source, name)
    assert message in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_dropping_counts_every_row_that_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good = '{"anchor": "q", "positive": "a"}'
    bad = [
        '{"anchor": "q", "pos',
        '{"anchor": "", "positive": "a"}',
        '{"anchor": 1, "positive": "a"}',
        "[1]",
        '{"x": 1}',
    ]
    lay(tmp_path, {"p.jsonl": "\n".join([good, *bad, good])})
    dataset = read_dataset(tmp_path / "p.jsonl", on_error="drop")
    assert texts(dataset) == {"q": ["a"]}
    assert dataset.dropped.counts == {
        "line that is not JSON": 1, "empty text": 1, "wrong type": 2, "missing column": 1,
    }  # fmt: skip
    assert "left out 1 x line that is not JSON (first: " in caplog.text
    lay(
        tmp_path,
        {"d.json": '{"queries": {"a": "x"}, "corpus": {"b": "y", "b": "z", "c": "w"}, "relevant_docs": {"a": ["c"]}}'},
    )
    assert read_dataset(tmp_path / "d.json", on_error="drop").dropped.counts == {
        "id given twice with different contents": 1
    }
    assert "p.jsonl, line 2" in dataset.dropped.examples["line that is not JSON"]


@pytest.mark.parametrize("encoding", ["gbk", "latin-1", "utf-16-le"])
def test_another_encoding_is_refused_with_its_line(encoding: str, tmp_path: Path) -> None:
    lines = '{"anchor": "q", "positive": "a"}\n{"anchor": "é中", "positive": "a"}\n'
    (tmp_path / "p.jsonl").write_bytes(lines.encode(encoding, "ignore"))
    with pytest.raises(DatasetError, match=r"p\.jsonl, line [12]: "):
        read_dataset(tmp_path / "p.jsonl", "pairs")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_marks_and_line_ends_of_windows_are_read(encoding: str, end: str, tmp_path: Path) -> None:
    lines = ["anchor,positive", 'é中,"two', 'lines"', "q,a"]
    (tmp_path / "p.csv").write_bytes("".join(line + end for line in lines).encode(encoding))
    assert texts(read_dataset(tmp_path / "p.csv")) == {"é中": [f"two{end}lines"], "q": ["a"]}


def test_a_line_of_a_million_characters(tmp_path: Path) -> None:
    long = "x" * 1_000_000
    for name in ("p.jsonl", "p.csv"):
        write_rows([{"anchor": "q", "positive": long}], tmp_path / name)
        assert texts(read_dataset(tmp_path / name)) == {"q": [long]}


def test_a_line_without_an_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_LINE", 1000)
    (tmp_path / "p.jsonl").write_text("x" * 2000)
    with pytest.raises(DatasetError, match="line 1: the line is longer than 1,000 bytes"):
        read_dataset(tmp_path / "p.jsonl", "pairs")


def test_packed_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = b'{"anchor": "q", "positive": "a"}\n'
    (tmp_path / "p.jsonl.gz").write_bytes(gzip.compress(data))
    assert texts(read_dataset(tmp_path / "p.jsonl.gz")) == {"q": ["a"]}
    (tmp_path / "p.jsonl.gz").write_bytes(gzip.compress(data * 100)[:-12])
    with pytest.raises(DatasetError, match="is a broken gzip file"):
        read_dataset(tmp_path / "p.jsonl.gz", "pairs")
    (tmp_path / "z.jsonl").write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(DatasetError, match="is a zip archive; unpack it first"):
        read_dataset(tmp_path / "z.jsonl", "pairs")
    monkeypatch.setattr(sources, "FREE_BYTES", 1 << 20)
    (tmp_path / "bomb.json.gz").write_bytes(gzip.compress(bytes(1 << 23)))
    for name in ("rag", "squad", "labelled-rag"):
        with pytest.raises(DatasetError, match="unpacks to more than 200 times its size"):
            read_dataset(tmp_path / "bomb.json.gz", name)


def test_a_parquet_file_that_swells_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_rows(({"anchor": "q", "positive": "a" * 10_000} for _ in range(5000)), tmp_path / "p.parquet")
    assert texts(read_dataset(tmp_path / "p.parquet")) == {"q": ["a" * 10_000]}  # 50 MB are nothing yet
    monkeypatch.setattr(rows_, "PARQUET_FREE", 1 << 20)
    with pytest.raises(DatasetError, match="unpacks to more than 200 times its size"):
        read_dataset(tmp_path / "p.parquet", "pairs")


# --- writing ----------------------------------------------------------------------------------------------------------


def test_the_json_formats_are_byte_for_byte_those_of_save_json(tmp_path: Path) -> None:
    write_dataset(DATASET, tmp_path / "a.json", "rag")
    DATASET.save_json(tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    written = write_dataset(DATASET, tmp_path / "c.json", "llama-index")
    plain = {name: getattr(DATASET, name) for name in ("queries", "corpus", "relevant_docs", "mode")}
    assert (tmp_path / "c.json").read_text() == json.dumps(plain, indent=4)  # as llama-index-finetuning writes it
    assert written.lost == {"negative documents": 3, "grades above 1": 1, "reference answers": 1}


def test_what_is_lost_is_counted_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    written = write_dataset(DATASET, tmp_path / "p.jsonl", "pairs")
    assert written.rows == 3
    assert written.lost == {
        "query ids (made anew from the texts)": 2,
        "document ids (made anew from the texts)": 4,
        "negative documents": 3,
        "grades above 1": 1,
        "reference answers": 1,
        "documents that no query names": 2,
    }
    assert "the format 'pairs' has no place for 2 query ids" in caplog.text
    twins = EmbeddingQAFinetuneDataset(
        queries={"1": "q", "2": "q"},
        corpus={"a": "x", "b": "x", "c": "y"},
        relevant_docs={"1": ["a"], "2": ["c"]},
        negative_docs={"1": ["c"], "2": ["b"]},
        reference_answers={"1": "yes", "2": "no"},
    )
    lost = write_dataset(twins, tmp_path / "t.jsonl", "flag-embedding").lost
    assert lost["query ids of the same text (joined)"] == lost["document ids of the same text (joined)"] == 1
    assert lost["negatives that are relevant under another id"] == 2
    assert lost["second answers of the same question"] == lost["reference answers"] == 1
    assert texts(read_dataset(tmp_path / "t.jsonl")) == {"q": ["x", "y"]}
    n = write_dataset(DATASET, tmp_path / "n.jsonl", "ntuples", n=2)
    assert n.lost["queries with fewer than 2 negative documents"] == 1


@pytest.mark.parametrize("name", FORMATS)
def test_half_a_character_is_refused_and_nothing_is_written(name: str, tmp_path: Path) -> None:
    broken = DATASET.model_copy(deep=True)
    broken.corpus["a"] = "half \ud83d"
    path = tmp_path / ("d" if FORMATS[name].is_folder else "d.json")
    with pytest.raises(DatasetError, match="unpaired surrogate"):
        write_dataset(broken, path, name)
    assert list(tmp_path.iterdir()) == []


def test_an_older_file_survives_a_failure(tmp_path: Path) -> None:
    path = tmp_path / "old.jsonl"
    path.write_text("old")

    def rows() -> Any:
        yield {"a": 1}
        raise RuntimeError("the power is gone")

    for name in ("old.jsonl", "old.csv", "old.parquet"):
        (tmp_path / name).write_text("old")
        with pytest.raises(RuntimeError, match="the power is gone"):
            write_rows(rows(), tmp_path / name)
        assert (tmp_path / name).read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 3
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(OutputError, match=r"Cannot write .*: it is a folder"):
        write_rows([{"a": 1}], tmp_path / "folder.csv")


@pytest.mark.parametrize("name", ["p.jsonl", "p.json", "p.csv", "p.parquet"])
def test_rows_are_written_while_they_are_made(name: str, tmp_path: Path) -> None:
    sizes: list[int] = []

    def rows() -> Any:
        for number in range(20_000):
            if number == 19_999:
                assert not (tmp_path / name).exists()
                sizes.append(sum(file.stat().st_size for file in tmp_path.iterdir()))
            yield {"anchor": f"query {number}", "positive": f"text {number}"}

    assert write_rows(rows(), tmp_path / name) == 20_000
    assert sizes[0] > (tmp_path / name).stat().st_size / 2


def test_rows_are_read_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    write_rows(({"anchor": f"q{number}", "positive": "a"} for number in range(5000)), path)
    with path.open("ab") as file:
        file.write(b"broken")  # never reached by a reader that goes line by line
    assert len(list(islice(read_rows(path, Builder("x")), 4000))) == 4000


def test_reading_a_big_file_takes_no_more_memory_than_its_data_set(tmp_path: Path) -> None:
    """60 MB of rows that all say the same: the data set is one pair, and so little must be held."""
    import tracemalloc

    path = tmp_path / "big.jsonl"
    line = json.dumps({"anchor": "q", "positive": "a" * 3000}) + "\n"
    with path.open("w") as file:
        file.writelines(line for _ in range(20_000))
    tracemalloc.start()
    try:
        dataset = read_dataset(path, "pairs")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(dataset.corpus) == 1
    assert peak < 8_000_000


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda path: write_dataset(DATASET, path / "d.json", "jsonl"), "There is no format 'jsonl'"),
        (
            lambda path: read_dataset([], "pairs", chunk=3),
            "The format 'pairs' has no option 'chunk'",
        ),
        (
            lambda path: write_dataset(DATASET, path / "d.json", "rag", n=2),
            "has no option 'n' for writing; it has none",
        ),
        (lambda path: write_dataset(DATASET, path / "d.gz", "pairs"), "packed files are only read"),
        (lambda path: write_dataset(DATASET, path / "d.csv", "rag"), "is a JSON file; d.csv should end in .json"),
        (lambda path: write_dataset(DATASET, path / "d.csv", "flag-embedding"), "Cannot write lists of texts"),
        (
            lambda path: write_dataset(DATASET, path / "d.jsonl", "ntuples", n=9),
            "No query has 9 negatives",
        ),
        (lambda path: write_dataset(DATASET, path / "d", "beir", split="a/b"), "letters and digits, got 'a/b'"),
        (lambda path: write_dataset(DATASET, path / "d", "mteb", container="csv"), "must be 'jsonl' or 'parquet'"),
        (lambda path: write_dataset(DATASET, path / "d", "trec", tables="csv"), "must be 'jsonl' or 'tsv'"),
        (lambda path: read_dataset([], "pairs", on_error="skip"), "`on_error` must be 'raise' or 'drop'"),
        (
            lambda path: read_dataset([{}], "pairs", columns={"query": "x"}),
            "the known parts are anchor, positive",
        ),
    ],
)
def test_wrong_arguments_are_refused(call: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        call(tmp_path)
    assert message in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_scores_and_provenance_without_room_are_counted(tmp_path: Path) -> None:
    data = DATASET.replace(teacher_scores={"q1": {"a": 0.5, "c": 0.25}}, provenance=Provenance(split="val"))
    lost = write_dataset(data, tmp_path / "p.jsonl", "pairs").lost
    assert lost["teacher scores"] == 2
    assert lost["provenance fields"] == 1
    assert "teacher scores" not in write_dataset(data, tmp_path / "s.jsonl", "scored").lost


def test_labels_of_scored_pairs_are_not_scores_of_a_teacher() -> None:
    rows = [{"sentence1": "q", "sentence2": text, "score": score} for text, score in (("a", 1), ("b", 0))]
    assert read_dataset(rows, "scored").teacher_scores == {}
    rows[1]["score"] = 0.2
    assert len(read_dataset(rows, "scored").teacher_scores) == 1


def test_importing_the_formats_loads_no_heavy_package() -> None:
    code = (
        "import sys; from llama_index_embft.dataset import read_dataset, dataset_from_clicks, RetrievalLog;"
        "print([m for m in ('torch', 'pyarrow', 'datasets', 'llama_index.core', 'trulens') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ})
    assert done.stdout.strip() == "[]"


def test_the_real_chinese_set_survives_every_format(shared_data: Path, tmp_path: Path) -> None:
    whole = EmbeddingQAFinetuneDataset.from_json(shared_data / "cmrc2018_dev_zh.json")
    part = whole.subset(list(whole.queries)[:300], keep_corpus=False)
    for name in ("beir", "air-bench", "mteb", "datasets", "trec", "table", "squad"):
        path = tmp_path / (f"{name}.parquet" if name == "table" else "s.json" if name == "squad" else name)
        write_dataset(part, path, name)
        assert read_dataset(path).relevant_docs == part.relevant_docs
