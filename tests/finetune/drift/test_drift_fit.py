"""The map of a new model's queries into an old index's space, fitted on real vectors of MiniLM."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.embeddings.huggingface import HuggingFaceEmbedding

from llama_index_embft._core.vectors import unit_rows
from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
from llama_index_embft.embeddings import DriftEmbedding, DriftMap, as_encoder
from llama_index_embft.embeddings.drift import read_drift
from llama_index_embft.embeddings.identity import ModelIdentity, identify
from llama_index_embft.errors import ConfigError, ModelError
from llama_index_embft.finetune import DriftAdapter
from llama_index_embft.finetune.drift import DriftSettings
from llama_index_embft.finetune.drift.fit import fit_low_rank, fit_mlp, fit_procrustes

PLACES = ("Oslo", "Lima", "Cairo", "Osaka", "Quito", "Perth", "Turin", "Delhi", "Minsk", "Accra")
THINGS = ("the price of bread", "a train ticket", "rain in spring", "old paintings", "a tax return", "football rules")
ACTIONS = ("explains", "compares", "sells")
TEXTS = [f"A report from {p} {a} {t}." for p in PLACES for a in ACTIONS for t in THINGS]
QUERIES = [f"who {a} {t} in {p}?" for p in PLACES[::2] for a in ACTIONS for t in THINGS[::2]]


class TurnedEmbedding(BaseEmbedding):
    """Another model made from a real one: rotated, cut to fewer dimensions, and bent a little."""

    dim: int = 256
    _encoder: Any = PrivateAttr()
    _rotation: Any = PrivateAttr()

    def __init__(self, base: BaseEmbedding, dim: int) -> None:
        super().__init__(model_name=f"turned-{dim}", dim=dim)
        self._encoder = as_encoder(base)  # cached: the model's own texts are embedded once for all tests
        self._rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(384, 384)))[0][:, :dim]

    def identity(self, side, given=None):
        """A class that knows what decides its vectors speaks for itself."""
        return ModelIdentity.of(self.model_name, type(self).__name__, self.model_name, side)

    def _turn(self, vectors: np.ndarray) -> list[list[float]]:
        x = np.asarray(vectors, dtype=np.float32) @ self._rotation
        return unit_rows(x + 0.3 * np.abs(x) ** 1.5).tolist()

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._turn(self._encoder.encode_queries([query]))[0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._turn(self._encoder.encode_documents([text]))[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._turn(self._encoder.encode_documents(texts))


@pytest.fixture(scope="module")
def minilm(minilm_path: str) -> HuggingFaceEmbedding:
    return HuggingFaceEmbedding(model_name=minilm_path, device="cpu", embed_batch_size=64)


@pytest.fixture(scope="module")
def dataset() -> EmbeddingQAFinetuneDataset:
    row = {text: f"d{i}" for i, text in enumerate(TEXTS)}
    asked = [(p, a, t) for p in PLACES[::2] for a in ACTIONS for t in THINGS[::2]]
    return EmbeddingQAFinetuneDataset(
        queries={f"q{i}": query for i, query in enumerate(QUERIES)},
        corpus={i: text for text, i in row.items()},
        relevant_docs={f"q{i}": [row[f"A report from {p} {a} {t}."]] for i, (p, a, t) in enumerate(asked)},
    )


def test_procrustes_finds_a_rotation_exactly_and_keeps_lengths_between_dimensions() -> None:
    rng = np.random.default_rng(0)
    x = unit_rows(rng.normal(size=(500, 24)).astype(np.float32))
    rotation = np.linalg.qr(rng.normal(size=(24, 24)))[0].astype(np.float32)
    found = fit_procrustes(x, x @ rotation)
    np.testing.assert_allclose(found.tensors["weight"], rotation, atol=1e-5)
    np.testing.assert_allclose(found(x), x @ rotation, atol=1e-5)
    wide = fit_procrustes(x, np.pad(x @ rotation, ((0, 0), (0, 8))))  # 24 -> 32
    weight = wide.tensors["weight"]
    assert weight.shape == (24, 32)
    np.testing.assert_allclose(weight @ weight.T, np.eye(24), atol=1e-5)


def test_low_rank_adds_at_most_its_rank_and_a_shift() -> None:
    rng = np.random.default_rng(1)
    x = unit_rows(rng.normal(size=(3000, 16)).astype(np.float32))
    slope = (rng.normal(size=(16, 2)) @ rng.normal(size=(2, 16))).astype(np.float32) * 0.5
    y = unit_rows(x + x @ slope + 0.2)
    plain, found = fit_procrustes(x, y), fit_low_rank(x, y, rank=3, seed=0)
    addition = found.tensors["weight"] - plain.tensors["weight"]
    assert np.linalg.matrix_rank(addition, tol=1e-4) <= 3
    error = [float(1 - (m(x) * y).sum(axis=1).mean()) for m in (plain, found)]
    assert error[1] < 0.5 * error[0]


def test_the_mlp_learns_what_no_matrix_can_and_serves_as_it_was_trained() -> None:
    rng = np.random.default_rng(2)
    x = unit_rows(rng.normal(size=(600, 8)).astype(np.float32))
    y = unit_rows(np.abs(x) + 0.1 * x)
    affine = fit_low_rank(x, y, rank=8, seed=0)
    bent = fit_mlp(x, y, start=affine, hidden_dim=64, seed=0)
    error = [float(1 - (m(x) * y).sum(axis=1).mean()) for m in (affine, bent)]
    assert error[1] < 0.5 * error[0]
    few = [fit_mlp(x[:80], y[:80], start=affine, hidden_dim=4, seed=seed).fingerprint for seed in (0, 0, 1)]
    assert few[0] == few[1] != few[2]


def test_a_model_of_another_dimension_serves_on_the_old_index(
    minilm: HuggingFaceEmbedding, dataset: EmbeddingQAFinetuneDataset, tmp_path: Path
) -> None:
    new = TurnedEmbedding(minilm, 256)
    drift = DriftAdapter.fit(minilm, new, dataset, k=10)
    report = drift.report
    assert [score.kind for score in report.scores] == ["procrustes", "low-rank", "mlp"]
    assert report.chosen.kept > 0.8
    assert report.chosen.ci95[0] <= report.chosen.kept <= report.chosen.ci95[1]
    assert report.recall_kept is not None
    assert report.recall_kept > 0.9
    assert f"{report.chosen.kept:.1%} of the full re-embed's 10 hits are kept" in str(report)

    drift.save(tmp_path / "drift")
    served = DriftEmbedding(new, tmp_path / "drift")
    assert identify(served) == identify(minilm)  # it searches the old model's index
    vector = np.array(served.get_query_embedding(QUERIES[0]))
    assert vector.shape == (384,)
    np.testing.assert_allclose(vector, drift(np.array([new.get_query_embedding(QUERIES[0])], np.float32))[0], atol=1e-6)
    assert vector @ np.array(minilm.get_query_embedding(QUERIES[0])) > 0.8


def test_a_map_beats_sending_the_queries_as_they_are(minilm: HuggingFaceEmbedding) -> None:
    report = DriftAdapter.fit(minilm, TurnedEmbedding(minilm, 384), TEXTS, queries=QUERIES, kind="procrustes").report
    none = next(score for score in report.scores if score.kind == "none")
    assert none.kept < 0.3 < 0.8 < report.chosen.kept
    assert (report.full_recall, report.recall_kept) == (None, None)  # no labels


def test_vectors_alone_are_enough(minilm: HuggingFaceEmbedding, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    old = unit_rows(rng.normal(size=(200, 16)).astype(np.float32))
    rotation = np.linalg.qr(rng.normal(size=(16, 16)))[0].astype(np.float32)
    drift = DriftAdapter.fit(
        old,
        old @ rotation,
        [str(i) for i in range(200)],
        kind="procrustes",
        old_identity=ModelIdentity("f" * 32, "gone"),
    )
    assert drift.report.chosen.kept == 1.0
    assert drift.report.pairs == 120  # two fifths play the queries
    drift.save(tmp_path / "d")
    assert read_drift(tmp_path / "d")[0]["old"]["name"] == "gone"
    with pytest.raises(ConfigError, match="pass the model as `new`"):
        DriftAdapter.fit(old, old, [str(i) for i in range(200)], queries=["a"] * 10)


def test_bad_input(minilm: HuggingFaceEmbedding) -> None:
    vectors = np.ones((60, 4), dtype=np.float32)
    texts = [str(i) for i in range(60)]
    with pytest.raises(ConfigError, match="at least 50 texts"):
        DriftAdapter.fit(minilm, minilm, texts[:20])
    with pytest.raises(ConfigError, match="`kind` is 'best'; it must be one of"):
        DriftAdapter.fit(vectors, vectors, texts, kind="best")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"`old` has shape \(60, 4\) for 59 texts"):
        DriftAdapter.fit(vectors, vectors, texts[:59])
    with pytest.raises(ConfigError, match="`rank`"):
        DriftAdapter.fit(vectors, vectors, texts, settings=DriftSettings(rank=0))
    vectors[3] = np.nan
    with pytest.raises(ModelError, match="1 of 60 vectors of the old model are NaN"):
        DriftAdapter.fit(vectors, np.ones_like(vectors), texts)
    with pytest.raises(ModelError, match="takes vectors of 4 dimensions"):
        DriftMap("procrustes", {"weight": np.eye(4, dtype=np.float32)})(np.ones((1, 5), dtype=np.float32))
