"""TruLens' dashboard as a process of its own that listens on 127.0.0.1 alone.

TruLens' launcher listens on all interfaces, or, told an address, waits for words that today's Streamlit does not print
and leaves the server behind. Its way to stop looks for processes by their command line. This one does neither.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from llama_index_embft.errors import ConfigError, EvaluationError, MissingExtraError, OutputError
from llama_index_embft.integrations.trulens.database import database_url, refuse_broken_rows, sqlite_file

if TYPE_CHECKING:
    from typing_extensions import Self

_HOST: Final = "127.0.0.1"
_URL_VARIABLE: Final = "EMBFT_TRULENS_DATABASE_URL"
# The address of a database may hold a password, and a command line is there for every user to read.
_LAUNCH: Final = (
    "import os, sys; from streamlit.web.cli import main; "
    f"sys.argv += ['--database-url', os.environ.pop('{_URL_VARIABLE}')]; sys.exit(main())"
)


class Dashboard:
    """The running dashboard; a context manager that stops it.

    Args:
        database: SQLite file or database URL.
        port: Port; 0 takes a free one.
        start_timeout: Seconds until the server must answer.

    Attributes:
        url: Address of the page.

    Raises:
        MissingExtraError: The extra ``trulens-dashboard`` is not installed.
        EvaluationError: There is no such file, or it holds rows that nobody can read.
        ConfigError: The port is taken.
        OutputError: The server did not start.
    """

    def __init__(self, database: str | os.PathLike[str], *, port: int = 0, start_timeout: float = 120.0) -> None:
        main = _main_page()
        address = database_url(database)
        file = sqlite_file(address)
        if file is not None and not file.is_file():
            raise EvaluationError(f"There is no database {file}; `evaluate_app` writes one, `--database` names it.")
        refuse_broken_rows(address)
        self._port = _free_port(port)
        self.url = f"http://{_HOST}:{self._port}"
        self._former_handler: Any = None
        if threading.current_thread() is threading.main_thread():
            # Without this the server would outlive a command that a service manager stops.
            self._former_handler = signal.signal(signal.SIGTERM, _stop_like_ctrl_c)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # closed by `stop`
        options = {
            "server.address": _HOST,
            "server.port": self._port,
            "server.headless": "true",  # else it asks for an e-mail address
            "server.fileWatcherType": "none",
            "browser.gatherUsageStats": "false",
        }
        arguments = ["run", str(main), *(f"--{name}={value}" for name, value in options.items())]
        self._process = subprocess.Popen(  # noqa: S603  # our own arguments
            [sys.executable, "-c", _LAUNCH, *arguments, "--", "--database-prefix", "trulens_"],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=os.environ | {_URL_VARIABLE: address},
        )
        try:
            self._wait_until_it_answers(start_timeout)
        except BaseException:
            self.stop()
            raise

    def wait(self) -> None:
        """Return when the server ends, or is to end: on Ctrl-C, or when this process is asked to terminate.

        Raises:
            OutputError: The server ended by itself.
        """
        try:
            code = self._process.wait()
        except KeyboardInterrupt:
            return
        raise OutputError(f"The dashboard ended with code {code}: {self._last_words()}")

    def stop(self) -> None:
        """Stop the server; harmless if it has ended."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._log.close()
        if self._former_handler is not None:
            signal.signal(signal.SIGTERM, self._former_handler)
            self._former_handler = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _wait_until_it_answers(self, timeout: float) -> None:
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy knows another 127.0.0.1
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise OutputError(f"The dashboard did not start: {self._last_words()}")
            # Until it listens every connection is refused; the deadline says when that is too long.
            with (
                suppress(urllib.error.URLError, OSError),
                direct.open(f"{self.url}/_stcore/health", timeout=5) as answer,
            ):
                if answer.status == 200:
                    return
            time.sleep(0.1)
        raise OutputError(f"The dashboard did not answer within {timeout:g} s: {self._last_words()}")

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = [line.strip() for line in self._log.read().decode(errors="replace").splitlines() if line.strip()]
        return lines[-1] if lines else "it said nothing"


def _main_page() -> Path:
    for module in ("streamlit", "trulens.dashboard"):
        try:
            found = find_spec(module)
        except ModuleNotFoundError:  # the parent is missing
            found = None
        if found is None or found.origin is None:
            raise MissingExtraError(
                f"The dashboard needs the package `{module}`; install it with: "
                'pip install "llama-index-embft[trulens-dashboard]"'
            )
        folder = Path(found.origin).parent
    return folder / "main.py"


def _free_port(port: int) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError as err:
            raise ConfigError(f"Port {port} on {_HOST} cannot be used ({err.strerror}); choose another.") from err
        return int(probe.getsockname()[1])


def _stop_like_ctrl_c(*_: object) -> None:
    raise KeyboardInterrupt
