"""TREC's plain-text files as trec_eval reads them, and folders of qrels, topics, documents and maybe a run.

Qrels are lines of ``query 0 document grade``, runs of ``query Q0 document rank score tag``, where more words may follow
the tag. A line that begins with ``#`` and is none of these is a comment.

A folder with one file each: ``qrels*``, ``topics*`` or ``queries*``, ``docs*``, ``collection*`` or ``corpus*``, and
maybe ``run*`` or ``*.run``. TSV here has no quoting: an id, a tab, the text, as in the collections of MS MARCO. Grades
of 0 and below make negatives. Topics without a relevant document are left out and counted.

Lost on writing: answers, bare texts, sources, the mode; with ``tables="tsv"`` also tabs and line ends in texts, which
become spaces. Ids with white space cannot be written.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from llama_index_embft._core.files import write_folder_atomically
from llama_index_embft.dataset.formats.build import as_grade, as_id, as_number, as_text
from llama_index_embft.dataset.formats.rows import container_of, read_rows, write_pieces, write_rows
from llama_index_embft.dataset.sources import At, FaultError, read_lines
from llama_index_embft.errors import ConfigError, DatasetError

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterator

    from llama_index_embft.dataset.formats.build import Builder
    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset

Qrels: TypeAlias = dict[str, dict[str, int]]
"""Query id -> document id -> grade."""
Run: TypeAlias = dict[str, dict[str, float]]
"""Query id -> document id -> score."""
NAMES: Final = {
    "qrels": re.compile(r"(^|.*[_\-.])qrels?([_\-.].*|$)"),
    "topics": re.compile(r"(topics|queries)([_\-.].*|$)"),
    "docs": re.compile(r"(docs|documents|collection|corpus)([_\-.].*|$)"),
    "run": re.compile(r"run([_\-.].*|$)|.*\.run$"),
}
_IDS: Final = ("id", "_id", "docid", "docno", "qid", "doc_id", "query_id")
_TEXTS: Final = ("contents", "text", "body", "query", "title")


# --- qrels and runs ---------------------------------------------------------------------------------------------------


def read_qrels(path: str | os.PathLike[str]) -> Qrels:
    """Read judgements: lines of ``query iteration document grade``.

    Returns:
        Query id -> document id -> grade; grades of 0 and below are kept.

    Raises:
        DatasetError: The file is missing, or a line is not of that form or gives a document a second grade.
    """
    qrels: Qrels = {}
    for at, words in _lines(Path(path), _is_judgement):
        query, doc, grade = _judgement(at, words)
        if qrels.setdefault(query, {}).setdefault(doc, grade) != grade:
            raise FaultError(at, "document with two grades", f"document {doc!r} has two grades for query {query!r}")
    return qrels


def read_run(path: str | os.PathLike[str]) -> Run:
    """Read results: lines of ``query Q0 document rank score tag``. The rank is ignored, as trec_eval ignores it.

    Returns:
        Query id -> document id -> score.

    Raises:
        DatasetError: The file is missing, a line is not of that form, a score is not a number, or a document stands
            twice in one query's results.
    """
    run: Run = {}
    for at, words in _lines(Path(path), _is_result):
        query, doc, score = _result(at, words, run)
        run[query][doc] = score
    return run


def write_qrels(
    judged: EmbeddingQAFinetuneDataset | Mapping[str, Mapping[str, int]], path: str | os.PathLike[str]
) -> int:
    """Write judgements for trec_eval, whole or not at all; returns how many there were.

    Raises:
        DatasetError: An id is empty, holds white space or begins with ``#``, which these files cannot carry.
        OutputError: The file cannot be written.
    """
    qrels = judged if isinstance(judged, Mapping) else judged.qrels()
    lines = (
        f"{_plain(query)} 0 {_plain(doc)} {grade}\n" for query, docs in qrels.items() for doc, grade in docs.items()
    )
    return write_pieces(path, lines)


def write_run(run: Mapping[str, Mapping[str, float]], path: str | os.PathLike[str], *, tag: str = "embft") -> None:
    """Write results for trec_eval, best first, whole or not at all.

    Raises:
        DatasetError: An id is empty, holds white space or begins with ``#``, which these files cannot carry.
        OutputError: The file cannot be written.
    """

    def lines() -> Iterator[str]:
        for query, found in run.items():
            for rank, doc in enumerate(_best_first(found), 1):
                yield f"{_plain(query)} Q0 {_plain(doc)} {rank} {found[doc]!r} {_plain(tag)}\n"

    write_pieces(path, lines())


def _best_first(found: Mapping[str, float]) -> list[str]:
    """As trec_eval orders them: by score, then by id, both falling."""
    return sorted(found, key=lambda doc: (found[doc], doc), reverse=True)


def _plain(id_: str) -> str:
    if id_.split() != [id_] or "\ufeff" in id_ or id_.startswith("#"):
        raise DatasetError(
            f"TREC files cannot hold the id {id_!r}: ids there are not empty, have no white space and no # in front; "
            "rename it."
        )
    return id_


def _lines(path: Path, is_row: Callable[[list[str]], bool]) -> Iterator[tuple[At, list[str]]]:
    for number, line in read_lines(path):
        words = line.split()
        if words and (not words[0].startswith("#") or is_row(words)):
            yield At(os.fspath(path), number), words


def _is_judgement(words: list[str]) -> bool:
    return len(words) == 4 and bool(re.fullmatch(r"-?\d+", words[3]))


def _is_result(words: list[str]) -> bool:
    return len(words) >= 6 and words[1].upper() == "Q0"


def _judgement(at: At, words: list[str]) -> tuple[str, str, int]:
    if len(words) != 4:
        raise FaultError(at, "line of a wrong length", f"expected `query 0 document grade`, got {len(words)} fields")
    query, _, doc, grade = words
    return query, doc, as_grade(grade, f"the grade of {doc!r} for {query!r}", at)


def _result(at: At, words: list[str], known: Run) -> tuple[str, str, float]:
    if len(words) < 6:
        statement = f"expected `query Q0 document rank score tag`, got {len(words)} fields"
        raise FaultError(at, "line of a wrong length", statement)
    query, _, doc, _, score = words[:5]
    if doc in known.setdefault(query, {}):
        raise FaultError(at, "document found twice", f"document {doc!r} stands twice in the results of {query!r}")
    return query, doc, as_number(score, f"the score of {doc!r} for {query!r}", at)


# --- folders ----------------------------------------------------------------------------------------------------------


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
    for part, pattern in NAMES.items():
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
    for at, words in _lines(parts.qrels, _is_judgement):
        with build.row():
            build.link(*_judgement(at, words), at)
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
        header = number == 1 and cells[0].lower() in _IDS and cells[-1].lower() in _TEXTS
        if header or cells == [""]:
            continue
        with build.row():
            if len(cells) != 2:
                raise FaultError(
                    at, "line of a wrong length", f"expected an id, a tab and a text, got {len(cells)} cells"
                )
        if len(cells) == 2:
            yield at, cells[0], cells[1]


def _add_negatives(build: Builder, path: Path, n: int) -> None:
    found: Run = {}
    for at, words in _lines(path, _is_result):
        with build.row():
            query, doc, score = _result(at, words, found)
            if doc not in build.corpus:
                raise FaultError(at, "result of an unknown document", f"names the document {doc!r}, which is not there")
            found[query][doc] = score
    for query, scores in found.items():
        relevant = build.grades.get(query, {})
        for doc in [doc for doc in _best_first(scores) if doc not in relevant][:n] if relevant else ():
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
        _plain(id_)
    judged = {
        query: docs | dict.fromkeys(dataset.negative_docs.get(query, ()), 0) for query, docs in dataset.qrels().items()
    }
    with write_folder_atomically(path) as folder:
        for name, texts, key in (("topics", dataset.queries, "text"), ("docs", dataset.corpus, "contents")):
            if tables == "jsonl":
                write_rows(({"id": id_, key: text} for id_, text in texts.items()), folder / f"{name}.jsonl")
                continue
            flat = {id_: re.sub(r"[\t\r\n]", " ", text) for id_, text in texts.items()}
            lost["texts whose tabs or line ends became spaces"] += sum(flat[id_] != texts[id_] for id_ in texts)
            write_pieces(folder / f"{name}.tsv", (f"{id_}\t{text}\n" for id_, text in flat.items()))
        return write_qrels(judged, folder / "qrels.txt")
