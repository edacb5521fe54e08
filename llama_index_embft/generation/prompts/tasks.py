"""Which passages are asked about, alone or two of one document together, and for which kinds of queries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from llama_index_embft.calls.journal import sha256
from llama_index_embft.generation.prompts.style import without_comparisons

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from llama_index_embft.generation.passages import Passage
    from llama_index_embft.generation.prompts.style import PromptStyle
    from llama_index_embft.generation.settings import QueryKind

# Chunks before and after a chunk that it may be compared with: what stands far apart has little in common.
_NEAR: Final = 8


class QueryTask(NamedTuple):
    """What one request asks for.

    Attributes:
        passages: The passages that the LLM reads: one, or the two of a comparison.
        kinds: Kind of each query, in order.
    """

    passages: tuple[Passage, ...]
    kinds: tuple[QueryKind, ...]

    @property
    def label(self) -> str:
        """What to call it in messages."""
        return " + ".join(passage.id for passage in self.passages)

    @property
    def texts(self) -> list[str]:
        """What the LLM reads."""
        return [passage.bare for passage in self.passages]


class TaskPlan:
    """The tasks of a run, in the order of the passages: the same passages and style give the same tasks.

    A passage whose share fell on comparisons is shown in a request of its own beside another chunk of its document; its
    other queries are asked for as if there were no comparisons. Without another chunk it gets questions instead.

    Attributes:
        alone: Passages that get questions in place of comparisons.

    Args:
        style: Kinds and prompts.
        asked: The passages to ask about.
        corpus: All passages; the other one of a comparison may be any of them.
    """

    def __init__(self, style: PromptStyle, asked: Sequence[Passage], corpus: Sequence[Passage]) -> None:
        self._style, self._asked = style, asked
        self._documents: dict[str, list[Passage]] = {}
        self._places: dict[str, int] = {}
        self.alone = 0
        self._length = len(asked)
        if "comparison" not in style.settings.shares:
            return
        for passage in corpus:
            chunks = self._documents.setdefault(passage.source, [])
            self._places[passage.id] = len(chunks)
            chunks.append(passage)
        self._length = sum(len(self._tasks_of(passage)) for passage in asked)
        self.alone = sum("comparison" in style.kinds_of(p.bare) and self._partner(p) is None for p in asked)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[QueryTask]:
        for passage in self._asked:
            yield from self._tasks_of(passage)

    def _tasks_of(self, passage: Passage) -> list[QueryTask]:
        kinds = self._style.kinds_of(passage.bare)
        compared = tuple(kind for kind in kinds if kind == "comparison")
        if not compared:
            return [QueryTask((passage,), kinds)]
        partner = self._partner(passage)
        if partner is None:
            return [QueryTask((passage,), without_comparisons(kinds))]
        others = tuple(kind for kind in kinds if kind != "comparison")
        alone = [QueryTask((passage,), others)] if others else []
        return [*alone, QueryTask((passage, partner), compared)]

    def _partner(self, passage: Passage) -> Passage | None:
        """The chunk nearby whose hash with this one is lowest: chunks that come or go elsewhere do not change it."""
        place, chunks = self._places[passage.id], self._documents[passage.source]
        near = chunks[max(0, place - _NEAR) : place + _NEAR + 1]
        others = [other for other in near if other.bare != passage.bare]
        return min(others, key=lambda other: sha256(f"{passage.bare}\n{other.bare}"), default=None)
