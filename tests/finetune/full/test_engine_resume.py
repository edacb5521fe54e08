"""Kill it anywhere: the same call again ends in the same weights, bit for bit, and in the same history."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
from llama_index_embft.errors import ConfigError, OutputError, TrainingError
from llama_index_embft.finetune import SentenceTransformersFinetuneEngine
from llama_index_embft.finetune.full import engine_arguments
from llama_index_embft.finetune.running.checkpoints import STATE_FILE, Checkpoints, checkpoint_folder

# A child that trains and, at the asked optimizer step, says so and waits to be killed.
CHILD = """
import json, sys, time
from pathlib import Path
from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
from llama_index_embft.finetune.running import callbacks
from llama_index_embft.finetune import SentenceTransformersFinetuneEngine
from llama_index_embft.finetune.full import engine_arguments
options = json.loads(sys.argv[1])
kill_at, where = options.pop("kill_at"), options.pop("where")
data = [EmbeddingQAFinetuneDataset.from_json(path) for path in ("train.json", "val.json")]
engine = SentenceTransformersFinetuneEngine(data[0], val_dataset=data[1], device="cpu", **engine_arguments(**options))

def stop():
    Path("ready").write_text("x")
    time.sleep(600)

if where == "step":
    original = callbacks.BestStateCallback.on_step_end
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == kill_at:
            stop()
        return original(self, args, state, control, **kwargs)
    callbacks.BestStateCallback.on_step_end = on_step_end
elif where == "save":
    from llama_index_embft.finetune.full.training import trainer
    original = trainer.EngineTrainer._save_optimizer_and_scheduler
    def save(self, folder):
        if self.state.global_step == kill_at:
            stop()
        return original(self, folder)
    trainer.EngineTrainer._save_optimizer_and_scheduler = save
