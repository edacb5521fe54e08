"""Hosted embedding models: paid for once, in order, within the limits, and whole after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.rate_limiter import TokenBucketRateLimiter

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "llm_server"))

from loopback_embeddings import embed
from loopback_llm import Behaviour, LoopbackLLM, serving

from llama_index_embft.calls import RetryPolicy, limits
from llama_index_embft.embeddings import EmbeddingCache, as_encoder
from llama_index_embft.embeddings.encoding import hosted
from llama_index_embft.errors import ModelError

KEY = "sk-loopback-0123456789"
TEXTS = [f"text {'word ' * (n % 7)}number {n}" for n in range(50)]


@pytest.fixture
def serve() -> Iterator[Callable[..., LoopbackLLM]]:
    with serving() as start:
        yield start


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses of hundredths of a second between attempts, and no budget left over from another test."""

    def policy(limit: int) -> RetryPolicy:
        return RetryPolicy(limit=limit, first_wait=0.01, max_wait=0.05, patience=5.0)

    monkeypatch.setattr(hosted, "RetryPolicy", policy)
    monkeypatch.setattr(hosted, "_limiters", {})


def client(server: LoopbackLLM | str, **options: Any) -> BaseEmbedding:
    """The real client llama-index-embeddings-openai, pointed at a loopback server."""
    from llama_index.embeddings.openai import OpenAIEmbedding

    base = server if isinstance(server, str) else server.api_base
    return OpenAIEmbedding(
        **{"model": "text-embedding-3-small", "api_base": base, "api_key": KEY, "embed_batch_size": 8, **options}
    )


@pytest.fixture
def cache(tmp_path: Path) -> EmbeddingCache:
    return EmbeddingCache(tmp_path / "cache.sqlite")


def expected(texts: list[str], dim: int = 32) -> Any:
    return pytest.approx(np.array([embed(text, dim) for text in texts]), abs=1e-6)


def test_many_calls_at_once_keep_the_order_and_pay_once(serve, cache):
    server = serve(latency=0.05)
    texts = TEXTS + TEXTS[:10]
    encoder = as_encoder(client(server, num_workers=3), cache=cache)
    assert encoder.encode_documents(texts) == expected(texts)
    assert set(server.embedded.values()) == {1}
    assert server.embedded.keys() == set(TEXTS)
    assert server.count == 7  # 50 distinct texts in batches of 8
    assert server.max_in_flight == 3
    again = as_encoder(client(server), cache=cache)
    assert again.encode_documents(texts[::-1]) == expected(texts[::-1])
    assert (server.count, again.embedded_texts) == (7, 0)


def test_a_query_that_is_a_text_is_not_paid_for_again_and_queries_go_in_batches(serve, cache):
    server = serve()
    encoder = as_encoder(client(server), cache=cache)
    documents = encoder.encode_documents(TEXTS[:20])
    assert (
        encoder.encode_queries(TEXTS[10:30]) == np.concatenate([documents[10:], encoder.encode_documents(TEXTS[20:30])])
    ).all()
    assert set(server.embedded.values()) == {1}
    assert server.count == 3 + 2


def test_where_queries_and_texts_differ_each_goes_its_own_way(serve, cache):
    server = serve()
    model = client(server, model="babbage", mode="text_search")  # two engines, as the old models had
    encoder = as_encoder(model, cache=cache)
    encoder.encode_documents(["same", "other"])
    encoder.encode_queries(["same", "other"])
    asked = [(request.body["model"], len(request.texts)) for request in server.requests]
    assert sorted(asked) == [
        ("text-search-babbage-doc-001", 2),
        ("text-search-babbage-query-001", 1),
        ("text-search-babbage-query-001", 1),
    ]


