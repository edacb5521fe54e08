"""A judge on loopback, and query engines over real LlamaIndex parts with known results."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "llm_server"))

from llama_index.core import VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import TextNode
from llama_index.llms.openai_like import OpenAILike
from loopback_llm import Behaviour, LoopbackLLM, Request

from llama_index_embft.dataset import EmbeddingQAFinetuneDataset

DATASET = EmbeddingQAFinetuneDataset(
    queries={"q1": "what about apples?", "q2": "what about pears?", "q3": "what about plums?"},
    corpus={
        "apples": "Facts on apples. They are red.",
        "pears": "Facts on pears.",
        "plums": "Facts on plums.",
        "rest": "Nothing.",
    },
    relevant_docs={"q1": ["apples"], "q2": ["pears"], "q3": ["plums"]},
)
_FRUITS = ("apples", "pears", "plums")


class FruitEmbedding(BaseEmbedding):
    """One axis a fruit; with `wrong`, pears are taken for plums and the other way round in questions."""

    wrong: bool = False

    def _vector(self, text: str) -> list[float]:
        return [float(fruit in text) for fruit in _FRUITS] + [0.1]

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._vector(text)

    def _get_query_embedding(self, query: str) -> list[float]:
        one, two, three, four = self._vector(query)
        return [one, three, two, four] if self.wrong else [one, two, three, four]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)


def model(server: LoopbackLLM, **options: Any) -> OpenAILike:
    settings = {
        "model": "m",
        "api_key": "sk-secret-key",
        "is_chat_model": True,
        "context_window": 8000,
        "timeout": 20.0,
    }
    return OpenAILike(api_base=server.api_base, **settings | options)


def fruit_engine(llm: Any, *, wrong: bool = False, **options: Any) -> Any:
    nodes: Any = [TextNode(id_=doc, text=text) for doc, text in DATASET.corpus.items()]
    index = VectorStoreIndex(nodes, embed_model=FruitEmbedding(wrong=wrong))
    return index.as_query_engine(llm=llm, similarity_top_k=1, **options)


def verdict(score: Any) -> str:
    return json.dumps({"criteria": "as asked", "supporting_evidence": "the text", "score": score})


def is_judged(request: Request) -> bool:
    return "Answer with one JSON object only" in request.prompt


def app_and_judge(judge: Callable[[str], str] | None = None) -> Callable[[Request], Behaviour]:
    """Answers the app's questions by the fruit in the context; the judge's by `judge` (default: 2 of 3)."""

    def script(request: Request) -> Behaviour:
        if is_judged(request):
            return Behaviour(text=verdict(2) if judge is None else judge(request.prompt))
        found = re.search(r"Facts on (\w+)", request.prompt)
        words = ["It is about ", found[1] if found else "nothing", ". Nothing else."]
        if request.body.get("stream"):
            return streamed(words)
        return Behaviour(text="".join(words))

    return script


def streamed(words: list[str]) -> Behaviour:
    head: dict[str, Any] = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    chunks = [
        head | {"choices": [{"index": 0, "delta": {"role": "assistant", "content": word}, "finish_reason": None}]}
        for word in words
    ]
    body = b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks) + b"data: [DONE]\n\n"
    return Behaviour(body=body, headers={"content-type": "text/event-stream"})
