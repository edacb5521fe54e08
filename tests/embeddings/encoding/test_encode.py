"""Encoder and cache: each text once, right order, right prompts, nothing lost to a damaged cache."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.embeddings.huggingface import HuggingFaceEmbedding
from sentence_transformers import SentenceTransformer

from llama_index_embft.embeddings import EmbeddingCache, ModelIdentity, as_encoder
from llama_index_embft.embeddings.encoding.cache import cache_key
from llama_index_embft.errors import ConfigError, ModelError


class Counting(BaseEmbedding):
    _seen: list = PrivateAttr(default_factory=list)
    _answer: object = PrivateAttr(default=None)

    def identity(self, side, given=None):
        """A class that knows what decides its vectors speaks for itself; without a name it does not."""
        return None if self.model_name == "unknown" else ModelIdentity.of(self.model_name, self.model_name, side)

    def _one(self, text):
        self._seen.append(text)
        return self._answer(text) if self._answer else [float(len(text)), float(ord(text[0])), 1.0]

    def _get_text_embedding(self, text):
        return self._one("D" + text)

    def _get_query_embedding(self, query):
        return self._one("Q" + query)

    async def _aget_query_embedding(self, query):
        return self._get_query_embedding(query)


@pytest.fixture
def cache(tmp_path):
    return EmbeddingCache(tmp_path / "deep" / "cache.sqlite")


def test_each_distinct_text_once_in_the_order_given(cache):
    model = Counting(model_name="m")
    encoder = as_encoder(model, cache=cache)
    vectors = encoder.encode_documents(["bb", "a", "bb", "cccc", "a"])
    assert vectors[:, 0].tolist() == [3, 2, 3, 5, 2]
    assert sorted(model._seen) == ["Da", "Dbb", "Dcccc"]
    assert encoder.embedded_texts == 3


def test_a_second_run_embeds_nothing(cache):
    first = as_encoder(Counting(model_name="m"), cache=cache).encode_documents(["x", "yy"])
    again = Counting(model_name="m")
    second = as_encoder(again, cache=cache).encode_documents(["yy", "x", "new"])
    assert again._seen == ["Dnew"]
    assert (second[:2] == first[::-1]).all()


def test_queries_documents_and_models_do_not_share_vectors(cache):
    a, b = Counting(model_name="a"), Counting(model_name="b")
    for model in (a, b):
        encoder = as_encoder(model, cache=cache)
        encoder.encode_documents(["same"])
        encoder.encode_queries(["same"])
    assert a._seen == b._seen == ["Dsame", "Qsame"]


def test_a_model_without_a_name_is_never_cached(cache):
    for _ in range(2):
        model = Counting()
        as_encoder(model, cache=cache).encode_documents(["x"])
        assert model._seen == ["Dx"]


def test_keys_cannot_be_shifted_between_their_parts():
    assert cache_key("a", "b", "c") != cache_key("ab", "", "c") != cache_key("a", "bc", "")


def test_fingerprint_ignores_credentials_and_sees_settings():
    from llama_index.embeddings.openai import OpenAIEmbedding

    def fingerprint(**options):
        return as_encoder(OpenAIEmbedding(**options), cache=None).fingerprint

    base = fingerprint(api_key="sk-one", timeout=1.0)
    assert base == fingerprint(api_key="sk-two", timeout=9.0)
    assert base != fingerprint(api_key="sk-one", dimensions=64)


def test_what_wraps_something_and_does_not_say_so_has_no_fingerprint():
    from llama_index.embeddings.adapter import AdapterEmbeddingModel, LinearLayer

    def fingerprint(base, tmp):
        LinearLayer(3, 3).save(tmp)
        return as_encoder(AdapterEmbeddingModel(base, tmp, LinearLayer), cache=None).fingerprint

    import tempfile

    with tempfile.TemporaryDirectory() as tmp:
        base = Counting(model_name="m")
        assert fingerprint(base, tmp) is None  # LlamaIndex's own adapter class does not say what is in it


def test_hugging_face_in_batches_equals_one_by_one(tiny_model_path):
    model = HuggingFaceEmbedding(
        tiny_model_path, query_instruction="ask: ", text_instruction="text: ", device="cpu", max_length=16
    )
    texts = ["b " * n + "end" for n in (1, 40, 3, 17, 8)]
    encoder = as_encoder(model, cache=None, batch_size=2)
    documents, queries = encoder.encode_documents(texts), encoder.encode_queries(texts)
    for row, text in enumerate(texts):
        assert documents[row] == pytest.approx(model.get_text_embedding(text), abs=1e-5)
        assert queries[row] == pytest.approx(model.get_query_embedding(text), abs=1e-5)


def test_sentence_transformer_uses_its_own_prompts(tiny_model_path):
    model = SentenceTransformer(tiny_model_path, device="cpu", prompts={"query": "q: ", "document": "d: "})
    encoder = as_encoder(model, cache=None)
    assert encoder.encode_queries(["x"])[0] == pytest.approx(model.encode_query("x"), abs=1e-5)
    assert encoder.encode_documents(["x"])[0] == pytest.approx(model.encode_document("x"), abs=1e-5)


def test_fingerprint_changes_with_the_weights(tiny_model_path):
    import torch

    model = SentenceTransformer(tiny_model_path, device="cpu")
    before = as_encoder(model, cache=None).fingerprint
    assert as_encoder(SentenceTransformer(tiny_model_path, device="cpu"), cache=None).fingerprint == before
    with torch.no_grad():
        next(model.parameters())[0, 0] += 1e-3
    assert as_encoder(model, cache=None).fingerprint != before


@pytest.mark.parametrize("content", [b"this is not a database, it is only text" * 100, b""])
def test_a_damaged_cache_costs_a_warning_not_the_job(tmp_path, caplog, content):
    path = tmp_path / "cache.sqlite"
    path.write_bytes(content)
    vectors = as_encoder(Counting(model_name="m"), cache=EmbeddingCache(path)).encode_documents(["x"])
    assert vectors.shape == (1, 3)
    assert ("cannot be used" in caplog.text) == bool(content)


def test_a_cache_in_an_unwritable_place_costs_a_warning(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    cache = EmbeddingCache(tmp_path / "file" / "cache.sqlite")
    assert as_encoder(Counting(model_name="m"), cache=cache).encode_documents(["x"]).shape == (1, 3)
    assert caplog.text.count("cannot be used") == 1


def test_two_writers_at_once(tmp_path):
    path = tmp_path / "cache.sqlite"

    def work(worker):
        cache = EmbeddingCache(path)
        for n in range(20):
            cache.put_many([(cache_key("m", "", f"{worker}-{n}"), np.full(4, n, dtype=np.float32))])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    keys = [cache_key("m", "", f"{w}-{n}") for w in range(4) for n in range(20)]
    assert len(EmbeddingCache(path).get_many(keys)) == 80
    assert sqlite3.connect(path).execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_killed_job_keeps_what_was_committed(tmp_path, monkeypatch):
    from llama_index_embft.embeddings.encoding import encoder as encode

    monkeypatch.setattr(encode, "_TEXTS_PER_COMMIT", 2)
    texts = [f"{'x' * (9 - n)}{n}" for n in range(6)]

    class PowerCutError(Exception):
        pass

    dying = Counting(model_name="m")

    def answer(text):
        if len(dying._seen) == 5:
            raise PowerCutError
        return [1.0, 2.0]

    dying._answer = answer
    with pytest.raises(PowerCutError):
        as_encoder(dying, cache=EmbeddingCache(tmp_path / "c")).encode_queries(texts)
    heir = Counting(model_name="m")
    heir._answer = lambda text: [1.0, 2.0]
    as_encoder(heir, cache=EmbeddingCache(tmp_path / "c")).encode_queries(texts)
    assert len(heir._seen) == 2


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda text: [float("nan"), 1.0], "returned NaN or infinity for 1 of 1 texts"),
        (lambda text: [], "returned"),
    ],
)
def test_unusable_vectors_are_refused_and_not_cached(cache, answer, message):
    model = Counting(model_name="m")
    model._answer = answer
    with pytest.raises(ModelError, match=message):
        as_encoder(model, cache=cache).encode_queries(["x"])
    healed = Counting(model_name="m")
    assert as_encoder(healed, cache=cache).encode_queries(["x"]).shape == (1, 3)


def test_a_model_that_changed_its_dimension_is_refused(cache):
    as_encoder(Counting(model_name="m"), cache=cache).encode_queries(["x"])
    changed = Counting(model_name="m")
    changed._answer = lambda text: [1.0] * 5
    with pytest.raises(ModelError, match="5 dimensions where it returned 3 before"):
        as_encoder(changed, cache=cache).encode_queries(["x", "y"])


def test_nothing_to_embed_and_nothing_to_embed_with():
    with pytest.raises(ConfigError, match="no query to embed"):
        as_encoder(Counting(model_name="m"), cache=None).encode_queries([])
    with pytest.raises(ConfigError, match="got str"):
        as_encoder("BAAI/bge-small-en")


def test_cache_folder_comes_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("EMBFT_CACHE_DIR", str(tmp_path / "here"))
    as_encoder(Counting(model_name="m")).encode_queries(["x"])
    assert (tmp_path / "here" / "embeddings.sqlite").is_file()
