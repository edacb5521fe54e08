"""``embft convert``: from one format into another, with counts, and what is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from llama_index_embft.cli.data.convert import convert
from llama_index_embft.cli.shared.command import add_command
from llama_index_embft.dataset import EmbeddingQAFinetuneDataset, read_dataset
from llama_index_embft.errors import ConfigError, DatasetError, OutputError

DATASET = EmbeddingQAFinetuneDataset(
    queries={"q1": "who pays?", "q2": "谁付钱?"},
    corpus={"a": "Alice pays.", "b": "鲍勃付钱。", "c": "Nobody.", "d": "Left over."},
    relevant_docs={"q1": ["a", "b"], "q2": ["b"]},
    negative_docs={"q1": ["c"], "q2": ["a", "c"]},
    reference_answers={"q1": "Alice"},
    relevance_grades={"q1": {"a": 3}},
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    DATASET.save_json(tmp_path / "train.json")
    return tmp_path / "train.json"


def embft(*arguments: object) -> str:
    app = typer.Typer()
    add_command(app, convert)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_the_format_is_guessed_and_the_loss_is_counted(source: Path) -> None:
    out = source.with_name("triplets.csv")
    said = embft(source, out, "--to", "triplets")
    assert f"Read {source} as rag: 2 queries, 4 documents, 3 judged relevant and 3 negative, 1 answers" in said
    assert f"Written: {out} as triplets, 4 rows" in said
    assert "Lost, for 'triplets' has no place for it: 2 query ids (made anew from the texts), 4 document ids" in said
    assert "1 grades above 1, 1 reference answers, 1 documents that no query names" in said
    back = source.with_name("back.json")
    assert "Lost" not in embft(out, back)
    assert sorted(read_dataset(back).queries.values()) == sorted(DATASET.queries.values())


def test_there_and_back_without_a_loss(source: Path) -> None:
    folder, back = source.with_name("beir"), source.with_name("back.json")
    assert "Lost" not in embft(source, folder, "--to", "beir", "--write-option", "split=dev")
    assert (folder / "qrels" / "dev.tsv").is_file()
    assert "as beir" in embft(folder, back, "--split", "dev")
    assert EmbeddingQAFinetuneDataset.from_json(back) == DATASET
    with pytest.raises(OutputError, match="is not empty; choose another one, or overwrite=True"):
        embft(source, folder, "--to", "beir")
    embft(source, folder, "--to", "mteb", "--overwrite")


def test_scores_are_carried_over_where_there_is_room(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    row = {"query": "q", "pos": ["yes"], "neg": ["no"], "pos_scores": [0.9], "neg_scores": [0.25]}
    path.write_text(json.dumps(row) + "\n")
    embft(path, tmp_path / "s.jsonl", "--to", "scored")
    lines = [json.loads(line) for line in (tmp_path / "s.jsonl").read_text().splitlines()]
    assert [line["score"] for line in lines] == [0.9, 0.25]
    assert "2 teacher scores" in embft(path, tmp_path / "p.jsonl", "--to", "pairs")


def test_columns_and_dropped_rows(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"ask": "q", "say": "a"}\n{"ask": "", "say": "b"}\n')
    arguments = (path, tmp_path / "d.json", "--from", "pairs", "--column", "anchor=ask", "--column", "positive=say")
    with pytest.raises(DatasetError, match="line 2: ask is empty"):
        embft(*arguments)
    assert "Left out on reading: 1 x empty text" in embft(*arguments, "--drop")


def test_the_list_names_every_format_and_option() -> None:
    said = embft("--list")
    assert "flag-embedding" in said
    assert "negatives_from_run" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Name what to read and what to write"),
        (["IN", "x.json", "--to", "parquet"], "There is no format 'parquet'; the formats are rag, llama-index"),
        (["IN", "x.json", "--write-option", "n"], "--write-option 'n' is not understood"),
        (["IN", "x.json", "--write-option", "n=1"], "The format 'rag' has no option 'n' for writing; it has none"),
        (["IN", "x.docx", "--to", "pairs"], "Cannot write rows as"),
        (["IN", "x.json", "--column", "anchor=a", "--column", "anchor=b"], "--column gives anchor twice; keep one"),
        (["IN", "x", "--to", "beir", "--write-option", "split=te.st"], "`split` is a part of file names here"),
    ],
)
def test_what_is_refused(source: Path, arguments: list[str], message: str) -> None:
    places = [str(source) if one == "IN" else str(source.with_name(one)) if "x." in one else one for one in arguments]
    with pytest.raises(ConfigError) as caught:
        embft(*places)
    assert message in str(caught.value)
    assert [path.name for path in source.parent.iterdir()] == ["train.json"]


def test_a_file_that_nobody_knows(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"a": 1}')
    with pytest.raises(DatasetError, match="the format cannot be guessed"):
        embft(tmp_path / "x.json", tmp_path / "y.json")
    with pytest.raises(DatasetError, match="There is no file or folder"):
        embft(tmp_path / "none.json", tmp_path / "y.json")


def test_nothing_is_lost_by_writing_onto_the_input_or_by_writing_nothing(tmp_path: Path) -> None:
    path, there = tmp_path / "keep.jsonl", tmp_path / "there.jsonl"
    path.write_text('{"anchor": "q", "positive": "a"}\n')
    there.write_text("good")
    for one, other in ((path, path), (tmp_path, there), (path, tmp_path)):
        with pytest.raises(OutputError, match=r"is, holds or lies in what is read, which would be lost"):
            embft(one, other, "--to", "pairs", "--overwrite")
    for to in ("triplets", "infgrad"):
        with pytest.raises(DatasetError, match="None of the 1 queries gives a row: none has a negative document"):
            embft(path, there, "--to", to)
    none = tmp_path / "none.json"
    EmbeddingQAFinetuneDataset(queries={}, corpus={"d": "x"}, relevant_docs={}).save_json(none)
    with pytest.raises(OutputError, match=r"none\.json holds no queries, and .*there\.jsonl would be replaced"):
        embft(none, there, "--to", "pairs")
    assert there.read_text() == "good"
    assert "anchor" in path.read_text()


@pytest.mark.parametrize("threshold", ["0.5", "5e-1", "1.", "half", "nan"])
def test_a_threshold_is_a_number(threshold: str, tmp_path: Path) -> None:
    (tmp_path / "s.jsonl").write_text('{"sentence1": "q", "sentence2": "d", "score": 1.0}\n')
    arguments = (tmp_path / "s.jsonl", tmp_path / "d.json", "--read-option", f"threshold={threshold}")
    if threshold in ("half", "nan"):
        with pytest.raises(ConfigError, match="`threshold` is"):
            embft(*arguments)
    else:
        assert "1 judged relevant" in embft(*arguments)


def test_a_split_of_digits_is_a_name(source: Path) -> None:
    embft(source, source.with_name("b"), "--to", "beir", "--write-option", "split=2024")
    assert (source.with_name("b") / "qrels" / "2024.tsv").exists()


def test_false_is_not_true(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    row = {"query": "q", "pos": ["yes"], "neg": ["no"], "pos_scores": [0.9], "neg_scores": [0.25]}
    path.write_text(json.dumps(row) + "\n")
    embft(path, tmp_path / "s.jsonl", "--to", "scored", "--write-option", "teacher_scores=false")
    lines = [json.loads(line) for line in (tmp_path / "s.jsonl").read_text().splitlines()]
    assert [line["score"] for line in lines] == [1.0, 0.0]


def test_the_first_row_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text("{broken\n")
    with pytest.raises(DatasetError, match=r"the first row cannot be read: .*p\.jsonl.*line 1"):
        embft(path, tmp_path / "out.json")
