"""What this package uses of TruLens, its private names too: an upgrade that breaks it fails here first."""

from __future__ import annotations

import inspect
import re
import sqlite3
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("trulens.apps.llamaindex", reason="the extra trulens is not installed", exc_type=ImportError)

from packaging.requirements import Requirement


def parameters(function) -> set[str]:
    return set(inspect.signature(function).parameters)


def test_the_versions_are_bounded_on_both_sides() -> None:
    named = {}
    for line in (Path(__file__).parents[3] / "pyproject.toml").read_text("utf-8").splitlines():
        if line.startswith("trulens"):
            named |= {(r := Requirement(text)).name: str(r.specifier) for text in re.findall(r'"([^"]+)"', line)}
    assert named == dict.fromkeys(
        ("trulens-core", "trulens-feedback", "trulens-apps-llamaindex", "trulens-eval"), "<2.17,>=2.16"
    )


def test_sessions_are_singletons_that_can_be_forgotten(tmp_path: Path) -> None:
    from trulens.core import TruSession

    from llama_index_embft.integrations.trulens import recording

    session = recording.open_session(tmp_path / "one.sqlite")
    keys = [key for key, made in TruSession._singleton_instances.items() if made is session]
    assert [key[0] for key in keys] == [f"{TruSession.__module__}.{TruSession.__name__}"]
    recording.open_session(tmp_path / "two.sqlite")
    assert session not in TruSession._singleton_instances.values()
    assert {"app_name", "app_version"} <= parameters(TruSession.get_events)
    assert callable(TruSession.get_leaderboard)
    assert callable(TruSession.force_flush)


def test_the_database_has_the_names_that_are_read_and_deleted_by(tmp_path: Path) -> None:
    from trulens.otel.semconv.trace import ResourceAttributes, SpanAttributes

    from llama_index_embft.integrations.trulens import recording

    session = recording.open_session(tmp_path / "db.sqlite")
    database = session.connector.db
    assert database.orm.Event.__tablename__.endswith("events")
    assert str(database._json_extract_otel("resource_attributes", ResourceAttributes.APP_NAME))
    assert database.engine.url.render_as_string(hide_password=False).endswith("db.sqlite")
    assert callable(database.session.begin)
    with sqlite3.connect(tmp_path / "db.sqlite") as connection:
        columns = {row[1] for row in connection.execute("PRAGMA table_info(trulens_events)")}
    assert {"record_attributes", "resource_attributes", "start_timestamp"} <= columns
    assert SpanAttributes.RECORD_ID == "ai.observability.record_id"
    assert SpanAttributes.RECORD_ROOT.INPUT == "ai.observability.record_root.input"
    assert SpanAttributes.SpanType.RECORD_ROOT.value == "record_root"
    assert ResourceAttributes.APP_VERSION == "ai.observability.app_version"


def test_recorders_and_metrics_take_what_we_give(tmp_path: Path) -> None:
    from trulens.apps.app import TruApp
    from trulens.apps.llamaindex import TruLlama
    from trulens.core import Metric, Selector, instruments
    from trulens.core.metric.metric import SkipEval
    from trulens.core.otel.instrument import instrument

    assert {"span_type", "span_attribute", "ignore_none_values", "collect_list"} <= parameters(Selector)
    assert {"name", "attributes"} <= parameters(instrument)
    assert {"record_ids", "timeout"} <= parameters(TruApp.retrieve_feedback_results)
    assert {"record_ids", "timeout"} <= parameters(TruLlama.retrieve_feedback_results)
    assert issubclass(SkipEval, Exception)
    selector = Selector(span_type="record_root", span_attribute="x", ignore_none_values=False, collect_list=True)
    assert Metric(implementation=lambda given: 1.0, name="n", selectors={"given": selector}).name == "n"
    assert "print(" in inspect.getsource(instruments)  # what `_no_prints` silences
    assert "stop_evaluator" in dir(TruApp)
    assert "__trulens_recording__" in inspect.getsource(sys.modules[instrument.__module__])


def test_judges_are_called_as_we_expect() -> None:
    from trulens.core.feedback.endpoint import Endpoint
    from trulens.feedback.generated import ParseError
    from trulens.feedback.llm_provider import LLMProvider
    from trulens.feedback.templates import rag

    assert {"prompt", "messages", "response_format"} <= parameters(LLMProvider._create_chat_completion)
    assert list(inspect.signature(LLMProvider.generate_score_and_reasons).parameters)[1:5] == [
        "system_prompt", "user_prompt", "min_score_val", "max_score_val",
    ]  # fmt: skip
    assert list(inspect.signature(LLMProvider.context_relevance_with_cot_reasons).parameters)[1:3] == [
        "question", "context",
    ]  # fmt: skip
    assert list(inspect.signature(LLMProvider.relevance_with_cot_reasons).parameters)[1:3] == ["prompt", "response"]
    assert callable(LLMProvider.groundedness_measure_with_cot_reasons)
    assert issubclass(ParseError, Exception)
    system = rag.Groundedness.generate_system_prompt(min_score=0, max_score=3, output_space="LIKERT_0_3")
    assert "3" in system
    user = rag.Groundedness.user_prompt.format(premise="THE PREMISE", hypothesis="THE HYPOTHESIS")
    assert "THE PREMISE" in user
    assert "THE HYPOTHESIS" in user
    assert {"func"} <= parameters(Endpoint.run_in_pace)
    assert "_register_instance" in parameters(Endpoint.__init__)


def test_the_dashboard_is_started_by_its_main_page() -> None:
    found = find_spec("trulens.dashboard")
    if found is None or found.origin is None:
        pytest.skip("the extra trulens-dashboard is not installed")
    main = Path(found.origin).parent / "main.py"
    assert main.is_file()
    sources = "".join(path.read_text("utf-8") for path in main.parent.rglob("*.py"))
    assert "--database-url" in sources
    assert "--database-prefix" in sources


_WITHOUT = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "trulens":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
from llama_index_embft import *
from llama_index_embft.errors import MissingExtraError
from llama_index_embft.integrations import trulens

for name in trulens.__all__:
    try:
        getattr(trulens, name)
    except MissingExtraError as err:
        print(name, "|", err)
for name, call in {
    "evaluate_app": lambda: evaluate_app(None, None, "a", "1"),
    "read_leaderboard": lambda: trulens.read_leaderboard("db.sqlite", "a"),
    "LiveScorer": lambda: trulens.LiveScorer("a", "1"),
    "dataset_from_trulens": lambda: trulens.dataset_from_trulens("db.sqlite", "a", feedback="f"),
}.items():
    try:
        call()
    except MissingExtraError as err:
        print(name, "|", err)
"""


@pytest.mark.system
def test_without_the_extra_what_needs_it_says_how_to_install_it() -> None:
    done = subprocess.run([sys.executable, "-c", _WITHOUT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = dict(line.split(" | ") for line in done.stdout.splitlines())
    assert set(said) == {"LlamaIndexProvider", "evaluate_app", "read_leaderboard", "LiveScorer", "dataset_from_trulens"}
    for name, sentence in said.items():
        assert sentence.endswith('install it with: pip install "llama-index-embft[trulens]"'), (name, sentence)
