"""The one way to the terminal: texts of documents, models and servers never reach it with control sequences."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.segment import Segment

if TYPE_CHECKING:
    from collections.abc import Iterable

# Sequences that set a title or the clipboard (OSC, DCS, PM, APC, SOS), move the cursor or colour (CSI), and the rest.
_SEQUENCES: Final = re.compile(
    "(?:\x1b[]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]{0,4096}(?:\x07|\x1b\\\\|\x9c)?"
    "|(?:\x1b\\[|\x9b)[0-?]{0,64}[ -/]{0,16}[@-~]?"
    "|\x1b[ -/]{0,16}[0-~]?"
)
# What is left of control characters, and marks that turn the direction of the text after them.
_CONTROLS: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def plain_text(text: str) -> str:
    """A text without terminal sequences and control characters; line ends and tabs stay."""
    if text.isascii() and text.isprintable():
        return text
    return _CONTROLS.sub("", _SEQUENCES.sub("", text.replace("\r\n", "\n")))


class SafeConsole(Console):
    """A `rich` console whose own styles reach the terminal, and no control sequence of a text that it prints."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**({"highlight": False} | options))

    def render_str(self, text: str, **options: Any) -> Any:
        """Make styled text of a string; a sequence is cut out while it is whole."""
        return super().render_str(plain_text(text), **options)

    def render(self, renderable: Any, options: Any = None) -> Iterable[Segment]:
        """What is drawn: everything printed passes here."""
        for segment in super().render(renderable, options):
            cleaned = segment.text if segment.control else plain_text(segment.text)
            yield segment if cleaned == segment.text else Segment(cleaned, segment.style)
