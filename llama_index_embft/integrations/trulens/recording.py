"""Recording query engines into a TruLens database, past what breaks there today (trulens 2.16)."""

from __future__ import annotations

import logging
import math
import os
import time
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from llama_index.core.base.base_query_engine import BaseQueryEngine
from opentelemetry.baggage import get_baggage
from trulens.apps.app import TruApp
from trulens.core import Metric, Selector, TruSession, instruments as trulens_instruments
from trulens.core.metric.metric import SkipEval
from trulens.core.otel.instrument import instrument
from trulens.otel.semconv.trace import ResourceAttributes, SpanAttributes

from llama_index_embft._core.checks import first_line
from llama_index_embft._core.redaction import without_secret_addresses
from llama_index_embft.errors import ConfigError, EvaluationError, OutputError
from llama_index_embft.evaluation.systems.query_engine import answer_text
from llama_index_embft.evaluation.systems.retriever import RetrieverResponse
from llama_index_embft.integrations.trulens.database import database_url, index_records, refuse_broken_rows, sqlite_file
from llama_index_embft.integrations.trulens.feedback import Exchange, FeedbackVerdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import pandas as pd

    from llama_index_embft.integrations.trulens.unfinished import UnfinishedAnswers

logger = logging.getLogger(__name__)

CONTEXTS: Final = "embft.contexts"
_ROOT: Final = SpanAttributes.SpanType.RECORD_ROOT


# --- the database -----------------------------------------------------------------------------------------------------


def open_session(database: str | os.PathLike[str]) -> TruSession:
    """The TruLens session of a database, which is made where it is missing.

    TruLens has one session a process and ignores the address of a second one; here the second one takes the place of
    the first.

    Raises:
        ConfigError: TruLens' OpenTelemetry mode is switched off in the environment.
        EvaluationError: The database holds rows that no reader survives; see `repair_database`.
        OutputError: The file cannot be made.
    """
    from sqlalchemy.exc import SQLAlchemyError

    if os.environ.get("TRULENS_OTEL_TRACING", "1").lower() in ("0", "false"):
        raise ConfigError("TRULENS_OTEL_TRACING=0 switches off what the leaderboard is made of; unset it.")
    url = database_url(database)
    file = sqlite_file(url)
    if file is not None:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as err:
            raise OutputError(f"Cannot make the folder of the database {file}: {err.strerror or err}.") from err
    refuse_broken_rows(url)
    opened = _open_singleton()
    if opened is not None:
        if _url_of(opened) == url and (file is None or file.exists()):
            return opened
        shown = map(without_secret_addresses, (str(_url_of(opened)), url))
        logger.info("The TruLens session of %s is replaced by one of %s.", *shown)
        opened.force_flush()
        _forget_singleton()
    try:
        with _silent("opentelemetry.trace", "alembic"):
            session = TruSession(database_url=url)
    except (SQLAlchemyError, OSError) as err:
        _forget_singleton()
        raise OutputError(
            f"Cannot open the TruLens database {without_secret_addresses(url)}: {first_line(err)}."
        ) from err
    index_records(session.connector.db, SpanAttributes.RECORD_ID)  # type: ignore[union-attr, unused-ignore]
    return session


def open_reader(url: str) -> Any:
    """What reads a database beside the session of this process.

    Raises:
        OutputError: It cannot be opened.
    """
    from sqlalchemy.exc import SQLAlchemyError
    from trulens.core.database.connector import DefaultDBConnector

    try:
        with _silent("alembic"):
            return DefaultDBConnector(database_url=url)
    except (SQLAlchemyError, OSError, ValueError) as err:
        raise OutputError(f"Cannot open the TruLens database: {first_line(err)}.") from err


def flush() -> None:
    """Let the session of this process, if there is one, write what is on its way."""
    opened = _open_singleton()
    if opened is not None:
        opened.force_flush()


def require_open(session: TruSession) -> None:
    """Raise if another session has taken this one's place: records would go into its database.

    Raises:
        EvaluationError: It has.
    """
    if _open_singleton() is not session:
        raise EvaluationError("Another TruLens database has been opened in this process; use one for both.")


def count_records(session: TruSession, app_name: str, app_version: str) -> int:
    """Events of a version that the database holds already."""
    session.force_flush()  # an evaluation that was broken off may have left some on their way
    return len(session.get_events(app_name=app_name, app_version=app_version))


def delete_version(session: TruSession, app_name: str, app_version: str) -> None:
    """Remove the records and verdicts of a version."""
    import sqlalchemy as sa

    database: Any = session.connector.db  # type: ignore[union-attr, unused-ignore]
    event = database.orm.Event
    same = [
        database._json_extract_otel("resource_attributes", key) == value
        for key, value in ((ResourceAttributes.APP_NAME, app_name), (ResourceAttributes.APP_VERSION, app_version))
    ]
    with database.session.begin() as transaction:
        transaction.execute(sa.delete(event).where(sa.and_(*same)).execution_options(synchronize_session=False))


