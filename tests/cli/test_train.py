"""embft train: options from flags and a file reach the engine, the result is shown, bad input is one sentence."""

from __future__ import annotations

import inspect
import json
import os
import sys
from dataclasses import fields

import pytest
import yaml

from llama_index_embft.cli import app
from llama_index_embft.cli.shared.options import Option
from llama_index_embft.cli.train import command
from llama_index_embft.cli.train.options import GROUPS, METHODS, PLAIN, engine_options, takes
from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
from llama_index_embft.errors import ConfigError
from llama_index_embft.finetune import (
    EmbeddingAdapterFinetuneEngine,
    NudgeFinetuneEngine,
    SentenceTransformersFinetuneEngine,
)

COLOURS, THINGS = ["red", "blue", "green", "old"], ["cat", "dog", "bird", "fish"]


def make_dataset(template):
    pairs = [(colour, thing) for colour in COLOURS for thing in THINGS]
    corpus = {f"d{n}": f"item {n * 7 % 16} of class {c[0]}{t[0]}" for n, (c, t) in enumerate(pairs)}
    queries = {f"q{n}": template.format(c, t) for n, (c, t) in enumerate(pairs)}
    relevant = {f"q{n}": [f"d{n}"] for n in range(len(pairs))}
    return EmbeddingQAFinetuneDataset(queries=queries, corpus=corpus, relevant_docs=relevant)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    make_dataset("where is the {} {}").save_json(tmp_path / "train.json")
    make_dataset("find a {} {}").save_json(tmp_path / "val.json")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_config(folder, **settings):
    (folder / "train.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    return "train.yaml"


def caught(monkeypatch, *arguments):
    """The settings that the command makes of its flags, without training."""
    seen = {}

    class StopHereError(BaseException):  # no failure, which the command line would report
        pass

    def stop(settings):
        seen.update(settings)
        raise StopHereError

    monkeypatch.setattr(command, "_engine", stop)
    monkeypatch.setattr(sys, "argv", ["embft", "train", *map(str, arguments)])
    with pytest.raises(StopHereError):
        app.main()
    return seen


def test_the_whole_run(folder, embft, tiny_model_path):
    config = write_config(folder, data="train.json", epochs=50, **{"batch-size": 8}, learning_rate="3e-3", seed=7)
    flags = ["--config", config, "--embed-model", tiny_model_path, "--val", "val.json", "--out", "model", "--epochs", 2]
    code, out, err = embft("train", *flags, "--device", "cpu", "--no-progress")
    assert code == 0, err
    assert "full: validation ndcg@10" in out
    assert "│    4 │  2.00 │" in out  # two epochs of two batches: the flag won over the file
    assert "load_embed_model('model')" in out
    record = json.loads((folder / "model" / "embft.json").read_text())
    assert record["settings"]["learning_rate"] == 3e-3
    assert record["settings"]["batch_size"] == 8
    assert record["settings"]["seed"] == 7
    assert record["command"].startswith("embft train --config train.yaml --embed-model ")
    card = (folder / "model" / "README.md").read_text()
    assert card.startswith("---\n")
    assert "embft train --config train.yaml" in card
    assert "ndcg@10 by step" in (folder / "model" / "training.svg").read_text()
    for name in ("embft.json", "README.md", "training.svg"):
        assert name in out


def test_an_adapter(folder, embft, tiny_model_path):
    flags = ["--embed-model", tiny_model_path, "--method", "adapter", "--val", "val.json", "--out", "a", "--epochs", 3]
    code, out, err = embft("train", "train.json", *flags, "--query-prompt", "ask: ", "--no-progress", "--device", "cpu")
    assert code == 0, err
    assert "adapter: validation ndcg@10" in out
    record = json.loads((folder / "a" / "embft.json").read_text())
    assert record["kind"] == "adapter"
    assert record["base"]["query_prompt"] == "ask: "
    assert "library_name: llama-index-embft" in (folder / "a" / "README.md").read_text()


def test_a_reranker(folder, embft, tiny_model_path):
    flags = ["--embed-model", tiny_model_path, "--method", "reranker", "--val", "val.json", "--out", "r", "--epochs", 1]
    flags += ["--first-stage", tiny_model_path, "--loss", "lambda", "--candidate-negatives", 2, "--device", "cpu"]
    code, out, err = embft("train", "train.json", *flags, "--no-progress")
    assert code == 0, err
    assert "reranker: validation ndcg@10" in out
    assert "load_reranker('r', top_n=5)" in out
    record = json.loads((folder / "r" / "embft.json").read_text())
    assert (record["kind"], record["settings"]["loss"]) == ("reranker", "lambda")
    assert record["settings"]["candidate_negatives"] == 2
    code, _, err = embft("train", "train.json", *flags, "--loss", "CoSENTLoss")
    assert "`loss` is 'CoSENTLoss'" in err
    code, _, err = embft("train", "train.json", "--embed-model", tiny_model_path, "--first-stage", tiny_model_path)
    assert "first_stage is not an option of --method full" in err


def test_a_student_learns_its_teachers_vectors(folder, embft, tiny_model_path):
    flags = ["--method", "distill", "--embed-model", tiny_model_path, "--out", "d", "--epochs", 1, "--no-progress"]
    code, out, err = embft(
        "train", "train.json", *flags, "--teacher", tiny_model_path, "--query-prompt", "ask: ", "--device", "cpu"
    )
    assert code == 0, err
    assert "distill: validation cosine" in out
    assert "embed_model = load_embed_model('d')" in out
    record = json.loads((folder / "d" / "embft.json").read_text())
    assert (record["kind"], record["prompts"]["query"]) == ("distilled", "ask: ")
    assert "--teacher" in record["command"]
    for more, message in (
        ((), "name it: --teacher MODEL"),
        (("--teacher", tiny_model_path, "--val", "val.json"), "val is not an option of --method distill"),
        (("--teacher", tiny_model_path, "--student-layers", 1), "both are given"),
        (("--teacher", tiny_model_path, "--api-base", "http://x"), "api_base is for a hosted model"),
        (("--teacher", tiny_model_path, "--recipe", "auto"), "recipe is not an option of --method distill"),
    ):
        code, _, err = embft("train", "train.json", *flags, *more)
        assert code == 2
        assert message in err
    code, _, err = embft("train", "train.json", "--embed-model", tiny_model_path, "--teacher", tiny_model_path)
    assert "teacher is not an option of --method full" in err


@pytest.mark.parametrize(
    ("name", "engine"),
    [
        ("full", SentenceTransformersFinetuneEngine),
        ("adapter", EmbeddingAdapterFinetuneEngine),
        ("nudge", NudgeFinetuneEngine),
    ],
)
def test_the_options_are_the_arguments_of_the_engine(name, engine):
    """The settings' fields make the options; here they are held against the engine's own signature."""
    parameters = inspect.signature(engine).parameters
    for field in fields(PLAIN[name]):
        assert parameters[field.name].default == field.default, field.name
    for argument, (kind, _) in GROUPS[name].items():
        assert kind.__name__ in str(parameters[argument].annotation)
    objects = {"dataset", "val_dataset", "guard_dataset", "model_id", "embed_model", "model_output_path", "loss"}
    shown = {"show_progress_bar", "show_progress", "verbose", "cache", "adapter_model"}
    assert set(parameters) - objects - shown == {field.name for field in fields(PLAIN[name])} | set(GROUPS[name])


def test_every_engine_option_has_help():
    assert [option.name for option in engine_options().values() if not option.help] == []


def test_every_option_of_the_help_is_read(monkeypatch, folder):
    """Given on the command line, each option arrives as the engine's own type."""
    samples = {"int": ("3", 3), "float": ("2e-5", 2e-5), "list": ("8,4", None), "str": ("text", "text")}
    arguments, expected = [], {}
    for option in engine_options().values():
        flag = f"--{option.name.replace('_', '-')}"
        if option.is_flag:
            arguments.append(flag)
            expected[option.name] = True
        elif option.choices:
            arguments += [flag, option.choices[0]]
            expected[option.name] = option.choices[0]
        else:
            text, value = samples[next(kind for kind in samples if kind in option.kinds)]
            arguments += [flag, text]
            expected[option.name] = value or ([8, 4] if option.items == "int" else ["8", "4"])
    seen = caught(monkeypatch, "train.json", *arguments)
    assert {name: seen.get(name) for name in expected} == expected


def test_the_file_can_hold_everything(monkeypatch, folder):
    config = write_config(
        folder, data="train.json", embed_model="m", method="adapter", val="val.json", out="o", progress=False
    )
    seen = caught(monkeypatch, "--config", config, "--method", "full")
    assert {name: str(value) for name, value in seen.items()} == {
        "data": "train.json", "embed_model": "m", "method": "full", "val": "val.json", "out": "o", "progress": "False",
    }  # fmt: skip


def test_the_file_says_what_is_printed_too(folder, embft, tiny_model_path):
    config = write_config(folder, embed_model=tiny_model_path, method="adapter", json=True, quiet=True, verbose=1)
    code, out, err = embft(
        "train", "train.json", "--config", config, "--out", "o", "--epochs", 1, "--device", "cpu", "--no-progress"
    )
    assert (code, err) == (0, "")
    assert json.loads(out)["method"] == "adapter"
    code, out, err = embft("train", "train.json", "--config", write_config(folder, quiet=1))
    assert (code, out) == (2, "")
    assert "quiet in train.yaml is 1; it must be true or false." in err


CASES = {
    "unknown key": ("learningrate: 1", "train.yaml: unknown key 'learningrate'; did you mean 'learning_rate'?"),
    "unlike any": ("zzzz: 1", "train.yaml: unknown key 'zzzz'; --help-all lists the options."),
    "twice": ("epochs: 1\nepochs: 2", "train.yaml: epochs is set twice; keep one."),
    "twice in two ways": ("batch_size: 1\nbatch-size: 2", "train.yaml: batch_size is set twice; keep one."),
    "a word for a number": ("epochs: many", "epochs in train.yaml is 'many'; it must be a whole number."),
    "a fraction": ("epochs: 1.5", "epochs in train.yaml is 1.5; it must be a whole number."),
    "yes for a number": ("epochs: true", "epochs in train.yaml is True; it must be a whole number."),
    "a number for a flag": ("use_all_docs: 1", "use_all_docs in train.yaml is 1; it must be true or false."),
    "no mapping": ("- epochs", "train.yaml must hold options as 'name: value'"),
    "broken": ("epochs: [1", "train.yaml is not valid YAML in line"),
    "an object": ("x: !!python/object/apply:os.system ['touch owned']", "train.yaml is not valid YAML in line 1"),
    "a character of no text": ("embed_model: a\x00b", "train.yaml is not valid YAML: unacceptable character #x0000"),
    "too deep": ("[" * 5000, "train.yaml is nested too deeply"),
    "a list of models": ("embed_model: [a, b]", "embed_model in train.yaml is ['a', 'b']; it must be a text."),
    "method": ("method: magic", "`--method` is 'magic'; it must be one of 'full',"),
    "no data": ("epochs: 1", "There is no training set: name the file"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_bad_file_is_one_sentence(folder, embft, case):
    text, message = CASES[case]
    (folder / "train.yaml").write_text(text)
    code, _, err = embft("train", "--config", "train.yaml")
    assert code == 2
    assert err.startswith("Error: ")
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert sorted(path.name for path in folder.iterdir()) == ["train.json", "train.yaml", "val.json"]


def test_a_bad_flag_is_one_sentence(folder, embft, tiny_model_path):
    flags = {
        ("--config", "none.yaml"): "The file none.yaml cannot be read: No such file or directory",
        ("--epochs", "many"): "--epochs is 'many'; it must be a whole number.",
        ("--method", "adapter", "--weight-decay", "0.1"): "weight_decay is not an option of --method adapter",
        ("--method", "adapter", "--guard", "val.json"): "guard is not an option of --method adapter",
        ("--bias",): "bias is not an option of --method full",
        ("--loss", "MultipleNegativeRankingLoss"): "did you mean MultipleNegativesRankingLoss?",
        ("--loss", "batch_all"): "'batch_all' is no loss of sentence-transformers",
        ("--val", "none.json"): "none.json",
        ("--teacher-scores", "none.json"): "The file none.json cannot be read: No such file or directory",
        ("--teacher-scores", "val.json"): "val.json must hold scores as",
        ("--out", "mine"): "Will not replace the folder mine",
        ("--method", "full", "--lora-rank", "8"): "lora_rank is not an option of --method full",
        ("--matryoshka-dims", "8,x"): "An item of --matryoshka-dims is 'x'; it must be a whole number.",
        ("--recipe", "best"): "--recipe is 'best'; the only one is auto.",
        ("--recipe", "auto", "--method", "adapter"): "recipe is not an option of --method adapter",
        ("--time-budget", "60"): "time_budget is for the search of --recipe auto",
        ("--recipe", "auto", "--time-budget", "x"): "--time-budget is 'x'; it must be a number.",
        ("--merge", "some"): "--merge is 'some'; it must be a number or auto or none.",
        ("--batch-size", "0"): "`batch_size` is 0; it must be at least 1",
        ("--push-to-hub", "a/b/c"): "'a/b/c' is not the name of a repository on the hub",
        ("--push-to-hub", "a/b"): "The hub is switched off by HF_HUB_OFFLINE",
    }
    (folder / "mine").mkdir()
    (folder / "mine" / "thesis.tex").write_text("mine")
    for arguments, message in flags.items():
        code, _, err = embft("train", "train.json", "--embed-model", tiny_model_path, "--out", "m", *arguments)
        assert code == 2, arguments
        assert len([line for line in err.splitlines() if line.startswith("Error: ")]) == 1
        assert message in err, arguments
    assert not (folder / "m").exists()
    code, _, err = embft("train", "none.json", "--embed-model", tiny_model_path)
    assert (code, "none.json" in err) == (2, True)
    code, _, err = embft("train", "train.json", "--embed-model", "./none")
    assert (code, "does not exist" in err) == (2, True)


def test_guard_merge_and_lora(folder, embft, tiny_model_path):
    flags = [
        "--embed-model",
        tiny_model_path,
        "--method",
        "lora",
        "--val",
        "val.json",
        "--guard",
        "val.json",
        "--out",
        "m",
    ]
    more = ["--merge", "auto", "--lora-rank", 4, "--epochs", 2, "--batch-size", 8, "--learning-rate", "1e-2"]
    code, out, err = embft("train", "train.json", *flags, *more, "--no-progress", "--device", "cpu")
    assert code == 0, err
    assert "lora: validation ndcg@10" in out
    assert "guard_ndcg@10" in out
    assert "Merge weight: " in out
    svg = (folder / "m" / "training.svg").read_text()
    assert "by merge weight" in svg
    card = (folder / "m" / "README.md").read_text()
    assert "| guard, which must not get worse | 16 | ndcg@10 |" in card
    assert "| weight | ndcg@10 | guard\\_ndcg@10 |" in card
    assert "trained with LoRA" in card


def test_data_and_models_that_cannot_be_trained_are_one_sentence(folder, embft, tiny_model_path):
    import shutil

    data = make_dataset("where is the {} {}")
    data.subset(["q0"]).save_json(folder / "one.json")
    shutil.copytree(tiny_model_path, "no-tokenizer")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / "no-tokenizer" / name).unlink()
    shutil.copytree(tiny_model_path, "damaged")
    (folder / "damaged" / "model.safetensors").write_bytes(b"not weights")
    flags = ["--device", "cpu", "--no-progress", "--out", "m", "--epochs", "1"]
    cases = {
        ("one.json", "--embed-model", tiny_model_path): "",
        ("train.json", "--embed-model", "no-tokenizer"): "tokenizer",
        ("train.json", "--embed-model", "damaged"): "damaged",
        ("train.json", "--embed-model", tiny_model_path, "--method", "lora", "--lora-targets", "nosuch"): "nosuch",
    }
    for arguments, message in cases.items():
        code, _, err = embft("train", *arguments, *flags)
        said = [line for line in err.splitlines() if line.startswith("Error: ")]
        assert (code, len(said)) == (2, 1), (arguments, err)
        assert message in said[0]
        assert "Traceback" not in err
        assert not (folder / "m").exists()
    code, out, err = embft("train", "train.json", "--embed-model", tiny_model_path, "--batch-size", "1000", *flags)
    assert code == 0, err
    assert "full: 1 steps" in out


def test_a_recipe_is_looked_for_with_what_was_given(folder, embft, tiny_model_path, monkeypatch):
    from llama_index_embft.finetune.full import recipe as module

    asked = {}

    def choose(dataset, model_id, val, **options):
        asked.update(options, val=val, n=len(dataset.queries))
        trials = [module.RecipeTrial(module.RecipeCandidate(0.01, 3e-3, 2), 0.7, None, 1.5)]
        return module.Recipe(trials[0].candidate, "ndcg@10", 0.6, 0.7, None, trials, 2.0, 0.1)

    monkeypatch.setattr(module, "choose_recipe", choose)
    flags = ["--embed-model", tiny_model_path, "--val", "val.json", "--out", "m", "--batch-size", 8, "--device", "cpu"]
    more = ["--recipe", "auto", "--time-budget", 60, "--learning-rate", "3e-3", "--merge", "auto", "--save-checkpoints"]
    code, out, err = embft("train", "train.json", *flags, *more, "--no-progress")
    assert code == 0, err
    assert asked.pop("validation").merge == "auto"  # which the search itself leaves out of its runs
    assert asked.pop("val").queries == make_dataset("find a {} {}").queries
    assert asked == {
        "time_budget": 60.0, "guard": None, "learning_rates": (3e-3,), "batch_size": 8, "device": "cpu", "n": 16,
        "method": "full",
    }  # fmt: skip
    assert "0.600 → 0.700 on validation, 1 of 1 candidates tried" in out
    record = json.loads((folder / "m" / "embft.json").read_text())
    assert (record["settings"]["temperature"], record["settings"]["epochs"]) == (0.01, 2)
    assert record["recipe"][1]["ndcg@10"] == 0.7
    assert "chosen on validation among 1 settings" in (folder / "m" / "README.md").read_text()


def test_teacher_scores_come_from_a_file(folder, tiny_model_path):
    scores = {f"q{n}": {f"d{n}": 5, f"d{(n + 1) % 16}": -3.5} for n in range(16)}
    (folder / "scores.json").write_text(json.dumps(scores))
    settings = {"data": folder / "train.json", "embed_model": tiny_model_path, "teacher_scores": folder / "scores.json"}
    assert command._engine(settings)[0].dataset.teacher_scores == scores


def test_the_guard_of_the_package_is_meant_where_no_file_has_its_name(folder, tiny_model_path):
    from llama_index_embft.cli.train.settings import read_settings
    from llama_index_embft.dataset import general_guard

    flags = {"data": str(folder / "train.json"), "embed_model": tiny_model_path, "guard": "general"}
    assert command._engine(read_settings(None, flags))[0].guard_dataset == general_guard()
    (folder / "general").write_bytes((folder / "val.json").read_bytes())
    assert command._engine(read_settings(None, flags))[0].guard_dataset.queries == make_dataset("find a {} {}").queries


def test_other_processes_of_torchrun_stay_silent(folder, embft, tiny_model_path, monkeypatch):
    from llama_index_embft.finetune import FinetuneResult

    class Engine:
        def finetune(self):
            return FinetuneResult(folder / "m", "full", "ndcg@10", None, None, 1, 1)

    monkeypatch.setattr(command, "_engine", lambda settings: (Engine(), None))
    monkeypatch.setenv("RANK", "1")
    assert embft("train", "train.json")[:2] == (0, "")


def test_a_loss_by_name_reaches_the_engine(folder, tiny_model_path):
    from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss

    engine, _ = command._engine(
        {"data": folder / "train.json", "embed_model": tiny_model_path, "loss": "CachedMultipleNegativesRankingLoss"}
    )
    assert engine.loss is CachedMultipleNegativesRankingLoss
    assert command._loss("cosent") == "cosent"


def test_values_of_mixed_kinds():
    mixed = Option("merge", frozenset({"float", "None"}), ("auto",))
    assert mixed.convert("auto", "--merge") == "auto"
    assert mixed.convert("0.5", "--merge") == 0.5
    assert mixed.convert(1, "merge") == 1.0
    assert mixed.convert(None, "merge") is None
    assert mixed.convert("none", "--merge") is None
    with pytest.raises(ConfigError, match="--merge is 'x'; it must be a number or auto or none"):
        mixed.convert("x", "--merge")
    dims = Option("dims", frozenset({"list", "None"}), (), "int")
    assert dims.convert("384, 128", "--dims") == [384, 128]
    assert dims.convert("384", "--dims") == [384]
    assert dims.convert([384], "dims") == [384]
    with pytest.raises(ConfigError, match="An item of --dims is 'x'; it must be a whole number"):
        dims.convert("384,x", "--dims")
    words = Option("report_to", frozenset({"list", "str"}), (), "str")
    assert words.convert("wandb", "--report-to") == "wandb"
    assert words.convert("wandb,mlflow", "--report-to") == ["wandb", "mlflow"]


def test_the_file_in_the_documentation_is_read(folder, tiny_model_path):
    """Every key of it, by the command and by the engine."""
    import re
    import shutil
    from pathlib import Path

    from llama_index_embft.cli.train.settings import read_settings

    page = (Path(__file__).resolve().parents[2] / "docs" / "how-to" / "train.md").read_text(encoding="utf-8")
    (folder / "train.yaml").write_text(re.search(r"```yaml\n(.*?)```", page, re.S)[1])
    shutil.copy("val.json", "general.json")
    settings = read_settings(folder / "train.yaml", {"embed_model": tiny_model_path, "matryoshka_dims": "16,8"})
    assert len(settings) == 14
    engine, _ = command._engine(settings)
    assert engine.guard_dataset.queries == make_dataset("find a {} {}").queries
    assert (engine.settings.validation.merge, engine.settings.method, engine.settings.loss.temperature) == (
        "auto", "lora", 0.02,
    )  # fmt: skip
    options = set(re.findall(r"--([a-z-]+)", " ".join(re.findall(r"embft train .*", page))))
    own = {
        "config",
        "val",
        "out",
        "recipe",
        "time-budget",
        "push-to-hub",
        "no-private",
        "loss",
        "first-stage",
        "teacher-scores",
        "help",
    }
    assert {name.replace("-", "_") for name in options - own} - set(engine_options()) == {"embed_model"}


def test_methods_are_those_of_the_engines():
    assert METHODS == ("full", "lora", "adapter", "nudge", "reranker", "distill")
    assert takes("full", "epochs")
    assert not takes("adapter", "weight_decay")


def test_a_long_curve_is_thinned_and_keeps_the_best(capsys):
    from llama_index_embft.finetune import FinetuneResult

    history = [{"step": s, "epoch": s / 100, "loss": 1.0, "ndcg@10": 0.5 + (s == 617) / 10} for s in range(1000)]
    result = FinetuneResult("m", "full", "ndcg@10", 0.5, 0.6, 617, 999, history)
    command._show_curve(result)
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert len(rows) == 13
    assert "617" in next(row for row in rows if "best" in row)
    assert "999" in rows[-1]


def test_groups_in_the_file_are_options_in_one_row(monkeypatch, folder, embft):
    config = write_config(folder, data="train.json", lora={"rank": 8, "alpha": 16}, loss_settings={"temperature": 0.02})
    with monkeypatch.context() as patch:
        seen = caught(patch, "--config", config, "--lora-alpha", "4")
    assert (seen["lora_rank"], seen["lora_alpha"], seen["temperature"]) == (8, 4.0, 0.02)
    config = write_config(folder, data="train.json", lora={"ranks": 8})
    code, _, err = embft("train", "--config", config)
    assert code == 2
    assert "unknown key 'ranks' in lora; did you mean 'rank'?" in err


def test_help_loads_no_model_library_and_cuts_no_name():
    import subprocess

    code = "import sys; from llama_index_embft.cli import app; sys.argv = ['embft', 'train', '--help-all']; app.main()"
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code],
        capture_output=True, text=True, env={**os.environ, "COLUMNS": "80"}, check=False,
    )  # fmt: skip
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not loaded & {"torch", "transformers", "sentence_transformers"}
    for option in engine_options().values():
        assert f"--{option.name.replace('_', '-')}" in done.stdout, option.name
