"""Documents that must never be negatives of a query, because they answer it, or most likely do.

These are its positives, texts that are exactly or nearly the same as one, and chunks that share text with one: the
splitter repeats the end of a chunk at the start of the next, and a parent chunk holds its children. Where queries are
documents too (duplicate questions, arguments), the query's own text is kept out as well: it is the most similar
document of all, and says nothing about what an answer looks like.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

import numpy as np

from llama_index_embft.dataset.near_duplicates import normalise
from llama_index_embft.dataset.prepared import own_text_documents, prepare_corpus

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset

POSITIVE: Final = "positive"
DUPLICATE: Final = "duplicate of a positive"
OVERLAP: Final = "overlap with a positive"
OWN_TEXT: Final = "the query's own text"

_SHARED: Final = 8  # words; a splitter repeats whole sentences, and fewer words are shared by chance
_CROWD: Final = 256  # so many chunks with one beginning share a page header


class ForbiddenNegatives:
    """Who must not be a negative of whom.

    Args:
        dataset: Queries, documents and positives.
        threshold: Overlap from which two texts count as the same, see `near_duplicate_groups`; 1.0 for equal words.
            None for equal texts, and then shared text is not looked for either.
        exclude_own_text: Keep out documents that are the query itself, word for word.
        show_progress: Show a bar over long work.

    Attributes:
        rows: For each query the forbidden corpus rows, sorted.
        counts: Rule -> number of (query, document) pairs that it forbids; each pair counts under the first rule.
    """

    def __init__(
        self,
        dataset: EmbeddingQAFinetuneDataset,
        threshold: float | None,
        *,
        exclude_own_text: bool = True,
        show_progress: bool,
    ) -> None:
        corpus = prepare_corpus(dataset)
        texts = corpus.bare_texts(dataset)
        groups: Sequence[int | str] = texts
        if threshold is not None:
            groups = corpus.near_duplicates(dataset, threshold, show_progress=show_progress)
        self._twins = _members(groups)
        self._overlaps = _overlaps(texts) if threshold is not None else {}
        own_text = own_text_documents(dataset) if exclude_own_text else {}
        rules = (POSITIVE, DUPLICATE, OVERLAP, OWN_TEXT) if own_text else (POSITIVE, DUPLICATE, OVERLAP)
        self.counts = dict.fromkeys(rules, 0)
        self.rows: list[NDArray[np.int64]] = []
        for query in dataset.queries:
            positives = {corpus.row_of[doc] for doc in dataset.relevant_docs[query]}
            twins = {twin for row in positives for twin in self._twins.get(row, ())}
            overlaps = {near for row in positives for near in self._overlaps.get(row, ())}
            itself = {corpus.row_of[doc] for doc in own_text.get(query, ())}
            kept_out: set[int] = set()
            for rule, found in zip(rules, (positives, twins, overlaps, itself), strict=False):
                self.counts[rule] += len(found - kept_out)
                kept_out |= found
            self.rows.append(np.array(sorted(kept_out), dtype=np.int64))
        self._n_docs = len(corpus.ids)
        owners = np.repeat(np.arange(len(self.rows)), [len(rows) for rows in self.rows])
        self._keys = owners * self._n_docs + np.concatenate([*self.rows, np.empty(0, dtype=np.int64)])

    def with_relatives(self, row: int) -> set[int]:
        """A document, those that say the same, and those that overlap it."""
        return {row, *self._twins.get(row, ()), *self._overlaps.get(row, ())}

    def allows(self, first_query: int, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which candidates may be negatives.

        Args:
            first_query: Number of the query of the first line.
            rows: Shape ``(n, m)``: candidates of n queries in a row; -1 for none, which is not allowed.
        """
        keys = (np.arange(first_query, first_query + len(rows))[:, None] * self._n_docs + rows).ravel()
        if not len(self._keys):
            return rows >= 0
        place = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        found: NDArray[np.bool_] = (rows >= 0) & (self._keys[place] != keys).reshape(rows.shape)
        return found


def _members(groups: Sequence[int | str]) -> dict[int, list[int]]:
    """Row -> the rows of its group, for groups of more than one."""
    by_group: defaultdict[int | str, list[int]] = defaultdict(list)
    for row, group in enumerate(groups):
        by_group[group].append(row)
    return {row: rows for rows in by_group.values() if len(rows) > 1 for row in rows}


def _overlaps(texts: Iterable[str]) -> dict[int, set[int]]:
    """Row -> rows of texts that begin where it ends, end where it begins, hold it or are held by it."""
    tokens = [normalise(text).split() for text in texts]
    starts: defaultdict[int, list[int]] = defaultdict(list)
    hashed = []
    for row, words in enumerate(tokens):
        runs = _runs(words)
        hashed.append(runs)
        if len(runs):
            starts[int(runs[0])].append(row)
    known = np.sort(np.fromiter(starts, dtype=np.int64, count=len(starts)))
    found: defaultdict[int, set[int]] = defaultdict(set)
    for row, runs in enumerate(hashed):
        if not len(runs):
            continue
        place = np.minimum(np.searchsorted(known, runs), len(known) - 1)
        for at in np.flatnonzero(known[place] == runs).tolist():
            others = starts[int(runs[at])]
            if at == 0 and len(others) > _CROWD:
                continue
            for other in others:
                if other != row and _agree(tokens[row], at, tokens[other]):
                    found[row].add(other)
                    found[other].add(row)
    return found


def _runs(words: list[str]) -> NDArray[np.int64]:
    """A hash of every run of eight words: ``(len(words) - 7,)``, or none."""
    if len(words) < _SHARED:
        return np.zeros(0, dtype=np.int64)
    codes = np.array([hash(word) for word in words], dtype=np.int64)
    mixed = np.zeros(len(words) - _SHARED + 1, dtype=np.int64)
    for offset in range(_SHARED):
        mixed = mixed * np.int64(0x5851F42D4C957F2D) + codes[offset : offset + len(mixed)]
    return mixed


def _agree(words: list[str], at: int, other: list[str]) -> bool:
    """Whether ``other`` is what stands in ``words`` from there on, as far as both go."""
    length = min(len(words) - at, len(other))
    return words[at + length - 1] == other[length - 1] and words[at : at + length] == other[:length]
