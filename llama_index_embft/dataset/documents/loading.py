"""From the user's files to the nodes of an index, and from nodes to the corpus of a data set."""

from __future__ import annotations

import hashlib
import logging
import os
import uuid
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from llama_index_embft.dataset.documents.base import LeftOut, Piece, ReadingSettings, UnreadableError, printable_name
from llama_index_embft.dataset.documents.encoding import clean, whole_characters
from llama_index_embft.dataset.documents.finding import SkippedFile, find_files, skipped_in_words, some
from llama_index_embft.dataset.documents.readers import read_file
from llama_index_embft.dataset.sources import shown
from llama_index_embft.errors import ConfigError, DatasetError, DocumentError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from llama_index.core.schema import BaseNode, Document, MetadataMode

logger = logging.getLogger(__name__)

# Metadata that names the source document. It is in no embedded text: a path says where a machine keeps a file.
_PARAGRAPH: Final = 100_000  # letters without an end that go to the sentence splitter at once
_SOURCE_KEY: Final = "file_path"
_NAMING_KEYS: Final = ("file_name", "document_id", "doc_id", "url", "source", "document_title", "title")


class LoadedDocuments(list["Document"]):
    """Documents, with what could not be read.

    Attributes:
        n_files: Files that gave documents; those in archives count one by one.
        skipped: Files that gave none, or not all that they hold.
    """

    def __init__(
        self, documents: Iterable[Document] = (), *, n_files: int = 0, skipped: Sequence[SkippedFile] = ()
    ) -> None:
        super().__init__(documents)
        self.n_files, self.skipped = n_files, tuple(skipped)

    def sentences(self) -> list[str]:
        """What to tell the user: nothing where all was read; else counts, and a sentence for each reason."""
        if not self.skipped:
            return []
        n_skipped = sum(not one.partly for one in self.skipped)
        total = f"Read {self.n_files:,} of {self.n_files + n_skipped:,} files as {len(self):,} documents."
        return [total, *skipped_in_words(self.skipped)]


def load_documents(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    settings: ReadingSettings | None = None,
    show_progress: bool = True,
) -> LoadedDocuments:
    """Read files and folders (with their sub-folders) into LlamaIndex documents.

    PDFs give one document a page, presentations one a slide, tables (CSV, XLSX, JSON) one a row, e-books one a chapter,
    and other files one; archives give what is in them. ``metadata`` holds ``file_name`` and, for pages and slides,
    ``page_label``, or the ``sheet`` of a row, all of which are embedded, and ``file_path``, which is not: the path
    below the folder that was given, the same on every machine. (``SimpleDirectoryReader`` does the opposite: it embeds
    the absolute path and leaves the name out.) Hidden files are left out. Whatever else is skipped stands in
    ``skipped`` of the result, and one warning says it, with a sentence for each reason.

    Args:
        paths: A file, a folder, or several. A file given by name is read whatever its ending.
        settings: Limits, and whether running headers stay.
        show_progress: Show a bar where it takes more than two seconds.

    Returns:
        A list of documents, which also says what was skipped.

    Raises:
        DocumentError: A path does not exist, a folder holds nothing readable or too many files, or none of the files
            has usable text.
    """
    from tqdm.auto import tqdm

    settings = settings or ReadingSettings()
    given = [Path(path) for path in ([paths] if isinstance(paths, (str, os.PathLike)) else paths) if path != ""]
    found = find_files(given, settings)
    documents: list[Document] = []
    skipped = list(found.skipped)
    n_files = 0
    taken: set[str] = set()
    bar = tqdm(found.files.items(), desc="Reading", unit="file", delay=2, leave=False, disable=not show_progress)
    for file, name in bar:
        pieces, problems = _read_or_explain(file, name, settings, show_progress)
        skipped.extend(problems)
        n_files += len(pieces)
        for member, texts in pieces.items():
            documents.extend(_identified(texts, f"{name}/{printable_name(member)}" if member else name, taken))
    if not documents:
        problems = [one for one in skipped if one not in found.skipped]
        if len(problems) == 1:
            raise DocumentError(f"{found.root / problems[0].name} {problems[0].reason}.")
        listed = some([f"{found.root / one.name} {one.reason}" for one in problems], len(problems))
        raise DocumentError(f"None of the {len(problems)} files can be used: {listed}.")
    loaded = LoadedDocuments(documents, n_files=n_files, skipped=skipped)
    if skipped:
        logger.warning("%s", " ".join(loaded.sentences()))
    return loaded


def _read_or_explain(
    file: Path, name: str, settings: ReadingSettings, show_progress: bool
) -> tuple[dict[str, list[Piece]], list[SkippedFile]]:
    """Read a file: its texts by member, and what was left out."""
    pieces: dict[str, list[Piece]] = {}
    problems: list[LeftOut] = []
    try:
        for item in read_file(file, settings, show_progress=show_progress):
            if isinstance(item, Piece):
                pieces.setdefault(item.member, []).append(item)
            else:
                problems.append(item)
    except UnreadableError as err:
        problems.append(LeftOut(str(err), err.cause))
    return pieces, [
        SkippedFile(
            f"{name}/{printable_name(one.member)}" if one.member else name,
            one.reason,
            one.cause,
            one.partly and (one.member in pieces or (not one.member and bool(pieces))),
        )
        for one in problems
    ]


