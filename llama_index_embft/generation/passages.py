"""Nodes to passages: what is embedded, what the LLM reads, and which document it comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from llama_index_embft.dataset.documents.loading import dataset_corpus
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


def read_passages(nodes: Sequence[BaseNode], metadata_mode: MetadataMode | str) -> list[Passage]:
    """Read the texts of nodes; nodes without text are left out with a warning.

    Returns:
        Passages in the order of the nodes.

    Raises:
        ConfigError: There are no nodes, none has text, or there is no such metadata mode.
        DatasetError: Two nodes have one id.
    """
    if not nodes:
        raise ConfigError("There are no nodes; give at least one.")
    corpus, bare_texts, sources = dataset_corpus(nodes, metadata_mode=metadata_mode)
    if not corpus:
        raise ConfigError(f"None of the {len(nodes)} nodes has text; check how the documents were read.")
    return [Passage(id_, text, bare_texts.get(id_, text), sources.get(id_, id_)) for id_, text in corpus.items()]
