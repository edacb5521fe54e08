"""``embft mine``, ``generate`` and ``train`` with ``--ray``: the same as without, and sentences for what cannot be."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

pytest.importorskip("ray")

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "llm_server"))

from loopback_llm import LoopbackLLM
from typer.testing import CliRunner

from llama_index_embft.cli.app import app
from llama_index_embft.errors import ConfigError
from llama_index_embft.scale.ray import ScaleError

COLOURS = ("red", "green", "blue", "black", "white", "brown")


@pytest.fixture
def run():

    def call(*arguments: object) -> str:
        outcome = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if outcome.exception is not None and not isinstance(outcome.exception, SystemExit):
            raise outcome.exception
        assert outcome.exit_code == 0, outcome.output
        return outcome.output

    return call


@pytest.fixture
def data(tmp_path):
    things = [f"{colour} {thing}" for colour in COLOURS for thing in ("cat", "dog", "bird", "fish", "horse")]
    path = tmp_path / "train.json"
    path.write_text(
        json.dumps(
            {
                "queries": {f"q{n}": f"where is the {name}" for n, name in enumerate(things)},
                "corpus": {f"d{n}": f"the {name} lives in house {n}" for n, name in enumerate(things)},
                "relevant_docs": {f"q{n}": [f"d{n}"] for n in range(len(things))},
            }
        )
    )
    return path


@pytest.mark.e2e
def test_the_same_file_as_without(cluster, run, data, tiny_model_path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the workers were started elsewhere
    shutil.copytree(tiny_model_path, "model")
    options = [data.name, "--embed-model", "model", "--num-negatives", 29, "--strategy", "rank:1-29", "--no-examples"]
    run("mine", *options, "--out", "alone.json", "--device", "cpu")
    output = run("mine", *options, "--out", "ray.json", "--ray", "auto")
    found, alone = (json.loads((tmp_path / name).read_text()) for name in ("ray.json", "alone.json"))
    # This model is random, and scores that differ in the last bit only may change places.
    for one in (found, alone):
        one["negative_docs"] = {query: sorted(docs) for query, docs in one["negative_docs"].items()}
    assert found == alone
    assert "ray.json" in output
    assert (tmp_path / "ray.embeddings" / "corpus" / "manifest.json").is_file()


def start_two(folder, arguments) -> list[subprocess.Popen]:
    """The command in two processes, as torchrun starts them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    children = []
    for rank in range(2):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "RANK": str(rank), "LOCAL_RANK": str(rank)}
        environment |= {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "COLUMNS": "200"}
        children.append(
            subprocess.Popen(
                [sys.executable, "-m", "llama_index_embft.cli.app", *map(str, arguments)],
                cwd=folder,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    return children


@pytest.mark.e2e
def test_training_is_that_of_two_processes(cluster, run, data, tiny_model_path, tmp_path, monkeypatch):
    from llama_index_embft.dataset import EmbeddingQAFinetuneDataset

    whole = EmbeddingQAFinetuneDataset.from_json(data)
    whole.subset([f"q{n}" for n in range(0, 30, 3)]).save_json(tmp_path / "val.json")
    whole.subset([f"q{n}" for n in range(1, 30, 3)]).save_json(tmp_path / "guard.json")
    (tmp_path / "train.yaml").write_text(
        "batch_size: 10\nepochs: 2\nlearning_rate: 3e-3\nbf16: false\nmerge: auto\nprogress: false\nray_workers: 2\n"
    )
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_model_path, "base")  # a relative folder: workers have another current one
    same = ["train", "train.json", "--embed-model", "base", "--val", "val.json", "--guard", "guard.json"]
    on_cluster = [*same, "--config", "train.yaml", "--out", "ray/m", "--ray", "auto", "--ray-cpus", "1"]
    monkeypatch.setattr(sys, "argv", ["embft", *on_cluster])
    monkeypatch.setenv("COLUMNS", "200")
    output = run(*on_cluster)
    plain_config = (tmp_path / "train.yaml").read_text().replace("ray_workers: 2\n", "")
    (tmp_path / "plain.yaml").write_text(plain_config)
    children = start_two(tmp_path, [*same, "--config", "plain.yaml", "--device", "cpu", "--out", "plain/m"])
    outputs = [child.communicate(timeout=300)[0] for child in children]
    assert [child.returncode for child in children] == [0, 0], outputs
    weights = load_file("ray/m/model.safetensors")
    for name, expected in load_file("plain/m/model.safetensors").items():
        assert weights[name].numpy() == pytest.approx(expected.numpy(), abs=1e-6), name
    # What is shown and written is made here, of what came back from the cluster.
    shown, expected = ([line for line in text.splitlines() if line.startswith("│")] for text in (output, outputs[0]))
    assert shown == expected
    assert len(shown) == 3  # before training, and after each epoch
    assert "Merge weight: " in output
    assert f"load_embed_model('{tmp_path}/ray/m')" in output
    record, plain = (json.loads(Path(name, "m", "embft.json").read_text()) for name in ("ray", "plain"))
    assert record.pop("command") == "embft " + " ".join(on_cluster)
    assert record["processes"] == 2
    assert record["base"].pop("model_name") == str(tmp_path / "base")
    for one in (record, plain):
        del one["date"]
    del plain["command"], plain["base"]["model_name"]
    curve, expected = record["metrics"].pop("merge_curve"), plain["metrics"].pop("merge_curve")
    assert curve == [pytest.approx(point, abs=1e-6) for point in expected]
    assert record == plain
    card = Path("ray/m/README.md").read_text()
    assert "Trained in 2 processes by:" in card
    assert "--ray auto" in card
    assert "ndcg@10 by step" in Path("ray/m/training.svg").read_text()


@pytest.mark.e2e
def test_questions_are_those_of_one_machine(cluster, run, tmp_path, monkeypatch):
    (tmp_path / "docs").mkdir()
    for n, colour in enumerate(COLOURS):
        (tmp_path / "docs" / f"{n}.txt").write_text(f"The {colour} harbour number {n} has been open since 190{n}.")
    with LoopbackLLM() as server:
        options = [
            tmp_path / "docs",
            "--llm-model",
            "m",
            "--api-base",
            server.api_base,
            "--judge",
            1,
            "--no-progress",
            "--yes",
        ]
        run("generate", *options, "--out", tmp_path / "alone.json")
        asked = len(server.requests)
        monkeypatch.setenv("EMBFT_CACHE_DIR", str(tmp_path / "another cache"))  # the journal would answer everything
        output = run("generate", *options, "--out", tmp_path / "ray.json", "--ray", "auto", "--ray-workers", 2)
        assert len(server.requests) == 2 * asked
        assert (tmp_path / "ray.json").read_bytes() == (tmp_path / "alone.json").read_bytes()
        assert "from 6 of 6 chunks" in output
        # As the refusal of --negatives says: what the cluster has asked is not asked again.
        run("generate", *options, "--out", tmp_path / "ray.json", "--negatives", 1)
        mined = json.loads((tmp_path / "ray.json").read_text())
        assert len(server.requests) == 2 * asked + len(mined["queries"])
        assert len(mined["negative_docs"]) == len(mined["queries"]) > 0


def test_what_cannot_be_is_said(run, data, tmp_path, monkeypatch):
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    with pytest.raises(ScaleError, match=f"No Ray cluster can be joined at {address}"):
        run("mine", data, "--embed-model", "m", "--ray", address)
    with pytest.raises(ScaleError, match=f"No Ray cluster can be joined at {address}"):
        run("train", data, "--out", tmp_path / "m", "--ray", address)
    with pytest.raises(ConfigError, match="--device has no meaning together with --ray"):
        run("mine", data, "--embed-model", "m", "--ray", address, "--device", "cpu")
    with pytest.raises(ConfigError, match="--no-cache has no meaning together with --ray"):
        run("mine", data, "--embed-model", "m", "--ray", address, "--no-cache")
    with pytest.raises(ConfigError, match="--ray-folder is for --ray ADDRESS"):
        run("mine", data, "--embed-model", "m", "--ray-folder", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["train.json"]
