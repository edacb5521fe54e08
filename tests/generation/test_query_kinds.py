"""Kinds of queries from prompt to data set, with the real client over HTTP."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest_generation import generate_flat, make_nodes, settings_of
from llama_index.core.schema import TextNode
from loopback_llm import Behaviour, LoopbackLLM, Request

from llama_index_embft.calls.tokens import count_tokens
from llama_index_embft.errors import ConfigError
from llama_index_embft.generation import (
    GenerationReport,
    Judge,
    PromptStyle,
    QuestionSettings,
    estimate_qa_embedding_pairs,
)

Serve = Callable[..., LoopbackLLM]
Make = Callable[..., Any]

ENGLISH = "The revenue of Lyft was higher in 2021 than in the year before."
CHINESE = "2021年，滴滴出行的收入比上一年有所增长。"


def generate(nodes: Any, llm: Any, **options: Any) -> Any:
    return generate_flat(nodes, llm, **{"output_path": None, "verbose": False, "filters": [], **options})


@pytest.mark.parametrize(
    ("kinds", "passage", "digest"),
    [
        ({"question": 1}, ENGLISH, "3376ad5c6f0ee636"),
        ({"question": 1}, CHINESE, "2bbcf0ada7bdf41e"),
        ({"keyword": 1, "title": 1}, ENGLISH, "212df0bd82c77e9b"),
        ({"paraphrase": 1, "similar_question": 1}, CHINESE, "833e4abb712c9732"),
    ],
)
def test_prompts_of_old_journals_stay_as_they_are(kinds: Any, passage: str, digest: str) -> None:
    """The prompt is part of the journal's key: a word changed here, and every user pays again."""
    prompt = PromptStyle(None, 2, QuestionSettings(kinds=kinds)).prompt_for(passage).without_passage
    assert hashlib.sha256(prompt.encode()).hexdigest()[:16] == digest


def test_a_claim_is_a_statement(serve: Serve, openai_like: Make) -> None:
    server = serve(script=lambda r: Behaviour(text="1. Is the harbour old?\n2. The harbour holds 7 litres."))
    dataset = generate(make_nodes(1), openai_like(server), kinds={"claim": 1.0})
    assert list(dataset.queries.values()) == ["The harbour holds 7 litres."]
    assert "that the passage supports; no question mark" in server.requests[0].prompt


def test_only_questions_in_place_of_claims_are_tried_again(serve: Serve, openai_like: Make) -> None:
    answers = iter(["Is the harbour old?", "The harbour is old."])
    server = serve(script=lambda r: Behaviour(text=next(answers)))
    dataset = generate(make_nodes(1), openai_like(server), kinds={"claim": 1.0}, num_questions_per_chunk=1)
    assert list(dataset.queries.values()) == ["The harbour is old."]
    assert dataset.report.retries == 1


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        ("The harbour is old.\nHow old is the harbour?", 2),
        ("How old is the harbour?\nThe harbour is old.", 2),
        ("How old is the harbour?\nIs the harbour old?", 1),
        ("The harbour is old.\nharbour age", 2),
    ],
)
def test_of_a_claim_and_a_question_one_may_ask(answer: str, kept: int, serve: Serve, openai_like: Make) -> None:
    server = serve(script=lambda r: Behaviour(text=answer))
    dataset = generate(make_nodes(1), openai_like(server), kinds={"claim": 1.0, "question": 1.0})
    assert len(dataset.queries) == kept


def test_a_layperson_asks_without_the_terms(serve: Serve, openai_like: Make) -> None:
    server = serve(script=lambda r: Behaviour(text="Sure!\nHow much water fits in?\nIt holds 3 litres."))
    dataset = generate(make_nodes(1), openai_like(server), kinds={"layperson": 1.0})
    assert list(dataset.queries.values()) == ["How much water fits in?"]  # a statement beside a question answers it
    assert "everyday words, none of the passage's terms" in server.requests[0].prompt


# --- comparisons ------------------------------------------------------------------------------------------------------


def chunks(n: int, document: str = "report.txt") -> list[TextNode]:
    nodes = make_nodes(n, document.partition(".")[0])
    for node in nodes:
        node.metadata["file_path"] = document
        node.excluded_embed_metadata_keys.append("file_path")
    return nodes


