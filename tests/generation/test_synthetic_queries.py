"""Questions for documents under the names of the stock package, through a real client and a loopback server."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from typing import Any

import pytest
from llama_index.core import Document, Settings
from loopback_llm import Behaviour, LoopbackLLM

from llama_index_embft import generate_synthetic_queries_over_documents as generate
from llama_index_embft.calls import CallSettings
from llama_index_embft.calls.failures import UnusableAnswerError
from llama_index_embft.errors import ConfigError, GenerationError
from llama_index_embft.generation import agenerate_synthetic_queries_over_documents
from llama_index_embft.generation.reranking.queries import read_questions

TEXTS = [f"The {name} of the town was built in {1900 + n}." for n, name in enumerate(["harbour", "valve", "orchard"])]
DOCUMENTS = [Document(text=text) for text in TEXTS]


def asks(*questions: str) -> Callable[..., Behaviour]:
    return lambda request: Behaviour(text="\n".join(questions))


def test_each_chunk_is_asked_once_and_kept_in_the_journal(
    serve: Callable[..., LoopbackLLM], openai_like: Callable[..., Any]
) -> None:
    server = serve(queries=3)
    found = generate(DOCUMENTS, 2, llm=openai_like(server), qa_topic="harbours", show_progress=False)
    assert isinstance(found, list)
    assert len(found) == len(set(found)) == 6
    assert all(question.endswith("?") for question in found)
    assert server.count == 3
    assert [m["role"] for m in server.requests[0].body["messages"]] == ["system", "user"]
    assert "You know harbours well" in server.requests[0].body["messages"][0]["content"]
    assert found.report.kept == 6
    again = generate(DOCUMENTS, 2, llm=openai_like(server), qa_topic="harbours", show_progress=False)
    assert again == found
    assert server.count == 3
    generate(DOCUMENTS, 2, llm=openai_like(server), qa_topic="towns", show_progress=False)
    assert server.count == 6  # another prompt


def test_it_can_be_awaited(serve: Callable[..., LoopbackLLM], openai_like: Callable[..., Any]) -> None:
    llm = openai_like(serve(latency=0.05))
    found = asyncio.run(agenerate_synthetic_queries_over_documents(DOCUMENTS, 2, llm=llm, show_progress=False))
    assert len(found) == 6


def test_chunks_are_cut_by_tokens(serve: Callable[..., LoopbackLLM], openai_like: Callable[..., Any]) -> None:
    server = serve()
    text = " ".join(f"Word{n}" for n in range(400))
    generate([Document(text=text)], 1, max_chunk_length=200, llm=openai_like(server), show_progress=False)
    assert server.count >= 4
    shown = [r.prompt.split("<passage>\n")[1].split("\n</passage>")[0] for r in server.requests]
    assert sorted(" ".join(shown).split()) == sorted(text.split())


def test_prompts_of_ones_own_in_the_stock_form(
    serve: Callable[..., LoopbackLLM], openai_like: Callable[..., Any]
) -> None:
    server = serve(script=asks("When was it built?; Who built it? ;Where is it?"))
    found = generate(
        DOCUMENTS[:1],
        2,
        llm=openai_like(server),
        qa_topic="towns",
        qa_generate_system_msg="Ask {num_questions_per_chunk} about {qa_topic}, parted by semicolons.",
        qa_generate_user_msg="{num_questions_per_chunk} questions on {{this}}: {context}",
        show_progress=False,
    )
    assert found == ["When was it built?", "Who built it?"]
    assert [m["content"] for m in server.requests[0].body["messages"]] == [
        "Ask 2 about towns, parted by semicolons.",
        f"2 questions on {{this}}: {TEXTS[0]}",
    ]


def test_what_chunks_share_is_kept_once_and_what_is_missing_is_counted(
    serve: Callable[..., LoopbackLLM], openai_like: Callable[..., Any]
) -> None:
    server = serve(
        script=lambda r: Behaviour(text="When was it built?" if "valve" in r.prompt else "When was it built")
    )
    found = generate(DOCUMENTS, 2, llm=openai_like(server), show_progress=False)
    assert len(found) == 1
    assert (found.report.merged, found.report.short, found.report.generated) == (2, 3, 3)


def test_a_refusal_is_no_question(
    serve: Callable[..., LoopbackLLM], openai_like: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    script = lambda r: Behaviour(text="I'm sorry, but I can't help with that.") if "valve" in r.prompt else None  # noqa: E731
    server = serve(script=script)
    found = generate(DOCUMENTS, 2, llm=openai_like(server), show_progress=False)
    assert len(found) == 4
    assert list(found.report.failed) == ["chunk 2"]
    assert "the LLM refused" in found.report.failed["chunk 2"]
    with pytest.raises(GenerationError, match="chunk 2: the LLM refused"):
        generate(DOCUMENTS, 2, llm=openai_like(server), on_failure="fail", show_progress=False)
    with caplog.at_level(logging.WARNING):
        assert generate(DOCUMENTS[1:2], 2, llm=openai_like(server), show_progress=False) == []
    assert "no question for any of 1 documents: the LLM refused" in caplog.text


def test_no_text_gives_no_question(openai_like: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    llm = openai_like("http://127.0.0.1:9/v1")
    for documents in ([], [Document(text=""), Document(text=" \n")]):
        with caplog.at_level(logging.WARNING):
            assert generate(documents, llm=llm, show_progress=False) == []
        assert f"any of {len(documents)} documents: no document has text" in caplog.text


def test_the_llm_of_the_settings_is_taken_if_there_is_one(
    serve: Callable[..., LoopbackLLM], openai_like: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Settings, "_llm", None)
    with pytest.raises(ConfigError, match=r"`llm` is None, and `Settings.llm` is not set; pass `llm=`"):
        generate(DOCUMENTS, show_progress=False)
    monkeypatch.setattr(Settings, "_llm", openai_like(serve()))
    assert generate(DOCUMENTS, show_progress=False)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"num_questions_per_chunk": 0}, "`num_questions_per_chunk` is 0; it must be at least 1"),
        ({"max_chunk_length": 0}, "`max_chunk_length` is 0; it must be at least 1"),
        ({"qa_generate_user_msg": "Ask."}, r"`qa_generate_user_msg` must contain \{context\}"),
        ({"qa_generate_user_msg": "{context} {x}"}, r"unknown placeholder \{x\}; use \{context\} and"),
        ({"qa_generate_system_msg": "{context}"}, r"`qa_generate_system_msg` has the unknown placeholder \{context\}"),
        ({"qa_generate_system_msg": "{"}, "`qa_generate_system_msg` has unmatched braces"),
    ],
)
def test_bad_arguments_are_one_sentence(options: dict[str, Any], says: str, openai_like: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        generate(DOCUMENTS, llm=openai_like("http://127.0.0.1:9/v1"), **options)
    assert "\n" not in str(caught.value)


def test_metadata_that_leaves_no_room(openai_like: Callable[..., Any]) -> None:
    document = Document(text="x", metadata={"title": "long words " * 100})
    with pytest.raises(ConfigError, match=r"`max_chunk_length` is 50, and cutting failed: Metadata length"):
        generate([document], max_chunk_length=50, llm=openai_like("http://127.0.0.1:9/v1"))


def test_the_arguments_are_those_of_the_stock_package() -> None:
    stock = pytest.importorskip("llama_index.finetuning.cross_encoders.dataset_gen")
    theirs = inspect.signature(stock.generate_synthetic_queries_over_documents).parameters.values()
    ours = list(inspect.signature(generate).parameters.values())
    assert [p.name for p in theirs] == [p.name for p in ours if p.kind is not p.KEYWORD_ONLY]
    for old, new in zip(theirs, ours, strict=False):
        if not isinstance(old.default, str) or old.name == "qa_topic":
            assert old.default == new.default


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1. What is A?\n2. What is B?", ["What is A?", "What is B?"]),
        ("What is A?; What is B?;", ["What is A?", "What is B?"]),
        ("What is A? ; What is B?", ["What is A?", "What is B?"]),
        ("what is A; what is B; what is C", ["what is A", "what is B"]),
        ("Here are the questions:\n\n- What is A; and why?\n- What is B?", ["What is A; and why?", "What is B?"]),
        ("What is A?;\nWhat is B?", ["What is A?", "What is B?"]),
        ("<think>What is C?</think>What is A?;What is B?", ["What is A?", "What is B?"]),
        ("甲是什么？；乙是什么？", ["甲是什么？", "乙是什么？"]),
        ('["What is A?", "What is B?"]', ["What is A?", "What is B?"]),
    ],
)
def test_lists_lines_and_semicolons_are_read_alike(text: str, expected: list[str]) -> None:
    assert read_questions(text, 2) == expected


@pytest.mark.parametrize("text", ["", ";;;", "\n\n", "I cannot help with that.", "Sure!"])
def test_an_answer_without_a_question(text: str) -> None:
    with pytest.raises(UnusableAnswerError):
        read_questions(text, 2)


def test_limits_and_prices_hold(serve: Callable[..., LoopbackLLM], openai_like: Callable[..., Any]) -> None:
    server = serve(latency=0.05)
    documents = [Document(text=f"The town number {n} has a harbour.") for n in range(12)]
    calls = CallSettings(num_workers=3, prices=(1.0, 2.0))
    found = generate(documents, 1, llm=openai_like(server), calls=calls, show_progress=False)
    assert server.max_in_flight == 3
    assert found.report.cost is not None
    assert found.report.cost > 0


def test_a_chunk_longer_than_the_model_reads_is_cut_and_said(
    serve: Callable[..., LoopbackLLM], openai_like: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    server = serve()
    with caplog.at_level(logging.WARNING):
        found = generate(
            [Document(text="harbour " * 2000)], 1, llm=openai_like(server, context_window=600), show_progress=False
        )
    assert found.report.cut == 1
    assert "1 chunks were cut to the LLM's context window" in caplog.text
    assert len(server.requests[0].prompt) < 6000


def test_the_stock_function_gives_the_same_questions(
    serve: Callable[..., LoopbackLLM], openai_like: Callable[..., Any]
) -> None:
    stock = pytest.importorskip("llama_index.finetuning.cross_encoders.dataset_gen")
    server = serve(script=lambda r: Behaviour(text=f"What is {r.prompt.split()[-1]}?;Who saw {r.prompt.split()[-1]}?"))
    options = {
        "num_questions_per_chunk": 2,
        "max_chunk_length": 20,
        "llm": openai_like(server),
        "qa_generate_system_msg": stock.DEFAULT_QUERY_GEN_SYSTEM_PROMPT,
        "qa_generate_user_msg": stock.DEFAULT_QUERY_GEN_USER_PROMPT,
    }
    documents = [Document(text=" ".join(f"{word}{n}" for n in range(40))) for word in ("quay", "lamp")]
    old = stock.generate_synthetic_queries_over_documents(documents, **options)
    first = {request.prompt for request in server.requests}
    assert generate(documents, **options, show_progress=False) == old
    assert {request.prompt for request in server.requests[len(first) :]} == first  # the same messages
