"""Kinds of adapters, closed forms, both sides, fewer dimensions, hard negatives, and what "auto" chooses and shows."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import torch
from adapter_helpers import as_arguments
from llama_index.core import VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import TextNode

from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
from llama_index_embft.embeddings import (
    AdapterEmbedding,
    ModelIdentity,
    apply_adapter,
    linear_adapter,
    load_embed_model,
)
from llama_index_embft.embeddings.adapter import LowRankAdapter, TwoLayerAdapter
from llama_index_embft.errors import ConfigError, DatasetError, ModelError
from llama_index_embft.evaluation import evaluate_embed_model
from llama_index_embft.finetune import EmbeddingAdapterFinetuneEngine
from llama_index_embft.finetune.adapter import AdapterOptions, AdapterSettings, train_adapter
from llama_index_embft.finetune.adapter.candidates import with_duplicates
from llama_index_embft.finetune.adapter.closed_form import (
    low_rank_part,
    moments,
    principal_directions,
    procrustes_map,
    ridge_map,
)
from llama_index_embft.finetune.adapter.search import by_document

DIM, CLASSES = 16, 48


def noise(text: str, dim: int = DIM) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
    return np.random.default_rng(seed).standard_normal(dim)


class TurnedEmbedding(BaseEmbedding):
    """Queries live in a rotated copy of the documents' space, which a linear map can undo. Vectors have length 1."""

    def identity(self, side, given=None):
        """A class that knows what decides its vectors speaks for itself."""
        return ModelIdentity.of(self.model_name, type(self).__name__, self.model_name, side)

    def _unit(self, vector: np.ndarray) -> list[float]:
        return (vector / np.linalg.norm(vector)).tolist()

    def _get_text_embedding(self, text):
        return self._unit(noise(text.split()[-1]))

    def _get_query_embedding(self, query):
        turn = np.linalg.qr(np.random.default_rng(7).standard_normal((DIM, DIM)))[0]
        return self._unit(noise(query.split()[-1]) @ turn + 0.15 * noise(query))

    async def _aget_query_embedding(self, query):
        return self._get_query_embedding(query)


