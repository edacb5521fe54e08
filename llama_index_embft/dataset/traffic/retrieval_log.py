"""Traffic that LlamaIndex and TruLens have seen: a log of retrievals, and records with their feedback."""

from __future__ import annotations

import json
import math
import os
import threading
from collections import defaultdict
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from llama_index_embft._core.optional import require
from llama_index_embft.dataset.formats._build import Builder, OnError
from llama_index_embft.dataset.formats._source import At, as_text
from llama_index_embft.dataset.traffic.clicks import (
    Impression,
    TrafficReport,
    _add_corpus,
    check_counts,
    from_impressions,
)
from llama_index_embft.errors import ConfigError, DatasetError, OutputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset

# --- LlamaIndex -------------------------------------------------------------------------------------------------------


class RetrievalLog:
    """Writes what LlamaIndex retrieves into a JSON Lines file, which `dataset_from_clicks` reads.

    Every retrieval of the process is one line: an id, the query, and the nodes in order with the text that the index
    embeds (`MetadataMode.EMBED`). Questions and texts are stored in clear. Clicks and thumbs are added later, by id, as
    lines of their own; a line is written at once, so that a crash loses nothing but the line being written.

    Args:
        path: The file; lines are appended.

    Raises:
        OutputError: The file cannot be written.

    Example:
        >>> log = RetrievalLog("traffic.jsonl").attach()  # doctest: +SKIP
        >>> response = query_engine.query("Who pays?")  # doctest: +SKIP
        >>> log.feedback(log.last_id, clicked=[response.source_nodes[1].node_id])  # doctest: +SKIP
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self._last: ContextVar[str | None] = ContextVar("embft_last_retrieval", default=None)
        self._attached: tuple[Any, Any] | None = None
        self._write("")

    @property
    def last_id(self) -> str | None:
        """Id of the last retrieval in this thread or task, the outermost one of a query; None before any."""
        return self._last.get()

    def attach(self) -> RetrievalLog:
        """Listen to LlamaIndex' own instrumentation from now on; returns itself."""
        from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined, unused-ignore]
        from llama_index.core.instrumentation.event_handlers import BaseEventHandler
        from llama_index.core.instrumentation.events.retrieval import RetrievalEndEvent

        if self._attached is not None:
            return self
        observe = self.observe

        class Handler(BaseEventHandler):
            @classmethod
            def class_name(cls) -> str:
                return "EmbftRetrievalLog"

            def handle(self, event: Any, **_: Any) -> None:
                if isinstance(event, RetrievalEndEvent):
                    query = event.str_or_query_bundle
                    observe(query if isinstance(query, str) else query.query_str, event.nodes, id_=event.id_)

        dispatcher, handler = get_dispatcher(), Handler()
        dispatcher.add_event_handler(handler)
        self._attached = (dispatcher, handler)
        return self

    def detach(self) -> None:
        """Stop listening."""
        if self._attached is not None:
            dispatcher, handler = self._attached
            dispatcher.event_handlers = [other for other in dispatcher.event_handlers if other is not handler]
            self._attached = None

    def observe(self, query: str, nodes: Iterable[Any], *, id_: str) -> None:
        """Write one retrieval, as the listener does."""
        from llama_index.core.schema import MetadataMode

        shown = {
            found.node.node_id: {
                "id": found.node.node_id,
                "text": found.node.get_content(metadata_mode=MetadataMode.EMBED),
            }
            for found in nodes
        }
        self._write(_line({"id": id_, "query": query, "shown": list(shown.values())}))
        self._last.set(id_)

    def feedback(
        self, id_: str | None, *, clicked: Iterable[str] = (), thumbs: Literal["up", "down"] | None = None
    ) -> None:
        """Add what the user did with a retrieval.

        Args:
            id_: From `last_id`.
            clicked: Ids of the nodes that were opened.
            thumbs: What the user said of the whole answer.

        Raises:
            ConfigError: There is no id, or nothing to add.
        """
        ids = list(clicked)
        if id_ is None or (not ids and thumbs is None) or thumbs not in (None, "up", "down"):
            raise ConfigError("Feedback needs the id of a retrieval, and `clicked` or thumbs='up' or 'down'.")
        self._write(_line({"id": id_, "clicked": ids} | ({} if thumbs is None else {"feedback": thumbs})))

    def _write(self, text: str) -> None:
        try:
            with self._lock, self.path.open("a", encoding="utf-8", errors="replace") as file:
                file.write(text)
        except OSError as err:
            raise OutputError(f"Cannot write the log {self.path}: {err.strerror or err}.") from err


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


