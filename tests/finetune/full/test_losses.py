"""Which data gets which loss, and that our own loss is what it says."""

from __future__ import annotations

import math

import pytest
import torch
from sentence_transformers import SentenceTransformer

from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
from llama_index_embft.errors import ConfigError, ModelError
from llama_index_embft.finetune.full.data.rows import scored_rows, training_rows
from llama_index_embft.finetune.full.losses.choosing import first_mini_batch, loss_maker
from llama_index_embft.finetune.full.losses.distillation import DistillationLoss
from llama_index_embft.finetune.full.settings import LossSettings

TEXTS = ["a red cat", "the green dog runs", "blue", "black birds fly far", "white fish", "grey stones lie"]


@pytest.fixture(scope="module")
def model(tiny_model_path) -> SentenceTransformer:
    return SentenceTransformer(tiny_model_path, device="cpu").eval()


def dataset(negatives: int = 2) -> EmbeddingQAFinetuneDataset:
    return EmbeddingQAFinetuneDataset(
        queries={f"q{n}": f"where is {text}" for n, text in enumerate(TEXTS)},
        corpus={f"d{n}": text for n, text in enumerate(TEXTS)},
        relevant_docs={f"q{n}": [f"d{n}"] for n in range(6)},
        negative_docs={f"q{n}": [f"d{(n + k) % 6}" for k in range(1, negatives + 1)] for n in range(6)},
    )


TEACHER = {f"q{n}": {f"d{(n + k) % 6}": 5.0 - 3.0 * k + 0.3 * n for k in range(3)} for n in range(6)}


def features(model, rows):
    columns = [name for name in rows.columns if name != "label"]
    return [model.preprocess(rows.columns[name]) for name in columns]


def name_of(loss) -> str:
    return type(loss).__name__


def test_the_shape_of_the_data_picks_the_loss(model):
    settings = LossSettings(temperature=0.02)
    plain = loss_maker(model, training_rows(dataset()), settings)
    assert name_of(plain.make(None)) == "MultipleNegativesRankingLoss"
    assert name_of(plain.make(4)) == "CachedMultipleNegativesRankingLoss"
    assert plain.make(4).scale == pytest.approx(50.0)
    guided = loss_maker(model, training_rows(dataset()), LossSettings(temperature=0.02, guide_model=model))
    assert name_of(guided.make(None)) == "GISTEmbedLoss"
    assert name_of(guided.make(4)) == "CachedGISTEmbedLoss"
    taught = loss_maker(model, training_rows(dataset(), teacher_scores=TEACHER), settings)
    assert name_of(taught.make(None)) == "DistillationLoss"
    scored = loss_maker(model, scored_rows(dataset()), settings, loss="cosent")
    assert name_of(scored.make(None)) == "CoSENTLoss"
    nested = loss_maker(model, training_rows(dataset()), LossSettings(matryoshka_dims=(8, 16)))
    assert nested.make(None).matryoshka_dims == (32, 16, 8)  # the full width is added


def test_a_guide_that_is_the_model_leaves_the_positives_and_drops_what_lies_nearer(model):
    """With the guide's margin at its end every negative is nearer than that, so nothing but the positive is left."""
    rows = training_rows(dataset(), max_negatives=1)
    assert rows.n_negatives == 1
    everything = loss_maker(model, rows, LossSettings(guide_margin=1.0, guide_model=model)).make(None)
    with torch.no_grad():
        assert float(everything(features(model, rows), None)) == pytest.approx(0.0, abs=1e-4)
        some = loss_maker(model, rows, LossSettings(guide_margin=0.0, guide_model=model)).make(None)
        none = loss_maker(model, rows, LossSettings()).make(None)
        assert float(some(features(model, rows), None)) <= float(none(features(model, rows), None)) + 1e-6


def kl(model, rows, **options) -> torch.Tensor:
    labels = torch.tensor(rows.columns["label"])
    loss = DistillationLoss(model, **options)
    return loss(features(model, rows), labels)


def test_pure_kl_is_that_of_sentence_transformers(model):
    from sentence_transformers.sentence_transformer.losses import DistillKLDivLoss
    from sentence_transformers.util import pairwise_cos_sim

    rows = training_rows(dataset(), teacher_scores=TEACHER)
    theirs = DistillKLDivLoss(model, similarity_fct=pairwise_cos_sim, student_temperature=0.1, teacher_temperature=2.0)(
        features(model, rows), torch.tensor(rows.columns["label"])
    )
    ours = kl(model, rows, kind="kl", weight=1.0, temperature=0.1, teacher_temperature=2.0)
    assert float(ours) > 0.01
    assert float(ours) * 0.1**2 == pytest.approx(float(theirs), rel=1e-5)


def test_pure_margin_is_that_of_sentence_transformers(model):
    from sentence_transformers.sentence_transformer.losses import MarginMSELoss
    from sentence_transformers.util import pairwise_cos_sim

    rows = training_rows(dataset(), teacher_scores=TEACHER)
    theirs = MarginMSELoss(model, similarity_fct=pairwise_cos_sim)(
        features(model, rows), torch.tensor(rows.columns["label"])
    )
    ours = kl(model, rows, kind="margin", weight=1.0, temperature=1.0, teacher_temperature=1.0)
    assert float(ours) == pytest.approx(float(theirs), rel=1e-5)


