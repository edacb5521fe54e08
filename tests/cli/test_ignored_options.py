"""An option that would do nothing is refused in one sentence; nothing is read, asked or written for it."""

from __future__ import annotations

import pytest

import llama_index_embft.dataset
from llama_index_embft.dataset import EmbeddingQAFinetuneDataset

REFUSED = {
    ("run", "docs", "--yes"): "--yes is for --llm; leave it out, or give --llm.",
    ("run", "docs", "--max-cost", 1): "--max-cost is for --llm;",
    ("run", "docs", "--prices", 1, 2): "--prices is for --llm;",
    ("run", "docs", "--api-base", "http://x"): "--api-base is for --llm;",
    (
        "generate",
        "docs",
        "--out",
        "t.json",
        "--llm-model",
        "m",
        "--trust-remote-code",
    ): "--trust-remote-code is for --round-trip;",
    ("generate", "docs", "--out", "t.json", "--llm-model", "m", "--top-k", 3): "--top-k is for --round-trip;",
    ("mine", "data.json", "--embed-model", "m", "--llm-model", "x"): "--llm-model is for --strategy judge;",
    ("mine", "data.json", "--embed-model", "m", "--yes"): "--yes is for --strategy judge;",
    (
        "mine",
        "data.json",
        "--embed-model",
        "m",
        "--max-cost",
        1,
        "--prices",
        1,
        1,
    ): "--prices is for --strategy judge;",
    ("inspect", "data.json", "--trust-remote-code"): "--trust-remote-code is for --embed-model;",
    ("doctor", "--no-self-test", "--device", "cpu"): "--device has no meaning together with --no-self-test;",
    ("evaluate", "data.json", "--embed-model", "m", "--drop"): "--drop is for --index;",
    ("evaluate", "--metadata-mode", "none"): "--metadata-mode has no meaning together with --index;",
    ("evaluate", "--batch-size", 8): "--batch-size has no meaning together with --index;",
    ("evaluate", "--no-cache"): "--no-cache has no meaning together with --index;",
    ("judge", "a.json", "--data", "data.json", "--sheet", "s.csv", "--labels", "l"): "--labels has no meaning",
    ("judge", "a.json", "--data", "data.json", "--sheet", "s.csv", "--dry-run"): "--dry-run has no meaning",
    ("judge", "a.json", "--data", "data.json", "--sample", 9): "--sample is for --sheet;",
    ("judge", "a.json", "--data", "data.json", "--grades", "g", "--llm-model", "m"): "together with --grades;",
    ("apply", "m", "--index", "i", "--stamp", "--journal", "j"): "--journal has no meaning together with --stamp;",
    ("apply", "m", "--index", "i", "--verify", 2): "--verify is for --stamp or --check;",
}


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dataset = EmbeddingQAFinetuneDataset(
        queries={"q": "where is it?"}, corpus={"d": "it is here", "e": "not here"}, relevant_docs={"q": ["d"]}
    )
    dataset.save_json("data.json")
    return tmp_path


@pytest.mark.parametrize("arguments", REFUSED)
def test_an_option_without_a_meaning_is_refused(embft, data, arguments):
    of_index = ("--index", "i", "--questions", "q.csv", "--embed-model", "m")
    more = of_index if arguments[0] == "evaluate" and arguments[1] != "data.json" else ()
    code, out, err = embft(*arguments, *more)
    assert (code, out) == (2, "")
    assert REFUSED[arguments] in err
    assert [path.name for path in data.iterdir()] == ["data.json"]


def test_a_batch_of_none_is_a_usage_error(embft, data):
    for command in (("evaluate", "data.json", "--embed-model", "m"), ("apply", "m", "--index", "i")):
        code, _, err = embft(*command, "--batch-size", 0)
        assert code == 2
        assert "--batch-size" in err


def test_what_nobody_foresaw_is_one_sentence_and_exit_code_3(embft, data, monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError("no passages\nand a second line")

    monkeypatch.setattr(llama_index_embft.dataset, "inspect_dataset", broken)
    code, out, err = embft("inspect", "data.json")
    assert (code, out) == (3, "")
    assert err == (
        "Error: Something unexpected went wrong (ZeroDivisionError: no passages); run again with -v for where, and "
        "report it.\n"
    )
    code, _, err = embft("inspect", "data.json", "-v")
    assert code == 3
    assert "in broken" in err
