"""Training in rounds: negatives are mined anew with the model of the round before."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
from llama_index_embft.embeddings import load_embed_model
from llama_index_embft.errors import ConfigError
from llama_index_embft.finetune import RoundsSettings, SentenceTransformersFinetuneEngine
from llama_index_embft.finetune.full import engine_arguments, rounds as remining
from llama_index_embft.finetune.full.merging import step as merging_step
from llama_index_embft.finetune.full.merging.step import Merged
from llama_index_embft.finetune.full.training import trainer
from llama_index_embft.finetune.running.checkpoints import checkpoint_folder
from llama_index_embft.finetune.validation import TrainingEvaluator
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
    mining = RoundsSettings(rounds=2, strategies=["rank:1-5"], negatives=2)
    engine = SentenceTransformersFinetuneEngine(data(range(16)), tiny_model_path, str(out), mining=mining, **OPTIONS)
    engine.finetune()
    rounds = engine.rounds
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
    assert record["settings"]["mining_strategies"] == ["rank:1-5"]
    assert rounds[1].mining.n_negatives == 32


def weights(folder) -> dict:
    return load_file(str(Path(folder) / "model.safetensors"))


def test_a_round_that_does_not_improve_leaves_no_trace(tiny_model_path, tmp_path, monkeypatch, caplog) -> None:
    scores = iter([0.5, 0.6, 0.6, 0.55])  # before and after each round
    monkeypatch.setattr(TrainingEvaluator, "metrics", lambda *_: {"ndcg@10": next(scores)})
    options = {**OPTIONS, "val_dataset": data(range(12, 16)), "epochs": 2, "seed": 1}
    engine = SentenceTransformersFinetuneEngine(
        data(range(12)), tiny_model_path, str(tmp_path / "two"), **engine_arguments(mining_rounds=4, **options)
    )
    # An evaluation an epoch, of which the first would be one too many here.
    engine.settings = replace(engine.settings, evaluation_steps=99)
    result = engine.finetune()
    assert [done.improved for done in engine.rounds] == [True, False]
    assert "Round 2 did not improve" in caplog.text
    assert (result.base_score, result.best_score, result.best_step, result.steps) == (0.5, 0.6, 4, 8)
    assert [(entry["step"], entry["epoch"]) for entry in result.history] == [(0, 0.0), (4, 2.0), (8, 4.0)]

    scores = iter([0.5, 0.6])
    once = SentenceTransformersFinetuneEngine(
        data(range(12)), tiny_model_path, str(tmp_path / "one"), **engine_arguments(mining_rounds=1, **options)
    )
    once.settings = replace(engine.settings, mining=once.settings.mining)
    once.finetune()
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_merging_compares_with_the_model_before_the_first_round(tiny_model_path, tmp_path, monkeypatch) -> None:
    """Each round loses a little on the guard, less than the limit; together they would lose more."""
    seen = []
    start = SentenceTransformersFinetuneEngine(
        data(range(12)), tiny_model_path, str(tmp_path / "m"), val_dataset=data(range(12, 16)),
        guard_dataset=data(range(4)), **engine_arguments(mining_rounds=2, merge="auto", **OPTIONS),
    )  # fmt: skip
    before = {name: tensor.clone() for name, tensor in start.model.state_dict().items()}

    def spy(watch, embedding, model, base_weights, *args):
        seen.append((base_weights, {name: tensor.clone() for name, tensor in model.state_dict().items()}))
        return Merged(0.0, [])

    monkeypatch.setattr(merging_step, "merge_step", spy)
    start.finetune()
    assert len(seen) == 1
    base, tuned = seen[0]
    assert all(torch.equal(base[name], before[name]) for name in before)
    assert any(not torch.equal(tuned[name], before[name]) for name in before)


def test_the_validation_set_is_split_off_once_and_never_trained_on(tiny_model_path, tmp_path, monkeypatch) -> None:
    trained_on = []
    original = SentenceTransformersFinetuneEngine._rows

    def rows(self, dataset):
        trained_on.append(set(dataset.queries))
        return original(self, dataset)

    monkeypatch.setattr(SentenceTransformersFinetuneEngine, "_rows", rows)
    engine = SentenceTransformersFinetuneEngine(
        data(range(16)),
        tiny_model_path,
        str(tmp_path / "m"),
        **engine_arguments(mining_rounds=2, val_split=0.25, **OPTIONS),
    )
    monkeypatch.setattr(
        TrainingEvaluator, "metrics", lambda *_: {"ndcg@10": len(trained_on) + np.random.default_rng().random()}
    )
    engine.finetune()
    held_out = set(engine.val_dataset.queries)
    assert held_out
    assert all(queries == set(engine.dataset.queries) for queries in trained_on)
    assert not held_out & trained_on[0]


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_run_killed_in_its_second_round_ends_in_the_same_weights(tiny_model_path, tmp_path, monkeypatch, method):
    monkeypatch.chdir(tmp_path)
    options = {
        **OPTIONS, "bf16": False, "method": method, "mining_rounds": 2, "mining_strategies": ["rank:1-9"],
        "save_checkpoints": True, "checkpoint_save_steps": 3, "val_dataset": data(range(12, 16)), "patience": 99,
    }  # fmt: skip
    whole = SentenceTransformersFinetuneEngine(data(range(12)), tiny_model_path, "whole", **engine_arguments(**options))
    expected = whole.finetune()
    steps, kill_at = [], ("round-2", 4)

    class KilledError(Exception):
        pass

    def step(self, *args, **kwargs):
        steps.append((self.checkpoints.folder.name, self.state.global_step))
        if steps[-1] == kill_at:
            raise KilledError
        return original(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        original = trainer.EngineTrainer.training_step
        patch.setattr(trainer.EngineTrainer, "training_step", step)
        with pytest.raises(KilledError):
            SentenceTransformersFinetuneEngine(
                data(range(12)), tiny_model_path, "m", **engine_arguments(**options)
            ).finetune()
    assert len({name for name, _ in steps}) == 2
    assert f"checkpoint-{whole.rounds[0].steps}" in {path.name for path in checkpoint_folder("m").iterdir()}
    steps.clear()
    kill_at = None
    with monkeypatch.context() as patch:
        patch.setattr(trainer.EngineTrainer, "training_step", step)
        again = SentenceTransformersFinetuneEngine(
            data(range(12)), tiny_model_path, "m", resume_from_checkpoint=True, **engine_arguments(**options)
        )
        result = again.finetune()
    assert steps[0] == ("round-2", 3), "nothing of the first round was done again"
    found = weights("m")
    assert all(torch.equal(found[name], tensor) for name, tensor in weights("whole").items())
    curve = [(entry["step"], entry["epoch"], entry["ndcg@10"]) for entry in expected.history]
    assert [(entry["step"], entry["epoch"], entry["ndcg@10"]) for entry in result.history] == curve


WRONG = {
    "`mining_rounds` is -1; it must be at least 0": {"mining_rounds": -1},
    "`mining_strategies` is for mining_rounds": {"mining_strategies": ["rank:1-5"]},
    "`mining_negatives` is for mining_rounds": {"mining_negatives": 2},
    "`mining_negatives` is 0; it must be at least 1": {"mining_rounds": 1, "mining_negatives": 0},
    "loss='cosent' learns from scores": {"mining_rounds": 1, "loss": "cosent"},
    "`mining_options` is 'sed'.*did you mean 'seed'": {"mining_rounds": 1, "mining_options": {"sed": 3}},
    "rank:x": {"mining_rounds": 1, "mining_strategies": ["rank:x"]},
    "16 documents, so no query can have 16 negatives": {"mining_rounds": 1, "mining_negatives": 16},
}


@pytest.mark.parametrize("message", WRONG)
def test_what_cannot_be_mined_is_one_sentence(tiny_model_path, tmp_path, message) -> None:
    with pytest.raises(ConfigError, match=message):
        SentenceTransformersFinetuneEngine(
            data(range(4)), tiny_model_path, str(tmp_path / "m"), **engine_arguments(**OPTIONS, **WRONG[message])
        ).finetune()


def test_rounds_run_in_one_process(tiny_model_path, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="mining_rounds runs in one process"):
        SentenceTransformersFinetuneEngine(
            data(range(4)), tiny_model_path, str(tmp_path / "m"), mining=RoundsSettings(rounds=1)
        )
