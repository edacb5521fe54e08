"""An OpenAI-compatible server of LLMs and embeddings on loopback, scripted to misbehave: for tests and benchmarks.

It speaks HTTP/1.1 by hand, so that it can drop a connection in the middle of a body, drip it out slowly or send half a
JSON object. In a test it runs in a thread (`with LoopbackLLM() as server`); as a script in a process of its own:

    python tests/llm_server/loopback_llm.py --latency 0.2 --port 0
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import random
import re
import string
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from loopback_embeddings import embeddings_body


@dataclass
class Behaviour:
    """How to answer one request; the default is a proper answer."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    text: str | None = None  # what the model says; None lets the server invent it
    body: bytes | None = None  # the raw body, instead of any JSON
    error: str = "scripted failure"
    drop: str = ""  # "at once" or "in the middle"
    latency: float | None = None  # seconds; None takes the server's
    drip: float = 0.0  # seconds between pieces of the body
    tool_arguments: str | None = None  # raw arguments of the tool call, broken ones too
    dim: int | None = None  # numbers of a vector; None takes the server's
    flaw: str = ""  # of the vectors: "nan", "missing" or "ragged"


@dataclass
class Request:
    """One request as it came in."""

    number: int
    when: float
    path: str
    body: dict[str, Any]
    authorization: str
    tokens: int = 0

    @property
    def prompt(self) -> str:
        if "prompt" in self.body:
            return str(self.body["prompt"])
        if "input" in self.body:
            return "\n".join(self.texts)
        return "\n".join(str(message.get("content")) for message in self.body.get("messages", []))

    @property
    def texts(self) -> list[str]:
        """What is to be embedded."""
        found = self.body.get("input", [])
        return [found] if isinstance(found, str) else list(found)


Script = Callable[[Request], "Behaviour | None"]


