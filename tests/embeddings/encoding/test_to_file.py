"""Embedding into a file: the vectors of the encoder, in order, and a killed run goes on."""

from __future__ import annotations

import numpy as np
import pytest

from llama_index_embft.embeddings import as_encoder
from llama_index_embft.embeddings.encoding.to_file import encode_to_file
from llama_index_embft.errors import ConfigError, OutputError

TEXTS = [f"item {n} of class {n * 7 % 11} " * (1 + n % 5) for n in range(23)]


@pytest.fixture(scope="module")
def model(tiny_model_path):
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(tiny_model_path, device="cpu")


@pytest.fixture(scope="module")
def expected(model):
    return as_encoder(model, cache=None).encode_documents(TEXTS)


@pytest.mark.parametrize(("dtype", "atol"), [("float32", 2e-6), ("float16", 2e-3)])
def test_the_file_holds_the_vectors_in_order(model, expected, tmp_path, dtype, atol):
    path = encode_to_file(TEXTS, model, tmp_path / "new" / "v.npy", dtype=dtype, precision="float32", texts_per_block=5)
    rows = np.load(path, mmap_mode="r")
    assert rows.dtype == np.dtype(dtype)
    np.testing.assert_allclose(rows, expected, atol=atol)
    assert [file.name for file in path.parent.iterdir()] == ["v.npy"]


class KilledError(Exception):
    pass


class Lines:
    """A sequence that counts what is read of it, and dies at a row."""

    def __init__(self, texts, dies_at=None):
        self.texts, self.dies_at = texts, dies_at

    def __len__(self):
        return len(self.texts)

    def __getitem__(self, part):
        if self.dies_at is not None and part.start >= self.dies_at:
            raise KilledError
        return self.texts[part]


def test_a_killed_run_goes_on_where_it_stood(model, expected, tmp_path):
    path = tmp_path / "v.npy"
    with pytest.raises(KilledError):
        encode_to_file(Lines(TEXTS, dies_at=10), model, path, precision="float32", texts_per_block=5)
    assert not path.exists()
    encoder = as_encoder(model, cache=None)
    encode_to_file(TEXTS, encoder, path, precision="float32", texts_per_block=5)
    assert encoder.embedded_texts == len(TEXTS) - 10
    np.testing.assert_allclose(np.load(path), expected, atol=2e-6)


@pytest.mark.parametrize(
    ("texts", "changes", "named"),
    [
        (["another first text", *TEXTS[1:]], {}, "texts"),
        (TEXTS[:-1], {}, "texts"),
        (TEXTS, {"dtype": "float16"}, "dtype"),
        (TEXTS, {"kind": "query"}, "kind"),
        (TEXTS, {"precision": "bfloat16"}, "precision"),
    ],
)
def test_another_run_in_the_same_place_is_refused(model, tmp_path, texts, changes, named):
    path = tmp_path / "v.npy"
    with pytest.raises(KilledError):
        encode_to_file(Lines(TEXTS, dies_at=10), model, path, precision="float32", texts_per_block=5)
    with pytest.raises(OutputError, match=f"beginning of another run \\(different: {named}\\)"):
        encode_to_file(texts, model, path, **{"precision": "float32", "texts_per_block": 5, **changes})


def test_a_broken_note_of_progress_is_one_sentence(model, tmp_path):
    (tmp_path / "v.npy.part").write_bytes(b"x")
    (tmp_path / "v.npy.progress.json").write_text("{")
    with pytest.raises(OutputError, match=r"v\.npy\.progress\.json cannot be read; delete it"):
        encode_to_file(TEXTS, model, tmp_path / "v.npy")


def test_a_place_that_cannot_be_written(model, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="Cannot write"):
        encode_to_file(TEXTS, model, tmp_path / "file" / "v.npy")


@pytest.mark.parametrize(
    ("texts", "changes", "message"),
    [
        ([], {}, "There is no text"),
        (TEXTS, {"kind": "poem"}, "`kind` must be"),
        (TEXTS, {"dtype": "int3"}, "`dtype` must be"),
        (TEXTS, {"texts_per_block": 0}, "`texts_per_block` must be"),
    ],
)
def test_bad_arguments_name_themselves(model, tmp_path, texts, changes, message):
    with pytest.raises(ConfigError, match=message):
        encode_to_file(texts, model, tmp_path / "v.npy", **changes)


def test_precisions_are_cached_apart(model, tmp_path):
    from llama_index_embft.embeddings import EmbeddingCache

    cache = EmbeddingCache(tmp_path / "cache.sqlite")
    exact, rough = (as_encoder(model, cache=cache, precision=name) for name in ("float32", "bfloat16"))
    first, second = exact.encode_documents(TEXTS), rough.encode_documents(TEXTS)
    assert rough.embedded_texts == len(TEXTS)
    assert not np.array_equal(first, second)
    again = as_encoder(model, cache=cache, precision="bfloat16")
    assert np.array_equal(again.encode_documents(TEXTS), second)
    assert again.embedded_texts == 0