engine.finetune()
"""

OPTIONS = {
    "epochs": 3,
    "batch_size": 8,
    "learning_rate": 3e-3,
    "bf16": False,
    "patience": 99,
    "evaluation_steps": 2,
    "save_checkpoints": True,
    "checkpoint_save_steps": 2,
    "show_progress_bar": False,
}


def make_dataset(form: int) -> EmbeddingQAFinetuneDataset:
    colours, things = ["red", "green", "blue", "black", "white", "grey"], ["cat", "dog", "bird", "fish"]
    pairs = [(colour, thing) for colour in colours for thing in things]
    texts = [f"where is the {c} {t}" if form == 0 else f"find a {t} in {c}" for c, t in pairs]
    return EmbeddingQAFinetuneDataset(
        queries={f"q{n}": text for n, text in enumerate(texts)},
        corpus={f"d{n}": f"item {n * 7 % 24} of class {c[0]}{t[0]}" for n, (c, t) in enumerate(pairs)},
        relevant_docs={f"q{n}": [f"d{n}"] for n in range(len(pairs))},
    )


def engine(model, out, **options):
    return SentenceTransformersFinetuneEngine(
        make_dataset(0),
        str(model),
        str(out),
        val_dataset=make_dataset(1),
        device="cpu",
        **engine_arguments(**(OPTIONS | options)),
    )


def weights(out) -> dict:
    return load_file(str(Path(out) / "model.safetensors"))


@pytest.fixture(scope="module")
def uninterrupted(tiny_model_path, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    before = Path.cwd()
    os.chdir(folder)
    try:
        found = {}
        for method in ("full", "lora"):
            result = engine(tiny_model_path, folder / method, method=method).finetune()
            found[method] = (weights(folder / method), result)
    finally:
        os.chdir(before)
    return found


def kill_child(tmp_path, options) -> None:
    make_dataset(0).save_json(tmp_path / "train.json")
    make_dataset(1).save_json(tmp_path / "val.json")
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, json.dumps(options)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    for _ in range(3000):
        if (tmp_path / "ready").exists() or child.poll() is not None:
            break
        time.sleep(0.05)
    assert child.poll() is None, child.stdout.read().decode()
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    child.stdout.close()


@pytest.mark.system
# In the middle of an epoch past a checkpoint; while a checkpoint is half written at the end of an epoch.
@pytest.mark.parametrize(("method", "kill_at", "where"), [("full", 5, "step"), ("lora", 6, "save")])
def test_killed_and_resumed_is_never_interrupted(
    tiny_model_path, tmp_path, monkeypatch, uninterrupted, method, kill_at, where
):
    monkeypatch.chdir(tmp_path)
    options = {**OPTIONS, "model_id": tiny_model_path, "model_output_path": "m", "method": method}
    kill_child(tmp_path, {**options, "kill_at": kill_at, "where": where})
    assert [path.name for path in sorted(checkpoint_folder("m").glob("checkpoint-*"))] == [
        "checkpoint-2",
        "checkpoint-4",
    ]
    assert not Path("m").exists()

    result = engine(tiny_model_path, "m", method=method, resume_from_checkpoint=True).finetune()
    expected_weights, expected = uninterrupted[method]
    found = weights("m")
    assert found.keys() == expected_weights.keys()
    assert all((found[name] == expected_weights[name]).all() for name in found)
    assert [(e["step"], e["ndcg@10"]) for e in result.history] == [(e["step"], e["ndcg@10"]) for e in expected.history]
    assert (result.best_step, result.steps) == (expected.best_step, expected.steps)
    # Old checkpoints are gone, and so is what the killed run was writing.
    assert [p.name for p in sorted(checkpoint_folder("m").iterdir())] == ["checkpoint-8", "checkpoint-9"]


def test_a_half_written_checkpoint_is_not_taken(tiny_model_path, tmp_path, monkeypatch, uninterrupted):
    monkeypatch.chdir(tmp_path)
    half = checkpoint_folder("m") / ".embft-half.tmp"
    half.mkdir(parents=True)
    (half / "model.safetensors").write_bytes(b"half")
    engine(tiny_model_path, "m", resume_from_checkpoint=True).finetune()
    found, expected = weights("m"), uninterrupted["full"][0]
    assert all((found[name] == expected[name]).all() for name in found)


def test_what_is_not_ours_in_the_place_of_a_checkpoint_is_told_before_training(tiny_model_path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (checkpoint_folder("m") / "checkpoint-4").mkdir(parents=True)
    (checkpoint_folder("m") / "checkpoint-4" / "thesis.tex").write_text("mine")
    tuner = engine(tiny_model_path, "m")
    monkeypatch.setattr(tuner, "_measure", lambda: pytest.fail("worked before the checkpoints were looked at"))
    with pytest.raises(OutputError, match=r"Will not replace the folder .*checkpoint-4"):
        tuner.finetune()


def test_a_run_that_had_stopped_early_does_not_train_on(tiny_model_path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = {"learning_rate": 5.0, "patience": 1}
    first = engine(tiny_model_path, "m", **options).finetune()
    assert first.steps == 2
    again = engine(tiny_model_path, "m", resume_from_checkpoint=True, **options).finetune()
    assert (again.steps, again.best_step) == (2, first.best_step)


def test_a_run_that_begins_anew_takes_the_place_of_the_old_checkpoints(tiny_model_path, tmp_path, monkeypatch):
    """Those of a longer run before would pass for the newest, and the new ones be pruned."""
    monkeypatch.chdir(tmp_path)
    engine(tiny_model_path, "m").finetune()
    assert [p.name for p in sorted(checkpoint_folder("m").iterdir())] == ["checkpoint-8", "checkpoint-9"]
    (checkpoint_folder("m") / "round-2/checkpoint-9").mkdir(parents=True)  # of a run with re-mining
    engine(tiny_model_path, "m", epochs=1, learning_rate=1e-3).finetune()
    assert [p.name for p in sorted(checkpoint_folder("m").iterdir())] == ["checkpoint-2", "checkpoint-3"]


def test_a_checkpoint_of_another_run_is_refused(tiny_model_path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    engine(tiny_model_path, "m", epochs=1).finetune()
    with pytest.raises(ConfigError, match=r"cannot be resumed: learning_rate was 0.003 and is 0.001 now"):
        engine(tiny_model_path, "m", epochs=1, learning_rate=1e-3, resume_from_checkpoint=True).finetune()
    guarded = engine(tiny_model_path, "m", epochs=1, guard_dataset=make_dataset(1), resume_from_checkpoint=True)
    with pytest.raises(ConfigError, match=r"cannot be resumed: guard_dataset was None and is"):
        guarded.finetune()


def test_ctrl_c_saves_and_says_how_to_go_on(tiny_model_path, tmp_path, monkeypatch, uninterrupted):
    monkeypatch.chdir(tmp_path)
    from llama_index_embft.finetune.full.training import trainer

    original = trainer.EngineTrainer.training_step

    def press(self, *args, **kwargs):
        if self.state.global_step == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, *args, **kwargs)

    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(trainer.EngineTrainer, "training_step", press)
        with pytest.raises(
            TrainingError, match=r"Stopped by Ctrl-C after step 5 of 9; .*resume_from_checkpoint=True \(--"
        ):
            # Also where no checkpoints were asked for.
            engine(tiny_model_path, "m", save_checkpoints=False).finetune()
    assert signal.getsignal(signal.SIGINT) is before
    engine(tiny_model_path, "m", resume_from_checkpoint=True).finetune()
    found, expected = weights("m"), uninterrupted["full"][0]
    assert all((found[name] == expected[name]).all() for name in found)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit for the size of files")
def test_a_full_disk_keeps_the_last_good_checkpoint(tiny_model_path, tmp_path, monkeypatch):
    import resource

    monkeypatch.chdir(tmp_path)
    from llama_index_embft.finetune.full.training import trainer

    original = trainer.EngineTrainer._save_checkpoint
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def save(self, model, trial):
        if self.state.global_step == 4:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # the kernel itself refuses to write more
        try:
            return original(self, model, trial)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    monkeypatch.setattr(trainer.EngineTrainer, "_save_checkpoint", save)
    with pytest.raises(
        OutputError, match=r"checkpoint-2 is good: call again with .*=True \(--resume-from-checkpoint\)"
    ):
        engine(tiny_model_path, "m").finetune()
    assert ((checkpoint_folder("m") / "checkpoint-2") / STATE_FILE).is_file()
    assert [path.name for path in checkpoint_folder("m").iterdir()] == ["checkpoint-2"]


@pytest.mark.parametrize("look_every", [1, 10])  # on a GPU several losses are looked at together
def test_nan_names_step_batch_and_the_last_good_checkpoint(tiny_model_path, tmp_path, monkeypatch, look_every):
    import torch
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    from llama_index_embft.finetune.running.trainer import ResumableTrainer

    monkeypatch.chdir(tmp_path)
    every = property(lambda self: look_every, lambda self, number: None)
    monkeypatch.setattr(ResumableTrainer, "look_every", every, raising=False)

    class BrokenAtFive(MultipleNegativesRankingLoss):
        steps = 0

        def forward(self, features, labels):
            self.steps += 1
            return super().forward(features, labels) * (torch.nan if self.steps == 5 else 1.0)

    tuner = engine(tiny_model_path, "m", loss=BrokenAtFive)
    message = (
        r"The loss is nan at step 5, batch 2 of epoch 2, which begins with the question 'where is .*'.*checkpoint-4\."
    )
    with pytest.raises(TrainingError, match=message):
        tuner.finetune()
    # The weights in the checkpoint are those of step 4: finite.
    from safetensors.torch import load_file

    saved = load_file(checkpoint_folder("m") / "checkpoint-4/model.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in saved.values())


def test_the_newest_checkpoint_is_of_this_run_and_of_sound_steps(tmp_path):
    def run():
        return Checkpoints(tmp_path / "c", keep=0, signature={})

    def write(checkpoints, step):
        checkpoints.write(step, lambda folder: (folder / "weights").write_text("x"), {}, None)

    earlier = run()
    write(earlier, 2)
    write(earlier, 9)
    assert earlier.newest().name == "checkpoint-9"
    anew, goes_on = run(), run()
    assert anew.newest() is None  # 9 lies there, and is of another run
    goes_on.resume()
    write(goes_on, 12)
    assert [found and found.name for found in map(goes_on.newest, (None, 11, 8))] == [
        "checkpoint-12", "checkpoint-9", None,
    ]  # fmt: skip
    write(anew, 1)
    assert anew.newest().name == "checkpoint-1"