class LoopbackLLM:
    """The server.

    Args:
        latency: Seconds from a request to its answer.
        script: Called for each request; None for a proper answer.
        key: The only API key that is let in; None lets everyone in.
        models: Models that exist; None knows all.
        queries: Queries in an invented answer.
        keep_requests: Keep every request for inspection; off, only counters are kept.
        refuse_tools: Answer 400 to requests with tools or a response format, as simple servers do.
        dim: Numbers of an embedding.
        max_model_len: Tokens that the models read, as vLLM's list says it; None for a list that does not say.
    """

    def __init__(
        self,
        *,
        latency: float = 0.0,
        script: Script | None = None,
        key: str | None = None,
        models: set[str] | None = None,
        queries: int = 2,
        keep_requests: bool = True,
        refuse_tools: bool = False,
        dim: int = 32,
        port: int = 0,
        max_model_len: int | None = None,
    ) -> None:
        self.latency, self.script, self.key, self.models = latency, script, key, models
        self.queries, self.keep_requests, self.refuse_tools = queries, keep_requests, refuse_tools
        self.dim, self.max_model_len = dim, max_model_len
        self.embedded: Counter[str] = Counter()  # text -> times that its vector was sent
        self.requests: list[Request] = []
        self.count = self.in_flight = self.max_in_flight = 0
        self.opened = self.closed = 0  # connections
        self.answered: Counter[str] = Counter()  # SHA-256 of the prompt -> full answers sent
        self.asked: Counter[str] = Counter()  # SHA-256 of the prompt -> requests
        self.times: list[float] = []  # arrival of every request
        self.tokens: list[tuple[float, int]] = []  # (time of the answer, its tokens)
        self._port = port
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready = threading.Event()

    # --- life ---------------------------------------------------------------------------------------------------------

    def __enter__(self) -> LoopbackLLM:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def _run(self) -> None:
        asyncio.run(self.serve())

    async def serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._connection, "127.0.0.1", self._port, backlog=512)
        self._port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    @property
    def port(self) -> int:
        return self._port

    @property
    def api_base(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    def stats(self) -> dict[str, Any]:
        return {
            "requests": self.count,
            "max_in_flight": self.max_in_flight,
            "distinct": len(self.asked),
            "answered": sum(self.answered.values()),
            "times": self.times,
            "tokens": self.tokens,
        }

    # --- HTTP ---------------------------------------------------------------------------------------------------------

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        try:
            # A client that hangs up, a script that hangs up on it, and the end of the test: all are normal ends.
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while await self._exchange(reader, writer):
                    pass
        finally:
            self.closed += 1
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        method_line, *header_lines = head.decode("latin-1").strip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in header_lines)}
        raw = await reader.readexactly(int(headers.get("content-length", 0)))
        path = method_line.split()[1]
        if path == "/stats":
            await self._send(writer, Behaviour(body=json.dumps(self.stats()).encode()))
            return True
        if path.endswith("/models"):  # the free question which models there are; not counted
            await self._send(writer, self._list_models(headers.get("authorization", "")))
            return True
        request = Request(
            self.count, time.monotonic(), path, json.loads(raw or b"{}"), headers.get("authorization", "")
        )
        return await self._answer(request, writer)

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        digest = hashlib.sha256(request.prompt.encode()).hexdigest()
        self.count += 1
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        self.asked[digest] += 1
        self.times.append(request.when)
        if self.keep_requests:
            self.requests.append(request)
        try:
            behaviour = self._refusal(request) or (self.script(request) if self.script else None) or Behaviour()
            await asyncio.sleep(self.latency if behaviour.latency is None else behaviour.latency)
            if behaviour.drop == "at once":
                writer.transport.abort()
                return False
            if behaviour.body is None:
                behaviour.body = self._body(request, behaviour)
            await self._send(writer, behaviour)
        finally:
            self.in_flight -= 1
        if behaviour.drop:
            return False
        self.answered[digest] += behaviour.status == 200
        if behaviour.status == 200:
            self.embedded.update(request.texts)
        return True

    def _list_models(self, authorization: str) -> Behaviour:
        if self.key is not None and authorization != f"Bearer {self.key}":
            return Behaviour(401, body=b'{"error": {"message": "Incorrect API key provided."}}')
        if self.models is None:
            return Behaviour(404, body=b'{"error": {"message": "not found"}}')
        said: dict[str, Any] = {"object": "model", "created": 1, "owned_by": "x"}
        if self.max_model_len is not None:
            said["max_model_len"] = self.max_model_len
        models = [{"id": name, **said} for name in sorted(self.models)]
        return Behaviour(body=json.dumps({"object": "list", "data": models}).encode())

    def _refusal(self, request: Request) -> Behaviour | None:
        if self.key is not None and request.authorization != f"Bearer {self.key}":
            sent = request.authorization.removeprefix("Bearer ")
            return Behaviour(401, error=f"Incorrect API key provided: {sent}.")
        if self.models is not None and request.body.get("model") not in self.models:
            return Behaviour(404, error=f"The model `{request.body.get('model')}` does not exist.")
        if self.refuse_tools and ("tools" in request.body or "response_format" in request.body):
            return Behaviour(400, error="this server does not support tools or response_format")
        return None

    async def _send(self, writer: asyncio.StreamWriter, behaviour: Behaviour) -> None:
        body = behaviour.body or b""
        headers = {"content-type": "application/json", "content-length": str(len(body)), **behaviour.headers}
        head = f"HTTP/1.1 {behaviour.status} X\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        if behaviour.drop:
            writer.write(head.encode() + b"\r\n" + body[: len(body) // 2])
            await writer.drain()
            writer.transport.abort()
            return
        if behaviour.drip:
            writer.write(head.encode() + b"\r\n")
            for start in range(0, len(body), 64):
                writer.write(body[start : start + 64])
                await writer.drain()
                await asyncio.sleep(behaviour.drip)
        else:
            writer.write(head.encode() + b"\r\n" + body)
        await writer.drain()

    # --- what the "model" says ----------------------------------------------------------------------------------------

    def _body(self, request: Request, behaviour: Behaviour) -> bytes:
        if behaviour.status != 200:
            error = {"message": behaviour.error, "type": "scripted", "param": None, "code": None}
            return json.dumps({"error": error}).encode()
        if request.path.endswith("/embeddings"):
            return embeddings_body(request.body, behaviour.dim or self.dim, behaviour.flaw)
        message: dict[str, Any] = {"role": "assistant", "content": behaviour.text}
        finish = "stop"
        if behaviour.text is None:
            value = self.invent(request.prompt)
            schema = self._schema(request.body)
            if schema is None and ('"Q: "' in request.prompt or "“Q: ”" in request.prompt):
                message["content"] = "\n".join(f"Q: {query}\nA: the answer to {n}" for n, query in enumerate(value, 1))
            elif schema is None:
                message["content"] = value if isinstance(value, str) else "\n".join(value)
            else:
                structured = json.dumps(self._structured(value, schema), ensure_ascii=False)
                if "tools" in request.body:
                    name = request.body["tools"][0]["function"]["name"]
                    call = {"name": name, "arguments": behaviour.tool_arguments or structured}
                    message["tool_calls"] = [{"id": "call_1", "type": "function", "function": call}]
                    finish = "tool_calls"
                else:
                    message["content"] = structured
        sent = len(request.prompt.split())
        received = len(json.dumps(message).split())
        self.tokens.append((time.monotonic(), sent + received))
        usage = {"prompt_tokens": sent, "completion_tokens": received, "total_tokens": sent + received}
        shared = {"id": "x", "created": 1, "model": request.body.get("model", ""), "usage": usage}
        if request.path.endswith("/chat/completions"):
            choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": finish}
            return json.dumps({**shared, "object": "chat.completion", "choices": [choice]}).encode()
        choice = {"index": 0, "text": message["content"], "finish_reason": finish, "logprobs": None}
        return json.dumps({**shared, "object": "text_completion", "choices": [choice]}).encode()

    @staticmethod
    def _schema(body: dict[str, Any]) -> dict[str, Any] | None:
        if body.get("tools"):
            return dict(body["tools"][0]["function"]["parameters"]["properties"])
        if body.get("response_format"):
            return dict(body["response_format"]["json_schema"]["schema"]["properties"])
        return None

    @staticmethod
    def _structured(value: str | list[str], schema: dict[str, Any]) -> dict[str, Any]:
        name, field_schema = next(iter(schema.items()))
        if field_schema.get("type") == "integer":
            return {name: int(str(value))}
        if field_schema.get("type") == "boolean":
            return {name: value == "Yes"}
        if field_schema.get("type") == "string":
            return {name: str(value)}
        queries = [value] if isinstance(value, str) else value
        if field_schema["items"].get("type") == "string":
            return {name: queries}
        return {name: [{"query": query, "answer": f"the answer to {n}"} for n, query in enumerate(queries, 1)]}

    def invent(self, prompt: str) -> str | list[str]:
        """Say something fitting: a verdict, a grade, a negative passage, or queries made of words of the passage."""
        pair = re.search(r"<query>\n(.*)\n</query>.*<document>\n(.*)\n</document>", prompt, re.DOTALL)
        if pair:
            asked, said = (set(re.findall(r"\w{6,}", text.lower())) for text in pair.groups())
            return "Yes" if asked & said else "No"
        between = re.search(r"<passage>\n(.*)\n</passage>", prompt, re.DOTALL) or re.search(
            r"---------------------\n(.*)\n---------------------", prompt, re.DOTALL
        )
        passage = between[1] if between else prompt
        dice = random.Random(hashlib.sha256(passage.encode()).digest())
        words = re.findall(r"[A-Za-z]{4,}", passage) or ["nothing"]
        chinese = re.findall(r"[\u4e00-\u9fff]{4}", passage)
        if "<query>" in prompt and re.search(r"\b5 - ", prompt):
            return str(1 + int(hashlib.sha256(prompt.encode()).hexdigest(), 16) % 5)
        if "<query>" in prompt:
            dice = random.Random(hashlib.sha256(prompt.encode()).digest())
            return "A related paragraph on " + " ".join(dice.choices(chinese or words, k=20)) + "."
        if len(chinese) > len(words):
            return [f"{dice.choice(chinese)}与{dice.choice(chinese)}有什么关系？" for _ in range(self.queries)]
        return [
            f"What does {' '.join(dice.choices(words, k=3))} have to do with "
            f"{''.join(dice.choices(string.ascii_lowercase, k=9))} {' '.join(dice.choices(words, k=2))}?"
            for _ in range(self.queries)
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--queries", type=int, default=2)
    parser.add_argument("--text", help="what the model says to everything")
    arguments = parser.parse_args()
    server = LoopbackLLM(
        latency=arguments.latency,
        script=None if arguments.text is None else lambda _: Behaviour(text=arguments.text),
        port=arguments.port,
        queries=arguments.queries,
        keep_requests=False,
    )

    async def serve() -> None:
        serving = asyncio.create_task(server.serve())
        while not server._ready.is_set():
            await asyncio.sleep(0.01)
        sys.stdout.write(server.api_base + "\n")
        sys.stdout.flush()
        await serving

    asyncio.run(serve())


if __name__ == "__main__":
    main()


@contextlib.contextmanager
def serving() -> Iterator[Callable[..., LoopbackLLM]]:
    """Start any number of servers; all are stopped at the end."""
    with contextlib.ExitStack() as running:
        yield lambda **options: running.enter_context(LoopbackLLM(**options))
