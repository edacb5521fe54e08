"""Training by Ray Train: what two processes without Ray come to."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest
from safetensors.torch import load_file

pytest.importorskip("ray")

from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
from llama_index_embft.errors import ConfigError
from llama_index_embft.finetune.full import engine_arguments
from llama_index_embft.scale.ray import ScaleError, finetune
from llama_index_embft.scale.ray.training import _models_from_anywhere

pytestmark = pytest.mark.e2e

WORKER = """
import dataclasses, json, sys
from pathlib import Path
from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
from llama_index_embft.finetune import SentenceTransformersFinetuneEngine
from llama_index_embft.finetune.full import engine_arguments
data = EmbeddingQAFinetuneDataset.from_json("train.json")
engine = SentenceTransformersFinetuneEngine(data, device="cpu", **engine_arguments(**json.loads(sys.argv[1])))
result = engine.finetune()
Path("result.json").write_text(json.dumps({**dataclasses.asdict(result), "output_path": ""}))
"""


def make_dataset() -> EmbeddingQAFinetuneDataset:
    names = [f"{colour} {thing}" for colour in ("red", "green", "blue", "black") for thing in ("cat", "dog", "bird")]
    return EmbeddingQAFinetuneDataset(
        queries={f"q{n}": f"where is the {name}" for n, name in enumerate(names)},
        corpus={f"d{n}": f"item {n * 7 % 12} of class {name[0]}" for n, name in enumerate(names)},
        relevant_docs={f"q{n}": [f"d{n}"] for n in range(12)},
    )


def start_two(folder, options) -> list[subprocess.Popen]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    children = []
    for rank in range(2):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "RANK": str(rank), "LOCAL_RANK": str(rank)}
        environment |= {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        command = [sys.executable, "-c", WORKER, json.dumps(options)]
        children.append(
            subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        )
    return children


def test_two_workers_are_two_processes_without_ray(cluster, tiny_model_path, tmp_path):
    data = make_dataset()
    options = {"batch_size": 6, "epochs": 2, "learning_rate": 1e-3, "bf16": False, "show_progress_bar": False}
    options |= {"save_checkpoints": True, "checkpoint_save_steps": 2}
    result = finetune(data, tiny_model_path, tmp_path / "ray" / "m", workers=2, **engine_arguments(**options))
    (tmp_path / "plain").mkdir()
    data.save_json(tmp_path / "plain" / "train.json")
    children = start_two(tmp_path / "plain", {**options, "model_id": tiny_model_path, "model_output_path": "m"})
    for child in children:
        output, _ = child.communicate(timeout=300)
        assert child.returncode == 0, output.decode()
    plain = json.loads((tmp_path / "plain" / "result.json").read_text())
    assert result.steps == plain["steps"] == 4
    assert [entry["loss"] for entry in result.losses] == pytest.approx([e["loss"] for e in plain["losses"]], abs=1e-6)
    weights = load_file(str(tmp_path / "ray" / "m" / "model.safetensors"))
    for name, expected in load_file(str(tmp_path / "plain" / "m" / "model.safetensors")).items():
        assert weights[name].numpy() == pytest.approx(expected.numpy(), abs=1e-6), name
    assert len(list((tmp_path / "ray" / "checkpoints").glob("m-*/checkpoint-4"))) == 1
    assert sorted(path.name for path in (tmp_path / "ray").iterdir()) == ["checkpoints", "m"]


def test_folders_of_models_are_named_by_their_whole_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "guide").mkdir()
    strategies = ["rank:1-9", "cross-encoder:guide", "cross-encoder:owner/name"]
    found = _models_from_anywhere(
        engine_arguments(guide_model="guide", mining_rounds=1, mining_strategies=strategies, seed=1)
    )
    assert found == engine_arguments(
        guide_model=str(tmp_path / "guide"),
        mining_rounds=1,
        mining_strategies=["rank:1-9", f"cross-encoder:{tmp_path / 'guide'}", "cross-encoder:owner/name"],
        seed=1,
    )


def test_failures_are_sentences(cluster, tiny_model_path, tmp_path):
    data = make_dataset()
    with pytest.raises(ScaleError, match="9 workers need 9 CPUs and the cluster has 2"):
        finetune(data, tiny_model_path, tmp_path / "m", workers=9)
    with pytest.raises(ScaleError, match=r"The node .* cannot use the model: The model folder"):
        finetune(data, str(tmp_path / "gone"), tmp_path / "m", workers=1)
    with pytest.raises(ConfigError, match="`device` follows from gpus_per_worker"):
        finetune(data, tiny_model_path, tmp_path / "m", device="cpu")
    with pytest.raises(ConfigError, match="`batch_size` is 7, which 2 processes cannot share equally"):
        finetune(data, tiny_model_path, tmp_path / "m", workers=2, batch_size=7)
    assert list(tmp_path.iterdir()) == []
