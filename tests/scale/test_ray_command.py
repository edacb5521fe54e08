"""``embft mine --ray``: the same file as without, and sentences for what cannot be."""

from __future__ import annotations

import json
import socket

import pytest

pytest.importorskip("ray")

from typer.testing import CliRunner

from llama_index_embft.cli.app import app
from llama_index_embft.cli.commands import register
from llama_index_embft.errors import ConfigError
from llama_index_embft.scale.ray import ScaleError

COLOURS = ("red", "green", "blue", "black", "white", "brown")


@pytest.fixture
def run():
    if not app.registered_commands:
        register(app)

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
def test_the_same_file_as_without(cluster, run, data, tiny_model_path, tmp_path):
    options = [data, "--model", tiny_model_path, "--num", 29, "--strategy", "rank:1-29", "--no-examples"]
    run("mine", *options, "--out", tmp_path / "alone.json", "--device", "cpu")
    output = run("mine", *options, "--out", tmp_path / "ray.json", "--ray", "auto")
    found, alone = (json.loads((tmp_path / name).read_text()) for name in ("ray.json", "alone.json"))
    # This model is random, and scores that differ in the last bit only may change places.
    for one in (found, alone):
        one["negative_docs"] = {query: sorted(docs) for query, docs in one["negative_docs"].items()}
    assert found == alone
    assert "ray.json" in output
    assert (tmp_path / "ray.embeddings" / "corpus" / "manifest.json").is_file()


def test_what_cannot_be_is_said(run, data, tmp_path, monkeypatch):
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    with pytest.raises(ScaleError, match=f"No Ray cluster can be joined at {address}"):
        run("mine", data, "--model", "m", "--ray", address)
    with pytest.raises(ConfigError, match="--device has no meaning together with --ray"):
        run("mine", data, "--model", "m", "--ray", address, "--device", "cpu")
    with pytest.raises(ConfigError, match="--no-cache has no meaning together with --ray"):
        run("mine", data, "--model", "m", "--ray", address, "--no-cache")
    with pytest.raises(ConfigError, match="--ray-folder is for --ray ADDRESS"):
        run("mine", data, "--model", "m", "--ray-folder", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["train.json"]
