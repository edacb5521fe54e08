"""TruLens: what was paid for is kept, and a database that is read stays as it was."""

from __future__ import annotations

import hashlib
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trulens.apps.llamaindex", reason="the extra trulens is not installed", exc_type=ImportError)

from llama_index.core import MockEmbedding, Settings, VectorStoreIndex
from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata, MockLLM
from llama_index.core.schema import TextNode

from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
from llama_index_embft.errors import DatasetError, EvaluationError
from llama_index_embft.integrations.trulens import (
    JudgeUnavailableError,
    dataset_from_trulens,
    evaluate_app,
    read_leaderboard,
)

N = 4
DATASET = EmbeddingQAFinetuneDataset(
    queries={f"q{i}": f"what is thing {i}?" for i in range(N)},
    corpus={f"d{i}": f"text number {i} is about thing {i}." for i in range(N)},
    relevant_docs={f"q{i}": [f"d{i}"] for i in range(N)},
)


class NoCreditError(Exception):
    status_code = 402


class Judge(CustomLLM):
    """Answers until its credit is used up."""

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name="judge")

    def complete(self, prompt: str, **kwargs: Any) -> CompletionResponse:
        if COUNT["judge"] >= LIMIT["judge"]:
            raise NoCreditError("insufficient credit")
        COUNT["judge"] += 1
        return CompletionResponse(text='{"score": 3, "criteria": "c", "supporting_evidence": "e"}\nScore: 3')

    def stream_complete(self, prompt: str, **kwargs: Any):
        raise NotImplementedError


# The judge is copied before it is asked (without its own retries), so the counts stand beside it.
COUNT = {"judge": 0, "engine": 0}
LIMIT = {"judge": 10**9}


class Counted(MockLLM):
    """Counts what the engine asks."""

    def complete(self, *args: Any, **kwargs: Any):
        COUNT["engine"] += 1
        return super().complete(*args, **kwargs)

    def chat(self, *args: Any, **kwargs: Any):
        COUNT["engine"] += 1
        return super().chat(*args, **kwargs)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Settings, "_embed_model", None)
    COUNT.update(judge=0, engine=0)
    LIMIT.update(judge=10**9)
    nodes = [TextNode(id_=k, text=v) for k, v in DATASET.corpus.items()]
    index = VectorStoreIndex(nodes, embed_model=MockEmbedding(embed_dim=4))
    return index.as_query_engine(llm=Counted(max_tokens=30), similarity_top_k=2)


def test_c3_verdicts_survive_an_account_that_runs_dry_at_the_last_call(engine, tmp_path: Path) -> None:
    database = tmp_path / "t.sqlite"
    full = evaluate_app(DATASET, engine, "a", "full", llm=Judge(), database=database)
    assert not any(counts["failed"] for counts in full.counts().values())
    needed = COUNT["judge"]
    assert needed == full.judge_requests

    other = tmp_path / "other.sqlite"
    COUNT.update(judge=0, engine=0)
    LIMIT["judge"] = needed - 1
    dry = evaluate_app(DATASET, engine, "a", "v", llm=Judge(), database=other)
    failed = {name: counts["failed"] for name, counts in dry.counts().items() if counts["failed"]}
    assert sum(failed.values()) == 1
    assert (
        sum(counts["scored"] for counts in dry.counts().values())
        == sum(counts["scored"] for counts in full.counts().values()) - 1
    )
    answered = COUNT["engine"]

    LIMIT["judge"] = 10**9  # the account is filled up: only what is missing is asked and paid for
    again = evaluate_app(DATASET, engine, "a", "v", llm=Judge(), database=other)
    assert COUNT["judge"] == needed
    assert COUNT["engine"] == answered
    assert again.counts() == full.counts()
    assert again.report.hit_ids == full.report.hit_ids
    assert again.report.answers == full.report.answers
    assert len(again.leaderboard) == 1
    with pytest.raises(EvaluationError, match="overwrite=True"):  # now it is finished
        evaluate_app(DATASET, engine, "a", "v", llm=Judge(), database=other)
    assert not list(tmp_path.glob("*.unfinished.jsonl"))


def test_c3_an_evaluation_that_was_stopped_goes_on_where_it_was(engine, tmp_path: Path, monkeypatch) -> None:
    from llama_index_embft.integrations.trulens import recording

    database = tmp_path / "t.sqlite"

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(recording.Recorder, "store", stop)
        with pytest.raises(KeyboardInterrupt):
            evaluate_app(DATASET, engine, "a", "v", llm=Judge(), database=database)
    paid = dict(COUNT)
    found = evaluate_app(DATASET, engine, "a", "v", llm=Judge(), database=database)
    assert paid == COUNT
    assert all(counts["scored"] == N for name, counts in found.counts().items() if "relevance" in name)


def test_c3_a_judge_that_cannot_be_asked_costs_one_answer(engine, tmp_path: Path) -> None:
    LIMIT["judge"] = 0
    with pytest.raises(JudgeUnavailableError):
        evaluate_app(DATASET, engine, "a", "v", llm=Judge(), database=tmp_path / "t.sqlite")
    assert COUNT["engine"] == 1
    LIMIT["judge"] = 10**9
    evaluate_app(DATASET, engine, "a", "v", llm=Judge(), database=tmp_path / "t.sqlite")  # and blocks nothing
    assert COUNT["engine"] == N


def test_e16_a_database_that_is_read_stays_as_it_was(engine, tmp_path: Path) -> None:
    database = tmp_path / "t.sqlite"
    evaluate_app(DATASET, engine, "a", "v", llm=Judge(), database=database)

    def state() -> str:
        return hashlib.sha256(database.read_bytes()).hexdigest()

    before = state()
    made = dataset_from_trulens(database, "a", feedback="context_relevance")
    assert made.queries
    assert list(read_leaderboard(database, "a").index) == ["v"]
    assert state() == before


def test_e16_a_database_whose_writer_was_killed_is_read_as_it_was(engine, tmp_path: Path) -> None:
    database = tmp_path / "t.sqlite"
    evaluate_app(DATASET, engine, "a", "v", llm=Judge(), database=database)
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    code = (
        "import os, sqlite3, sys\n"
        "database = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "database.execute('PRAGMA cache_size = 1')\n"
        "database.execute('BEGIN IMMEDIATE')\n"
        "database.execute('UPDATE trulens_events SET record_attributes = zeroblob(300000)')\n"
        "os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, str(database)], check=True)
    before = database.read_bytes()
    assert (tmp_path / "t.sqlite-journal").stat().st_size
    assert dataset_from_trulens(database, "a", feedback="context_relevance").queries
    assert database.read_bytes() == before


@pytest.mark.parametrize("content", [None, b"", b"no database at all", b"SQLite format 3\x00" + b"\xff" * 4000])
def test_e16_what_is_no_database_is_one_sentence_and_is_not_made(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "none.sqlite"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DatasetError):
        dataset_from_trulens(path, "a", feedback="context_relevance")
    with pytest.raises(EvaluationError):
        read_leaderboard(path, "a")
    assert (path.read_bytes() if path.exists() else None) == content
