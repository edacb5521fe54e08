"""TREC: qrels (``query 0 document grade``), topics and documents as TSV or JSON Lines, and a run for negatives.

A folder with one file each: ``qrels*``, ``topics*`` or ``queries*``, ``docs*``, ``collection*`` or ``corpus*``, and
maybe ``run*`` or ``*.run``. TSV here has no quoting: an id, a tab, the text, as in the collections of MS MARCO. Grades
of 0 and below make negatives. Topics without a relevant document are left out and counted.

Lost on writing: answers, bare texts, sources, the mode; with ``tables="tsv"`` also tabs and line ends in texts, which
become spaces. Ids with white space cannot be written.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from llama_index_embft._core.files import write_folder_atomically
from llama_index_embft.dataset.formats._rows import container_of, read_rows, write_rows
from llama_index_embft.dataset.formats._sink import write_pieces
from llama_index_embft.dataset.formats._source import (
    At,
    FaultError,
    as_grade,
    as_id,
    as_number,
    as_text,
    read_lines,
)
from llama_index_embft.errors import ConfigError, DatasetError

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator, Mapping

    from llama_index_embft.dataset.formats._build import Builder
    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset

_NAMES: Final = {
    "qrels": re.compile(r"(^|.*[_\-.])qrels?([_\-.].*|$)"),
    "topics": re.compile(r"(topics|queries)([_\-.].*|$)"),
    "docs": re.compile(r"(docs|documents|collection|corpus)([_\-.].*|$)"),
    "run": re.compile(r"run([_\-.].*|$)|.*\.run$"),
}
_IDS: Final = ("id", "_id", "docid", "docno", "qid", "doc_id", "query_id")
_TEXTS: Final = ("contents", "text", "body", "query", "title")


class Parts(NamedTuple):
    """The files of a TREC collection."""

    qrels: Path
    topics: Path
    docs: Path
    run: Path | None


def find_parts(folder: Path, given: Mapping[str, str | os.PathLike[str] | None]) -> Parts:
    """The files of a folder, by name; ``given`` takes the place of what would be looked for.

    Raises:
        DatasetError: A part is missing or there are several.
    """
    found: dict[str, Path | None] = {}
    for part, pattern in _NAMES.items():
        path = given.get(part)
        if path is not None:
            found[part] = Path(path)
            continue
        files = [f for f in sorted(folder.iterdir()) if f.is_file() and pattern.fullmatch(f.name.lower())]
        if len(files) > 1 or (not files and part != "run"):
            names = ", ".join(file.name for file in files) or "none"
            raise DatasetError(f"{folder}: one file of {part} is needed, found {names}; name it: {part}=….")
        found[part] = files[0] if files else None
    qrels, topics, docs = found["qrels"], found["topics"], found["docs"]
    if qrels is None or topics is None or docs is None:
        raise DatasetError(f"{folder}: qrels, topics and docs are needed.")
    return Parts(qrels, topics, docs, found["run"])


def read(
    source: str | os.PathLike[str],
    build: Builder,
    *,
    qrels: str | os.PathLike[str] | None = None,
    topics: str | os.PathLike[str] | None = None,
    docs: str | os.PathLike[str] | None = None,
    run: str | os.PathLike[str] | None = None,
    negatives_from_run: int = 0,
) -> EmbeddingQAFinetuneDataset:
    """Read a folder.

    Args:
        source: The folder.
        build: What collects.
        qrels: The judgements, where they lie elsewhere or there are several; ``topics``, ``docs`` and ``run`` likewise.
        topics: The queries.
        docs: The documents.
        run: Results of a system (``query Q0 document rank score tag``).
        negatives_from_run: For each query, the best so many documents of the run that are not judged relevant become
            negatives, best first. 0: the run is not read, for a document that nobody has judged may well be relevant.

    Raises:
        DatasetError: A file is missing or broken.
    """
    folder = Path(source)
    if not folder.is_dir():
        raise DatasetError(f"There is no folder {folder}; a TREC collection is one with qrels, topics and docs.")
    if negatives_from_run < 0:
        raise ConfigError(f"`negatives_from_run` must be 0 or more, got {negatives_from_run}.")
    parts = find_parts(folder, {"qrels": qrels, "topics": topics, "docs": docs, "run": run})
    for at, id_, text in _texts(parts.docs, build):
        with build.row():
            build.add_document(as_text(text, f"the document {id_!r}", at), at, as_id(id_, "its id", at))
    for at, id_, text in _texts(parts.topics, build):
        with build.row():
            build.add_query(as_text(text, f"the topic {id_!r}", at), at, as_id(id_, "its id", at))
    for at, (query, _, doc, grade) in _fields(parts.qrels, 4, "query 0 document grade", build):
        with build.row():
            build.link(query, doc, as_grade(grade, f"the grade of {doc!r} for {query!r}", at), at)
    if negatives_from_run:
        if parts.run is None:
            raise DatasetError(f"{folder} has no run to take negatives from; name it: run=….")
        _add_negatives(build, parts.run, negatives_from_run)
    return build.finish(leave_out_unjudged="topic without a relevant document")


def _texts(path: Path, build: Builder) -> Iterator[tuple[At, Any, Any]]:
    if container_of(path) != "tsv" and path.suffix != ".txt":
        for at, row in read_rows(path, build):
            with build.row():
                id_name = next((name for name in _IDS if name in row), None)
                text_name = next((name for name in _TEXTS if name in row), None)
                if id_name is None or text_name is None:
                    there = ", ".join(map(repr, list(row)[:8]))
                    raise FaultError(at, "missing column", f"an id and a text are needed; there are {there}")
                build.ignore(row, frozenset([id_name, text_name]))
            if id_name is not None and text_name is not None:
                yield at, row[id_name], row[text_name]
        return
    for number, line in read_lines(path):
        at, cells = At(os.fspath(path), number), line.rstrip("\r\n").split("\t")
        if cells == [""]:
            continue
        with build.row():
            if len(cells) != 2:
                raise FaultError(
                    at, "line of a wrong length", f"expected an id, a tab and a text, got {len(cells)} cells"
                )
        if len(cells) == 2:
            yield at, cells[0], cells[1]


def _fields(path: Path, count: int, form: str, build: Builder) -> Iterator[tuple[At, list[str]]]:
    for number, line in read_lines(path):
        at, cells = At(os.fspath(path), number), line.split()
        if not cells:
            continue
        with build.row():
            if len(cells) != count:
                raise FaultError(at, "line of a wrong length", f"expected `{form}`, got {len(cells)} fields")
        if len(cells) == count:
            yield at, cells


def _add_negatives(build: Builder, path: Path, n: int) -> None:
    found: dict[str, dict[str, float]] = {}
    for at, (query, _, doc, _, score, _) in _fields(path, 6, "query Q0 document rank score tag", build):
        with build.row():
            value = as_number(score, f"the score of {doc!r} for {query!r}", at)
            if doc not in build.corpus:
                raise FaultError(at, "result of an unknown document", f"names the document {doc!r}, which is not there")
            if doc in found.setdefault(query, {}):
                raise FaultError(
                    at, "document found twice", f"the document {doc!r} stands twice in the results of {query!r}"
                )
            found[query][doc] = value
    for query, scores in found.items():
        relevant = build.grades.get(query, {})
        # As trec_eval orders them: by score, then by id, both falling.
        best = sorted(scores, key=lambda doc: (scores[doc], doc), reverse=True)
        for doc in [doc for doc in best if doc not in relevant][:n] if relevant else ():
            build.negatives.setdefault(query, {})[doc] = None


def write(
    dataset: EmbeddingQAFinetuneDataset, path: str | os.PathLike[str], lost: Counter[str], *, tables: str = "jsonl"
) -> int:
    """Write ``qrels.txt``, and ``topics`` and ``docs`` as JSON Lines (``id, text``; ``id, contents``) or TSV.

    Args:
        dataset: A data set whose ids have no white space.
        path: A new folder.
        lost: Counts the texts whose tabs and line ends become spaces.
        tables: ``"jsonl"`` or ``"tsv"``.

    Raises:
        ConfigError: `tables` is neither.
        DatasetError: An id is empty or has white space.
    """
    if tables not in ("jsonl", "tsv"):
        raise ConfigError(f"`tables` must be 'jsonl' or 'tsv', got {tables!r}.")
    for id_ in (*dataset.queries, *dataset.corpus):
        if id_.split() != [id_] or "\ufeff" in id_:
            raise DatasetError(f"TREC files cannot hold the id {id_!r}: ids there have no white space; rename it.")
    negatives = dataset.negative_docs
    judged = (
        (query, doc, grade)
        for query, docs in dataset.qrels().items()
        for doc, grade in (docs | dict.fromkeys(negatives.get(query, ()), 0)).items()
    )
    with write_folder_atomically(path) as folder:
        for name, texts, key in (("topics", dataset.queries, "text"), ("docs", dataset.corpus, "contents")):
            if tables == "jsonl":
                write_rows(({"id": id_, key: text} for id_, text in texts.items()), folder / f"{name}.jsonl")
                continue
            flat = {id_: re.sub(r"[\t\r\n]", " ", text) for id_, text in texts.items()}
            lost["texts whose tabs or line ends became spaces"] += sum(flat[id_] != texts[id_] for id_ in texts)
            write_pieces(folder / f"{name}.tsv", (f"{id_}\t{text}\n" for id_, text in flat.items()))
        return write_pieces(folder / "qrels.txt", (f"{query} 0 {doc} {grade}\n" for query, doc, grade in judged))
