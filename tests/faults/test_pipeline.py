"""Faults of the one-call run that were found by using the package: the right value of each."""

from __future__ import annotations

import json
import random
import re

import pytest
import typer
from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata
from typer.testing import CliRunner

from llama_index_embft import pipeline
from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
from llama_index_embft.embeddings import load_embed_model
from llama_index_embft.errors import ConfigError, DatasetError, GenerationError, TrainingError
from llama_index_embft.pipeline.trained import comparing

WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu"]
VETO = "The base model finds 97% of the chunks by a sentence copied from them."
WARNING = "These questions were taken from the text."


@pytest.fixture
def split():
    rng = random.Random(0)
    corpus = {f"d{i}": " ".join(rng.choice(WORDS) + str(rng.randrange(99)) for _ in range(30)) for i in range(60)}
    return pipeline.split_for_tuning(
        EmbeddingQAFinetuneDataset(
            queries={f"q{i}": " ".join(corpus[f"d{i}"].split()[3:9]) for i in range(60)},
            corpus=corpus,
            relevant_docs={f"q{i}": [f"d{i}"] for i in range(60)},
            source_documents={f"d{i}": f"s{i // 2}" for i in range(60)},
        )
    )


@pytest.fixture
def gain(monkeypatch):
    """Every comparison finds a gain."""
    real = comparing.compare
    monkeypatch.setattr(comparing, "compare", lambda *a, **k: real(*a, **k).amended(decision="adopt"))


def tune(split, path, folder, **options):
    return pipeline.tune_and_compare(
        split, load_embed_model(path), folder, show_progress=False, engine_options={"epochs": 1}, **options
    )


def records(folder):
    return [json.loads((folder / name).read_text("utf-8")) for name in ("report.json", "model/embft.json")]


def test_b9_report_page_and_model_say_one_thing_where_the_base_model_is_kept(split, gain, tiny_model_path, tmp_path):
    command = "embft run docs"
    outcome = tune(split, tiny_model_path, tmp_path, against=[VETO], notes=[WARNING], command=command)
    assert not outcome.adopted
    report, model = records(tmp_path)
    assert report["decision"] == model["comparison"]["decision"] == outcome.comparison.decision == "not proven"
    assert model["kind"] == "base"
    page = (tmp_path / "report.html").read_text("utf-8")
    assert re.search(r"<strong>Not proven</strong>", page)
    assert "<strong>Adopt</strong>" not in page
    for text in (VETO, WARNING, command):
        assert text in page
        assert text in json.dumps(report, ensure_ascii=False)
        assert text in json.dumps(model, ensure_ascii=False)
    assert VETO in outcome.comparison.verdict
    assert report["base"]["label"].startswith("base (")
    assert report["versions"]["llama-index-embft"]
    assert report["date"]


def test_b9_time_of_a_model_is_not_the_time_of_the_cache(split, tiny_model_path, tmp_path):
    tune(split, tiny_model_path, tmp_path / "first")
    again = tune(split, tiny_model_path, tmp_path / "second")  # every vector of the base model is known by now
    assert "encode" not in again.comparison.base.seconds


def test_dangling_the_result_leads_to_the_adopted_model(split, gain, tiny_model_path, tmp_path):
    outcome = tune(split, tiny_model_path, tmp_path / "run")
    assert outcome.adopted
    assert outcome.result.output_path == tmp_path / "run" / "model"
    assert (outcome.result.output_path / "embft.json").is_file()
    assert records(tmp_path / "run")[1]["comparison"]["decision"] == "adopt"
    (tmp_path / "run").rename(tmp_path / "moved")
    moved = outcome.moved(tmp_path / "run", tmp_path / "moved")
    assert (moved.result.output_path / "embft.json").is_file()
    assert str(tmp_path / "moved") in str(moved.result)


def test_d10_full_training_reads_what_the_engine_alone_would_read(split, tiny_model_path, tmp_path, monkeypatch):
    from llama_index_embft.finetune.full import engine
    from llama_index_embft.finetune.running.settings import TextSettings

    class StopError(Exception):
        pass

    def made(*_, text, **__):
        assert text.max_seq_length == TextSettings().max_seq_length
        raise StopError

    monkeypatch.setattr(engine, "SentenceTransformersFinetuneEngine", made)
    with pytest.raises(StopError):
        tune(split, tiny_model_path, tmp_path, method="full")


