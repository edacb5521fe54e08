"""embft train --ray: what reaches the cluster, what comes back, and what is refused; tests/scale has a real cluster."""

from __future__ import annotations

import json

import pytest

from llama_index_embft.cli.train import command
from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
from llama_index_embft.errors import ConfigError
from llama_index_embft.finetune import FinetuneResult, LoraSettings
from llama_index_embft.scale import ray


@pytest.fixture
def folder(tmp_path, monkeypatch):
    numbers = range(4)
    EmbeddingQAFinetuneDataset(
        queries={f"q{n}": f"where is {n}" for n in numbers},
        corpus={f"d{n}": f"{n} is here" for n in numbers},
        relevant_docs={f"q{n}": [f"d{n}"] for n in numbers},
    ).save_json(tmp_path / "train.json")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def asked(folder, monkeypatch):
    """What the function for clusters was called with; it writes a folder as the cluster would."""
    calls = []

    def finetune(dataset, model_id, model_output_path, **options):
        calls.append({"queries": len(dataset.queries), "model_id": model_id, "out": model_output_path, **options})
        out = folder / model_output_path
        out.mkdir(parents=True)
        (out / "embft.json").write_text(json.dumps({"format": 1, "kind": "lora", "base": {"model_name": "b"}}))
        losses = [{"step": step, "epoch": step / 2, "loss": 1 / step} for step in (1, 2)]
        return FinetuneResult(out, "lora", "ndcg@10", None, None, 2, 2, losses, {"train": 1.0}, losses=losses)

    monkeypatch.setattr(ray, "finetune", finetune)
    return calls


def test_flags_and_file_reach_the_cluster(folder, embft, asked):
    (folder / "train.yaml").write_text("ray: head:6379\nray-workers: 8\nray_cpus: 3\nbatch_size: 12\nmethod: lora\n")
    flags = ["--config", "train.yaml", "--ray-workers", 4, "--ray-gpus", 1, "--embed-model", "b", "--out", "m"]
    code, out, err = embft("train", "train.json", *flags, "--lora-rank", 4)
    assert code == 0, err
    assert asked == [
        {
            "queries": 4, "model_id": "b", "out": "m", "address": "head:6379", "workers": 4, "cpus_per_worker": 3.0,
            "gpus_per_worker": 1.0, "method": "lora", "lora": LoraSettings(rank=4), "batch_size": 12,
            "show_progress_bar": True,
        }
    ]  # fmt: skip
    assert "Training in 4 processes on the Ray cluster head:6379" in out
    assert "lora: 2 steps" in out
    assert "│    2 │  1.00 │ 0.5000 │" in out
    record = json.loads((folder / "m" / "embft.json").read_text())
    assert record["processes"] == 4
    assert record["command"].startswith("embft train train.json --config train.yaml --ray-workers 4")
    assert "Trained in 4 processes by:" in (folder / "m" / "README.md").read_text()
    assert (folder / "m" / "training.svg").is_file()


def test_two_processes_unless_told_otherwise_and_the_result_goes_to_the_hub(folder, embft, asked, monkeypatch):
    from llama_index_embft.export import hub

    pushed = []
    monkeypatch.setattr(hub, "check_can_push", lambda repo: None)
    monkeypatch.setattr(
        hub, "push_to_hub", lambda path, repo, private: pushed.append((path, repo)) or "https://hub/a/b"
    )
    code, out, err = embft(
        "train", "train.json", "--ray", "auto", "--no-progress", "--push-to-hub", "a/b", "--out", "m"
    )
    assert code == 0, err
    assert (asked[0]["workers"], asked[0]["show_progress_bar"], "cpus_per_worker" in asked[0]) == (2, False, False)
    assert pushed == [(folder / "m", "a/b")]
    assert "https://hub/a/b" in out
    assert "Training in" not in out
    assert json.loads((folder / "m" / "embft.json").read_text())["processes"] == 2


REFUSED = {
    ("--ray-workers", "2"): "--ray-workers is for --ray ADDRESS; leave it out, or give --ray ADDRESS.",
    ("--ray-cpus", "2"): "--ray-cpus is for --ray ADDRESS; leave it out, or give --ray ADDRESS.",
    ("--ray-gpus", "0"): "--ray-gpus is for --ray ADDRESS; leave it out, or give --ray ADDRESS.",
    ("--ray", " "): "--ray is empty; name one",
    ("--ray", "auto", "--ray-workers", "0"): "--ray-workers is 0; it must be 1 or more.",
    ("--ray", "auto", "--ray-workers", "two"): "--ray-workers is 'two'; it must be a whole number.",
    ("--ray", "auto", "--ray-gpus", "-1"): "--ray-gpus is -1; it must be 0 or more.",
    ("--ray", "auto", "--ray-cpus", "nan"): "--ray-cpus is nan; it must be 0 or more.",
    ("--ray", "auto", "--ray-cpus", "0"): "A worker needs a CPU or a GPU",
    ("--ray", "auto", "--method", "adapter"): "method adapter trains in one process and has no meaning together with",
    ("--ray", "auto", "--method", "nudge"): "method nudge trains in one process and has no meaning together with",
    ("--ray", "auto", "--recipe", "auto"): "recipe auto runs in one process; look for the recipe without --ray first",
    ("--ray", "auto", "--time-budget", "9"): "--time-budget has no meaning together with --ray; leave it out.",
    ("--ray", "auto", "--device", "cpu"): "--device has no meaning together with --ray; leave it out.",
    ("--ray", "auto", "--embed-model", "openai:m"): "method full trains the weights of a model, and a hosted one",
    ("--ray", "auto", "--api-base", "http://h/v1"): "--api-base has no meaning together with --ray; leave it out.",
    ("--ray", "auto", "--lora-rank", "8"): "lora_rank is not an option of --method full",
    ("--ray", "auto", "--bias"): "bias is not an option of --method full",
    ("--ray", "head"): "The Ray address 'head' is not understood; write HOST:PORT",
}


@pytest.mark.parametrize("arguments", REFUSED, ids=" ".join)
def test_what_means_nothing_is_refused(arguments, folder, embft, monkeypatch):
    if "head" in arguments or arguments[-2:] == ("--ray-cpus", "0"):
        monkeypatch.setattr(pytest.importorskip("ray"), "is_initialized", lambda: False)
    code, _, err = embft("train", "train.json", "--embed-model", "b", "--out", "m", *arguments)
    assert (code, err.count("Error: ")) == (2, 1), err
    assert err.startswith("Error: ")
    assert REFUSED[arguments] in err
    assert [path.name for path in folder.iterdir()] == ["train.json"]


def test_torchrun_and_ray_are_two_ways(folder, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="--ray starts its processes itself; call embft train without torchrun"):
        command._engine({"data": folder / "train.json", "ray": "auto"})
