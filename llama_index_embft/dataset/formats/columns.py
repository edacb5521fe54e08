"""Rows of texts as sentence-transformers trains on them: pairs, triplets, n-tuples, scored pairs; and a table with ids.

The rows may be kept in JSON Lines, JSON, CSV, TSV, Parquet or a `datasets.Dataset` (see `_rows`). Their columns are
known by name, as many write them: ``anchor``/``query``/``question``, ``positive``/``pos``/``answer``, ``negative``,
``negative_1`` …, ``score``/``label``; ``Query``, ``Positive Document``, ``Hard Negative Document`` are those of
``infgrad/retrieval_data_llm``. Any other name is given in ``columns``.

Rows of one query, which has the same text in each, are put together. Ids are made of the texts.

Lost on writing: ids, grades, answers, bare texts, sources, and documents that no query names (``table`` keeps all of
these). ``pairs`` also loses negatives; ``triplets`` and ``ntuples`` lose queries without enough negatives, and
``ntuples`` the negatives beyond its n; ``infgrad`` has room for one positive and one negative of a query, its first.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from llama_index_embft.dataset.formats import trainer_rows
from llama_index_embft.dataset.formats._rows import Row, read_rows, write_rows
from llama_index_embft.dataset.formats._source import (
    At,
    FaultError,
    as_grade,
    as_id,
    as_number,
    as_text,
    as_texts,
)
from llama_index_embft.errors import ConfigError

if TYPE_CHECKING:
    import os
    from collections import Counter
    from collections.abc import Iterator, Mapping

    from llama_index_embft.dataset.formats._build import Builder
    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset

_NAMES: Final = {
    "anchor": ("anchor", "query", "question", "sentence1", "sentence_a", "text1"),
    "positive": ("positive", "pos", "positive_document", "answer", "sentence2", "sentence_b", "text2", "passage",
                 "document", "positives"),
    "negative": ("negative", "neg", "hard_negative_document", "hard_negative", "negatives"),
    "score": ("score", "label", "labels", "similarity", "similarity_score"),
}  # fmt: skip
_NUMBERED: Final = re.compile(r"(?:hard_)?neg(?:ative)?_?(\d+)")
INFGRAD: Final = ("Query", "Positive Document", "Hard Negative Document")


class _Columns:
    """Which column of a row is what.

    Raises:
        ConfigError: `given` names a part that there is not.
        FaultError: A column is missing.
    """

    def __init__(self, row: Row, given: Mapping[str, str] | None, at: At, *, scored: bool) -> None:
        unknown = [part for part in given or () if part not in _NAMES]
        if unknown:
            raise ConfigError(f"`columns` knows the parts {', '.join(_NAMES)}; got {unknown[0]!r}.")
        plain = {name: re.sub(r"[ -]+", "_", str(name).strip().lower()) for name in row}
        self._place = at
        self._found = {part: self._one(part, row, plain, (given or {}).get(part)) for part in _NAMES}
        numbered = [(int(match[1]), name) for name, text in plain.items() if (match := _NUMBERED.fullmatch(text))]
        self.negatives = [self._found["negative"]] if self._found["negative"] else []
        self.negatives += [name for _, name in sorted(numbered)]
        self.anchor = self._needed("anchor", row)
        self.positive = self._needed("positive", row)
        self.score = self._needed("score", row) if scored else self._found["score"]
        self.known = frozenset(name for name in (self.anchor, self.positive, self.score, *self.negatives) if name)

    def _one(self, part: str, row: Row, plain: dict[str, str], given: str | None) -> str | None:
        if given is not None:
            if given not in row:
                raise FaultError(self._place, "missing column", f"there is no column {given!r}; there are {_list(row)}")
            return given
        by_rank = {text: name for name, text in reversed(plain.items())}
        return next((by_rank[name] for name in _NAMES[part] if name in by_rank), None)

    def _needed(self, part: str, row: Row) -> str:
        name = self._found[part]
        if name is None:
            raise FaultError(
                self._place,
                "missing column",
                f"no column is known as the {part} among {_list(row)}; say which one it is: columns={{{part!r}: …}}",
            )
        return name


def _list(row: Row) -> str:
    names = [repr(name) for name in row]
    return ", ".join(names[:8]) + (", …" if len(names) > 8 else "") if names else "none"


def read(
    source: Any, build: Builder, *, split: str | None = None, columns: Mapping[str, str] | None = None
) -> EmbeddingQAFinetuneDataset:
    """Read pairs, triplets and n-tuples: every row has a query, a positive, and none or more negatives.

    A ``label`` that holds a list, as for distillation, is the scores of the positive and of each negative.

    An empty cell is no negative: tables need them where queries have fewer.

    Args:
        source: See `read_rows`.
        build: What collects.
        split: The split of a `DatasetDict`.
        columns: ``anchor``, ``positive``, ``negative``, ``score`` -> the name of the column, where it is not known.
    """
    for at, row in read_rows(source, build, split=split):
        with build.row():
            names = _Columns(row, columns, at, scored=False)
            query = as_text(row[names.anchor], names.anchor, at)
            positives = as_texts(row[names.positive], names.positive, at)
            if not positives:
                raise FaultError(at, "row without a positive", f"the row has no {names.positive}")
            cells = [(name, row.get(name)) for name in names.negatives]
            negatives = [text for name, cell in cells if cell not in (None, "") for text in as_texts(cell, name, at)]
            scores = _list_of_scores(row, names, len(positives) + len(negatives), at)
            query_id = build.add_query(query, at)
            _link(build, query_id, positives, negatives, scores, at)
            build.ignore(row, names.known)
    return build.finish()


def _link(build: Builder, query: str, positives: list[str], negatives: list[str], scores: list[float], at: At) -> None:
    for number, text in enumerate([*positives, *negatives]):
        doc = build.add_document(text, at)
        build.link(query, doc, int(number < len(positives)), at)
        if scores:
            build.score(query, doc, scores[number])


def _list_of_scores(row: Row, names: _Columns, count: int, at: At) -> list[float]:
    value = row.get(names.score) if names.score else None
    if value is None or value == "":
        return []
    if not isinstance(value, (list, tuple)):
        raise FaultError(
            at, "score beside a positive", f"a row with one {names.score} is a scored pair; read it as 'scored'"
        )
    if len(value) != count:
        raise FaultError(at, "scores of a wrong number", f"{len(value)} scores for {count} texts")
    return [as_number(item, f"{names.score}[{n}]", at) for n, item in enumerate(value)]


def read_scored(
    source: Any,
    build: Builder,
    *,
    split: str | None = None,
    columns: Mapping[str, str] | None = None,
    threshold: float = 0.5,
) -> EmbeddingQAFinetuneDataset:
    """Read scored pairs: a document is relevant from ``threshold`` on, and a negative below.

    Queries without a relevant document are left out and counted.

    Args:
        source: See `read_rows`.
        build: What collects.
        split: The split of a `DatasetDict`.
        columns: See `read`; ``anchor`` and ``positive`` are the two texts.
        threshold: The lowest score of a relevant document; half of the usual scale of 0 to 1.
    """
    for at, row in read_rows(source, build, split=split):
        with build.row():
            names = _Columns(row, columns, at, scored=True)
            query = as_text(row[names.anchor], names.anchor, at)
            text = as_text(row[names.positive], names.positive, at)
            value = as_number(row[str(names.score)], str(names.score), at)
            query_id, doc = build.add_query(query, at), build.add_document(text, at)
            build.link(query_id, doc, int(value >= threshold), at)
            build.score(query_id, doc, value)
            build.ignore(row, names.known)
    if all(value in (0.0, 1.0) for scores in build.scores.values() for value in scores.values()):
        build.scores.clear()  # labels, not a teacher's scores
    return build.finish(leave_out_unjudged=f"query without a pair of a score from {threshold:g}")


# --- writing ----------------------------------------------------------------------------------------------------------


def write_pairs(dataset: EmbeddingQAFinetuneDataset, path: str | os.PathLike[str], lost: Counter[str]) -> int:
    """``anchor, positive``: a row for each query and relevant document."""
    del lost
    return write_rows(trainer_rows.pairs(dataset), path, ("anchor", "positive"))


def write_triplets(dataset: EmbeddingQAFinetuneDataset, path: str | os.PathLike[str], lost: Counter[str]) -> int:
    """``anchor, positive, negative``: a row for each query, relevant document and negative."""
    _count_short(dataset, 1, lost)
    return write_rows(trainer_rows.triplets(dataset), path, ("anchor", "positive", "negative"))


def write_ntuples(
    dataset: EmbeddingQAFinetuneDataset, path: str | os.PathLike[str], lost: Counter[str], *, n: int | None = None
) -> int:
    """``anchor, positive, negative_1 … negative_n``.

    Args:
        dataset: A data set with negatives.
        path: See `write_rows`.
        lost: Counts queries with fewer negatives, and the negatives of others beyond ``n``.
        n: Negatives a row; None takes as many as every query with negatives has.

    Raises:
        ConfigError: No query has ``n`` negatives, or ``n`` is below 1.
    """
    counts = [len(docs) for docs in dataset.negative_docs.values() if docs]
    wanted = min(counts, default=0) if n is None else n
    if not counts:
        raise ConfigError("The data set has no negatives; mine some first (`embft mine`) or write pairs.")
    _count_short(dataset, wanted, lost)
    lost[f"negatives beyond {wanted} a query"] += sum(count - wanted for count in counts if count > wanted)
    return write_rows(trainer_rows.ntuples(dataset, wanted), path)


def write_scored(
    dataset: EmbeddingQAFinetuneDataset,
    path: str | os.PathLike[str],
    lost: Counter[str],
    *,
    teacher_scores: bool = True,
) -> int:
    """``sentence1, sentence2, score``: a row for each query and document.

    Args:
        dataset: A data set.
        path: See `write_rows`.
        lost: Counts the pairs without a score.
        teacher_scores: Write the teacher's scores, if the data set has some, and leave out the pairs without one;
            otherwise positives have 1.0 and negatives 0.0.
    """
    scores = dataset.teacher_scores if teacher_scores else {}
    pairs = sum(map(len, dataset.relevant_docs.values())) + sum(map(len, dataset.negative_docs.values()))
    rows = write_rows(trainer_rows.labelled_pairs(dataset, scores or None), path, ("sentence1", "sentence2", "score"))
    lost["pairs without a score"] += pairs - rows
    return rows


def write_infgrad(dataset: EmbeddingQAFinetuneDataset, path: str | os.PathLike[str], lost: Counter[str]) -> int:
    """``Query, Positive Document, Hard Negative Document``, one row a query, as ``infgrad/retrieval_data_llm``."""
    _count_short(dataset, 1, lost)
    for query, docs in dataset.negative_docs.items():
        lost["negatives beyond 1 a query"] += max(0, len(docs) - 1)
        lost["relevant documents beyond 1 a query"] += len(dataset.relevant_docs[query]) - 1 if docs else 0

    def rows() -> Iterator[Row]:
        for query, docs in dataset.negative_docs.items():
            if docs:
                first = dataset.relevant_docs[query][0]
                texts = (dataset.queries[query], dataset.corpus[first], dataset.corpus[docs[0]])
                yield dict(zip(INFGRAD, texts, strict=True))

    return write_rows(rows(), path, INFGRAD)


def _count_short(dataset: EmbeddingQAFinetuneDataset, n: int, lost: Counter[str]) -> None:
    short = [query for query in dataset.queries if len(dataset.negative_docs.get(query, ())) < n]
    lost[f"queries with fewer than {n} negative documents"] += len(short)


# --- the table --------------------------------------------------------------------------------------------------------

TABLE: Final = (
    "query_id", "query", "document_id", "document", "relevance", "answer", "source_document", "bare_text",
)  # fmt: skip


def read_table(source: Any, build: Builder, *, split: str | None = None) -> EmbeddingQAFinetuneDataset:
    """Read a row for each judgement, with ids: the columns are those of `TABLE`, of which only the texts are needed.

    ``relevance`` is the grade, 1 where it is missing; 0 and below is a negative. A row without a query is a document.
    """
    for at, row in read_rows(source, build, split=split):
        with build.row():
            known = {name: None if row.get(name) in (None, "") else row[name] for name in TABLE}
            texts = {
                name: as_text(known[name], name, at)
                for name in ("query", "document", "answer", "source_document", "bare_text")
                if known[name] is not None or name == "document"
            }
            ids = {
                name: None if known[name] is None else as_id(known[name], name, at)
                for name in ("query_id", "document_id")
            }
            grade = 1 if known["relevance"] is None else as_grade(known["relevance"], "relevance", at)
            doc = build.add_document(
                texts["document"],
                at,
                ids["document_id"],
                bare=texts.get("bare_text"),
                source=texts.get("source_document"),
            )
            if "query" in texts:
                query = build.add_query(texts["query"], at, ids["query_id"])
                build.link(query, doc, grade, at)
                if "answer" in texts:
                    build.add_answer(query, texts["answer"], at)
            elif ids["query_id"] is not None:
                raise FaultError(at, "empty text", f"the query {ids['query_id']!r} has no text")
            build.ignore(row, frozenset(TABLE))
    return build.finish()


def write_table(dataset: EmbeddingQAFinetuneDataset, path: str | os.PathLike[str], lost: Counter[str]) -> int:
    """Write a row for each judgement, and one without a query for each document that no query names."""
    del lost

    def row(doc: str, query: str | None = None, relevance: int | None = None) -> Row:
        return {
            "query_id": query,
            "query": None if query is None else dataset.queries[query],
            "document_id": doc,
            "document": dataset.corpus[doc],
            "relevance": relevance,
            "answer": None if query is None else dataset.reference_answers.get(query),
            "source_document": dataset.source_documents.get(doc),
            "bare_text": dataset.bare_texts.get(doc),
        }

    def rows() -> Iterator[Row]:
        named: set[str] = set()
        for query, judged in dataset.qrels().items():
            for doc, grade in (judged | dict.fromkeys(dataset.negative_docs.get(query, ()), 0)).items():
                named.add(doc)
                yield row(doc, query, grade)
        yield from (row(doc) for doc in dataset.corpus if doc not in named)

    return write_rows(rows(), path, TABLE)
