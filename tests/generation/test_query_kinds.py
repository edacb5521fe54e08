"""Kinds of queries from prompt to data set, with the real client over HTTP."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from conftest_generation import generate_flat, make_nodes
from loopback_llm import Behaviour, LoopbackLLM

from llama_index_embft.generation import PromptStyle, QuestionSettings

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
