"""embft train on what users really have: each is one clear sentence and exit code 2, or it works."""

from __future__ import annotations

import json
import sys

import pytest

from llama_index_embft.cli import app

PAIRS = [(colour, thing) for colour in ("red", "blue", "green", "old") for thing in ("cat", "dog", "bird", "fish")]


def content(template: str = "where is the {} {}") -> dict:
    return {
        "queries": {f"q{n}": template.format(*pair) for n, pair in enumerate(PAIRS)},
        "corpus": {f"d{n}": f"item {n * 7 % 16} of class {c[0]}{t[0]}" for n, (c, t) in enumerate(PAIRS)},
        "relevant_docs": {f"q{n}": [f"d{n}"] for n in range(len(PAIRS))},
    }


def with_changes(**sections: dict) -> dict:
    changed = content()
    for name, values in sections.items():
        changed[name] = {**changed.get(name, {}), **values}
    return changed


FILES = {
    "empty.json": "",
    "no-sections.json": "{}",
    "cut.json": json.dumps(content())[:500],
    "no-query.json": json.dumps({"queries": {}, "corpus": {"d": "x"}, "relevant_docs": {}}),
    "one-pair.json": json.dumps({"queries": {"q": "x"}, "corpus": {"d": "y"}, "relevant_docs": {"q": ["d"]}}),
    "missing.json": json.dumps(with_changes(relevant_docs={"q3": ["nosuch"]})),
    "contradiction.json": json.dumps(with_changes(negative_docs={"q3": ["d3"]})),
    "mixed.json": json.dumps(
        with_changes(queries={"q1": "哪里有猫"}, corpus={"d1": "这里有一只猫 Ελλάδα кошка 🐈 \u202e"})
    ),
    "long.json": json.dumps(with_changes(corpus={"d1": "word " * 40_000})),
    "train.json": json.dumps(content()),
    "val.json": json.dumps(content("find a {} {}")),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "afile").write_text("mine")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def embft(folder, monkeypatch, capsys, tiny_model_path):
    def call(*arguments):
        options = ["--no-progress", "--epochs", "1", "--no-bf16"]
        options += [] if "--device" in arguments else ["--device", "cpu"]
        model = [] if "--embed-model" in arguments else ["--embed-model", tiny_model_path]
        monkeypatch.setattr(sys, "argv", ["embft", "train", *map(str, arguments), *model, *options])
        monkeypatch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as stopped:
            app.main()
        said = capsys.readouterr()
        return stopped.value.code, said.out, said.err

    return call


REFUSED = {
    ("empty.json",): "empty.json is empty",
    ("no-sections.json",): "no-sections.json: the format cannot be guessed",
    ("cut.json",): "cut.json: the file ends in the middle",
    ("no-query.json",): "The training set has no queries",
    ("one-pair.json",): "The training set has one question and one passage",
    ("missing.json",): "names the document 'nosuch', which is not in `corpus`",
    ("contradiction.json",): "the document 'd3' is both relevant and negative for the query 'q3'",
    (".",): "",
    ("train.json", "--val", "no-query.json"): "The validation set has no query",
    ("train.json", "--guard", "no-query.json"): "The guard set has no query",
    ("train.json", "--val-split", "0.5", "--val", "val.json"): "`val_split` and `val_dataset` both name",
    ("train.json", "--merge", "auto"): "`merge` chooses weights on a validation set",
    ("train.json", "--out", "afile"): "afile",
    ("train.json", "--out", "afile/below"): "afile",
    ("train.json", "--embed-model", "/no/such/model"): "The model folder '/no/such/model' does not exist",
    ("train.json", "--embed-model", "afile"): "The model afile is a file",
    ("train.json", "--learning-rate", "nan"): "`learning_rate` is nan; it must be",
    ("train.json", "--learning-rate", "inf"): "`learning_rate` is inf; it must be",
    ("train.json", "--temperature", "inf"): "`temperature` is inf; it must be",
    ("train.json", "--weight-decay", "nan"): "`weight_decay` is nan; it must be",
    ("train.json", "--seed", "-5"): "`seed` is -5; it must be",
    ("train.json", "--evaluation-steps", "0"): "`evaluation_steps` is 0; it must be at least 1",
    ("train.json", "--checkpoint-save-total-limit", "-1"): "`checkpoint_save_total_limit` is -1; it must be",
    ("train.json", "--device", "nosuch"): "nosuch",
    ("train.json", "--mining-rounds", "1", "--mining-strategies", "rank:x"): "rank:x",
    ("train.json", "--mining-rounds", "1", "--mining-negatives", "99"): "no query can have 99 negatives",
    ("train.json", "--learning-rate", "1e30", "--batch-size", "4"): "lower learning_rate (1e+30)",
    ("train.json", "--matryoshka-dims", "64"): "64",
}


@pytest.mark.parametrize("arguments", REFUSED, ids=" ".join)
def test_what_cannot_be_trained_is_one_sentence(folder, embft, arguments):
    code, _, err = embft(*arguments, *([] if "--out" in arguments else ["--out", "m"]))
    said = [line for line in err.splitlines() if line.startswith("Error: ")]
    assert (code, len(said)) == (2, 1), err
    assert REFUSED[arguments] in said[0]
    assert "Traceback" not in err
    assert not (folder / "m").exists()
    assert (folder / "afile").read_text() == "mine"


@pytest.mark.parametrize(
    "arguments",
    [
        ("mixed.json",),
        ("long.json",),
        ("train.json", "--batch-size", "100000"),
        ("train.json", "--mining-rounds", "2", "--mining-negatives", "2", "--val", "val.json"),
    ],
    ids=" ".join,
)
def test_what_is_only_unusual_works(folder, embft, arguments):
    code, out, err = embft(*arguments, "--out", "m")
    assert code == 0, err
    assert (folder / "m" / "model.safetensors").is_file()
    assert "full: " in out


def test_a_rate_that_destroys_the_model_does_not_replace_it(folder, embft, tiny_model_path):
    """One huge step, then nothing but NaN: with a validation set too there is an error, and no broken model."""
    code, _, err = embft("train.json", "--val", "val.json", "--learning-rate", "1e30", "--batch-size", 4, "--out", "m")
    assert code == 2, err
    assert "lower learning_rate" in err
    assert not (folder / "m").exists()
