"""Query engines recorded with the real TruLens, past everything that breaks there."""

from __future__ import annotations

import json
import logging
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trulens_helpers import (
    DATASET,
    Behaviour,
    FruitEmbedding,
    LoopbackLLM,
    app_and_judge,
    fruit_engine,
    is_judged,
    model,
    verdict,
)

pytest.importorskip("trulens.apps.llamaindex", reason="extra trulens")

from llama_index.core import Settings, VectorStoreIndex
from llama_index.core.base.response.schema import Response
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import CustomQueryEngine
from llama_index.core.schema import NodeWithScore, TextNode

from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
from llama_index_embft.errors import ConfigError, EvaluationError, MissingExtraError, OutputError
from llama_index_embft.evaluation import RetrievalReport, compare, evaluate_query_engine
from llama_index_embft.integrations.trulens import (
    JudgeUnavailableError,
    evaluate_app,
    paired_differences,
    read_leaderboard,
    repair_database,
)


@pytest.fixture(autouse=True)
def _no_embed_model_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Settings, "_embed_model", None)


@pytest.fixture(scope="module")
def one_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made once: TruLens takes half a second for each."""
    return tmp_path_factory.mktemp("trulens") / "trulens.sqlite"


@pytest.fixture
def database(one_database: Path) -> Path:
    """An empty database, without what a judge said in an earlier test."""
    from llama_index_embft.integrations.trulens.recording import open_session

    open_session(one_database).force_flush()
    for journal in one_database.parent.glob(f"{one_database.name}.judge.sqlite*"):
        journal.unlink()
    with sqlite3.connect(one_database) as connection:
        connection.execute("DELETE FROM trulens_events")
    connection.close()
    return one_database


class TableEngine(CustomQueryEngine):
    """Answers from a table; an answer that is an exception is raised."""

    table: dict[str, Any]

    def custom_query(self, query_str: str) -> Response:
        answer, *docs = self.table[query_str]
        if isinstance(answer, Exception):
            raise answer
        found = [TextNode(id_=doc, text=DATASET.corpus[doc]) for doc in docs]
        nodes = [NodeWithScore(node=node, score=1 / rank) for rank, node in enumerate(found, 1)]
        return Response(response=answer, source_nodes=nodes)


def rows_of(database: Path) -> list[dict[str, Any]]:
    with sqlite3.connect(database) as connection:
        broken = connection.execute("SELECT count(*) FROM trulens_events WHERE NOT json_valid(record_attributes)")
        assert broken.fetchone()[0] == 0, "NaN got into the database"
        found = [json.loads(row) for (row,) in connection.execute("SELECT record_attributes FROM trulens_events")]
    connection.close()
    return found


def outputs_of(database: Path) -> list[str]:
    return [row["ai.observability.record_root.output"] for row in rows_of(database) if "embft.contexts" in row]


def test_two_versions_side_by_side_and_compared(tmp_path: Path, capsys) -> None:
    database = tmp_path / "folder that is missing" / "trulens.sqlite"
    with LoopbackLLM(script=app_and_judge()) as server:
        llm = model(server)
        engines = {"base": fruit_engine(llm, wrong=True), "tuned": fruit_engine(llm)}
        found = {
            version: evaluate_app(
                DATASET, engine, "fruit", version, llm=llm, embed_model=FruitEmbedding(), database=database
            )
            for version, engine in engines.items()
        }
        plain = {version: evaluate_query_engine(DATASET, engine) for version, engine in engines.items()}
    base, tuned = found["base"], found["tuned"]
    for version, report in plain.items():
        assert found[version].report.hit_ids == report.hit_ids
        for name, values in report.values.items():
            np.testing.assert_array_equal(found[version].report.values[name], values)
    board = tuned.leaderboard
    assert list(board.index) == ["base", "tuned"]
    assert list(base.leaderboard.index) == ["base"]
    for version, evaluation in found.items():
        assert dict(board.loc[version]) == pytest.approx(evaluation.means())
    assert board["ndcg@10"].tolist() == pytest.approx([1 / 3, 1])
    assert board["context_relevance"].tolist() == pytest.approx([2 / 3, 2 / 3])
    assert board["embedding_context_relevance"]["tuned"] == pytest.approx(1.0)
    assert read_leaderboard(database, "fruit").equals(board)
    # A question, its answer and a context that one version had judged are not paid for again by the next.
    assert {base.judge_requests, tuned.judge_requests} == {3 * (1 + 2 + 1), 4}

    base.to_json(tmp_path / "base.json")
    tuned.to_json(tmp_path / "tuned.json")
    result = compare(tmp_path / "base.json", tmp_path / "tuned.json", n_resamples=100)
    assert result.systems[0].metrics["ndcg@10"].test.wins == 2
    assert {"groundedness", "answer_relevance", "embedding_answer_relevance"} <= set(result.systems[0].metrics)
    assert RetrievalReport.from_json(tmp_path / "base.json").answers[0] == "It is about apples. Nothing else."

    differences = paired_differences(base, tuned)
    assert differences.loc["hit_rate@10"].to_dict() == pytest.approx(
        {"base": 1 / 3, "tuned": 1, "difference": 2 / 3, "queries": 3, "left_out": 0}
    )
    frame = tuned.to_pandas()
    assert list(frame.index) == ["q1", "q2", "q3"]
    assert frame.loc["q2", "answer"] == "It is about pears. Nothing else."
    assert "groundedness" in base._repr_html_()
    assert "ndcg@10 0.333" in repr(base)
    assert "Nothing else." in outputs_of(database)[0]
    assert "sk-secret" not in database.read_bytes().decode("latin-1")
    assert capsys.readouterr().out == ""


def test_a_streaming_engine_is_read_to_the_end(database: Path) -> None:
    with LoopbackLLM(script=app_and_judge()) as server:
        engine = fruit_engine(model(server), streaming=True)
        found = evaluate_app(DATASET, engine, "fruit", "streaming", database=database)
        assert any(request.body.get("stream") for request in server.requests)
    assert found.report.answers[1] == "It is about pears. Nothing else."
    assert sorted(outputs_of(database)) == sorted(found.report.answers)


def test_without_a_judge_by_the_yardstick_of_the_settings(database: Path, monkeypatch, tiny_model_path: str) -> None:
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding

    monkeypatch.setattr(Settings, "_llm", MockLLM())  # "no_text" takes this one, whatever it is given
    tiny = HuggingFaceEmbedding(tiny_model_path, device="cpu")
    nodes: Any = [TextNode(id_=doc, text=text) for doc, text in DATASET.corpus.items()]
    engine = VectorStoreIndex(nodes, embed_model=tiny).as_query_engine(response_mode="no_text", similarity_top_k=2)
    bare = evaluate_app(DATASET, engine, "tiny", "bare", database=database)
    assert list(bare.verdicts) == ["hit_rate@10", "mrr@10", "ndcg@10", "recall@10"]
    monkeypatch.setattr(Settings, "_embed_model", tiny)
    found = evaluate_app(DATASET, engine, "tiny", "with cosines", database=database, ks=(2,))
    assert found.counts()["embedding_context_relevance"]["scored"] == 3
    assert found.counts()["embedding_answer_relevance"]["undefined"] == 3  # there is no answer
    assert found.judge_requests == 0
    assert np.isnan(found.means()["embedding_answer_relevance"])
    report = found.to_retrieval_report()
    assert "embedding_answer_relevance" not in report.values
    assert report.values["embedding_context_relevance"].all()
    rows_of(database)


def test_unreadable_verdicts_are_counted_and_are_no_nan(database: Path) -> None:
    def judge(prompt: str) -> str:
        if "about pears" in prompt or "rather not" in prompt:  # the second: when asked to put it into JSON
            return "I would rather not say."
        return verdict("NaN") if "about plums" in prompt else verdict(3)

    with LoopbackLLM(script=app_and_judge(judge)) as server:
        llm = model(server)
        found = evaluate_app(DATASET, fruit_engine(llm), "fruit", "v", llm=llm, database=database)
    counts = found.counts()["context_relevance"]
    assert counts == {"scored": 1, "undefined": 0, "unreadable": 2, "failed": 0}
    assert found.means()["context_relevance"] == 1.0
    assert found.leaderboard["context_relevance"].tolist() == [1.0]
    assert np.isnan(found.to_pandas().loc["q2", "context_relevance"])
    rows_of(database)
    report = found.to_retrieval_report()
    assert report.values["context_relevance"].tolist() == [1.0, 0.0, 0.0]
    assert "context_relevance has no score for 2 of 3 queries; they count as 0." in report.notes
    assert "context_relevance" not in found.to_retrieval_report(missing="omit").values
    with pytest.raises(ConfigError, match="missing"):
        found.to_retrieval_report(missing="drop")  # type: ignore[arg-type]
    assert "2 unreadable" in found._repr_html_()


def test_a_query_that_fails_scores_zero_and_nobody_waits_for_its_verdicts(database: Path) -> None:
    engine = TableEngine(
        table={
            "what about apples?": ("Apples.", "apples", "rest"),
            "what about pears?": (RuntimeError("the store is down"),),
            "what about plums?": ("I do not know.",),  # nothing retrieved
        }
    )
    with LoopbackLLM(script=app_and_judge()) as server:
        yardstick = FruitEmbedding()
        found = evaluate_app(DATASET, engine, "table", "v", llm=model(server), embed_model=yardstick, database=database)
    assert found.report.errors == {"q2": "RuntimeError: the store is down"}
    assert found.report.values["hit_rate@1"].tolist() == [1, 0, 0]
    assert found.leaderboard["hit_rate@10"].tolist() == pytest.approx([1 / 3])
    assert found.counts()["context_relevance"] == {"scored": 1, "undefined": 2, "unreadable": 0, "failed": 0}
    assert found.counts()["answer_relevance"] == {"scored": 2, "undefined": 1, "unreadable": 0, "failed": 0}
    assert found.to_pandas()["error"].tolist() == ["", "RuntimeError: the store is down", ""]
    rows_of(database)


def test_every_query_fails(database: Path) -> None:
    engine = TableEngine(table=dict.fromkeys(DATASET.queries.values(), (ValueError("no"),)))
    with pytest.raises(EvaluationError, match="All 3 queries failed"):
        evaluate_app(DATASET, engine, "table", "v", database=database)


def test_equal_questions_keep_their_own_scores(database: Path) -> None:
    twice = EmbeddingQAFinetuneDataset(
        queries={"q1": "what about apples?", "q2": "what about apples?"},
        corpus=DATASET.corpus,
        relevant_docs={"q1": ["apples"], "q2": ["pears"]},
    )
    with LoopbackLLM(script=app_and_judge()) as server:
        found = evaluate_app(twice, fruit_engine(model(server)), "fruit", "v", database=database)
    assert found.to_pandas()["hit_rate@10"].tolist() == [1.0, 0.0]
    assert found.leaderboard["hit_rate@10"].tolist() == [0.5]


def test_a_version_is_not_averaged_with_its_past(database: Path) -> None:
    with LoopbackLLM(script=app_and_judge()) as server:
        good, bad = fruit_engine(model(server)), fruit_engine(model(server), wrong=True)
        evaluate_app(DATASET, bad, "fruit", "v", database=database)
        with pytest.raises(EvaluationError, match="overwrite=True"):
            evaluate_app(DATASET, good, "fruit", "v", database=database)
        evaluate_app(DATASET, bad, "fruit", "w", database=database)
        found = evaluate_app(DATASET, good, "fruit", "v", database=database, overwrite=True)
    assert found.leaderboard["hit_rate@10"].to_dict() == pytest.approx({"v": 1.0, "w": 1 / 3})


def test_nan_of_other_metrics_is_found_and_removed(database: Path) -> None:
    with LoopbackLLM(script=app_and_judge()) as server:
        engine = fruit_engine(model(server))
        evaluate_app(DATASET, engine, "fruit", "v", database=database)
        with sqlite3.connect(database) as connection:
            columns = [row[1] for row in connection.execute("PRAGMA table_info(trulens_events)")]
            values = ", ".join(
                {"event_id": "'poison'", "record_attributes": "'{\"score\": NaN}'"}.get(name, name) for name in columns
            )
            connection.execute(f"INSERT INTO trulens_events SELECT {values} FROM trulens_events LIMIT 1")
        connection.close()
        with pytest.raises(EvaluationError, match=r"1 rows with NaN.*repair_database"):
            evaluate_app(DATASET, engine, "fruit", "w", database=database)
        with pytest.raises(EvaluationError, match="NaN"):
            read_leaderboard(database, "fruit")
        assert repair_database(database) == 1
        assert repair_database(database) == 0
        found = evaluate_app(DATASET, engine, "fruit", "w", database=database)
    assert list(found.leaderboard.index) == ["v", "w"]


def test_openai_in_the_engine_needs_no_tokenizer_from_the_network(database: Path, monkeypatch) -> None:
    from llama_index.llms.openai import OpenAI
    from test_trulens_provider import _listen  # noqa: F401  # the hook is installed there

    monkeypatch.delenv("TIKTOKEN_CACHE_DIR", raising=False)
    import test_trulens_provider as listener

    with LoopbackLLM(script=app_and_judge()) as server:
        llm = OpenAI(model="gpt-4o-mini", api_base=server.api_base, api_key="sk-secret-key")
        engine = fruit_engine(llm)
        listener._hosts = hosts = []
        try:
            found = evaluate_app(DATASET, engine, "fruit", "openai", llm=llm, database=database)
        finally:
            listener._hosts = None
    assert set(hosts) == {"127.0.0.1"}
    assert found.means()["answer_relevance"] == pytest.approx(2 / 3)
    assert "sk-secret" not in database.read_bytes().decode("latin-1")


def test_the_judge_leaves_no_calls_among_the_records(database: Path) -> None:
    with LoopbackLLM(script=app_and_judge()) as server:
        llm = model(server)
        evaluate_app(DATASET, fruit_engine(llm), "fruit", "v", llm=llm, database=database)
        assert any(is_judged(request) for request in server.requests)
    assert "Answer with one JSON object only" not in json.dumps(rows_of(database))


def test_the_judge_cannot_be_asked(database: Path) -> None:
    with LoopbackLLM(script=app_and_judge()) as server, LoopbackLLM(key="another") as locked:
        engine = fruit_engine(model(server))
        with pytest.raises(JudgeUnavailableError, match="refused the API key"):
            evaluate_app(DATASET, engine, "fruit", "v", llm=model(locked), database=database)
        found = evaluate_app(DATASET, engine, "fruit", "v", llm=model(server), database=database, overwrite=True)
    assert found.leaderboard["answer_relevance"].tolist() == pytest.approx([2 / 3])


def test_a_recording_around_is_refused(database: Path) -> None:
    from llama_index_embft.integrations.trulens.recording import Recorder, open_session

    with LoopbackLLM(script=app_and_judge()) as server:
        engine = fruit_engine(model(server))
        outer = Recorder(open_session(database), engine, "outer", "v", [])
        with outer._app, pytest.raises(EvaluationError, match="end it first"):
            evaluate_app(DATASET, engine, "fruit", "v", database=database)


def test_bad_arguments(database: Path, monkeypatch, tmp_path: Path) -> None:
    engine = TableEngine(table={})
    retriever = VectorStoreIndex([], embed_model=FruitEmbedding()).as_retriever()
    with pytest.raises(ConfigError, match="no_text"):
        evaluate_app(DATASET, retriever, "a", "v", database=database)
    with pytest.raises(ConfigError, match="app_version"):
        evaluate_app(DATASET, engine, "a", " ", database=database)
    with pytest.raises(EvaluationError, match="no verdicts on an app 'a'"):
        read_leaderboard(database, "a")
    with pytest.raises(EvaluationError, match="no SQLite file"):
        repair_database(tmp_path / "nothing.sqlite")
    (tmp_path / "text.sqlite").write_text("no database at all, but long enough to be read as one" * 9)
    with pytest.raises(EvaluationError, match="not a TruLens database"):
        evaluate_app(DATASET, engine, "a", "v", database=tmp_path / "text.sqlite")
    with pytest.raises(EvaluationError, match="not a TruLens database"):
        repair_database(tmp_path / "text.sqlite")
    with pytest.raises(OutputError, match="Cannot make the folder"):
        evaluate_app(DATASET, engine, "a", "v", database=tmp_path / "text.sqlite" / "db.sqlite")
    monkeypatch.setenv("TRULENS_OTEL_TRACING", "0")
    with pytest.raises(ConfigError, match="unset it"):
        evaluate_app(DATASET, engine, "a", "v", database=database)


def test_different_queries_are_not_paired(database: Path) -> None:
    with LoopbackLLM(script=app_and_judge()) as server:
        engine = fruit_engine(model(server))
        one = evaluate_app(DATASET, engine, "fruit", "v", database=database)
        two = evaluate_app(DATASET.subset(["q1", "q2"]), engine, "fruit", "w", database=database)
    with pytest.raises(EvaluationError, match="different queries"):
        paired_differences(one, two)


def test_without_the_extra(database: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "trulens.core", None)
    with pytest.raises(MissingExtraError, match=r"llama-index-embft\[trulens\]"):
        evaluate_app(DATASET, TableEngine(table={}), "a", "v", database=database)


@pytest.mark.system
def test_a_fresh_process_prints_nothing(tmp_path: Path) -> None:
    script = (
        "from llama_index.core import MockEmbedding, VectorStoreIndex\n"
        "from llama_index.core.llms import MockLLM\n"
        "from llama_index.core.schema import TextNode\n"
        "from llama_index_embft import EmbeddingQAFinetuneDataset\n"
        "from llama_index_embft.integrations.trulens import evaluate_app\n"
        "data = EmbeddingQAFinetuneDataset(queries={'q': 'x'}, corpus={'d': 'y'}, relevant_docs={'q': ['d']})\n"
        "index = VectorStoreIndex([TextNode(id_='d', text='y')], embed_model=MockEmbedding(embed_dim=2))\n"
        "found = evaluate_app(data, index.as_query_engine(llm=MockLLM()), 'a', 'v', database='db.sqlite')\n"
        "assert found.leaderboard['hit_rate@10'].tolist() == [1.0]\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_loggers_are_left_as_they_were(database: Path) -> None:
    before = {name: logging.getLogger(name).level for name in ("trulens", "opentelemetry", "alembic")}
    with LoopbackLLM(script=lambda _: Behaviour(text="Pears.")) as server:
        evaluate_app(DATASET, fruit_engine(model(server)), "fruit", "v", database=database)
    assert {name: logging.getLogger(name).level for name in before} == before
