"""The cross-encoder engine of llama-index-finetuning: its arguments, and what it returns."""

from __future__ import annotations

import inspect
import json

import numpy as np
import pytest
from llama_index.core.postprocessor import SentenceTransformerRerank
from llama_index.core.schema import NodeWithScore, TextNode

from llama_index_embft import CrossEncoderFinetuneEngine, CrossEncoderFinetuningDatasetSample
from llama_index_embft.errors import ConfigError, DatasetError
from llama_index_embft.finetune import RerankerSettings


def samples(n: int = 12, start: int = 0) -> list[CrossEncoderFinetuningDatasetSample]:
    pairs = []
    for number in range(start, start + n):
        for word, score in (("open", 1), ("closed", 0), ("shut", 0)):
            pairs.append(CrossEncoderFinetuningDatasetSample(f"door {number}", f"door {number} is {word}", score))
    return pairs


def engine(model: str, out: object, pairs=None, **options) -> CrossEncoderFinetuneEngine:
    chosen = RerankerSettings(learning_rate=3e-3, device="cpu")
    given = {"val_dataset": samples(4, 12), "epochs": 6, "show_progress_bar": False, "settings": chosen}
    return CrossEncoderFinetuneEngine(pairs or samples(), model, str(out), **{**given, **options})


def test_the_arguments_are_those_of_the_old_class():
    stock = pytest.importorskip("llama_index.finetuning.cross_encoders").CrossEncoderFinetuneEngine
    old, ours = (inspect.signature(kind).parameters for kind in (stock, CrossEncoderFinetuneEngine))
    assert list(ours)[: len(old)] == list(old)
    assert {name: ours[name].default for name in old} == {name: one.default for name, one in old.items()}


def test_pairs_train_a_reranker_that_llamaindex_loads(tiny_model_path, tmp_path):
    made = engine(tiny_model_path, tmp_path / "m")
    result = made.finetune()
    assert result.best_score >= result.base_score
    assert result.best_score > 0.9
    assert result.weight == 1.0  # LlamaIndex's class knows no share
    reranker = made.get_finetuned_model(top_n=1)
    assert isinstance(reranker, SentenceTransformerRerank)
    nodes = [NodeWithScore(node=TextNode(text=f"door 14 is {word}"), score=1.0) for word in ("closed", "open", "shut")]
    assert reranker.postprocess_nodes(nodes, query_str="door 14")[0].node.text == "door 14 is open"
    assert made.get_finetuned_model(str(tmp_path / "m"), 2).top_n == 2
    assert json.loads((tmp_path / "m" / "embft.json").read_text())["settings"]["loss"] == "bce"


def test_ten_pairs_a_step_are_ten_pairs(tiny_model_path, tmp_path):
    result = engine(tiny_model_path, tmp_path / "m", epochs=1, batch_size=10, val_dataset=None).finetune()
    assert result.steps == 4  # of 36 pairs
    assert result.base_score is None


@pytest.mark.parametrize("loss", ["lambda", "class"])
def test_a_loss_over_lists_takes_the_passages_of_a_question(loss, tiny_model_path, tmp_path, caplog):
    from sentence_transformers.cross_encoder.losses import LambdaLoss

    pairs = [*samples(4), CrossEncoderFinetuningDatasetSample("alone", "door 9 is open", 1)]
    chosen = LambdaLoss if loss == "class" else loss
    result = engine(tiny_model_path, tmp_path / "m", pairs, epochs=1, batch_size=2, loss=chosen).finetune()
    assert (result.steps, result.dropped) == (2, 1)
    assert "1 of 5 questions have passages of one kind only" in caplog.text


def test_bad_input(tiny_model_path, tmp_path):
    ones = [one for one in samples() if one.score]
    with pytest.raises(DatasetError, match=r"All 12 pairs .* have one kind of label \(score 1\)"):
        engine(tiny_model_path, tmp_path / "m", ones)
    with pytest.raises(DatasetError, match="The training set has no pair"):
        CrossEncoderFinetuneEngine([], tiny_model_path)
    with pytest.raises(ConfigError, match="`loss`"):
        engine(tiny_model_path, tmp_path / "m", loss="mse")
    with pytest.raises(ConfigError, match="`loss` is a int"):
        engine(tiny_model_path, tmp_path / "m", loss=3)
    with pytest.raises(ConfigError, match="`loss` makes a int of the model"):
        engine(tiny_model_path, tmp_path / "m", loss=lambda _: 3).finetune()
    with pytest.raises(ConfigError, match="`repo_id` is not given"):
        engine(tiny_model_path, tmp_path / "m").push_to_hub()
    mixed = [CrossEncoderFinetuningDatasetSample(f"q{n}", f"text {n}", n % 2) for n in range(4)]
    with pytest.raises(DatasetError, match="No question of the training set has passages of both kinds"):
        engine(tiny_model_path, tmp_path / "m", mixed, loss="lambda").finetune()


def test_samples_that_cannot_be_used_are_not_trained_on(tiny_model_path, tmp_path, caplog):
    good = samples(4)
    bad = [CrossEncoderFinetuningDatasetSample("", "door 1 is open", 1)]
    bad.append(CrossEncoderFinetuningDatasetSample("door 1", "door 9 is open", float("nan")))
    options = {"epochs": 1, "batch_size": len(good)}
    result = engine(tiny_model_path, tmp_path / "m", [bad[0], *good, bad[1]], **options).finetune()
    assert result.steps == 1
    assert f"2 of {len(good) + 2} samples are left out, the first: samples, sample 1: query is empty" in caplog.text
    with pytest.raises(DatasetError, match="no pair that can be used"):
        engine(tiny_model_path, tmp_path / "m", bad)


def test_scores_come_from_the_whole_range(tiny_model_path, tmp_path):
    """A sigmoid would make ties of the best: what is compared are logits."""
    from llama_index_embft.embeddings.cross_encoder import load_cross_encoder, pair_logits

    engine(tiny_model_path, tmp_path / "m", epochs=1).finetune()
    model = load_cross_encoder(tmp_path / "m")
    pairs = [("door 1", "door 1 is open"), ("door 1", "door 1 is shut"), ("door 1", "door 1 is open")]
    found = pair_logits(model, pairs)
    probabilities = model.predict(pairs)
    assert found[0] == found[2]
    assert np.allclose(1 / (1 + np.exp(-found)), probabilities, atol=1e-5)


def test_a_model_that_says_the_same_of_all_ranks_no_better_than_the_worst(tiny_model_path, tmp_path):
    class Constant:
        def predict(self, pairs, batch_size, show_progress_bar):
            return [0.5] * len(pairs)

    made = engine(tiny_model_path, tmp_path / "m")
    validation = made._validation(made.dataset)
    worst = validation.metrics(Constant())["ndcg@10"]
    assert worst < 0.9
