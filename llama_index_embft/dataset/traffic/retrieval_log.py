"""A log of what LlamaIndex retrieves, which `dataset_from_clicks` reads."""

from __future__ import annotations

import threading
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llama_index_embft.dataset.formats.rows import json_line
from llama_index_embft.errors import ConfigError, OutputError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping


class RetrievalLog:
    """Writes what LlamaIndex retrieves into a JSON Lines file, which `dataset_from_clicks` reads.

    Every retrieval of the process is one line: an id, the query, and the nodes in order with the text that the index
    embeds (`MetadataMode.EMBED`). Questions and texts are stored in clear. Clicks and thumbs are added later, by id, as
    lines of their own; a line is written at once, so that a crash loses nothing but the line being written.

    Args:
        path: The file; lines are appended.

    Raises:
        OutputError: The file cannot be written.

    Example:
        >>> log = RetrievalLog("traffic.jsonl").attach()  # doctest: +SKIP
        >>> response = query_engine.query("Who pays?")  # doctest: +SKIP
        >>> log.feedback(log.last_id, clicked=[response.source_nodes[1].node_id])  # doctest: +SKIP
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self._last: ContextVar[str | None] = ContextVar("embft_last_retrieval", default=None)
        self._attached: tuple[Any, Any] | None = None
        self._write("")

    @property
    def last_id(self) -> str | None:
        """Id of the last retrieval in this thread or task, the outermost one of a query; None before any."""
        return self._last.get()

    def attach(self) -> RetrievalLog:
        """Listen to LlamaIndex' own instrumentation from now on; returns itself."""
        from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined, unused-ignore]
        from llama_index.core.instrumentation.event_handlers import BaseEventHandler
        from llama_index.core.instrumentation.events.retrieval import RetrievalEndEvent

        if self._attached is not None:
            return self
        observe = self.observe

        class Handler(BaseEventHandler):
            @classmethod
            def class_name(cls) -> str:
                return "EmbftRetrievalLog"

            def handle(self, event: Any, **_: Any) -> None:
                if isinstance(event, RetrievalEndEvent):
                    query = event.str_or_query_bundle
                    observe(query if isinstance(query, str) else query.query_str, event.nodes, id_=event.id_)

        dispatcher, handler = get_dispatcher(), Handler()
        dispatcher.add_event_handler(handler)
        self._attached = (dispatcher, handler)
        return self

    def detach(self) -> None:
        """Stop listening."""
        if self._attached is not None:
            dispatcher, handler = self._attached
            dispatcher.event_handlers = [other for other in dispatcher.event_handlers if other is not handler]
            self._attached = None

    @property
    def attached(self) -> bool:
        """Whether it listens to every retrieval."""
        return self._attached is not None

    def observe(self, query: str, nodes: Iterable[Any], *, id_: str, by: Mapping[str, str] | None = None) -> None:
        """Write one retrieval, as the listener does.

        Args:
            query: The question.
            nodes: What was found, with `node`.
            id_: The answer's id, for its clicks.
            by: Id of a node -> who put it there, as `InterleavedRetriever` writes it.
        """
        from llama_index.core.schema import MetadataMode

        shown = {
            found.node.node_id: {
                "id": found.node.node_id,
                "text": found.node.get_content(metadata_mode=MetadataMode.EMBED),
                **({"by": by[found.node.node_id]} if by and found.node.node_id in by else {}),
            }
            for found in nodes
        }
        self._write(json_line({"id": id_, "query": query, "shown": list(shown.values())}))
        self._last.set(id_)

    def feedback(
        self, id_: str | None, *, clicked: str | Iterable[str] = (), thumbs: Literal["up", "down"] | None = None
    ) -> None:
        """Add what the user did with a retrieval.

        Args:
            id_: From `last_id`.
            clicked: Ids of the nodes that were opened, or one.
            thumbs: What the user said of the whole answer.

        Raises:
            ConfigError: There is no id, or nothing to add.
        """
        ids = [clicked] if isinstance(clicked, str) else list(clicked)  # not its letters
        if id_ is None or (not ids and thumbs is None) or thumbs not in (None, "up", "down"):
            raise ConfigError("Feedback needs the id of a retrieval, and `clicked` or thumbs='up' or 'down'.")
        self._write(json_line({"id": id_, "clicked": ids} | ({} if thumbs is None else {"feedback": thumbs})))

    def _write(self, text: str) -> None:
        try:
            with self._lock, self.path.open("a", encoding="utf-8", errors="replace") as file:
                file.write(text)
        except OSError as err:
            raise OutputError(f"Cannot write the log {self.path}: {err.strerror or err}.") from err
