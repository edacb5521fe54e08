"""Faults of calls and generation that once passed unseen; each test is named after its line of the list."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
import sys
import threading
import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata
from llama_index.core.schema import TextNode

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "llm_server"))

from loopback_llm import Behaviour, LoopbackLLM

from llama_index_embft._core.checks import first_line
from llama_index_embft._core.redaction import Redactor, redact
from llama_index_embft.calls import CallSettings, asking
from llama_index_embft.calls.failures import UnusableAnswerError, classify
from llama_index_embft.calls.journal import Journal, RequestIdentity, StoredAnswer
from llama_index_embft.calls.server import RetryPolicy
from llama_index_embft.errors import GenerationError, ModelError, OutputError
from llama_index_embft.generation import (
    Judge,
    NearDuplicates,
    RefersToText,
    generate_extractive_pairs,
    generate_qa_embedding_pairs,
)
from llama_index_embft.generation.assemble import CandidateQuery
from llama_index_embft.generation.filters.judge import read_score
from llama_index_embft.generation.parse import is_refusal, parse_items
from llama_index_embft.generation.passages import Passage

KEY = "sk-canary-1234567890abcdefghijklmnopqrstuvwxyz"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(asking, "RetryPolicy", lambda limit=3: RetryPolicy(limit, 0.01, 0.05, 2.0))
    monkeypatch.setenv("EMBFT_CACHE_DIR", str(tmp_path / "cache"))


class Scripted(CustomLLM):
    """Answers by a function of the prompt and the number of the call."""

    answer: Any = None
    calls: int = 0

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name="scripted")

    def complete(self, prompt: str, formatted: bool = False, **_: Any) -> CompletionResponse:
        self.calls += 1
        return CompletionResponse(text=self.answer(prompt, self.calls))

    def stream_complete(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError


def chapters(count: int) -> list[TextNode]:
    return [TextNode(id_=str(n), text=f"Chapter {n}: renew the certificate number {n}.") for n in range(count)]


def generate(nodes: Any, llm: Any, **options: Any) -> Any:
    return generate_qa_embedding_pairs(nodes, llm, **{"output_path": None, "verbose": False, **options})


def dropped(filter_: Any, queries: list[str]) -> set[int]:
    passage = Passage("p", "x", "x", "s")
    items = [CandidateQuery(str(n), query, "", [passage]) for n, query in enumerate(queries)]
    return set(asyncio.run(filter_.drop(items, None)))


# --- A16 to A19: good queries are kept, bad ones are not --------------------------------------------------------------


def test_a16_queries_that_differ_in_a_word_are_no_near_duplicates() -> None:
    drugs = [f"What are the most common side effects of drug{n} in adult patients?" for n in range(100)]
    assert dropped(NearDuplicates(), drugs) == set()
    for one, other in (("Windows", "macOS"), ("maximum", "minimum"), ("with", "without")):
        pair = [f"How is the {word} limit of the client set for all users?" for word in (one, other)]
        assert dropped(NearDuplicates(), pair) == set()


@pytest.mark.parametrize(
    "query",
    [
        "How do I change the size of the text in a Tkinter label widget?",
        "When did the passage of the Affordable Care Act take place?",
        "How does git rebase handle the content of the merged branch in the context of a conflict?",
        "How can I align the text to the right in CSS?",
        "What does the text attribute of an XML element hold?",
        "How long is the passage through the Panama Canal?",
        "Who does the author of a pull request ask for a review at Mozilla?",
        "What does this document retention policy say about the article 5 records?",
        "英国文学史上文中子是谁？",
        "这段文字识别软件OCR的准确率是多少？",
        "维基百科的原文语言版本有哪些？",
        "以上海为起点的高铁有哪些？",
    ],
)
def test_a16_questions_that_stand_alone_do_not_refer_to_a_text(query: str) -> None:
    assert dropped(RefersToText(), [query]) == set()


@pytest.mark.parametrize(
    "query",
    [
        "Unable to connect to the VPN on Windows 11",
        "I can't find my invoice in the customer portal",
        "There is no sound from my USB headset",
        "I don't know my Acme account number",
        "Sorry about the late payment: which fee applies?",
        "Unfortunately my parcel was damaged, who pays?",
        "The document is too large to upload to SharePoint",
        "无法登录公司VPN怎么办？",
        "作为一名AI工程师如何申请GPU？",
        "如果您忘记密码怎么办",
        "E. coli O157:H7 incubation period",
        "C. difficile treatment options",
        "A. thaliana genome size",
    ],
)
def test_a17_the_wording_of_users_is_no_refusal_and_no_option(query: str) -> None:
    assert [item.query for item in parse_items({"queries": [query]}, limit=5)] == [query]
    lines = parse_items(f"{query}\nanother keyword query", limit=5, questions_only=False)
    assert [item.query for item in lines] == [query, "another keyword query"]


@pytest.mark.parametrize(
    "answer",
    [
        "I cannot do this.",
        "I can't do that.",
        "I cannot do this task.",
        "I can't do it here!",
    ],
)
def test_a17_a_refusal_of_a_few_words_is_still_one(answer: str) -> None:
    assert is_refusal(answer)
    assert parse_items(answer, limit=3) == []


@pytest.mark.parametrize(
    ("verdict", "grade"),
    [
        ("I see 2 flaws, yet it is perfect. Score: 5", 5),
        ("The query has 1 small flaw.\n\n4", 4),
        ("On a scale from 1 to 5 I give 4", 4),
        ("The 2021 revenue of 3 segments is named. 5", 5),
        ("Maybe 2, maybe 3?</think>4", 4),
        ("3.5", 3.5),
        ("3,5", 3.5),
        ("Score: 4.5/5", 4.5),
        ({"score": 3.5}, 3.5),
    ],
)
def test_a18_the_grade_is_read_and_not_any_number(verdict: Any, grade: float) -> None:
    assert read_score(verdict) == grade


@pytest.mark.parametrize(
    "verdict", ["I see 2 flaws", "Rating: 8/10, 2 flaws", "Well done.", "3-4", "Score: 3 to 4", "5.5"]
)
def test_a18_what_is_no_grade_is_no_grade(verdict: str) -> None:
    with pytest.raises(UnusableAnswerError):
        read_score(verdict)


def test_a18_queries_without_a_verdict_go_and_are_counted() -> None:
    def answer(prompt: str, call: int) -> str:
        if "<query>" not in prompt:
            return f"What does chapter {call} say about the renewal of certificates?"
        return "5" if "certificate number 1" in prompt else "A good pair, well done."

    dataset = generate(chapters(12), Scripted(answer=answer), retry_limit=1, filters=[Judge(4)])
    judged = [docs[0] for docs in dataset.relevant_docs.values()]
    assert set(judged) == {"1", "10", "11"}
    assert dataset.report.unjudged == dataset.report.dropped["judge"] == 9
    assert "9 queries without a readable verdict" in str(dataset.report)


@pytest.mark.parametrize(
    "answer",
    [
        "Okay, let me think. What would a user ask?\n</think>\n{0}\n{1}",
        "[THINK]Is it 1. What?[/THINK]{0}\n{1}",
        "Alternative Question 1: {0}\n\nAlternative Question 2: {1}",
        "質問1：{0}\n質問2：{1}",
        "Kysymys 1: {0}\nKysymys 2: {1}",
        "Variation 1) {0}\nVariation 2) {1}",
        "| # | Question |\n|---|---|\n| 1 | {0} |\n| 2 | {1} |",
    ],
)
def test_a19_reasoning_labels_and_tables_are_taken_off(answer: str) -> None:
    wanted = ["What is amber made of?", "Where does the river end?"]
    assert [item.query for item in parse_items(answer.format(*wanted), limit=5)] == wanted


# --- C: money ---------------------------------------------------------------------------------------------------------


def openai_like(server: LoopbackLLM, **options: Any) -> Any:
    from llama_index.llms.openai_like import OpenAILike

    settings = {"model": "m", "api_key": KEY, "is_chat_model": True, "context_window": 8000, **options}
    return OpenAILike(api_base=server.api_base, **settings)


def test_c4_another_output_asks_for_nothing_again(tmp_path: Path) -> None:
    with LoopbackLLM() as server:
        first = generate(chapters(6), openai_like(server), output_path=tmp_path / "a.json", filters=[])
        asked = server.count
        second = generate(chapters(6), openai_like(server), output_path=tmp_path / "b.json", filters=[])
        assert server.count == asked
    assert first == second
    assert second.report.from_journal == 6


def test_c4_a_run_stops_at_what_it_may_cost() -> None:
    with LoopbackLLM() as server:
        calls = CallSettings(prices=(1e6, 1e6), max_cost=1.0, num_workers=1)
        with pytest.raises(GenerationError, match=r"have been spent, and `max_cost` is 1.0; answers so far are stored"):
            generate(chapters(6), openai_like(server), calls=calls)
        assert server.count == 1


def test_c5_a_403_on_one_passage_leaves_the_others() -> None:
    nodes = chapters(20)
    nodes[0] = TextNode(id_="0", text="Example: '; DROP TABLE users;--")

    def script(request: Any) -> Behaviour | None:
        return Behaviour(403, error="Request blocked by firewall") if "DROP TABLE" in request.prompt else None

    with LoopbackLLM(script=script) as server:
        dataset = generate(nodes, openai_like(server), filters=[])
    assert set(dataset.report.failed) == {"0"}
    assert len(dataset.relevant_docs) == 38


def test_c5_a_403_for_everything_stops_soon() -> None:
    with LoopbackLLM(script=lambda _: Behaviour(403, error="no")) as server:
        with pytest.raises(GenerationError, match="refused each of 10 requests"):
            generate(chapters(40), openai_like(server))
        assert server.count == 10


# --- E: hostile answers -----------------------------------------------------------------------------------------------

MEGABYTE = 1_000_000
SHAPES = {
    "spaces behind a question": "What is it?" + " " * MEGABYTE + "x",
    "lines that go on": "what is\n" * (MEGABYTE // 8),
    "quotes": '"' * MEGABYTE,
    "escaped quotes": '["' + '\\"' * (MEGABYTE // 2),
    "brackets": "[" * MEGABYTE,
    "numbers": "1. " * (MEGABYTE // 3),
    "bold": "**a" * (MEGABYTE // 3),
    "parentheses": "What? " + "(" * MEGABYTE,
    "question marks": "? " * (MEGABYTE // 2),
    "answers": "Q? answer:" * (MEGABYTE // 10),
    "tags": "<think>" * (MEGABYTE // 7),
    "table": "| a | b |\n|--|--|\n" * (MEGABYTE // 18),
    "labels": "".join(f"Abc {n}: x\n" for n in range(MEGABYTE // 11)),
    "options": "A) x\n" * (MEGABYTE // 5),
    "strings": '["a" ' * (MEGABYTE // 5),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_e2_a_megabyte_of_anything_is_read_in_a_second(shape: str) -> None:
    started = time.process_time()
    parse_items(SHAPES[shape], limit=50)
    assert time.process_time() - started < 1.0


def test_e3_half_a_surrogate_and_absurd_usage_hang_nothing() -> None:
    def body(text: str) -> bytes:
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        usage = {"prompt_tokens": -(10**30), "completion_tokens": 10**30, "total_tokens": 0}
        answer = {
            "id": "x",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "choices": [choice],
            "usage": usage,
        }
        return json.dumps(answer).encode()

    text = "1. What is \ud800 it in the harbour?\n2. Who \udfff pays for the valve?"
    with LoopbackLLM(script=lambda _: Behaviour(body=body(text))) as server:
        dataset = generate(chapters(3), openai_like(server), filters=[])
    assert len(dataset.queries) == 2
    assert "".join(dataset.queries.values()).isprintable()
    assert 0 < dataset.report.prompt_tokens < 10_000


def test_e3_a_write_that_the_journal_cannot_take_is_reported(tmp_path: Path) -> None:
    identity = RequestIdentity.of("questions", "text", prompt="p", model="m")
    with Journal(tmp_path / "j.sqlite") as journal:
        with pytest.raises(OutputError, match="Cannot write the journal"):
            asyncio.run(asyncio.wait_for(journal.put(identity, StoredAnswer("x", 10**30, 0)), 20))
        asyncio.run(journal.put(identity, StoredAnswer("x", 1, 1)))
        assert journal.get(identity.key) == StoredAnswer("x", 1, 1)


@pytest.mark.parametrize("damage", ["x", "null", "0.5", '["what?"]', '[["what?", 1]]', "[" * 3000])
def test_e12_a_damaged_answer_is_asked_for_again_and_the_others_are_not(damage: str, tmp_path: Path) -> None:
    calls = CallSettings(journal_path=tmp_path / "j.sqlite")
    with LoopbackLLM() as server:
        good = generate(chapters(3), openai_like(server), calls=calls, filters=[])
        asked = server.count
        with sqlite3.connect(tmp_path / "j.sqlite") as file:
            key = file.execute("SELECT key FROM answers ORDER BY key").fetchone()[0]
            file.execute("UPDATE answers SET payload = ? WHERE key = ?", (damage, key))
        again = generate(chapters(3), openai_like(server), calls=calls, filters=[])
        assert server.count == asked + 1
    assert again.queries == good.queries


def test_e3_a_thread_that_dies_tells_those_who_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(batch: Any) -> Any:
        raise MemoryError

    identity = RequestIdentity.of("questions", "text", prompt="p", model="m")
    with Journal(tmp_path / "j.sqlite") as journal:
        monkeypatch.setattr(
            "llama_index_embft.calls.journal._parts", lambda batch: (_ for _ in ()).throw(MemoryError())
        )
        for _ in range(2):
            with pytest.raises(OutputError, match="MemoryError"):
                asyncio.run(asyncio.wait_for(journal.put(identity, StoredAnswer("x", 1, 1)), 20))


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("http://bob:hunter2canary@host:8000/v1", "hunter2canary"),
        ("http://bob:p@ss/w0rd-canary@host/v1", "w0rd-canary"),
        ("http://host/v1?api_key=urltokencanary99&x=1", "urltokencanary99"),
        ("http://127.0.0.1:1?api-key=qdrantcanary77", "qdrantcanary77"),
        ("http://host/v1?code=functioncanary8&api-version=2024-02-01", "functioncanary8"),
        ("https://host/c/f?sv=2021&sig=Q%2Bsignaturecanary1", "signaturecanary1"),
        ("https://host/callback#access_token=fragmentcanary2", "fragmentcanary2"),
        ("https://gateway.org/v1/9f8e7d6c5b4a39281706canary/chat", "9f8e7d6c5b4a"),
        ("https://hooks.org/services/T0123/B0/Xa9Bc3De5Fg7Hi1Jk canary", "Xa9Bc3De5Fg7"),
        ("wss://host/ws?ticket=ticketcanary9", "ticketcanary9"),
        ("postgresql://bob:pgcanary5@db:5432/x", "pgcanary5"),
        ("Authorization failed for Basic dXNlcjpjYW5hcnk=", "dXNlcjpjYW5hcnk"),
        ("host=db password=dsncanary6 user=bob", "dsncanary6"),
        ("Authorization: Bearer abc.def.canary", "abc.def.canary"),
        ("{'x-api-key': 'headercanary8'}", "headercanary8"),
        ("Incorrect API key provided: sk-proj-AAAABBBBCCCCDDDD1234", "AAAABBBBCCCC"),
        ("token ghp_0123456789abcdefghijABCDEFGHIJ", "ghp_0123456789"),
        ("AIzaSyD-0123456789abcdefghijk is not valid", "AIzaSyD-0123"),
        ("AKIAIOSFODNN7EXAMPLE refused", "AKIAIOSFODNN7"),
        ("Cookie: session=cookiecanary3", "cookiecanary3"),
        ("proxy-authorization: Digest digestcanary4", "digestcanary4"),
        ("-----BEGIN PRIVATE KEY-----\npemcanary5\n-----END PRIVATE KEY-----", "pemcanary5"),
    ],
)
def test_e4_secrets_of_every_shape_are_hidden(text: str, secret: str) -> None:
    assert secret not in redact(text)
    assert "[hidden]" in redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "HTTP 500: the model task-force is busy at http://host:8000/v1 (252,878 + 20,040 tokens)",
        "`max_tokens` is 0; it must be at least 1.",
        "basic knowledge, and the bearer of bad news",
        "https://huggingface.co/sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2/resolve/main/config.json",
        "https://host/openai/deployments/text-embedding-3-small/embeddings?api-version=2023-05-15",
        "postgresql://db:5432/x?sslmode=require",
        "Cannot read ../data/train.json: the key 'queries' is missing; write to a@b.org",
    ],
)
def test_e4_other_texts_stay_as_they_are(text: str) -> None:
    assert redact(text) == text


def test_e4_what_another_library_says_is_shown_without_secrets() -> None:
    assert first_line(RuntimeError("refused http://host/v1?code=functioncanary8: try again.\nsecond")) == (
        "refused http://host/v1?code=[hidden]: try again"
    )


def test_e4_parameters_and_paths_of_a_clients_address_are_known_secrets() -> None:
    class Client:
        api_base = "https://gateway.org/9f8e7d6c5b4a39281706canary/v1?env=production"
        default_query: ClassVar = {"code": "functioncanary8", "api-version": "2024-02-01"}

    hide = Redactor(Client()).known
    assert hide("no route for 9f8e7d6c5b4a39281706canary") == "no route for [hidden]"
    assert hide("the code functioncanary8 is not known") == "the code [hidden] is not known"
    assert hide("the production of 2024-02-01") == "the production of 2024-02-01"


@pytest.mark.parametrize("pad", range(360, 405, 3))
def test_e4_keys_are_hidden_before_texts_are_cut(pad: int) -> None:
    class Client:
        api_key = KEY

    reason = classify(RuntimeError(f"{'p' * pad} {KEY} tail {'x' * 100}"), Redactor(Client())).reason
    assert KEY[:12] not in reason


@pytest.mark.parametrize("pad", [0, 60, 70, 80, 90, 100, 110, 120, 140, 180, 190, 280, 380])
def test_e4_a_refusal_that_repeats_the_key_shows_no_part_of_it(pad: int, tmp_path: Path, capsys, caplog) -> None:
    script = lambda _: Behaviour(text=f"I'm sorry, but I cannot answer {'p' * pad} {KEY} and so on.")  # noqa: E731
    with LoopbackLLM(script=script) as server, pytest.raises(GenerationError) as caught:
        generate(chapters(2), openai_like(server), output_path=tmp_path / "t.json", filters=[])
    shown = str(caught.value) + capsys.readouterr().out + caplog.text
    stored = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert KEY[:12] not in shown
    assert KEY[:12].encode() not in stored


def test_e4_an_answer_that_repeats_the_key_stores_none(tmp_path: Path) -> None:
    script = lambda _: Behaviour(text=f"1. What does the key {KEY} open?\n2. Who pays for the valve?")  # noqa: E731
    with LoopbackLLM(script=script) as server:
        llm = openai_like(server)
        generate(chapters(2), llm, output_path=tmp_path / "t.json", filters=[])
    assert not any(KEY.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


class RateLimitError(Exception):
    """Looks like that of the OpenAI client."""

    status_code = 429

    def __init__(self, headers: dict[str, str]) -> None:
        super().__init__("slow down")
        self.response = type("Response", (), {"status_code": 429, "headers": headers})()


@pytest.mark.parametrize(
    "headers",
    [
        {"retry-after": "0"},
        {"retry-after": "-5"},
        {"retry-after": "9" * 400},
        {"retry-after": "Mon, 01 Jan 2024 00:00:00 +999999999999999"},
        {"retry-after": "1.2.3"},
        {"retry-after-ms": "nan"},
        {"retry-after-ms": "inf"},
    ],
)
def test_e11_a_senseless_retry_after_is_no_word_of_the_server(headers: dict[str, str]) -> None:
    failure = classify(RateLimitError(headers), Redactor())
    assert (failure.kind, failure.retry_after) == ("wait", None)


def test_e13_deep_json_is_no_recursion_error() -> None:
    deep: Any = "What is it?"
    for _ in range(5000):
        deep = [deep]
    assert parse_items(deep, limit=5) == []
    assert parse_items("[" * 100_000 + "]" * 100_000, limit=5) == []


def _embedding_server(order: str) -> tuple[Any, str]:
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            texts = json.loads(self.rfile.read(int(self.headers["content-length"])))["input"]
            data = [{"object": "embedding", "index": n, "embedding": [float(len(t)), 1.0]} for n, t in enumerate(texts)]
            if order == "reversed":
                data.reverse()
            elif order != "all zero":
                data[0]["embedding"] = json.loads(order)
            else:
                data = [{**one, "index": 0} for one in data]
            body = json.dumps(
                {"object": "list", "model": "m", "data": data, "usage": {"prompt_tokens": 1, "total_tokens": 1}}
            )
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_port}/v1"


@pytest.mark.parametrize("max_retries", [0, 2])
def test_e15_vectors_that_come_out_of_order_go_to_their_texts(max_retries: int) -> None:
    from llama_index.embeddings.openai import OpenAIEmbedding

    from llama_index_embft.embeddings import as_encoder

    server, base = _embedding_server("reversed")
    texts = ["x" * n for n in range(1, 26)]
    model = OpenAIEmbedding(model_name="m", api_base=base, api_key=KEY, embed_batch_size=10, max_retries=max_retries)
    found = as_encoder(model, cache=None).encode_documents(texts)
    server.shutdown()
    ratio = found[:, 0] / found[:, 1]  # of unit length by now
    np.testing.assert_allclose(ratio, np.arange(1, 26), rtol=1e-4)


@pytest.mark.parametrize("vector", ["null", '["a", "b"]', "[[0.1], [0.2]]", '{"x": 1}'])
def test_e13_vectors_of_another_shape_are_one_sentence(vector: str) -> None:
    from llama_index.embeddings.openai import OpenAIEmbedding

    from llama_index_embft.embeddings import as_encoder

    server, base = _embedding_server(vector)
    model = OpenAIEmbedding(model_name="m", api_base=base, api_key=KEY, max_retries=0)
    with pytest.raises(ModelError) as caught:
        as_encoder(model, cache=None).encode_documents(["one", "two"])
    server.shutdown()
    assert re.search(r"another shape than it should \(embeddings\.0|returned", str(caught.value))
    assert not re.search(r"errors\.pydantic\.dev|input_value|\n", str(caught.value))


def test_e15_vectors_without_numbers_of_their_own_are_refused() -> None:
    from llama_index.embeddings.openai import OpenAIEmbedding

    from llama_index_embft.embeddings import as_encoder

    server, base = _embedding_server("all zero")
    model = OpenAIEmbedding(model_name="m", api_base=base, api_key=KEY, embed_batch_size=10)
    with pytest.raises(ModelError, match="vectors cannot be matched to texts"):
        as_encoder(model, cache=None).encode_documents([f"text {n}" for n in range(20)])
    server.shutdown()


def test_b10_a_sentence_that_stands_in_two_chunks_asks_for_neither() -> None:

    shared = "The harbour authority of Lindau raised the mooring fees by nine percent in the spring of 1990."
    nodes = [
        TextNode(id_="a", text=f"{shared} The keeper painted the western tower of Lindau bright red in 1912."),
        TextNode(id_="b", text=f"The council of Bregenz sold the old railway station to a brewery in 1954. {shared}"),
    ]
    dataset = generate_extractive_pairs(nodes, kinds=("cloze",), num_questions_per_chunk=4)
    assert dataset.queries
    assert not any("mooring fees" in query for query in dataset.queries.values())


def test_b10_a_number_that_a_chunk_cuts_in_two_does_not_hide_that_another_holds_the_sentence() -> None:
    rule = "The third quarter of fiscal 2018 reflects the impact from the enactment of the Tax Cuts and Jobs Act."
    also = "Senior unsecured obligations rank equally with all other unsecured indebtedness of the company for 17"
    chunks = [
        f"Revenue was reported in four columns for every region. 63.21 50.81 (1) {rule}",
        f"81 (1) {rule} Refer to the note about income taxes for more detail on the changes. {also}",
        f"Bonds are described in the notes to the statements of the group. {also}.45 dollars each.",
    ]
    nodes = [TextNode(text=text, id_=f"c{n}") for n, text in enumerate(chunks)]
    made = generate_extractive_pairs(nodes, kinds=["cloze"], num_questions_per_chunk=9)
    assert made.queries
    for query, question in made.queries.items():
        assert [node.node_id for node in nodes if question in node.text] == made.relevant_docs[query]


def test_b10_chunks_that_others_repeat_are_said(caplog: pytest.LogCaptureFixture) -> None:
    sentences = [
        "The harbour authority of Lindau raised the mooring fees by nine percent in the spring of 1990.",
        "The keeper painted the western tower of Lindau bright red in 1912.",
        "The council of Bregenz sold the old railway station to a brewery in 1954.",
    ]
    leaves = [TextNode(id_=str(n), text=sentence) for n, sentence in enumerate(sentences)]
    whole = [*leaves, TextNode(id_="parent", text=" ".join(sentences))]
    generate_extractive_pairs(leaves, kinds=("cloze",))
    assert "get_leaf_nodes" not in caplog.text
    with pytest.raises(GenerationError):
        generate_extractive_pairs(whole, kinds=("cloze",))
    assert "4 of 4 chunks gave no question because other chunks hold the same sentences" in caplog.text


PROSE = {
    "ru": "Компания подписала договор аренды в марте прошлого года. Срок действия договора составляет пять лет "
    "с момента подписания. Арендатор обязан вносить плату до десятого числа каждого месяца.",
    "ar": "وقعت الشركة عقد إيجار المبنى في شهر مارس. مدة العقد خمس سنوات من تاريخ التوقيع. يجب على المستأجر "
    "دفع الإيجار قبل اليوم العاشر من كل شهر.",
    "ko": "회사는 지난 3월에 본사 건물의 임대 계약을 체결했다. 계약 기간은 양측이 서명한 날로부터 정확히 5년이다. "
    "임차인은 매월 10일까지 임대료를 은행 계좌로 납부해야 한다.",
    "hi": "कंपनी ने मार्च में भवन के किराये के अनुबंध पर हस्ताक्षर किए। अनुबंध की अवधि हस्ताक्षर की तारीख से पाँच वर्ष है। "
    "किरायेदार को हर महीने की दस तारीख तक किराया देना होगा।",
    "th": "บริษัทได้ลงนามในสัญญาเช่าอาคารในเดือนมีนาคม ระยะเวลาสัญญาคือห้าปีนับจากวันที่ลงนาม ผู้เช่าต้องชำระค่าเช่าภายในวันที่สิบของทุกเดือน",
    "zh": "公司于三月签署了办公楼租赁合同。承租人须在每月十日之前支付租金。逾期支付须加收滞纳金并承担违约责任。",
    "de": "Die Firma unterschrieb im März den Mietvertrag für das Gebäude. Die Laufzeit des Vertrags beträgt fünf "
    "Jahre ab der Unterschrift. Der Mieter muss die Miete bis zum zehnten Tag jedes Monats zahlen.",
}


@pytest.mark.parametrize("language", PROSE)
def test_d5_prose_of_any_language_gives_questions_that_are_no_copies(language: str) -> None:
    text = PROSE[language]
    dataset = generate_extractive_pairs([TextNode(text=text, id_="a")], num_questions_per_chunk=2)
    assert dataset.queries
    for question in dataset.queries.values():
        assert len(question) < 0.6 * len(text)
        assert question not in text


def test_d5_latin_names_in_unspaced_prose_hide_no_copy() -> None:
    for seed in range(40):
        text = PROSE["zh"].replace("。", f"A{seed}。")
        dataset = generate_extractive_pairs([TextNode(text=text, id_="a")], num_questions_per_chunk=4, seed=seed)
        assert not [question for question in dataset.queries.values() if question.lower() in text.lower()]


def test_d5_a_text_without_capitals_has_sentences() -> None:
    text = "we study the growth of yeast in sugar. the cells were counted each hour. the growth stops after nine hours."
    dataset = generate_extractive_pairs([TextNode(text=text, id_="a")], kinds=["cloze"], num_questions_per_chunk=5)
    assert sorted(dataset.queries.values()) == sorted(f"{part}." for part in text.rstrip(".").split(". "))


def test_d5_words_are_not_cut_at_vowel_signs() -> None:
    from llama_index_embft.generation.extractive.text import words

    assert words("कंपनी ने किराये के अनुबंध") == ["कंपनी", "ने", "किराये", "के", "अनुबंध"]


def test_d5_a_question_about_a_share_names_the_percent_once() -> None:
    text = "公司2021年度营业收入同比增长15%，净利润率提高3%。公司全年研发投入占营业收入的12%，较上年明显提高。"
    dataset = generate_extractive_pairs([TextNode(text=text, id_="a")], num_questions_per_chunk=9)
    assert not any("百分之多少%" in question for question in dataset.queries.values())
