"""The data set: its rules, its file format, its parts and unions."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import re
import time
import warnings
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from llama_index_embft.dataset import EmbeddingQAFinetuneDataset, Provenance, split_dataset
from llama_index_embft.errors import ConfigError, DatasetError, OutputError


def fields(**changes: Any) -> dict[str, Any]:
    """Two queries over three chunks of two files, everything filled in."""
    base: dict[str, Any] = {
        "queries": {"q1": "Who pays?", "q2": "谁付钱?"},
        "corpus": {"a": "file: x\n\nAlice pays.", "b": "file: x\n\nBob 付钱.", "c": "file: y\n\nNobody."},
        "relevant_docs": {"q1": ["a", "b"], "q2": ["b"]},
        "negative_docs": {"q2": ["c"]},
        "reference_answers": {"q1": "Alice"},
        "relevance_grades": {"q1": {"a": 2}},
        "teacher_scores": {"q1": {"a": 0.9, "c": -3.5}},
        "bare_texts": {"a": "Alice pays."},
        "source_documents": {"a": "x", "b": "x"},
    }
    return {**base, **changes}


def plain() -> dict[str, Any]:
    return {name: fields()[name] for name in ("queries", "corpus", "relevant_docs")}


def build(**changes: Any) -> EmbeddingQAFinetuneDataset:
    return EmbeddingQAFinetuneDataset(**fields(**changes))


BROKEN: list[tuple[str, dict[str, Any], str]] = [
    ("unknown-doc", {"relevant_docs": {"q1": ["a", "zz"], "q2": ["yy"]}},
     "`relevant_docs` of the query 'q1' names the document 'zz', which is not in `corpus` (and 1 more like it); "
     "add it to `corpus`"),
    ("unknown-query", {"relevant_docs": {"q1": ["a"], "q2": ["b"], "q9": ["a"]}},
     "`relevant_docs` names the query 'q9', which is not in `queries`; add it to `queries`"),
    ("unknown-negative", {"negative_docs": {"q2": ["zz"]}},
     "`negative_docs` of the query 'q2' names the document 'zz', which is not in `corpus`"),
    ("unknown-negative-query", {"negative_docs": {"q9": ["c"]}},
     "`negative_docs` names the query 'q9', which is not in `queries`"),
    ("unknown-doc-scored", {"teacher_scores": {"q1": {"zz": 1.0}}},
     "`teacher_scores` of the query 'q1' names the document 'zz', which is not in `corpus`"),
    ("unknown-query-scored", {"teacher_scores": {"q9": {"a": 1.0}}},
     "`teacher_scores` names the query 'q9', which is not in `queries`"),
    ("score-nan", {"teacher_scores": {"q1": {"a": float("nan")}}},
     "`teacher_scores` of the query 'q1' gives the document 'a' the score nan; score it again or leave the score out"),
    ("no-relevant", {"relevant_docs": {"q1": ["a"]}}, "the query 'q2' has no relevant document; name its document"),
    ("empty-list", {"relevant_docs": {"q1": ["a"], "q2": []}}, "the query 'q2' has no relevant document"),
    ("empty-query", {"queries": {"q1": " \n", "q2": "x"}}, "the query 'q1' in `queries` is empty; give it a text"),
    ("empty-doc", {"corpus": {"a": "x", "b": "", "c": "\u3000"}},
     "the document 'b' in `corpus` is empty (and 1 more like it)"),
    ("surrogate", {"corpus": {"a": "x", "b": "half \ud83d", "c": "y"}},
     "the document 'b' in `corpus` contains an unpaired surrogate"),
    ("both", {"negative_docs": {"q2": ["c", "b"]}},
     "the document 'b' is both relevant and negative for the query 'q2'; keep it in one of"),
    ("repeated", {"relevant_docs": {"q1": ["a", "a"], "q2": ["b"]}},
     "`relevant_docs` of the query 'q1' names the document 'a' twice"),
    ("repeated-negative", {"negative_docs": {"q2": ["c", "c", "c"]}},
     "`negative_docs` of the query 'q2' names the document 'c' twice (and 1 more like it)"),
    ("grade-not-relevant", {"relevance_grades": {"q2": {"c": 1}}},
     "gives the document 'c' the grade 1, but the document is not in its `relevant_docs`"),
    ("grade-zero", {"relevance_grades": {"q1": {"a": 0}}}, "the grade 0, and a grade is a whole number from 1"),
    ("grade-query", {"relevance_grades": {"q9": {}}}, "`relevance_grades` names the query 'q9'"),
    ("answer", {"reference_answers": {"q9": "x"}}, "`reference_answers` names the query 'q9'"),
    ("bare", {"bare_texts": {"zz": "x"}}, "`bare_texts` names the document 'zz', which is not in `corpus`"),
    ("source", {"source_documents": {"zz": "x"}}, "`source_documents` names the document 'zz'"),
    ("number-id", {"queries": {1: "x", 2: "y"}}, "the id 1 in `queries` should be a string, got 1 (int) (and 1 more"),
    ("number-text", {"queries": {"q1": 5, "q2": "x"}}, "`queries`['q1'] should be a string, got 5 (int); correct it"),
    ("string-for-list", {"relevant_docs": {"q1": "a", "q2": ["b"]}},
     "`relevant_docs`['q1'] should be a list of document ids, got 'a' (str)"),
    ("number-in-list", {"relevant_docs": {"q1": [3], "q2": ["b"]}}, "`relevant_docs`['q1'][0] should be a string"),
    ("float-grade", {"relevance_grades": {"q1": {"a": 1.5}}}, "`relevance_grades`['q1']['a'] should be a whole number"),
    ("null", {"reference_answers": {"q1": None}}, "`reference_answers`['q1'] should be a string, got None"),
]  # fmt: skip
IDS = [name for name, _, _ in BROKEN]


@pytest.mark.parametrize(("changes", "message"), [case[1:] for case in BROKEN], ids=IDS)
def test_a_broken_rule_is_one_sentence_that_names_the_place(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DatasetError, match=re.escape(message)) as caught:
        build(**changes)
    text = str(caught.value)
    assert "\n" not in text
    assert 'from_dict(fields, on_error="drop")' in text
    assert caught.value.__suppress_context__  # the user sees no pydantic report above it
    assert type(pickle.loads(pickle.dumps(caught.value))) is DatasetError


@pytest.mark.parametrize(("changes", "message"), [case[1:] for case in BROKEN], ids=IDS)
def test_the_same_rules_hold_for_a_file_which_the_sentence_names(tmp_path, changes, message) -> None:
    path = tmp_path / "data.json"
    path.write_text(json.dumps(fields(**changes)))
    if any(isinstance(id_, int) for id_ in changes.get("queries", {})):
        pytest.skip("JSON has no number keys")
    with pytest.raises(DatasetError, match=re.escape(message)) as caught:
        EmbeddingQAFinetuneDataset.from_json(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert f'from_json({str(path)!r}, on_error="drop")' in str(caught.value)


@pytest.mark.parametrize("changes", [case[1] for case in BROKEN], ids=IDS)
def test_drop_mends_every_broken_rule_and_says_so(changes: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        mended = EmbeddingQAFinetuneDataset.from_dict(fields(**changes), on_error="drop")
    assert mended.dropped
    assert sum(mended.dropped.counts.values()) >= 1
    assert "dropped" in caplog.text
    assert next(iter(mended.dropped.counts)) in caplog.text


def test_a_missing_or_wrong_section_cannot_be_dropped() -> None:
    for mode in ("raise", "drop"):
        with pytest.raises(DatasetError, match="the section `corpus` is missing; a data set has at least"):
            EmbeddingQAFinetuneDataset.from_dict({"queries": {}, "relevant_docs": {}}, on_error=mode)
        with pytest.raises(
            DatasetError, match=r"`queries` should be an object with ids as keys, got \[\] \(list\)"
        ) as e:
            EmbeddingQAFinetuneDataset.from_dict(fields(queries=[]), on_error=mode)
        assert "on_error" not in str(e.value)
    with pytest.raises(DatasetError, match="there is no field `querys`; the fields are queries, corpus,"):
        EmbeddingQAFinetuneDataset(**plain(), querys={})
    with pytest.raises(ConfigError, match="`on_error` must be 'raise' or 'drop', got 'ignore'"):
        EmbeddingQAFinetuneDataset.from_dict(fields(), on_error="ignore")  # type: ignore[arg-type]


def test_drop_cascades_to_what_hangs_on_the_broken_part() -> None:
    mended = EmbeddingQAFinetuneDataset.from_dict(
        fields(corpus={"a": "x", "b": " ", "c": "y"}, bare_texts={"b": "z"}), on_error="drop"
    )
    # b goes with its text, source and mentions; q2 had only b, and goes with its negatives.
    assert mended == EmbeddingQAFinetuneDataset(
        queries={"q1": "Who pays?"},
        corpus={"a": "x", "c": "y"},
        relevant_docs={"q1": ["a"]},
        reference_answers={"q1": "Alice"},
        relevance_grades={"q1": {"a": 2}},
        teacher_scores={"q1": {"a": 0.9, "c": -3.5}},
        source_documents={"a": "x"},
    )
    assert mended.dropped.counts == {"document without usable text": 1, "query without a relevant document": 1}
    assert "the document 'b' in `corpus` is empty" in str(mended.dropped)


def test_nothing_is_dropped_from_a_sound_file(caplog: pytest.LogCaptureFixture) -> None:
    dataset = EmbeddingQAFinetuneDataset.from_dict(fields(), on_error="drop")
    assert not dataset.dropped
    assert str(dataset.dropped) == "nothing dropped"
    assert dataset == build()
    assert caplog.text == ""


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def peer() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("llama_index.finetuning.embeddings.common").EmbeddingQAFinetuneDataset


def test_saved_bytes_equal_those_of_llama_index_finetuning(tmp_path, peer) -> None:
    for name, content in {"plain": plain(), "empty": {"queries": {}, "corpus": {}, "relevant_docs": {}}}.items():
        theirs, ours = tmp_path / f"{name}-theirs.json", tmp_path / f"{name}-ours.json"
        peer(**content).save_json(str(theirs))
        EmbeddingQAFinetuneDataset(**content).save_json(ours)
        assert ours.read_bytes() == theirs.read_bytes()
        assert EmbeddingQAFinetuneDataset.from_json(theirs).model_dump() == {
            **EmbeddingQAFinetuneDataset(**content).model_dump()
        }


def test_llama_index_finetuning_reads_a_full_file_of_ours(tmp_path, peer) -> None:
    build().save_json(tmp_path / "full.json")
    read = peer.from_json(str(tmp_path / "full.json"))
    assert read.query_docid_pairs == build().query_docid_pairs
    assert read.corpus == build().corpus


def test_fields_stand_in_the_documented_order(tmp_path) -> None:
    build().save_json(tmp_path / "full.json")
    assert list(json.loads((tmp_path / "full.json").read_text())) == [*fields(), "mode"]


def test_real_files_round_trip_byte_for_byte(shared_data, tmp_path) -> None:
    for name in ("uber_10k_2021", "lyft_10k_2021", "pubmedqa_labeled", "cmrc2018_dev_zh"):
        dataset = EmbeddingQAFinetuneDataset.from_json(shared_data / f"{name}.json")
        dataset.save_json(tmp_path / "again.json")
        assert EmbeddingQAFinetuneDataset.from_json(tmp_path / "again.json") == dataset


NOT_A_DATASET: list[tuple[str, bytes, str]] = [
    ("not-json", b"hello", "is not JSON: Expecting value at line 1, column 1"),
    ("empty", b" \n", "is empty; it should hold a data set as JSON"),
    ("truncated", json.dumps(fields(), indent=4).encode()[:300],
     "the file ends in the middle (cut off while it was written or copied?) at line"),
    ("truncated-string", json.dumps(fields()).encode()[:28],
     "the file ends in the middle (cut off while it was written or copied?) at line 1"),
    ("list", b"[1, 2]", "holds [1, 2] (list); a data set is one JSON object with `queries`"),
    ("number", b"3", "holds 3 (int); a data set is"),
    ("null", b"null", "holds None (NoneType); a data set is"),
    ("latin-1", '{"queries": "café"}'.encode("latin-1"), "not UTF-8 text (byte 16); save the file as UTF-8"),
    ("json-lines", b'{"query": 1}\n{"query": 2}', "Extra data at line 2, column 1 (it looks like JSON Lines"),
    ("nested", b"[" * 200_000, "cannot be read as JSON"),
    ("section-twice", b'{"queries": {}, "queries": {}}', "has the section 'queries' twice"),
    ("other-object", b'{"name": "x"}', "the section `queries` is missing"),
]  # fmt: skip


@pytest.mark.parametrize("mode", ["raise", "drop"])
@pytest.mark.parametrize(("raw", "message"), [case[1:] for case in NOT_A_DATASET], ids=[c[0] for c in NOT_A_DATASET])
def test_a_file_that_is_no_data_set_is_refused(tmp_path, raw: bytes, message: str, mode: Any) -> None:
    path = tmp_path / "data.json"
    path.write_bytes(raw)
    with pytest.raises(DatasetError, match=re.escape(message)) as caught:
        EmbeddingQAFinetuneDataset.from_json(path, on_error=mode)
    assert str(path) in str(caught.value)


def test_a_path_without_a_file_is_refused(tmp_path) -> None:
    with pytest.raises(DatasetError, match=r"There is no file .*nowhere\.json; check the path"):
        EmbeddingQAFinetuneDataset.from_json(tmp_path / "nowhere.json")
    with pytest.raises(DatasetError, match="is a folder; give the file in it"):
        EmbeddingQAFinetuneDataset.from_json(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_byte_order_marks_are_understood(tmp_path, encoding: str) -> None:
    (tmp_path / "data.json").write_text(json.dumps(fields(), ensure_ascii=False), encoding=encoding)
    assert EmbeddingQAFinetuneDataset.from_json(tmp_path / "data.json") == build()


def test_sections_of_other_tools_are_ignored_with_a_warning(tmp_path, caplog) -> None:
    (tmp_path / "data.json").write_text(json.dumps({**plain(), "hard_negatives": {}}))
    assert EmbeddingQAFinetuneDataset.from_json(tmp_path / "data.json") == EmbeddingQAFinetuneDataset(**plain())
    assert "ignored the unknown sections 'hard_negatives'" in caplog.text


def test_a_repeated_id_in_a_file(tmp_path) -> None:
    path = tmp_path / "data.json"
    path.write_text(
        '{"queries": {"q1": "a?", "q2": "b?", "q1": "c?", "q3": "d?", "q3": "d?"}, "corpus": {"a": "x"},'
        ' "relevant_docs": {"q1": ["a"], "q2": ["a"], "q3": ["a"]}}'
    )
    with pytest.raises(DatasetError, match=r"`queries` holds the id 'q1' more than once \(and 1 more like it\); give"):
        EmbeddingQAFinetuneDataset.from_json(path)
    dataset = EmbeddingQAFinetuneDataset.from_json(path, on_error="drop")
    # Nobody knows which q1 was meant; q3 stood there twice with one meaning.
    assert dataset.queries == {"q2": "b?", "q3": "d?"}
    assert dataset.relevant_docs == {"q2": ["a"], "q3": ["a"]}
    assert dataset.dropped.counts == {"id given twice with different contents": 1}
    assert dataset == EmbeddingQAFinetuneDataset(**dataset.model_dump())


def test_a_repeated_grade_in_a_file(tmp_path) -> None:
    path = tmp_path / "data.json"
    text = json.dumps({**plain(), "relevance_grades": {"q1": {"a": 2}}})
    path.write_text(text.replace('"a": 2', '"a": 2, "a": 3'))
    with pytest.raises(
        DatasetError, match="`relevance_grades` of the query 'q1' holds the document 'a' more than once"
    ):
        EmbeddingQAFinetuneDataset.from_json(path)
    assert EmbeddingQAFinetuneDataset.from_json(path, on_error="drop").relevance_grades == {"q1": {}}


def test_saving_over_a_folder_is_refused(tmp_path) -> None:
    with pytest.raises(OutputError, match="it is a folder; give the name of a file"):
        build().save_json(tmp_path)


# --- reading, parts, unions -------------------------------------------------------------------------------------------


def test_qrels_sources_and_bare_texts() -> None:
    dataset = build()
    assert dataset.qrels() == {"q1": {"a": 2, "b": 1}, "q2": {"b": 1}}
    assert [dataset.document_of(id_) for id_ in "abc"] == ["x", "x", "c"]
    assert dataset.bare_text("a") == "Alice pays."
    assert dataset.bare_text("c") == "file: y\n\nNobody."
    assert dataset.query_docid_pairs == [("Who pays?", ["a", "b"]), ("谁付钱?", ["b"])]
    with pytest.raises(DatasetError, match="has no document 'zz'; its ids are the keys of `corpus`"):
        dataset.document_of("zz")
    with pytest.raises(DatasetError, match="has no document 'zz'"):
        dataset.bare_text("zz")


def test_stats() -> None:
    stats = build().stats()
    assert (stats.queries, stats.corpus, stats.pairs, stats.negatives) == (2, 3, 3, 1)
    assert (stats.documents, stats.questioned_documents, stats.queries_per_document) == (2, 1, 2.0)
    assert (stats.graded, stats.reference_answers) == (True, 1)
    assert (stats.query_chars.mean, stats.query_chars.median, stats.query_chars.max) == (6.5, 6.5, 9)
    assert "3 chunks of 2 source documents" in str(stats)
    empty = EmbeddingQAFinetuneDataset(queries={}, corpus={}, relevant_docs={}).stats()
    assert (empty.queries, empty.queries_per_document, empty.corpus_chars.max) == (0, 0.0, 0)
    assert not empty.graded


def test_subset() -> None:
    dataset = build()
    part = dataset.subset(["q2"])
    assert part.queries == {"q2": "谁付钱?"}
    assert part.corpus == dataset.corpus
    assert (part.reference_answers, part.relevance_grades, part.negative_docs) == ({}, {}, {"q2": ["c"]})
    small = dataset.subset(["q1"], keep_corpus=False)
    assert list(small.corpus) == ["a", "b"]
    assert small.source_documents == {"a": "x", "b": "x"}
    assert list(dataset.subset(["q2", "q1"]).queries) == ["q2", "q1"]
    assert dataset.subset([]).queries == {}
    with pytest.raises(DatasetError, match=r"has no query 'q7' \(and 1 more\)"):
        dataset.subset(["q1", "q7", "q8"])
    with pytest.raises(DatasetError, match="The query 'q1' is asked for twice"):
        dataset.subset(["q2", "q1", "q1"])


def test_merge_joins_what_agrees() -> None:
    dataset = build()
    other = EmbeddingQAFinetuneDataset(
        queries={"q2": "谁付钱?", "q3": "Why?"},
        corpus={"c": "file: y\n\nNobody.", "a": "file: x\n\nAlice pays."},
        relevant_docs={"q2": ["a"], "q3": ["c"]},
        relevance_grades={"q2": {"a": 3}},
    )
    both = dataset.merge(other)
    assert list(both.queries) == ["q1", "q2", "q3"]
    assert both.relevant_docs == {"q1": ["a", "b"], "q2": ["b", "a"], "q3": ["c"]}
    assert both.qrels()["q2"] == {"b": 1, "a": 3}
    assert dataset.merge(dataset) == dataset


def test_merge_refuses_an_id_with_two_meanings_and_takes_a_prefix() -> None:
    dataset, other = build(), build(queries={"q1": "Other?", "q2": "Another?"})
    with pytest.raises(DatasetError, match=r"the id 'q1' \(and 1 more\) has different contents in `queries`.*prefix="):
        dataset.merge(other)
    both = dataset.merge(other, prefix="o/")
    assert list(both.queries) == ["q1", "q2", "o/q1", "o/q2"]
    assert both.relevant_docs["o/q1"] == ["o/a", "o/b"]
    assert both.qrels()["o/q1"] == {"o/a": 2, "o/b": 1}
    assert both.document_of("o/a") == "o/x"
    assert both.document_of("o/c") == "o/c"
    with pytest.raises(DatasetError, match="the document 'b' is both relevant and negative"):
        dataset.merge(build(relevant_docs={"q1": ["a"], "q2": ["a"]}, negative_docs={"q2": ["b"]}))
    with pytest.raises(DatasetError, match="Cannot merge data sets of the modes 'text' and 'image'"):
        dataset.merge(build(mode="image"))


def test_content_hash_follows_the_content_alone() -> None:
    dataset = build()
    turned = build(corpus=dict(reversed(fields()["corpus"].items())))
    assert dataset.content_hash() == turned.content_hash()
    assert dataset.content_hash() != build(reference_answers={}).content_hash()
    assert len(dataset.content_hash()) == 64
    assert EmbeddingQAFinetuneDataset(**plain()).content_hash() == (
        EmbeddingQAFinetuneDataset(**plain(), negative_docs={}).content_hash()
    )


def test_the_repr_does_not_print_the_corpus() -> None:
    assert repr(build()) == str(build()) == "EmbeddingQAFinetuneDataset(2 queries, 3 documents)"
    assert copy.deepcopy(build()) == pickle.loads(pickle.dumps(build())) == build()
    assert EmbeddingQAFinetuneDataset.model_validate(fields()) == build()
    with pytest.raises(DatasetError, match="the query 'q2' has no relevant document"):
        EmbeddingQAFinetuneDataset.model_validate(fields(relevant_docs={"q1": ["a"]}))


def test_two_hundred_thousand_queries_are_checked_in_linear_time(tmp_path) -> None:
    n = 200_000
    start = time.perf_counter()
    dataset = EmbeddingQAFinetuneDataset(
        queries={f"q{i}": f"question {i}" for i in range(n)},
        corpus={f"d{i}": f"text {i}" for i in range(n)},
        relevant_docs={f"q{i}": [f"d{i}"] for i in range(n)},
        negative_docs={f"q{i}": [f"d{i - 1}"] for i in range(1, n)},
    )
    dataset.subset(list(dataset.queries)[: n // 2])
    assert time.perf_counter() - start < 120  # about 3 s alone; a quadratic check would take hours


# --- properties -------------------------------------------------------------------------------------------------------

_ids = st.sampled_from(["q1", "q2", "q3", "a", "b"])
_texts = st.one_of(st.text(max_size=8), st.just(" "), st.just("ok"))
_junk = st.one_of(st.none(), st.integers(), st.booleans(), _texts, st.lists(_texts, max_size=2))
_lists = st.one_of(st.lists(st.one_of(_ids, _ids, st.integers()), max_size=4), _junk)
_any_fields = st.fixed_dictionaries(
    {
        "queries": st.dictionaries(_ids, st.one_of(_texts, _junk), max_size=4),
        "corpus": st.dictionaries(_ids, st.one_of(_texts, _junk), max_size=4),
        "relevant_docs": st.dictionaries(_ids, _lists, max_size=4),
        "negative_docs": st.dictionaries(_ids, _lists, max_size=4),
        "reference_answers": st.dictionaries(_ids, _junk, max_size=2),
        "relevance_grades": st.dictionaries(
            _ids, st.one_of(_junk, st.dictionaries(_ids, st.one_of(_junk, st.integers(0, 3)), max_size=3)), max_size=3
        ),
        "bare_texts": st.dictionaries(_ids, _junk, max_size=2),
        "source_documents": st.dictionaries(_ids, _junk, max_size=2),
    }
)


@given(_any_fields)
@settings(max_examples=400, deadline=None)
def test_raise_and_drop_agree_on_any_content(content: dict[str, Any]) -> None:
    before = copy.deepcopy(content)
    try:
        strict = EmbeddingQAFinetuneDataset.from_dict(content)
    except DatasetError as err:
        assert "\n" not in str(err)  # noqa: PT017
        strict = None
    mended = EmbeddingQAFinetuneDataset.from_dict(content, on_error="drop")
    assert content == before  # the caller's dicts are left alone
    assert bool(mended.dropped) == (strict is None)
    if strict is not None:
        assert mended == strict
    assert set(mended.corpus) <= set(content["corpus"])


@given(_any_fields)
@settings(max_examples=100, deadline=None)
def test_json_round_trip(tmp_path_factory, content: dict[str, Any]) -> None:
    dataset = EmbeddingQAFinetuneDataset.from_dict(content, on_error="drop")
    path = tmp_path_factory.getbasetemp() / "round-trip.json"
    dataset.save_json(path)
    again = EmbeddingQAFinetuneDataset.from_json(path)
    assert again == dataset
    assert again.content_hash() == dataset.content_hash()
    assert again.stats() == dataset.stats()


# --- provenance -----------------------------------------------------------------------------------------------------


def test_provenance_travels_with_the_file_and_not_with_the_hash(tmp_path: Any) -> None:
    origin = Provenance(split="train", made_by="gpt-x", parent="abc")
    dataset = build(provenance=origin)
    assert dataset == build()
    assert dataset.content_hash() == build().content_hash()
    assert build().content_hash() != build(teacher_scores={}).content_hash()
    dataset.save_json(tmp_path / "d.json")
    again = EmbeddingQAFinetuneDataset.from_json(tmp_path / "d.json")
    assert again.provenance == origin
    assert again.teacher_scores == dataset.teacher_scores
    with pytest.raises(ValueError, match="frozen"):
        origin.split = "test"  # type: ignore[misc]


def test_provenance_of_another_version_is_read_without_what_is_unknown(
    tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    text = json.dumps({**plain(), "provenance": {"split": "val", "colour": "red"}})
    (tmp_path / "d.json").write_text(text)
    assert EmbeddingQAFinetuneDataset.from_json(tmp_path / "d.json").provenance == Provenance(split="val")
    assert "'provenance.colour'" in caplog.text
    with pytest.raises(DatasetError, match=r"`provenance`\['split'\] should be a string, got 3"):
        EmbeddingQAFinetuneDataset.from_dict({**plain(), "provenance": {"split": 3}})
    broken = EmbeddingQAFinetuneDataset.from_dict({**plain(), "provenance": {"split": 3}}, on_error="drop")
    assert broken.provenance == Provenance()


def test_subsets_unions_and_splits_keep_scores_and_say_where_they_come_from() -> None:
    dataset = build(provenance=Provenance(made_by="gpt-x", split="train"))
    small = dataset.subset(["q1"], keep_corpus=False)
    assert small.teacher_scores == {"q1": {"a": 0.9}}  # the corpus of the subset is without c
    assert small.provenance == dataset.provenance
    other = build(provenance=Provenance(made_by="gpt-x", split="val"))
    assert dataset.merge(other, prefix="b/").teacher_scores["b/q1"] == {"b/a": 0.9, "b/c": -3.5}
    assert dataset.merge(other).provenance == Provenance(made_by="gpt-x")
    whole = EmbeddingQAFinetuneDataset(
        queries={f"q{n}": f"question {n}" for n in range(9)},
        corpus={f"d{n}": f"text number {n}" for n in range(9)},
        relevant_docs={f"q{n}": [f"d{n}"] for n in range(9)},
        teacher_scores={f"q{n}": {f"d{n}": float(n)} for n in range(9)},
    )
    for side, part in split_dataset(whole, fractions=(0.4, 0.3, 0.3))._asdict().items():
        assert part.provenance == Provenance(split=side, parent=whole.content_hash())
        assert part.teacher_scores == {query: whole.teacher_scores[query] for query in part.queries}
    assert whole.provenance == Provenance()
