"""Training in rounds: negatives are mined anew with the model of the round before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
from llama_index_embft.embeddings.loading import load_embed_model
from llama_index_embft.errors import ConfigError
from llama_index_embft.finetune import remining
from llama_index_embft.finetune.remining import finetune_in_rounds
from llama_index_embft.mining import mine_hard_negatives

WORDS = [
    "amber",
    "birch",
    "cedar",
    "delta",
    "ember",
    "fjord",
    "grove",
    "heath",
    "islet",
    "jetty",
    "knoll",
    "larch",
    "mound",
    "north",
    "oasis",
    "plain",
]


def data(numbers: range) -> EmbeddingQAFinetuneDataset:
    return EmbeddingQAFinetuneDataset(
        queries={f"q{i}": f"where is {WORDS[i]} {i * 7}" for i in numbers},
        corpus={f"d{i}": f"the place of {WORDS[i]} number {i * 7} is {WORDS[-i - 1]}" for i in range(16)},
        relevant_docs={f"q{i}": [f"d{i}"] for i in numbers},
    )


OPTIONS = {"epochs": 4, "batch_size": 8, "learning_rate": 3e-3, "show_progress_bar": False, "device": "cpu"}


def test_each_round_mines_with_the_model_of_the_round_before(tiny_model_path, tmp_path, monkeypatch) -> None:
    used = []

    def spy(dataset, model, *args, **options):
        mined = mine_hard_negatives(dataset, model, *args, **options)
        used.append((model.get_query_embedding("where is amber 0"), mined.negative_docs))
        return mined

    monkeypatch.setattr(remining, "mine_hard_negatives", spy)
    out = tmp_path / "model"
    rounds = finetune_in_rounds(
        data(range(16)), tiny_model_path, str(out), rounds=2, strategies=["rank:1-5"], num_negatives=2, **OPTIONS
    )
    assert len(rounds) == 2
    (base, first), (tuned, second) = used
    assert base == load_embed_model(tiny_model_path, device="cpu").get_query_embedding("where is amber 0")
    assert tuned != base
    assert first != second, "the tuned model finds other documents hard"
    assert all(len(docs) == 2 for docs in second.values())
    final = load_embed_model(out, device="cpu").get_query_embedding("where is amber 0")
    assert final not in (base, tuned)
    record = json.loads((out / "embft.json").read_text())
    assert record["base"]["model_name"] == tiny_model_path, "not the folder of round one"
    assert rounds[1].mining.n_negatives == 32


def test_a_round_that_does_not_improve_is_not_kept(tiny_model_path, tmp_path) -> None:
    train, val = data(range(12)), data(range(12, 16))
    out = tmp_path / "model"
    options = {**OPTIONS, "learning_rate": 1e-9}  # learns nothing, so no round improves
    rounds = finetune_in_rounds(train, tiny_model_path, str(out), rounds=4, val_dataset=val, **options)
    assert len(rounds) == 2
    assert rounds[-1].result.improved is False
    assert Path(out / "embft.json").is_file()
    assert not list(tmp_path.glob(".embft*"))


def test_rounds_below_one(tiny_model_path, tmp_path) -> None:
    with pytest.raises(ConfigError, match="rounds is 0"):
        finetune_in_rounds(data(range(4)), tiny_model_path, str(tmp_path / "m"), rounds=0)
