"""NUDGE: the mathematics against brute force, the engine over a model nobody can see into, and the index."""

from __future__ import annotations

import asyncio
import hashlib

import numpy as np
import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import TextNode

from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
from llama_index_embft.embeddings import ModelIdentity, NudgedEmbedding, load_embed_model
from llama_index_embft.errors import ConfigError, DatasetError, ModelError
from llama_index_embft.evaluation import evaluate_embed_model
from llama_index_embft.finetune import NudgeFinetuneEngine
from llama_index_embft.finetune.nudge import NudgeSettings, StepSearch, closed_form_step, movement
from llama_index_embft.finetune.nudge.steps import ndcg_if_not_moved, own_scores

DIM, DOCS = 24, 60


def vector(text: str, length: float = 1.0) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
    found = np.random.default_rng(seed).standard_normal(DIM)
    return length * found / np.linalg.norm(found)


class TopicEmbedding(BaseEmbedding):
    """A document and its questions share little; the questions of one document share a lot."""

    def identity(self, side, given=None):
        """A class that knows what decides its vectors speaks for itself."""
        return ModelIdentity.of(self.model_name, type(self).__name__, self.model_name, side)

    def _get_text_embedding(self, text: str) -> list[float]:
        return vector(text).tolist()

    def _get_query_embedding(self, query: str) -> list[float]:
        if query.startswith("="):  # asked in the document's own words: found already
            return vector(query[1:]).tolist()
        topic = query.split("/")[0]
        return (0.25 * vector(topic) + vector(f"how people ask about {topic}") + 0.5 * vector(query)).tolist()

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)


