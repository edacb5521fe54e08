"""Tell a format from the names, keys and columns of what is there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from llama_index_embft.dataset.formats import retrieval, trainer_rows, trec
from llama_index_embft.dataset.formats.build import Builder
from llama_index_embft.dataset.formats.columns import plain_name
from llama_index_embft.dataset.formats.rows import FOLDER_MARKS, container_of, is_table, load_folder, read_rows
from llama_index_embft.dataset.sources import clipped, read_json
from llama_index_embft.errors import ConfigError, DatasetError


def guess_format(source: Any) -> str:
    """Tell the format of a file, folder or table from its names, keys and columns.

    Raises:
        DatasetError: It is none that is known, or does not exist.
    """
    if not isinstance(source, (str, os.PathLike)):
        guess = _guess_object(source)
    else:
        path = Path(source)
        try:
            there = path.exists()
        except (OSError, ValueError):  # a name that no disk takes
            there = False
        if not there:
            raise DatasetError(f"There is no file or folder {clipped(os.fspath(path))}; check the path.")
        guess = _guess_folder(path) if path.is_dir() else _guess_file(path)
    if guess is None:
        raise DatasetError(
            f"{name_of(source)}: the format cannot be guessed; name it: `embft convert IN OUT.json --from FORMAT`, or "
            "`format=` in Python (`embft convert --list` shows the formats)."
        )
    return guess


def name_of(source: Any) -> str:
    """What is read, for messages."""
    return os.fspath(source) if isinstance(source, (str, os.PathLike)) else f"the given {type(source).__name__}"


def _guess_object(source: Any) -> str | None:
    if hasattr(source, "examples"):
        return "labelled-rag"
    if not is_table(source):
        return None
    if isinstance(source, dict):
        if any("corpus" in str(name).lower() for name in source):
            return "datasets"
        return _guess_columns(next(iter(source.values())).column_names) if source else None
    return _guess_columns(source.column_names)


def _guess_folder(path: Path) -> str | None:
    if any((path / mark).is_file() for mark in FOLDER_MARKS):
        return _guess_object(load_folder(path))
    parts = retrieval.find_parts(path)
    if all(parts.values()):
        files = [file for files in parts["qrels"].values() for file in files]
        if all(container_of(file) == "tsv" or file.suffix.lower() == ".txt" for file in files):
            return "beir"
        return "air-bench" if "qid" in (_first_row(files[0]) or {}) else "mteb"
    names = [file.name.lower() for file in path.iterdir() if file.is_file()]
    if all(any(trec.NAMES[part].fullmatch(name) for name in names) for part in ("qrels", "topics", "docs")):
        return "trec"
    return None


def _guess_file(path: Path) -> str | None:
    container = container_of(path)
    if not path.suffix:
        try:
            return _guess_json(path)
        except DatasetError:
            return None
    if container != "json":
        row = None if container is None else _first_row(path)
        return None if row is None else _guess_columns(list(row))
    return _guess_json(path)


def _guess_json(path: Path) -> str | None:
    data = read_json(path, repeated_keys=True)
    if isinstance(data, list) and data and isinstance(data[0], dict):
        return "squad" if "context_text" in data[0] else _guess_columns(list(data[0]))
    if not isinstance(data, dict):
        return None
    if data.keys() & {"queries", "corpus", "relevant_docs"}:
        return "llama-index" if data.keys() <= {"queries", "corpus", "relevant_docs", "mode"} else "rag"
    if "examples" in data:
        return "labelled-rag"
    return "squad" if "data" in data else None


def _guess_columns(names: list[Any]) -> str | None:
    there = {plain_name(name) for name in names}
    labels = {"score", "similarity", "similarity_score"}
    pairs = bool({"anchor", "query", "question"} & there) and bool(
        {"positive", "answer", "context", "passage", "document", "paragraph", "chunk"} & there
    )
    tests: tuple[tuple[str, bool], ...] = (
        ("table", {"query", "document"} <= there and bool({"relevance", "document_id"} & there)),
        ("flag-embedding", "query" in there and bool({"pos", "relevant_passages"} & there)),
        ("ragas", "user_input" in there or {"question", "ground_truth"} <= there),
        ("squad", {"context", "question", "answers"} <= there),
        ("infgrad", {plain_name(name) for name in trainer_rows.INFGRAD} <= there),
        ("ntuples", "negative_1" in there),
        ("triplets", "negative" in there),
        ("scored", bool(labels & there) or (pairs and bool({"label", "labels"} & there))),
        ("pairs", pairs),
    )
    return next((name for name, fits in tests if fits), None)


def _first_row(path: Path) -> dict[str, Any] | None:
    """The first row of a file; None where it has none.

    Raises:
        DatasetError: It cannot be read; the sentence says why.
    """
    try:
        return next((row for _, row in read_rows(path, Builder(os.fspath(path)))), None)
    except (DatasetError, ConfigError) as err:
        said = str(err)
        where = "" if os.fspath(path) in said else f"{clipped(os.fspath(path))}: "
        raise DatasetError(f"{where}the format cannot be guessed, for the first row cannot be read: {said}") from err
