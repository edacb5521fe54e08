"""Has a system seen the questions that it is scored on? Its models' records say so."""

from __future__ import annotations

import json
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from llama_index_embft.dataset.hashes import near_duplicates_of_sketches, text_hash

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.evaluation.records import RetrievalReport

_RECORD_FILE: Final = "embft.json"
_PARTS_OF: Final = ("llama_index", "sentence_transformers", "transformers")  # packages whose objects are looked into
_MOST_OBJECTS: Final = 300
_LONGEST_PATH: Final = 1_000


def mark_seen(report: RetrievalReport, dataset: EmbeddingQAFinetuneDataset, system: Any) -> RetrievalReport:
    """The report, with how many of its questions and their documents the system was trained or chosen on.

    Args:
        report: Of `system` on `dataset`.
        dataset: Questions and documents.
        system: An embedding model, a retriever or a query engine; the saved results inside of it are looked up.
    """
    records = list(_records(system))
    if not records:
        return report
    queries = {query: text_hash(text) for query, text in dataset.queries.items()}
    documents = {doc: dataset.corpus[doc] for docs in dataset.relevant_docs.values() for doc in docs}
    texts = {doc: text_hash(text) for doc, text in documents.items()}
    overlap: dict[str, int] = {}
    for use, whole in (("trained_on", "train_hash"), ("chosen_on", "val_hash")):
        seen: dict[str, set[str]] = {"queries": set(), "documents": set(), "document_sketches": set()}
        for record in records:
            hashes = record.get(use)
            for kind in seen:
                found = hashes.get(kind) if isinstance(hashes, dict) else None
                seen[kind].update(map(str, found if isinstance(found, list) else ()))
            data = record.get("data")
            if isinstance(data, dict) and data.get(whole) == dataset.content_hash():
                seen["queries"].update(queries.values())
                seen["documents"].update(texts.values())
        overlap[f"{use}_queries"] = sum(value in seen["queries"] for value in queries.values())
        near = near_duplicates_of_sketches(documents, seen["document_sketches"])
        overlap[f"{use}_documents"] = sum(doc in near or value in seen["documents"] for doc, value in texts.items())
    overlap = {name: count for name, count in overlap.items() if count}
    if not overlap:
        return report
    return replace(report, overlap=overlap, notes=(*report.notes, overlap_in_words(overlap, len(queries), len(texts))))


def overlap_in_words(overlap: dict[str, int], n_queries: int, n_documents: int) -> str:
    """What a reader must know of it."""
    parts = [
        f"it was {use} {overlap[name]} of the {total} {what}"
        for name, use, total, what in (
            ("trained_on_queries", "trained on", n_queries, "questions"),
            ("chosen_on_queries", "chosen by", n_queries, "questions"),
            ("trained_on_documents", "trained on", n_documents, "documents that answer them (or near-duplicates)"),
            ("chosen_on_documents", "chosen by", n_documents, "documents that answer them (or near-duplicates)"),
        )
        if name in overlap
    ]
    new = "questions" if any(name.endswith("queries") for name in overlap) else "documents"
    return f"This model has seen the test: {'; '.join(parts)}. Its figures say nothing about new {new}."


def _records(system: Any) -> Iterator[dict[str, Any]]:
    """The records of the saved results that a system is made of."""
    waiting, known, folders = deque([system]), {id(system)}, set[str]()
    while waiting and len(known) < _MOST_OBJECTS:
        for name, value in _attributes(waiting.popleft()):
            if isinstance(value, str | Path):
                path = str(value)
                if len(path) < _LONGEST_PATH and path not in folders and _may_be_folder(name):
                    folders.add(path)
                    record = _read(Path(path) / _RECORD_FILE)
                    if record is not None:
                        yield record
                continue
            for part in value if isinstance(value, list | tuple) else (value,):
                if id(part) not in known and _is_part(part):
                    known.add(id(part))
                    waiting.append(part)


def _attributes(thing: Any) -> Iterator[tuple[str, Any]]:
    for attributes in (getattr(thing, "__dict__", None), getattr(thing, "__pydantic_private__", None)):
        yield from list((attributes or {}).items())
    modules = getattr(thing, "_modules", None)  # torch keeps the parts of a model there
    yield from list(modules.items()) if isinstance(modules, dict) else ()


def _may_be_folder(name: str) -> bool:
    return name.endswith(("path", "folder", "_name", "name_or_path", "dir")) or name in ("model", "name")


def _is_part(thing: Any) -> bool:
    return any(kind.__module__.partition(".")[0].startswith(_PARTS_OF) for kind in type(thing).__mro__)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except (OSError, ValueError, RecursionError):  # not ours, or no name of a file at all
        return None
    return content if isinstance(content, dict) else None
