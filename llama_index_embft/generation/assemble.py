"""From stored answers to a data set: ids, duplicates, and the file on disk."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import PrivateAttr

from llama_index_embft.dataset.provenance import BY_LLM, Provenance
from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
from llama_index_embft.errors import OutputError
from llama_index_embft.generation.parse import normalized
from llama_index_embft.generation.report import GenerationReport

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from llama_index_embft.generation.passages import Passage

logger = logging.getLogger(__name__)


class GeneratedDataset(EmbeddingQAFinetuneDataset):
    """A data set that an LLM wrote, with the report of the run; its JSON is that of any data set."""

    _report: GenerationReport = PrivateAttr(default_factory=GenerationReport)

    @classmethod
    def with_report(cls, dataset: EmbeddingQAFinetuneDataset, report: GenerationReport) -> GeneratedDataset:
        """The same data set with a report."""
        made = cls(**{name: getattr(dataset, name) for name in type(dataset).model_fields})
        made._report = report
        return made

    @property
    def report(self) -> GenerationReport:
        """What the run did; empty for a part or a union of data sets, which no run made."""
        return self._report


@dataclass
class CandidateQuery:
    """A query on its way into the data set.

    Attributes:
        id: Hash of the first chunk's id and the query; the same in every run.
        query: The text.
        answer: Reference answer; empty without one.
        passages: The chunks that it was written for; more than one if chunks share it word for word, and the two of a
            comparison.
        written_from: The chunks that the LLM read; empty for the first of ``passages``.
    """

    id: str
    query: str
    answer: str
    passages: list[Passage] = field(default_factory=list)
    written_from: tuple[Passage, ...] = ()

    @property
    def context(self) -> str:
        """What answers it, as the LLM read it."""
        return "\n\n".join(passage.bare for passage in self.written_from or self.passages[:1])

    @property
    def answers(self) -> list[tuple[Passage, ...]]:
        """The ways to answer it: by any of ``passages`` alone, or by the two of a comparison together."""
        if len(self.written_from) > 1:
            return [self.written_from]
        return [(passage,) for passage in self.passages]


def query_id(passage_id: str, query: str) -> str:
    """Deterministic id of a query: 128 bits of a hash over the chunk's id and the query."""
    # The length of the id keeps ("ab", "c") and ("a", "bc") apart.
    return hashlib.sha256(f"{len(passage_id)}:{passage_id}{query}".encode("utf-8", "surrogatepass")).hexdigest()[:32]


def gather_candidates(answers: Iterable[tuple[tuple[Passage, ...], list[list[str]]]]) -> list[CandidateQuery]:
    """Make candidates of stored answers; a query that several chunks share becomes one with all of them.

    Kept apart, the two would be each other's false negatives in training.

    Args:
        answers: The passages of a task with their ``[query, answer]`` pairs, in the order of the nodes.
    """
    found: dict[str, CandidateQuery] = {}
    for passages, pairs in answers:
        for query, answer in pairs:
            new = CandidateQuery(query_id(passages[0].id, query), query, answer, written_from=passages)
            candidate = found.setdefault(normalized(query), new)
            known = {passage.id for passage in candidate.passages}
            candidate.passages.extend(passage for passage in passages if passage.id not in known)
    return list(found.values())


def build_dataset(
    passages: Sequence[Passage], candidates: Sequence[CandidateQuery], report: GenerationReport
) -> GeneratedDataset:
    """Build the data set: all passages are the corpus, with or without queries."""
    dataset = EmbeddingQAFinetuneDataset(
        queries={candidate.id: candidate.query for candidate in candidates},
        corpus={passage.id: passage.embedded for passage in passages},
        relevant_docs={candidate.id: [passage.id for passage in candidate.passages] for candidate in candidates},
        reference_answers={candidate.id: candidate.answer for candidate in candidates if candidate.answer},
        bare_texts={passage.id: passage.bare for passage in passages if passage.bare != passage.embedded},
        source_documents={passage.id: passage.source for passage in passages if passage.source != passage.id},
        provenance=Provenance(made_by=BY_LLM),
    )
    return GeneratedDataset.with_report(dataset, report)


class OutputFile:
    """The file of ``output_path``: written from this call's nodes alone, and never over another call's work.

    Args:
        path: Where to write; None for nowhere.
        passages: This call's chunks.

    Raises:
        OutputError: The path is a folder.
    """

    def __init__(self, path: str | Path | None, passages: Sequence[Passage]) -> None:
        self.path = None if path is None else Path(str(path))
        try:
            is_folder = self.path is not None and self.path.is_dir()
        except (OSError, ValueError) as err:  # a name that no file system takes
            shown = str(path)[:80]
            raise OutputError(f"Cannot write {shown}…: {type(err).__name__}; choose a shorter name.") from err
        if is_folder:
            raise OutputError(f"Cannot write {self.path}: it is a folder; give the name of a file.")
        self._checked = False
        self._passages = passages

    def save(self, dataset: EmbeddingQAFinetuneDataset) -> None:
        """Write the data set, whole or not at all; the first time, move a foreign file out of the way."""
        if self.path is None:
            return
        if not self._checked:
            self._set_aside(self.path)
            self._checked = True
        dataset.save_json(self.path)

    def _set_aside(self, path: Path) -> None:
        if not path.is_file() or path.stat().st_size == 0 or self._is_ours(path):
            return
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
        aside = path.with_name(f"{path.stem}.{digest}{path.suffix}")
        path.replace(aside)
        logger.warning(
            "%s held questions about other nodes and is now %s: nothing is lost, nothing is mixed. "
            "Give every call its own `output_path`.",
            path,
            aside,
        )

    def _is_ours(self, path: Path) -> bool:
        """By content, not by ids: parsing the same documents again gives the nodes new random ids."""
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            # Only passages that were asked about: negatives that an LLM wrote are in the corpus too.
            texts = [fields["corpus"][doc] for docs in fields["relevant_docs"].values() for doc in docs]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return False
        known = {passage.embedded for passage in self._passages} | {passage.bare for passage in self._passages}
        return bool(texts) and known.issuperset(texts)
