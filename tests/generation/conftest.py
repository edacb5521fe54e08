"""Fixtures of the generation tests: the loopback server, the real clients, nodes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.schema import TextNode

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "llm_server"))

from conftest_generation import KEY, make_nodes
from loopback_llm import LoopbackLLM, serving


@pytest.fixture
def serve() -> Iterator[Callable[..., LoopbackLLM]]:
    """Start loopback servers; they are stopped at the end of the test."""
    with serving() as start:
        yield start


@pytest.fixture
def openai_like() -> Callable[..., Any]:
    """The real client llama-index-llms-openai-like, pointed at a loopback server."""
    from llama_index.llms.openai_like import OpenAILike

    def make(server: LoopbackLLM | str, **options: Any) -> OpenAILike:
        base = server if isinstance(server, str) else server.api_base
        settings = {"model": "test-model", "api_key": KEY, "is_chat_model": True, "context_window": 8000, **options}
        return OpenAILike(api_base=base, **settings)

    return make


@pytest.fixture
def openai() -> Callable[..., Any]:
    """The real client llama-index-llms-openai, pointed at a loopback server."""
    from llama_index.llms.openai import OpenAI

    def make(server: LoopbackLLM, **options: Any) -> OpenAI:
        return OpenAI(**{"model": "gpt-4o-mini", "api_base": server.api_base, "api_key": KEY, **options})

    return make


@pytest.fixture
def openai_embedding() -> Callable[..., Any]:
    """The real client llama-index-embeddings-openai, pointed at a loopback server."""
    from llama_index.embeddings.openai import OpenAIEmbedding

    def make(server: LoopbackLLM) -> OpenAIEmbedding:
        return OpenAIEmbedding(api_base=server.api_base, api_key=KEY)

    return make


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses between attempts of hundredths of a second instead of seconds; what the server asks for is kept."""
    from llama_index_embft.calls import RetryPolicy, asking

    def quick(limit: int = 3, patience: float = 5.0) -> RetryPolicy:
        return RetryPolicy(limit=limit, first_wait=0.01, max_wait=0.05, patience=patience)

    monkeypatch.setattr(asking, "RetryPolicy", quick)


@pytest.fixture(autouse=True)
def _own_journals(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Journals of this test alone."""
    monkeypatch.setenv("EMBFT_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def nodes() -> list[TextNode]:
    """Twelve nodes."""
    return make_nodes(12)
