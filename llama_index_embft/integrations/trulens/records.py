"""A data set of the records of a TruLens database: questions, contexts, and the feedback on them."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from llama_index_embft._core.checks import first_line
from llama_index_embft._core.optional import require
from llama_index_embft.dataset.formats.build import Builder, OnError, as_text
from llama_index_embft.dataset.sources import At
from llama_index_embft.dataset.traffic.clicks import Impression, add_corpus, check_counts, from_impressions
from llama_index_embft.errors import ConfigError, DatasetError, EvaluationError
from llama_index_embft.integrations.trulens.database import readable_copy

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from llama_index_embft.dataset import EmbeddingQAFinetuneDataset, TrafficDataset

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
) -> TrafficDataset:
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

    Returns:
        The data set; its `report` counts what was kept and left out.

    Raises:
        MissingExtraError: The extra ``trulens`` is not installed.
        DatasetError: There is no such database, app or feedback, or no question has a positive.
        ConfigError: ``down`` is not below ``up``.
    """
    if not down < up:
        raise ConfigError(f"`down` must be below `up`, got {down} and {up}.")
    check_counts(min_clicks=min_clicks, min_skips=min_skips, max_negatives=max_negatives, answer_depth=answer_depth)
    build = Builder(f"the TruLens database {os.fspath(database)}", on_error=on_error)
    add_corpus(build, corpus, on_error)
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
    )


class _RecordedAnswer:
    """What the events of one record say."""

    def __init__(self) -> None:
        self.question: Any = None
        self.contexts: tuple[str, ...] = ()
        self.started: Any = None
        self.scores: dict[str, float | None] = {}
        self.of_context: defaultdict[str, dict[str, float]] = defaultdict(dict)


def _records(database: str | os.PathLike[str], app_name: str, app_version: str | None) -> dict[str, _RecordedAnswer]:
    require("trulens.core", feature="Reading a TruLens database")
    from sqlalchemy.exc import SQLAlchemyError
    from trulens.core.database.connector import DefaultDBConnector

    try:
        with readable_copy(database) as url:
            events = DefaultDBConnector(database_url=url).get_events(app_name=app_name, app_version=app_version)
    except EvaluationError as err:
        raise DatasetError(str(err)) from err
    except (SQLAlchemyError, OSError, ValueError) as err:
        raise DatasetError(
            f"{os.fspath(database)} cannot be read as a TruLens database ({first_line(err)[:200]}); if it "
            "holds NaN, `embft dashboard --repair` removes that."
        ) from err
    records: dict[str, _RecordedAnswer] = {}
    for _, event in events.iterrows():
        attributes = event["record_attributes"]
        id_ = attributes.get(_BASE + "record_id")
        if id_:
            _take(records.setdefault(str(id_), _RecordedAnswer()), attributes, event["start_timestamp"])
    return records


def _take(record: _RecordedAnswer, attributes: dict[str, Any], started: Any) -> None:
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


def _take_score(record: _RecordedAnswer, attributes: dict[str, Any], kind: str) -> None:
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
    records: dict[str, _RecordedAnswer], build: Builder, feedback: str, up: float, down: float, depth: int
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
