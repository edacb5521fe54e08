"""The data set: queries, the corpus they search, and which documents answer them."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, StrictInt, ValidationError, model_validator

from llama_index_embft._core.files import atomic_write_text
from llama_index_embft.dataset import checks
from llama_index_embft.dataset._json import read_object
from llama_index_embft.dataset.checks import DropReport
from llama_index_embft.dataset.stats import DatasetStats
from llama_index_embft.errors import ConfigError, DatasetError

if TYPE_CHECKING:
    from typing_extensions import Self

logger = logging.getLogger(__name__)

_REQUIRED = ("queries", "corpus", "relevant_docs")
_OPTIONAL = tuple(name for name in checks.SECTIONS if name not in _REQUIRED)
OnError = Literal["raise", "drop"]


class _BrokenDatasetError(DatasetError):
    """A breach of a rule, kept in two parts so that `from_json` can add the file and its own way out."""

    def __init__(self, statement: str, advice: str, *, source: str | None = None, droppable: bool = True) -> None:
        self.statement, self.advice, self.droppable = checks.clipped(statement), advice, droppable
        where = f"{source}: " if source else "Broken data set: "
        call = f"from_json({source!r}" if source else "from_dict(fields"
        way_out = f', or load it with `EmbeddingQAFinetuneDataset.{call}, on_error="drop")`' if droppable else ""
        super().__init__(f"{where}{self.statement}; {advice}{way_out}.")

    def __reduce__(self) -> tuple[Any, ...]:  # two required arguments: the default would not unpickle
        return (DatasetError, (str(self),))


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
        bare_texts: Document id -> text without metadata, for prompts and display; absent means the corpus text.
        source_documents: Document id -> id of the file, module or page it was cut from; absent means the id itself.
            Splits keep all chunks of one source together.
        mode: ``"text"``, as in llama-index-finetuning.

    Raises:
        DatasetError: A rule is broken: an unknown id, a query without a relevant document, a text that is empty, a
            document that is relevant and negative for one query, a document named twice, a grade for a document that is
            not relevant, or a value of the wrong type. The message names the first case and counts the others.
    """

    model_config = ConfigDict(extra="forbid")

    queries: dict[str, str]
    corpus: dict[str, str]
    relevant_docs: dict[str, list[str]]
    negative_docs: dict[str, list[str]] = Field(default_factory=dict)
    reference_answers: dict[str, str] = Field(default_factory=dict)
    relevance_grades: dict[str, dict[str, StrictInt]] = Field(default_factory=dict)
    bare_texts: dict[str, str] = Field(default_factory=dict)
    source_documents: dict[str, str] = Field(default_factory=dict)
    mode: str = "text"

    _dropped: DropReport = PrivateAttr(default_factory=DropReport)

    def __init__(self, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ValidationError as err:
            raise _as_dataset_error(err) from None

    @model_validator(mode="after")
    def _keep_rules(self) -> Self:
        breach = checks.first_breach(self._sections())
        if breach is not None:
            raise _BrokenDatasetError(*breach)
        return self

    @classmethod
    def model_validate(cls, obj: Any, **kwargs: Any) -> Self:
        """Pydantic's entry point, with this class's errors."""
        try:
            return super().model_validate(obj, **kwargs)
        except ValidationError as err:
            raise _as_dataset_error(err) from None

    def __eq__(self, other: object) -> bool:
        """Compare contents; what was dropped on the way here does not matter."""
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
            path: A JSON object with ``queries``, ``corpus`` and ``relevant_docs``; UTF-8, or UTF-16/32 with a mark.
            on_error: ``"raise"`` stops at the first broken rule. ``"drop"`` leaves the broken parts out, and what hangs
                on them, logs a warning, and keeps the counts in `dropped`.

        Raises:
            DatasetError: The file is missing, no JSON or no data set; or, with ``"raise"``, a rule is broken or an id
                stands twice in the file.
        """
        return cls._load(read_object(path), on_error, source=os.fspath(path))

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
        if ignored and known:  # files of other tools carry more; without a known section it is another file altogether
            logger.warning("%s: ignored the unknown sections %s.", source or "data set", ", ".join(map(repr, ignored)))
        report = DropReport()
        try:
            if on_error == "drop":
                _require_sections(known)
                known, report = checks.drop_breaches(known)
            else:
                breach = checks.first_breach(known, (checks.REPEATS,))
                if breach is not None:
                    raise _BrokenDatasetError(*breach)
            dataset = cls(**known)
        except _BrokenDatasetError as err:
            raise _BrokenDatasetError(err.statement, err.advice, source=source, droppable=err.droppable) from None
        dataset._dropped = report
        if report:
            logger.warning("%s: dropped %s.", source or "data set", report)
        return dataset

    @property
    def dropped(self) -> DropReport:
        """What ``on_error="drop"`` left out when this data set was loaded; false when it was nothing."""
        return self._dropped

    def save_json(self, path: str | os.PathLike[str]) -> None:
        """Save as JSON, whole or not at all; the same bytes as llama-index-finetuning where its fields suffice.

        Raises:
            OutputError: The file cannot be written; an older file of that name is untouched.
        """
        atomic_write_text(path, json.dumps(self._compact(), indent=4))

    def _sections(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in checks.SECTIONS}

    def _compact(self) -> dict[str, Any]:
        """The fields in file order, without optional sections that are empty."""
        kept = {name: value for name, value in self._sections().items() if value or name in _REQUIRED}
        return {**kept, "mode": self.mode}

    def content_hash(self) -> str:
        """SHA-256 (hex) of everything the data set holds; the order of ids in a section does not matter."""
        canonical = json.dumps(self._compact(), sort_keys=True, separators=(",", ":"))
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
        return DatasetStats.of(self)

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
        return type(self)(**fields, mode=self.mode)

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
        return type(self)(**joined, mode=self.mode)

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
    for name in ("relevant_docs", "negative_docs", "relevance_grades"):
        renamed[name] = {id_: ids(entry) for id_, entry in renamed[name].items()}
    renamed["source_documents"] = {id_: prefix + source for id_, source in renamed["source_documents"].items()}
    return renamed


def _joined(name: str, ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    if name in ("relevant_docs", "negative_docs"):
        return {id_: list(dict.fromkeys([*ours.get(id_, ()), *theirs.get(id_, ())])) for id_ in {**ours, **theirs}}
    if name == "relevance_grades":
        return {id_: _joined("grades", ours.get(id_, {}), theirs.get(id_, {})) for id_ in {**ours, **theirs}}
    different = [id_ for id_, value in theirs.items() if ours.get(id_, value) != value]
    if different:
        more = f" (and {len(different) - 1} more)" if len(different) > 1 else ""
        raise DatasetError(
            f"Cannot merge: the id {different[0]!r}{more} has different contents in `{name}` of the two data sets; "
            'give the ids of the second one a prefix: `merge(other, prefix="b/")`.'
        )
    return {**ours, **theirs}


def _require_sections(fields: Mapping[str, Any]) -> None:
    """Dropping takes entries out of sections; it cannot make up a section."""
    for name in _REQUIRED:
        if name not in fields:
            raise _missing(name)
    for name in checks.SECTIONS:
        if not isinstance(fields.get(name, {}), Mapping):
            raise _wrong_type(f"`{name}`", "an object with ids as keys", fields[name], more=0, droppable=False)


def _missing(name: str) -> _BrokenDatasetError:
    return _BrokenDatasetError(
        f"the section `{name}` is missing",
        "a data set has at least `queries`, `corpus` and `relevant_docs`",
        droppable=False,
    )


def _wrong_type(place: str, expected: str, value: Any, *, more: int, droppable: bool) -> _BrokenDatasetError:
    shown = repr(value)
    shown = shown if len(shown) <= 40 else shown[:37] + "..."
    others = f" (and {more} more values of a wrong type)" if more else ""
    return _BrokenDatasetError(
        f"{place} should be {expected}, got {shown} ({type(value).__name__}){others}",
        "correct it",
        droppable=droppable,
    )


_EXPECTED = {
    "dict_type": "an object with ids as keys",
    "list_type": "a list of document ids",
    "string_type": "a string",
}


def _as_dataset_error(err: ValidationError) -> DatasetError:
    """Turn pydantic's report into one sentence."""
    first = err.errors(include_url=False)[0]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, DatasetError):
        return cause
    section, *rest = first["loc"] if first["loc"] else ("data set",)
    if first["type"] == "missing":
        return _missing(str(section))
    if first["type"] == "extra_forbidden":
        return _BrokenDatasetError(
            f"there is no field `{section}`", f"the fields are {', '.join(checks.SECTIONS)}, mode", droppable=False
        )
    place = f"`{section}`" + "".join(f"[{part!r}]" for part in rest if part != "[key]")
    if "[key]" in rest:
        place = f"the id {rest[0]!r} in `{section}`" if rest.index("[key]") == 1 else f"a key of {place}"
    expected = _EXPECTED.get(first["type"], "a whole number" if first["type"].startswith("int") else "of another type")
    return _wrong_type(place, expected, first["input"], more=err.error_count() - 1, droppable=bool(rest))
