"""From the user's files to the nodes of an index, and from nodes to the corpus of a data set."""

from __future__ import annotations

import hashlib
import logging
import os
import uuid
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from llama_index_embft._core.checks import first_line
from llama_index_embft.dataset.documents.readers import READERS, UnreadableError, read_file
from llama_index_embft.dataset.sources import clipped
from llama_index_embft.errors import ConfigError, DatasetError, DocumentError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from llama_index.core.schema import BaseNode, Document, MetadataMode

logger = logging.getLogger(__name__)

# Metadata that names the source document. It is in no embedded text: a path says where a machine keeps a file.
_SOURCE_KEY: Final = "file_path"
_NAMING_KEYS: Final = ("file_name", "document_id", "doc_id", "url", "source", "document_title", "title")
_SHOWN: Final = 3


def load_documents(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], *, show_progress: bool = True
) -> list[Document]:
    """Read files and folders (with their sub-folders) into LlamaIndex documents.

    PDFs give one document a page; HTML, Markdown, plain text and the formats of LlamaIndex's file readers (docx, pptx,
    epub, csv, …; some need a further package) one a file. ``metadata`` holds ``file_name`` and, for PDFs,
    ``page_label``, both of which are embedded, and ``file_path``, which is not: the path below the folder that was
    given, the same on every machine. (``SimpleDirectoryReader`` does the opposite: it embeds the absolute path and
    leaves the name out.) Hidden files are skipped. Files that cannot be read are skipped with one warning that names
    them.

    Args:
        paths: A file, a folder, or several. A file given by name is read whatever its ending.
        show_progress: Show a bar where it takes more than two seconds.

    Raises:
        DocumentError: A path does not exist, a folder holds nothing readable, or none of the files has usable text.
    """
    from tqdm.auto import tqdm

    given = [Path(path) for path in ([paths] if isinstance(paths, (str, os.PathLike)) else paths)]
    files = _find_files(given)
    documents: list[Document] = []
    problems: list[str] = []
    bar = tqdm(files.items(), desc="Reading", unit="file", delay=2, leave=False, disable=not show_progress)
    for file, name in bar:
        read, problem = _read_or_explain(file, show_progress)
        documents.extend(_identified(read, name))
        problems.extend(problem)
    if problems and not documents:
        if len(problems) == 1:
            raise DocumentError(f"{problems[0]}.")
        raise DocumentError(f"None of the {len(files)} files can be used: {_some(problems)}.")
    if problems:
        logger.warning("Skipped %d of %d files: %s.", len(problems), len(files), "; ".join(problems))
    return documents


def _read_or_explain(file: Path, show_progress: bool) -> tuple[list[Document], list[str]]:
    """Read a file, or give the sentence (without full stop) that says why not."""
    try:
        return read_file(file, show_progress), []
    except UnreadableError as err:
        return [], [f"{file} {err}"]


def _some(problems: list[str]) -> str:
    more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    return "; ".join(problems[:_SHOWN]) + more


def _find_files(given: list[Path]) -> dict[Path, str]:
    """List the files with their names below the common root, in a fixed order."""
    if not given:
        raise DocumentError("No documents: give at least one file or folder.")
    for path in given:
        try:
            there = path.exists()
        except (OSError, ValueError) as err:  # a name that is too long, or holds a zero byte
            raise DocumentError(f"Cannot read {clipped(str(path))}: {first_line(err)}; check the path.") from err
        if not there:
            raise DocumentError(f"There is no file or folder {path}; check the path.")
        if not path.is_dir() and not path.is_file():
            raise DocumentError(f"{path} is neither a file nor a folder; give the path of a document.")
    real = [Path(os.path.realpath(path)) for path in given]
    root = Path(os.path.commonpath([path if path.is_dir() else path.parent for path in real]))
    found: dict[Path, str] = {}
    for path, shown in zip(real, given, strict=True):
        for file in _files_in(path, shown) if path.is_dir() else [path]:
            found[file] = file.relative_to(root).as_posix()
    return found


