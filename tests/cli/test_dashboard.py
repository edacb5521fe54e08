"""`embft dashboard`: the real server on a free port, reached from this machine only, and gone when it is stopped."""

from __future__ import annotations

import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llama_index_embft.cli.app import app
from llama_index_embft.errors import ConfigError, EvaluationError, MissingExtraError, OutputError
from llama_index_embft.integrations.trulens.database import DEFAULT_DATABASE
from llama_index_embft.integrations.trulens.monitoring import dashboard as trulens_dashboard


def _has_dashboard() -> bool:
    try:
        return find_spec("streamlit") is not None and find_spec("trulens.dashboard") is not None
    except ModuleNotFoundError:
        return False


needs_dashboard = pytest.mark.skipif(not _has_dashboard(), reason="extra trulens-dashboard")

# What `evaluate_app` does, in a process of its own: TruLens has one session a process.
_FILL = """
from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.llms import MockLLM
from llama_index.core.schema import TextNode
from llama_index_embft import EmbeddingQAFinetuneDataset
from llama_index_embft.integrations.trulens import evaluate_app
data = EmbeddingQAFinetuneDataset(queries={"q": "x"}, corpus={"d": "y"}, relevant_docs={"q": ["d"]})
index = VectorStoreIndex([TextNode(id_="d", text="y")], embed_model=MockEmbedding(embed_dim=2))
for version in ("base", "tuned"):
    evaluate_app(data, index.as_query_engine(llm=MockLLM()), "manuals", version)
"""


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dashboard")
    subprocess.run([sys.executable, "-c", _FILL], cwd=folder, check=True, timeout=300)
    return folder / DEFAULT_DATABASE


@pytest.fixture(scope="module")
def running(database: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command itself, and the address that it says."""
    command = [sys.executable, "-m", "llama_index_embft.cli.app", "dashboard", "--no-browser"]
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "http_proxy": "http://127.0.0.1:1"}
    process = subprocess.Popen(
        command, cwd=database.parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert found, line + process.stdout.read()
        yield process, found[0]
    finally:
        process.terminate()
        process.wait(60)
        process.stdout.close()


def listening(port: int) -> set[str]:
    """Addresses that sockets listen on at a port, in the kernel's hexadecimal."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        path = Path(table)
        if not path.exists():
            continue
        for line in path.read_text().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            address, _, number = local.partition(":")
            if state == "0A" and int(number, 16) == port:
                found.add(address)
    return found


@pytest.mark.system
@pytest.mark.e2e
@needs_dashboard
def test_it_serves_this_machine_only_and_ends_with_the_command(running) -> None:
    process, url = running
    port = int(url.rpartition(":")[2])
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(f"{url}/_stcore/health", timeout=30) as answer:
        assert (answer.status, answer.read()) == (200, b"ok")
    with direct.open(url, timeout=30) as answer:
        assert b"<html" in answer.read()
    if Path("/proc/net/tcp").exists():
        assert listening(port) == {"0100007F"}
    for *_, address in socket.getaddrinfo(socket.gethostname(), None, type=socket.SOCK_STREAM):
        if not address[0].startswith("127."):
            with socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET) as stranger:
                stranger.settimeout(10)
                assert stranger.connect_ex((address[0], port)) != 0
    _see_in_a_browser(url)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    with pytest.raises(OSError, match=r"(?i)refused"):
        socket.create_connection(("127.0.0.1", port), timeout=10)


def _see_in_a_browser(url: str) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = Path("/usr/bin/chromium")
    if not chromium.exists():
        return
    with playwright.sync_playwright() as browsers:
        browser = browsers.chromium.launch(executable_path=str(chromium), args=["--no-sandbox", "--no-proxy-server"])
        page = browser.new_page()
        page.goto(url, timeout=120_000)
        page.get_by_text("manuals").first.wait_for(timeout=120_000)
        browser.close()


@pytest.mark.system
@pytest.mark.e2e
@needs_dashboard
def test_the_leaderboard_shows_both_versions(database: Path, monkeypatch) -> None:
    from streamlit.testing.v1 import AppTest
    from trulens.core import TruSession

    TruSession.delete_singleton(TruSession)  # of another test: the page would show the database of that
    main = trulens_dashboard._main_page()
    monkeypatch.setattr(sys, "argv", [str(main), "--database-url", f"sqlite:///{database}"])
    page = AppTest.from_file(str(main), default_timeout=120).run()
    assert not page.exception
    begun = time.monotonic()
    while not len(page.dataframe) and time.monotonic() - begun < 60:
        time.sleep(1)  # on a busy machine the page is drawn before its table is read
        page.run()
    shown = " ".join(str(frame.value.to_string()) for frame in page.dataframe)
    assert "base" in shown
    assert "tuned" in shown


def test_without_the_extra(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(trulens_dashboard, "find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"llama-index-embft\[trulens-dashboard\]"):
        trulens_dashboard.Dashboard(tmp_path / "db.sqlite")


@pytest.fixture
def page(monkeypatch, tmp_path: Path) -> Path:
    """Something that runs in place of the dashboard's page."""
    main = tmp_path / "main.py"
    monkeypatch.setattr(trulens_dashboard, "_main_page", lambda: main)
    return main


def _database(path: Path, attributes: str) -> Path:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE trulens_events (record_attributes TEXT)")
        connection.execute("INSERT INTO trulens_events VALUES (?)", (attributes,))
    connection.close()
    return path


def test_no_database(page: Path, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="`evaluate_app` writes one"):
        trulens_dashboard.Dashboard(tmp_path / "none.sqlite")


def test_a_taken_port(page: Path, tmp_path: Path) -> None:
    path = _database(tmp_path / "db.sqlite", "{}")
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(ConfigError, match="choose another"):
        trulens_dashboard.Dashboard(path, port=other.getsockname()[1])


def test_a_server_that_does_not_start_says_why(page: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(trulens_dashboard, "_LAUNCH", "print('no module named x'); raise SystemExit(3)")
    with pytest.raises(OutputError, match="did not start: no module named x"):
        trulens_dashboard.Dashboard(_database(tmp_path / "db.sqlite", "{}"))


def test_a_server_that_never_answers_is_stopped(page: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(trulens_dashboard, "_LAUNCH", "import time; time.sleep(600)")
    started: list[subprocess.Popen[bytes]] = []
    real = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: started.append(real(*a, **k)) or started[-1])
    with pytest.raises(OutputError, match="did not answer within"):
        trulens_dashboard.Dashboard(_database(tmp_path / "db.sqlite", "{}"), start_timeout=0.2)
    assert started[0].poll() is not None


def test_rows_with_nan_are_named_and_removed_on_request(page: Path, tmp_path: Path, monkeypatch) -> None:
    path = _database(tmp_path / "db.sqlite", '{"score": NaN}')
    with pytest.raises(EvaluationError, match="embft dashboard --repair"):
        trulens_dashboard.Dashboard(path)
    monkeypatch.setattr(trulens_dashboard, "_LAUNCH", "raise SystemExit(1)")
    result = CliRunner().invoke(app, ["dashboard", "--database", str(path), "--repair"])
    assert "Removed 1 rows with NaN." in result.output
    assert isinstance(result.exception, OutputError)
