"""What `tune` may be given, as one thing: nodes, the corpus of a data set, and the questions that came with them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from llama_index_embft.dataset.documents.base import ReadingSettings
from llama_index_embft.dataset.documents.finding import is_among
from llama_index_embft.dataset.documents.loading import (
    LoadedDocuments,
    dataset_corpus,
    documents_to_nodes,
    load_documents,
)
from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
from llama_index_embft.embeddings.drift import DriftEmbedding
from llama_index_embft.embeddings.loading import load_embed_model
from llama_index_embft.embeddings.truncation import model_tokens
from llama_index_embft.errors import ConfigError, DatasetError

if TYPE_CHECKING:
    from llama_index.core import VectorStoreIndex
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.schema import BaseNode, Document
    from numpy.typing import NDArray

    from llama_index_embft.pipeline.settings import TuneSettings

DEFAULT_MODEL: Final = "BAAI/bge-small-en-v1.5"

_ID_BATCH = 4096
_VERIFIED = 3  # nodes that are embedded again: another model's vectors would be searched in silence
_LEAST_LEFT = 0.9  # of a chunk's size; a few tokens less, for marks and a prompt, are not worth a word


@dataclass(frozen=True)
class TuningSource:
    """Texts to search, and what is known about them.

    Attributes:
        corpus: The texts, as a data set without questions.
        nodes: The same as LlamaIndex nodes.
        labels: Questions that came with the texts; None: there are none.
        index: The index that the texts came from; None: there was none.
        vectors: Node id -> vector in that index, by the model that embeds it.
        words: What it was, for people: ``"98 files, 2,595 chunks"``.
        notes: What was not read, and how chunks were cut otherwise than asked for.
    """

    corpus: EmbeddingQAFinetuneDataset
    nodes: tuple[BaseNode, ...]
    labels: EmbeddingQAFinetuneDataset | None = None
    index: VectorStoreIndex | None = None
    vectors: dict[str, NDArray[Any]] | None = None
    words: str = ""
    notes: tuple[str, ...] = ()


def read_source(
    source: Any, *, embed_model: BaseEmbedding, settings: TuneSettings, show_progress: bool
) -> TuningSource:
    """Read a folder or files, LlamaIndex documents or nodes, a data set, or an index.

    Args:
        source: See `tune`.
        embed_model: The model in use, which opens a stored index, and by whose tokens chunks are cut.
        settings: How files are read and cut.
        show_progress: Show bars while files are read.

    Raises:
        ConfigError: It is none of these.
        DatasetError: It has no text.
        DocumentError: Files are missing or unreadable.
        ModelError: Another model embedded an index.
        StoreError: An index has vectors without texts.
    """
    from llama_index.core import VectorStoreIndex
    from llama_index.core.schema import BaseNode, Document

    if isinstance(source, Sequence) and len(source) == 1 and isinstance(source[0], (str, os.PathLike)):
        source = source[0]
    if isinstance(source, EmbeddingQAFinetuneDataset):
        return _of_dataset(source)
    if isinstance(source, VectorStoreIndex):
        return _of_index(source, embed_model)
    if isinstance(source, (str, os.PathLike)) and _is_index(str(source)):
        from llama_index_embft.index.stores.opening import open_index

        return _of_index(open_index(str(source), embed_model=embed_model).index, embed_model)
    if isinstance(source, (str, os.PathLike)):
        source = [source]
    if not isinstance(source, Sequence) or not source:
        raise ConfigError(
            f"`source` is {_named(source)}; give a folder, files, LlamaIndex documents or nodes, a data set, or a "
            "VectorStoreIndex."
        )
    if all(isinstance(one, (str, os.PathLike)) for one in source):
        source = load_documents(source, settings=settings.reading, show_progress=show_progress)
    if all(isinstance(one, Document) for one in source):
        return _of_documents(source, embed_model, settings, show_progress)
    if all(isinstance(one, BaseNode) for one in source):
        return _of_nodes(source, "")
    kinds = ", ".join(sorted({type(one).__name__ for one in source}))
    raise ConfigError(
        f"`source` mixes or holds {kinds}; give paths, LlamaIndex documents or nodes, one kind at a time."
    )


def check_apart(questions: Any, source: Any, settings: TuneSettings) -> None:
    """Refuse a file of questions that lies among the documents: read as one, it answers every question best.

    Raises:
        ConfigError: It does.
        DocumentError: Documents are missing.
    """
    paths = [source] if isinstance(source, (str, os.PathLike)) else source
    if not isinstance(questions, (str, os.PathLike)) or not isinstance(paths, Sequence):
        return
    if not all(isinstance(path, (str, os.PathLike)) and not _is_index(str(path)) for path in paths):
        return
    if is_among(Path(questions), [Path(path) for path in paths], settings.reading or ReadingSettings()):
        raise ConfigError(
            f"The questions {os.fspath(questions)} lie among the documents, and would be read as one that holds each "
            "question word for word; move them elsewhere, or name the documents without them."
        )


def _of_documents(
    documents: Sequence[Document], embed_model: BaseEmbedding, settings: TuneSettings, show_progress: bool
) -> TuningSource:
    notes = documents.sentences() if isinstance(documents, LoadedDocuments) else []
    tokens = model_tokens(embed_model)
    if tokens is not None and tokens.limit is not None and tokens.limit < _LEAST_LEFT * settings.chunk_size:
        notes.append(f"Chunks have {tokens.limit} tokens and not {settings.chunk_size}: the model reads no more.")
    nodes = documents_to_nodes(
        documents,
        chunk_size=settings.chunk_size,
        chunk_overlap=settings.chunk_overlap,
        tokens=tokens,
        show_progress=show_progress,
    )
    return replace(_of_nodes(nodes, f"{len(documents):,} pages or files, "), notes=tuple(notes))


def _named(source: Any) -> str:
    return "empty" if source is None or source == [] else f"a {type(source).__name__}"


def _is_index(where: str) -> bool:
    """Whether an address or a folder is an index and not a folder of documents."""
    if where.startswith(("http://", "https://", "postgresql://", "postgres://")):
        return True
    folder = Path(where)
    if not folder.is_dir():
        return False
    qdrant = (folder / "meta.json").is_file() and (folder / "collection").is_dir()
    return qdrant or (folder / "index_store.json").is_file() or any(folder.glob("*.lance"))


def _of_nodes(nodes: Sequence[BaseNode], what: str) -> TuningSource:
    found = dataset_corpus(nodes)
    if not found.corpus:
        raise DatasetError("None of the nodes has text; a retriever is tuned on texts.")
    corpus = EmbeddingQAFinetuneDataset(
        queries={},
        corpus=found.corpus,
        relevant_docs={},
        bare_texts=found.bare_texts,
        source_documents=found.source_documents,
    )
    kept = tuple(node for node in nodes if node.node_id in found.corpus)
    return TuningSource(corpus, kept, words=f"{what}{len(kept):,} chunks")


def _of_dataset(dataset: EmbeddingQAFinetuneDataset) -> TuningSource:
    if not dataset.corpus:
        raise DatasetError("The data set has no documents; a retriever is tuned on texts.")
    bare = dataset.replace(
        queries={}, relevant_docs={}, negative_docs={}, reference_answers={}, relevance_grades={}, teacher_scores={}
    )
    nodes = nodes_of_dataset(dataset)
    labels = dataset if dataset.queries else None
    return TuningSource(bare, nodes, labels=labels, words=f"{len(nodes):,} chunks")


def nodes_of_dataset(dataset: EmbeddingQAFinetuneDataset) -> tuple[BaseNode, ...]:
    """A data set's corpus as nodes that embed the same texts under the same ids."""
    from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode

    nodes = []
    for doc, text in dataset.corpus.items():
        source = RelatedNodeInfo(node_id=dataset.source_documents.get(doc, doc))
        nodes.append(TextNode(id_=doc, text=text, relationships={NodeRelationship.SOURCE: source}))
    return tuple(nodes)


