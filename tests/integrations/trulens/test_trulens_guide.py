"""The Python of the how-to guide runs as it stands there, and its commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from trulens_helpers import DATASET, FruitEmbedding, LoopbackLLM, app_and_judge, fruit_engine, model
from typer.testing import CliRunner

pytest.importorskip("trulens.apps.llamaindex", reason="extra trulens")

from llama_index_embft.cli.app import app

GUIDE = Path(__file__).resolve().parents[3] / "docs" / "how-to" / "trulens.md"


def test_the_guide_runs(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    guide = GUIDE.read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    assert len(blocks) == 5
    with LoopbackLLM(script=app_and_judge()) as server:
        llm = model(server)
        names = {
            "dataset": DATASET,
            "base_engine": fruit_engine(llm, wrong=True),
            "tuned_engine": fruit_engine(llm, streaming=True),
            "judge": llm,
            "yardstick": FruitEmbedding(),
        }
        for block in blocks:
            exec(compile(block, str(GUIDE), "exec"), names)
    assert names["result"].systems[0].metrics["ndcg@10"].test.wins == 2
    table = re.findall(r"^\| (`.*?) \|", guide, re.MULTILINE)
    assert {name for row in table for name in re.findall(r"`(.*?)`", row)} == set(names["tuned"].verdicts)
    assert names["score"] == pytest.approx(2 / 3)
    assert "embedding_answer_relevance" in names["rows"].columns
    assert names["scorer"].stats.seen == 1
    assert (tmp_path / "trulens.sqlite").exists()
    assert "LiveStats(seen=1" in capsys.readouterr().out

    result = CliRunner().invoke(app, ["compare", "base.json", "tuned.json", "--primary", "groundedness"])
    assert result.exit_code == 0, result.output
    assert "groundedness" in result.output
    assert "--repair" in CliRunner().invoke(app, ["dashboard", "--help"], env={"COLUMNS": "200"}).output