def _files_in(folder: Path, shown: Path) -> list[Path]:
    files = [Path(place, name) for place, _, names in os.walk(folder) for name in names]
    visible = [file for file in files if not any(part.startswith(".") for part in file.relative_to(folder).parts)]
    inside = [file for file in visible if not file.is_symlink() or _is_within(file, folder)]
    readable = sorted(file for file in inside if file.suffix.lower() in READERS)
    if not visible:
        raise DocumentError(f"The folder {shown} holds no files; put your documents there or give another folder.")
    endings = Counter(file.suffix.lower() or "no ending" for file in inside if file.suffix.lower() not in READERS)
    unread = ", ".join(f"{ending} ({count})" for ending, count in endings.most_common(8))
    if not readable:
        raise DocumentError(
            f"The folder {shown} holds no file of a kind that can be read, only "
            f"{unread or 'links that lead out of it'}; supported are {', '.join(READERS)}."
        )
    if unread:
        logger.warning("%s: skipped %d files of a kind that is not read: %s.", shown, endings.total(), unread)
    outside = [str(file.relative_to(folder)) for file in visible if file not in set(inside)]
    if outside:
        logger.warning("%s: did not follow %d links that lead out of it: %s.", shown, len(outside), _some(outside))
    return readable


def _is_within(file: Path, folder: Path) -> bool:
    return Path(os.path.realpath(file)).is_relative_to(folder)


def _identified(documents: list[Document], name: str) -> list[Document]:
    """Give documents ids that are the same on every machine, and keep the path out of every text."""
    for number, document in enumerate(documents):
        document.id_ = name if len(documents) == 1 else f"{name}#{document.metadata.get('page_label', number + 1)}"
        document.metadata[_SOURCE_KEY] = name
        document.excluded_embed_metadata_keys = [_SOURCE_KEY]
        document.excluded_llm_metadata_keys = [_SOURCE_KEY]
    if len({document.id_ for document in documents}) < len(documents):  # pages may share a label
        for number, document in enumerate(documents):
            document.id_ = f"{name}#{number + 1}"
    return documents


def documents_to_nodes(
    documents: Sequence[Document], *, chunk_size: int = 256, chunk_overlap: int = 32, show_progress: bool = True
) -> list[BaseNode]:
    """Cut documents into nodes with LlamaIndex's ``SentenceSplitter``.

    The node ids are UUIDs made from the document's id and text, the settings and the position, so that the same input
    gives the same nodes, on every machine and in every run. Each node carries the settings of its metadata, so
    ``VectorStoreIndex(nodes)`` embeds exactly what `dataset_corpus` holds.

    Args:
        documents: As from `load_documents`, or any LlamaIndex documents.
        chunk_size: Tokens of a chunk, metadata included. Embedding models read 256 to 512 tokens and cut off the rest.
        chunk_overlap: Tokens that neighbouring chunks share.
        show_progress: Show LlamaIndex's bar.

    Raises:
        ConfigError: The sizes do not fit together, or leave no room beside the metadata.
        DocumentError: The documents hold no text.
    """
    from llama_index.core.node_parser import SentenceSplitter

    if chunk_size < 1 or not 0 <= chunk_overlap < chunk_size:
        raise ConfigError(
            f"`chunk_size` must be positive and `chunk_overlap` from 0 to less than it, got {chunk_size} and "
            f"{chunk_overlap}."
        )
    text_digest: dict[str, str] = {}  # the whole document's text, hashed once and not once a chunk

    def node_id(position: int, document: BaseNode) -> str:
        if document.node_id not in text_digest:
            text = document.get_content().encode("utf-8", "surrogatepass")
            text_digest[document.node_id] = hashlib.sha256(text).hexdigest()
        parts = (document.node_id, text_digest[document.node_id], chunk_size, chunk_overlap, position)
        digest = hashlib.sha256("\x00".join(map(str, parts)).encode("utf-8", "surrogatepass")).digest()
        return str(uuid.UUID(bytes=digest[:16]))  # some vector stores take nothing but UUIDs

    splitter = SentenceSplitter(chunk_size=chunk_size, chunk_overlap=chunk_overlap, id_func=node_id)
    try:
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
        Texts by node id; nodes without any text are left out with a warning. ``bare_texts`` holds those that differ.

    Raises:
        ConfigError: There is no such metadata mode.
        DatasetError: Two nodes have one id.
    """
    from llama_index.core.schema import MetadataMode

    try:
        mode = MetadataMode(metadata_mode)
    except ValueError:
        known = ", ".join(repr(choice.value) for choice in MetadataMode)
        raise ConfigError(f"`metadata_mode` must be one of {known}, got {metadata_mode!r}.") from None
    result = Corpus({}, {}, {})
    empty = 0
    nodes = list(nodes)
    by_id = {node.node_id: node for node in nodes}
    for node in nodes:
        bare = node.get_content(MetadataMode.NONE)
        if not bare.strip():
            empty += 1
            continue
        if node.node_id in result.corpus:
            raise DatasetError(f"Two nodes have the id {node.node_id!r}; give every node an id of its own.")
        text = node.get_content(mode)
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
