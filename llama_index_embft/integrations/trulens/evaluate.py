"""Evaluate a LlamaIndex query engine with TruLens: recorded, judged, on the leaderboard, and ready for `compare`.

Needs the extra ``trulens``; importing this module does not.
"""

from __future__ import annotations

import itertools
import logging
import time
from dataclasses import dataclass, replace
from html import escape
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from llama_index_embft._core.checks import check_choice
from llama_index_embft.errors import ConfigError, EvaluationError
from llama_index_embft.evaluation.metrics import DEFAULT_KS, FAMILIES
from llama_index_embft.evaluation.systems.retriever import RetrieverRun, progress
from llama_index_embft.integrations.trulens.calls import require_trulens
from llama_index_embft.integrations.trulens.database import DEFAULT_DATABASE, database_url, readable_copy, sqlite_file
from llama_index_embft.integrations.trulens.feedback import (
    Exchange,
    Feedback,
    FeedbackVerdict,
    JudgeSettings,
    count_outcomes,
    feedbacks_for,
)
from llama_index_embft.integrations.trulens.unfinished import UnfinishedAnswers

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Sequence

    import pandas as pd
    from llama_index.core.base.base_query_engine import BaseQueryEngine
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.llms import LLM

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.evaluation.records import RetrievalReport
    from llama_index_embft.evaluation.systems.matching import Match

logger = logging.getLogger(__name__)

_STORE_SECONDS: Final = 300.0  # that the database may take for the verdicts
# Of the retrieval metrics, those that go to the leaderboard, at the largest cut-off; the report has all.
_SHOWN: Final = ("hit_rate", "mrr", "ndcg", "recall")


