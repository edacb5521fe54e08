"""Nodes to passages: what is embedded, what the LLM reads, and which document it comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from llama_index_embft.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_index.core.schema import BaseNode, MetadataMode


class Passage(NamedTuple):
    """One chunk.

    Attributes:
        id: Node id; the corpus id of the data set.
        embedded: Text as the index embeds it, metadata included.
        bare: Text without metadata; what the LLM reads.
        source: Id of the document that the chunk was cut from.
    """

    id: str
    embedded: str
    bare: str
    source: str


def read_passages(nodes: Sequence[BaseNode], metadata_mode: MetadataMode) -> tuple[list[Passage], int]:
    """Read the texts of nodes.

    Args:
        nodes: The nodes of the index.
        metadata_mode: How the index embeds them.

    Returns:
        Passages in the order of the nodes, and the number of nodes without text, which are left out.

    Raises:
        ConfigError: There are no nodes, none has text, or two nodes of one id have different texts.
    """
    from llama_index.core.schema import MetadataMode

    if not nodes:
        raise ConfigError("There are no nodes; give at least one.")
    passages: dict[str, Passage] = {}
    empty = 0
    for node in nodes:
        bare = node.get_content(metadata_mode=MetadataMode.NONE)
        if not bare.strip():
            empty += 1
            continue
        bare = _encodable(bare)
        embedded = _encodable(node.get_content(metadata_mode=metadata_mode))
        passage = Passage(node.node_id, embedded, bare, _source(node))
        known = passages.setdefault(passage.id, passage)
        if known != passage:
            raise ConfigError(f"Two nodes have the id {passage.id!r} and different texts; give every node its own id.")
    if not passages:
        raise ConfigError(f"None of the {len(nodes)} nodes has text; check how the documents were read.")
    return list(passages.values()), empty


def _source(node: BaseNode) -> str:
    # A reader makes one document of each PDF page; the file is what must not be torn apart by a split.
    for name in ("file_path", "file_name"):
        value = node.metadata.get(name)
        if isinstance(value, str) and value:
            return value
    return node.ref_doc_id or node.node_id


def _encodable(text: str) -> str:
    # Lone surrogates, left by broken PDF extraction, are no Unicode text: no tokenizer, JSON file or server takes them.
    return text.encode("utf-8", "replace").decode("utf-8")