def leaderboard_of(session: Any, app_name: str) -> pd.DataFrame:
    """A row a version of an app, a column a feedback: means over the records that have a score."""
    import pandas as pd

    frame: Any = session.get_leaderboard()
    if not len(frame) or app_name not in frame.index.get_level_values("app_name"):
        return pd.DataFrame()
    # Latency is left out: the first call of a recording waits for TruLens to start up.
    rows = frame.xs(app_name, level="app_name").drop(columns=["latency", "total_cost"], errors="ignore")
    sorted_rows: pd.DataFrame = rows.sort_index(axis="columns").sort_index()
    return sorted_rows


def _open_singleton() -> TruSession | None:
    kind: Any = TruSession
    name = f"{TruSession.__module__}.{TruSession.__name__}"
    found: TruSession | None = next((made for key, made in kind._singleton_instances.items() if key[0] == name), None)
    return found


def _forget_singleton() -> None:
    kind: Any = TruSession
    kind.delete_singleton(kind)


def _url_of(session: Any) -> str:
    return str(session.connector.db.engine.url.render_as_string(hide_password=False))


# --- recording --------------------------------------------------------------------------------------------------------


def _root_attributes(result: Any, error: Any, *args: Any, **_: Any) -> dict[str, Any]:
    last = args[0].last if args and not error and result is not None else None
    return {} if last is None else {CONTEXTS: list(last.contexts)}


class RecordedEngine(BaseQueryEngine):
    """A query engine whose record holds the whole answer and the contexts it was made from.

    TruLens reads a streaming answer to describe it, and hands an empty stream on; its record says "streaming response".
    Here the stream is read inside of the recorded call, and the answer is recorded.

    Attributes:
        engine: The engine.
        last: The last exchange; None if it failed.
        last_response: The last response; None if it failed.
    """

    def __init__(self, engine: Any, answers: UnfinishedAnswers | None = None) -> None:
        super().__init__(callback_manager=None)
        self.engine = engine
        self._answers = answers
        self.last: Exchange | None = None
        self.last_response: Any = None

    @instrument(name="query", attributes=_root_attributes)  # type: ignore[misc, unused-ignore]
    def ask(self, question: str) -> str:
        """Ask the engine, keep the exchange, return the answer."""
        self.last = self.last_response = None
        known = None if self._answers is None else self._answers.take(question)
        response = known or self.engine.query(question)
        answer = answer_text(response) if known is None else known.answer
        if known is None and self._answers is not None:
            self._answers.put(question, answer, response.source_nodes)
        contexts = tuple(node.get_content() for node in response.source_nodes)
        self.last, self.last_response = Exchange(question, answer, contexts), response
        return answer

    def _get_prompt_modules(self) -> dict[str, Any]:
        return {}

    def _query(self, query_bundle: Any) -> Any:
        return self.engine.query(query_bundle)

    async def _aquery(self, query_bundle: Any) -> Any:
        return await self.engine.aquery(query_bundle)


