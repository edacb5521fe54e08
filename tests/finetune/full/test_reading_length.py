"""Models that cut the passages are trained to read more of them, and only where that is better than the base."""

from __future__ import annotations

import logging

import pytest
import torch
from sentence_transformers import SentenceTransformer

from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
from llama_index_embft.embeddings import load_embed_model
from llama_index_embft.errors import ConfigError
from llama_index_embft.evaluation import evaluate_embed_model
from llama_index_embft.finetune import SentenceTransformersFinetuneEngine
from llama_index_embft.finetune.full import engine_arguments

LETTERS = "abcdefgh"
OWN, POSITIONS = 64, 128  # of the tiny model


def make_data(rest: str) -> EmbeddingQAFinetuneDataset:
    """Eight passages of 62 tokens, which the tiny model just reads, each with `rest` behind."""
    begins = {letter: f"{letter} " * 31 + "x " * 31 for letter in LETTERS}
    return EmbeddingQAFinetuneDataset(
        queries={f"q{letter}": text.strip() for letter, text in begins.items()},
        corpus={f"d{n}": begins[letter] + rest * n for n, letter in enumerate(LETTERS)},
        relevant_docs={f"q{letter}": [f"d{n}"] for n, letter in enumerate(LETTERS)},
    )


@pytest.fixture
def train(tiny_model_path, tmp_path, caplog):
    def run(data, **options):
        settings = {"epochs": 1, "batch_size": 4, "show_progress_bar": False, "near_duplicates": None, **options}
        engine = SentenceTransformersFinetuneEngine(
            data, tiny_model_path, str(tmp_path / "model"), **engine_arguments(**settings)
        )
        with caplog.at_level(logging.WARNING, "llama_index_embft"):
            return engine, engine.finetune()

    return run


@pytest.fixture
def saved(tmp_path):
    return lambda: SentenceTransformer(str(tmp_path / "model"), device="cpu")


def test_passages_that_are_cut_are_read_further(train, saved, tmp_path, caplog):
    engine, _ = train(make_data("where is it " * 2))
    assert saved().max_seq_length == POSITIONS
    assert load_embed_model(str(tmp_path / "model")).max_length == POSITIONS
    assert engine.settings.as_record()["max_seq_length"] == POSITIONS
    assert "88% of the passages are longer than the 64 tokens" in caplog.text  # seven of eight
    assert "it is trained to read 128" in caplog.text


def test_short_passages_change_nothing(train, saved, caplog):
    engine, _ = train(make_data(""))
    assert saved().max_seq_length == OWN
    assert engine.settings.text.max_seq_length == OWN
    assert "longer than" not in caplog.text


@pytest.mark.parametrize(("given", "read"), [(None, OWN), (100, 100)])
def test_the_user_decides(train, saved, caplog, given, read):
    train(make_data("where is it " * 10), max_seq_length=given)
    assert saved().max_seq_length == read
    assert f"longer than the {read} tokens that the model reads, and the rest of them" in caplog.text


def test_more_than_the_positions_is_refused(train):
    with pytest.raises(ConfigError, match=r"`max_seq_length` is 129; .* supports at most 128 tokens"):
        train(make_data(""), max_seq_length=129)


def test_the_score_before_is_that_of_the_base_as_it_was(train, tiny_model_path):
    data = make_data("where is it " * 5)
    _, result = train(data, val_dataset=data)
    before = evaluate_embed_model(data, load_embed_model(tiny_model_path, device="cpu"), cache=None)
    assert result.base_score == pytest.approx(before.mean("ndcg@10"))
    assert result.base_score == 1.0  # it reads just what the query says


def test_a_base_that_is_not_beaten_comes_back_whole(train, saved, tiny_model_path, tmp_path, caplog):
    data = make_data("where is it " * 5)
    _, result = train(data, val_dataset=data)
    assert (result.best_score, result.best_step, result.improved) == (1.0, 0, False)
    model, base = saved(), SentenceTransformer(tiny_model_path, device="cpu")
    assert model.max_seq_length == OWN
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), base.parameters(), strict=True))
    assert load_embed_model(str(tmp_path / "model")).max_length == OWN
    assert "did not improve" in caplog.text


def test_reading_more_alone_can_be_the_gain(train, saved, tiny_model_path, caplog):
    """What tells the passages apart stands behind what the base reads, and the weights hardly move."""
    data = EmbeddingQAFinetuneDataset(
        queries={f"q{letter}": f"{letter} " * 40 for letter in LETTERS},
        corpus={f"d{letter}": "x " * 62 + f"{letter} " * 60 for letter in LETTERS},
        relevant_docs={f"q{letter}": [f"d{letter}"] for letter in LETTERS},
    )
    _, result = train(data, val_dataset=data, learning_rate=1e-12)
    assert result.best_score > result.base_score
    assert saved().max_seq_length == POSITIONS
    assert result.best_step > 0 or "reading 128 tokens did" in caplog.text


def test_a_killed_run_goes_on_with_the_longer_reading(train, saved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = make_data("where is it " * 5)
    train(data, save_checkpoints=True, checkpoint_save_steps=1)
    first = [weights.clone() for weights in saved().parameters()]
    train(data, save_checkpoints=True, checkpoint_save_steps=1, resume_from_checkpoint=True)
    assert all(torch.equal(a, b) for a, b in zip(first, saved().parameters(), strict=True))