# --- the command ------------------------------------------------------------------------------------------------------


class Writer(CustomLLM):
    """Writes two questions about every passage, and counts."""

    asked: list[str]
    error: Exception | None = None

    @property
    def metadata(self):
        return LLMMetadata(model_name="writer", context_window=8000)

    def complete(self, prompt, formatted=False, **_):
        self.asked.append(prompt)
        if self.error is not None:
            raise self.error
        names = re.findall(r"word\d+", prompt)[:2]
        return CompletionResponse(text="\n".join(f"Where can {name} be found?" for name in names))

    def stream_complete(self, prompt, formatted=False, **_):
        raise NotImplementedError


class RefusedError(Exception):
    status_code = 401


@pytest.fixture
def writer(monkeypatch):
    llm = Writer(asked=[])
    monkeypatch.setattr("llama_index_embft.calls.make_llm", lambda *_, **__: llm)
    return llm


@pytest.fixture
def invoke(monkeypatch, tmp_path, tiny_model_path):
    from llama_index_embft.cli.run import run
    from llama_index_embft.cli.shared.command import add_command

    app = typer.Typer()
    add_command(app, run)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EMBFT_CACHE_DIR", str(tmp_path / "cache"))

    def call(*options, documents=4, text=lambda i: f"word{i} is here. It stands beside word{i + 50}. Nobody moved it."):
        (tmp_path / "docs").mkdir(exist_ok=True)
        for i in range(documents):
            (tmp_path / "docs" / f"{i}.txt").write_text(text(i), "utf-8")
        arguments = ["docs", "--embed-model", tiny_model_path, *options]
        result = CliRunner().invoke(app, arguments)
        call.said = result.output
        return result.exception

    return call


ASKED = ["--llm", "openai", "--llm-model", "writer"]


def test_c4_one_document_is_refused_before_anything_is_paid(writer, invoke):
    error = invoke(*ASKED, "--yes", documents=1)
    assert isinstance(error, DatasetError)
    assert len(writer.asked) <= 1  # to see that it answers


def test_c4_a_refused_key_shows_before_documents_are_read(writer, invoke, monkeypatch):
    monkeypatch.setattr("llama_index_embft.pipeline.sources.load_documents", lambda *_, **__: pytest.fail("read"))
    writer.error = RefusedError("invalid key")
    error = invoke(*ASKED, "--yes")
    assert isinstance(error, GenerationError)
    assert "refused the API key" in str(error)
    assert len(writer.asked) == 1


def test_c4_the_cost_is_agreed_to_first(writer, invoke):
    error = invoke(*ASKED)
    assert isinstance(error, ConfigError)
    assert "no terminal to confirm; pass --yes, or --max-cost with --prices." in str(error)
    assert re.search(r"The LLM will get: .*4 calls for 4 chunks", invoke.said)
    error = invoke(*ASKED, "--max-cost", "0.0001", "--prices", "100", "100")
    assert "more than --max-cost 0.0001" in str(error)
    assert "--max-cost needs --prices" in str(invoke(*ASKED, "--max-cost", "1"))
    assert len(writer.asked) <= 3


def test_c4_another_folder_does_not_pay_again(writer, invoke, monkeypatch):
    def fails(*_, **__):
        raise TrainingError("stopped.")

    monkeypatch.setattr("llama_index_embft.pipeline.tuning.assign", fails)
    assert isinstance(invoke(*ASKED, "--yes", "--out", "one"), TrainingError)
    paid = len(writer.asked)
    assert paid >= 4
    assert isinstance(invoke(*ASKED, "--out", "two"), TrainingError)  # nothing to agree to either
    assert len(writer.asked) == paid + 1


def test_d11_documents_of_one_sentence_are_no_reason_to_stop(invoke):
    sentences = [
        f"The {a} of the {b} must be {c} every year."
        for a, b, c in zip(
            ("valve", "pump", "filter", "belt", "wheel", "brake", "lamp", "hinge"),
            ("boiler", "engine", "heater", "mill", "cart", "crane", "tower", "gate"),
            ("cleaned", "tested", "changed", "tightened", "greased", "measured", "replaced", "painted"),
            strict=True,
        )
    ]
    assert invoke("--method", "none", documents=8, text=lambda i: sentences[i]) is None, invoke.said
    assert "No questions by people were given" in invoke.said