class Recorder:
    """Writes the exchanges of one version of an app, and then the verdicts on them.

    Args:
        session: From `open_session`.
        engine: Anything with ``query``.
        app_name: Name of the app.
        app_version: Name of the version.
        names: Names of the feedbacks.
        whole_app: True records what happens inside of the engine too, by `TruLlama`, which instruments the classes of
            LlamaIndex objects that it finds in the engine. False records question, contexts and answer alone, by
            `TruApp`, and touches nothing.
        answers: Answers that are known already, and where new ones are kept.

    Raises:
        EvaluationError: TruLens cannot look into the engine.
    """

    def __init__(
        self,
        session: TruSession,
        engine: Any,
        app_name: str,
        app_version: str,
        names: Sequence[str],
        *,
        whole_app: bool = True,
        answers: UnfinishedAnswers | None = None,
    ) -> None:
        self._session = session
        self._verdicts: dict[str, dict[str, FeedbackVerdict]] = {name: {} for name in names}
        self.engine = RecordedEngine(engine, answers)
        metrics = [_metric(name, self._verdicts[name]) for name in names]
        make: Any = import_module("trulens.apps.llamaindex").TruLlama if whole_app else TruApp
        with _silent("trulens", "opentelemetry"), _no_prints(), _bundled_tokenizer():
            try:
                self._app = make(
                    self.engine,
                    main_method=self.engine.ask,
                    app_name=app_name,
                    app_version=app_version,
                    feedbacks=metrics,
                    start_evaluator=False,
                )
            except Exception as err:
                raise EvaluationError(f"TruLens cannot look into this query engine: {first_line(err)}") from err
        # Its end would log that there is no evaluator thread to stop; there is none on purpose.
        vars(self._app)["stop_evaluator"] = lambda: None

    def record(self, questions: Iterable[str]) -> list[tuple[str, RetrieverResponse, Exchange | None]]:
        """Ask each question; for each its record's id, the answer with its nodes, and the exchange (None: it failed).

        Raises:
            EvaluationError: A recording is going on around this one.
        """
        if get_baggage("__trulens_recording__") is not None:
            raise EvaluationError(
                "A TruLens recording is going on around this call and would take the records for its own; end it first."
            )
        records: list[tuple[str, RetrieverResponse, Exchange | None]] = []
        with self._app as recording:
            for question in questions:
                start, error = time.perf_counter(), None
                try:
                    self.engine.ask(question)
                except Exception as err:  # noqa: BLE001  # whatever an engine raises: it is counted and shown
                    error = err
                seconds = time.perf_counter() - start
                response = self.engine.last_response
                nodes = () if response is None else response.source_nodes
                records.append(
                    (recording.records[-1].record_id, RetrieverResponse(nodes, seconds, error), self.engine.last)
                )
        return records

    def store(self, verdicts: Mapping[str, Mapping[str, FeedbackVerdict]], *, timeout: float) -> None:
        """Write verdicts: feedback -> record id -> verdict. One without a score is stored as missing, never as NaN.

        Raises:
            EvaluationError: The database has not taken them after `timeout` seconds.
        """
        for name, of_record in verdicts.items():
            self._verdicts[name].update(of_record)
        ids = sorted({record for of_record in verdicts.values() for record in of_record})
        try:
            with _silent("trulens"):
                self._app.retrieve_feedback_results(record_ids=ids, timeout=timeout)
        except RuntimeError as err:
            raise EvaluationError(
                f"The TruLens database has not taken all verdicts within {timeout:g} s; is it locked by another "
                f"process? ({first_line(err)[:200]})"
            ) from err
        finally:
            for of_record in self._verdicts.values():
                of_record.clear()


def _metric(name: str, verdicts: dict[str, FeedbackVerdict]) -> Metric:
    """A metric that looks verdicts up: they are made before, side by side and outside of any recording.

    Otherwise the judge's own calls would stand among the records, one after the other.
    """

    def look_up(record_id: str, question: Any) -> tuple[float, dict[str, str]]:
        # The question is shown with the verdict in the dashboard. Contexts and answer stand in the record; stored with
        # every verdict too, they would make the database several times as large.
        del question
        verdict = verdicts.get(record_id, FeedbackVerdict("undefined", reason="There is no verdict."))
        if verdict.score is None or not math.isfinite(verdict.score):
            raise SkipEval(f"{verdict.outcome}: {verdict.reason}")
        return verdict.score, {"reason": verdict.reason}

    def root(attribute: str) -> Selector:
        # A selected None that is ignored leaves no row at all, and TruLens waits for it until its timeout.
        return Selector(span_type=_ROOT, span_attribute=attribute, ignore_none_values=False, collect_list=True)

    return Metric(
        implementation=look_up,
        name=name,
        selectors={
            "record_id": root(SpanAttributes.RECORD_ID),
            "question": root(SpanAttributes.RECORD_ROOT.INPUT),
        },
    )


@contextmanager
def _no_prints() -> Iterator[None]:
    """TruLens prints a line for each class it instruments; only its own `print` is silenced, not the process's."""
    module: Any = trulens_instruments
    module.print = lambda *_, **__: None
    try:
        yield
    finally:
        del module.print


@contextmanager
def _silent(*names: str) -> Iterator[None]:
    """Errors only, from these loggers: a skipped verdict is a warning there and is counted here."""
    levels = [(logging.getLogger(name), logging.getLogger(name).level) for name in names]
    for of_library, _ in levels:
        of_library.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for of_library, level in levels:
            of_library.setLevel(level)


@contextmanager
def _bundled_tokenizer() -> Iterator[None]:
    """TruLens reads every property of the engine's objects, OpenAI's tokenizer too, which is fetched from the network.

    LlamaIndex brings the files; this points there while TruLens looks.
    """
    import llama_index.core

    bundled = Path(llama_index.core.__file__).parent / "_static" / "tiktoken_cache"
    if "TIKTOKEN_CACHE_DIR" in os.environ or not bundled.is_dir():
        yield
        return
    os.environ["TIKTOKEN_CACHE_DIR"] = str(bundled)
    try:
        yield
    finally:
        os.environ.pop("TIKTOKEN_CACHE_DIR", None)
