"""Benchmarks in three parts, corpus, queries and qrels: BEIR folders, the layouts of MTEB and AIR-Bench, `DatasetDict`.

Reading is the same for all. In a folder, ``corpus``, ``queries`` and ``qrels`` are found by name (``corpus.jsonl``,
``corpus/*.parquet``, ``dev_queries.jsonl``, ``qrels/test.tsv``, ``qrels_default_dev.jsonl``, …), each in any form of
rows. Ids are ``_id`` or ``id`` (``qid``, ``docid``, ``query-id``, ``corpus-id`` in qrels); numbers will do. A document
with a title is ``"<title> <text>"``, as BEIR and MTEB embed it; the text alone is its bare text.
A judgement of 0 or below makes a negative. The queries of other splits, which nobody has judged in this one, are left
out and counted.

Lost on writing: the mode; ``mteb`` also answers, sources, and bare texts that are no title and text; ``air-bench``
these and titles. ``beir`` keeps them in the ``metadata`` of its lines, ``datasets`` in columns.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from llama_index_embft._core.files import write_folder_atomically
from llama_index_embft.dataset.formats.build import as_grade, as_id, as_text
from llama_index_embft.dataset.formats.rows import (
    FOLDER_MARKS,
    Row,
    container_of,
    is_table,
    load_folder,
    read_rows,
    to_table,
    write_rows,
)
from llama_index_embft.dataset.sources import At, FaultError, read_lines, shown
from llama_index_embft.errors import ConfigError, DatasetError

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator, Mapping

    from llama_index_embft.dataset.formats.build import Builder
    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset

PARTS: Final = ("corpus", "queries", "qrels")
_TOKEN: Final = {
    "corpus": re.compile(r"(?:^|[_\-.])corpus(?=[_\-.]|$)"),
    "queries": re.compile(r"(?:^|[_\-.])(?:query|queries)(?=[_\-.]|$)"),
    "qrels": re.compile(r"(?:^|[_\-.])qrels?(?=[_\-.]|$)"),
}
_QRELS_FOLDERS: Final = ("qrels", "default", "data")  # the hub keeps qrels as the default configuration
_SHARD: Final = re.compile(r"-\d+-of-\d+$")
_ID: Final = {
    "corpus": ("_id", "id", "corpus-id", "docid", "doc_id", "pid"),
    "queries": ("_id", "id", "query-id", "qid", "query_id"),
}
_TEXT: Final = {"corpus": ("text", "contents", "passage", "body"), "queries": ("text", "query", "question")}
_QREL: Final = {
    "query": ("query-id", "query_id", "qid", "query"),
    "document": ("corpus-id", "corpus_id", "docid", "doc_id", "pid"),
    "grade": ("score", "relevance", "label", "grade"),
}
_META: Final = ("source_document", "bare_text", "reference_answer")
_KNOWN: Final = frozenset(["title", "metadata", *_META])


# --- finding the parts ------------------------------------------------------------------------------------------------


def find_parts(folder: Path) -> dict[str, dict[str, list[Path]]]:
    """Part -> split (``""`` where the name has none) -> its files, shards in order."""
    parts: dict[str, dict[str, list[Path]]] = {part: {} for part in PARTS}
    for entry in sorted(folder.iterdir()):
        name = entry.name.lower()
        if entry.is_dir():
            part = "qrels" if name in _QRELS_FOLDERS else next((p for p in PARTS if _TOKEN[p].search(name)), None)
            for file in sorted(entry.iterdir()) if part is not None else ():
                plain = part == "qrels" and file.suffix.lower() == ".txt"
                if (container_of(file) is not None or plain) and file.is_file():
                    _put(parts, str(part), file)
        elif container_of(entry) is not None:
            part = next((part for part in PARTS if _TOKEN[part].search(_stem(entry))), None)
            if part is not None:
                _put(parts, part, entry)
    return parts


def _stem(path: Path) -> str:
    return path.name.lower().split(".")[0]


def _put(parts: dict[str, dict[str, list[Path]]], part: str, file: Path) -> None:
    words = _TOKEN[part].sub("", _SHARD.sub("", _stem(file)))
    split = "_".join(word for word in re.split(r"[_\-]", words) if word and word != "default")
    parts[part].setdefault("" if part == "corpus" else split, []).append(file)


def _choose(splits: Mapping[str, Any], split: str | None, what: str) -> Any:
    """The value of the split asked for, of the only one, or of the one without a name."""
    if split is None and len(splits) == 1:
        return next(iter(splits.values()))
    if split is not None and split in splits:
        return splits[split]
    asked = f"there is no split {split!r}" if split is not None else "there are several splits"
    names = ", ".join(name or "(without a name)" for name in splits)
    raise DatasetError(f"{what}: {asked} of the qrels; give one of them as `split`: {names}.")


# --- reading ----------------------------------------------------------------------------------------------------------


def read(source: Any, build: Builder, *, split: str | None = None, qrels: Any = None) -> EmbeddingQAFinetuneDataset:
    """Read a folder, or a `DatasetDict` with splits named after the three parts.

    Args:
        source: A folder, one of ``save_to_disk``, or a `DatasetDict`.
        build: What collects.
        split: The split of the qrels, such as ``"test"``; needed where there are several.
        qrels: A file or `datasets.Dataset` of judgements that lies elsewhere, as those of AIR-Bench do.

    Raises:
        DatasetError: A part is missing, or there are several splits and `split` names none.
    """
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        if any((path / mark).is_file() for mark in FOLDER_MARKS):
            source = load_folder(path)
        elif not path.is_dir():
            raise DatasetError(
                f"{path} is no folder; this format is a folder with {', '.join(PARTS)}."
                if path.exists()
                else f"There is no folder {path}; check the path."
            )
    if is_table(source):
        files = _parts_of_table(source, split, build.source, qrels)
    else:
        files = _parts_of_folder(Path(source), split, qrels)
    for part, add in (("corpus", add_document), ("queries", _add_query), ("qrels", _add_judgement)):
        for file in files[part]:
            plain = part == "qrels" and isinstance(file, Path) and _has_no_header(file)
            for at, row in _plain_judgements(file, build) if plain else read_rows(file, build):
                with build.row():
                    add(build, row, At(build.source + f"[{part!r}]", at.number, at.unit) if is_table(file) else at)
    return build.finish(leave_out_unjudged="query without a relevant document in this split")


def _has_no_header(file: Path) -> bool:
    if file.suffix.lower() not in (".tsv", ".txt", ".csv"):
        return False
    words = next((_judged_words(line.lower()) for _, line in read_lines(file) if line.strip()), [])
    return len(words) in (3, 4) and set(words).isdisjoint(_QREL["query"] + _QREL["document"])


def _judged_words(line: str) -> list[str]:
    """The fields of a line: between tabs, where ids may hold spaces, or else between spaces and commas."""
    return line.strip().split("\t") if line.count("\t") in (2, 3) else re.split(r"[\s,]+", line.strip())


def _plain_judgements(file: Path, build: Builder) -> Iterator[tuple[At, Row]]:
    """Lines of ``query document grade`` or, as TREC has them, ``query 0 document grade``."""
    for number, line in read_lines(file):
        at, words = At(os.fspath(file), number), _judged_words(line)
        if len(words) in (3, 4):
            yield at, {"query-id": words[0], "corpus-id": words[-2], "score": words[-1]}
        elif words != [""]:
            with build.row():
                statement = f"expected `query document grade`, got {len(words)} fields"
                raise FaultError(at, "line of a wrong length", statement)


def _parts_of_folder(folder: Path, split: str | None, given: Any) -> dict[str, list[Any]]:
    parts = find_parts(folder)
    for part in PARTS:
        if not parts[part] and not (part == "qrels" and given is not None):
            raise DatasetError(
                f"{folder} has no {part} (a file or folder named `{part}`, of .jsonl, .tsv, .parquet, …)."
            )
    queries = parts["queries"]
    if split is not None and split in queries:
        queries = {split: queries[split]}
    return {
        "corpus": parts["corpus"][""],
        "queries": [file for files in queries.values() for file in files],
        "qrels": [given] if given is not None else _choose(parts["qrels"], split, os.fspath(folder)),
    }


def _parts_of_table(table: Any, split: str | None, name: str, given: Any) -> dict[str, list[Any]]:
    if not isinstance(table, dict):
        raise DatasetError(f"{name} is one table; this format needs a DatasetDict of {', '.join(PARTS)}.")
    found: dict[str, dict[str, Any]] = {part: {} for part in PARTS}
    for key, value in table.items():
        part = next((part for part in PARTS if _TOKEN[part].search(str(key).lower())), None)
        if part is not None:
            words = re.split(r"[_\-]", _TOKEN[part].sub("", str(key).lower()))
            found[part]["_".join(word for word in words if word and word != "default")] = value
    for part in PARTS:
        if not found[part] and not (part == "qrels" and given is not None):
            raise DatasetError(f"{name} has no split for the {part}; its splits are {', '.join(map(str, table))}.")
    return {
        "corpus": list(found["corpus"].values()),
        "queries": list(found["queries"].values()),
        "qrels": [given if given is not None else _choose(found["qrels"], split, name)],
    }


def _field(row: Row, names: tuple[str, ...], what: str, at: At) -> tuple[str, Any]:
    name = next((name for name in names if name in row), None)
    if name is None:
        there = ", ".join(repr(key) for key in list(row)[:8])
        raise FaultError(at, "missing column", f"{what} is missing (none of {', '.join(names)}); there are {there}")
    return name, row[name]


def _metadata(row: Row, at: At) -> dict[str, str]:
    meta = row.get("metadata") or {}
    if not isinstance(meta, dict):
        raise FaultError(at, "wrong type", f"metadata should be an object, got {shown(meta)}")
    values = {name: row.get(name, meta.get(name)) for name in _META}
    return {name: as_text(value, name, at) for name, value in values.items() if value not in (None, "")}


def add_document(build: Builder, row: Row, at: At) -> None:
    """Add the document of a row with an id, a text, and maybe a title and metadata."""
    id_name, id_ = _field(row, _ID["corpus"], "the id of the document", at)
    text_name, text = _field(row, _TEXT["corpus"], "the text of the document", at)
    doc, meta = as_id(id_, f"the document's {id_name}", at), _metadata(row, at)
    title = row.get("title")
    title = as_text(title, f"the title of the document {doc!r}", at) if title and str(title).strip() else None
    if title is not None and (text is None or (isinstance(text, str) and not text.strip())):
        title, text = None, title  # some collections have documents of a headline alone
    body = as_text(text, f"the text of the document {doc!r}", at)
    bare = meta.get("bare_text", None if title is None else body)
    build.add_document(
        body if title is None else f"{title} {body}", at, doc, bare=bare, source=meta.get("source_document")
    )
    build.ignore(row, _KNOWN | {id_name, text_name})
    build.ignore(row.get("metadata") or {}, frozenset(_META))


def _add_query(build: Builder, row: Row, at: At) -> None:
    id_name, id_ = _field(row, _ID["queries"], "the id of the query", at)
    text_name, text = _field(row, _TEXT["queries"], "the text of the query", at)
    query, meta = as_id(id_, f"the query's {id_name}", at), _metadata(row, at)
    build.add_query(as_text(text, f"the text of the query {query!r}", at), at, query)
    if "reference_answer" in meta:
        build.add_answer(query, meta["reference_answer"], at)
    build.ignore(row, _KNOWN | {id_name, text_name})
    build.ignore(row.get("metadata") or {}, frozenset(_META))


def _add_judgement(build: Builder, row: Row, at: At) -> None:
    (q_name, query), (d_name, doc), (g_name, grade) = (
        _field(row, names, f"the {what} of the judgement", at) for what, names in _QREL.items()
    )
    query_id, doc_id = as_id(query, q_name, at), as_id(doc, d_name, at)
    build.link(query_id, doc_id, as_grade(grade, f"{g_name} of the query {query_id!r}", at), at)
    build.ignore(row, frozenset([q_name, d_name, g_name, "iteration", "iter"]))


# --- writing ----------------------------------------------------------------------------------------------------------


def _title_and_text(dataset: EmbeddingQAFinetuneDataset, doc: str) -> tuple[str, str, str | None]:
    """Title, text, and the bare text if it is neither."""
    text, bare = dataset.corpus[doc], dataset.bare_texts.get(doc)
    if bare is None:
        return "", text, None
    title = text.removesuffix(f" {bare}")
    if len(title) < len(text) and title.strip():
        return title, bare, None
    return "", text, bare


def _corpus_rows(dataset: EmbeddingQAFinetuneDataset, *, columns: bool = False) -> Iterator[Row]:
    for doc in dataset.corpus:
        title, text, bare = _title_and_text(dataset, doc)
        meta = {"source_document": dataset.source_documents.get(doc), "bare_text": bare}
        row: Row = {"_id": doc, "title": title, "text": text}
        yield row | (meta if columns else {"metadata": _present(meta)})


def _query_rows(dataset: EmbeddingQAFinetuneDataset, *, columns: bool = False) -> Iterator[Row]:
    for query, text in dataset.queries.items():
        meta = {"reference_answer": dataset.reference_answers.get(query)}
        row: Row = {"_id": query, "text": text}
        yield row | (meta if columns else {"metadata": _present(meta)})


def _present(meta: dict[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in meta.items() if value is not None}


def _judgements(dataset: EmbeddingQAFinetuneDataset, names: tuple[str, str, str]) -> Iterator[Row]:
    for query, judged in dataset.qrels().items():
        for doc, grade in (judged | dict.fromkeys(dataset.negative_docs.get(query, ()), 0)).items():
            yield dict(zip(names, (query, doc, grade), strict=True))


_BEIR: Final = ("query-id", "corpus-id", "score")


def write_beir(
    dataset: EmbeddingQAFinetuneDataset, path: str | os.PathLike[str], lost: Counter[str], *, split: str = "test"
) -> int:
    """Write ``corpus.jsonl``, ``queries.jsonl`` and ``qrels/<split>.tsv``.

    Answers, sources and bare texts stand in ``metadata`` as ``reference_answer``, ``source_document``, ``bare_text``.
    """
    del lost
    _check_split(split)
    with write_folder_atomically(path) as folder:
        write_rows(_corpus_rows(dataset), folder / "corpus.jsonl")
        write_rows(_query_rows(dataset), folder / "queries.jsonl")
        return write_rows(_judgements(dataset, _BEIR), folder / "qrels" / f"{split}.tsv", _BEIR)


def write_mteb(
    dataset: EmbeddingQAFinetuneDataset,
    path: str | os.PathLike[str],
    lost: Counter[str],
    *,
    split: str = "test",
    container: str = "jsonl",
) -> int:
    """Write ``corpus``, ``queries`` and ``qrels/<split>``, each a file of ``container``: jsonl or parquet."""
    _check_split(split)
    if container not in ("jsonl", "parquet"):
        raise ConfigError(f"`container` must be 'jsonl' or 'parquet', got {container!r}.")
    lost["bare texts"] += sum(row["bare_text"] is not None for row in _corpus_rows(dataset, columns=True))
    with write_folder_atomically(path) as folder:
        write_rows(
            ({name: row[name] for name in ("_id", "title", "text")} for row in _corpus_rows(dataset)),
            folder / f"corpus.{container}",
        )
        write_rows(
            ({"_id": id_, "text": text} for id_, text in dataset.queries.items()), folder / f"queries.{container}"
        )
        (folder / "README.md").write_text(_mteb_card(split, container), encoding="utf-8")
        return write_rows(_judgements(dataset, _BEIR), folder / "qrels" / f"{split}.{container}", _BEIR)


def _mteb_card(split: str, container: str) -> str:
    """The configurations by which `datasets`, and so mteb, finds the three parts; qrels are the default one."""
    files = (("default", split, f"qrels/{split}"), ("corpus", "corpus", "corpus"), ("queries", "queries", "queries"))
    configs = "".join(
        f"- config_name: {name}\n  data_files:\n  - split: {part}\n    path: {path}.{container}\n"
        for name, part, path in files
    )
    return f"---\nconfigs:\n{configs}---\n"


def write_air_bench(
    dataset: EmbeddingQAFinetuneDataset, path: str | os.PathLike[str], lost: Counter[str], *, split: str = "dev"
) -> int:
    """Write ``corpus.jsonl`` and ``<split>_queries.jsonl`` (``id, text``) and ``qrels_<split>.jsonl``."""
    del lost
    _check_split(split)
    with write_folder_atomically(path) as folder:
        for name, texts in (("corpus", dataset.corpus), (f"{split}_queries", dataset.queries)):
            write_rows(({"id": id_, "text": text} for id_, text in texts.items()), folder / f"{name}.jsonl")
        names = ("qid", "docid", "relevance")
        return write_rows(_judgements(dataset, names), folder / f"qrels_{split}.jsonl", names)


def _check_split(split: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9]+", str(split)):
        raise ConfigError(f"`split` is a part of file names here: letters and digits, got {split!r}.")


def to_dataset_dict(dataset: EmbeddingQAFinetuneDataset) -> Any:
    """The three parts as a `datasets.DatasetDict` with the splits ``corpus``, ``queries`` and ``qrels``."""
    from datasets import DatasetDict

    class RetrievalDatasetDict(DatasetDict):  # type: ignore[misc, unused-ignore]
        """Three tables of different columns, which the hub takes as configurations and not as splits."""

        def push_to_hub(self, repo_id: str, *, split: str = "test", **options: Any) -> Any:
            """Push ``qrels`` as the default configuration, as mteb has it, and the others under their names."""
            names = {"qrels": ("default", split)}
            made = []
            for part, table in self.items():
                config, side = names.get(part, (part, part))
                made.append(table.push_to_hub(repo_id, config_name=config, split=side, **options))
            return made

    return RetrievalDatasetDict(
        {
            "corpus": to_table(_corpus_rows(dataset, columns=True)),
            "queries": to_table(_query_rows(dataset, columns=True)),
            "qrels": to_table(_judgements(dataset, _BEIR)),
        }
    )


def write_datasets(dataset: EmbeddingQAFinetuneDataset, path: str | os.PathLike[str], lost: Counter[str]) -> int:
    """Write `to_dataset_dict` as a folder of ``save_to_disk``."""
    del lost
    tables = to_dataset_dict(dataset)
    with write_folder_atomically(path) as folder:
        tables.save_to_disk(str(folder))
    return len(tables["qrels"])