# --- TruLens ----------------------------------------------------------------------------------------------------------

_BASE: Final = "ai.observability."


def dataset_from_trulens(
    database: str | os.PathLike[str],
    app_name: str,
    app_version: str | None = None,
    *,
    feedback: str,
    up: float = 0.7,
    down: float = 0.3,
    corpus: Mapping[str, str] | EmbeddingQAFinetuneDataset | str | os.PathLike[str] | None = None,
    answer_depth: int = 1,
    min_clicks: int = 1,
    min_skips: int = 1,
    max_negatives: int = 10,
    on_error: OnError = "raise",
    report: TrafficReport | None = None,
) -> EmbeddingQAFinetuneDataset:
    """Make a data set of the records of a TruLens database: questions, contexts retrieved, and the feedback on them.

    Feedback that was given on each context (such as context relevance with ``collect_list=False``) judges that context.
    Feedback on a whole record counts for its first ``answer_depth`` contexts, which is a weak sign. TruLens stores the
    texts of contexts and no ids: documents get ids made of their texts, or those of ``corpus`` where the text is in it.

    Args:
        database: A SQLite file, or the URL of another database.
        app_name: Name of the app.
        app_version: Name of the version; None: all versions.
        feedback: The name of the feedback to go by, such as ``"context_relevance"``.
        up: Scores from here on make a positive.
        down: Scores up to here make a negative; what lies between says nothing.
        corpus: More documents to search; see `dataset_from_clicks`.
        answer_depth: Contexts of a record that its feedback counts for.
        min_clicks: Records in which a context must have been good for a question.
        min_skips: Records in which it must have been bad.
        max_negatives: Most negatives of a question.
        on_error: ``"raise"`` stops at a record without a question; ``"drop"`` leaves it out and counts it.
        report: Filled with what became of the traffic.

    Raises:
        MissingExtraError: The extra ``trulens`` is not installed.
        DatasetError: There is no such database, app or feedback, or no question has a positive.
        ConfigError: ``down`` is not below ``up``.
    """
    if not down < up:
        raise ConfigError(f"`down` must be below `up`, got {down} and {up}.")
    check_counts(min_clicks=min_clicks, min_skips=min_skips, max_negatives=max_negatives, answer_depth=answer_depth)
    build = Builder(f"the TruLens database {os.fspath(database)}", on_error=on_error)
    _add_corpus(build, corpus, on_error)
    records = _records(database, app_name, app_version)
    if not records:
        raise DatasetError(f"{build.source} holds no records of the app {app_name!r}, version {app_version!r}.")
    names = sorted({name for record in records.values() for name in record.scores})
    if feedback not in names:
        raise DatasetError(f"{build.source} has no feedback {feedback!r}; there is {', '.join(names) or 'none'}.")
    return from_impressions(
        _judged(records, build, feedback, up, down, answer_depth),
        build,
        min_clicks=min_clicks,
        min_skips=min_skips,
        max_negatives=max_negatives,
        report=report,
    )


class _Record:
    """What the events of one record say."""

    def __init__(self) -> None:
        self.question: Any = None
        self.contexts: tuple[str, ...] = ()
        self.started: Any = None
        self.scores: dict[str, float | None] = {}
        self.of_context: defaultdict[str, dict[str, float]] = defaultdict(dict)


