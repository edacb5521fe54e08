"""From the nodes a retriever returns to the ids of a data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from llama_index_embft._core.checks import first_line
from llama_index_embft.errors import ConfigError, EvaluationError

if TYPE_CHECKING:
    from llama_index.core.schema import NodeWithScore

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset

Match = Literal["id", "text", "document"] | Callable[["NodeWithScore"], "str | Sequence[str] | None"]

_SHORTEST_PART = 40  # characters: a shorter text is found inside others by chance


class Matcher:
    """Turns nodes into ids of a data set.

    Args:
        dataset: The data set.
        match: ``"id"``: the node's id. ``"text"``: a node with the text of a corpus entry is that entry, and one that
            holds whole entries (a merged parent, a window) is all of these. ``"document"``: the node's source document.
            Or a function from a node to one id, several or None.

    Raises:
        ConfigError: `match` is none of these.
    """

    def __init__(self, dataset: EmbeddingQAFinetuneDataset, match: Match) -> None:
        if not callable(match) and match not in ("id", "text", "document"):
            raise ConfigError(f"`match` must be 'id', 'text', 'document' or a function, got {match!r}.")
        self._match = match
        self._source_of = dataset.source_documents if match == "document" else {}
        self.known: set[str] = set(dataset.corpus)
        if match == "document":
            self.known = {dataset.source_documents.get(doc, doc) for doc in dataset.corpus}
        self._by_text: dict[str, list[str]] = {}
        self._cache: dict[tuple[str, str], list[str]] = {}
        if match == "text":
            for doc in sorted(dataset.corpus, reverse=True):  # equal texts: trec_eval's order
                for text in {_plain(dataset.corpus[doc]), _plain(dataset.bare_text(doc))}:
                    self._by_text.setdefault(text, []).append(doc)

    def __call__(self, node: NodeWithScore) -> list[str]:
        """Ids that a node stands for; one that is not in the data set is returned as it is.

        Raises:
            EvaluationError: The function given as `match` fails.
        """
        if callable(self._match):
            try:
                found = self._match(node)
                return [] if found is None else [found] if isinstance(found, str) else list(found)
            except Exception as err:  # it is the caller's function
                raise EvaluationError(
                    f"`match` fails for the node {node.node.node_id!r} ({type(err).__name__}: {first_line(err)}); it "
                    "must give an id, several or None for every node."
                ) from err
        if self._match == "id":
            return [node.node.node_id]
        if self._match == "document":
            return [self._document(node)]
        return self._match_text(node) or [node.node.node_id]

    def _document(self, node: NodeWithScore) -> str:
        """The source document, as data sets name it: by the node's own entry, its file, or what it was cut from."""
        id_ = node.node.node_id
        if id_ in self._source_of:
            return self._source_of[id_]
        names = [str(name) for name in (node.node.metadata.get("file_path"), node.node.ref_doc_id) if name]
        # A document of several parts (a PDF's pages) is named by its file, and a part by itself where that is known.
        return next((name for name in names if name in self.known), names[0] if names else id_)

    def _match_text(self, node: NodeWithScore) -> list[str]:
        from llama_index.core.schema import MetadataMode

        bare = _plain(node.node.get_content(MetadataMode.NONE))
        embedded = _plain(node.node.get_content(MetadataMode.EMBED))
        # Chunks of several documents may have one text, and be told by their metadata alone.
        if (bare, embedded) not in self._cache:
            found = self._by_text.get(embedded) or self._by_text.get(bare) or []
            if not found:
                parts = (
                    (embedded.find(text), ids) for text, ids in self._by_text.items() if len(text) >= _SHORTEST_PART
                )
                inside = sorted((place, ids) for place, ids in parts if place >= 0)
                found = [doc for _, ids in inside for doc in ids]
            self._cache[bare, embedded] = list(dict.fromkeys(found))
        return self._cache[bare, embedded]


def _plain(text: str) -> str:
    return " ".join(text.split())
