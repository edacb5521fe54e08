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

from llama_index_embft.dataset.formats.build import as_number, as_text, as_texts
from llama_index_embft.dataset.formats.rows import Row, read_rows
from llama_index_embft.dataset.sources import At, FaultError
from llama_index_embft.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llama_index_embft.dataset.formats.build import Builder
    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset

_NAMES: Final = {
    "anchor": ("anchor", "query", "question", "sentence1", "sentence_a", "text1"),
    "positive": ("positive", "pos", "positive_document", "answer", "sentence2", "sentence_b", "text2", "passage",
                 "document", "positives"),
    "negative": ("negative", "neg", "hard_negative_document", "hard_negative", "negatives"),
    "score": ("score", "label", "labels", "similarity", "similarity_score"),
}  # fmt: skip
_NUMBERED: Final = re.compile(r"(?:hard_)?neg(?:ative)?_?(\d+)")


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