class NoisyEmbedding(TurnedEmbedding):
    """Half of the coordinates say nothing about who belongs to whom, and both sides have them."""

    def _get_text_embedding(self, text):
        return self._unit(np.concatenate([noise(text.split()[-1], DIM // 2), 2 * noise(f"noise {text}", DIM // 2)]))

    def _get_query_embedding(self, query):
        return self._get_text_embedding(query)


def data(form: str, numbers=range(CLASSES), corpus=range(CLASSES)) -> EmbeddingQAFinetuneDataset:
    return EmbeddingQAFinetuneDataset(
        queries={f"q{i}": f"{form} {i}" for i in numbers},
        corpus={f"d{i}": f"document {i}" for i in corpus},
        relevant_docs={f"q{i}": [f"d{i}"] for i in numbers},
    )


def several(forms: str, numbers=range(CLASSES)) -> EmbeddingQAFinetuneDataset:
    return EmbeddingQAFinetuneDataset(
        queries={f"{form}{i}": f"{form} {i}" for i in numbers for form in forms},
        corpus={f"d{i}": f"document {i}" for i in range(CLASSES)},
        relevant_docs={f"{form}{i}": [f"d{i}"] for i in numbers for form in forms},
    )


@pytest.fixture
def turned():
    return TurnedEmbedding(model_name="turned")


def engine(base, out, train=None, **options):
    options = {"epochs": 30, "batch_size": 16, "learning_rate": 1e-2, "cache": None, "device": "cpu"} | options
    return EmbeddingAdapterFinetuneEngine(
        train or data("train"), base, model_output_path=str(out), **as_arguments(**options)
    )


def record_of(folder) -> dict:
    return json.loads((folder / "embft.json").read_text())


# --- kinds ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "module"),
    [
        ({"kind": "linear", "bias": True}, torch.nn.Linear),
        ({"kind": "low-rank", "rank": 12, "bias": True}, LowRankAdapter),
        ({"kind": "mlp", "hidden_dim": 64}, TwoLayerAdapter),
        ({"kind": "linear", "learn_temperature": True, "temperature": 0.2}, torch.nn.Linear),
        ({"kind": "linear", "max_negatives": 20}, torch.nn.Linear),
        ({"kind": "linear", "negatives": "corpus"}, torch.nn.Linear),
    ],
)
def test_each_kind_learns_and_is_saved_and_loaded(turned, tmp_path, options, module):
    tuner = engine(turned, tmp_path / "a", val_dataset=data("val"), **options)
    result = tuner.finetune()
    assert result.best_score > result.base_score + 0.3
    loaded = load_embed_model(tmp_path / "a", base_embed_model=turned)
    assert isinstance(loaded.adapter, module)
    assert not loaded.transform_documents
    report = evaluate_embed_model(data("val"), loaded, cache=None)
    assert report.mean("ndcg@10") == pytest.approx(result.best_score, abs=1e-6)
    settings = record_of(tmp_path / "a")["settings"]
    assert settings["kind"] == options["kind"]
    # The base's vectors have length 1, and so have the adapter's.
    assert np.linalg.norm(loaded.get_query_embedding("new 3")) == pytest.approx(1.0, abs=1e-5)


def test_a_learned_temperature_moves_and_is_told(turned, tmp_path):
    history = engine(turned, tmp_path / "a", learn_temperature=True, temperature=0.2).finetune().history
    assert history[-1]["temperature"] < 0.15 < history[0]["temperature"]
    assert "temperature" not in engine(turned, tmp_path / "a", epochs=1).finetune().history[0]


def test_the_same_seed_gives_the_same_adapter(turned, tmp_path):
    torch.manual_seed(1)
    engine(turned, tmp_path / "a", kind="mlp", epochs=3, max_negatives=10).finetune()
    torch.manual_seed(2)
    engine(turned, tmp_path / "b", kind="mlp", epochs=3, max_negatives=10).finetune()
    engine(turned, tmp_path / "c", kind="mlp", epochs=3, max_negatives=10, seed=1).finetune()
    first, second, third = ((tmp_path / x / "adapter.safetensors").read_bytes() for x in "abc")
    assert first == second
    assert first != third


@pytest.mark.parametrize("kind", ["linear", "low-rank"])
@pytest.mark.parametrize("start", ["ridge", "procrustes"])
def test_closed_forms_alone_and_as_a_start(turned, tmp_path, kind, start):
    options = {"val_dataset": data("val"), "kind": kind, "start": start}
    options |= {"rank": DIM} if kind == "low-rank" else {}
    alone = engine(turned, tmp_path / "a", epochs=0, **options).finetune()
    assert (alone.steps, alone.best_step) == (0, 0)
    assert alone.best_score > alone.base_score + 0.3
    more = engine(turned, tmp_path / "b", epochs=5, learning_rate=1e-3, **options).finetune()
    assert more.best_score >= alone.best_score
    without = engine(turned, tmp_path / "c", epochs=0, kind=kind, start=start, ridge=0.5).finetune()
    assert without.base_score is None
    assert load_embed_model(tmp_path / "c", base_embed_model=turned).get_query_embedding("x 1")


def test_a_start_that_hurts_is_not_kept(tmp_path):
    """Training pairs that contradict the validation set: the ridge map is worse than nothing, and nothing is kept."""
    base = NoisyEmbedding(model_name="noisy")
    wrong = EmbeddingQAFinetuneDataset(
        queries=data("train").queries,
        corpus=data("train").corpus,
        relevant_docs={f"q{i}": [f"d{(i + 1) % CLASSES}"] for i in range(CLASSES)},
    )
    options = {"epochs": 0, "start": "ridge", "ridge": 0.001, "val_dataset": data("val")}
    result = engine(base, tmp_path / "a", wrong, **options).finetune()
    assert result.best_score == result.base_score
    assert "did not help" in str(result)
    adapter = load_embed_model(tmp_path / "a", base_embed_model=base).adapter
    assert torch.equal(adapter.weight, torch.eye(DIM))


# --- closed forms against plain algebra -------------------------------------------------------------------------------


def pairs(seed: int, n: int = 60, dim: int = 6):
    dice = np.random.default_rng(seed)
    queries = dice.standard_normal((n, dim)).astype(np.float32)
    documents = dice.standard_normal((n // 2, dim)).astype(np.float32)
    positives = [sorted(set(dice.integers(0, n // 2, 2).tolist())) for _ in range(n)]
    x = np.repeat(queries, [len(rows) for rows in positives], axis=0).astype(np.float64)
    y = np.concatenate([documents[rows] for rows in positives]).astype(np.float64)
    return queries, documents, positives, *(v / np.linalg.norm(v, axis=1, keepdims=True) for v in (x, y))


@pytest.mark.parametrize("bias", [False, True])
def test_ridge_is_where_the_gradient_is_zero(bias, monkeypatch):
    monkeypatch.setattr("llama_index_embft.finetune.adapter.closed_form._ROWS_AT_ONCE", 7)
    queries, documents, positives, x, y = pairs(0)
    xx, yx = moments(queries, documents, positives)
    w, b = ridge_map(xx, yx, 0.7, bias=bias)
    error = x @ w.T + (b if bias else 0) - y
    pull = 0.7 * np.trace(x.T @ x) / 6
    np.testing.assert_allclose(error.T @ x + pull * (w - np.eye(6)), 0, atol=1e-9)
    if bias:
        np.testing.assert_allclose(error.sum(axis=0), 0, atol=1e-9)
    else:
        assert b is None
    far = ridge_map(xx, yx, 1e9)[0]
    np.testing.assert_allclose(far, np.eye(6), atol=1e-6)


def test_procrustes_finds_a_rotation_and_is_the_best_one():
    queries, documents, positives, x, y = pairs(1)
    rotation = procrustes_map(*moments(queries, documents, positives), 0.0)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(6), atol=1e-9)
    loss = np.square(x @ rotation.T - y).sum()
    dice = np.random.default_rng(0)
    for _ in range(50):
        other = np.linalg.qr(rotation + 0.2 * dice.standard_normal((6, 6)))[0]
        other *= np.sign(np.sum(other * rotation, axis=0))
        assert np.square(x @ other.T - y).sum() >= loss - 1e-9
    turn = np.linalg.qr(dice.standard_normal((6, 6)))[0]
    found = procrustes_map(*moments(queries, (queries @ turn.T).astype(np.float32), [[i] for i in range(60)]), 0.0)
    np.testing.assert_allclose(found, turn, atol=1e-5)


def test_procrustes_leaves_unseen_directions_alone():
    queries = np.eye(6, dtype=np.float32)[:2]
    documents = np.eye(6, dtype=np.float32)[[1, 0]]
    rotation = procrustes_map(*moments(queries, documents, [[0], [1]]), 1e-6)
    np.testing.assert_allclose(rotation[2:, 2:], np.eye(4), atol=1e-5)
    np.testing.assert_allclose(rotation @ queries[0], documents[0], atol=1e-5)


def test_principal_directions_keep_the_most(monkeypatch):
    monkeypatch.setattr("llama_index_embft.finetune.adapter.closed_form._ROWS_AT_ONCE", 7)
    documents = np.random.default_rng(0).standard_normal((40, 6)).astype(np.float32) * np.array([5, 1, 4, 1, 3, 1])
    unit = documents / np.linalg.norm(documents, axis=1, keepdims=True)
    kept = principal_directions(documents.astype(np.float32), 3)
    np.testing.assert_allclose(kept @ kept.T, np.eye(3), atol=1e-9)
    sizes = np.linalg.svd(unit, compute_uv=False)
    assert np.square(unit @ kept.T).sum() == pytest.approx(np.square(sizes[:3]).sum(), rel=1e-6)


def test_the_low_rank_part_of_a_low_rank_map_is_the_map():
    dice = np.random.default_rng(0)
    matrix = np.eye(6) + dice.standard_normal((6, 2)) @ dice.standard_normal((2, 6))
    up, down = low_rank_part(matrix, 2)
    np.testing.assert_allclose(np.eye(6) + up @ down, matrix, atol=1e-9)


# --- both sides, fewer dimensions -------------------------------------------------------------------------------------


def test_both_sides_learn_what_matters_and_change_the_index(tmp_path):
    base = NoisyEmbedding(model_name="noisy")
    tuner = engine(base, tmp_path / "a", sides="both", val_dataset=data("val"), patience=30)
    result = tuner.finetune()
    assert result.best_score > result.base_score + 0.1
    tuned = tuner.get_finetuned_model()
    assert tuned.transform_documents
    again = evaluate_embed_model(data("val"), tuned, cache=None).mean("ndcg@10")
    assert again == pytest.approx(result.best_score, abs=1e-6)
    index = VectorStoreIndex([TextNode(id_=i, text=t) for i, t in data("x").corpus.items()], embed_model=tuned)
    hits = [index.as_retriever(similarity_top_k=1).retrieve(f"new {i}")[0].node_id == f"d{i}" for i in range(CLASSES)]
    assert np.mean(hits) > evaluate_embed_model(data("new"), base, cache=None).mean("hit_rate@1")
    more = EmbeddingAdapterFinetuneEngine.from_model_path(
        data("train"), base, str(tmp_path / "a"), model_output_path=str(tmp_path / "b"), epochs=1, cache=None
    )
    more.finetune()
    assert more.get_finetuned_model().transform_documents


@pytest.mark.parametrize("start", [None, "identity"])
def test_fewer_dimensions_are_learned(tmp_path, start):
    base = NoisyEmbedding(model_name="noisy")
    options = {"sides": "both", "output_dim": DIM // 2, "start": start, "val_dataset": data("val"), "patience": 30}
    result = engine(base, tmp_path / "a", **options).finetune()
    tuned = load_embed_model(tmp_path / "a", base_embed_model=base)
    for vector in (tuned.get_query_embedding("x 1"), tuned.get_text_embedding("x 1")):
        assert len(vector) == DIM // 2
        assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-5)
    assert result.best_score >= result.history[0]["ndcg@10"]
    assert result.best_score > result.base_score  # half of the coordinates are noise


def test_fewer_dimensions_may_cost_something_and_the_result_says_so(turned, tmp_path):
    result = engine(
        turned, tmp_path / "a", data("document"), sides="both", output_dim=2, epochs=1, val_dataset=data("document")
    ).finetune()
    assert len(load_embed_model(tmp_path / "a", base_embed_model=turned).get_query_embedding("x 1")) == 2
    assert "did not help" not in str(result)


# --- hard negatives ---------------------------------------------------------------------------------------------------


def test_hard_negatives_are_those_of_their_own_query_only():
    """Query 0 is pushed away from its own negative, and no other query from it."""
    corpus = np.eye(4, dtype=np.float32)
    queries = (corpus[:2] + corpus[2]) / np.sqrt(2, dtype=np.float32)
    options = AdapterOptions(batch_size=2, epochs=20, learning_rate=1e-2)
    settings = AdapterSettings(temperature=0.1, patience=99)

    def similarity_to_the_negative(**more):
        adapter = linear_adapter(4)
        train_adapter(adapter, queries, corpus, [[0], [1]], options, settings, candidates=2, **more)
        turned = apply_adapter(adapter, queries, normalize=True)
        return turned[:, 2]

    plain = similarity_to_the_negative()
    pushed = similarity_to_the_negative(hard_negatives=[[2], []])
    assert pushed[0] < plain[0] - 0.05
    # A document that is known to be relevant, or has its vector, is no negative whatever the list says.
    np.testing.assert_allclose(similarity_to_the_negative(hard_negatives=[[0], [1]]), plain)


@pytest.mark.parametrize("limit", [65_536, 3])
def test_hard_negatives_count_once_whether_candidates_are_sampled_or_not(limit):
    corpus = np.random.default_rng(0).standard_normal((12, 6)).astype(np.float32)
    options = AdapterOptions(batch_size=4, epochs=2, learning_rate=1e-3)
    settings = AdapterSettings(temperature=0.1, patience=99, max_negatives=limit)
    more = {"hard_negatives": [[i + 1, i + 6] for i in range(5)], "candidates": 6}
    positives = [[i] for i in range(5)]
    best, steps = train_adapter(linear_adapter(6), corpus[:5], corpus, positives, options, settings, **more)
    assert steps == 4
    assert all(np.isfinite(entry["loss"]) for entry in best.history)


def test_the_engine_takes_hard_negatives_from_the_data(turned, tmp_path):
    plain = data("train", range(30))
    hard = plain.model_copy(update={"negative_docs": {f"q{i}": [f"d{i + 15}", "d40"] for i in range(30) if i < 15}})
    weights = {}
    for name, dataset, wanted in [("hard", hard, True), ("off", hard, False), ("plain", plain, True)]:
        engine(turned, tmp_path / name, dataset, epochs=2, hard_negatives=wanted).finetune()
        weights[name] = (tmp_path / name / "adapter.safetensors").read_bytes()
    assert weights["hard"] != weights["plain"]
    assert weights["off"] == weights["plain"]


def test_documents_with_the_same_vector_are_found_in_blocks(monkeypatch, tmp_path):
    monkeypatch.setattr("llama_index_embft.finetune.adapter.candidates._ROWS_AT_ONCE", 3)
    vectors = np.random.default_rng(0).standard_normal((20, 5)).astype(np.float32)
    vectors[[4, 17]] = vectors[2]
    vectors[9] = vectors[2][::-1]
    np.save(tmp_path / "v.npy", vectors)
    found = with_duplicates(np.load(tmp_path / "v.npy", mmap_mode="r"), [[2, 5], [17], [9]])
    assert [rows.tolist() for rows in found] == [[2, 4, 5, 17], [2, 4, 17], [9]]


# --- auto -------------------------------------------------------------------------------------------------------------


def test_auto_tries_a_set_on_validation_and_keeps_the_table(turned, tmp_path):
    train = several("abcde", range(40))
    tuner = engine(turned, tmp_path / "a", train, kind="auto", epochs=3, learning_rate=1e-3, val_dataset=data("val"))
    result = tuner.finetune()
    tries = result.tries
    assert [row["kind"] for row in tries] == [
        "base model",
        *["linear"] * 3,
        "low-rank",
        "linear",
        "mlp",
        *["linear"] * 2,
    ]
    assert tries[0]["ndcg@10"] == result.base_score
    chosen = [row for row in tries if row.get("note") == "chosen"]
    assert len(chosen) == 1
    assert chosen[0]["ndcg@10"] == result.best_score == max(row["ndcg@10"] for row in tries)
    record = record_of(tmp_path / "a")
    assert record["tries"] == tries
    assert (record["selection"], record["settings"]["kind"]) == ("validation", chosen[0]["kind"])
    tuned = tuner.get_finetuned_model()
    assert evaluate_embed_model(data("val"), tuned, cache=None).mean("ndcg@10") == pytest.approx(result.best_score)


def test_auto_stops_when_the_time_is_up_and_says_what_it_left_out(turned, tmp_path):
    train = several("abcde", range(40))
    options = {"kind": "auto", "time_budget": 1e-9, "val_dataset": data("val")}
    result = engine(turned, tmp_path / "a", train, **options).finetune()
    assert [row.get("note") for row in result.tries[2:]] == ["not tried: the time was up"] * 7
    assert len(result.history) == 2  # the start and one epoch
    assert (tmp_path / "a" / "adapter.safetensors").is_file()


@pytest.mark.parametrize("sides", ["query", "both"])
def test_auto_chooses_by_folds_without_a_validation_set(tmp_path, sides):
    base = TurnedEmbedding(model_name="t") if sides == "query" else NoisyEmbedding(model_name="n")
    options = {"kind": "auto", "epochs": 4, "learning_rate": 3e-3, "folds": 3, "sides": sides}
    tuner = engine(base, tmp_path / "a", several("ab"), **options)
    result = tuner.finetune()
    assert result.selection == "3 folds'"
    assert result.best_score > result.base_score
    [chosen] = [row for row in result.tries if row.get("note") == "chosen"]
    assert chosen["ndcg@10"] == result.best_score == max(row["ndcg@10"] for row in result.tries)
    assert result.best_step == result.steps == result.history[-1]["step"]
    before, after = (
        evaluate_embed_model(several("z"), model, cache=None).mean("ndcg@10")
        for model in (base, tuner.get_finetuned_model())
    )
    assert after > before


def test_folds_that_find_nothing_better_keep_the_base(tmp_path):
    """Relevance by chance: what one part teaches says nothing about another."""
    dice = np.random.default_rng(0)
    random = EmbeddingQAFinetuneDataset(
        queries={f"q{i}": f"document {i}" for i in range(40)},
        corpus={f"d{i}": f"document {i}" for i in range(CLASSES)},
        relevant_docs={f"q{i}": [f"d{i}"] for i in range(40)},
    )
    base = NoisyEmbedding(model_name="noisy")  # finds every document by its own words already
    result = engine(
        base, tmp_path / "a", random, kind="auto", epochs=2, learning_rate=dice.uniform(0.01, 0.02)
    ).finetune()
    assert result.best_score == result.base_score == 1.0
    assert result.tries[0]["note"] == "chosen"
    assert torch.equal(load_embed_model(tmp_path / "a", base_embed_model=base).adapter.weight, torch.eye(DIM))


def test_what_folds_chose_is_checked_on_the_validation_set(turned, tmp_path):
    small = several("ab", range(40))
    options = {"kind": "auto", "epochs": 3, "learning_rate": 3e-3, "folds": 3}
    result = engine(turned, tmp_path / "a", small, val_dataset=data("val"), **options).finetune()
    assert result.selection == "3 folds' choice, validation"
    assert [entry["step"] for entry in result.history] == [0, result.steps]
    tuned = load_embed_model(tmp_path / "a", base_embed_model=turned)
    assert evaluate_embed_model(data("val"), tuned, cache=None).mean("ndcg@10") == pytest.approx(result.best_score)
    # A validation set on which the base is perfect: the folds' choice is worse there, and is not kept.
    found = {f"q{i}": [max(data("v").corpus, key=lambda d: _cosine(turned, f"v {i}", d))] for i in range(CLASSES)}
    easy = EmbeddingQAFinetuneDataset(queries=data("v").queries, corpus=data("v").corpus, relevant_docs=found)
    kept = engine(turned, tmp_path / "b", small, val_dataset=easy, **options).finetune()
    assert kept.best_score == kept.base_score > 0.5
    assert kept.best_step == 0


def _cosine(model: BaseEmbedding, query: str, doc: str) -> float:
    return float(np.dot(model.get_query_embedding(query), model.get_text_embedding(f"document {doc[1:]}")))


def test_auto_with_fewer_dimensions_and_with_too_little_time_for_a_fold(tmp_path):
    base = NoisyEmbedding(model_name="noisy")
    options = {"kind": "auto", "sides": "both", "output_dim": 4, "epochs": 2, "folds": 2}
    result = engine(base, tmp_path / "a", **options).finetune()
    assert len(load_embed_model(tmp_path / "a", base_embed_model=base).get_query_embedding("x 1")) == 4
    assert {row.get("start") for row in result.tries[1:]} == {"pca", "identity"}
    result = engine(base, tmp_path / "b", kind="auto", time_budget=1e-9, epochs=2).finetune()
    assert result.tries[1]["note"] == "not tried: the time was up"
    assert result.best_score == result.base_score


def test_folds_keep_what_hangs_together_in_one_part():
    dataset = EmbeddingQAFinetuneDataset(
        queries={f"q{i}": str(i) for i in range(9)},
        corpus={**{f"d{i}": f"text {i}" for i in range(8)}, "copy": "text 7"},
        relevant_docs={**{f"q{i}": [f"d{i // 2}"] for i in range(7)}, "q7": ["d7", "d0"], "q8": ["copy"]},
    )
    parts = by_document(dataset, 3, seed=0)
    assert sorted(q for part in parts for q in part) == sorted(dataset.queries)
    part_of = {query: number for number, part in enumerate(parts) for query in part}
    assert part_of["q0"] == part_of["q1"] == part_of["q7"] == part_of["q8"]
    assert part_of["q2"] == part_of["q3"]
    assert len(parts) == 3
    one = dataset.subset(["q0", "q1"])
    with pytest.raises(DatasetError, match="give a val_dataset"):
        by_document(one, 3, seed=0)


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "quadratic"}, r"`kind` is 'quadratic'; it must be one of 'linear', 'low-rank', 'mlp', 'auto'"),
        ({"sides": "document"}, "`sides` is 'document'; it must be one of 'query', 'both'"),
        ({"start": "zero"}, "`start` is 'zero'; it must be one of"),
        ({"output_dim": 4}, "pass sides='both'"),
        ({"output_dim": 4, "sides": "both", "kind": "mlp"}, "output_dim needs a linear adapter"),
        ({"start": "ridge", "sides": "both"}, "with sides='both' use 'identity'"),
        ({"start": "pca"}, "give output_dim as well"),
        ({"start": "ridge", "kind": "mlp"}, "kind 'mlp' cannot start from one; leave start out"),
        ({"start": "ridge", "kind": "auto"}, "leave start out"),
        ({"kind": "auto", "model_checkpoint_path": "x"}, "checkpoints are of one"),
        ({"kind": "mlp", "adapter_model": torch.nn.Linear(DIM, DIM)}, "leave kind, start and output_dim out"),
        ({"rank": 0}, "`rank` is 0; it must be at least 1"),
        ({"max_negatives": 0}, "`max_negatives` is 0"),
        ({"time_budget": 0}, "`time_budget` is 0"),
        ({"folds": 1}, "`folds` is 1; it must be at least 2"),
        ({"ridge": -1.0}, r"`ridge` is -1.0; it must be at least 0"),
        ({"epochs": -1, "start": "ridge"}, "`epochs` is -1; it must be at least 0"),
    ],
)
def test_bad_arguments(turned, tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        engine(turned, tmp_path / "a", **options)


def test_more_dimensions_than_there_are(turned, tmp_path):
    with pytest.raises(ConfigError, match="`output_dim` is 99; it must be at most 16"):
        engine(turned, tmp_path / "a", sides="both", output_dim=99).finetune()


class ChangingEmbedding(TurnedEmbedding):
    """A model that was replaced behind its name, or that breaks on one text."""

    on: str
    vector: list[float]

    def _get_text_embedding(self, text):
        return self.vector if text == self.on else super()._get_text_embedding(text)

    def _get_query_embedding(self, query):
        return self.vector if query == self.on or self.on == "queries" else super()._get_query_embedding(query)


@pytest.mark.parametrize(
    ("on", "vector", "message"),
    [
        ("queries", [1.0] * 4, "returns 4 dimensions for queries, but returned 16 for documents; if the model behind"),
        ("train 3", [0.0] * DIM, "returned vectors of zeros for 1 of 48 queries, the first of them 'train 3'; a zero"),
        ("document 5", [0.0] * DIM, "returned vectors of zeros for 1 of 48 documents, the first of them 'document 5'"),
        ("val 5", [0.0] * DIM, "returned vectors of zeros for 1 of 48 queries, the first of them 'val 5'"),
        ("train 3", [float("nan")] * DIM, "returned NaN or infinity for 1 of 48 texts, the first of them 'train 3'"),
        ("document 5", [float("inf")] * DIM, "returned NaN or infinity for 1 of 48 texts"),
    ],
)
def test_a_base_model_that_returns_what_it_must_not(tmp_path, on, vector, message):
    base = ChangingEmbedding(model_name="changing", on=on, vector=vector)
    with pytest.raises(ModelError, match=message):
        engine(base, tmp_path / "a", val_dataset=data("val")).finetune()
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("two_layers", [False, True])
def test_goes_on_from_an_adapter_of_the_stock_package(turned, tmp_path, two_layers):
    from llama_index.embeddings.adapter.utils import LinearLayer, TwoLayerNN

    layer = TwoLayerNN(DIM, 8, DIM, add_residual=True) if two_layers else LinearLayer(DIM, DIM)
    layer.save(str(tmp_path / "stock"))
    tuner = EmbeddingAdapterFinetuneEngine.from_model_path(
        data("train"),
        turned,
        str(tmp_path / "stock"),
        model_output_path=str(tmp_path / "a"),
        epochs=3,
        learning_rate=1e-2,
        val_dataset=data("val"),
        cache=None,
    )
    result = tuner.finetune()
    assert result.best_score >= result.base_score == result.history[0]["ndcg@10"]
    assert record_of(tmp_path / "a")["kind"] == "adapter"
    assert load_embed_model(tmp_path / "a", base_embed_model=turned).get_query_embedding("x 1")


def test_a_loaded_result_is_an_adapter_embedding(turned, tmp_path):
    tuner = engine(turned, tmp_path / "a", kind="low-rank", epochs=1)
    tuner.finetune()
    tuned = tuner.get_finetuned_model()
    assert isinstance(tuned, AdapterEmbedding)
    again = AdapterEmbedding.from_dict(json.loads(json.dumps(tuned.to_dict())))
    assert again.get_query_embedding("x 1") == tuned.get_query_embedding("x 1")
