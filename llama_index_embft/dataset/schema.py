"""The data set: queries, the corpus they search, and which documents answer them."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, StrictFloat, StrictInt, ValidationError, model_validator

from llama_index_embft._core.files import atomic_write_text
from llama_index_embft.dataset import checks
from llama_index_embft.dataset.breaches import REQUIRED, BrokenDatasetError, as_dataset_error, require_sections
from llama_index_embft.dataset.checks import DropReport
from llama_index_embft.dataset.provenance import Provenance
from llama_index_embft.dataset.sources import read_json_object
from llama_index_embft.dataset.stats import DatasetStats
from llama_index_embft.errors import ConfigError, DatasetError

if TYPE_CHECKING:
    from typing_extensions import Self

logger = logging.getLogger(__name__)

OnError = Literal["raise", "drop"]


class EmbeddingQAFinetuneDataset(BaseModel):
    """Queries, the corpus they search, and which documents answer them.

    The first three sections are those of llama-index-finetuning, and its JSON files are read and written unchanged.
    Everything is checked on construction; the dicts stay mutable, and later changes are not checked.

    Attributes:
        queries: Query id -> text, not empty.
        corpus: Document id -> text *as embedded* (``MetadataMode.EMBED``), not empty. A "document" of the corpus is
            one chunk, that is one node of the index.
        relevant_docs: Query id -> ids of the documents that answer it, at least one.
        negative_docs: Query id -> ids of documents that do not answer it, best (hardest) first.
        reference_answers: Query id -> the answer in words.
        relevance_grades: Query id -> document id -> grade, a whole number from 1; a relevant document without a grade
            has grade 1.
        teacher_scores: Query id -> document id -> how well the document answers the query, says a teacher (a
            cross-encoder, a judge) on its own scale; of relevant and other documents.
        bare_texts: Document id -> text without metadata, for prompts and display; absent means the corpus text.
        source_documents: Document id -> id of the file, module or page it was cut from; absent means the id itself.
            Splits keep all chunks of one source together.
        mode: ``"text"``, as in llama-index-finetuning.
        provenance: Where the data set comes from; `==` and `content_hash` leave it out.

    Raises:
        DatasetError: A rule is broken: an unknown id, a query without a relevant document, a text that is empty, a
            document that is relevant and negative for one query, a document named twice, a grade for a document that is
            not relevant, a score that is no finite number, or a value of the wrong type. The message names the first
            case and counts the others.
    """

    model_config = ConfigDict(extra="forbid")

    queries: dict[str, str]
    corpus: dict[str, str]
    relevant_docs: dict[str, list[str]]
    negative_docs: dict[str, list[str]] = Field(default_factory=dict)
    reference_answers: dict[str, str] = Field(default_factory=dict)
    relevance_grades: dict[str, dict[str, StrictInt]] = Field(default_factory=dict)
    teacher_scores: dict[str, dict[str, StrictFloat]] = Field(default_factory=dict)
    bare_texts: dict[str, str] = Field(default_factory=dict)
    source_documents: dict[str, str] = Field(default_factory=dict)
    mode: str = "text"
    provenance: Provenance = Field(default_factory=Provenance)

    _dropped: DropReport = PrivateAttr(default_factory=DropReport)

    def __init__(self, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ValidationError as err:
            raise as_dataset_error(err) from None

    @model_validator(mode="after")
    def _keep_rules(self) -> Self:
        breach = checks.first_breach(self._sections())
        if breach is not None:
            raise BrokenDatasetError(*breach)
        return self

    @classmethod
    def model_validate(cls, obj: Any, **kwargs: Any) -> Self:
        """Pydantic's entry point, with this class's errors."""
        try:
            return super().model_validate(obj, **kwargs)
        except ValidationError as err:
            raise as_dataset_error(err) from None

    def __eq__(self, other: object) -> bool:
        """Compare contents; where they come from and what was dropped on the way here does not matter."""
        if not isinstance(other, EmbeddingQAFinetuneDataset):
            return NotImplemented
        return self.mode == other.mode and self._sections() == other._sections()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        # The default would print every text of the corpus.
        return f"{type(self).__name__}({len(self.queries)} queries, {len(self.corpus)} documents)"

    __str__ = __repr__

    # --- files --------------------------------------------------------------------------------------------------------

    @classmethod
    def from_json(cls, path: str | os.PathLike[str], on_error: OnError = "raise") -> Self:
        """Load a data set from a JSON file, of this package or of llama-index-finetuning.

        Args:
            path: A JSON object with ``queries``, ``corpus`` and ``relevant_docs``; UTF-8, or UTF-16/32 with a mark;
                packed by gzip or not.
            on_error: ``"raise"`` stops at the first broken rule. ``"drop"`` leaves the broken parts out, and what hangs
                on them, logs a warning, and keeps the counts in `dropped`.

        Raises:
            DatasetError: The file is missing, no JSON or no data set; or, with ``"raise"``, a rule is broken or an id
                stands twice in the file.
        """
        return cls._load(read_json_object(Path(path)), on_error, source=os.fspath(path))

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any], on_error: OnError = "raise") -> Self:
        """Build a data set from a mapping with the content of its JSON file; see `from_json`."""
        return cls._load(fields, on_error, source=None)

    @classmethod
    def _load(cls, fields: Mapping[str, Any], on_error: OnError, *, source: str | None) -> Self:
        if on_error not in ("raise", "drop"):
            raise ConfigError(f"`on_error` must be 'raise' or 'drop', got {on_error!r}.")
        known = {name: value for name, value in fields.items() if name in cls.model_fields}
        ignored = [name for name in fields if name not in known]
        origin = known.get("provenance")
        if isinstance(origin, Mapping):
            ignored += [f"provenance.{name}" for name in origin if name not in Provenance.model_fields]
            usable = {name: value for name, value in origin.items() if on_error == "raise" or isinstance(value, str)}
            known["provenance"] = {name: value for name, value in usable.items() if name in Provenance.model_fields}
        elif on_error == "drop":
            known.pop("provenance", None)
        if ignored and known:  # files of other tools carry more; without a known section it is another file altogether
            logger.warning("%s: ignored the unknown sections %s.", source or "data set", ", ".join(map(repr, ignored)))
        report = DropReport()
        try:
            if on_error == "drop":
                require_sections(known)
                known, report = checks.drop_breaches(known)
            else:
                breach = checks.first_breach(known, (checks.REPEATS,))
                if breach is not None:
                    raise BrokenDatasetError(*breach)
            dataset = cls(**known)
        except BrokenDatasetError as err:
            raise BrokenDatasetError(err.statement, err.advice, source=source, droppable=err.droppable) from None
        dataset.with_dropped(report)
        if report:
            logger.warning("%s: dropped %s.", source or "data set", report)
        return dataset

    def with_dropped(self, report: DropReport) -> Self:
        """This data set, as one of which something was left out when it was read; for readers of other formats."""
        self._dropped = report
        return self

    @property
    def dropped(self) -> DropReport:
        """What ``on_error="drop"`` left out when this data set was loaded; false when it was nothing."""
        return self._dropped

    def save_json(self, path: str | os.PathLike[str]) -> None:
        """Save as JSON, whole or not at all; the same bytes as llama-index-finetuning where its fields suffice.

        Raises:
            OutputError: The file cannot be written; an older file of that name is untouched.
        """
        atomic_write_text(path, json.dumps(self.to_dict(), indent=4))

    def _sections(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in checks.SECTIONS}

    def to_dict(self) -> dict[str, Any]:
        """The fields in file order, without optional sections that are empty; `from_dict` takes them."""
        origin = {"provenance": self.provenance.known()} if self.provenance else {}
        return {**self._content(), **origin}

    def _content(self) -> dict[str, Any]:
        kept = {name: value for name, value in self._sections().items() if value or name in REQUIRED}
        return {**kept, "mode": self.mode}

    def content_hash(self) -> str:
        """SHA-256 (hex) of everything but the provenance; the order of ids in a section does not matter."""
        canonical = json.dumps(self._content(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode("ascii")).hexdigest()

    # --- reading ------------------------------------------------------------------------------------------------------

    @property
    def query_docid_pairs(self) -> list[tuple[str, list[str]]]:
        """Each query's text with the ids of its relevant documents, as in llama-index-finetuning."""
        return [(query, self.relevant_docs[query_id]) for query_id, query in self.queries.items()]

    def qrels(self) -> dict[str, dict[str, int]]:
        """Query id -> document id -> grade (1 where none is given), the form of trec_eval and its kin."""
        grades = self.relevance_grades
        return {
            query_id: {doc: grades.get(query_id, {}).get(doc, 1) for doc in self.relevant_docs[query_id]}
            for query_id in self.queries
        }

    def document_of(self, corpus_id: str) -> str:
        """Id of the source document that a chunk was cut from; the chunk's own id where none is known.

        Raises:
            DatasetError: The id is not in the corpus.
        """
        self._require_known([corpus_id], "corpus")
        return self.source_documents.get(corpus_id, corpus_id)

    def bare_text(self, corpus_id: str) -> str:
        """Text of a chunk without metadata, for prompts and display.

        Raises:
            DatasetError: The id is not in the corpus.
        """
        self._require_known([corpus_id], "corpus")
        return self.bare_texts.get(corpus_id, self.corpus[corpus_id])

    def stats(self) -> DatasetStats:
        """Count and measure the data set."""
        return DatasetStats.of(self._sections())

    # --- parts and unions ---------------------------------------------------------------------------------------------

    def subset(self, query_ids: Iterable[str], *, keep_corpus: bool = True) -> Self:
        """Take some of the queries.

        Args:
            query_ids: The queries to keep, in this order; each once.
            keep_corpus: Keep every document as the haystack to search. False keeps only documents that are relevant or
                negative for a kept query, which makes retrieval easier and its figures higher.

        Raises:
            DatasetError: An id is unknown or given twice.
        """
        wanted = list(query_ids)
        self._require_known(wanted, "queries")
        chosen = Counter(wanted)
        if len(chosen) < len(wanted):
            twice = chosen.most_common(1)[0][0]
            raise DatasetError(f"The query {twice!r} is asked for twice; name each query of a subset once.")
        fields = {name: _only(getattr(self, name), chosen) for name in checks.SECTIONS}
        docs: Collection[str] = self.corpus
        if not keep_corpus:
            docs = {doc for name in ("relevant_docs", "negative_docs") for ids in fields[name].values() for doc in ids}
        for name in ("corpus", "bare_texts", "source_documents"):
            fields[name] = {id_: value for id_, value in getattr(self, name).items() if id_ in docs}
        fields["teacher_scores"] = {
            query_id: known
            for query_id, scores in fields["teacher_scores"].items()
            if (known := {doc: score for doc, score in scores.items() if doc in docs})
        }
        return self.replace(**fields)

    def replace(self, **fields: Any) -> Self:
        """A data set with some fields replaced, checked anew, for example ``replace(negative_docs=mined)``.

        Raises:
            DatasetError: There is no such field, or a rule is broken.
        """
        return type(self)(**{**self._sections(), "mode": self.mode, "provenance": self.provenance, **fields})

    def merge(self, other: EmbeddingQAFinetuneDataset, *, prefix: str = "") -> Self:
        """Join two data sets over the union of their corpora.

        An id that both have must mean the same thing: the same text, source, answer and grade. Relevant and negative
        documents of a query that both have are joined.

        Args:
            other: The data set to add.
            prefix: Put before every id of ``other`` (queries, documents and sources), for sets that count alike.

        Raises:
            DatasetError: An id has two meanings, or a document becomes relevant and negative for one query.
        """
        if self.mode != other.mode:
            raise DatasetError(f"Cannot merge data sets of the modes {self.mode!r} and {other.mode!r}.")
        theirs = _prefixed(other, prefix) if prefix else other._sections()
        joined = {name: _joined(name, getattr(self, name), theirs[name]) for name in checks.SECTIONS}
        return self.replace(**joined, provenance=self.provenance.shared_with(other.provenance))

    def _require_known(self, ids: Iterable[str], section: Literal["queries", "corpus"]) -> None:
        known: Collection[str] = getattr(self, section)
        unknown = [id_ for id_ in ids if id_ not in known]
        if unknown:
            more = f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""
            what = "query" if section == "queries" else "document"
            raise DatasetError(f"The data set has no {what} {unknown[0]!r}{more}; its ids are the keys of `{section}`.")


