"""Questions about an index that exists, as a data set over its own nodes.

What answers a question may be said in three ways: by node ids, by texts (whole or quoted), or by document and page, as
people have them in a spreadsheet.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from llama_index_embft.dataset import EmbeddingQAFinetuneDataset, guess_format, read_dataset
from llama_index_embft.dataset.formats.build import Builder, content_id
from llama_index_embft.dataset.formats.rows import container_of, read_rows
from llama_index_embft.dataset.near_duplicates import normalise
from llama_index_embft.errors import DatasetError
from llama_index_embft.index.stores.opening import IndexLike, open_table

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from llama_index.core.schema import BaseNode

_QUESTION: Final = ("question", "query", "user_input", "anchor")
_IDS: Final = ("node_ids", "node_id", "ids")
_DOCUMENT: Final = ("document", "file", "file_name", "file_path", "source")
_PAGE: Final = ("page", "pages", "page_label")
_NODE_PAGE: Final = ("page_label", "page", "page_number")
_NODE_FILE: Final = ("file_path", "file_name", "document", "source")
_SHORTEST_QUOTE: Final = 22  # characters, with the spaces around; a shorter text is found inside others by chance
_BATCH: Final = 1_000


@dataclass(frozen=True)
class IndexQuestions:
    """Questions with the nodes that answer them.

    Attributes:
        dataset: Its corpus are the nodes of the index, by node id.
        labels: What the labels were: ``"node ids"``, ``"texts"`` or ``"documents"``.
        dropped: Questions that were left out: a label of theirs names nothing in the index. Question -> why.
    """

    dataset: EmbeddingQAFinetuneDataset
    labels: str
    dropped: dict[str, str]


def questions_for_index(
    index: IndexLike,
    questions: str | os.PathLike[str],
    *,
    persist_dir: str | os.PathLike[str] | None = None,
    drop: bool = False,
) -> IndexQuestions:
    """Read labelled questions and find what their labels name in an index.

    Args:
        index: The index or vector store, see `open_table`; its nodes must keep their texts.
        questions: Rows (``.jsonl``, ``.json``, ``.csv``, ``.tsv``, ``.parquet``) with a column ``question`` or
            ``query`` and one of: ``node_ids``; ``document`` (a file's name, its path or the end of it, or a document
            id), with ``page`` or without. Or a data set of any format: its relevant documents are looked up by id, and
            by text where their ids are not in the index; a text may be a quotation of a node, or hold the node.
        persist_dir: See `open_table`.
        drop: Leave out questions of which a label names nothing, and count them; otherwise the first is an error. With
            the other labels alone the question would be graded by a part of its answers.

    Raises:
        DatasetError: The file cannot be read, or a label names nothing in the index; the message says what is near.
        StoreError: The index is empty, or keeps no texts.
    """
    nodes = _nodes(index, persist_dir)
    rows = _rows(Path(questions))
    if rows is None:
        asked, labels = _by_dataset(Path(questions), nodes)
    else:
        asked, labels = _by_rows(rows, nodes)
    found: dict[str, tuple[str, list[str]]] = {}
    dropped: dict[str, str] = {}
    for query_id, (query, ids, reason) in asked.items():
        if ids and not reason:
            found[query_id] = query, ids
        else:
            dropped[query] = reason or "it names no relevant document"
    if dropped and not (drop and found):
        query, reason = next(iter(dropped.items()))
        others = f" So it is with {len(dropped)} of {len(asked)} questions." if len(dropped) > 1 else ""
        advice = " Mend the labels, or leave these questions out: drop=True, or --drop." if found and not drop else ""
        raise DatasetError(f"{questions}: a label of {query!r} names nothing in the index: {reason}.{others}{advice}")
    dataset = EmbeddingQAFinetuneDataset(
        queries={query_id: query for query_id, (query, _) in found.items()},
        corpus={node_id: _text(node) for node_id, node in nodes.items()},
        relevant_docs={query_id: ids for query_id, (_, ids) in found.items()},
        source_documents={node_id: source for node_id, node in nodes.items() if (source := _source(node)) is not None},
    )
    return IndexQuestions(dataset, labels, dropped)


Asked = dict[str, tuple[str, list[str], str]]  # query id -> query, node ids, what is not there


def _nodes(index: IndexLike, persist_dir: str | os.PathLike[str] | None) -> dict[str, BaseNode]:
    from llama_index_embft.index.stamp import StoreError

    table = open_table(index, persist_dir=None if persist_dir is None else Path(persist_dir))
    nodes: dict[str, BaseNode] = {}
    for batch in table.id_batches(_BATCH):
        nodes.update(table.nodes(batch))
    kept = {node_id: node for node_id, node in nodes.items() if _text(node).strip()}
    if not kept:
        raise StoreError(f"{table.label} holds no node with a text, so nothing can be asked of it; add nodes first.")
    return kept


def _text(node: BaseNode) -> str:
    from llama_index.core.schema import MetadataMode

    return node.get_content(metadata_mode=MetadataMode.EMBED)


def _source(node: BaseNode) -> str | None:
    """The document of a node: its file, since a reader may make a document of each page."""
    named = next((str(node.metadata[name]) for name in _NODE_FILE if node.metadata.get(name)), None)
    return named or node.ref_doc_id


def _bare(node: BaseNode) -> str:
    from llama_index.core.schema import MetadataMode

    return node.get_content(metadata_mode=MetadataMode.NONE)


def _rows(path: Path) -> list[dict[str, Any]] | None:
    """Rows that name nodes or documents; None where the file is something else, for `read_dataset`."""
    if not path.is_file() or container_of(path) is None:
        return None
    try:
        rows = [row for _, row in read_rows(path, Builder(str(path)))]
    except DatasetError:
        return None  # a JSON object: a data set, whose reader says what is wrong with it
    names = {str(name) for row in rows[:20] for name in row}
    named = names & {*_IDS, *_DOCUMENT[1:]} or ("document" in names and names & set(_PAGE))
    short = "document" in names and all(len(str(row.get("document"))) < 200 for row in rows[:20])
    return rows if named or short else None


def _first(row: dict[str, Any], names: tuple[str, ...]) -> Any:
    return next((row[name] for name in names if row.get(name) not in (None, "", [])), None)


def _list(value: Any) -> list[str]:
    if value is None:
        return []
    if isinstance(value, str) and value.strip()[:1] == "[":  # a list in a cell of a CSV file
        import json

        try:
            value = json.loads(value)
        except ValueError:
            return [value]
    many = value if isinstance(value, (list, tuple)) else [value]
    return [str(int(one)) if isinstance(one, float) and one.is_integer() else str(one).strip() for one in many]


def _by_rows(rows: list[dict[str, Any]], nodes: dict[str, BaseNode]) -> tuple[Asked, str]:
    places = _NodePages(nodes)
    asked: Asked = {}
    kinds = set()
    for number, row in enumerate(rows, 1):
        query = str(_first(row, _QUESTION) or "").strip()
        if not query:
            raise DatasetError(f"Row {number} has no question; its columns are {', '.join(map(str, row))}.")
        given = _list(_first(row, _IDS))
        if given:
            kinds.add("node ids")
            ids = [node_id for node_id in given if node_id in nodes]
            reason = next((f"there is no node {one!r}" for one in given if one not in nodes), "")
        else:
            kinds.add("documents")
            ids, reason = places.find(_list(_first(row, _DOCUMENT)), _list(_first(row, _PAGE)))
        query_id = content_id(query)
        _, before, missing = asked.get(query_id, (query, [], ""))
        asked[query_id] = query, list(dict.fromkeys([*before, *ids])), missing or reason
    return asked, " and ".join(sorted(kinds))


class _NodePages:
    """Nodes by the document and page they are from."""

    def __init__(self, nodes: dict[str, BaseNode]) -> None:
        self._of_name: defaultdict[str, list[str]] = defaultdict(list)
        self._of_path: defaultdict[str, list[str]] = defaultdict(list)
        self._page_of: dict[str, str] = {}
        for node_id, node in nodes.items():
            names = [str(node.metadata[name]) for name in _NODE_FILE if node.metadata.get(name)]
            path = next(iter(names), None)
            if path is not None:
                self._of_path[path].append(node_id)
            # A file's bare name beside its path is looked up as an end of the path: several files may have it.
            whole = {name for name in names if path is None or name == path or _parts(name) != _parts(path)[-1:]}
            for name in whole | ({node.ref_doc_id} if node.ref_doc_id else set()):
                self._of_name[name].append(node_id)
            page = next((str(node.metadata[name]) for name in _NODE_PAGE if node.metadata.get(name) is not None), None)
            if page is not None:
                self._page_of[node_id] = page
        self._ending: defaultdict[str, list[str]] = defaultdict(list)
        for path in self._of_path:
            self._ending[_parts(path)[-1]].append(path)

    def find(self, documents: list[str], pages: list[str]) -> tuple[list[str], str]:
        """The nodes of some pages, and which document or page is not there."""
        if not documents:
            return [], "the row has neither node_ids nor a document"
        found: list[str] = []
        reason = ""
        unseen = set(pages)
        for document in documents:
            of_document, missing = self._of(document)
            there = [node_id for node_id in of_document if not pages or self._page_of.get(node_id) in pages]
            found += there
            unseen -= {self._page_of[node_id] for node_id in there if node_id in self._page_of}
            if of_document and not there:
                missing = self._no_page(document, of_document, pages)
            reason = reason or missing
        if unseen and not reason:  # one page of several
            reason = self._no_page(
                documents[-1], self._of(documents[-1])[0], [page for page in pages if page in unseen]
            )
        return found, reason

    def _of(self, document: str) -> tuple[list[str], str]:
        """The nodes of a document, or why there are none."""
        if document in self._of_name:
            return self._of_name[document], ""
        asked = _parts(document)
        # The end of a path, or a path with more in front than the index has; of several the one that agrees furthest.
        paths = [path for path in self._ending.get(asked[-1], ()) if _is_end(asked, _parts(path))]
        furthest = max((_agreeing(asked, path) for path in paths), default=0)
        paths = [path for path in paths if _agreeing(asked, path) == furthest]
        if len(paths) == 1:
            return self._of_path[paths[0]], ""
        if paths:
            return [], f"{document!r} may be {paths[0]!r} or {paths[1]!r}; give more of the path"
        near = self._ending.get(asked[-1]) or get_close_matches(document, [*self._of_name, *self._ending], n=1)
        return [], f"there is no document {document!r}" + (f" (did you mean {near[0]!r}?)" if near else "")

    def _no_page(self, document: str, of_document: list[str], pages: list[str]) -> str:
        known = sorted({self._page_of[node_id] for node_id in of_document if node_id in self._page_of})
        shown = f"its pages are {', '.join(known[:10])}" if known else "its nodes do not say their page"
        return f"{document!r} has no page {', '.join(pages)}; {shown}"


def _parts(path: str) -> list[str]:
    """Folders and name of a path of any system."""
    return [part for part in re.split(r"[\\/]+", path) if part not in ("", ".")] or [path]


def _is_end(one: list[str], other: list[str]) -> bool:
    shorter = min(len(one), len(other))
    return one[-shorter:] == other[-shorter:]


def _agreeing(asked: list[str], path: str) -> int:
    return min(len(asked), len(_parts(path)))


def _by_dataset(path: Path, nodes: dict[str, BaseNode]) -> tuple[Asked, str]:
    given = read_dataset(path, guess_format(path))
    texts = _Texts(nodes)
    asked: Asked = {}
    kinds = set()
    for query_id, query in given.queries.items():
        ids: list[str] = []
        reason = ""
        for doc in given.relevant_docs[query_id]:
            if doc in nodes:
                kinds.add("node ids")
                ids.append(doc)
                continue
            kinds.add("texts")
            there = list(texts.find(given.bare_text(doc)))
            ids += there
            if not there and not reason:
                shown = " ".join(given.bare_text(doc).split())
                reason = f"no node has the text {shown[:80]!r}"
        asked[query_id] = query, list(dict.fromkeys(ids)), reason
    return asked, " and ".join(sorted(kinds))


class _Texts:
    """Nodes by what they say: the same words, a quotation of them, or a longer passage around them."""

    def __init__(self, nodes: dict[str, BaseNode]) -> None:
        self._words = {node_id: _words(_bare(node)) for node_id, node in nodes.items()}
        self._of_words: defaultdict[str, list[str]] = defaultdict(list)
        for node_id, words in self._words.items():
            self._of_words[words].append(node_id)

    def find(self, text: str) -> Iterator[str]:
        """The nodes of a text; nothing where it is neither in a node nor around one."""
        words = _words(text)
        if words in self._of_words:
            yield from self._of_words[words]
            return
        if len(words) < _SHORTEST_QUOTE:
            return
        quoted = [node_id for node_id, of_node in self._words.items() if words in of_node]
        yield from quoted or (
            node_id for node_id, of_node in self._words.items() if len(of_node) >= _SHORTEST_QUOTE and of_node in words
        )


def _words(text: str) -> str:
    """Words between spaces, the outer ones too: "unit 1" does not stand in "unit 12"."""
    return f" {normalise(text) or text} "
