"""Token-budget batches: each text once, no batch over its budget, the vectors of `SentenceTransformer.encode`."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from llama_index_embft.embeddings import cut_into_batches, encode_texts, padding_share
from llama_index_embft.embeddings.encoding import batching
from llama_index_embft.embeddings.encoding.batching import resolve_precision, token_budget_batches
from llama_index_embft.embeddings.encoding.tokenizing import on_all_cores, preprocess
from llama_index_embft.errors import ConfigError

TEXTS = ["red cat " * n for n in (1, 9, 2, 30, 5, 5, 17, 3)] + ["x", "a very, very long word and 3 numbers 1 2 3"]


@pytest.fixture(scope="module")
def model(tiny_model_path):
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(tiny_model_path, device="cpu")


@pytest.mark.parametrize("prompt", [None, "query: "])
def test_token_ids_are_those_of_the_model_without_a_walk_over_each(model, prompt, monkeypatch):
    expected = model.preprocess(TEXTS, prompt=prompt)
    walked = []
    monkeypatch.setattr("transformers.tokenization_utils_base.flatten", lambda ids: walked.append(ids) or ids)
    found = preprocess(model, TEXTS, prompt)
    assert not walked
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert torch.equal(found[name], value) if isinstance(value, torch.Tensor) else found[name] == value


@pytest.mark.parametrize("before", [None, "false"])
def test_the_tokenizer_has_all_cores_for_a_while(before, monkeypatch):
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    if before is not None:
        monkeypatch.setenv("TOKENIZERS_PARALLELISM", before)
    with on_all_cores(False):
        assert os.environ.get("TOKENIZERS_PARALLELISM") == before
    with on_all_cores():
        assert os.environ["TOKENIZERS_PARALLELISM"] == "true"
    assert os.environ.get("TOKENIZERS_PARALLELISM") == before


@pytest.mark.parametrize("before", [None, "false"])
def test_blocks_that_overlap_leave_the_tokenizer_setting_as_it_was(before, monkeypatch):
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    if before is not None:
        monkeypatch.setenv("TOKENIZERS_PARALLELISM", before)
    first, second = on_all_cores(), on_all_cores()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert os.environ["TOKENIZERS_PARALLELISM"] == "true"
    second.__exit__(None, None, None)
    assert os.environ.get("TOKENIZERS_PARALLELISM") == before


@given(st.lists(st.integers(0, 600), max_size=60), st.integers(1, 2000), st.integers(1, 20))
def test_batches_hold_each_row_once_within_their_limits(lengths, budget, most):
    lengths = np.array(lengths, dtype=np.int64)
    batches = token_budget_batches(lengths, budget, texts_per_batch=most)
    assert sorted(np.concatenate([*batches, np.empty(0, int)]).tolist()) == list(range(len(lengths)))
    for rows in batches:
        assert len(rows) <= most
        assert len(rows) == 1 or len(rows) * lengths[rows].max() <= budget
    sizes = [int(lengths[rows].max()) for rows in batches]
    assert sizes == sorted(sizes, reverse=True)


@given(st.lists(st.integers(1, 600), min_size=1, max_size=60), st.floats(0.0, 1.0))
def test_no_batch_has_more_padding_than_allowed(lengths, most):
    lengths = np.array(lengths, dtype=np.int64)
    batches = token_budget_batches(lengths, 4096, most_padding=most)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert all(padding_share(lengths, [rows]) <= most + 1e-9 for rows in batches)
    assert len(batches) >= len(token_budget_batches(lengths, 4096))


def test_short_texts_share_a_batch_that_long_ones_would_fill():
    batches = token_budget_batches(np.array([10, 512, 10, 512, 10, 10]), 1024)
    assert [rows.tolist() for rows in batches] == [[1, 3], [0, 2, 4, 5]]
    assert padding_share(np.array([10, 512, 10, 512, 10, 10]), batches) == 0.0
    assert padding_share(np.array([1, 3]), [np.array([0, 1])]) == pytest.approx(1 / 3)
    assert padding_share(np.array([], dtype=int), []) == 0.0


@pytest.mark.parametrize(("tokens", "texts"), [(0, 1), (1, 0)])
def test_limits_below_one_are_refused(tokens, texts):
    with pytest.raises(ConfigError, match="must be at least 1"):
        token_budget_batches(np.array([1]), tokens, texts_per_batch=texts)


@pytest.mark.parametrize("prompt", ["", "query: "])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("budget", [1, 40, None])
def test_vectors_are_those_of_encode(model, prompt, normalize, budget):
    ours = encode_texts(model, TEXTS, prompt=prompt, normalize=normalize, tokens_per_batch=budget)
    theirs = model.encode(TEXTS, prompt=prompt, normalize_embeddings=normalize)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, atol=2e-6)


def test_many_blocks_keep_the_order(model, monkeypatch):
    monkeypatch.setattr(batching, "TEXTS_PER_BLOCK", 3)
    np.testing.assert_allclose(encode_texts(model, TEXTS), model.encode(TEXTS), atol=2e-6)


def test_tokenizing_happens_beside_the_computation(model, monkeypatch):
    monkeypatch.setattr(batching, "TEXTS_PER_BLOCK", 4)
    threads = []
    preprocess = type(model).preprocess

    def watched(self, inputs, **kwargs):
        threads.append(threading.current_thread().name.split("_")[0])
        return preprocess(self, inputs, **kwargs)

    monkeypatch.setattr(type(model), "preprocess", watched)
    encode_texts(model, TEXTS)
    assert threads == ["MainThread", "tokenize", "tokenize"]


def test_an_error_of_the_tokenizer_reaches_the_caller(model, monkeypatch):
    monkeypatch.setattr(batching, "TEXTS_PER_BLOCK", 4)
    preprocess = type(model).preprocess

    def failing(self, inputs, **kwargs):
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("no such token")
        return preprocess(self, inputs, **kwargs)

    monkeypatch.setattr(type(model), "preprocess", failing)
    with pytest.raises(RuntimeError, match="no such token"):
        encode_texts(model, TEXTS)


def test_bfloat16_stays_near_and_has_length_one(model):
    exact = encode_texts(model, TEXTS)
    near = encode_texts(model, TEXTS, precision="bfloat16")
    assert not np.array_equal(exact, near)
    np.testing.assert_allclose(np.linalg.norm(near, axis=1), 1.0, atol=1e-6)
    assert (exact * near).sum(axis=1).min() > 0.999


def test_the_model_stays_in_its_own_precision(model):
    encode_texts(model, TEXTS, precision="bfloat16")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_truncated_dimensions_are_respected(tiny_model_path):
    from sentence_transformers import SentenceTransformer

    short = SentenceTransformer(tiny_model_path, device="cpu", truncate_dim=8)
    for normalize in (False, True):
        np.testing.assert_allclose(
            encode_texts(short, TEXTS, normalize=normalize),
            short.encode(TEXTS, normalize_embeddings=normalize),
            atol=2e-6,
        )


def test_padding_on_the_left_is_cut_on_the_left():
    ids = torch.tensor([[0, 0, 1, 2], [3, 4, 5, 6], [0, 0, 0, 7]])
    batches = cut_into_batches({"input_ids": ids, "attention_mask": (ids > 0).long()}, 3, 4)
    assert [batch.features["input_ids"].tolist() for batch in batches] == [[[3, 4, 5, 6]], [[1, 2], [0, 7]]]
    assert [batch.rows.tolist() for batch in batches] == [[1], [0, 2]]


@pytest.mark.parametrize(
    "change",
    [
        {"cu_seq_lens_q": torch.tensor([0, 2])},
        {"query_expansion_positions": torch.zeros(2, 3)},
        {"attention_mask": None},
        {"attention_mask": torch.tensor([[0, 1, 0], [0, 1, 1]])},
        {"input_ids": torch.ones(6)},
    ],
)
def test_inputs_that_are_no_plain_matrix_are_left_to_the_model(change):
    features = {"input_ids": torch.ones(2, 3), "attention_mask": torch.ones(2, 3), **change}
    assert cut_into_batches(features, 2, 10) is None


def test_a_bag_of_words_model_goes_through_its_own_encode():
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({"[UNK]": 0, "red": 1, "cat": 2}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    static = SentenceTransformer(modules=[StaticEmbedding(words, embedding_dim=4)], device="cpu")
    np.testing.assert_allclose(encode_texts(static, ["red cat", "cat"]), static.encode(["red cat", "cat"]), atol=1e-6)


def test_a_batch_that_does_not_fit_is_halved(model, monkeypatch):
    whole = model.encode(TEXTS)
    monkeypatch.setattr(batching, "PADDING_CPU", 1.0)
    sizes = []
    forward = type(model).forward

    def small(self, features, **kwargs):
        sizes.append(len(features["input_ids"]))
        if sizes[-1] > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, features, **kwargs)

    monkeypatch.setattr(type(model), "forward", small)
    np.testing.assert_allclose(encode_texts(model, TEXTS, tokens_per_batch=10**6), whole, atol=2e-6)
    assert max(sizes) == len(TEXTS)


def test_a_single_text_that_does_not_fit_is_an_error(model, monkeypatch):
    monkeypatch.setattr(type(model), "forward", _out_of_memory)
    with pytest.raises(torch.OutOfMemoryError):
        encode_texts(model, TEXTS[:1])


def _out_of_memory(self, features, **kwargs):
    raise torch.OutOfMemoryError("CUDA out of memory")


def test_bad_arguments_name_themselves(model):
    with pytest.raises(ConfigError, match="There is no text"):
        encode_texts(model, [])
    with pytest.raises(ConfigError, match="`precision` is 'int3'; it must be one of"):
        encode_texts(model, ["a"], precision="int3")
    assert resolve_precision("float16", model.device) == "float16"
    assert resolve_precision("auto", torch.device("mps")) == "float32"