def _of_index(index: VectorStoreIndex, embed_model: BaseEmbedding) -> TuningSource:
    from llama_index_embft.index.changes import nodes_of
    from llama_index_embft.index.identity import verify_vectors
    from llama_index_embft.index.stores.opening import open_table

    table = open_table(index)
    if not isinstance(embed_model, DriftEmbedding):  # which searches another model's vectors
        verify_vectors(table, embed_model, _VERIFIED)
    nodes: list[BaseNode] = []
    vectors: dict[str, NDArray[Any]] = {}
    for ids in table.id_batches(_ID_BATCH):
        nodes.extend(nodes_of(table, ids).values())
        vectors.update(table.fetch(ids))
    if not nodes:
        raise DatasetError(f"{table.label[:1].upper()}{table.label[1:]} is empty; add nodes to it first.")
    found = _of_nodes(nodes, "")
    return TuningSource(found.corpus, found.nodes, index=index, vectors=vectors, words=f"an index of {found.words}")


def base_model_of(
    source: Any, model: str | os.PathLike[str] | BaseEmbedding | None, trust_remote_code: bool
) -> BaseEmbedding:
    """The embedding model in use: as given, the index's own, or the default."""
    from llama_index.core import VectorStoreIndex

    if model is None and isinstance(source, VectorStoreIndex):
        in_index: BaseEmbedding = source._embed_model
        return in_index
    if model is None or isinstance(model, (str, os.PathLike)):
        return load_embed_model(os.fspath(model or DEFAULT_MODEL), trust_remote_code=trust_remote_code)
    return model
