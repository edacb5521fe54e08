"""embft train over a hosted model and over moved documents."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "llm_server"))

from loopback_llm import LoopbackLLM

from llama_index_embft.cli import app
from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
from llama_index_embft.embeddings import load_embed_model, make_embed_model
from llama_index_embft.errors import ConfigError

KEY = "sk-loopback-0123456789"


def make_dataset(template: str) -> EmbeddingQAFinetuneDataset:
    return EmbeddingQAFinetuneDataset(
        queries={f"q{n}": template.format(n) for n in range(12)},
        corpus={f"d{n}": f"thing {n} is here, item {n * 7 % 12}" for n in range(12)},
        relevant_docs={f"q{n}": [f"d{n}"] for n in range(12)},
    )


@pytest.fixture
def folder(tmp_path, monkeypatch):
    make_dataset("where is thing {}").save_json(tmp_path / "train.json")
    make_dataset("find the thing {} please").save_json(tmp_path / "val.json")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EMBFT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    return tmp_path


@pytest.fixture
def embft(monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["embft", "train", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as stopped:
            app.main()
        said = capsys.readouterr()
        return stopped.value.code, said.out, said.err

    return call


def test_an_adapter_and_nudge_over_a_hosted_model_pay_once(folder, embft):
    with LoopbackLLM(key=KEY) as server:
        flags = ["--embed-model", "openai:text-embedding-3-small", "--api-base", server.api_base, "--val", "val.json"]
        code, out, err = embft(
            "train.json", *flags, "--method", "adapter", "--epochs", 3, "--out", "a", "--no-progress",
            "--requests-per-minute", 500, "--tokens-per-minute", "1000000",
        )  # fmt: skip
        assert code == 0, err
        assert "adapter: validation ndcg@10" in out
        assert f"base = OpenAIEmbedding(model_name='text-embedding-3-small', api_base='{server.api_base}')" in out
        assert "load_embed_model('a', base_embed_model=base)" in out
        paid = server.count
        code, out, err = embft("train.json", *flags, "--method", "nudge", "--out", "n", "--no-progress")
        assert code == 0, err
        assert "nudge: validation ndcg@10" in out
        assert server.count == paid, "the second method embeds nothing"
        assert set(server.embedded.values()) == {1}
        for name in ("a", "n"):
            assert KEY not in "".join(path.read_text() for path in (folder / name).glob("*.json"))
            assert (folder / name / "README.md").is_file()
        base = make_embed_model("openai:text-embedding-3-small", api_base=server.api_base)
        assert len(load_embed_model("a", base_embed_model=base).get_query_embedding("where is thing 3")) == 32


def test_a_student_of_a_hosted_model_answers_queries_without_it(folder, embft, tiny_model_path):
    with LoopbackLLM(key=KEY) as server:
        flags = [
            "--teacher",
            "openai:text-embedding-3-small",
            "--api-base",
            server.api_base,
            "--embed-model",
            tiny_model_path,
        ]
        code, out, err = embft(
            "train.json", *flags, "--method", "distill", "--epochs", 1, "--out", "d", "--no-progress", "--device", "cpu"
        )
        assert code == 0, err
        assert "load_embed_model('d', base_embed_model=base)" in out
        assert set(server.embedded.values()) == {1}
        asked, base = server.count, make_embed_model("openai:text-embedding-3-small", api_base=server.api_base)
        served = load_embed_model("d", base_embed_model=base)
        assert len(served.get_query_embedding("where is thing 3")) == 32
        assert server.count == asked
        assert served.get_text_embedding("a new thing") == pytest.approx(base.get_text_embedding("a new thing"))
        assert KEY not in "".join(path.read_text() for path in (folder / "d").glob("*.json"))


def test_nudge_over_a_local_model(folder, embft, tiny_model_path):
    code, out, err = embft(
        "train.json", "--embed-model", tiny_model_path, "--method", "nudge", "--val", "val.json", "--out", "n",
        "--variant", "N", "--steps", "8", "--no-progress", "--device", "cpu",
    )  # fmt: skip
    assert code == 0, err
    assert "load_embed_model('n')" in out
    assert json.loads((folder / "n" / "embft.json").read_text())["kind"] == "nudge"


CASES = {
    ("--embed-model", "openai:m"): "method full trains the weights of a model, and a hosted one keeps them to itself",
    ("--embed-model", "openai:m", "--method", "lora"): "choose --method adapter or nudge",
    ("--embed-model", "openai:m", "--method", "adapter", "--query-prompt", "q"): "no meaning with a hosted model",
    ("--embed-model", "os:system", "--method", "nudge"): "'os:system' must be named as openai:MODEL",
    ("--api-base", "http://localhost/v1"): "api_base is for a hosted model; name one as embed_model openai:MODEL",
    ("--tokens-per-minute", "5"): "tokens_per_minute is for a hosted model",
    ("--embed-model", "openai:m", "--method", "adapter", "--requests-per-minute", "0"): "it must be at least 1",
    ("--embed-model", "openai:m", "--method", "adapter", "--requests-per-minute", "x"): "must be a whole number",
    ("--method", "nudge", "--batch-size", "8"): "batch_size is not an option of --method nudge",
    ("--method", "nudge", "--recipe", "auto"): "recipe is not an option of --method nudge",
    ("--method", "nudge", "--guard", "val.json"): "guard is not an option of --method nudge",
    ("--method", "nudge", "--time-budget", "9"): "time_budget is for the search",
    ("--embed-model", "openai:m", "--method", "adapter", "--api-base", "http://127.0.0.1:9/v1"): "No connection to the",
}


@pytest.mark.parametrize("arguments", CASES)
def test_what_cannot_be_is_one_sentence(folder, embft, arguments):
    code, _, err = embft("train.json", "--out", "m", *arguments, "--no-progress")
    said = [line for line in err.splitlines() if line.startswith("Error: ")]
    assert (code, len(said)) == (2, 1), err
    assert CASES[arguments] in said[0]
    assert not (folder / "m").exists()


def test_no_key_is_said_before_any_call(folder, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(ConfigError, match="needs a key: set OPENAI_API_KEY"):
        make_embed_model("openai:text-embedding-3-small")


def test_a_wrong_key_is_one_call_and_one_sentence(folder, embft):
    with LoopbackLLM(key="sk-another-one-entirely") as server:
        flags = ["--embed-model", "openai:m", "--method", "adapter", "--api-base", server.api_base, "--no-progress"]
        code, _, err = embft("train.json", *flags, "--out", "m")
        assert code == 2
        assert "refused the API key" in err
        assert KEY not in err
        assert server.count == 1