def _only(section: dict[str, Any], ids: Iterable[str]) -> dict[str, Any]:
    return {id_: section[id_] for id_ in ids if id_ in section}


def _prefixed(dataset: EmbeddingQAFinetuneDataset, prefix: str) -> dict[str, Any]:
    def ids(value: Any) -> Any:
        if isinstance(value, list):
            return [prefix + id_ for id_ in value]
        return {prefix + id_: entry for id_, entry in value.items()}

    renamed = {name: ids(value) for name, value in dataset._sections().items()}
    for name in ("relevant_docs", "negative_docs", "relevance_grades", "teacher_scores"):
        renamed[name] = {id_: ids(entry) for id_, entry in renamed[name].items()}
    renamed["source_documents"] = {id_: prefix + source for id_, source in renamed["source_documents"].items()}
    return renamed


def _joined(name: str, ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    if name in ("relevant_docs", "negative_docs"):
        return {id_: list(dict.fromkeys([*ours.get(id_, ()), *theirs.get(id_, ())])) for id_ in {**ours, **theirs}}
    if name in ("relevance_grades", "teacher_scores"):
        return {id_: _joined(f"{name} of {id_}", ours.get(id_, {}), theirs.get(id_, {})) for id_ in {**ours, **theirs}}
    different = [id_ for id_, value in theirs.items() if ours.get(id_, value) != value]
    if different:
        more = f" (and {len(different) - 1} more)" if len(different) > 1 else ""
        raise DatasetError(
            f"Cannot merge: the id {different[0]!r}{more} has different contents in `{name}` of the two data sets; "
            'give the ids of the second one a prefix: `merge(other, prefix="b/")`.'
        )
    return {**ours, **theirs}