def test_without_weight_it_is_the_contrastive_loss(model):
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    rows = training_rows(dataset(), teacher_scores=TEACHER)
    theirs = MultipleNegativesRankingLoss(model, scale=20.0)(features(model, rows), None)
    assert float(kl(model, rows, weight=0.0, temperature=0.05)) == pytest.approx(float(theirs), rel=1e-5)


@pytest.mark.parametrize("kind", ["kl", "margin"])
def test_what_the_teacher_did_not_score_is_left_out(model, kind):
    rows = training_rows(dataset(), teacher_scores=TEACHER)
    labels = torch.tensor(rows.columns["label"])
    # The teacher says nothing about rows 3 to 5, nor about the last negative of the others.
    labels[3:] = math.nan
    labels[:, 2] = math.nan
    loss = DistillationLoss(model, kind, weight=1.0, temperature=0.1)
    partial = loss(features(model, rows), labels)
    few = training_rows(dataset(1).subset(["q0", "q1", "q2"], keep_corpus=True), teacher_scores=TEACHER)
    assert float(partial) == pytest.approx(float(kl(model, few, kind=kind, weight=1.0, temperature=0.1)), rel=1e-5)
    model.zero_grad()
    partial.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    assert float(loss(features(model, rows), torch.full_like(labels, math.nan))) == 0.0


@pytest.mark.parametrize("dims", [None, (8, 16)])
def test_mini_batches_change_neither_loss_nor_gradients(model, dims):
    rows = training_rows(dataset(), teacher_scores=TEACHER)
    labels = torch.tensor(rows.columns["label"])
    maker = loss_maker(model, rows, LossSettings(matryoshka_dims=dims))
    found = []
    for mini in (None, 2, 4):
        model.zero_grad()
        loss = maker.make(mini)(features(model, rows), labels)
        loss.backward()
        found.append((float(loss), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])))
    for loss, gradient in found[1:]:
        assert loss == pytest.approx(found[0][0], rel=1e-5)
        assert torch.allclose(gradient, found[0][1], rtol=1e-3, atol=1e-5)
    assert found[0][1].abs().max() > 1e-4


def test_bounded_scores_are_sharpened_and_logits_are_not(model):
    logits = loss_maker(model, training_rows(dataset(), teacher_scores=TEACHER), LossSettings()).make(None)
    squeezed = {q: {d: 1 / (1 + math.exp(-s)) for d, s in docs.items()} for q, docs in TEACHER.items()}
    bounded = loss_maker(model, training_rows(dataset(), teacher_scores=squeezed), LossSettings()).make(None)
    assert logits.teacher_temperature == 1.0
    assert bounded.teacher_temperature == 0.05


def test_grades_become_scores():
    data = EmbeddingQAFinetuneDataset(
        queries={"q": "x"},
        corpus={"a": "one", "b": "two", "c": "three", "d": "four"},
        relevant_docs={"q": ["a", "b"]},
        negative_docs={"q": ["c"]},
        relevance_grades={"q": {"a": 3, "b": 1}},
    )
    assert scored_rows(data).columns["label"] == [1.0, pytest.approx(1 / 3), 0.0]
    assert scored_rows(data, {"q": {"a": 0.9, "c": 0.2}}).columns["positive"] == ["one", "three"]
    with pytest.raises(ConfigError, match="all documents of the training set have the same one"):
        scored_rows(dataset(0))


def test_memory_of_a_cpu_decides_the_mini_batch():
    assert first_mini_batch(None, 64, 1, "cpu") == 16
    assert first_mini_batch(None, 10, 1, "cpu") is None
    assert first_mini_batch(None, 10, 3, "cpu") == 16
    # Memory goes with the tokens: longer texts come in smaller parts, shorter ones in the same.
    found = [first_mini_batch(None, 64, 1, "cpu", length) for length in (128, 256, 512, 8192, None)]
    assert found == [16, 16, 8, 1, 16]
    assert first_mini_batch(None, 64, 1, "cuda") is None
    assert first_mini_batch(8, 64, 1, "cuda") == 8
    assert first_mini_batch(64, 64, 1, "cpu") is None


def test_contradictions_are_named(model, tmp_path):
    rows, taught = training_rows(dataset()), training_rows(dataset(), teacher_scores=TEACHER)
    with pytest.raises(ConfigError, match="`matryoshka_dims` is 64; it must be at most 32"):
        loss_maker(model, rows, LossSettings(matryoshka_dims=(64,)))
    with pytest.raises(ConfigError, match="guide_model works only with the default loss"):
        loss_maker(model, taught, LossSettings(guide_model=model))
    with pytest.raises(ConfigError, match="`loss` is 'mnrl'; it must be one of 'cosent'"):
        loss_maker(model, rows, LossSettings(), loss="mnrl")
    with pytest.raises(ModelError, match="does not exist"):
        loss_maker(model, rows, LossSettings(guide_model=str(tmp_path / "no" / "guide")))
    with pytest.raises(ConfigError, match="the queries have no negative_docs"):
        training_rows(dataset(0), teacher_scores=TEACHER)
    with pytest.raises(ConfigError, match="no row has a positive and a negative with a score"):
        training_rows(dataset(), teacher_scores={"q0": {"d0": 1.0}})
    for options, message in [
        ({"distill": "mse"}, "`distill` is 'mse'; it must be one of 'kl', 'margin'"),
        ({"distill_weight": 2.0}, "`distill_weight` is 2.0; it must be at least 0 and at most 1"),
        ({"matryoshka_dims": ()}, "`matryoshka_dims` is empty"),
    ]:
        with pytest.raises(ConfigError, match=message):
            LossSettings(**options)
