"""Which of two interleaved retrievers users prefer, by what they clicked; may be looked at every day."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from llama_index_embft.dataset.formats.build import Builder
from llama_index_embft.dataset.formats.rows import read_rows
from llama_index_embft.dataset.sources import FaultError, shown
from llama_index_embft.errors import EvaluationError
from llama_index_embft.evaluation.statistics.sequential import AnytimeMean, MeanSequence

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from llama_index_embft.dataset.sources import At


@dataclass(frozen=True)
class InterleavingResult:
    """What users prefer.

    Attributes:
        names: The two retrievers, in alphabetical order.
        answers: Interleaved answers in the log.
        clicked: Those of them with a click on a node that one of the two put there; only these say anything.
        wins: How many of them had more clicks on nodes of either retriever.
        preference: Share of the clicked answers that the second retriever won, a draw being half of one, with an
            interval that allows looking at any time: it decides as soon as it excludes 0.5.
        p: Of the exact sign test over the answers that were won. It holds for one look, at a number of answers that was
            fixed beforehand.
    """

    names: tuple[str, str]
    answers: int
    clicked: int
    wins: tuple[int, int]
    preference: AnytimeMean
    p: float

    @property
    def preferred(self) -> str | None:
        """The retriever that users prefer; None while that is not shown."""
        if self.preference.estimate is None or not self.preference.excludes(0.5):
            return None
        return self.names[int(self.preference.estimate > 0.5)]

    def to_dict(self) -> dict[str, Any]:
        """The same as plain data, with `preferred`."""
        return {**asdict(self), "preferred": self.preferred}

    def __str__(self) -> str:
        first, second = self.names
        drawn = self.clicked - sum(self.wins)
        lines = [
            f"{self.answers:,} answers, {self.clicked:,} with clicks: {first} won {self.wins[0]:,}, {second} "
            f"{self.wins[1]:,}, {drawn:,} were draws."
        ]
        if self.preference.estimate is None:
            lines.append("Nobody has clicked what one of the two put there; add clicks with RetrievalLog.feedback.")
            return "\n".join(lines)
        if self.preference.interval is None:
            lines.append("What users prefer changed while the log was written; begin a new log.")
            return "\n".join(lines)
        low, high = self.preference.interval
        verdict = (
            "It is not shown yet whom users prefer" if self.preferred is None else f"Users prefer {self.preferred}"
        )
        lines.append(
            f"{verdict}: {second} wins {self.preference.estimate:.1%} of the clicked answers "
            f"({self.preference.level:.0%} interval {low:.1%} to {high:.1%}, valid at every look; 50 % is a draw)."
        )
        return "\n".join(lines)


def compare_interleaved(
    log: str | os.PathLike[str] | Iterable[dict[str, Any]], *, level: float = 0.95
) -> InterleavingResult:
    """Compare two retrievers by the log of an `InterleavedRetriever`.

    An answer is won by the retriever with more clicks on nodes that it put there. Answers are taken as independent, so
    one user who clicks all day counts as much as many: where that may be, keep an answer a user and day.

    Args:
        log: The file, or its rows: ``id``, ``query`` and ``shown``, whose items have ``id`` and ``by``; clicks in the
            same row or in later ones, as ``id`` and ``clicked``. Thumbs for a whole answer say nothing here.
        level: Probability that all intervals of a growing log hold the true preference.

    Raises:
        DatasetError: The file cannot be read.
        EvaluationError: No answer says which retriever its nodes came from, or there are not two of them.
        ConfigError: The level is not between 0 and 1.
    """
    from scipy.stats import binomtest

    source = os.fspath(log) if isinstance(log, (str, os.PathLike)) else "the given log"
    answers = list(_answers(log, source))
    teams = sorted({team for by, _ in answers for team in by.values()})
    if len(teams) != 2:
        found = f"names {len(teams)} retrievers ({', '.join(teams)})" if teams else "does not say who put a node there"
        raise EvaluationError(f"{source} {found}; give a log that one InterleavedRetriever over two retrievers wrote.")
    wins, sequence, clicked = [0, 0], MeanSequence(level=level), 0
    for by, clicks in answers:
        votes = Counter(by[node_id] for node_id in clicks if node_id in by)
        if not votes:
            continue
        clicked += 1
        difference = votes[teams[1]] - votes[teams[0]]
        sequence.add(0.5 if difference == 0 else float(difference > 0))
        if difference:
            wins[int(difference > 0)] += 1
    p = float(binomtest(wins[0], sum(wins)).pvalue) if sum(wins) else 1.0
    return InterleavingResult((teams[0], teams[1]), len(answers), clicked, (wins[0], wins[1]), sequence.result, p)


def _answers(log: Any, source: str) -> Iterator[tuple[dict[str, str], set[str]]]:
    """Node id -> who put it there, and the ids that were clicked, of each answer in its order."""
    build = Builder(source, on_error="raise")
    by_id: dict[str, tuple[dict[str, str], set[str]]] = {}
    for number, (at, row) in enumerate(read_rows(log, build)):
        items = _list(row.get("shown"), "shown", at)
        key = str(row.get("id", f"row {number}"))
        if items:
            by = {str(item["id"]): str(item["by"]) for item in items if _is_marked(item)}
            if by:
                by_id[key] = (by, set())
        if key in by_id:
            by_id[key][1].update(str(node_id) for node_id in _list(row.get("clicked"), "clicked", at))
    return iter(by_id.values())


def _is_marked(item: Any) -> bool:
    return isinstance(item, dict) and item.get("id") is not None and bool(item.get("by"))


def _list(value: Any, name: str, at: At) -> list[Any]:
    if value is None or isinstance(value, (list, tuple)):
        return list(value or ())
    raise FaultError(at, "wrong type", f"`{name}` is {shown(value)}; it must be a list, as RetrievalLog writes it")