def passages_of(request: Request) -> list[str]:
    return re.findall(r"<passage>\n(.*?)\n</passage>", request.prompt, re.DOTALL)


def test_a_comparison_is_asked_about_two_chunks_and_both_are_relevant(serve: Serve, openai_like: Make) -> None:
    server = serve(queries=1)
    nodes = chunks(4)
    dataset = generate(nodes, openai_like(server), kinds={"comparison": 1.0}, num_questions_per_chunk=1)
    shown = [frozenset(passages_of(request)) for request in server.requests]
    assert [len(texts) for texts in shown] == [2] * 4
    texts = {node.node_id: node.text for node in nodes}
    relevant = [frozenset(texts[doc] for doc in docs) for docs in dataset.relevant_docs.values()]
    assert sorted(map(sorted, relevant)) == sorted(map(sorted, shown))
    assert (dataset.report.covered, dataset.report.alone, dataset.report.short) == (4, 0, 0)


def test_the_other_chunk_is_of_the_same_document(serve: Serve, openai_like: Make) -> None:
    server = serve(queries=1)
    nodes = [node for pair in zip(chunks(5, "a.txt"), chunks(5, "b.txt"), strict=True) for node in pair]
    generate(nodes, openai_like(server), kinds={"comparison": 1.0}, num_questions_per_chunk=1)
    assert server.count == 10
    for request in server.requests:
        first, second = passages_of(request)
        assert first != second
        assert ("of a stands" in first) == ("of a stands" in second)


def test_a_chunk_alone_gets_a_question_and_the_report_says_so(serve: Serve, openai_like: Make) -> None:
    server = serve(queries=1)
    twice = [TextNode(id_=f"twin-{n}", text="The harbour is old.", metadata={"file_path": "c"}) for n in range(2)]
    nodes = [*make_nodes(2), *twice]  # the last two say the same: nothing to compare
    dataset = generate(nodes, openai_like(server), kinds={"comparison": 1.0}, num_questions_per_chunk=1)
    assert all("1. a question in one sentence" in request.prompt for request in server.requests)
    assert all(len(passages_of(request)) == 1 for request in server.requests)
    assert dataset.report.alone == 4
    assert "4 chunks asked questions in place of comparisons" in str(dataset.report)


def test_other_kinds_are_asked_beside_comparisons_and_a_second_run_asks_nothing(
    serve: Serve, openai_like: Make, tmp_path: Path
) -> None:
    server = serve(queries=1)
    options = {
        "kinds": {"question": 1.0, "comparison": 1.0},
        "output_path": tmp_path / "t.json",
        "journal_path": tmp_path / "j.sqlite",
    }
    estimate = estimate_qa_embedding_pairs(chunks(6), openai_like(server), **settings_of(options))
    dataset = generate(chunks(6), openai_like(server), **options)
    assert estimate.calls == server.count == 12
    assert sorted(len(passages_of(request)) for request in server.requests) == [1] * 6 + [2] * 6
    assert sorted(len(docs) for docs in dataset.relevant_docs.values()) == [1] * 6 + [2] * 6
    assert generate(chunks(6), openai_like(server), **options) == dataset
    assert server.count == 12
    # A chunk at the end of the document changes no prompt of those far from it.
    generate(chunks(20), openai_like(server), **options)
    before = server.count
    generate(chunks(21), openai_like(server), **options)
    assert server.count - before <= 2 + 8


def test_a_journal_without_comparisons_serves_the_chunks_that_get_none(
    serve: Serve, openai_like: Make, tmp_path: Path
) -> None:
    server, journal = serve(), tmp_path / "j.sqlite"
    generate(chunks(12), openai_like(server), journal_path=journal)
    report = GenerationReport()
    kinds = {"question": 1.0, "comparison": 0.1}
    generate(chunks(12), openai_like(server), journal_path=journal, kinds=kinds, report=report)
    assert report.from_journal >= 6