def test_a_sync_model_with_an_address_is_called_in_threads(cache):
    class HomeMade(BaseEmbedding):
        api_base: str = "http://localhost:1"

        def _get_text_embedding(self, text):
            return [float(len(text)), 1.0]

        def _get_text_embeddings(self, texts):
            calls.append(texts)
            return [self._get_text_embedding(text) for text in texts]

        def _get_query_embedding(self, query):
            return [0.0, float(len(query))]

        async def _aget_query_embedding(self, query):
            return self._get_query_embedding(query)

    calls: list[list[str]] = []
    encoder = as_encoder(HomeMade(model_name="m", embed_batch_size=2), cache=cache)
    assert encoder.encode_documents(["a", "bb", "ccc"]).tolist() == [[1.0, 1.0], [2.0, 1.0], [3.0, 1.0]]
    assert sorted(map(len, calls)) == [1, 2]
    assert encoder.encode_queries(["a", "bb"]).tolist() == [[0.0, 1.0], [0.0, 2.0]]


# --- trouble ----------------------------------------------------------------------------------------------------------


def test_trouble_that_passes_is_waited_for(serve, cache):
    def script(request):
        if request.number % 5 == 1:
            return Behaviour(500)
        if request.number % 5 == 2:
            return Behaviour(drop="in the middle")
        if request.number % 5 == 3:
            return Behaviour(drop="at once")
        return None

    server = serve(script=script)
    encoder = as_encoder(client(server, embed_batch_size=4), cache=cache)
    assert encoder.encode_documents(TEXTS) == expected(TEXTS)
    assert set(server.embedded.values()) == {1}
    assert server.count > 13


def test_retry_after_holds_all_calls_back(serve, cache):
    def script(request):
        return Behaviour(429, headers={"retry-after": "2"}) if request.number == 3 else None

    server = serve(script=script, latency=0.02)
    assert as_encoder(client(server, num_workers=2), cache=cache).encode_documents(TEXTS).shape == (50, 32)
    refused = server.times[3]
    # What was under way may come in; nothing new does before the two seconds are over.
    late = [when for when in server.times if when > refused + 1.0]
    assert late
    assert min(late) >= refused + 1.95


@pytest.mark.parametrize("unit", ["requests", "tokens"])
def test_the_models_own_rate_limiter_is_kept(serve, cache, monkeypatch, unit):
    period = 1.0
    monkeypatch.setattr(hosted, "RateLimiter", lambda *counts: limits.RateLimiter(*counts, period=period, travel=1.0))
    texts = [f"one two three {n}" for n in range(40)]
    counts = {"requests_per_minute": 4} if unit == "requests" else {"tokens_per_minute": 100}
    server = serve()
    model = client(server, embed_batch_size=4, rate_limiter=TokenBucketRateLimiter(**counts))
    for part in (texts[:20], texts[20:]):  # two encoders of one model share the budget
        as_encoder(model, cache=cache).encode_documents(part)
    spent = [1 if unit == "requests" else request.prompt.count(" ") for request in server.requests]
    for start in server.times:
        inside = sum(cost for when, cost in zip(server.times, spent, strict=True) if start <= when < start + period)
        assert inside <= next(iter(counts.values()))
    assert server.times[-1] - server.times[0] > period
    assert set(server.embedded.values()) == {1}


def test_a_wrong_key_costs_one_call_and_one_sentence(serve, cache):
    server = serve(key="sk-another-key-entirely")
    with pytest.raises(ModelError, match="The embedding server refused the API key") as err:
        as_encoder(client(server), cache=cache).encode_documents(TEXTS)
    assert server.count == 1
    assert KEY not in str(err.value)
    assert server.api_base in str(err.value)
    assert "\n" not in str(err.value)


def test_nobody_listens(cache):
    with pytest.raises(ModelError, match=r"No connection to the embedding server at http://127.0.0.1:9/v1"):
        as_encoder(client("http://127.0.0.1:9/v1"), cache=cache).encode_documents(TEXTS)


def test_an_unknown_model(serve, cache):
    server = serve(models={"other"})
    with pytest.raises(ModelError, match="does not know this model or address"):
        as_encoder(client(server), cache=cache).encode_documents(TEXTS)
    assert server.count == 1


