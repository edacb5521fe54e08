"""Faults of reading, splitting and writing data: each test is named after the line that it holds."""

from __future__ import annotations

import csv
import json
import logging
import time
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from llama_index_embft._core.language import composed
from llama_index_embft.dataset import (
    EmbeddingQAFinetuneDataset,
    load_documents,
    near_duplicate_groups,
    read_dataset,
    read_qrels,
    read_run,
    split_dataset,
    to_datasets,
    write_dataset,
)
from llama_index_embft.errors import DatasetError, EmbftError, OutputError
from llama_index_embft.generation.parse import normalized
from llama_index_embft.search.tokenizing import words

if TYPE_CHECKING:
    from collections.abc import Callable

DATA = EmbeddingQAFinetuneDataset(queries={"q": "who?"}, corpus={"d": "Alice."}, relevant_docs={"q": ["d"]})


def texts(dataset: EmbeddingQAFinetuneDataset) -> dict[str, list[str]]:
    return {
        dataset.queries[query]: [dataset.corpus[doc] for doc in docs] for query, docs in dataset.relevant_docs.items()
    }


def lay(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "name", ["relevance", "is_relevant", "grade", "rating", "rel", "judgement", "target", "isGold"]
)
def test_a20_a_column_that_looks_like_a_label_stops(name: str, tmp_path: Path) -> None:
    path = lay(tmp_path / "p.jsonl", [{"query": "q", "passage": f"p{n}", name: n} for n in (0, 1)])
    with pytest.raises(DatasetError, match=rf"taken are 'query' as anchor.*'{name}' looks like a label.*--column"):
        read_dataset(path)
    scored = read_dataset(path, "scored", columns={"score": name})
    assert texts(scored) == {"q": ["p1"]}
    assert len(read_dataset(path, columns={"ignore": name}).corpus) == 2


def test_a20_values_of_yes_and_no_stop_whatever_the_name(tmp_path: Path) -> None:
    path = lay(tmp_path / "p.jsonl", [{"query": "q", "passage": f"p{n}", "ok": bool(n)} for n in (0, 1)])
    with pytest.raises(DatasetError, match="'ok' looks like a label or grade"):
        read_dataset(path)


@pytest.mark.parametrize(
    ("name", "values", "what"),
    [
        ("nli", ("entailment", "contradiction"), "a label or grade"),
        ("esci", ("exact", "substitute", "irrelevant"), "a label or grade"),
        ("cosine", (0.12, 0.93), "a score"),
        ("cosine", ("0,12", "0,93"), "a score"),
        ("opinion", ("12%", "93 %"), "a score"),
        ("opinion", (1.5, 4.0), "a label or grade"),
        ("opinion", ("1/5", "4/5"), "a label or grade"),
        ("opinion", ("high", "low"), "a label or grade"),
        ("opinion", ("✓", "✗"), "a label or grade"),
        ("opinion", ("x", None), "a label or grade"),
        ("opinion", ("", 0, 1), "a label or grade"),
        ("relevance", (None, "", "none at all"), "a label, grade or score"),
        ("hard_negative_passage", ("", "n1"), "a negative"),
        ("rejected", ("n0", "n1"), "a negative"),
        ("page_content", ("c0", "c1"), "another document"),
        ("reference_context", (None, "c1"), "another document"),
    ],
)
def test_a20_values_that_say_how_good_a_pair_is_stop(
    name: str, values: tuple[object, ...], what: str, tmp_path: Path
) -> None:
    rows = [{"query": "q", "passage": f"p{n}", name: value} for n, value in enumerate(values)]
    with pytest.raises(DatasetError, match=f"{name!r} looks like {what}"):
        read_dataset(lay(tmp_path / "p.jsonl", rows))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("page", (1, 2)),
        ("topic", ("pay", "sleep")),
        ("price", (0.5, 12.99)),
        ("offset", (0.1, 0.2)),
        ("part", ("x", "y")),
        ("", (0, 1)),
        ("Unnamed: 0", (0, 1)),
        ("query_text", ("a", "b")),
        ("document_title", ("a", "b")),
        ("passage_length", (1, 2)),
    ],
)
def test_a20_other_columns_do_not_stop(name: str, values: tuple[object, ...], tmp_path: Path) -> None:
    rows = [{"query": "q", "passage": f"p{n}", name: value} for n, value in enumerate(values)]
    assert len(read_dataset(lay(tmp_path / "p.jsonl", rows)).corpus) == 2


def test_a20_a_distance_is_no_score(tmp_path: Path) -> None:
    rows = [{"query": "q", "passage": f"p{n}", "distance": n / 3} for n in (0, 1)]
    with pytest.raises(DatasetError, match=r"'distance' looks like .*in which more means more relevant"):
        read_dataset(lay(tmp_path / "p.jsonl", rows))