def _records(database: str | os.PathLike[str], app_name: str, app_version: str | None) -> dict[str, _Record]:
    require("trulens.core", feature="Reading a TruLens database")
    from sqlalchemy.exc import SQLAlchemyError
    from trulens.core.database.connector import DefaultDBConnector

    text = os.fspath(database)
    if "://" not in text:
        if not Path(text).is_file():
            raise DatasetError(f"There is no TruLens database {text}; check the path.")
        text = f"sqlite:///{Path(text).absolute()}"
    try:
        connector = DefaultDBConnector(database_url=text)
        events = connector.get_events(app_name=app_name, app_version=app_version)
    except (SQLAlchemyError, OSError, ValueError) as err:
        raise DatasetError(
            f"{os.fspath(database)} cannot be read as a TruLens database ({str(err).splitlines()[0][:200]}); if it "
            "holds NaN, `embft dashboard --repair` removes that."
        ) from err
    records: dict[str, _Record] = {}
    for _, event in events.iterrows():
        attributes = event["record_attributes"]
        id_ = attributes.get(_BASE + "record_id")
        if id_:
            _take(records.setdefault(str(id_), _Record()), attributes, event["start_timestamp"])
    return records


def _take(record: _Record, attributes: dict[str, Any], started: Any) -> None:
    kind = attributes.get(_BASE + "span_type")
    if kind == "record_root":
        record.question = attributes.get(_BASE + "record_root.input")
        own = attributes.get("embft.contexts")  # `evaluate_app` keeps them with the record
        if own:
            record.contexts, record.started = tuple(own), ""
    elif kind == "retrieval":
        contexts = attributes.get(_BASE + "retrieval.retrieved_contexts")
        # The outermost retrieval begins first; its contexts are those after all postprocessors.
        if contexts and record.started != "" and (record.started is None or started < record.started):
            record.contexts, record.started = tuple(contexts), started
    elif kind in ("eval", "eval_root"):
        _take_score(record, attributes, kind)


def _take_score(record: _Record, attributes: dict[str, Any], kind: str) -> None:
    name = attributes.get(_BASE + "eval.metric_name") or attributes.get(f"{_BASE}{kind}.metric_name")
    score = attributes.get(f"{_BASE}{kind}.score")
    if not name:
        return
    if not isinstance(score, (int, float)) or not math.isfinite(score) or score == -1.0:  # -1 says "unreadable"
        record.scores.setdefault(name, None)
        return
    if kind == "eval_root" or record.scores.get(name) is None:
        record.scores[name] = float(score)
    if kind == "eval":
        for key, value in attributes.items():
            if key.startswith(_BASE + "call.kwargs.") and isinstance(value, str):
                record.of_context[name][value] = float(score)


def _judged(
    records: dict[str, _Record], build: Builder, feedback: str, up: float, down: float, depth: int
) -> Iterator[Impression]:
    ids = {text: doc for doc, text in build.corpus.items()}
    for id_, record in records.items():
        made = None
        with build.row():
            at = At(build.source + f", record {id_}")
            question = as_text(record.question, "the question", at)
            docs = {
                text: ids.get(text) or build.add_document(as_text(text, "a context", at), at)
                for text in dict.fromkeys(record.contexts)
            }
            own = record.of_context.get(feedback, {})
            scores = {doc: own[text] for text, doc in docs.items() if text in own}
            overall = record.scores.get(feedback)
            if not scores and overall is not None:
                scores = dict.fromkeys(list(docs.values())[:depth], overall)
            made = Impression(
                question,
                tuple(docs.values()),
                liked=frozenset(doc for doc, score in scores.items() if score >= up),
                rejected=frozenset(doc for doc, score in scores.items() if score <= down),
            )
        if made is not None:
            yield made
