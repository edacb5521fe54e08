"""What holds for every command: lazy start, help, --json, --config, -q and -v, and output that nobody reads."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from importlib import import_module

import pytest
import typer

from llama_index_embft.cli.app import app
from llama_index_embft.cli.commands import COMMANDS
from llama_index_embft.cli.shared.progress import ProgressLines
from llama_index_embft.dataset import EmbeddingQAFinetuneDataset


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    EmbeddingQAFinetuneDataset(
        queries={f"q{n}": f"where is {n}" for n in range(6)},
        corpus={f"d{n}": f"{n} is here" for n in range(6)},
        relevant_docs={f"q{n}": [f"d{n}"] for n in range(6)},
    ).save_json("data.json")
    return tmp_path


def started(*arguments, **options):
    code = "from llama_index_embft.cli.app import main; import sys; sys.argv[0] = 'embft'; main()"
    return subprocess.run(
        [sys.executable, *options.pop("python", ()), "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


def test_the_list_of_commands_imports_none_of_them():
    done = started("--help", python=("-X", "importtime"))
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    heavy = {"numpy", "rich", "rich.console", "yaml", "pydantic", "llama_index.core", "torch", "tqdm"}
    assert "typer.main" in loaded
    assert not loaded & heavy
    assert not {name for name in loaded if re.match(r"llama_index_embft\.cli\.(run|train|data|measure|upkeep)", name)}
    assert all(f"\n  {name} " in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_line_in_the_list_is_the_first_sentence_of_the_command(name):
    function = getattr(import_module(f"llama_index_embft.cli.{COMMANDS[name].module}"), name)
    assert function.__doc__.split("\n\n")[0].strip().startswith(COMMANDS[name].help)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_has_examples_of_options_that_exist_and_the_options_of_every_command(embft, name):
    group = typer.main.get_command(app)
    flags = {
        flag
        for parameter in group.get_command(None, name).params
        for flag in (*parameter.opts, *parameter.secondary_opts)
    }
    code, shown, _ = embft(name, "--help")
    assert code == 0
    examples = shown.partition("\nExamples:\n")[2].strip().splitlines()
    assert examples
    for example in examples:
        assert example.strip().startswith(f"embft {name}")
        assert set(re.findall(r"(?<= )--[a-z-]+", example)) <= flags
    assert {"--json", "--config", "--quiet", "--verbose"} <= flags


@pytest.mark.parametrize("name", ["run", "generate", "mine"])
def test_the_help_of_a_command_with_many_options_is_a_screen(embft, name):
    short, long = embft(name, "--help")[1], embft(name, "--help-all")[1]
    assert len(short.splitlines()) <= 50
    assert len(long.splitlines()) > 70
    if name == "generate":
        assert re.search(r"--llm STR +\S", short)
        assert re.search(r"--out <path> .*\[required\]", short)


def test_the_short_help_of_train_fits_a_screen_and_the_long_one_has_all(embft):
    short, long = embft("train", "--help")[1], embft("train", "--help-all")[1]
    assert len(short.splitlines()) <= 40
    assert "--lora-rank" not in short
    assert "--lora-rank" in long
    assert "LoRA:" in long


def test_a_second_call_in_one_process_gives_the_same(embft):
    assert embft("convert", "--list") == embft("convert", "--list")
    assert embft("--help") == embft("--help")


def test_a_name_that_is_no_command_gets_the_nearest(embft):
    code, _, err = embft("evalute")
    assert code == 2
    assert "evaluate" in err


def test_the_shell_completes_names_without_importing_the_commands():
    env = {**os.environ, "_EMBFT_COMPLETE": "complete_bash", "COMP_WORDS": "embft co", "COMP_CWORD": "1"}
    done = started(env=env, python=("-X", "importtime"))
    assert set(done.stdout.split()) == {"convert", "compare"}
    assert "llama_index_embft.cli.measure" not in done.stderr


def test_json_alone_stands_on_standard_output(embft, data):
    code, out, _ = embft("convert", "data.json", "pairs.csv", "--to", "pairs", "--json")
    assert code == 0
    assert {name: json.loads(out)[name] for name in ("from", "to", "rows", "queries")} == {
        "from": "llama-index", "to": "pairs", "rows": 6, "queries": 6,
    }  # fmt: skip
    assert "beir" in json.loads(embft("convert", "--list", "--json")[1])["formats"]


def test_quiet_prints_nothing_and_verbose_logs(embft, data):
    assert embft("convert", "data.json", "pairs.csv", "--to", "pairs", "-q") == (0, "", "")
    assert (data / "pairs.csv").exists()
    code, out, err = embft("convert", "none.json", "pairs.csv", "-q")
    assert (code, out) == (2, "")
    assert err.startswith("Error: There is no file or folder none.json")
    assert embft("convert", "data.json", "more.csv", "--to", "pairs")[1]  # the next call speaks again


def test_twice_verbose_shows_where_an_error_comes_from(data):
    plain, verbose = (started("convert", "none.json", "x.csv", *flags) for flags in ((), ("-vv",)))
    assert (plain.returncode, verbose.returncode) == (2, 2)
    assert "Traceback" not in plain.stderr
    assert "Traceback" in verbose.stderr


def test_the_file_stands_where_nothing_is_typed(embft, data, tiny_model_path):
    (data / "c.yaml").write_text(
        f"data: data.json\nembed-model: {tiny_model_path}\nk: [1, 2]\nno_cache: true\nlabel: 7\n"
    )
    code, out, err = embft("evaluate", "--config", "c.yaml", "--json", "--label", "typed")
    assert code == 0, err
    record = json.loads(out)
    assert record["label"] == "typed"
    assert {"hit_rate@1", "hit_rate@2"} <= record["metrics"].keys()
    assert "hit_rate@10" not in record["metrics"]
    assert json.loads(embft("evaluate", "--config", "c.yaml", "--json")[1])["label"] == "7"


WRONG = {
    "labell: x": "c.yaml: unknown key 'labell'; did you mean 'label'?",
    "zzzz: x": "c.yaml: unknown key 'zzzz'; there are batch_size, csv,",
    "no_cache: 1": "no_cache in c.yaml is 1; it must be true or false.",
    "k: many": "k in c.yaml is ['many']; input should be a valid integer",
    "label: [a, b]": "label in c.yaml is ['a', 'b']; it must be one value.",
    "label: a\nlabel: b": "c.yaml: label is set twice; keep one.",
    "config: x": "c.yaml: unknown key 'config'",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_in_the_file_is_one_sentence(embft, data, text):
    (data / "c.yaml").write_text(text)
    code, out, err = embft("evaluate", "data.json", "--embed-model", "m", "--config", "c.yaml")
    assert (code, out, err.count("Error: ")) == (2, "", 1)
    assert WRONG[text] in err


def test_a_setting_in_the_file_is_converted_as_a_flag_is(embft, data):
    (data / "c.yaml").write_text("questions_per_chunk: two\n")
    code, _, err = embft("generate", "data.json", "--out", "o.json", "--config", "c.yaml")
    assert code == 2
    assert "questions_per_chunk in c.yaml is 'two'; it must be a whole number." in err


def test_every_format_is_read_and_a_broken_file_is_named_with_its_format(embft, data, tiny_model_path):
    embft("convert", "data.json", "rows.csv", "--to", "table")
    embft("convert", "data.json", "beir", "--to", "beir")
    expected = json.loads(embft("evaluate", "data.json", "--embed-model", tiny_model_path, "--json")[1])["metrics"]
    for other in ("rows.csv", "beir"):
        code, out, err = embft("evaluate", other, "--embed-model", tiny_model_path, "--json")
        assert code == 0, err
        assert json.loads(out)["metrics"] == expected
    (data / "broken.json").write_text('{"queries": {"q": "a"}, "corpus": {"d": "b"}, "relevant_docs": {"q": ["x"]}}')
    for command in (["evaluate", "broken.json", "--embed-model", "m"], ["train", "broken.json"]):
        code, _, err = embft(*command)
        assert code == 2
        assert "llama-index" in err


def test_a_reader_that_goes_away_and_a_closed_output_end_quietly():
    command = (
        "from llama_index_embft.cli.app import main; import sys; sys.argv = ['embft', 'convert', '--list']; main()"
    )
    piped = subprocess.run(
        f'"{sys.executable}" -c "{command}" | head -n 1', shell=True, capture_output=True, text=True, check=False
    )
    assert piped.stdout.startswith("rag")
    assert piped.stderr == ""
    for closing in (">&-", ">&- 2>&-"):
        closed = subprocess.run(
            f'"{sys.executable}" -c "{command}" {closing}', shell=True, capture_output=True, text=True, check=False
        )
        assert (closed.returncode, closed.stderr) == (0, "")


@pytest.mark.system
def test_no_home_folder_and_a_cache_that_cannot_be_written(data, tiny_model_path):
    env = {name: value for name, value in os.environ.items() if name not in ("HOME", "EMBFT_CACHE_DIR")}
    (data / "file").write_text("in the way")
    for more in ({"HOME": "/nonexistent"}, {"EMBFT_CACHE_DIR": str(data / "file" / "below")}):
        done = started("evaluate", "data.json", "--embed-model", tiny_model_path, "--json", env={**env, **more})
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["queries"] == 6


# --- bars as lines ---------------------------------------------------------------------------------------------------


def test_bars_in_a_pipe_are_lines_and_their_last_state_is_one():
    from tqdm import tqdm

    out = io.StringIO()
    lines = ProgressLines(out, seconds=0)
    for _ in tqdm(range(3), desc="Mining", file=lines, mininterval=0):
        print("said", file=lines)
    said = out.getvalue()
    assert "\r" not in said
    assert said.splitlines()[-1].startswith("Mining: 100%")
    assert said.count("said\n") == 3
    assert "█" not in said
    assert "<" in said  # the time that is left


def test_hidden_bars_leave_other_text_alone():
    from tqdm import tqdm

    out = io.StringIO()
    lines = ProgressLines(out, hidden=True, lines=False)
    for _ in tqdm(range(3), file=lines, mininterval=0):
        print("said", file=lines)
    assert out.getvalue() == "said\n" * 3


def test_in_a_terminal_bars_pass_as_they_are():
    out = io.StringIO()
    ProgressLines(out, lines=False).write("\rx")
    assert out.getvalue() == "\rx"
