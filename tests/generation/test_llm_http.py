"""The real clients against a real server that misbehaves in every scripted way."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest_generation import KEY, generate_flat, make_nodes, settings_of
from llama_index.core.schema import TextNode
from loopback_llm import Behaviour, LoopbackLLM, Request

from llama_index_embft.calls import CallSettings
from llama_index_embft.errors import GenerationError
from llama_index_embft.generation import (
    GenerationReport,
    agenerate_qa_embedding_pairs,
    estimate_qa_embedding_pairs,
    generate_qa_embedding_pairs,
)

Serve = Callable[..., LoopbackLLM]
Make = Callable[..., Any]


def generate(nodes: list[TextNode], llm: Any, folder: Path, **options: Any) -> Any:
    settings = {"output_path": folder / "train.json", "verbose": False, "num_workers": 4, "filters": [], **options}
    return generate_flat(nodes, llm, **settings)


def once(*behaviours: Behaviour | None) -> Callable[[Request], Behaviour | None]:
    """The first requests get these, later ones proper answers."""
    queue = iter(behaviours)
    return lambda request: next(queue, None)


def test_the_old_call_gives_the_old_kind_of_data_set(
    serve: Serve, openai_like: Make, nodes: list[TextNode], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    llm = openai_like(serve())
    line = "-" * 21
    template = f"Context:\n{line}\n{{context_str}}\n{line}\nWrite {{num_questions_per_chunk}} questions."
    dataset = generate_qa_embedding_pairs(nodes, llm, template, 2, 3, "continue", 500, "train.json", False)
    assert set(dataset.corpus) == {node.node_id for node in nodes}
    assert len(dataset.queries) == 24
    assert all(len(docs) == 1 for docs in dataset.relevant_docs.values())
    saved = json.loads(Path("train.json").read_text())
    assert saved["queries"] == dataset.queries


@pytest.mark.parametrize("client", ["openai_like", "openai"])
@pytest.mark.parametrize("structured", ["tools", "llm", "text"])
def test_both_clients_in_every_form_of_answer(
    client: str, structured: str, serve: Serve, nodes: list[TextNode], tmp_path: Path
) -> None:
    server = serve()
    if client == "openai":
        from llama_index.llms.openai import OpenAI

        llm: Any = OpenAI(model="gpt-4o-mini", api_base=server.api_base, api_key=KEY)
    else:
        from llama_index.llms.openai_like import OpenAILike

        llm = OpenAILike(
            model="m",
            api_base=server.api_base,
            api_key=KEY,
            is_chat_model=True,
            context_window=8000,
            is_function_calling_model=structured == "tools",
            should_use_structured_outputs=True,
        )
    dataset = generate(nodes, llm, tmp_path, structured=structured, with_answers=True)
    assert len(dataset.queries) == 24
    sent = server.requests[0].body
    assert ("tools" in sent) == (structured == "tools" or (structured == "llm" and "tools" in sent))
    assert "response_format" not in sent or structured == "llm"
    assert all(dataset.reference_answers[query].startswith("the answer to") for query in dataset.queries)


def test_a_completion_model_works_too(serve: Serve, openai_like: Make, nodes: list[TextNode], tmp_path: Path) -> None:
    server = serve()
    dataset = generate(nodes, openai_like(server, is_chat_model=False, max_tokens=200), tmp_path)
    assert len(dataset.queries) == 24
    assert server.requests[0].path.endswith("/v1/completions")


def test_auto_falls_back_to_text_where_tools_are_refused(
    serve: Serve, openai_like: Make, nodes: list[TextNode], tmp_path: Path
) -> None:
    server = serve(refuse_tools=True)
    dataset = generate(nodes, openai_like(server, is_function_calling_model=True), tmp_path)
    assert len(dataset.queries) == 24
    assert server.count == len(nodes) + 1  # one refusal for the whole run


def test_workers_are_in_flight_together_and_no_more(serve: Serve, openai_like: Make, tmp_path: Path) -> None:
    server = serve(latency=0.1)
    report = GenerationReport()
    generate(make_nodes(40), openai_like(server), tmp_path, num_workers=8, report=report)
    assert server.max_in_flight == 8
    assert (report.answered, report.requests, report.retries) == (40, 40, 0)


def test_a_running_event_loop_is_no_obstacle(
    serve: Serve, openai_like: Make, nodes: list[TextNode], tmp_path: Path
) -> None:
    llm = openai_like(serve())

    async def notebook_cell() -> Any:
        return generate(nodes, llm, tmp_path)

    assert asyncio.run(notebook_cell()) == generate(nodes, llm, tmp_path / "again")


def test_one_client_serves_many_calls(serve: Serve, openai_like: Make, tmp_path: Path) -> None:
    llm = openai_like(serve())
    for n in range(3):
        assert len(generate(make_nodes(6, f"set{n}"), llm, tmp_path / str(n)).queries) == 12


def test_the_async_function_runs_in_the_callers_loop(
    serve: Serve, openai_like: Make, nodes: list[TextNode], tmp_path: Path
) -> None:
    llm = openai_like(serve())
    options: Any = {"output_path": None, "verbose": False, "filters": []}
    dataset = asyncio.run(agenerate_qa_embedding_pairs(nodes, llm, **settings_of(options)))
    assert dataset == generate(nodes, llm, tmp_path)


def test_a_client_that_was_used_in_a_loop_that_is_gone(
    serve: Serve, openai_like: Make, nodes: list[TextNode], tmp_path: Path
) -> None:
    server = serve()
    llm, report = openai_like(server), GenerationReport()
    asyncio.run(llm.acomplete("hello"))
    generate(nodes, llm, tmp_path, report=report)
    assert (report.retries, report.failed, server.count) == (0, {}, 13)


def test_the_users_client_is_left_as_it_is(
    serve: Serve, openai_like: Make, nodes: list[TextNode], tmp_path: Path
) -> None:
    llm = openai_like(serve(), max_retries=7)
    llm.complete("hello")
    before = llm._client
    generate(nodes, llm, tmp_path)
    assert (llm.max_retries, llm._client.max_retries) == (7, 7)
    assert llm._client is before


# --- failures that pass -----------------------------------------------------------------------------------------------

TROUBLE = {
    "429": Behaviour(429),
    "429 with Retry-After": Behaviour(429, headers={"retry-after": "0.05"}),
    "429 with retry-after-ms": Behaviour(429, headers={"retry-after-ms": "50"}),
    "500": Behaviour(500),
    "502": Behaviour(502, body=b"<html>Bad gateway</html>"),
    "503 with Retry-After": Behaviour(503, headers={"retry-after": "0.05"}),
    "dropped": Behaviour(drop="at once"),
    "dropped in the middle": Behaviour(drop="in the middle"),
    "broken JSON": Behaviour(body=b'{"choices": [{"mess'),
    "JSON of something else": Behaviour(body=b'{"hello": 1}'),
    "empty body": Behaviour(body=b""),
    "refusal": Behaviour(text="I'm sorry, but I can't help with that."),
    "empty answer": Behaviour(text=""),
}


@pytest.mark.parametrize("trouble", TROUBLE)
@pytest.mark.parametrize(("client", "at"), [("openai_like", "first"), ("openai_like", "third"), ("openai", "third")])
def test_trouble_that_passes_leaves_no_trace(
    trouble: str,
    client: str,
    at: str,
    serve: Serve,
    openai_like: Make,
    openai: Make,
    nodes: list[TextNode],
    tmp_path: Path,
) -> None:
    make = openai if client == "openai" else openai_like
    some = nodes[:6]
    expected = generate(some, make(serve()), tmp_path / "calm", structured="text")
    server = serve(script=once(*[None] * (2 if at == "third" else 0), TROUBLE[trouble], TROUBLE[trouble]))
    report = GenerationReport()
    assert generate(some, make(server), tmp_path / "storm", structured="text", report=report) == expected
    assert report.failed == {}
    assert report.retries == 2
    # The client's own retries are off: every request is one that we know of.
    assert server.count == report.requests == len(some) + 2


def test_slow_bodies_are_waited_for(serve: Serve, openai_like: Make, nodes: list[TextNode], tmp_path: Path) -> None:
    server = serve(script=lambda request: Behaviour(drip=0.005))
    assert len(generate(nodes, openai_like(server), tmp_path).queries) == 24


def test_a_body_slower_than_the_clients_timeout_is_tried_again(
    serve: Serve, openai_like: Make, nodes: list[TextNode], tmp_path: Path
) -> None:
    server = serve(script=once(Behaviour(latency=5.0)))
    report = GenerationReport()
    started = time.monotonic()
    generate(nodes, openai_like(server, timeout=1.5), tmp_path, report=report)
    assert (report.retries, report.failed) == (1, {})
    assert time.monotonic() - started < 4.5


def test_retry_after_is_honoured_by_all_workers(serve: Serve, openai_like: Make, tmp_path: Path) -> None:
    limited: list[float] = []

    def script(request: Request) -> Behaviour | None:
        if request.number == 5:
            limited.append(time.monotonic())
            return Behaviour(429, headers={"retry-after": "0.6"})
        return None

    server = serve(latency=0.02, script=script)
    generate(make_nodes(60), openai_like(server), tmp_path, num_workers=4)
    # The answer takes 20 ms to leave and some more to be read; other calls may go out until then.
    in_pause = [when for when in server.times if limited[0] + 0.35 < when < limited[0] + 0.6]
    assert in_pause == []


def test_retry_after_may_be_a_date(serve: Serve, openai_like: Make, nodes: list[TextNode], tmp_path: Path) -> None:
    date = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=2), usegmt=True)
    server = serve(script=once(Behaviour(429, headers={"retry-after": date})))
    started = time.time()
    generate(nodes[:1], openai_like(server), tmp_path)
    assert 0.5 < time.time() - started < 4  # the date has whole seconds


def test_waiting_for_a_rate_limit_uses_up_no_attempt(
    serve: Serve, openai_like: Make, nodes: list[TextNode], tmp_path: Path
) -> None:
    server = serve(script=once(*[Behaviour(429)] * 8))
    report = GenerationReport()
    generate(nodes[:2], openai_like(server), tmp_path, retry_limit=2, report=report)
    assert (report.failed, report.retries) == ({}, 8)


def test_attempts_are_what_retry_limit_says(
    serve: Serve, openai_like: Make, nodes: list[TextNode], tmp_path: Path
) -> None:
    broken = "orchard"
    server = serve(script=lambda request: Behaviour(500) if broken in request.prompt else None)
    report = GenerationReport()
    generate(nodes, openai_like(server, max_retries=10), tmp_path, retry_limit=4, report=report)
    per_prompt = [sum(1 for r in server.requests if node.text in r.prompt) for node in nodes]
    assert per_prompt == [4 if broken in node.text else 1 for node in nodes]
    assert report.failed.keys() == {node.node_id for node in nodes if broken in node.text}


def test_limits_hold_at_the_server(
    serve: Serve, openai_like: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llama_index_embft.calls import asking, limits

    period = 0.5
    monkeypatch.setattr(asking, "RateLimiter", lambda *counts: limits.RateLimiter(*counts, period=period, travel=0.5))
    # Every third call fails once: retries count too.
    failed: set[str] = set()

    def script(request: Request) -> Behaviour | None:
        if request.number % 3 == 0 and request.prompt not in failed:
            failed.add(request.prompt)
            return Behaviour(500)
        return None

    server = serve(script=script)
    report = GenerationReport()
    generate(
        make_nodes(40),
        openai_like(server),
        tmp_path,
        num_workers=8,
        requests_per_minute=20,
        tokens_per_minute=4000,
        report=report,
    )
    times = sorted(server.times)
    assert max(sum(1 for t in times if start <= t < start + period) for start in times) <= 20
    assert max(sum(n for t, n in server.tokens if start <= t < start + period) for start, _ in server.tokens) <= 4000
    assert report.retries == len(failed) > 0


# --- failures that do not pass ----------------------------------------------------------------------------------------


def test_a_hopeless_chunk_is_recorded_and_the_others_go_on(
    serve: Serve, openai_like: Make, nodes: list[TextNode], tmp_path: Path
) -> None:
    server = serve(script=lambda request: Behaviour(400, error="content filter") if "valve" in request.prompt else None)
    report = GenerationReport()
    dataset = generate(nodes, openai_like(server), tmp_path, report=report)
    hopeless = {node.node_id for node in nodes if "valve" in node.text}
    assert report.failed.keys() == hopeless
    assert all("content filter" in reason for reason in report.failed.values())
    assert server.count == len(nodes)  # a 400 is not tried again
    assert len(dataset.queries) == 2 * (len(nodes) - len(hopeless))
    assert set(dataset.corpus) == {node.node_id for node in nodes}
    assert f"{len(hopeless)} chunks failed" in str(report)
    # The next run asks for the failed ones only, and nothing is shifted by them.
    server.script = None
    again = generate(nodes, openai_like(server), tmp_path)
    assert server.count == len(nodes) + len(hopeless)
    assert dataset.queries.items() <= again.queries.items()
    assert len(again.queries) == 24


def test_on_failure_fail_stops_at_the_first(
    serve: Serve, openai_like: Make, nodes: list[TextNode], tmp_path: Path
) -> None:
    server = serve(script=lambda request: Behaviour(500, error="valve broke") if "valve" in request.prompt else None)
    with pytest.raises(GenerationError, match=r"HTTP 500.*valve broke.*on_failure='fail'.*run again to go on"):
        generate(nodes, openai_like(server), tmp_path, on_failure="fail", num_workers=1)
    server.script = None
    asked = server.count
    assert len(generate(nodes, openai_like(server), tmp_path).queries) == 24
    assert server.count < asked + len(nodes)


@pytest.mark.parametrize(
    ("options", "llm_options", "sentence"),
    [
        ({"key": "another-key"}, {}, "The LLM server refused the API key.*set the right key"),
        ({"models": {"other"}}, {}, "does not know this model or address.*'test-model'"),
        ({"script": lambda r: Behaviour(402, error="pay first")}, {}, "no credit left"),
        (
            {"script": lambda r: Behaviour(429, error="You exceeded your current quota: insufficient_quota")},
            {},
            "no credit",
        ),
        ({"script": lambda r: Behaviour(400, error="invalid model name")}, {}, "does not know this model"),
    ],
)
def test_a_hopeless_server_costs_one_call_and_one_sentence(
    options: Any,
    llm_options: Any,
    sentence: str,
    serve: Serve,
    openai_like: Make,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = serve(**options)
    with pytest.raises(GenerationError, match=sentence) as caught:
        generate(make_nodes(30), openai_like(server), tmp_path, num_workers=8)
    assert server.count == 1
    assert "\n" not in str(caught.value)
    assert KEY not in str(caught.value)


def test_a_model_that_the_client_does_not_know_costs_no_call(serve: Serve, openai: Make, tmp_path: Path) -> None:
    server = serve()
    with pytest.raises(GenerationError, match="'gpt-99-nothing' cannot be used: Unknown model") as caught:
        generate(make_nodes(3), openai(server, model="gpt-99-nothing"), tmp_path)
    assert server.count == 0
    assert "\n" not in str(caught.value)


def test_no_network_is_one_sentence_at_once(openai_like: Make, tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(
        GenerationError, match=r"No connection to the LLM server at http://127.0.0.1:9/v1.*Check the network"
    ):
        generate(make_nodes(30), openai_like("http://127.0.0.1:9/v1"), tmp_path)
    assert time.monotonic() - started < 5


def test_a_server_that_goes_away_stops_the_run_and_keeps_what_there_is(
    serve: Serve, openai_like: Make, tmp_path: Path
) -> None:
    many = make_nodes(200)
    server = serve(script=lambda request: Behaviour(drop="at once") if request.number >= 50 else None)
    with pytest.raises(GenerationError, match=r"failed one after another.*run again to go on"):
        generate(many, openai_like(server), tmp_path)
    assert server.count < 50 + 3 * 40
    server.script = None
    before = server.count
    assert len(generate(many, openai_like(server), tmp_path).queries) == 400
    assert server.count - before == 150


@pytest.mark.parametrize("text", ["I'm sorry, I cannot do that.", "", "Here are the questions:", "{}"])
def test_an_llm_that_says_nothing_usable_is_an_error(
    text: str, serve: Serve, openai_like: Make, nodes: list[TextNode], tmp_path: Path
) -> None:
    server = serve(script=lambda request: Behaviour(text=text))
    with pytest.raises(GenerationError, match="no usable query for any of 12 chunks"):
        generate(nodes, openai_like(server), tmp_path, retry_limit=1)
    assert not (tmp_path / "train.json").exists()
    many = make_nodes(500, "many")
    with pytest.raises(GenerationError, match="None of the first 20 requests"):
        generate(many, openai_like(server), tmp_path, retry_limit=1)
    assert server.count < 100


def test_broken_tool_arguments_are_tried_again(
    serve: Serve, openai_like: Make, nodes: list[TextNode], tmp_path: Path
) -> None:
    server = serve(script=once(Behaviour(tool_arguments="{]"), Behaviour(tool_arguments="[1, 2]")))
    report = GenerationReport()
    dataset = generate(nodes, openai_like(server, is_function_calling_model=True), tmp_path, report=report)
    assert (len(dataset.queries), report.retries) == (24, 2)


def test_a_megabyte_is_cut_to_the_context_window_with_a_warning(
    serve: Serve, openai_like: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = "The harbour of Lyft holds litres. " * 31_000
    server = serve()
    report = GenerationReport()
    with caplog.at_level(logging.WARNING):
        dataset = generate(
            [TextNode(id_="big", text=text), *make_nodes(2)], openai_like(server), tmp_path, report=report
        )
    assert "'big'" in caplog.text
    assert "was cut to" in caplog.text
    assert report.cut == 1
    longest = max(len(request.prompt) for request in server.requests)
    assert 8000 < longest < 8000 * 6
    assert dataset.corpus["big"] == text


def test_keys_are_written_nowhere(
    serve: Serve,
    openai_like: Make,
    nodes: list[TextNode],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    leak = f"bad request with key {KEY} and Bearer {KEY}"
    server = serve(script=lambda request: Behaviour(400, error=leak) if "valve" in request.prompt else None)
    report = GenerationReport()
    logger = logging.getLogger("llama_index_embft")
    with caplog.at_level(logging.DEBUG, logger=logger.name):
        generate(nodes, openai_like(server), tmp_path, report=report, verbose=True)
    written = "".join(path.read_bytes().decode("latin-1") for path in tmp_path.rglob("*") if path.is_file())
    shown = capfd.readouterr()
    for text in (written, caplog.text, str(report), repr(report), shown.out, shown.err):
        assert KEY not in text
    assert report.failed


# --- resuming ---------------------------------------------------------------------------------------------------------


def test_a_second_run_asks_nothing_and_writes_the_same_bytes(
    serve: Serve, openai_like: Make, nodes: list[TextNode], tmp_path: Path
) -> None:
    server = serve()
    generate(nodes, openai_like(server), tmp_path)
    first = (tmp_path / "train.json").read_bytes()
    generate(nodes, openai_like(server), tmp_path, num_workers=1)
    assert (tmp_path / "train.json").read_bytes() == first
    assert server.count == len(nodes)


def test_resuming_goes_by_content_not_by_position(
    serve: Serve, openai_like: Make, nodes: list[TextNode], tmp_path: Path
) -> None:
    server = serve()
    generate(nodes[4:8], openai_like(server), tmp_path)
    dataset = generate(list(reversed(nodes)), openai_like(server), tmp_path)
    assert server.count == len(nodes)
    by_node = {docs[0]: dataset.queries[query] for query, docs in dataset.relevant_docs.items()}
    for node in nodes:
        assert by_node[node.node_id] in generate([node], openai_like(server), tmp_path / node.node_id).queries.values()


@pytest.mark.parametrize(
    ("change", "llm_change", "said"),
    [
        ({"num_questions_per_chunk": 1}, {}, "another prompt"),
        ({"personas": ["a pilot"]}, {}, "another prompt"),
        ({"with_answers": True}, {}, "another prompt"),
        ({}, {"model": "other-model"}, "another model"),
        ({}, {"temperature": 0.9}, "another model or other settings"),
    ],
)
def test_a_change_asks_again_and_says_so(
    change: Any,
    llm_change: Any,
    said: str,
    serve: Serve,
    openai_like: Make,
    nodes: list[TextNode],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = serve(script=lambda request: Behaviour(text="Q: What is it?\nA: It.\nQ: How old is it?\nA: Old."))
    journal = tmp_path / "one.sqlite"  # by itself each model has a journal of its own
    generate(nodes, openai_like(server), tmp_path, journal_path=journal)
    caplog.clear()
    report = GenerationReport()
    generate(nodes, openai_like(server, **llm_change), tmp_path, report=report, journal_path=journal, **change)
    assert server.count == 2 * len(nodes)
    assert said in caplog.text
    assert sum(report.reasked.values()) == len(nodes)


def test_another_server_or_key_asks_nothing_again(
    serve: Serve, openai_like: Make, nodes: list[TextNode], tmp_path: Path
) -> None:
    journal = tmp_path / "journal.sqlite"
    generate(nodes, openai_like(serve()), tmp_path, journal_path=journal)
    other = serve()
    generate(nodes, openai_like(other, api_key="rotated-key-123456"), tmp_path, journal_path=journal)
    assert other.count == 0


def test_train_and_validation_with_one_output_path_do_not_mix(
    serve: Serve, openai_like: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    llm = openai_like(serve())
    train = generate(make_nodes(5, "train"), llm, tmp_path)
    val = generate(make_nodes(5, "val"), llm, tmp_path)
    assert not set(train.queries) & set(val.queries)
    assert set(json.loads((tmp_path / "train.json").read_text())["corpus"]) == {f"val-{n}" for n in range(5)}
    [aside] = tmp_path.glob("train.*.json")
    assert json.loads(aside.read_text())["queries"] == train.queries
    assert "Give every call its own `output_path`" in caplog.text


def test_progress_is_saved_every_so_often(serve: Serve, openai_like: Make, tmp_path: Path) -> None:
    seen: list[int] = []

    def script(request: Request) -> Behaviour | None:
        path = tmp_path / "train.json"
        seen.append(len(json.loads(path.read_text())["queries"]) if path.exists() else 0)
        return None

    generate(make_nodes(30), openai_like(serve(script=script)), tmp_path, save_every=10, num_workers=1)
    assert seen[9] == 0
    assert seen[10] == 20
    assert seen[29] == 40


def test_an_estimate_calls_nothing_and_counts_what_is_missing(
    serve: Serve, openai_like: Make, nodes: list[TextNode], tmp_path: Path
) -> None:
    server = serve()
    llm = openai_like(server)
    options: Any = {"output_path": tmp_path / "train.json"}
    limits = CallSettings(prices=(1.0, 2.0), requests_per_minute=6)
    estimate = estimate_qa_embedding_pairs(nodes, llm, calls=limits, **options)
    assert server.count == 0
    assert list(tmp_path.iterdir()) == []
    assert (estimate.chunks, estimate.calls, estimate.from_journal) == (12, 12, 0)
    assert estimate.seconds_at_least == 60
    assert estimate.cost == pytest.approx((estimate.prompt_tokens + 2 * estimate.completion_tokens) / 1e6)
    report = GenerationReport()
    generate(nodes[:5], llm, tmp_path, report=report)
    # The server counts words, our tokenizer word pieces: the estimate is of the right size.
    assert report.prompt_tokens / 5 < estimate.prompt_tokens / 12 < 2.5 * report.prompt_tokens / 5
    again = estimate_qa_embedding_pairs(nodes, llm, **options)
    assert (again.calls, again.from_journal) == (7, 5)


def test_the_progress_bar_shows_rate_tokens_and_cost(
    serve: Serve, openai_like: Make, nodes: list[TextNode], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    generate(nodes, openai_like(serve()), tmp_path, verbose=True, prices=(1.0, 1.0))
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "12/12" in shown.err
    assert "req/s" in shown.err
    assert "tokens, $0.00" in shown.err
    assert "24 queries from 12 of 12 chunks" in shown.err


def test_equal_chunks_are_asked_once_and_share_their_queries(serve: Serve, openai_like: Make, tmp_path: Path) -> None:
    twins = [
        TextNode(id_="a", text="The valve of the harbour opens at noon."),
        TextNode(id_="b", text="The valve of the harbour opens at noon."),
    ]
    server = serve(latency=0.05)
    report = GenerationReport()
    dataset = generate(twins, openai_like(server), tmp_path, report=report)
    assert server.count == 1
    assert all(docs == ["a", "b"] for docs in dataset.relevant_docs.values())
    assert report.merged == 2


def test_embedded_text_bare_text_and_source(serve: Serve, openai_like: Make, tmp_path: Path) -> None:
    from llama_index.core.schema import MetadataMode

    node = TextNode(id_="a", text="The valve opens at noon.", metadata={"title": "Harbour", "file_path": "h.pdf"})
    server = serve()
    dataset = generate([node], openai_like(server), tmp_path)
    assert dataset.corpus["a"] == node.get_content(MetadataMode.EMBED) != node.text
    assert dataset.bare_text("a") == node.text
    assert dataset.document_of("a") == "h.pdf"
    assert "title: Harbour" not in server.requests[0].prompt
    bare = generate([node], openai_like(server), tmp_path / "bare", metadata_mode=MetadataMode.NONE)
    assert bare.corpus["a"] == node.text


def test_ids_are_a_hash_of_node_and_question(
    serve: Serve, openai_like: Make, nodes: list[TextNode], tmp_path: Path
) -> None:
    first = generate(nodes, openai_like(serve()), tmp_path / "1")
    second = generate(nodes, openai_like(serve()), tmp_path / "2")
    assert list(first.queries.items()) == list(second.queries.items())
    renamed = [TextNode(id_=f"x{node.node_id}", text=node.text) for node in nodes]
    assert not set(generate(renamed, openai_like(serve()), tmp_path / "3").queries) & set(first.queries)


def test_two_calls_at_once_on_one_journal_agree(serve: Serve, openai_like: Make, tmp_path: Path) -> None:
    counter = itertools.count()
    server = serve(latency=0.01, script=lambda request: Behaviour(text=f"What is number {next(counter)}?\nWho is it?"))
    llm, many = openai_like(server), make_nodes(40)
    options: Any = {"output_path": None, "verbose": False, "filters": []}
    options["calls"] = CallSettings(journal_path=tmp_path / "j.sqlite")

    async def both() -> Any:
        one = agenerate_qa_embedding_pairs(many, llm, **options)
        other = agenerate_qa_embedding_pairs(many, llm, **options)
        return await asyncio.gather(one, other)

    first, second = asyncio.run(both())
    assert first == second


@pytest.mark.parametrize("client", ["openai_like", "openai"])
def test_connections_are_closed_at_the_end_of_a_run(
    client: str, serve: Serve, nodes: list[TextNode], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    server = serve()
    llm = request.getfixturevalue(client)(server)
    generate(nodes, llm, tmp_path)
    assert server.opened > 0
    deadline = time.monotonic() + 5
    while server.closed < server.opened and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.closed == server.opened


def test_the_users_own_http_client_stays_open(
    serve: Serve, openai_like: Make, nodes: list[TextNode], tmp_path: Path
) -> None:
    own = httpx.AsyncClient()
    llm = openai_like(serve(), async_http_client=own)
    for n in range(2):
        generate(nodes, llm, tmp_path / str(n))
    assert not own.is_closed


@pytest.mark.parametrize("client", ["openai_like", "openai"])
def test_a_proxy_of_the_environment_is_used(
    client: str,
    serve: Serve,
    nodes: list[TextNode],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    proxy = serve()  # answers whatever address it is asked for
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", proxy.api_base.removesuffix("/v1"))
    llm = request.getfixturevalue(client)(proxy)
    llm.api_base = "http://llm.invalid/v1"
    assert len(generate(nodes, llm, tmp_path).queries) == 24
    assert all(asked.path.startswith("http://llm.invalid/") for asked in proxy.requests)


def test_a_missing_key_is_told_by_the_first_call(
    openai: Make, serve: Serve, nodes: list[TextNode], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    llm = openai(serve(), api_key="")
    llm.api_key = None
    with pytest.raises(GenerationError, match=r"API key|api_key"):
        generate(nodes, llm, tmp_path)
