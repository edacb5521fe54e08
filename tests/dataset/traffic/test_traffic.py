"""Data sets from clicks, thumbs and LlamaIndex' retrievals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llama_index_embft.dataset import RetrievalLog, dataset_from_clicks
from llama_index_embft.errors import ConfigError, DatasetError, OutputError

CORPUS = {name: f"text of {name}" for name in "abcdef"}


def row(query: str, shown: Any, clicked: Any = None, **more: Any) -> dict[str, Any]:
    return {"query": query, "shown": shown, "clicked": clicked, **more}


def test_clicks_make_positives_and_what_was_passed_over_negatives() -> None:
    log = [
        row("Who pays?", ["a", "b", "c", "d"], ["c"]),
        row("who  pays?", ["b", "a", "c", "d"], ["c"]),  # the same question, written otherwise
        row("WHO PAYS?", ["a", "c", "e"], ["c"]),
        row("lonely", ["a", "b"], ["b"]),
        row("nothing", ["a", "b"], []),
    ]
    dataset = dataset_from_clicks(log, CORPUS)
    report = dataset.report
    (query,) = dataset.queries
    assert dataset.queries[query] == "Who pays?"
    assert dataset.relevant_docs[query] == ["c"]
    # a was passed over three times, b twice; d and e stood below the click and may never have been looked at.
    assert dataset.negative_docs[query] == ["a", "b"]
    assert dataset.corpus == CORPUS
    assert (report.impressions, report.queries, report.kept_queries) == (5, 3, 1)
    assert (report.positives, report.negatives) == (1, 2)
    assert report.clicks_by_rank == (0, 2, 2)
    assert report.left_out == {"clicked documents with too few clicks": 1, "questions without a positive": 2}
    assert "0% of the clicks went to the first place" in report.notes[0]
    assert "5 answers to 3 questions: 1 questions kept" in str(report)


def test_a_document_that_was_ever_clicked_is_no_negative_and_a_slip_no_positive() -> None:
    log = [row("q", ["a", "b"], ["b"])] * 3 + [row("q", ["a", "b"], ["a"])]
    dataset = dataset_from_clicks(log, CORPUS, min_clicks=1)
    (query,) = dataset.queries
    assert dataset.relevant_docs[query] == ["b"]  # a was passed over three times and clicked once
    assert dataset.negative_docs == {}


def test_the_most_negatives() -> None:
    log = [row("q", list("abcdef"), ["f"])] * 2
    dataset = dataset_from_clicks(log, CORPUS, max_negatives=2)
    assert list(dataset.negative_docs.values()) == [["a", "b"]]
    assert dataset.report.left_out["negatives beyond 2 a question"] == 3
    assert dataset_from_clicks(log, CORPUS, max_negatives=0).negative_docs == {}


def test_thumbs_for_an_answer_and_for_documents() -> None:
    log = [
        row("q", ["a", "b", "c"], feedback="up"),
        row("q", ["b", "a", "c"], feedback="👎"),
        row("q", ["d", "c"], feedback={"c": -1, "d": None}),
    ]
    dataset = dataset_from_clicks(log, CORPUS, min_clicks=1, min_skips=1)
    (query,) = dataset.queries
    assert dataset.relevant_docs[query] == ["a"]
    assert sorted(dataset.negative_docs[query]) == ["b", "c"]
    both = dataset_from_clicks(log[:1], CORPUS, min_clicks=1, answer_depth=2)
    assert next(iter(both.relevant_docs.values())) == ["a", "b"]


@pytest.mark.parametrize("cells", ["a|b|c", "a b c", "a,b,c", '["a", "b", "c"]'])
def test_a_csv_log(tmp_path: Path, cells: str) -> None:
    import csv

    path = tmp_path / "log.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["q", "results", "clicks"], *[["谁付钱?", cells, "b"]] * 2])
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"_id": id_, "text": text}) + "\n" for id_, text in CORPUS.items()))
    dataset = dataset_from_clicks(path, corpus)
    assert list(dataset.queries.values()) == ["谁付钱?"]
    assert list(dataset.relevant_docs.values()) == [["b"]]
    assert list(dataset.negative_docs.values()) == [["a"]]


def test_other_columns(tmp_path: Path) -> None:
    log = [{"phrase": "q", "hits": ["a", "b"], "opened": ["b"]}] * 2
    columns = {"query": "phrase", "shown": "hits", "clicked": "opened"}
    assert list(dataset_from_clicks(log, CORPUS, columns=columns).relevant_docs.values()) == [["b"]]
    with pytest.raises(ConfigError, match="`columns` has the parts query, shown"):
        dataset_from_clicks(log, CORPUS, columns={"doc": "x"})


BROKEN = {
    "no corpus": (row("q", ["a", "z"], ["a"]), "the shown document 'z' is not in the corpus"),
    "not shown": (row("q", ["a"], ["b"]), "the clicked document 'b' was not shown"),
    "twice": (row("q", ["a", "a"], ["a"]), "`shown` names a document twice"),
    "no query": (row(None, ["a"], ["a"]), "the query should be a string"),
    "no list": (row("q", {"a": 1}, ["a"]), "`shown` should be a list of ids"),
    "a bad list": (row("q", "[a", ["a"]), "`shown` is no list"),
    "thumbs": (row("q", ["a"], feedback="perhaps"), "is neither up nor down"),
    "stray feedback": (row("q", ["a"], feedback={"b": 1}), "feedback on 'b', which was not shown"),
    "no text": (row("q", [{"id": "z"}], ["z"]), "the text of the shown document 'z' should be a string"),
    "unknown row": ({"id": 7, "clicked": ["a"]}, "there is no row '7' above it"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_rows_are_named_or_counted(case: str, tmp_path: Path) -> None:
    bad, message = BROKEN[case]
    good = row("fine", ["b", "a"], ["a"])
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(item) + "\n" for item in (good, good, bad)), encoding="utf-8")
    with pytest.raises(DatasetError) as caught:
        dataset_from_clicks(path, CORPUS)
    assert str(caught.value).startswith(f"{path}, line 3: ")
    assert message in str(caught.value)
    kept = dataset_from_clicks(path, CORPUS, on_error="drop")
    assert list(kept.queries.values()) == ["fine"]
    assert sum(kept.dropped.counts.values()) == 1


def test_stars_are_no_thumbs() -> None:
    log = [row("q", ["a"], feedback=stars) for stars in (1, 1, 5)]
    with pytest.raises(DatasetError, match=r"row 3: the feedback 5 \(int\) is of a scale"):
        dataset_from_clicks(log, CORPUS, on_error="drop")


def test_an_id_with_spaces_was_clicked() -> None:
    log = [{"query": "q", "shown": "a b|a", "clicked": "a b"}] * 2
    found = dataset_from_clicks(log, {"a b": "AB", "a": "A", "b": "B"})
    assert list(found.relevant_docs.values()) == [["a b"]]


def test_nothing_to_learn_from() -> None:
    with pytest.raises(DatasetError, match="of 1 questions none has a document with 2 clicks or more"):
        dataset_from_clicks([row("q", ["a", "b"], ["b"])], CORPUS)
    with pytest.raises(ConfigError, match="`min_clicks` is 0; it must be at least 1"):
        dataset_from_clicks([], CORPUS, min_clicks=0)


# --- LlamaIndex -------------------------------------------------------------------------------------------------------


def test_retrievals_of_llama_index_become_a_data_set(tmp_path: Path) -> None:
    from llama_index.core import MockEmbedding, VectorStoreIndex
    from llama_index.core.schema import TextNode

    nodes: Any = [TextNode(id_=id_, text=text, metadata={"file": "x"}) for id_, text in CORPUS.items()]
    retriever = VectorStoreIndex(nodes, embed_model=MockEmbedding(embed_dim=4)).as_retriever(similarity_top_k=3)
    log = RetrievalLog(tmp_path / "traffic.jsonl").attach()
    try:
        for _ in range(2):
            found = [hit.node.node_id for hit in retriever.retrieve("who pays?")]
            log.feedback(log.last_id, clicked=[found[1]])
    finally:
        log.detach()
    retriever.retrieve("not listened to")
    dataset = dataset_from_clicks(log.path)
    assert list(dataset.queries.values()) == ["who pays?"]
    assert list(dataset.relevant_docs.values()) == [[found[1]]]
    assert list(dataset.negative_docs.values()) == [[found[0]]]
    assert dataset.corpus[found[1]] == f"file: x\n\n{CORPUS[found[1]]}"  # as the index embeds it
    with pytest.raises(ConfigError, match="needs the id of a retrieval"):
        log.feedback(None, thumbs="up")
    with pytest.raises(OutputError, match="Cannot write the log"):
        RetrievalLog(tmp_path)


def test_what_a_crash_leaves_costs_the_next_line_nothing(tmp_path: Path) -> None:
    path = tmp_path / "traffic.jsonl"
    RetrievalLog(path)
    assert path.read_text() == ""
    path.write_text('{"id": "1", "que')
    log = RetrievalLog(path)
    log.observe("q", [], id_="2")
    log.feedback("2", clicked="node")
    assert path.read_text().splitlines()[1:] == [
        '{"id": "2", "query": "q", "shown": []}',
        '{"id": "2", "clicked": ["node"]}',
    ]


def test_what_pandas_has_no_value_for_is_left_out() -> None:
    log = [row("q", ["a", "b"], ["b"]) | {"feedback": float("nan")}] * 2
    assert list(dataset_from_clicks(log, CORPUS).relevant_docs.values()) == [["b"]]
