"""Live traffic: scored in the background, and never in the way of a request."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy.dialects.postgresql
from trulens_helpers import DATASET, FruitEmbedding, LoopbackLLM, app_and_judge, fruit_engine, model, verdict

pytest.importorskip("trulens.feedback", reason="extra trulens")

from llama_index.core import Settings
from llama_index.core.base.response.schema import AsyncStreamingResponse, Response
from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata, MockLLM
from llama_index.core.llms.callbacks import llm_completion_callback
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from pydantic import PrivateAttr
from trulens.core.database.sqlalchemy import SQLAlchemyDB

from llama_index_embft.errors import ConfigError
from llama_index_embft.integrations.trulens import LiveScorer, evaluate_app, read_leaderboard
from llama_index_embft.integrations.trulens.database import index_records

QUESTIONS = list(DATASET.queries.values())
LONG = 120.0  # seconds; only a defect takes that long


class GatedJudge(CustomLLM):
    """Says when it is asked, and answers when it is let; or raises."""

    error: str = ""
    _asked: threading.Event = PrivateAttr(default_factory=threading.Event)
    _gate: threading.Event = PrivateAttr(default_factory=threading.Event)
    _prompts: list[str] = PrivateAttr(default_factory=list)

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name="gated")

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        self._prompts.append(prompt)
        self._asked.set()
        assert self._gate.wait(LONG)
        if self.error:
            raise RuntimeError(self.error)
        return CompletionResponse(text=verdict(3))

    def stream_complete(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError


def answer(text: str, *docs: str) -> Response:
    nodes = [NodeWithScore(node=TextNode(id_=doc, text=DATASET.corpus[doc]), score=1.0) for doc in docs]
    return Response(response=text, source_nodes=nodes)


@pytest.fixture(autouse=True)
def _no_embed_model_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Settings, "_embed_model", None)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("live") / "trulens.sqlite"


def test_answers_are_scored_after_the_request_and_stand_on_the_leaderboard(database: Path) -> None:
    with LoopbackLLM(script=app_and_judge()) as server:
        llm = model(server)
        engine = fruit_engine(llm)
        with LiveScorer("fruit", "live", llm=llm, embed_model=FruitEmbedding(), database=database, rate=1.0) as scorer:
            watched = scorer.watch(engine)
            answers = [watched.query(question) for question in QUESTIONS]
            assert watched.query(QueryBundle(QUESTIONS[0])).response == answers[0].response
            assert len(watched.retrieve(QueryBundle(QUESTIONS[0]))) == 1
            assert watched.get_prompts().keys()
            assert scorer.flush(LONG)
            stats = scorer.stats
        evaluated = evaluate_app(DATASET, engine, "fruit", "tuned", llm=llm, database=database)
    assert [one.response for one in answers] == list(evaluated.report.answers)
    assert type(answers[0]) is Response
    assert (stats.seen, stats.sampled, stats.scored) == (4, 4, 4)
    assert (stats.dropped, stats.failed, stats.waiting) == (0, 0, 0)
    assert scorer.means()["embedding_answer_relevance"] == pytest.approx(1.0, abs=1e-6)
    mean = scorer.intervals()["embedding_answer_relevance"]
    assert mean.n == 4
    assert 0 < mean.interval[0] < mean.interval[1] == 1
    assert scorer.counts()["groundedness"] == {"scored": 4, "undefined": 0, "unreadable": 0, "failed": 0}
    board = read_leaderboard(database, "fruit")
    assert list(board.index) == ["live", "tuned"]
    for name in ("context_relevance", "groundedness", "answer_relevance"):
        assert board[name].tolist() == pytest.approx([2 / 3, 2 / 3])


def test_no_statement_reads_the_whole_database_for_one_answer(database: Path) -> None:
    statements: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        statements.append((statement, parameters))

    with LiveScorer("fruit", "indexed", embed_model=FruitEmbedding(), database=database, rate=1.0) as scorer:
        engine = scorer._sink._session.connector.db.engine
        sqlalchemy.event.listen(engine, "before_cursor_execute", note)
        scorer.observe("what?", answer("Red.", "apples"))
        assert scorer.flush(LONG)
        sqlalchemy.event.remove(engine, "before_cursor_execute", note)
        assert scorer.stats.scored == 1
    looks = [(statement, values) for statement, values in statements if statement.startswith("SELECT")]
    assert len(looks) >= 3
    with closing(sqlite3.connect(database)) as connection:
        for statement, values in looks:
            plan = " ".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", values))
            assert "USING INDEX embft_record_id" in plan, statement
            assert "SCAN trulens_events" not in plan, statement


def test_postgresql_gets_an_index_of_what_trulens_looks_for() -> None:
    made: list[str] = []

    @contextmanager
    def begin() -> Iterator[Any]:
        yield SimpleNamespace(exec_driver_sql=made.append)

    dialect = sqlalchemy.dialects.postgresql.dialect()
    database: Any = SimpleNamespace(engine=SimpleNamespace(dialect=dialect, begin=begin))
    index_records(database, "ai.observability.record_id")
    asked = SQLAlchemyDB._json_path_expr(database, sqlalchemy.column("record_attributes"), "ai.observability.record_id")
    words = str(asked.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))
    assert made == [f"CREATE INDEX IF NOT EXISTS embft_record_id ON trulens_events ({words})"]


def test_the_very_response_is_handed_on(database: Path) -> None:
    response = answer("It is red.", "apples")
    engine = SimpleNamespace(query=lambda _: response)
    scorer = LiveScorer("fruit", "same", embed_model=FruitEmbedding(), database=database, rate=1.0)
    with scorer:
        assert scorer.watch(engine).query("what?") is response
        assert scorer.observe("what?", response) is response


def test_a_slow_judge_keeps_nobody_waiting(database: Path) -> None:
    judge = GatedJudge()
    with LiveScorer("fruit", "slow", llm=judge, database=database, rate=1.0, max_waiting=2) as scorer:
        assert scorer.observe("first?", answer("Red.", "apples")).response == "Red."
        assert judge._asked.wait(LONG)  # the judge holds the first answer and will not let go
        for number in range(5):
            scorer.observe(f"more {number}?", answer("Red.", "apples"))
        stats = scorer.stats
        assert (stats.sampled, stats.scored, stats.waiting, stats.dropped) == (6, 0, 3, 3)
        judge._gate.set()
        assert scorer.flush(LONG)
        assert scorer.stats.scored == 3
    assert not any("more 2?" in prompt for prompt in judge._prompts)


def test_a_judge_that_fails_is_counted_and_later_forgiven(database: Path) -> None:
    with LoopbackLLM(script=app_and_judge(), key="sk-secret-key") as server:
        llm = model(server)
        with LiveScorer("fruit", "failing", llm=llm, database=database, rate=1.0) as scorer:
            server.key = "changed"
            assert scorer.observe("one?", answer("Red.", "apples")).response == "Red."
            assert scorer.flush(LONG)
            assert scorer.counts()["context_relevance"]["failed"] == 1
            server.key = "sk-secret-key"
            scorer.observe("two?", answer("Red.", "apples"))
            assert scorer.flush(LONG)
            assert scorer.counts()["context_relevance"]["scored"] == 1
            assert scorer.stats.scored == 2
            assert scorer.stats.failed == 0


def test_the_sample_is_the_seed_s(database: Path) -> None:
    asked = [f"question {number}" for number in range(60)]

    def sampled(rate: float, seed: int) -> list[int]:
        judge = GatedJudge()
        judge._gate.set()
        taken = []
        with LiveScorer("fruit", f"{rate} {seed}", llm=judge, database=database, rate=rate, seed=seed) as scorer:
            for question in asked:
                before = scorer.stats.sampled
                scorer.observe(question, answer(""))  # nothing to judge: quick
                taken.append(scorer.stats.sampled - before)
            scorer.flush(LONG)
        return taken

    few = sampled(0.1, 7)
    assert few == sampled(0.1, 7)
    assert few != sampled(0.1, 8)
    assert 0 < sum(few) < 20
    assert sum(sampled(0.0, 7)) == 0


def test_a_stream_arrives_piece_by_piece_and_is_scored_when_it_is_whole(database: Path) -> None:
    with LoopbackLLM(script=app_and_judge()) as server:
        llm = model(server)
        plain = list(fruit_engine(llm, streaming=True).query(QUESTIONS[1]).response_gen)
        with LiveScorer("fruit", "streamed", llm=llm, database=database, rate=1.0) as scorer:
            watched = scorer.watch(fruit_engine(llm, streaming=True))
            response = watched.query(QUESTIONS[1])
            first = next(response.response_gen)
            assert scorer.stats.waiting == scorer.stats.scored == 0
            rest = list(response.response_gen)
            assert [first, *rest] == plain
            assert len(plain) > 1
            assert str(watched.query(QUESTIONS[0])) == "It is about apples. Nothing else."
            left = watched.query(QUESTIONS[2]).response_gen
            next(left)
            left.close()  # the user goes away
            assert scorer.flush(LONG)
            assert (scorer.stats.scored, scorer.stats.dropped) == (2, 1)


def test_asynchronous_engines(database: Path) -> None:
    async def pieces():
        for piece in ("It ", "is red."):
            yield piece

    async def traffic(scorer: LiveScorer, engine: Any) -> list[str]:
        watched = scorer.watch(engine)
        response = await watched.aquery(QUESTIONS[0])
        stream = AsyncStreamingResponse(response_gen=pieces(), source_nodes=answer("", "apples").source_nodes)
        scorer.observe("streamed?", stream)
        return [response.response, *[piece async for piece in stream.response_gen]]

    with LoopbackLLM(script=app_and_judge()) as server:
        llm = model(server)
        with LiveScorer("fruit", "async", llm=llm, database=database, rate=1.0) as scorer:
            found = asyncio.run(traffic(scorer, fruit_engine(llm)))
            assert scorer.flush(LONG)
            assert scorer.stats.scored == 2
    assert found == ["It is about apples. Nothing else.", "It ", "is red."]


def test_an_engine_s_error_is_the_caller_s(database: Path) -> None:
    def broken(_: str) -> Any:
        raise LookupError("the store is down")

    with LiveScorer("fruit", "broken", embed_model=FruitEmbedding(), database=database, rate=1.0) as scorer:
        with pytest.raises(LookupError, match="the store is down"):
            scorer.watch(SimpleNamespace(query=broken)).query("what?")
        assert scorer.stats.seen == 0
        odd = SimpleNamespace(response="text", source_nodes=None)
        assert scorer.observe("what?", odd) is odd
        assert scorer.observe("what?", None) is None
        assert scorer.stats.failed == 2


def test_closing_scores_what_waits_and_leaves_the_engine_usable(database: Path) -> None:
    scorer = LiveScorer("fruit", "closed", embed_model=FruitEmbedding(), database=database, rate=1.0)
    for number in range(5):
        scorer.observe(f"apples {number}?", answer("apples", "apples"))
    scorer.close(LONG)
    assert scorer.stats.scored == 5
    assert scorer.observe("late?", answer("Red.")).response == "Red."
    assert (scorer.stats.dropped, scorer.stats.scored) == (1, 5)
    scorer.close()
    assert not scorer._thread.is_alive()


def test_closing_does_not_wait_for_a_judge_for_ever(database: Path) -> None:
    judge = GatedJudge()
    scorer = LiveScorer("fruit", "stuck", llm=judge, database=database, rate=1.0)
    for number in range(3):
        scorer.observe(f"{number}?", answer("Red.", "apples"))
    assert judge._asked.wait(LONG)
    scorer.close(timeout=0.01)
    assert scorer.stats.dropped == 2
    judge._gate.set()
    scorer._thread.join(LONG)
    assert not scorer._thread.is_alive()
    assert len(judge._prompts) == 1, "a stopped judge is asked nothing more"


def test_nothing_goes_into_another_database(database: Path, tmp_path: Path) -> None:
    from llama_index_embft.integrations.trulens.recording import open_session

    with LiveScorer("fruit", "elsewhere", embed_model=FruitEmbedding(), database=database, rate=1.0) as scorer:
        other = open_session(tmp_path / "other.sqlite")
        scorer.observe("apples?", answer("apples", "apples"))
        assert scorer.flush(LONG)
        assert scorer.stats.failed == 1
        assert other.get_events(app_name="fruit", app_version="elsewhere").empty


def test_bad_arguments(database: Path) -> None:
    with pytest.raises(ConfigError, match="Nothing can be scored"):
        LiveScorer("a", "v", database=database)
    with pytest.raises(ConfigError, match="`rate` is 10; it must be at least 0 and at most 1"):
        LiveScorer("a", "v", llm=MockLLM(), database=database, rate=10)
    with pytest.raises(ConfigError, match="max_waiting"):
        LiveScorer("a", "v", llm=MockLLM(), database=database, max_waiting=0)


@pytest.mark.system
def test_no_class_of_llamaindex_is_touched_and_the_end_of_the_process_flushes(tmp_path: Path) -> None:
    script = (
        "from llama_index.core import MockEmbedding\n"
        "from llama_index.core.base.base_query_engine import BaseQueryEngine\n"
        "from llama_index.core.base.response.schema import Response\n"
        "from llama_index.core.query_engine import RetrieverQueryEngine\n"
        "before = [dict(vars(kind)) for kind in (BaseQueryEngine, RetrieverQueryEngine)]\n"
        "from llama_index_embft.integrations.trulens import LiveScorer\n"
        "scorer = LiveScorer('a', 'v', embed_model=MockEmbedding(embed_dim=2), database='db.sqlite', rate=1.0)\n"
        "scorer.observe('what?', Response(response='this'))\n"
        "assert [dict(vars(kind)) for kind in (BaseQueryEngine, RetrieverQueryEngine)] == before\n"
        "import atexit\n"
        "atexit._run_exitfuncs()\n"
        "assert scorer.stats.scored == 1, scorer.stats\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    said = [line for line in done.stderr.splitlines() if "Nothing says what decides the vectors" not in line]
    assert (done.returncode, done.stdout, said) == (0, "", [])
