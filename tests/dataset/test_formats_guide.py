"""The Python of the how-to guide runs as it stands there, its commands print what it says, its table is complete."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from llama_index_embft.cli.data.convert import convert
from llama_index_embft.cli.shared.command import add_command
from llama_index_embft.dataset.formats.registry import FORMATS

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "formats.md"


def rows(path: str, *items: dict[str, Any]) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the guide takes to be there."""
    monkeypatch.chdir(tmp_path)
    rows("scifact/corpus.jsonl", *({"_id": id_, "title": "", "text": f"Text {id_}."} for id_ in "abc"))
    rows("scifact/queries.jsonl", *({"_id": id_, "text": f"Query {id_}?"} for id_ in "12"))
    judged = "query-id\tcorpus-id\tscore\n1\ta\t1\n1\tb\t0\n2\ta\t1\n"
    (tmp_path / "scifact" / "qrels").mkdir()
    for split in ("train", "test"):
        (tmp_path / "scifact" / "qrels" / f"{split}.tsv").write_text(judged)
    rows("mined.jsonl", {"query": "q", "pos": ["a"], "neg": ["b"], "pos_scores": [0.9], "neg_scores": [0.1]})
    rows("airbench/corpus.jsonl", {"id": "d", "text": "文"})
    rows("airbench/dev_queries.jsonl", {"id": "q", "text": "问"})
    rows("airbench-qrels/qrels_default_dev.jsonl", {"qid": "q", "docid": "d", "relevance": 1})
    return tmp_path


@pytest.mark.usefixtures("files")
def test_the_guide_runs(capsys: pytest.CaptureFixture[str]) -> None:
    from llama_index.core import MockEmbedding, VectorStoreIndex
    from llama_index.core.llms import MockLLM
    from llama_index.core.schema import TextNode

    nodes: Any = [TextNode(text=text) for text in ("Bob owes.", "Alice pays.")]
    index = VectorStoreIndex(nodes, embed_model=MockEmbedding(embed_dim=4))
    names: dict[str, Any] = {"query_engine": index.as_query_engine(llm=MockLLM(), similarity_top_k=2)}
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    trulens = blocks.pop()
    assert "dataset_from_trulens" in trulens  # run in tests/integrations, on a database of TruLens
    for block in blocks:
        exec(compile(block, str(GUIDE), "exec"), names)
    said = capsys.readouterr().out
    comment = re.search(r"print\(error\)  # (.*)", GUIDE.read_text(encoding="utf-8"))
    assert comment is not None
    assert comment[1].removesuffix(" …") in said
    assert "1 x line that is not JSON" in said
    assert "3 answers to 2 questions: 1 questions kept, with 1 positives and 1 negatives" in said
    assert set(names["parts"]) == {"corpus", "queries", "qrels"}
    assert names["scored"].teacher_scores


@pytest.mark.usefixtures("files")
def test_the_commands_print_what_the_guide_says() -> None:
    app = typer.Typer()
    add_command(app, convert)
    session = re.search(r"```console\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    assert session is not None
    for part in session[1].strip().split("\n\n"):
        command, _, expected = part.partition("\n")
        result = CliRunner().invoke(app, shlex.split(command)[3:], env={"COLUMNS": "400"})
        assert result.exit_code == 0, result.output
        assert result.output.strip() == expected.strip()


def test_the_table_names_every_format() -> None:
    table = re.findall(r"^\| `([a-z-]+)` \|", GUIDE.read_text(encoding="utf-8"), re.MULTILINE)
    assert table == list(FORMATS)