@dataclass(frozen=True, eq=False, repr=False)
class AppEvaluation:
    """What `evaluate_app` found out about one version of an app.

    Attributes:
        app_name: Name of the app.
        app_version: Name of the version.
        database: URL of the TruLens database.
        report: The retrieval metrics and answers, query by query.
        verdicts: Feedback -> verdict on each query, in the order of ``report.query_ids``.
        record_ids: TruLens' record of each query, in the same order.
        leaderboard: A row for each version of the app in the database so far, a column a feedback: TruLens' means over
            the records that have a score. Two versions may lack scores of different queries; `paired_differences` and
            `compare` look at the same ones.
        judge_requests: Requests to the judge, repeated ones included.
    """

    app_name: str
    app_version: str
    database: str
    report: RetrievalReport
    verdicts: dict[str, tuple[FeedbackVerdict, ...]]
    record_ids: tuple[str, ...]
    leaderboard: pd.DataFrame
    judge_requests: int = 0

    def __repr__(self) -> str:
        means = ", ".join(f"{name} {value:.3f}" for name, value in self.means().items())
        return (
            f"{type(self).__name__}({self.app_name!r}, {self.app_version!r}, {len(self.record_ids)} queries: {means})"
        )

    def means(self) -> dict[str, float]:
        """Feedback -> mean over the queries that have a score; NaN where none has."""
        return {name: _mean(verdicts) for name, verdicts in self.verdicts.items()}

    def counts(self) -> dict[str, dict[str, int]]:
        """Feedback -> how many queries are ``scored``, ``undefined``, ``unreadable`` and ``failed``."""
        return {name: count_outcomes(verdicts) for name, verdicts in self.verdicts.items()}

    def to_pandas(self) -> pd.DataFrame:
        """A row a query (index ``query_id``): text, answer, error, TruLens' record id, and a column a feedback."""
        import pandas as pd

        report = self.report
        columns: dict[str, Any] = {
            "query": report.queries,
            "answer": report.answers,
            "error": [report.errors.get(query, "") for query in report.query_ids],
            "record_id": self.record_ids,
        }
        for name, verdicts in self.verdicts.items():
            columns[name] = [np.nan if verdict.score is None else verdict.score for verdict in verdicts]
        return pd.DataFrame(columns, index=pd.Index(report.query_ids, name="query_id", dtype="object"))

    def to_retrieval_report(self, *, missing: Literal["zero", "omit"] = "zero") -> RetrievalReport:
        """The evaluation as a report that `compare` and ``embft compare`` read: retrieval metrics and feedbacks.

        Args:
            missing: A feedback without a score for a query: ``"zero"`` counts 0 there, as a query does that failed, and
                a note says how many; ``"omit"`` leaves the whole feedback out.

        Raises:
            ConfigError: `missing` is neither.
        """
        check_choice("missing", missing, ("zero", "omit"))
        values, notes = dict(self.report.values), list(self.report.notes)
        for name, verdicts in self.verdicts.items():
            if name in values:
                continue
            without = sum(verdict.score is None for verdict in verdicts)
            if without == len(verdicts) or (without and missing == "omit"):
                notes.append(f"{name} is left out: {without} of {len(verdicts)} queries have no score.")
                continue
            if without:
                notes.append(f"{name} has no score for {without} of {len(verdicts)} queries; they count as 0.")
            values[name] = np.array([verdict.score or 0.0 for verdict in verdicts])
        return replace(self.report, values=values, notes=tuple(notes))

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Save `to_retrieval_report` for ``embft compare``."""
        self.to_retrieval_report().to_json(path)

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{escape(name)}</td><td style='text-align:right'>{'' if np.isnan(mean) else format(mean, '.4f')}"
            f"</td><td style='text-align:right'>{counts['scored']}</td>"
            f"<td>{escape(', '.join(f'{n} {kind}' for kind, n in counts.items() if n and kind != 'scored'))}</td></tr>"
            for (name, mean), counts in zip(self.means().items(), self.counts().values(), strict=True)
        )
        return (
            f"<table><caption><b>{escape(self.app_name)} {escape(self.app_version)}</b>: "
            f"{len(self.record_ids):,} queries, {len(self.report.errors):,} failed</caption>"
            "<thead><tr><th>feedback</th><th>mean</th><th>queries</th><th>without a score</th></tr></thead>"
            f"<tbody>{rows}</tbody></table>"
        )


def evaluate_app(
    dataset: EmbeddingQAFinetuneDataset,
    query_engine: BaseQueryEngine,
    app_name: str,
    app_version: str,
    *,
    llm: LLM | None = None,
    embed_model: BaseEmbedding | None = None,
    database: str | os.PathLike[str] = DEFAULT_DATABASE,
    ks: int | Iterable[int] = DEFAULT_KS,
    metrics: str | Iterable[str] = FAMILIES,
    match: Match = "id",
    overwrite: bool = False,
    judging: JudgeSettings = JudgeSettings(),  # noqa: B008  # frozen
    show_progress: bool = False,
    ignore_identical: bool = True,
) -> AppEvaluation:
    """Record a query engine over the queries of a data set with TruLens, and score what it retrieved and answered.

    The retrieval metrics are those of `evaluate_query_engine`, to the last digit. With a judge, the RAG triad is added
    (``context_relevance``, ``groundedness``, ``answer_relevance``); with an embedding model, relevance by cosine. All
    of it goes into a TruLens database, where versions of one app stand side by side; ``embft dashboard`` shows it.
    Questions, contexts and answers are stored there in clear. Latency is not reported: recording takes its own time.

    What the engine and the judge have said is kept beside the database until all of it is stored: an evaluation that
    was stopped, or whose judge failed, goes on where it was when it is run again.

    There is no asynchronous twin: TruLens records one call after another within one context. In an event loop run it
    by ``asyncio.to_thread``.

    Args:
        dataset: Queries and judgements.
        query_engine: Any LlamaIndex query engine; streaming ones are read to the end.
        app_name: Name of the app, the same for base and tuned.
        app_version: Name of this version, such as ``"base"`` or ``"tuned"``.
        llm: The judge: any LlamaIndex LLM. None: no RAG triad.
        embed_model: The yardstick for relevance by embeddings, the same for all versions and none of those compared;
            None: that of `llama_index.core.Settings` if one is set, else no such feedback.
        database: A SQLite file, or the URL of another database that SQLAlchemy knows.
        ks: Cut-offs, or one.
        metrics: Families or full names; hit rate, MRR, nDCG and recall at the largest cut-off go to the leaderboard.
        match: How source nodes are told; see `evaluate_retriever`.
        overwrite: Replace what the database holds of this version, and ask the engine anew. Otherwise that is an
            error, unless that evaluation was not finished: TruLens would average old and new records.
        judging: Limits of the calls to the judge.
        show_progress: Show a progress bar.
        ignore_identical: A hit that is the query's own text is left out and counted; see `evaluate_run`.

    Raises:
        MissingExtraError: The extra ``trulens`` is not installed.
        EvaluationError: The database holds this version already, every query failed, no source node is in the data
            set, or the judge cannot be asked at all.
        OutputError: The database cannot be opened.
        ConfigError: An argument has a value that is not allowed.
    """
    require_trulens("`evaluate_app`")
    from llama_index_embft.integrations.trulens import recording

    _check(query_engine, app_name, app_version)
    run = RetrieverRun(
        dataset, query_engine, ks, metrics, f"{app_name} {app_version}", match, 1, ignore_identical, "note"
    )
    file = sqlite_file(database_url(database))
    session = recording.open_session(database)
    if judging.journal_path is None and file is not None:
        judging = replace(judging, journal_path=file.with_name(f"{file.name}.judge.sqlite"))
    feedbacks, calls = feedbacks_for(llm, embed_model, judging)
    shown = _shown(run.names)
    stored = UnfinishedAnswers(file, app_name, app_version)
    if recording.count_records(session, app_name, app_version):
        if not overwrite and not stored.found:
            raise EvaluationError(
                f"The database holds version {app_version!r} of {app_name!r} already; give another `app_version` or "
                "`database`, or replace it with `overwrite=True`."
            )
        recording.delete_version(session, app_name, app_version)
    stored.start(afresh=overwrite)
    names = [*shown, *(feedback.name for feedback in feedbacks)]
    recorder = recording.Recorder(session, query_engine, app_name, app_version, names, answers=stored)
    start = time.perf_counter()
    questions = iter(progress(run.task.queries, len(run.task.queries), show_progress))
    records = recorder.record(itertools.islice(questions, 1))
    # A judge with a wrong key costs one answer of the engine, not all of them.
    score_exchanges(feedbacks, [exchange for _, _, exchange in records])
    records += recorder.record(questions)
    report = run.report([answer for _, answer, _ in records], time.perf_counter() - start)
    report = replace(
        report,
        answers=tuple("" if exchange is None else exchange.answer for _, _, exchange in records),
        latencies=(),
    )
    verdicts = {name: tuple(FeedbackVerdict("scored", float(value)) for value in report.values[name]) for name in shown}
    verdicts |= score_exchanges(feedbacks, [exchange for _, _, exchange in records])
    ids = tuple(record for record, _, _ in records)
    recorder.store({name: dict(zip(ids, of, strict=True)) for name, of in verdicts.items()}, timeout=_STORE_SECONDS)
    failed = {name: counts["failed"] for name, of in verdicts.items() if (counts := count_outcomes(of))["failed"]}
    if failed:
        logger.warning(
            "%s %s: the judge could not be asked about %s; run the evaluation again to ask for these alone.",
            app_name,
            app_version,
            ", ".join(f"{count} queries ({name})" for name, count in failed.items()),
        )
    else:
        stored.finish()
    return AppEvaluation(
        app_name=app_name,
        app_version=app_version,
        database=database_url(database),
        report=report,
        verdicts=verdicts,
        record_ids=ids,
        leaderboard=recording.leaderboard_of(session, app_name),
        judge_requests=0 if calls is None else calls.requests,
    )


def score_exchanges(
    feedbacks: Sequence[Feedback], exchanges: Sequence[Exchange | None]
) -> dict[str, tuple[FeedbackVerdict, ...]]:
    """Feedback -> verdict on each exchange; a query that failed (None) has nothing to judge."""
    given = [exchange for exchange in exchanges if exchange is not None]
    nothing = FeedbackVerdict("undefined", reason="The query failed.")
    found: dict[str, tuple[FeedbackVerdict, ...]] = {}
    for feedback in feedbacks:
        scored = iter(feedback.score(given))
        found[feedback.name] = tuple(nothing if exchange is None else next(scored) for exchange in exchanges)
    return found


def read_leaderboard(database: str | os.PathLike[str], app_name: str) -> pd.DataFrame:
    """The leaderboard of an app: a row a version, a column a feedback. The database is only read.

    Raises:
        MissingExtraError: The extra ``trulens`` is not installed.
        EvaluationError: There is no such database, or it holds no record of the app.
        OutputError: The database cannot be opened.
    """
    require_trulens("`read_leaderboard`")
    from llama_index_embft.integrations.trulens.recording import flush, leaderboard_of, open_reader

    flush()
    with readable_copy(database) as url:
        frame = leaderboard_of(open_reader(url), app_name)
    if frame.empty:
        raise EvaluationError(f"The database holds no verdicts on an app {app_name!r}; `evaluate_app` writes some.")
    return frame


def paired_differences(base: AppEvaluation, tuned: AppEvaluation) -> pd.DataFrame:
    """Feedback by feedback, means over the queries that have a score in both versions, and their difference.

    Use `compare` on both reports for intervals and tests.

    Returns:
        A row a feedback: ``base``, ``tuned``, ``difference``, ``queries`` (scored in both), ``left_out``.

    Raises:
        EvaluationError: The two were evaluated on different queries.
    """
    import pandas as pd

    if base.report.data_hash != tuned.report.data_hash:
        raise EvaluationError("The two versions were evaluated on different queries; use one data set for both.")
    rows = {}
    for name in (name for name in base.verdicts if name in tuned.verdicts):
        pairs = [
            (one.score, two.score)
            for one, two in zip(base.verdicts[name], tuned.verdicts[name], strict=True)
            if one.score is not None and two.score is not None
        ]
        left, right = np.mean(pairs, axis=0).tolist() if pairs else (np.nan, np.nan)
        rows[name] = {
            "base": left,
            "tuned": right,
            "difference": right - left,
            "queries": len(pairs),
            "left_out": len(base.verdicts[name]) - len(pairs),
        }
    frame = pd.DataFrame.from_dict(rows, orient="index")
    frame.index.name = "feedback"
    return frame


def _check(query_engine: Any, app_name: str, app_version: str) -> None:
    for name, value in (("app_name", app_name), ("app_version", app_version)):
        if not isinstance(value, str) or not value.strip():
            raise ConfigError(f"`{name}` is {value!r}; it must be a name, such as 'manuals'.")
    if not callable(getattr(query_engine, "query", None)):
        raise ConfigError(
            f"`query_engine` is a {type(query_engine).__name__} without a `query` method; for a retriever use "
            "`RetrieverQueryEngine.from_args(retriever, response_mode='no_text')` or `evaluate_retriever`."
        )


def _shown(names: Sequence[str]) -> list[str]:
    """Of each usual family the metric at the largest cut-off; of all families, if none of these is there."""
    largest: dict[str, str] = {}
    for name in sorted(names, key=lambda name: int(name.partition("@")[2] or 0)):
        largest[name.partition("@")[0]] = name
    return [largest[family] for family in _SHOWN if family in largest] or list(largest.values())


def _mean(verdicts: Sequence[FeedbackVerdict]) -> float:
    scores = [verdict.score for verdict in verdicts if verdict.score is not None]
    return sum(scores) / len(scores) if scores else float("nan")