def _identified(pieces: Sequence[Piece], name: str, taken: set[str]) -> list[Document]:
    """Documents with ids that are the same on every machine, and with the path in none of their texts.

    A file may have the name of another one's page (``a.csv#1``), so the ids are counted among those that are taken.
    """
    from llama_index.core.schema import Document

    ids = [
        name if len(pieces) == 1 else f"{name}#{piece.metadata.get('page_label', n + 1)}"
        for n, piece in enumerate(pieces)
    ]
    if len(set(ids)) < len(ids):  # pages may share a label
        ids = [f"{name}#{number + 1}" for number in range(len(pieces))]
    while not taken.isdisjoint(ids):
        ids = [f"{id_}#" for id_ in ids]
    taken.update(ids)
    file_name = name.rpartition("/")[2]
    return [
        Document(
            id_=id_,
            text=clean(piece.text),
            # The order is that of LlamaIndex's own PDF reader, since it is embedded with the text.
            metadata={**piece.metadata, "file_name": file_name, _SOURCE_KEY: name},
            excluded_embed_metadata_keys=[_SOURCE_KEY],
            excluded_llm_metadata_keys=[_SOURCE_KEY],
        )
        for id_, piece in zip(ids, pieces, strict=True)
    ]


class TokenCounter(Protocol):
    """How the model that will read chunks counts their tokens; see `llama_index_embft.embeddings.ModelTokens`."""

    @property
    def encode(self) -> Callable[[str], list[int]]:
        """Text -> tokens."""

    @property
    def limit(self) -> int | None:
        """Tokens that are read; None: any number."""


