"""The recipe: what is tried within the budget, who goes on, who wins; then once with real training."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest

from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
from llama_index_embft.errors import ConfigError, DatasetError, TrainingError
from llama_index_embft.finetune import LossSettings, choose_recipe
from llama_index_embft.finetune.full import recipe as module
from llama_index_embft.finetune.full.recipe import RecipeCandidate


def make_dataset(n=24, template="where is thing {}"):
    return EmbeddingQAFinetuneDataset(
        queries={f"q{i}": template.format(f"{i:03}") for i in range(n)},
        corpus={f"d{i}": f"item {i * 7 % n} of class {i:03}" for i in range(n)},
        relevant_docs={f"q{i}": [f"d{i}"] for i in range(n)},
    )


class World:
    """A clock, and an engine whose runs take a second an epoch and score as told."""

    def __init__(self, monkeypatch, score, guard=lambda candidate: None, base=0.6):
        self.now, self.runs = 0.0, []
        world = self

        class Engine:
            def __init__(self, dataset, model_id, out, *, val_dataset, guard_dataset, loss_settings, validation,
                         learning_rate, epochs, method, batch_size=8, show_progress_bar=True, seed=0):  # fmt: skip
                self.probe = learning_rate < 1e-6
                self.candidate = RecipeCandidate(loss_settings.temperature, learning_rate, epochs)
                self.steps = -(-len(dataset.queries) // batch_size) * epochs
                self.guarded = guard_dataset is not None

            def finetune(self):
                train, evaluate = self.steps / 3, 0.1 * (self.candidate.epochs + 1)
                world.now += train + evaluate + 0.5
                found = base if self.probe else score(self.candidate)
                if not self.probe:
                    world.runs.append(self.candidate)
                return SimpleNamespace(
                    base_score=base, best_score=found, steps=self.steps, history=[{}] * (self.candidate.epochs + 1),
                    seconds={"train": train, "evaluate": evaluate},
                    guard_base_score=guard(None) if self.guarded else None,
                    guard_score=guard(self.candidate) if self.guarded else None,
                )  # fmt: skip

        monkeypatch.setattr("llama_index_embft.finetune.full.engine.SentenceTransformersFinetuneEngine", Engine)
        monkeypatch.setattr(module.time, "perf_counter", lambda: world.now)


def choose(n=24, **options):
    plain = {"learning_rates": (5e-5, 2e-5), "batch_size": 8}
    return choose_recipe(make_dataset(n), "model", make_dataset(6), **plain | options)


def test_all_are_tried_briefly_and_the_better_half_longer(monkeypatch):
    world = World(monkeypatch, lambda c: 0.6 + c.temperature + c.epochs / 100)
    chosen = choose(time_budget=1000)
    assert [(c.temperature, c.learning_rate) for c in world.runs if c.epochs == 1] == [
        (t, rate) for t in (0.02, 0.05, 0.01) for rate in (5e-5, 2e-5)
    ]
    # The better half: both of 0.05, then the first of 0.02.
    assert [(c.temperature, c.learning_rate) for c in world.runs if c.epochs == 3] == [
        (0.05, 5e-5), (0.05, 2e-5), (0.02, 5e-5)
    ]  # fmt: skip
    assert chosen.candidate == RecipeCandidate(0.05, 5e-5, 3)
    assert chosen.improves
    assert chosen.engine_arguments() == {
        "loss_settings": LossSettings(temperature=0.05), "learning_rate": 5e-5, "epochs": 3,
    }  # fmt: skip
    assert chosen.engine_arguments(LossSettings(weight_decay=0.1))["loss_settings"] == LossSettings(
        temperature=0.05, weight_decay=0.1
    )
    assert [row["note"] for row in chosen.rows()].count("not reached") == 3
    assert len(chosen.rows()) == 13
    assert chosen.rows()[0]["ndcg@10"] == 0.6
    assert chosen.seconds_per_step == pytest.approx(1 / 3)
    assert "0.600 → 0.680 on validation, 9 of 12 candidates tried" in str(chosen)


def test_what_does_not_fit_is_not_begun(monkeypatch):
    world = World(monkeypatch, lambda c: 0.7)
    chosen = choose(time_budget=6.0)  # the probe takes 1.3 s, a run of one epoch 1.7, of three 3.9
    assert [c.epochs for c in world.runs] == [1, 1]
    assert world.now <= 6.0
    notes = [trial.note for trial in chosen.trials]
    assert sum(note.startswith("needs about 2 s, ") for note in notes) == 4
    assert chosen.candidate == RecipeCandidate(0.02, 5e-5, 1)


def test_a_budget_for_nothing_gives_the_first_of_the_grid_and_says_so(monkeypatch, caplog):
    world = World(monkeypatch, lambda c: 0.9)
    chosen = choose(time_budget=0.1)
    assert world.runs == []
    assert (chosen.score, chosen.improves) == (None, False)
    assert chosen.candidate == RecipeCandidate(0.02, 5e-5, 1)
    assert "No setting could be tried within 0 seconds" in caplog.text
    assert "untried" in str(chosen)


def test_equal_scores_keep_the_order_given(monkeypatch):
    World(monkeypatch, lambda c: 0.7)
    assert choose(temperatures=(0.05, 0.01), epochs=(2, 1)).candidate == RecipeCandidate(0.05, 5e-5, 1)


def test_a_search_in_which_all_only_harm(monkeypatch):
    World(monkeypatch, lambda c: 0.6)  # the engine keeps the base model, so a run never scores below it
    chosen = choose()
    assert not chosen.improves
    assert "no better than the base model" in str(chosen)


def test_the_guard_rules_out(monkeypatch):
    falls = {0.05: 0.02, 0.02: 0.005, 0.01: 0.0}
    World(monkeypatch, lambda c: 0.6 + c.temperature, lambda c: 0.97 if c is None else 0.97 - falls[c.temperature])
    chosen = choose(guard=make_dataset(3), epochs=(1,))
    assert chosen.candidate.temperature == 0.02  # exactly at the limit
    assert chosen.base_guard_score == 0.97
    ruled_out = [trial for trial in chosen.trials if trial.note]
    assert {trial.candidate.temperature for trial in ruled_out} == {0.05}
    assert ruled_out[0].note == "loses 0.0200 on the guard set"


def test_a_run_that_fails_does_not_end_the_search(monkeypatch):
    def score(candidate):
        if candidate.temperature == 0.02:
            raise TrainingError("The loss is nan at step 3")
        return 0.7

    World(monkeypatch, score)
    chosen = choose(epochs=(1,))
    assert chosen.candidate.temperature == 0.05
    assert [trial.note for trial in chosen.trials][:2] == ["failed: The loss is nan at step 3"] * 2


def test_ctrl_c_ends_the_search(tiny_model_path, tmp_path, monkeypatch):
    """With the real engine, which turns it into an error of its own and leaves a checkpoint."""
    import os
    import signal

    from llama_index_embft.finetune.running.callbacks import BestStateCallback

    monkeypatch.chdir(tmp_path)
    original = BestStateCallback.on_step_end

    def pressed(self, args, state, control, **kwargs):
        if args.num_train_epochs == 3 and state.global_step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, args, state, control, **kwargs)

    monkeypatch.setattr(BestStateCallback, "on_step_end", pressed)
    with pytest.raises(KeyboardInterrupt):
        choose_recipe(
            make_dataset(24), tiny_model_path, make_dataset(24), temperatures=(0.05,), learning_rates=(1e-3,),
            epochs=(3,), batch_size=8, device="cpu", time_budget=300,
        )  # fmt: skip
    assert list(tmp_path.glob("checkpoints/*")) == []


def test_the_probe_is_spread_over_the_data(monkeypatch):
    seen = []
    World(monkeypatch, lambda c: 0.7)
    original = module._Runner._finetune

    def watching(self, data, candidate):
        seen.append(list(data.queries))
        return original(self, data, candidate)

    monkeypatch.setattr(module._Runner, "_finetune", watching)
    choose(n=100, batch_size=5, epochs=(1,))
    assert seen[0] == [f"q{n}" for n in range(0, 100, 10)]
    assert len(seen[1]) == 100


def test_without_validation_a_part_of_the_questions_is_set_aside(monkeypatch):
    seen = []
    World(monkeypatch, lambda c: 0.7)
    original = module._Runner

    class Watching(original):
        def __init__(self, train, val, *rest):
            seen.append((set(train.queries), set(val.queries)))
            super().__init__(train, val, *rest)

    monkeypatch.setattr(module, "_Runner", Watching)
    choose_recipe(make_dataset(40), "model", epochs=(1,))
    ((train, val),) = seen
    assert 0 < len(val) < len(train)
    assert not train & val
    assert len(train | val) == 40


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperatures": ()}, "`temperatures` is empty"),
        ({"learning_rates": (0.0,)}, "`learning_rates` is 0.0; it must be above 0"),
        ({"epochs": (1, -1)}, "`epochs` is -1"),
        ({"time_budget": 0}, "`time_budget` is 0"),
        ({"time_budget": float("nan")}, "`time_budget` is nan"),
        ({"max_guard_loss": -1}, "`max_guard_loss` is -1"),
        ({"no_such": 1}, "The engine does not take these arguments: .*no_such"),
        ({"method": "magic", "learning_rates": None}, "`method` is 'magic'"),
    ],
)
def test_bad_arguments(monkeypatch, options, message):
    World(monkeypatch, lambda c: 0.7)
    with pytest.raises(ConfigError, match=message):
        choose(**options)


def test_too_little_data_for_a_validation_part(monkeypatch):
    World(monkeypatch, lambda c: 0.7)
    with pytest.raises(DatasetError):
        choose_recipe(make_dataset(1), "model")


def test_with_real_training(tiny_model_path, caplog):
    data, val = make_dataset(24), make_dataset(24, "find thing {}")
    with caplog.at_level(logging.WARNING):
        chosen = choose_recipe(
            data, tiny_model_path, val, temperatures=(0.05,), learning_rates=(3e-3, 1e-6), epochs=(1, 4),
            batch_size=8, device="cpu", guard=val, max_guard_loss=1.0, time_budget=300,
        )  # fmt: skip
    assert chosen.candidate == RecipeCandidate(0.05, 3e-3, 4)
    assert chosen.improves
    assert chosen.base_guard_score == pytest.approx(chosen.base_score, abs=1e-6)
    tried = [trial for trial in chosen.trials if trial.score is not None]
    assert len(tried) == 3
    assert all(trial.guard_score == pytest.approx(trial.score, abs=1e-6) for trial in tried)
    assert "did not improve" not in caplog.text

    from llama_index_embft.finetune import SentenceTransformersFinetuneEngine

    # The engine takes the recipe as it is.
    SentenceTransformersFinetuneEngine(
        data, tiny_model_path, "unused", val_dataset=val, batch_size=8, device="cpu", **chosen.engine_arguments()
    )