def questions(numbers: range, documents: range = range(DOCS)) -> EmbeddingQAFinetuneDataset:
    return EmbeddingQAFinetuneDataset(
        queries={f"q{i}-{n}": f"document {i}/{n}" for i in documents for n in numbers},
        corpus={f"d{i}": f"document {i}" for i in range(DOCS)},
        relevant_docs={f"q{i}-{n}": [f"d{i}"] for i in documents for n in numbers},
    )


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def random_problem(seed: int, n_docs: int = 24, n_queries: int = 36):
    dice = np.random.default_rng(seed)
    corpus = unit(dice.standard_normal((n_docs, 6))).astype(np.float32)
    queries = unit(dice.standard_normal((n_queries, 6))).astype(np.float32)
    positives = [sorted(set(dice.integers(0, n_docs // 2, dice.integers(1, 3)).tolist())) for _ in range(n_queries)]
    return corpus, queries, positives


# --- mathematics ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("step", [0.05, 0.4, 2.0])
def test_variant_n_is_the_best_movement_on_the_sphere(seed: int, step: float) -> None:
    corpus, queries, positives = random_problem(seed)
    moves = movement(corpus, queries, positives, "N")
    moved = moves.at(step)
    np.testing.assert_allclose(np.linalg.norm(moved, axis=1), 1.0, atol=1e-5)
    angle = np.arccos(np.clip((moved * corpus[moves.rows]).sum(1), -1, 1))
    np.testing.assert_allclose(angle, np.minimum(step, moves.furthest), atol=2e-3)
    # No other unit vector as close to the old place is more similar to the queries.
    dice = np.random.default_rng(seed)
    for row, here, allowed in zip(moves.rows, moved, angle, strict=True):
        total = sum(queries[n] for n, rows in enumerate(positives) if row in rows)
        others = unit(corpus[row] + dice.standard_normal((2000, 6)) * np.tan(min(allowed, 1.4)))
        others = others[others @ corpus[row] >= np.cos(allowed)]
        assert (others @ total <= here @ total + 1e-4).all()


def test_variant_m_moves_by_the_step_towards_the_sum_of_the_queries() -> None:
    corpus, queries, positives = random_problem(0)
    moves = movement(corpus, queries, positives, "M")
    assert moves.rows.tolist() == sorted({row for rows in positives for row in rows})
    np.testing.assert_allclose(np.linalg.norm(moves.at(0.7) - corpus[moves.rows], axis=1), 0.7, atol=1e-5)
    total = sum(queries[n] for n, rows in enumerate(positives) if moves.rows[0] in rows)
    np.testing.assert_allclose(moves.at(0.7)[0] - corpus[moves.rows[0]], 0.7 * unit(total), atol=1e-5)


@pytest.mark.parametrize("seed", range(8))
def test_the_closed_form_finds_the_most_queries_with_a_relevant_document_first(seed: int) -> None:
    corpus, queries, positives = random_problem(seed)
    moves = movement(corpus, queries[:25], positives[:25], "M")
    asked, wanted = queries[25:], positives[25:]
    step, count = closed_form_step(asked, corpus, wanted, moves, block=4)

    def first(step: float) -> int:
        moved = corpus.astype(np.float64)
        moved[moves.rows] += step * moves.towards
        return sum(best in rows for best, rows in zip((asked @ moved.T).argmax(1), wanted, strict=True))

    assert first(step) == count
    # Between two crossings of lines nothing changes, so their midpoints see every ranking there is.
    slopes = np.zeros((len(asked), len(corpus)))
    slopes[:, moves.rows] = asked @ moves.towards.T
    lead = (asked @ corpus.T)[:, :, None] - (asked @ corpus.T)[:, None, :]
    gain = slopes[:, None, :] - slopes[:, :, None]
    crossings = np.unique(lead[np.abs(gain) > 1e-9] / gain[np.abs(gain) > 1e-9])
    crossings = np.concatenate([[0.0], crossings[crossings > 0], [2 * crossings.max() + 1]])
    assert count == max(map(first, (crossings[1:] + crossings[:-1]) / 2))


@pytest.mark.parametrize("seed", range(12))
def test_the_closed_form_of_variant_n_finds_what_no_fine_grid_beats(seed: int) -> None:
    corpus, queries, positives = random_problem(seed, n_docs=12 + seed)
    corpus[-1] = corpus[0]  # a copy of a document that moves, itself staying: level at the start
    positives = [[0], *positives[1:]]
    moves = movement(corpus, queries[:25], positives[:25], "N")
    asked, wanted = queries[25:], positives[25:]
    step, count = closed_form_step(asked, corpus, wanted, moves, block=4)

    def first(step: float) -> int:
        moved = unit(corpus.astype(np.float64))
        angle = np.minimum(step, moves.furthest.astype(np.float64))[:, None]
        moved[moves.rows] = np.cos(angle) * moves.start + np.sin(angle) * moves.towards
        scores = asked.astype(np.float64) @ moved.T
        others = scores.copy()
        for row, rows in enumerate(wanted):
            others[row, rows] = -np.inf
        return sum(scores[row, rows].max() > others[row].max() + 1e-7 for row, rows in enumerate(wanted))

    assert 0 <= step <= moves.furthest.max()
    assert first(step) == count
    assert count >= max(first(x) for x in np.linspace(0, moves.furthest.max(), 3000))


@pytest.mark.parametrize("variant", ["N", "M"])
def test_the_closed_form_in_blocks_and_with_nothing_that_stays(variant) -> None:
    corpus, queries, _ = random_problem(1, n_docs=8)
    everything = [[row % 8] for row in range(len(queries))]
    moves = movement(corpus, queries[:16], everything[:16], variant)
    assert len(moves.rows) == 8
    whole = closed_form_step(queries[16:], corpus, everything[16:], moves, block=100)
    assert whole == closed_form_step(queries[16:], corpus, everything[16:], moves, block=1)
    assert whole[1] > 0


@pytest.mark.parametrize("variant", ["N", "M"])
def test_a_memory_mapped_corpus_is_searched_in_blocks(variant, tmp_path, monkeypatch) -> None:
    corpus, queries, positives = random_problem(2)
    np.save(tmp_path / "corpus.npy", corpus)
    mapped = np.load(tmp_path / "corpus.npy", mmap_mode="r")
    moves = movement(corpus, queries, positives, variant)
    expected = StepSearch(queries, corpus, moves, depth=30).after(0.3).rows
    step = closed_form_step(queries, corpus, positives, moves)
    monkeypatch.setattr("llama_index_embft.finetune.nudge.steps._ROWS_PER_BLOCK", 5)
    assert (StepSearch(queries, mapped, moves, depth=30).after(0.3).rows == expected).all()
    assert (expected[:, 24:] == -1).all()  # there are 24 documents
    assert closed_form_step(queries, mapped, positives, moves) == step


@pytest.mark.parametrize("variant", ["N", "M"])
def test_a_step_is_searched_as_the_whole_moved_corpus_would_be(variant) -> None:
    corpus, queries, positives = random_problem(3)
    moves = movement(corpus, queries, positives, variant)
    search = StepSearch(queries, corpus, moves, depth=10)
    for step in (0.0, 0.3, 1.5):
        moved = corpus.copy()
        moved[moves.rows] = moves.at(step)
        scores = queries @ (unit(moved) if variant == "N" else moved).T
        assert (search.after(step).rows == np.argsort(-scores, axis=1, kind="stable")[:, :10]).all()


# --- engine -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["N", "M"])
def test_new_questions_about_the_same_documents_are_answered_better(variant, tmp_path) -> None:
    model = TopicEmbedding(model_name="topics")
    engine = NudgeFinetuneEngine(
        questions(range(3)), model, questions(range(3, 5)), variant=variant, model_output_path=str(tmp_path / "n")
    )
    result = engine.finetune()
    tuned = engine.get_finetuned_model()
    assert (result.moved_documents, result.val_queries, result.val_queries_reached) == (DOCS, 2 * DOCS, 2 * DOCS)
    assert result.best_score > result.base_score + 0.1
    similarity = "cosine" if variant == "N" else "dot"
    test = questions(range(5, 8))
    before = evaluate_embed_model(test, model, similarity=similarity, cache=None).mean("ndcg@10")
    after = evaluate_embed_model(test, tuned, similarity=similarity, cache=None).mean("ndcg@10")
    assert after > before + 0.1
    # What the report says about validation is what the loaded model does.
    again = evaluate_embed_model(questions(range(3, 5)), tuned, similarity=similarity, cache=None)
    assert again.mean("ndcg@10") == pytest.approx(result.best_score, abs=1e-6)


def test_questions_about_other_documents_get_an_answer_instead_of_a_zero(tmp_path) -> None:
    model = TopicEmbedding(model_name="topics")
    train = questions(range(3), range(30))
    val = EmbeddingQAFinetuneDataset(
        queries={f"v{i}": f"=document {i}" for i in range(30, DOCS)},
        corpus=train.corpus,
        relevant_docs={f"v{i}": [f"d{i}"] for i in range(30, DOCS)},
    )
    engine = NudgeFinetuneEngine(train, model, val, model_output_path=str(tmp_path / "n"))
    result = engine.finetune()
    assert (result.step, result.moved_documents, result.best_score) == (0, 0, result.base_score)
    assert "0 of 30 validation queries" in str(result)
    assert "split by query" in str(result)
    tuned = engine.get_finetuned_model()
    assert tuned.get_text_embedding("document 1") == pytest.approx(model.get_text_embedding("document 1"))


def test_without_a_validation_set_a_fifth_of_the_queries_chooses(tmp_path) -> None:
    data = questions(range(4))
    engine = NudgeFinetuneEngine(data, TopicEmbedding(model_name="topics"), model_output_path=str(tmp_path / "n"))
    held, kept = set(engine.val_dataset.queries), set(engine.dataset.queries)
    assert held | kept == set(data.queries)
    assert not held & kept
    assert len(held) == DOCS * 4 // 5
    result = engine.finetune()
    assert result.val_queries_reached == result.val_queries == len(held)
    assert result.improved


def test_only_documents_with_a_training_query_change(tmp_path) -> None:
    model = TopicEmbedding(model_name="topics")
    some = range(0, DOCS, 2)
    engine = NudgeFinetuneEngine(
        questions(range(3), some), model, questions(range(3, 5), some), model_output_path=str(tmp_path / "n")
    )
    result = engine.finetune()
    tuned = load_embed_model(tmp_path / "n", base_embed_model=model)
    assert isinstance(tuned, NudgedEmbedding)
    assert set(tuned.moved) == {f"d{i}" for i in some} == set(result.ids)
    texts = [f"document {i}" for i in range(DOCS)]
    batch = tuned.get_text_embedding_batch(texts)
    same = [np.allclose(batch[i], model.get_text_embedding(texts[i]), atol=1e-6) for i in range(DOCS)]
    assert same == [i not in some for i in range(DOCS)]
    assert batch == asyncio.run(tuned.aget_text_embedding_batch(texts))
    assert batch[7] == tuned.get_text_embedding(texts[7]) == asyncio.run(tuned.aget_text_embedding(texts[7]))
    assert tuned.get_query_embedding("document 2/0") == model.get_query_embedding("document 2/0")
    assert asyncio.run(tuned.aget_query_embedding("a/0")) == model.get_query_embedding("a/0")


def test_the_result_goes_into_a_vector_store_index(tmp_path) -> None:
    model = TopicEmbedding(model_name="topics")
    engine = NudgeFinetuneEngine(
        questions(range(3)), model, questions(range(3, 5)), model_output_path=str(tmp_path / "n")
    )
    engine.finetune()
    tuned = engine.get_finetuned_model()
    index = VectorStoreIndex([TextNode(id_=f"d{i}", text=f"document {i}") for i in range(DOCS)], embed_model=tuned)
    test = questions(range(5, 8))
    report = evaluate_embed_model(test, tuned, ks=(2,), cache=None)
    found = {
        q: [hit.node_id for hit in index.as_retriever(similarity_top_k=2).retrieve(t)] for q, t in test.queries.items()
    }
    hits = [set(test.relevant_docs[q]) <= set(found[q]) for q in test.queries]
    assert np.mean(hits) == pytest.approx(report.mean("hit_rate@2"))


@pytest.mark.parametrize("variant", ["N", "M"])
def test_documents_with_the_same_text_move_as_one(variant, tmp_path) -> None:
    """The index embeds by text: if only one id moved, search would not know which vector the text has."""
    model = TopicEmbedding(model_name="topics")

    def with_copies(data: EmbeddingQAFinetuneDataset, first: str) -> EmbeddingQAFinetuneDataset:
        return EmbeddingQAFinetuneDataset(
            queries=data.queries,
            corpus={**data.corpus, **{f"copy{i}": f"document {i}" for i in range(0, DOCS, 3)}},
            # Every second question names the copy, where there is one.
            relevant_docs={
                q: [f"copy{d[1:]}" if int(d[1:]) % 3 == 0 and q.endswith(first) else d]
                for q, [d] in data.relevant_docs.items()
            },
        )

    train, val = with_copies(questions(range(3)), "1"), with_copies(questions(range(3, 5)), "3")
    result = NudgeFinetuneEngine(train, model, val, variant=variant, model_output_path=str(tmp_path / "n")).finetune()
    tuned = load_embed_model(tmp_path / "n", base_embed_model=model)
    assert result.moved_documents == len(tuned.moved) == DOCS + DOCS // 3
    assert result.val_queries_reached == result.val_queries
    # All questions of a text decide where it goes, whichever id they name.
    alone = NudgeFinetuneEngine(
        questions(range(3)), model, questions(range(3, 5)), variant=variant, model_output_path=str(tmp_path / "m")
    )
    alone.finetune()
    for i in range(0, DOCS, 3):
        assert (
            tuned.moved[f"d{i}"] == tuned.moved[f"copy{i}"] == pytest.approx(tuned.get_text_embedding(f"document {i}"))
        )
    if result.step == pytest.approx(alone.finetune().step):
        assert tuned.moved["d3"] == pytest.approx(alone.get_finetuned_model().moved["d3"], abs=1e-6)
    # What validation promised is what the loaded model does.
    similarity = "cosine" if variant == "N" else "dot"
    again = evaluate_embed_model(val, tuned, similarity=similarity, cache=None)
    assert again.mean("ndcg@10") == pytest.approx(result.best_score, abs=1e-6)


def test_questions_of_a_text_with_two_ids_can_be_held_out() -> None:
    data = EmbeddingQAFinetuneDataset(
        queries={f"q{i}{x}": f"document {i}/{x}" for i in range(20) for x in "ab"},
        corpus={f"d{i}{x}": f"document {i}" for i in range(20) for x in "ab"},
        relevant_docs={f"q{i}{x}": [f"d{i}{x}"] for i in range(20) for x in "ab"},
    )
    engine = NudgeFinetuneEngine(data, TopicEmbedding(model_name="topics"))
    held = engine.val_dataset.queries.values()
    assert held
    assert {text.split("/")[0] for text in held} <= {text.split("/")[0] for text in engine.dataset.queries.values()}


def test_bad_input(tmp_path) -> None:
    model = TopicEmbedding(model_name="topics")
    data = questions(range(2))
    with pytest.raises(ConfigError, match="`variant` is 'X'; it must be one of 'N', 'M'"):
        NudgeFinetuneEngine(data, model, data, variant="X")
    with pytest.raises(ConfigError, match="`steps` is 0"):
        NudgeFinetuneEngine(data, model, data, search=NudgeSettings(steps=0))
    with pytest.raises(DatasetError, match="training set has no queries"):
        NudgeFinetuneEngine(data.subset([]), model)
    with pytest.raises(DatasetError, match="validation set has no query"):
        NudgeFinetuneEngine(data, model, data.subset([]))
    with pytest.raises(DatasetError, match="hardly any document has two"):
        NudgeFinetuneEngine(questions(range(1)), model)
    other = EmbeddingQAFinetuneDataset(queries={"q": "x"}, corpus={"far": "away"}, relevant_docs={"q": ["far"]})
    with pytest.raises(ConfigError, match="first: 'far'"):
        NudgeFinetuneEngine(data, model, other)
    same_ids = data.replace(corpus={doc: f"another {text}" for doc, text in data.corpus.items()})
    with pytest.raises(ConfigError, match="'d0' has one text in the training set and another in the validation set"):
        NudgeFinetuneEngine(data, model, same_ids)


def test_a_damaged_or_foreign_result_is_refused(tmp_path) -> None:
    model = TopicEmbedding(model_name="topics")
    NudgeFinetuneEngine(
        questions(range(3)), model, questions(range(3, 5)), model_output_path=str(tmp_path / "n")
    ).finetune()
    with pytest.raises(ModelError, match="another base model"):
        load_embed_model(tmp_path / "n", base_embed_model=TopicEmbedding(model_name="another"))
    with pytest.raises(ModelError, match="cannot be rebuilt"):
        load_embed_model(tmp_path / "n")
    file = tmp_path / "n" / "nudge.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="are damaged"):
        load_embed_model(tmp_path / "n", base_embed_model=model)
    file.unlink()
    with pytest.raises(ModelError, match="holds no moved vectors"):
        NudgedEmbedding(model, tmp_path / "n")


# --- documents that nobody has asked about --------------------------------------------------------------------------


class StyledEmbedding(TopicEmbedding):
    """All questions have a style in common that no document has: whoever moves towards them comes nearer to all."""

    def _get_query_embedding(self, query: str) -> list[float]:
        topic = query.split("/")[0]
        return (0.8 * vector(topic) + 1.5 * vector("the style of questions") + 0.4 * vector(query)).tolist()


@pytest.fixture
def styled(tmp_path):
    """Half of the documents have training queries; what queries about the others get, with the base and after."""

    def run(val_dataset: EmbeddingQAFinetuneDataset | None):
        train, base = questions(range(5), range(DOCS // 2)), StyledEmbedding()
        engine = NudgeFinetuneEngine(train, base, val_dataset, model_output_path=str(tmp_path / "moved"))
        result = engine.finetune()
        others = questions(range(5, 7), range(DOCS // 2, DOCS))
        models = (base, engine.get_finetuned_model())
        before, after = (evaluate_embed_model(others, model, cache=None).mean("ndcg@10") for model in models)
        return result, before, after

    return run


def test_what_unasked_documents_lose_is_foretold(styled, caplog) -> None:
    """Validation over the asked documents alone wants to move, and the result says at whose cost."""
    result, before, after = styled(questions(range(5, 7), range(DOCS // 2)))
    assert result.step > 0
    assert result.best_score > result.base_score
    assert after < before / 3
    assert (result.unasked_base, result.unasked_score) == pytest.approx((before, after), abs=0.1)
    assert f"expect nDCG@10 {result.unasked_score:.3f}, where it was {result.unasked_base:.3f}" in str(result)
    assert "50% of the documents have none and stayed" in caplog.text


def test_without_validation_queries_unasked_documents_are_not_given_up(styled) -> None:
    result, before, after = styled(None)
    assert after > before - 0.1
    assert result.unasked_score >= result.unasked_base - 0.02
    assert result.unasked_share == 0.5
    assert result.best_score >= result.base_score
    assert result.limited
    assert "queries about the 50% of the documents without a training query would fall to 0." in result.explanation


def test_where_few_queries_can_be_held_out_the_others_foretell_too(tmp_path) -> None:
    """One question a document, but for five documents: two of their ten are all that validation has."""
    once, twice = questions(range(1), range(DOCS // 2)), questions(range(2), range(5))
    data = once.model_copy(
        update={"queries": once.queries | twice.queries, "relevant_docs": once.relevant_docs | twice.relevant_docs}
    )
    base = StyledEmbedding()
    engine = NudgeFinetuneEngine(
        data, base, model_output_path=str(tmp_path / "moved"), search=NudgeSettings(max_unasked_loss=1.0)
    )
    result = engine.finetune()
    assert result.val_queries <= 2
    others = questions(range(5, 7), range(DOCS // 2, DOCS))
    models = (base, engine.get_finetuned_model())
    before, after = (evaluate_embed_model(others, model, cache=None).mean("ndcg@10") for model in models)
    assert result.step > 0
    # Of one query it would be 1, or what a lower rank of it gives.
    assert (result.unasked_base, result.unasked_score) == pytest.approx((before, after), abs=0.15)
    assert "So few say little" in result.explanation


def test_a_corpus_that_is_asked_about_as_a_whole_moves_as_validation_says(tmp_path) -> None:
    engine = NudgeFinetuneEngine(questions(range(5)), StyledEmbedding(), model_output_path=str(tmp_path / "moved"))
    result = engine.finetune()
    assert result.unasked_share == 0.0
    best = max(result.history, key=lambda entry: (entry["ndcg@10"], -entry["gamma"]))
    assert result.step == best["gamma"] > 0


def test_the_limit_can_be_set(tmp_path) -> None:
    train, val = questions(range(5), range(DOCS // 2)), questions(range(5, 7), range(DOCS // 2))
    steps = {}
    for limit in (0.0, 0.05, 1.0, None):
        folder = str(tmp_path / str(limit))
        engine = NudgeFinetuneEngine(
            train,
            StyledEmbedding(),
            val,
            model_output_path=folder,
            search=NudgeSettings(max_unasked_loss=limit),
            device="cpu",
        )
        result = engine.finetune()
        assert limit is None or 0.5 * (result.unasked_base - result.unasked_score) <= limit
        steps[limit] = result.step
    assert steps[0.0] <= steps[0.05] < steps[1.0] == steps[None]
    with pytest.raises(ConfigError, match="`max_unasked_loss` is -1; it must be at least 0"):
        NudgeSettings(max_unasked_loss=-1)


@pytest.mark.parametrize("variant", ["N", "M"])
def test_the_rank_of_a_document_that_stayed_is_that_of_brute_force(variant) -> None:
    corpus, queries, positives = random_problem(3)
    moves = movement(corpus, queries, positives, variant)
    hits = StepSearch(queries, corpus, moves, depth=12).after(0.4)
    found = ndcg_if_not_moved(hits, own_scores(queries, corpus, positives, moves), positives)
    moved = corpus.copy()
    moved[moves.rows] = moves.at(0.4)
    expected = []
    for query, rows in zip(queries, positives, strict=True):
        rank = 1 + int((np.delete(moved, rows, axis=0) @ query > (corpus[rows] @ query).max()).sum())
        expected.append(1 / np.log2(1 + rank) if rank <= 10 else 0.0)
    assert found == pytest.approx(np.mean(expected), abs=1e-6)