def documents_to_nodes(
    documents: Sequence[Document],
    *,
    chunk_size: int = 256,
    chunk_overlap: int = 32,
    tokens: TokenCounter | None = None,
    show_progress: bool = True,
) -> list[BaseNode]:
    """Cut documents into nodes with LlamaIndex's ``SentenceSplitter``.

    The node ids are UUIDs made from the document's id and text, the settings and the position, so that the same input
    gives the same nodes, on every machine and in every run. Each node carries the settings of its metadata, so
    ``VectorStoreIndex(nodes)`` embeds exactly what `dataset_corpus` holds.

    Args:
        documents: As from `load_documents`, or any LlamaIndex documents.
        chunk_size: Tokens of a chunk, metadata included. Embedding models read 256 to 512 tokens and cut off the rest.
        chunk_overlap: Tokens that neighbouring chunks share.
        tokens: How the model that will read the chunks counts, as from `llama_index_embft.embeddings.model_tokens`; no
            chunk is longer than what it reads. None: LlamaIndex's own count, which is OpenAI's; 256 of its tokens may
            be 288 of another model, which leaves the end unread.
        show_progress: Show LlamaIndex's bar.

    Raises:
        ConfigError: The sizes do not fit together, or leave no room beside the metadata.
        DocumentError: The documents hold no text, or something is no document.
    """
    from llama_index.core.node_parser import SentenceSplitter
    from llama_index.core.schema import BaseNode

    documents = list(documents)
    for other in documents:
        if not isinstance(other, BaseNode):
            raise DocumentError(
                f"Expected LlamaIndex documents, got {shown(other)}; texts are documents as `Document(text=...)`, and "
                "files are read by `load_documents`."
            )
    if chunk_size < 1 or not 0 <= chunk_overlap < chunk_size:
        raise ConfigError(
            f"`chunk_size` must be positive and `chunk_overlap` from 0 to less than it, got {chunk_size} and "
            f"{chunk_overlap}."
        )
    if tokens is not None and tokens.limit is not None and tokens.limit < chunk_size:
        chunk_size, chunk_overlap = tokens.limit, min(chunk_overlap, tokens.limit // 4)
    text_digest: dict[str, str] = {}  # the whole document's text, hashed once and not once a chunk

    def node_id(position: int, document: BaseNode) -> str:
        if document.node_id not in text_digest:
            text = document.get_content().encode("utf-8", "surrogatepass")
            text_digest[document.node_id] = hashlib.sha256(text).hexdigest()
            if tokens is not None:  # another tokenizer cuts elsewhere
                text_digest[document.node_id] += str(tokens.encode(document.get_content()[:1000]))
        parts = (document.node_id, text_digest[document.node_id], chunk_size, chunk_overlap, position)
        digest = hashlib.sha256("\x00".join(map(str, parts)).encode("utf-8", "surrogatepass")).digest()
        return str(uuid.UUID(bytes=digest[:16]))  # some vector stores take nothing but UUIDs

    splitter = SentenceSplitter(
        chunk_size=chunk_size,
        chunk_overlap=chunk_overlap,
        tokenizer=None if tokens is None else tokens.encode,
        chunking_tokenizer_fn=_sentences(),
        id_func=node_id,
    )
    try:
        with redirect_stdout(None):  # LlamaIndex prints a line for each document whose metadata is long
            nodes = splitter.get_nodes_from_documents(documents, show_progress=show_progress and len(documents) > 500)
    except ValueError as err:  # the metadata alone is longer than a chunk
        raise ConfigError(f"Cannot cut documents into chunks of {chunk_size} tokens: {err}") from err
    except RecursionError as err:
        raise DocumentError(
            "Cannot cut the documents into chunks: one holds a text without words or sentences, which the splitter "
            "takes apart without end; leave it out."
        ) from err
    if not nodes:
        raise DocumentError("The documents hold no text to cut into chunks; give other documents.")
    return nodes


def _sentences() -> Callable[[str], list[str]]:
    """LlamaIndex's way to sentences, given long paragraphs in pieces: it gives up after five seconds."""
    from llama_index.core.node_parser.text.utils import split_by_sentence_tokenizer

    cut = split_by_sentence_tokenizer()

    def sentences(text: str) -> list[str]:
        found, start = [], 0
        while start < len(text):
            end = len(text) if len(text) - start <= _PARAGRAPH else text.rfind(" ", start, start + _PARAGRAPH) + 1
            end = end if end > start else start + _PARAGRAPH
            found += cut(text[start:end])
            start = end
        return found

    return sentences


class Corpus(NamedTuple):
    """The corpus side of a data set; the names are those of its fields."""

    corpus: dict[str, str]
    bare_texts: dict[str, str]
    source_documents: dict[str, str]


def dataset_corpus(nodes: Iterable[BaseNode], *, metadata_mode: MetadataMode | str = "embed") -> Corpus:
    """Take the corpus of a data set from the nodes of an index.

    Args:
        nodes: Any LlamaIndex nodes. The source document of a node is its file (``file_path``), else the document that
            it or its parent nodes were cut from, else what its metadata names (``file_name``, ``url``, ``title`` …).
        metadata_mode: Which metadata stands in front of each text: ``"embed"`` as the index embeds it, ``"none"`` for
            the bare text of the LlamaIndex tutorials, or ``"all"``, ``"llm"``.

    Returns:
        Texts by node id; nodes without any text are left out with a warning, and half a character, which damaged files
        leave, is U+FFFD. ``bare_texts`` holds the texts that differ.

    Raises:
        ConfigError: There is no such metadata mode.
        DatasetError: Two nodes have one id, or something is no node.
    """
    from llama_index.core.schema import BaseNode, MetadataMode

    try:
        mode = MetadataMode(metadata_mode)
    except ValueError:
        known = ", ".join(repr(choice.value) for choice in MetadataMode)
        raise ConfigError(f"`metadata_mode` must be one of {known}, got {metadata_mode!r}.") from None
    result = Corpus({}, {}, {})
    empty = 0
    nodes = list(nodes)
    for other in nodes:
        if not isinstance(other, BaseNode):
            raise DatasetError(f"Expected LlamaIndex nodes, got {shown(other)}; texts are nodes: `TextNode(text=...)`.")
    by_id = {node.node_id: node for node in nodes}
    for node in nodes:
        bare = whole_characters(node.get_content(MetadataMode.NONE))
        if not bare.strip():
            empty += 1
            continue
        if node.node_id in result.corpus:
            raise DatasetError(f"Two nodes have the id {node.node_id!r}; give every node an id of its own.")
        text = whole_characters(node.get_content(mode))
        result.corpus[node.node_id] = text
        if text != bare:
            result.bare_texts[node.node_id] = bare
        source = _source_of(node, by_id)
        if source:
            result.source_documents[node.node_id] = source
    if empty:
        logger.warning("Left out %d nodes without text.", empty)
    return result


def _source_of(node: BaseNode, by_id: Mapping[str, BaseNode]) -> str | None:
    """The document that a node was cut from, through parsers that cut the nodes of other parsers."""
    from llama_index.core.schema import ObjectType

    if node.metadata.get(_SOURCE_KEY):
        return str(node.metadata[_SOURCE_KEY])
    current, seen = node, set[str]()
    while True:
        above = current.source_node or current.parent_node
        if above is None:
            return current.node_id if current is not node else None
        if above.node_type == ObjectType.DOCUMENT or above.node_id in seen:
            return above.node_id
        seen.add(above.node_id)
        if above.node_id not in by_id:
            break
        current = by_id[above.node_id]
    # The node above is not at hand, and it is a piece itself: what all pieces of a document inherit names it.
    named = next((node.metadata[key] for key in _NAMING_KEYS if node.metadata.get(key)), None)
    return above.node_id if named is None else str(named)