def test_giving_up_says_what_is_kept(serve, cache):
    server = serve(script=lambda request: Behaviour(500) if request.number > 2 else None)
    with pytest.raises(ModelError, match=r"HTTP 500.* 24 of 50 texts were embedded before, and are kept: run again"):
        as_encoder(client(server, num_workers=1, max_retries=2), cache=cache).encode_documents(TEXTS)
    assert server.count == 3 + 3
    server.script = None
    assert as_encoder(client(server), cache=cache).encode_documents(TEXTS) == expected(TEXTS)
    assert set(server.embedded.values()) == {1}


def test_a_text_that_is_too_long_is_named_and_the_others_are_kept(serve, cache):
    def script(request):
        too_long = any("GIANT" in text for text in request.texts)
        return Behaviour(400, error="maximum context length is 8192 tokens") if too_long else None

    server = serve(script=script)
    texts = [*TEXTS[:15], "GIANT text"]
    with pytest.raises(ModelError, match=r"refuses the text 'GIANT text' \(10 characters\).*too long.*shorten it"):
        as_encoder(client(server, num_workers=1), cache=cache).encode_documents(texts)
    assert len(server.embedded) >= 8


def test_a_batch_that_is_too_large_is_cut(serve, cache):
    def script(request):
        return Behaviour(400, error="max 300000 tokens per request") if len(request.texts) > 3 else None

    server = serve(script=script)
    assert as_encoder(client(server), cache=cache).encode_documents(TEXTS) == expected(TEXTS)
    assert set(server.embedded.values()) == {1}


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        (Behaviour(dim=16), "returned vectors of 16 dimensions where it returned 32 before"),
        (Behaviour(flaw="nan"), "returned NaN or infinity for 1 of 8 texts"),
        (Behaviour(flaw="missing"), "returned 7 vectors for 8 texts"),
        (Behaviour(flaw="ragged"), "returned vectors of 32 to 33 numbers for 8 texts"),
    ],
)
def test_vectors_that_cannot_be_right_are_refused_and_not_kept(serve, cache, behaviour, message):
    texts = [f"text {n}" for n in range(480)]
    server = serve(script=lambda request: Behaviour(**vars(behaviour)) if request.number == 2 else None, latency=0.02)
    with pytest.raises(ModelError, match=message):
        as_encoder(client(server, num_workers=1), cache=cache).encode_documents(texts)
    assert server.count < 40, "the rest is not asked for"
    server.script = None
    assert as_encoder(client(server), cache=cache).encode_documents(texts[:40]) == expected(texts[:40])


@pytest.mark.system
def test_a_killed_run_pays_only_for_the_rest(serve, tmp_path):
    server = serve(latency=0.05)
    count, in_flight = 400, 2 * 4
    script = Path(__file__).with_name("killed_embedding.py")
    command = [sys.executable, str(script), server.api_base, str(tmp_path / "cache.sqlite"), str(count)]
    child = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 300
    while len(server.embedded) < 100 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    before = len(server.embedded)
    assert 100 <= before < count
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout == "(400, 8)\n"
    assert len(server.embedded) == count
    # Paid twice: what was under way when the kill came, and what was answered and not yet on the disk.
    assert sum(server.embedded.values()) - count <= 4 * in_flight


def test_an_adapter_over_a_hosted_model(serve, tmp_path):
    """The engine, the saved adapter and its queries all go through the same cache."""
    from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
    from llama_index_embft.finetune import EmbeddingAdapterFinetuneEngine

    server = serve()
    data = EmbeddingQAFinetuneDataset(
        queries={f"q{n}": f"where is thing {n}" for n in range(12)},
        corpus={f"d{n}": f"thing {n} is here" for n in range(12)},
        relevant_docs={f"q{n}": [f"d{n}"] for n in range(12)},
    )
    cache = EmbeddingCache(tmp_path / "cache.sqlite")
    engine = EmbeddingAdapterFinetuneEngine(
        data, client(server), val_dataset=data, epochs=2, cache=cache, model_output_path=str(tmp_path / "a")
    )
    engine.finetune()
    assert server.count == 4  # 24 texts in batches of 8, queries and documents apart
    assert set(server.embedded.values()) == {1}
    tuned = engine.get_finetuned_model()
    assert len(tuned.get_query_embedding("where is thing 3")) == 32
