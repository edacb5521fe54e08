"""The formats by name, and the three functions that everybody uses: read, write, guess."""

from __future__ import annotations

import inspect
import logging
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from llama_index_embft._core.checks import first_line
from llama_index_embft._core.temporary import scratch_folder
from llama_index_embft.dataset.formats import (
    columns,
    flag_embedding,
    losses,
    rag,
    rag_test_sets,
    retrieval,
    squad,
    table,
    trainer_rows,
    trec,
)
from llama_index_embft.dataset.formats.build import Builder, OnError, counted
from llama_index_embft.dataset.formats.guess import guess_format, name_of
from llama_index_embft.dataset.formats.rows import to_table
from llama_index_embft.dataset.sources import clipped, one_sentence
from llama_index_embft.errors import ConfigError, DatasetError, OutputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset

logger = logging.getLogger(__name__)

_ROW_FILES: Final = ".jsonl, .json, .csv, .tsv, .parquet; without an ending a `datasets` folder"


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        name: Its name in `read_dataset`, `write_dataset` and ``embft convert``.
        title: What it is.
        files: What it is kept in.
        holds: What it can hold beside queries, their relevant documents and the texts; see `_loss`.
        read: Source, builder and options -> data set.
        write: Data set, path, counts of losses and options -> number of rows.
    """

    name: str
    title: str
    files: str
    holds: frozenset[str]
    read: Callable[..., EmbeddingQAFinetuneDataset]
    write: Callable[..., int]

    @property
    def is_folder(self) -> bool:
        """Whether it is always a folder."""
        return self.files == "folder"

    def options(self, way: str) -> tuple[str, ...]:
        """Names of the options of reading (``"read"``) or writing (``"write"``)."""
        call = self.read if way == "read" else self.write
        return tuple(
            name
            for name, parameter in inspect.signature(call).parameters.items()
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY
        )


_ALL = losses.EVERYTHING
_ROWS_AND_IDS = _ALL - {losses.MODE, losses.SCORES, losses.PROVENANCE}
_TEXTS_ONLY = frozenset[str]()
_IN_PARTS = frozenset({losses.IDS, losses.GRADES, losses.NEGATIVES, losses.UNLINKED})

FORMATS: Final[dict[str, Format]] = {
    made.name: made
    for made in (
        Format("rag", "the RAG format, this package's own", ".json", _ALL, rag.read, rag.write),
        Format(
            "llama-index",
            "llama-index-finetuning's EmbeddingQAFinetuneDataset",
            ".json",
            frozenset({losses.IDS, losses.UNLINKED, losses.MODE}),
            rag.read,
            rag.write_basic,
        ),
        Format("beir", "BEIR", "folder", _ROWS_AND_IDS, retrieval.read, retrieval.write_beir),
        Format(
            "mteb",
            "MTEB retrieval",
            "folder",
            _IN_PARTS | {losses.BARE_TEXTS},  # those that are title and text; the rest is counted on writing
            retrieval.read,
            retrieval.write_mteb,
        ),
        Format("air-bench", "AIR-Bench", "folder", _IN_PARTS, retrieval.read, retrieval.write_air_bench),
        Format(
            "datasets",
            "datasets.DatasetDict of corpus, queries and qrels",
            "folder",
            _ROWS_AND_IDS,
            retrieval.read,
            retrieval.write_datasets,
        ),
        Format("trec", "TREC qrels, topics, docs (and a run)", "folder", _IN_PARTS, trec.read, trec.write),
        Format(
            "squad",
            "SQuAD, CMRC 2018, DRCD",
            ".json",
            frozenset({losses.IDS, losses.ANSWERS, losses.SOURCES, losses.UNLINKED}),
            squad.read,
            squad.write,
        ),
        Format(
            "flag-embedding",
            "FlagEmbedding's query, pos, neg",
            _ROW_FILES,
            frozenset({losses.NEGATIVES, losses.SCORES}),
            flag_embedding.read,
            flag_embedding.write,
        ),
        Format("pairs", "anchor, positive", _ROW_FILES, _TEXTS_ONLY, columns.read, trainer_rows.write_pairs),
        Format(
            "triplets",
            "anchor, positive, negative",
            _ROW_FILES,
            frozenset({losses.NEGATIVES}),
            columns.read,
            trainer_rows.write_triplets,
        ),
        Format(
            "ntuples",
            "anchor, positive, negative_1 … negative_n",
            _ROW_FILES,
            frozenset({losses.NEGATIVES}),
            columns.read,
            trainer_rows.write_ntuples,
        ),
        Format(
            "scored",
            "sentence1, sentence2, score",
            _ROW_FILES,
            frozenset({losses.NEGATIVES, losses.SCORES}),
            columns.read_scored,
            trainer_rows.write_scored,
        ),
        Format(
            "infgrad",
            "Query, Positive Document, Hard Negative Document",
            _ROW_FILES,
            frozenset({losses.NEGATIVES}),
            columns.read,
            trainer_rows.write_infgrad,
        ),
        Format(
            "table",
            "a row a judgement, with ids, grades and answers",
            _ROW_FILES,
            _ROWS_AND_IDS,
            table.read,
            table.write,
        ),
        Format(
            "labelled-rag",
            "LlamaIndex's LabelledRagDataset",
            ".json",
            frozenset({losses.ANSWERS}),
            rag_test_sets.read_labelled,
            rag_test_sets.write_labelled,
        ),
        Format(
            "ragas",
            "ragas test sets",
            _ROW_FILES,
            frozenset({losses.ANSWERS}),
            rag_test_sets.read_ragas,
            rag_test_sets.write_ragas,
        ),
    )
}
"""Name -> format."""


@dataclass(frozen=True)
class Written:
    """What `write_dataset` wrote.

    Attributes:
        path: The file or folder.
        format: The format's name.
        rows: Rows, lines, questions or judgements in it, as the format counts.
        lost: What the format has no place for -> how many; empty when everything is in it.
    """

    path: Path
    format: str
    rows: int
    lost: dict[str, int] = field(default_factory=dict)


def format_named(name: str) -> Format:
    """The format of a name.

    Raises:
        ConfigError: There is none.
    """
    if name not in FORMATS:
        raise ConfigError(f"There is no format {name!r}; the formats are {', '.join(FORMATS)}.")
    return FORMATS[name]


def read_dataset(
    source: Any,
    format: str | None = None,  # the word everybody uses
    *,
    on_error: OnError = "raise",
    **options: Any,
) -> EmbeddingQAFinetuneDataset:
    """Read a data set of any known format.

    Args:
        source: A file or folder; or, for formats of rows, a `datasets.Dataset` or an iterable of dicts; for
            ``datasets`` a `DatasetDict`; for ``labelled-rag`` such an object.
        format: A key of `FORMATS`; None: guessed, see `guess_format`.
        on_error: ``"raise"`` stops at the first thing that is wrong. ``"drop"`` leaves such rows out, logs a warning,
            and keeps the counts in ``dataset.dropped``.
        **options: The format's own, such as ``split``; see `Format.options`.

    Raises:
        DatasetError: It is no data set of that format; the message names the file, the line and the id.
        ConfigError: There is no such format or option.
    """
    if format is None:
        with one_sentence(f"{name_of(source)}: its format cannot be guessed"):
            format = guess_format(source)
    name = format
    made = format_named(name)
    _check_options(made, "read", options)
    build = Builder(name_of(source), on_error=on_error)
    with one_sentence(f"{build.source} cannot be read as {name!r}"):
        return made.read(source, build, **options)


def write_dataset(
    dataset: EmbeddingQAFinetuneDataset,
    path: str | os.PathLike[str],
    format: str,
    *,
    overwrite: bool = False,
    **options: Any,
) -> Written:
    """Write a data set, whole or not at all; what the format has no place for is counted and logged as a warning.

    Args:
        dataset: The data set.
        path: A file, whose ending says how rows are kept, or a new folder.
        format: A key of `FORMATS`.
        overwrite: Replace a folder that holds such a data set already. Files are always replaced.
        **options: The format's own; see `Format.options`.

    Raises:
        ConfigError: There is no such format, option or ending.
        DatasetError: A text or an id cannot be written, or the queries give not one row.
        OutputError: The file or folder cannot be written.
    """
    made = format_named(format)
    _check_options(made, "write", options)
    try:
        _check_place(made, Path(path), overwrite=overwrite)
    except OutputError:
        raise
    except OSError as err:  # a name that is too long
        raise OutputError(f"Cannot write {clipped(os.fspath(path))}: {first_line(err)}; choose another name.") from err
    _check_texts(dataset, may_be_blank=made.read is rag.read)
    lost = Counter[str]()
    if losses.IDS not in made.holds:
        dataset, lost = losses.by_text(dataset)
    lost += losses.count_losses(dataset, made.holds)
    rows = made.write(dataset, path, lost, **options)
    lost = +lost
    if lost:
        logger.warning("%s: the format %r has no place for %s.", os.fspath(path), format, counted(lost))
    return Written(Path(path), format, rows, dict(lost))


def to_datasets(dataset: EmbeddingQAFinetuneDataset, format: str = "datasets", **options: Any) -> Any:
    """A data set as a `datasets.DatasetDict` (format ``datasets``) or, in a format of rows, a `datasets.Dataset`.

    Args:
        dataset: The data set.
        format: ``datasets``, or a format of rows such as ``triplets``.
        **options: The format's own; see `Format.options`.

    Raises:
        ConfigError: The format is not one of rows.
    """
    if format == "datasets":
        _check_options(FORMATS["datasets"], "write", options)
        return retrieval.to_dataset_dict(dataset)
    made = format_named(format)
    if made.files != _ROW_FILES:
        raise ConfigError(f"The format {format!r} has no rows; take 'datasets' or one of {', '.join(_row_formats())}.")
    from llama_index_embft.dataset.formats.rows import read_rows

    with scratch_folder() as folder:
        path = folder / "rows.jsonl"
        write_dataset(dataset, path, format, **options)
        return to_table(row for _, row in read_rows(path, Builder(os.fspath(path))))


def _row_formats() -> list[str]:
    return [name for name, made in FORMATS.items() if made.files == _ROW_FILES]


def _check_options(made: Format, way: str, options: dict[str, Any]) -> None:
    known = made.options(way)
    for name in options:
        if name not in known:
            there = f"its options are {', '.join(known)}" if known else "it has none"
            doing = "reading" if way == "read" else "writing"
            raise ConfigError(f"The format {made.name!r} has no option {name!r} for {doing}; {there}.")


def _check_place(made: Format, path: Path, *, overwrite: bool) -> None:
    is_folder = made.is_folder or (made.files == _ROW_FILES and not path.suffix)
    if is_folder and path.is_dir() and any(path.iterdir()) and not overwrite:
        raise OutputError(f"The folder {path} is not empty; choose another one, or overwrite=True (--overwrite).")
    if not is_folder and path.is_dir():
        raise OutputError(f"Cannot write {path}: it is a folder; give the name of a file.")
    if made.files == ".json" and path.suffix.lower() not in ("", ".json"):
        raise ConfigError(f"The format {made.name!r} is a JSON file; {path.name} should end in .json.")


def _check_texts(dataset: EmbeddingQAFinetuneDataset, *, may_be_blank: bool) -> None:
    """The dicts of a data set are mutable: what construction refuses may have come in later."""
    for name in ("queries", "corpus", "reference_answers", "bare_texts", "source_documents"):
        for id_, text in getattr(dataset, name).items():
            if not text.isascii() or not id_.isascii():
                try:
                    (text + id_).encode("utf-8")
                except UnicodeEncodeError as err:
                    raise DatasetError(
                        f"`{name}`[{id_!r}] contains an unpaired surrogate, which is not valid Unicode; correct it."
                    ) from err
            if not may_be_blank and not (text.strip() and id_.strip()):
                raise DatasetError(f"`{name}`[{id_!r}] is empty, or its id is; only the format 'rag' can hold that.")
