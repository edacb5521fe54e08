"""Local LLM servers: base models without chat, small context windows, servers that take their time."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest_generation import generate_flat, make_nodes, settings_of
from llama_index.core.schema import TextNode
from loopback_llm import Behaviour, LoopbackLLM, Request
from test_generate_command import docs, embft  # noqa: F401 - `docs` is a fixture

from llama_index_embft.calls import check_llm, make_llm
from llama_index_embft.calls.tokens import count_tokens
from llama_index_embft.errors import ConfigError, GenerationError
from llama_index_embft.generation import (
    GenerationReport,
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


# --- base models ------------------------------------------------------------------------------------------------------


def base_model(request: Request) -> Behaviour:
    """Goes on where the prompt ends, and then with the next passage, as base models do."""
    name = request.prompt.rpartition("number")[2].split()[0]
    return Behaviour(text=f" How old is {name}?\n2. {name} litres\n\nPassage: More.\nQueries:\n1. What is more?")


def test_a_base_model_continues_solved_examples(serve: Serve) -> None:
    server = serve(script=base_model)
    llm = make_llm("openai-like", "base", api_base=server.api_base, chat=False)
    kinds = {"question": 1.0, "keyword": 1.0}
    dataset = generate(make_nodes(3), llm, kinds=kinds, few_shot=True, example_queries=["valve age"])
    assert len(dataset.queries) == 6
    assert not any("more" in query for query in dataset.queries.values())
    sent = server.requests[0]
    assert sent.path.endswith("/v1/completions")
    assert (sent.body["max_tokens"], sent.body["stop"]) == (256, ["\nPassage:", "\n段落："])
    assert sent.prompt.endswith("Queries:\n1.")
    assert sent.prompt.count("\n2. ") == 2  # both solved examples show both kinds
    assert "- valve age" in sent.prompt
    assert "Write" not in sent.prompt


def test_answers_come_in_pairs(serve: Serve) -> None:
    text = " How old is the harbour?\nA: 120 years\nQ: Who owns it?\nA: the town\n\nPassage: x"
    server = serve(script=lambda r: Behaviour(text=text))
    llm = make_llm("openai-like", "base", api_base=server.api_base, chat=False)
    dataset = generate(make_nodes(1), llm, few_shot=True, with_answers=True)
    assert list(dataset.reference_answers.values()) == ["120 years", "the town"]
    assert server.requests[0].prompt.endswith("Queries:\nQ:")


def test_what_is_copied_from_the_examples_is_no_query(serve: Serve) -> None:
    copied = "How early must parental leave be requested at Nordwind AG?"
    server = serve(script=lambda r: Behaviour(text=f" {copied}\n2. Is it old?"))
    llm = make_llm("openai-like", "base", api_base=server.api_base, chat=False)
    assert list(generate(make_nodes(1), llm, few_shot=True).queries.values()) == ["Is it old?"]


def test_a_chat_model_that_writes_the_number_itself_is_read_alike(serve: Serve, openai_like: Make) -> None:
    server = serve(script=lambda r: Behaviour(text="<think>1. hm</think>\n1. Is it old?\n2. How big is it?"))
    dataset = generate(make_nodes(1), openai_like(server), few_shot=True)
    assert list(dataset.queries.values()) == ["Is it old?", "How big is it?"]


@pytest.mark.parametrize("passage", [ENGLISH, CHINESE])
def test_examples_are_in_the_language_of_the_passage_and_never_twice_the_same(passage: str) -> None:
    style = PromptStyle(None, 5, QuestionSettings(few_shot=True))
    prompt = style.prompt_for(passage)
    queries = [line for line in prompt.body.splitlines() if line[:2] in ("1.", "2.", "3.")]
    assert len(queries) == len(set(queries)) == 7  # three for each example, and the one to be written
    assert ("段落：" in prompt.body) == (passage == CHINESE)
    assert passage in prompt.body
    assert passage not in prompt.without_passage


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"personas": ["a nurse"]}, "takes no `personas`, no `query_language` and no comparisons"),
        ({"query_language": "de"}, "takes no `personas`, no `query_language` and no comparisons"),
        ({"kinds": {"comparison": 1}}, "takes no `personas`, no `query_language` and no comparisons"),
        ({"template": "{context_str}"}, "of your own decides what is asked; leave out .* `few_shot`"),
    ],
)
def test_what_a_base_model_cannot_do_is_refused(options: dict[str, Any], sentence: str) -> None:
    template = options.pop("template", None)
    with pytest.raises(ConfigError, match=sentence):
        PromptStyle(template, 2, QuestionSettings(few_shot=True, **options))


def test_a_base_model_from_the_command_line(docs: Path, serve: Serve, tmp_path: Path) -> None:  # noqa: F811
    server, out = serve(script=base_model), tmp_path / "t.json"
    command = [docs, "--llm-model", "m", "--api-base", server.api_base, "--out", out, "--no-progress", "--no-chat"]
    embft(*command, "--no-filters", "--timeout", 5)
    assert len(json.loads(out.read_text())["queries"]) == 6  # the keywords are no question
    assert all(request.path.endswith("/v1/completions") for request in server.requests)
    with pytest.raises(ConfigError, match="--judge has no meaning together with --no-chat"):
        embft(*command, "--judge", 4)


@pytest.mark.parametrize(
    ("client", "options", "sentence"),
    [
        ("openai", {"chat": False}, "The client openai is for models that chat; take openai-like"),
        ("openai-like", {"chat": False, "tools": True}, "A model without chat has no tool calls"),
        ("openai-like", {"timeout": 0}, "`timeout` is 0; it must be above 0"),
        ("google-genai", {"timeout": 9}, "google-genai does not take a timeout"),
    ],
)
def test_senseless_clients_are_refused(client: str, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        make_llm(client, "m", api_base=None if client == "google-genai" else "http://127.0.0.1:9/v1", **options)


# --- small context windows --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("few_shot", [False, True])
def test_chunk_prompt_and_answer_fit_into_a_small_window(few_shot: bool, serve: Serve, openai_like: Make) -> None:
    server = serve(queries=1, script=base_model if few_shot else None)
    nodes = [TextNode(id_="a", text="number " + "harbour valve unbelievably " * 400)]
    dataset = generate(nodes, openai_like(server, context_window=768), few_shot=few_shot)
    assert dataset.report.cut == 1
    prompt = server.requests[0].prompt
    # A tokenizer that needs a third more tokens than ours still has room for the answer.
    assert 200 < count_tokens(prompt) * 4 / 3 < 768 - 60


def test_a_window_without_room_is_one_sentence(serve: Serve, openai_like: Make) -> None:
    server, nodes = serve(), [TextNode(id_=f"n{n}", text="harbour valve " * 400) for n in range(25)]
    llm = openai_like(server, context_window=300)
    sentence = r"context window of 300 tokens has no room for a passage beside the prompt \(about \d+\) and the answer"
    with pytest.raises(GenerationError, match=sentence) as caught:
        generate(nodes, llm)
    assert "\n" not in str(caught.value)
    with pytest.raises(GenerationError, match=sentence):
        estimate_qa_embedding_pairs(nodes, llm, **settings_of({"output_path": None}))
    assert server.count == 0


def test_a_server_that_reads_less_than_it_should_is_found_before_the_work(serve: Serve) -> None:
    server = serve(models={"m"}, max_model_len=2048)
    with pytest.raises(GenerationError, match="reads 2048 tokens, and the LLM's context window is set to 8192; set it"):
        check_llm(make_llm("openai-like", "m", api_base=server.api_base))
    check_llm(make_llm("openai-like", "m", api_base=server.api_base, context_window=2048))


def test_what_llama_cpp_says_of_a_prompt_too_long(serve: Serve, openai_like: Make) -> None:
    said = "the request exceeds the available context size, try increasing it"
    server = serve(script=lambda r: Behaviour(400, error=said) if "node-0" in r.prompt or "aaa" in r.prompt else None)
    report = GenerationReport()
    generate(make_nodes(3), openai_like(server), report=report)
    assert "too long for the model: set the LLM's `context_window` to what its server has" in report.failed["node-0"]
    assert report.retries == 0


# --- slow servers -----------------------------------------------------------------------------------------------------


def test_local_clients_have_half_an_hour() -> None:
    assert make_llm("openai-like", "m", api_base="http://h/v1").timeout == 1800  # type: ignore[attr-defined]
    assert make_llm("openai-like", "m", api_base="http://h/v1", timeout=7).timeout == 7  # type: ignore[attr-defined]


def test_a_slow_server_is_waited_for_as_long_as_the_timeout_says(serve: Serve) -> None:
    server = serve(latency=5.5)  # longer than the HTTP library would wait by itself
    assert generate(make_nodes(1), make_llm("openai-like", "m", api_base=server.api_base)).queries
    impatient = make_llm("openai-like", "m", api_base=server.api_base, timeout=0.3)
    with pytest.raises(GenerationError, match=r"has not answered in time .*; give it a longer timeout"):
        generate(make_nodes(1), impatient, retry_limit=1, kinds={"title": 1.0})


def test_ollama_gets_window_and_timeout_under_its_own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client is not installed here; what counts is the names of the arguments of llama-index-llms-ollama."""
    module = types.ModuleType("llama_index.llms.ollama")
    module.Ollama = lambda **options: options  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "llama_index.llms.ollama", module)
    made = make_llm("ollama", "qwen3", context_window=4096)
    assert made == {"model": "qwen3", "context_window": 4096, "request_timeout": 1800.0}
