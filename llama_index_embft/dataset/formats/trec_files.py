"""TREC's plain-text files: qrels (judgements) and runs (results), as trec_eval reads them."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from llama_index_embft._core.files import atomic_write_text
from llama_index_embft.errors import EvaluationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset

Qrels = Mapping[str, Mapping[str, int]]
"""Query id -> document id -> grade."""
Run = Mapping[str, Mapping[str, float]]
"""Query id -> document id -> score."""
_PathLike = str | os.PathLike[str]


def read_qrels(path: _PathLike) -> dict[str, dict[str, int]]:
    """Read judgements: lines of ``query iteration document grade``.

    Returns:
        Query id -> document id -> grade; grades of 0 and below are kept.

    Raises:
        EvaluationError: The file is missing, or a line is not of that form or repeats a judgement.
    """
    qrels: dict[str, dict[str, int]] = {}
    for number, parts in _lines(path):
        if len(parts) != 4:
            raise EvaluationError(f"{path}, line {number}: expected `query 0 document grade`, got {len(parts)} fields.")
        query, _, doc, grade = parts
        try:
            value = int(grade)
        except ValueError as err:
            raise EvaluationError(f"{path}, line {number}: the grade {grade!r} is not a whole number.") from err
        if qrels.setdefault(query, {}).setdefault(doc, value) != value:
            raise EvaluationError(f"{path}, line {number}: document {doc!r} has two grades for query {query!r}.")
    return qrels


def read_run(path: _PathLike) -> dict[str, dict[str, float]]:
    """Read results: lines of ``query Q0 document rank score tag``. The rank is ignored, as trec_eval ignores it.

    Returns:
        Query id -> document id -> score.

    Raises:
        EvaluationError: The file is missing, a line is not of that form, a score is not a number, or a document stands
            twice in one query's results.
    """
    run: dict[str, dict[str, float]] = {}
    for number, parts in _lines(path):
        if len(parts) != 6:
            raise EvaluationError(
                f"{path}, line {number}: expected `query Q0 document rank score tag`, got {len(parts)} fields."
            )
        query, _, doc, _, score, _ = parts
        try:
            value = float(score)
        except ValueError as err:
            raise EvaluationError(f"{path}, line {number}: the score {score!r} is not a number.") from err
        if math.isnan(value):
            raise EvaluationError(f"{path}, line {number}: the score is not a number (NaN); remove the line.")
        if doc in run.setdefault(query, {}):
            raise EvaluationError(f"{path}, line {number}: document {doc!r} stands twice in the results of {query!r}.")
        run[query][doc] = value
    return run


def write_qrels(judged: EmbeddingQAFinetuneDataset | Qrels, path: _PathLike) -> None:
    """Write judgements for trec_eval, whole or not at all.

    Raises:
        EvaluationError: An id is empty or holds white space, which these files cannot carry.
        OutputError: The file cannot be written.
    """
    qrels = judged if isinstance(judged, Mapping) else judged.qrels()
    lines = [f"{_id(query)} 0 {_id(doc)} {grade}\n" for query, docs in qrels.items() for doc, grade in docs.items()]
    atomic_write_text(path, "".join(lines))


def write_run(run: Run, path: _PathLike, *, tag: str = "embft") -> None:
    """Write results for trec_eval, whole or not at all.

    For a `RetrievalReport` use its `to_trec_run`.

    Raises:
        EvaluationError: An id is empty or holds white space, which these files cannot carry.
        OutputError: The file cannot be written.
    """
    lines = []
    for query, hits in run.items():
        ordered = sorted(hits.items(), key=lambda hit: (hit[1], hit[0]), reverse=True)
        lines += [
            f"{_id(query)} Q0 {_id(doc)} {rank} {score!r} {_id(tag)}\n" for rank, (doc, score) in enumerate(ordered, 1)
        ]
    atomic_write_text(path, "".join(lines))


def _lines(path: _PathLike) -> Iterator[tuple[int, list[str]]]:
    try:
        with Path(path).open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                parts = line.split()
                if parts:
                    yield number, parts
    except (OSError, UnicodeDecodeError) as err:
        reason = err.strerror if isinstance(err, OSError) else "it is not UTF-8 text"
        raise EvaluationError(f"Cannot read {path}: {reason}.") from err


def _id(text: str) -> str:
    if not text or text.split() != [text]:
        raise EvaluationError(
            f"TREC files cannot hold the id {text!r}: ids there are not empty and have no white space."
        )
    return text
