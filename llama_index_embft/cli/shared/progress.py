"""Progress bars where nobody sees them move: as lines where standard error is a file or a pipe, and hidden by -q."""

from __future__ import annotations

import contextlib
import re
import sys
import time
from typing import TYPE_CHECKING, Any, Final, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterator

_SECONDS: Final = 10.0  # between two lines of one bar: a log of hours stays readable
_GLYPHS: Final = re.compile(r"\|[^|\n]*\|")
# What bars write beside their text: return, line ends around nested bars, and "one line up".
_MOVES: Final = re.compile("[\r\n ]|\x1b\\[A")


class ProgressLines:
    """A stream in front of standard error that makes lines of progress bars; all other text passes as it is.

    Every bar below us, of tqdm or of the libraries that use it, begins what it writes with a carriage return.

    Args:
        stream: Standard error.
        hidden: Write no progress at all.
        lines: Make lines; else bars pass as they are, unless they are hidden.
        seconds: Least time between two lines of one bar; its last state is always a line.
    """

    def __init__(self, stream: TextIO, *, hidden: bool = False, lines: bool = True, seconds: float = _SECONDS) -> None:
        self._stream = stream
        self.hidden = hidden
        self._lines = lines
        self._seconds = seconds
        self._waiting = ""
        self._in_bar = False
        self._written = 0.0

    def write(self, text: str) -> int:
        """Write; see the class."""
        if not (self.hidden or self._lines):
            return self._stream.write(text)
        bare = not _MOVES.sub("", text)
        if text.startswith("\r") or (self._in_bar and bare):
            self._bar(text, bare)
            return len(text)
        self._in_bar = False
        return self._stream.write(text)

    def _bar(self, text: str, bare: bool) -> None:
        if not self._in_bar:
            self._in_bar, self._written = True, time.monotonic()
        if not bare:
            self._waiting = _GLYPHS.sub("", text.replace("\x1b[A", "").strip())
        over = bare and "\n" in text
        if self._waiting and (over or time.monotonic() - self._written >= self._seconds):
            if not self.hidden:
                self._stream.write(f"{self._waiting}\n")
            self._waiting, self._written = "", time.monotonic()
        self._in_bar = not over

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def plain_progress() -> Iterator[None]:
    """Put `ProgressLines` in front of standard error for a while."""
    before = sys.stderr
    if before is not None:  # None: it was closed by who called us
        sys.stderr = ProgressLines(before, lines=not before.isatty())
    try:
        yield
    finally:
        sys.stderr = before


def hide_progress(hidden: bool) -> None:
    """Hide progress bars, or show them again."""
    if isinstance(sys.stderr, ProgressLines):
        sys.stderr.hidden = hidden
