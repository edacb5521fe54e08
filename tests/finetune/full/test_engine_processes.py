"""Two processes with shared negatives are one process with the joint batch."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from safetensors.torch import load_file

from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
from llama_index_embft.errors import ConfigError

WORKER = """
import json, os, sys, time
from pathlib import Path
from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
from llama_index_embft.finetune.full.training import trainer
from llama_index_embft.finetune import SentenceTransformersFinetuneEngine
from llama_index_embft.finetune.full import engine_arguments

options = json.loads(sys.argv[1])
stop_at = options.pop("stop_at", None)
rank = os.environ.get("RANK", "one")
steps = []
original = trainer.EngineTrainer.training_step
def training_step(self, model, inputs, num_items_in_batch=None):
    if self.state.global_step == stop_at:
        Path(f"ready-{rank}").write_text("x")
        time.sleep(600)
    loss = original(self, model, inputs, num_items_in_batch)
    steps.append((float(loss), len(inputs["anchor_input_ids"])))
    return loss
trainer.EngineTrainer.training_step = training_step
data = EmbeddingQAFinetuneDataset.from_json("train.json")
engine = SentenceTransformersFinetuneEngine(data, val_dataset=data, device="cpu", **engine_arguments(**options))
for module in engine.model.modules():
    if type(module).__name__ == "Dropout":
        module.p = 0.0  # the processes would draw other numbers than one alone
