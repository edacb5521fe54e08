"""What it costs to put another system in the base's place."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from llama_index_embft._core.checks import check_number


@dataclass(frozen=True, kw_only=True)
class SwitchingCost:
    """The cost of a switch, as far as it was measured: what is None was not, and no report speaks of it.

    Attributes:
        texts: Texts that must be embedded anew; 0: the index stays as it is.
        seconds: Wall-clock seconds to embed them.
        dollars: Price of embedding them, in dollars.
        latency: Median seconds of a query: with the base, and with the system.
        memory: Bytes in use while queries are answered: with the base, and with the system.
        measured_on: The machine, in words, for example ``"2 CPU cores"``.

    Raises:
        ConfigError: A figure is below 0 or not a number.
    """

    texts: int | None = None
    seconds: float | None = None
    dollars: float | None = None
    latency: tuple[float, float] | None = None
    memory: tuple[int, int] | None = None
    measured_on: str = ""

    def __post_init__(self) -> None:
        for name, value in (("texts", self.texts), ("seconds", self.seconds), ("dollars", self.dollars)):
            if value is not None:
                check_number(name, value, at_least=0)
        for name, pair in (("latency", self.latency), ("memory", self.memory)):
            for value in pair or ():
                check_number(name, value, at_least=0)

    def sentences(self) -> tuple[str, ...]:
        """The figures in words, a sentence each; empty where nothing was measured."""
        found = [self._embedding()]
        if self.latency is not None:
            before, after = map(_milliseconds, self.latency)
            found.append(f"A query takes {_compared(before, after, ' (median)')}.")
        if self.memory is not None:
            before, after = map(_size, self.memory)
            found.append(f"It needs {_compared(before, after, ' of memory')}.")
        found = [sentence for sentence in found if sentence]
        return (*found, f"Measured on {self.measured_on}.") if found and self.measured_on else tuple(found)

    def to_dict(self) -> dict[str, Any]:
        """The figures that were measured, and their sentences under ``in_words``."""
        measured = {name: value for name, value in asdict(self).items() if value not in (None, "")}
        return {**measured, "in_words": list(self.sentences())}

    def _embedding(self) -> str:
        if self.texts == 0:
            return "Nothing is embedded anew: the index stays as it is."
        if self.texts is None and self.seconds is None and self.dollars is None:
            return ""
        subject = "All texts" if self.texts is None else "1 text" if self.texts == 1 else f"{self.texts:,} texts"
        what = f"{subject} must be embedded anew"
        price = [] if self.dollars is None else [f"${self.dollars:,.2f}" if self.dollars >= 0.005 else "under $0.01"]
        figures = [*([] if self.seconds is None else [_duration(self.seconds)]), *price]
        return f"{what}: {', '.join(figures)}." if figures else f"{what}."


def _compared(base: str, tuned: str, what: str) -> str:
    return f"{tuned}{what}, as before" if base == tuned else f"{tuned}{what}, before {base}"


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:,.0f} ms" if seconds >= 0.01 else f"{1000 * seconds:.1f} ms"


def _duration(seconds: float) -> str:
    if seconds < 1:
        return "under a second"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:,.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:,.0f} MB"
