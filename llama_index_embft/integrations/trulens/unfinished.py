"""Answers of an evaluation that is not finished: kept beside the database, so that nothing is asked and paid for twice.

One file of JSON lines for each version under evaluation. It is made when the evaluation starts, holds each answer as
soon as it is there, and is removed when everything is stored. A run that finds it goes on where the last one stopped.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from llama_index_embft.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from llama_index.core.schema import NodeWithScore


class StoredResponse(NamedTuple):
    """What an engine answered to a question, with its source nodes."""

    answer: str
    source_nodes: list[NodeWithScore]


class UnfinishedAnswers:
    """The answers of one version so far.

    Args:
        database: File of the database; None for a database that is no file: nothing is kept.
        app_name: Name of the app.
        app_version: Name of the version.

    Attributes:
        found: An earlier run left answers here.
    """

    def __init__(self, database: Path | None, app_name: str, app_version: str) -> None:
        name = hashlib.sha256(json.dumps([app_name, app_version]).encode()).hexdigest()[:16]
        self._path = None if database is None else database.with_name(f"{database.name}.{name}.unfinished.jsonl")
        self._known: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        self._taken: Counter[str] = Counter()
        self.found = self._path is not None and self._path.is_file()
        if self.found and self._path is not None:
            for line in self._path.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    entry = json.loads(line)
                    self._known[str(entry["question"])].append(entry)
                except (ValueError, TypeError, KeyError):  # noqa: PERF203  # the line that a kill cut off
                    continue

    def start(self, *, afresh: bool) -> None:
        """Make the file, or empty it.

        Raises:
            OutputError: It cannot be written.
        """
        if afresh:
            self._known.clear()
        if self._path is not None:
            self._write("", "w" if afresh else "a")

    def take(self, question: str) -> StoredResponse | None:
        """The next answer to a question that is known already; None: ask."""
        from llama_index.core.schema import NodeWithScore
        from llama_index.core.storage.docstore.utils import json_to_doc

        entries, place = self._known[question], self._taken[question]
        if place >= len(entries):
            return None
        self._taken[question] += 1
        entry = entries[place]
        nodes = [NodeWithScore(node=json_to_doc(node), score=score) for node, score in entry["nodes"]]
        return StoredResponse(entry["answer"], nodes)

    def put(self, question: str, answer: str, nodes: Sequence[NodeWithScore]) -> None:
        """Keep an answer; returns when it is on the disk."""
        from llama_index.core.storage.docstore.utils import doc_to_json

        if self._path is None:
            return
        entry = {"question": question, "answer": answer, "nodes": [[doc_to_json(n.node), n.score] for n in nodes]}
        self._write(json.dumps(entry, default=str) + "\n", "a")

    def finish(self) -> None:
        """Everything is stored: remove the file."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _write(self, text: str, mode: str) -> None:
        assert self._path is not None
        try:
            with self._path.open(mode, encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        except OSError as err:
            raise OutputError(
                f"Cannot keep the answers in {self._path}: {err.strerror or err}; free some space."
            ) from err