result = engine.finetune()
Path(f"steps-{rank}.json").write_text(json.dumps([steps, result.history]))
"""


def make_dataset(negatives: int) -> EmbeddingQAFinetuneDataset:
    names = [f"{colour} {thing}" for colour in ("red", "green", "blue", "black") for thing in ("cat", "dog", "bird")]
    return EmbeddingQAFinetuneDataset(
        queries={f"q{n}": f"where is the {name}" for n, name in enumerate(names)},
        corpus={f"d{n}": f"item {n * 7 % 12} of class {name[0]}" for n, name in enumerate(names)},
        relevant_docs={f"q{n}": [f"d{n}"] for n in range(12)},
        negative_docs={f"q{n}": [f"d{(n + 1) % 12}"] for n in range(12)} if negatives else {},
    )


def start(folder, options, processes: int) -> list[subprocess.Popen]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    children = []
    for rank in range(processes):
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        if processes > 1:  # what torchrun sets
            environment |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
            environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        command = [sys.executable, "-c", WORKER, json.dumps(options)]
        children.append(
            subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        )
    return children


OPTIONS = {
    "batch_size": 6,
    "epochs": 2,
    "learning_rate": 1e-3,
    "bf16": False,
    "show_progress_bar": False,
    "mini_batch_size": 2,
    "save_checkpoints": True,
    "checkpoint_save_steps": 2,
    "model_output_path": "m",
}


def wait_for(children: list[subprocess.Popen]) -> None:
    for child in children:
        output, _ = child.communicate(timeout=300)
        assert child.returncode == 0, output.decode()


@pytest.fixture(scope="module")
def runs(tiny_model_path, tmp_path_factory):
    """Folders of a run in one process, of one in two, and of one in two that was killed in its third step."""
    folder = tmp_path_factory.mktemp("processes")
    options = {**OPTIONS, "model_id": tiny_model_path}
    children = {}
    for name, processes, more in (("one", 1, {}), ("two", 2, {}), ("killed", 2, {"stop_at": 3})):
        (folder / name).mkdir()
        make_dataset(1).save_json(folder / name / "train.json")
        children[name] = start(folder / name, options | more, processes)
    ready = [folder / "killed" / f"ready-{rank}" for rank in (0, 1)]
    deadline = time.monotonic() + 300
    while not all(path.exists() for path in ready) and time.monotonic() < deadline:
        assert all(child.poll() is None for child in children["killed"]), children["killed"][0].stdout.read().decode()
        time.sleep(0.05)
    for child in children["killed"]:
        os.kill(child.pid, signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
        child.stdout.close()
    wait_for([*children["one"], *children["two"]])
    return folder


def test_two_processes_are_one_with_the_joint_batch(runs):
    steps, histories, weights = {}, {}, {}
    for name, processes in (("one", 1), ("two", 2)):
        folder = runs / name
        found = [json.loads(file.read_text()) for file in sorted(folder.glob("steps-*.json"))]
        assert len(found) == processes
        # The loss of the joint batch is the mean of the parts' losses, which are of one size.
        steps[name] = [sum(loss for loss, _ in step) / processes for step in zip(*(f[0] for f in found), strict=True)]
        assert {rows for f in found for _, rows in f[0]} == {6 // processes}
        histories[name] = [f[1] for f in found]
        weights[name] = load_file(str(folder / "m" / "model.safetensors"))
        assert len(list((folder / "checkpoints").glob("m-*/checkpoint-4/embft_best.json"))) == 1
    assert len(steps["two"]) == 4
    assert steps["two"] == pytest.approx(steps["one"], rel=1e-4)
    for tensor, expected in zip(weights["two"].values(), weights["one"].values(), strict=True):
        assert tensor.numpy() == pytest.approx(expected.numpy(), abs=2e-4)
    # All processes saw the same scores, and took the same decisions.
    assert histories["two"][0] == histories["two"][1]


def test_two_processes_that_were_killed_go_on_to_the_same_weights(runs, tiny_model_path):
    folder = runs / "killed"
    assert [path.name for path in (folder / "checkpoints").glob("m-*/checkpoint-*")] == ["checkpoint-2"]
    assert not (folder / "m").exists()
    options = {**OPTIONS, "model_id": tiny_model_path, "resume_from_checkpoint": True}
    wait_for(start(folder, options, 2))
    assert [len(json.loads((folder / f"steps-{rank}.json").read_text())[0]) for rank in (0, 1)] == [2, 2]
    found, expected = (load_file(str(runs / name / "m" / "model.safetensors")) for name in ("killed", "two"))
    assert found.keys() == expected.keys()
    assert all((found[name] == expected[name]).all() for name in found)


def test_a_batch_that_cannot_be_shared_is_refused(tiny_model_path, tmp_path, monkeypatch):
    from llama_index_embft.finetune import SentenceTransformersFinetuneEngine

    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="`batch_size` is 7, which 2 processes cannot share equally"):
        SentenceTransformersFinetuneEngine(make_dataset(0), tiny_model_path, str(tmp_path / "m"), batch_size=7)


# As in docs/how-to/train.md; where there are no GPUs, `--multi_gpu` starts processes just the same.
LAUNCHERS = {
    "torchrun": ["torch.distributed.run", "--nproc-per-node", "2"],
    "accelerate": [
        *("accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"),
        *("--mixed_precision", "no", "--dynamo_backend", "no"),
    ],
}


def test_the_documented_launchers_train_the_same_model(tiny_model_path, tmp_path):
    """Two processes by torchrun and by accelerate end in the same weights."""
    make_dataset(1).save_json(tmp_path / "train.json")
    for name, launcher in LAUNCHERS.items():
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = ["--master_port" if name == "torchrun" else "--main_process_port", str(probe.getsockname()[1])]
        train = ["train", "train.json", "--val", "train.json", "--embed-model", tiny_model_path, "--out", name]
        options = ["--device", "cpu", "--batch-size", "6", "--epochs", "2", "--learning-rate", "1e-3", "--no-bf16"]
        command = [sys.executable, "-m", *launcher, *port, "-m", "llama_index_embft.cli.app", *train, *options]
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.count("Written to") == 1  # the first process alone speaks
        assert json.loads((tmp_path / name / "embft.json").read_text())["processes"] == 2
    found, expected = (load_file(str(tmp_path / name / "model.safetensors")) for name in LAUNCHERS)
    assert found.keys() == expected.keys()
    assert all((found[name] == expected[name]).all() for name in found)