def test_two_long_chunks_are_both_cut_to_the_context_window(
    serve: Serve, openai_like: Make, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(queries=1)
    nodes = [
        TextNode(id_=f"n{n}", text=f"number{n} " + f"{word} " * 3000, metadata={"file_path": "d"})
        for n, word in enumerate(["harbour", "orchard"])
    ]
    dataset = generate(
        nodes, openai_like(server, context_window=1500), kinds={"comparison": 1.0}, num_questions_per_chunk=1
    )
    assert dataset.report.cut == 2
    for request in server.requests:
        assert all(100 < len(text.split()) < 1000 for text in passages_of(request))
        assert count_tokens(request.prompt) < 1500
    assert "was cut to" in caplog.text


def test_the_judge_reads_both_chunks(serve: Serve, openai_like: Make) -> None:
    server = serve(queries=1, script=lambda r: Behaviour(text="5") if "\n5 - " in r.prompt else None)
    nodes = chunks(3)
    options = {"kinds": {"comparison": 1.0}, "num_questions_per_chunk": 1, "filters": [Judge(4)]}
    dataset = generate(nodes, openai_like(server), **options)
    assert len(dataset.queries) == 3
    judged = [request.prompt for request in server.requests if "\n5 - " in request.prompt]
    assert len(judged) == 3
    assert all(sum(node.text in prompt for node in nodes) == 2 for prompt in judged)


def test_a_comparison_that_fails_is_named_by_both_chunks(serve: Serve, openai_like: Make) -> None:
    server = serve(queries=1, script=lambda r: Behaviour(400, error="no") if len(passages_of(r)) == 2 else None)
    report = GenerationReport()
    generate(chunks(3), openai_like(server), kinds={"question": 1.0, "comparison": 1.0}, report=report)
    assert len(report.failed) == 3
    assert all(" + " in label for label in report.failed)
    assert "3 queries from 3 of 3 chunks" in str(report)


# --- the language of the users ----------------------------------------------------------------------------------------

GERMAN = "Wie viele Liter fasst der Hafen und wer hat ihn gebaut?"


def test_questions_in_german_about_english_passages(serve: Serve, openai_like: Make) -> None:
    server = serve(script=lambda r: Behaviour(text=f"{GERMAN}\nWho is the owner of the town and what does it do?"))
    dataset = generate(make_nodes(1), openai_like(server), query_language="de", filters=None)
    assert list(dataset.queries.values()) == [GERMAN]
    assert dict(dataset.report.dropped) == {"wrong language": 1}
    assert "Write in German, whatever the language of the passage." in server.requests[0].prompt
    assert "in the language of the passage" not in server.requests[0].prompt
    english = generate(make_nodes(1), openai_like(server), filters=None)  # asked for anew: another prompt
    assert server.count == 2
    assert GERMAN not in english.queries.values()


@pytest.mark.parametrize("texts", [(ENGLISH,), (CHINESE,), (ENGLISH, f"{ENGLISH} 2"), (CHINESE, f"{CHINESE}。")])
@pytest.mark.parametrize(("code", "names"), [("ru", ("Russian", "俄语")), ("zh", ("Chinese", "中文"))])
def test_every_prompt_names_the_language(texts: tuple[str, ...], code: str, names: tuple[str, str]) -> None:
    body = PromptStyle(None, 2, QuestionSettings(query_language=code)).prompt_for(*texts).body
    assert names[texts[0] == CHINESE] in body
    assert "与原文相同的语言" not in body
    assert "in the language of" not in body


def test_languages_of_one_script_are_told_by_the_script(serve: Serve, openai_like: Make) -> None:
    server = serve(script=lambda r: Behaviour(text="Сколько литров вмещает гавань?\nHow old is the town in the hills?"))
    dataset = generate(make_nodes(1), openai_like(server), query_language="ru", filters=None)
    assert list(dataset.queries.values()) == ["Сколько литров вмещает гавань?"]


@pytest.mark.parametrize(
    ("template", "options", "sentence"),
    [
        (None, {"query_language": "German"}, "`query_language` is 'German'; it must be one of 'ar',"),
        ("{context_str}", {"query_language": "de"}, "of your own decides what is asked"),
    ],
)
def test_senseless_languages_are_refused(template: str | None, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        PromptStyle(template, 2, QuestionSettings(**options))
