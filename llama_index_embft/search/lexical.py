"""BM25 over texts with ids: what a search by words finds, and how well given texts match."""

from __future__ import annotations

import json
from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from llama_index_embft._core.checks import check_number, first_line
from llama_index_embft.errors import ConfigError, ModelError
from llama_index_embft.search.tokenizing import WORDS_VERSION, terms
from llama_index_embft.search.topk import TopK

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from numpy.typing import NDArray
    from typing_extensions import Self

_ABOUT: Final = "lexical.json"
_TOKENS: Final = "tokens.npz"


class LexicalIndex:
    """A BM25 index (Lucene's form, k1 1.5, b 0.75), kept as bm25s keeps it.

    Build it with `build`, or read it with `load`. It keeps the words of its texts as numbers, so that `updated`
    needs the texts of new documents only.

    Attributes:
        ids: Ids of the texts; rows of results are places in it.
        tokens: How a text or query is cut into words.
    """

    def __init__(
        self,
        ids: Sequence[str],
        numbers: list[NDArray[np.int32]],
        vocabulary: dict[str, int],
        tokens: Callable[[str], list[str]] = terms,
        bm25: Any = None,
    ) -> None:
        self.ids = tuple(ids)
        self.tokens = tokens
        self._numbers = numbers  # of the words of each text
        self._vocabulary = vocabulary
        self._bm25 = _bm25_of(numbers, vocabulary) if bm25 is None else bm25

    @classmethod
    def build(cls, texts: Mapping[str, str], *, tokens: Callable[[str], list[str]] = terms) -> Self:
        """Index texts.

        Takes about 0.25 ms and 3 KB for a text of 150 words.

        Args:
            texts: Id to text. Equal texts under several ids are several documents.
            tokens: Cuts a text into words.

        Raises:
            ConfigError: There are no texts.
        """
        if not texts:
            raise ConfigError("There are no texts to search by words; give at least one.")
        vocabulary: dict[str, int] = {}
        numbers = [_numbered(tokens(text), vocabulary) for text in texts.values()]
        return cls(list(texts), numbers, vocabulary, tokens)

    def updated(self, added: Mapping[str, str], removed: Collection[str] = ()) -> Self:
        """The index with other documents, equal to one that is built anew; this one stays as it is.

        Args:
            added: Id to text; an id that is there already gets its new text.
            removed: Ids to leave out; those that are not there are ignored.

        Raises:
            ConfigError: Nothing would be left.
        """
        gone = {*removed, *added}
        kept = [row for row, doc in enumerate(self.ids) if doc not in gone]
        vocabulary = dict(self._vocabulary)
        numbers = [self._numbers[row] for row in kept]
        numbers += [_numbered(self.tokens(text), vocabulary) for text in added.values()]
        if not numbers:
            raise ConfigError("No text would be left to search by words; keep at least one.")
        return type(self)([*(self.ids[row] for row in kept), *added], numbers, vocabulary, self.tokens)

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def row_of(self) -> dict[str, int]:
        """Id to row."""
        return {doc: row for row, doc in enumerate(self.ids)}

    def search(self, queries: str | Sequence[str], k: int) -> TopK:
        """The best ``k`` texts for each query; only those that share a word with it.

        Args:
            queries: Questions or words; one is a list of one.
            k: Hits per query, at least 1. Where fewer texts share a word, the rest is row -1 with score -inf.

        Returns:
            Rows and scores, shape ``(n, k)``; of equal scores the lower row comes first.

        Raises:
            ConfigError: ``k`` is below 1.
        """
        check_number("k", k, at_least=1)
        queries = [queries] if isinstance(queries, str) else queries  # not its letters
        rows = np.full((len(queries), k), -1, dtype=np.int64)
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        for line, query in enumerate(queries):
            values = self._scores(query)
            hits = np.flatnonzero(values > 0)
            if len(hits) > k:  # those at least as good as the k-th, its equals too: the order decides between them
                bound = np.partition(values[hits], len(hits) - k)[len(hits) - k]
                hits = hits[values[hits] >= bound]
            best = hits[np.argsort(-values[hits], kind="stable")[:k]]
            rows[line, : len(best)], scores[line, : len(best)] = best, values[best]
        return TopK(rows, scores)

    def scores_of(self, queries: Sequence[str], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Scores of chosen texts, the same as `search` gives.

        Args:
            queries: Questions or words.
            rows: Shape ``(n, m)``: rows for each query; -1 for none.

        Returns:
            Shape ``(n, m)``: 0 where no word is shared, -inf where the row is -1.

        Raises:
            ConfigError: A row does not exist, or the shape does not fit.
        """
        if rows.ndim != 2 or len(rows) != len(queries):
            raise ConfigError(
                f"`rows` has the shape {rows.shape}; it must be (n_queries, m) for {len(queries)} queries."
            )
        if rows.size and (rows.min() < -1 or rows.max() >= len(self)):
            raise ConfigError(f"`rows` names rows outside the index, which has {len(self)}; give -1 for none.")
        found = [self._scores(query)[line] for query, line in zip(queries, rows, strict=True)]
        return np.where(rows >= 0, np.array(found, dtype=np.float32).reshape(rows.shape), np.float32(-np.inf))

    def save(self, folder: str | Path) -> None:
        """Write the index into a folder that exists: bm25s's files, the ids, and the words of the texts; no pickle."""
        folder = Path(folder)
        self._bm25.save(folder, show_progress=False)
        lengths = np.array([len(some) for some in self._numbers], dtype=np.int64)
        np.savez(folder / _TOKENS, numbers=np.concatenate(self._numbers), lengths=lengths)
        about = {"ids": self.ids, "tokens": _name_of(self.tokens)}
        (folder / _ABOUT).write_text(json.dumps(about), encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path, *, tokens: Callable[[str], list[str]] = terms) -> Self:
        """Read what `save` wrote.

        Args:
            folder: Where it lies.
            tokens: The function that it was built with.

        Raises:
            ModelError: It is not there, damaged, or was built with another function.
        """
        import bm25s

        folder = Path(folder)
        try:
            about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
            ids, built_with = [str(doc) for doc in about["ids"]], about["tokens"]
            with np.load(folder / _TOKENS, allow_pickle=False) as kept:
                numbers, lengths = kept["numbers"].astype(np.int32), kept["lengths"].astype(np.int64)
            bm25 = bm25s.BM25.load(folder, show_progress=False)
            vocabulary = {word: int(number) for word, number in bm25.vocab_dict.items() if word}
            _check(bm25.scores, ids, numbers, lengths, vocabulary)
        except Exception as err:  # bm25s, numpy and json each have their own
            raise ModelError(
                f"The lexical index in {folder} cannot be read ({first_line(err)}); build it again from its texts."
            ) from err
        if built_with != _name_of(tokens):
            raise ModelError(
                f"The lexical index in {folder} was built with words cut by {built_with}, not by {_name_of(tokens)}; "
                "load it with that function, or build it again."
            )
        return cls(ids, np.split(numbers, np.cumsum(lengths)[:-1]), vocabulary, tokens, bm25)

    def _scores(self, query: str) -> NDArray[np.float32]:
        """BM25 of every text: each word of the query once, times how often it stands there."""
        known = Counter(number for word in self.tokens(query) if (number := self._vocabulary.get(word)) is not None)
        kept = self._bm25.scores
        values = np.zeros(len(self), dtype=np.float64)
        for number, times in known.items():
            part = slice(kept["indptr"][number], kept["indptr"][number + 1])
            values[kept["indices"][part]] += times * kept["data"][part]  # a text stands once in a word's list
        return values.astype(np.float32)


def _numbered(found: Iterable[str], vocabulary: dict[str, int]) -> NDArray[np.int32]:
    return np.array([vocabulary.setdefault(word, len(vocabulary)) for word in found], dtype=np.int32)


def _bm25_of(numbers: list[NDArray[np.int32]], vocabulary: dict[str, int]) -> Any:
    """What ``bm25s.BM25().index`` makes of these texts, in a tenth of the time.

    An index that follows its nodes is made again at every change, and bm25s goes over the texts in Python.
    """
    import bm25s

    bm25 = bm25s.BM25()
    n, lengths = len(numbers), np.array([len(some) for some in numbers])
    owners = np.repeat(np.arange(n, dtype=np.int64), lengths)
    # By word, then text; in 64 bits, for numpy 1 would keep the 32 of the words.
    pairs, counts = np.unique(np.concatenate(numbers).astype(np.int64) * n + owners, return_counts=True)
    word, text = np.divmod(pairs, n)
    holding = np.bincount(word, minlength=len(vocabulary))  # texts that hold a word
    idf = np.log(1 + (n - holding + 0.5) / (holding + 0.5))
    length = bm25.k1 * (1 - bm25.b + bm25.b * lengths / max(lengths.mean(), 1e-9))
    bm25.scores = {
        "data": (idf[word] * counts / (counts + length[text])).astype(np.float32),
        "indices": text.astype(np.int32),
        "indptr": np.concatenate([[0], np.cumsum(holding)]).astype(np.int64),
        "num_docs": n,
    }
    bm25.vocab_dict, bm25.unique_token_ids_set = dict(vocabulary), set(vocabulary.values())
    bm25.nonoccurrence_array = None
    return bm25


def _name_of(tokens: Callable[[str], list[str]]) -> str:
    if tokens is terms:
        return f"terms {WORDS_VERSION}"
    module = getattr(tokens, "__module__", None) or "builtins"
    return f"{module}.{getattr(tokens, '__qualname__', type(tokens).__qualname__)}"


def _check(scores: Any, ids: list[str], numbers: Any, lengths: Any, vocabulary: dict[str, int]) -> None:
    """Make sure that the files fit each other, before a search reads past an end.

    Raises:
        ValueError: They do not.
    """
    data, indices, indptr = scores["data"], scores["indices"], scores["indptr"]
    n = len(ids)
    fits = (
        len(set(ids)) == n == scores["num_docs"] == len(lengths)
        and len(data) == len(indices) == indptr[-1]
        and (np.diff(indptr) >= 0).all()
        and (not len(indices) or 0 <= indices.min() <= indices.max() < n)
        and lengths.min() >= 0
        and lengths.sum() == len(numbers)
        and (not len(numbers) or 0 <= numbers.min() <= numbers.max() < len(vocabulary))
        and all(0 <= number < len(indptr) - 1 for number in vocabulary.values())
        and bool(np.isfinite(data).all())
    )
    if not fits:
        raise ValueError("its files do not belong together")