@pytest.mark.parametrize("text", ["text", "content", "passage_text"])
def test_a20_an_answer_is_not_taken_for_the_passage_beside_it(text: str, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text(f"question,answer,{text}\nWho pays?,Alice,Alice pays.\n", encoding="utf-8")
    with pytest.raises(DatasetError, match=f"--column positive={text}"):
        read_dataset(tmp_path / "p.csv")


@pytest.mark.parametrize("order", [("question", "answer", "context"), ("context", "answer", "question")])
def test_a20_question_context_and_answer_in_any_order(order: tuple[str, ...], tmp_path: Path) -> None:
    row = {"question": "Who pays?", "context": "A long passage.", "answer": "Alice"}
    dataset = read_dataset(lay(tmp_path / "p.jsonl", [{name: row[name] for name in order}]))
    assert texts(dataset) == {"Who pays?": ["A long passage."]}
    assert list(dataset.reference_answers.values()) == ["Alice"]


def test_a20_scores_of_another_scale_ask_for_their_threshold(tmp_path: Path) -> None:
    path = lay(tmp_path / "p.jsonl", [{"query": "q", "passage": f"p{n}", "score": n} for n in (1, 5)])
    with pytest.raises(DatasetError, match=r"runs from 1 to 5.*threshold"):
        read_dataset(path)
    assert texts(read_dataset(path, threshold=4)) == {"q": ["p5"]}


def test_a21_marks_of_hops_leave_the_corpus() -> None:
    rows = [
        {"user_input": "both?", "reference_contexts": ["<1-hop>\n\none", "<2-hop>\n\ntwo"]},
        {"user_input": "one?", "reference_contexts": ["one"]},
    ]
    assert sorted(read_dataset(rows, "ragas").corpus.values()) == ["one", "two"]


def test_a20_contexts_beside_an_answer_are_those_that_were_found() -> None:
    row = {"question": "q?", "answer": "a", "contexts": ["c1", "c2"], "ground_truth": "g"}
    with pytest.raises(DatasetError, match="`contexts` are what it found, relevant or not"):
        read_dataset([row], "ragas")


def test_e13_lists_in_csv_as_numpy_and_json_write_them(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    for cell in ("['one' 'two']", "['one'\n 'two']", '[""one"", ""\\u0074wo""]'):
        path.write_text(f'user_input,reference_contexts\nq?,"{cell}"\n', encoding="utf-8")
        assert texts(read_dataset(path)) == {"q?": ["one", "two"]}


@pytest.mark.parametrize("said", [1, "True", None])
def test_a20_impossible_questions_in_other_words(said: object, tmp_path: Path) -> None:
    questions = [{"id": "1", "question": "a?", "answers": ["x"]}, {"id": "2", "question": "b?", "answers": []}]
    questions[1]["is_impossible"] = said
    paragraph = {"context": "x y z", "qas": questions}
    (tmp_path / "s.json").write_text(json.dumps({"data": [{"title": "t", "paragraphs": [paragraph]}]}))
    assert texts(read_dataset(tmp_path / "s.json")) == {"a?": ["x y z"]}


def test_a20_rows_of_numpy_and_names_in_capitals() -> None:
    np = pytest.importorskip("numpy")
    rows = [{"Query": np.str_("q"), "Document_ID": np.int64(4), "Document": "c", "Relevance": np.float32(2)}]
    dataset = read_dataset(rows, "table")
    assert dataset.qrels() == {next(iter(dataset.queries)): {"4": 2}}
    dataset = read_dataset([{"query": "q", "pos": np.array(["c"]), "neg": np.array(["n", "m"])}], "flag-embedding")
    assert [dataset.corpus[doc] for docs in dataset.negative_docs.values() for doc in docs] == ["n", "m"]


def test_d8_a_table_of_other_separators_is_told_so(tmp_path: Path) -> None:
    for mark in (";", "\t", "|"):
        (tmp_path / "p.csv").write_text(f"query{mark}passage\nq{mark}p\n", encoding="utf-8")
        with pytest.raises(DatasetError, match="line 1: the columns are parted by"):
            read_dataset(tmp_path / "p.csv")


def test_a24_printed_words_are_made_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pypdf = pytest.importorskip("pypdf")
    writer = pypdf.PdfWriter()
    writer.add_blank_page(200, 200)
    writer.write(str(tmp_path / "a.pdf"))
    text = "the \ufb01nancial of\ufb01ce, the mainte-\nnance of an inde\u00adpendent long-\nterm plan; long-term"
    monkeypatch.setattr(pypdf.PageObject, "extract_text", lambda self, **_: text)
    (page,) = load_documents(tmp_path / "a.pdf", show_progress=False)
    assert page.text == "the financial office, the maintenance of an independent long-term plan; long-term"


def test_b6_missing_sources_are_said(caplog: pytest.LogCaptureFixture) -> None:
    plain = EmbeddingQAFinetuneDataset(
        queries={f"q{n}": f"question {n}" for n in range(6)},
        corpus={f"d{n}": f"text number {n}" for n in range(6)},
        relevant_docs={f"q{n}": [f"d{n}"] for n in range(6)},
    )
    with caplog.at_level(logging.WARNING):
        split_dataset(plain, fractions=(0.4, 0.3, 0.3))
    assert "6 of 6 chunks do not say which document they were cut from" in caplog.text


def test_b7_a_page_that_every_document_repeats_ties_nothing() -> None:
    notice = "This report is confidential and the company is not liable for any loss that its use may cause to anyone."
    names = [f"{d}-{k}" for d in range(8) for k in range(4)]
    corpus = {name: f"plant {name} has {name} of number {name} here" for name in names}
    corpus |= {f"{d}-n": f"{notice}" for d in range(8)}
    dataset = EmbeddingQAFinetuneDataset(
        queries={f"q-{name}": f"what of {name}" for name in corpus},
        corpus=corpus,
        relevant_docs={f"q-{name}": [name] for name in corpus},
        source_documents={name: name.split("-")[0] for name in corpus},
    )
    split = split_dataset(dataset, fractions=(0.5, 0.25, 0.25))
    asked = [{doc for docs in part.relevant_docs.values() for doc in docs} for part in split]
    assert all(asked)
    assert sum(any(doc.endswith("-n") for doc in docs) for docs in asked) == 1
    own = [{doc.split("-")[0] for doc in docs if not doc.endswith("-n")} for docs in asked]
    assert not own[0] & own[1]
    assert not (own[0] | own[1]) & own[2]


def test_c7_forms_just_below_the_threshold_take_seconds() -> None:
    import random

    rng = random.Random(0)
    words = [f"w{n}" for n in range(50_000)]
    form = " ".join(rng.choices(words, k=170))
    forms = [f"{form} {' '.join(rng.choices(words, k=30))}" for _ in range(1500)]
    start = time.process_time()
    groups = near_duplicate_groups([*forms, forms[7] + " more"], show_progress=False)
    assert time.process_time() - start < 8
    assert len(set(groups)) == 1500
    assert groups[-1] == groups[7]


def test_d7_mteb_folders_have_configurations_and_tables_can_be_pushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    write_dataset(DATA, tmp_path / "m", "mteb")
    assert sorted(datasets.get_dataset_config_names(str(tmp_path / "m"))) == ["corpus", "default", "queries"]
    pushed: list[tuple[str, str]] = []
    monkeypatch.setattr(
        datasets.Dataset, "push_to_hub", lambda self, repo, config_name, split: pushed.append((config_name, split))
    )
    to_datasets(DATA).push_to_hub("me/x")
    assert sorted(pushed) == [("corpus", "corpus"), ("default", "test"), ("queries", "queries")]


def test_d8_comments_in_trec_files_and_words_after_the_tag(tmp_path: Path) -> None:
    (tmp_path / "qrels").write_text("# judged by hand\nq 0 d 1\n")
    (tmp_path / "run").write_text("# my run of today\nq Q0 d 1 0.5 tag and more\n")
    assert read_qrels(tmp_path / "qrels") == {"q": {"d": 1}}
    assert read_run(tmp_path / "run") == {"q": {"d": 0.5}}


def test_d8_beir_without_a_header(tmp_path: Path) -> None:
    write_dataset(DATA, tmp_path / "b", "beir")
    (tmp_path / "b" / "qrels" / "test.tsv").write_text("q\td\t1\n")
    assert read_dataset(tmp_path / "b").qrels() == {"q": {"d": 1}}


def test_d8_ids_with_spaces_in_lines_between_tabs(tmp_path: Path) -> None:
    lay(tmp_path / "corpus.jsonl", [{"_id": "1", "text": "wrong"}, {"_id": "doc 1", "text": "right"}])
    lay(tmp_path / "queries.jsonl", [{"_id": "q", "text": "q?"}])
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text("q\tdoc 1\t1\n")
    assert texts(read_dataset(tmp_path)) == {"q?": ["right"]}


def test_d8_a_line_of_names_over_trec_texts_is_no_document(tmp_path: Path) -> None:
    (tmp_path / "qrels.txt").write_text("q1 0 d1 1\n")
    (tmp_path / "topics.tsv").write_text("qid\tquery\nq1\tq?\n")
    (tmp_path / "docs.tsv").write_text("docid\ttext\nd1\tworld\n")
    dataset = read_dataset(tmp_path)
    assert dataset.corpus == {"d1": "world"}
    assert not dataset.dropped


def test_d11_older_encodings_and_counts_of_what_is_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.txt").write_bytes("Die Gebühr beträgt fünf Euro.".encode("latin-1"))
    (tmp_path / "b.xyz").write_text("x")
    with caplog.at_level(logging.WARNING):
        (document,) = load_documents(tmp_path, show_progress=False)
    assert document.text == "Die Gebühr beträgt fünf Euro."
    assert "Skipped 1 file (of a kind that is not read): .xyz (1)" in caplog.text


@pytest.mark.parametrize("text", ["e" + "\u0301\u0323" * 100_000, "\u1ee9\u0323" * 100_000, "\uac00\u0308" * 100_000])
@pytest.mark.parametrize("step", [lambda text: near_duplicate_groups([text, text + "x"]), normalized, words])
def test_c7_texts_of_accents_take_time_in_proportion(text: str, step: Callable[[str], object]) -> None:
    start = time.process_time()  # with Unicode's reordering of the whole text: over a minute each
    step(text)
    assert time.process_time() - start < 5


def test_c7_composing_piece_by_piece_changes_no_text_with_spaces() -> None:
    for text in ("Ａ caf\u0065\u0301 ﬁve", "\u1100\u1161 \u0915\u093c", "ｶﾞ" * 100):
        assert composed(text * 30) == unicodedata.normalize("NFKC", text * 30)


def test_e8_html_is_read_in_linear_time(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text("<html><body>" + "<p>A line of a log.</p>" * 40_000 + "</body></html>")
    (tmp_path / "b.html").write_text("<p>hi there</p><![foo[ x ]]>")
    start = time.process_time()
    documents = load_documents(tmp_path, show_progress=False)
    assert time.process_time() - start < 20
    assert documents[0].text.count("A line of a log.") == 40_000
    assert documents[1].text.startswith("hi there")


def test_e10_odd_time_columns_that_nobody_asked_for(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    when = pa.array([2**61], pa.int64()).cast(pa.timestamp("ms"))
    parquet.write_table(pa.table({"anchor": ["q"], "positive": ["p"], "seen": when}), tmp_path / "p.parquet")
    assert texts(read_dataset(tmp_path / "p.parquet")) == {"q": ["p"]}


def test_e13_braces_deep_json_and_long_names(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("user_input,reference_contexts\nq?,{{}}\n")
    (tmp_path / "d.json").write_text('{"queries": ' + "[" * 100_000)
    for path in (tmp_path / "r.csv", tmp_path / "d.json", tmp_path / ("x" * 300 + ".json")):
        with pytest.raises(EmbftError):
            read_dataset(path)
    with pytest.raises(OutputError):
        write_dataset(DATA, tmp_path / ("x" * 300 + ".json"), "rag")


def test_e16_ids_are_no_formulas_and_links_out_are_not_followed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    odd = EmbeddingQAFinetuneDataset(queries={"=cmd|x": "who?"}, corpus={"d": "A."}, relevant_docs={"=cmd|x": ["d"]})
    write_dataset(odd, tmp_path / "t.csv", "table")
    with (tmp_path / "t.csv").open(newline="", encoding="utf-8") as file:
        assert not any(cell.startswith("=") for row in csv.reader(file) for cell in row)
    assert read_dataset(tmp_path / "t.csv", "table") == odd
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.txt").write_text("open")
    (tmp_path / "docs" / "b.txt").symlink_to(tmp_path / "secret.txt")
    with caplog.at_level(logging.WARNING):
        documents = load_documents(tmp_path / "docs", show_progress=False)
    assert [document.text for document in documents] == ["open"]
    assert "b.txt is a link that leads out of the folder, which is not followed" in caplog.text


def test_d6_the_adapter_notebook_imports_what_is_there(tmp_path: Path) -> None:
    from llama_index_embft.migration import migrate_file

    script = tmp_path / "a.py"
    script.write_text(
        "from llama_index.core.embeddings import LinearAdapterEmbeddingModel\n"
        "from llama_index.core.embeddings.adapter_utils import BaseAdapter, TwoLayerNN\n"
    )
    after = migrate_file(script).after.decode()
    assert "from llama_index_embft.embeddings import LinearAdapterEmbeddingModel" in after
    pytest.importorskip("llama_index.embeddings.adapter")
    exec(compile(after, "a.py", "exec"), {})


def test_e12_a_sentence_about_damaged_text_can_be_printed(tmp_path):
    from llama_index_embft.dataset import read_dataset
    from llama_index_embft.errors import EmbftError

    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "dataset_dict.json").write_text('{"splits": ["\\ud800"]}')
    with pytest.raises(EmbftError) as caught:
        read_dataset(tmp_path / "set")
    assert "\\ud800" in str(caught.value)
    assert str(caught.value).encode("utf-8")
