"""Find texts that say nearly the same.

Two texts are near-duplicates when their sets of three-token shingles overlap by at least a threshold (Jaccard). MinHash
with locality-sensitive hashing finds the candidates, and each candidate pair is then checked exactly, so that no pair
is reported which is not one.
"""

from __future__ import annotations

import re
import zlib
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from llama_index_embft._core.language import COMBINING_MARKS, composed
from llama_index_embft.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    Shingles = NDArray[np.uint64]  # (n_shingles,), sorted, distinct
    # The texts that share a band: mostly one alone; several are kept by set, so that ten thousand copies of one
    # template are looked at once, and not in all pairs.
    Bucket = int | dict[int, list[int]]

# Scripts written without spaces count by character, all others by word: Thai to Burmese, Tibetan, Khmer, Chinese and
# Japanese, and the rarer Chinese characters. (Korean has spaces.)
_NO_SPACES: Final = (
    "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\U00020000-\U0003ffff"
)
_TOKEN: Final = re.compile(rf"[{_NO_SPACES}]|(?:[^\W{_NO_SPACES}]|[{COMBINING_MARKS}])+")
_SHINGLE: Final = 3
# 128 permutations miss five in 100,000 pairs that lie right at the threshold of 0.8 (25 bands of 5 rows), and far fewer
# above it; their cost is small beside that of cutting texts into words.
_PERMUTATIONS: Final = 128
_MISSED: Final = 1e-4
# A bucket of more sets than this is compared in blocks: texts waiting x members, as a product of matrices.
_CROWD, _BLOCK, _COLUMNS = 16, 512, 8192


def near_duplicate_groups(texts: Sequence[str], threshold: float = 0.8, *, show_progress: bool = True) -> list[int]:
    """Group texts that say nearly the same.

    Deterministic; the grouping does not depend on the order of the texts. Case, punctuation and spacing are ignored.
    Groups are transitive: a text is in a group when it is a near-duplicate of one of its members. Takes about 0.25 ms
    and 6 KB for a text of 200 words.

    Args:
        texts: Any texts, in any language.
        threshold: Smallest Jaccard overlap of the shingles, above 0 and at most 1. At 0.8 one changed word in 27 still
            counts as a near-duplicate, at 0.9 one in 57.
        show_progress: Show a bar if it takes more than two seconds.

    Returns:
        A group number for each text, counted from 0 in the order of first appearance.

    Raises:
        ConfigError: ``threshold`` is not in (0, 1].
    """
    if not 0.0 < threshold <= 1.0:
        raise ConfigError(f"The near-duplicate threshold must be above 0 and at most 1, got {threshold}.")
    keys = [normalise(text) or text for text in texts]
    distinct = list(dict.fromkeys(keys))  # equal texts are joined here, so that a thousand copies cost as one
    groups = DisjointSets(len(distinct))
    if threshold < 1.0 and len(distinct) > 1:
        _join_similar(distinct, threshold, groups, show_progress)
    number_of_key = dict(zip(distinct, groups.numbers(), strict=True))
    return [number_of_key[key] for key in keys]


def normalise(text: str) -> str:
    """Reduce a text to its tokens: compatible characters unified, case folded, no punctuation, single spaces."""
    return " ".join(_TOKEN.findall(composed(text).casefold()))


class DisjointSets:
    """Union-find over ``0 .. n - 1``."""

    def __init__(self, n: int) -> None:
        self._parent = list(range(n))

    def find(self, item: int) -> int:
        """Representative of the item's set: its smallest member."""
        parent = self._parent
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    def join(self, a: int, b: int) -> None:
        """Make one set of the sets of two items."""
        a, b = self.find(a), self.find(b)
        self._parent[max(a, b)] = min(a, b)

    def numbers(self) -> list[int]:
        """Number of each item's set, counted from 0 in the order of first appearance."""
        number: dict[int, int] = {}
        return [number.setdefault(self.find(item), len(number)) for item in range(len(self._parent))]


def _join_similar(distinct: list[str], threshold: float, groups: DisjointSets, show_progress: bool) -> None:
    shingled: list[Shingles] = []
    bands, rows = _bands(threshold)
    tables: list[dict[bytes, Bucket]] = [{} for _ in range(bands)]
    waiting: list[int] = []
    crowds: dict[int, dict[int, list[int]]] = {}
    for item, (shingles, signature) in enumerate(minhash_signatures(_bar(distinct, show_progress))):
        shingled.append(shingles)
        keys = [signature[band * rows : (band + 1) * rows].tobytes() for band in range(bands)]
        candidates: dict[int, list[list[int]]] = {}
        for table, key in zip(tables, keys, strict=True):
            bucket = table.get(key)
            if isinstance(bucket, dict) and len(bucket) > _CROWD:
                crowds[id(bucket)] = bucket
                if waiting[-1:] != [item]:
                    waiting.append(item)
                continue
            for root, members in _by_set(bucket, groups).items():
                candidates.setdefault(root, []).append(members)
        for root, member_lists in candidates.items():
            # One true neighbour is enough to join a whole set; the next members are not even looked at.
            if any(_overlap(shingles, shingled[other]) >= threshold for other in _distinct(member_lists)):
                groups.join(item, root)
        for table, key in zip(tables, keys, strict=True):
            _put(table, key, item, groups)
        if len(waiting) == _BLOCK:
            _join_crowds(waiting, crowds, shingled, threshold, groups)
    _join_crowds(waiting, crowds, shingled, threshold, groups)


def _join_crowds(
    waiting: list[int],
    crowds: dict[int, dict[int, list[int]]],
    shingled: list[Shingles],
    threshold: float,
    groups: DisjointSets,
) -> None:
    """Compare texts with crowded buckets, many pairs at once; both are empty afterwards.

    Forms that share most of their words fall into the same buckets though they are no near-duplicates. Pair by pair
    that takes minutes; as products of matrices of shingles it takes seconds.
    """
    members = sorted({item for bucket in crowds.values() for items in bucket.values() for item in items})
    for start in range(0, len(members), _COLUMNS):
        some = members[start : start + _COLUMNS]
        for row, column in _similar_pairs([shingled[n] for n in waiting], [shingled[n] for n in some], threshold):
            groups.join(waiting[row], some[column])
    waiting.clear()
    crowds.clear()


def _similar_pairs(rows: list[Shingles], columns: list[Shingles], threshold: float) -> Iterator[tuple[int, int]]:
    """Places of pairs whose overlap is at least the threshold; a text and itself are such a pair."""
    import numpy as np
    from scipy.sparse import csr_matrix  # type: ignore[import-untyped, unused-ignore]

    vocabulary = np.unique(np.concatenate(rows))

    def incidence(texts: list[Shingles]) -> Any:
        shingles = np.concatenate(texts)
        owner = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
        place = np.minimum(np.searchsorted(vocabulary, shingles), len(vocabulary) - 1)
        known = vocabulary[place] == shingles
        data = np.ones(int(known.sum()), dtype=np.float32)
        return csr_matrix((data, (owner[known], place[known])), shape=(len(texts), len(vocabulary)))

    ours, theirs = incidence(rows), incidence(columns)
    # What most texts share is multiplied densely, the long rest of rare shingles sparsely.
    often = np.asarray(theirs.sum(axis=0)).ravel() > len(columns) / 16
    common = (ours[:, ~often] @ theirs[:, ~often].T).toarray() + ours[:, often].toarray() @ theirs[:, often].toarray().T
    sizes = [np.array([len(text) for text in texts], dtype=np.float64) for texts in (rows, columns)]
    overlap = common / (sizes[0][:, None] + sizes[1][None, :] - common)
    yield from zip(*(places.tolist() for places in np.nonzero(overlap >= threshold)), strict=True)


def _put(table: dict[bytes, Bucket], key: bytes, item: int, groups: DisjointSets) -> None:
    bucket = table.get(key)
    if bucket is None:
        table[key] = item
        return
    if isinstance(bucket, int):
        bucket = table[key] = {groups.find(bucket): [bucket]}
    bucket.setdefault(groups.find(item), []).append(item)


def _by_set(bucket: Bucket | None, groups: DisjointSets) -> dict[int, list[int]]:
    """Give a bucket's members under the root that their set has now; sets may have been joined since the last look."""
    if bucket is None:
        return {}
    if isinstance(bucket, int):
        return {groups.find(bucket): [bucket]}
    for root in [root for root in bucket if groups.find(root) != root]:
        bucket.setdefault(groups.find(root), []).extend(bucket.pop(root))
    return bucket


def _distinct(lists: list[list[int]]) -> Iterator[int]:
    seen: set[int] = set()
    for item in chain.from_iterable(lists):
        if item not in seen:
            seen.add(item)
            yield item


def minhash_signatures(texts: Iterable[str]) -> Iterator[tuple[Shingles, NDArray[np.uint64]]]:
    """Yield the shingles of each text, as `normalise` gives it, and its MinHash signature, shape ``(128,)``."""
    import numpy as np
    from datasketch import MinHash

    # Shingles are hashed already; MinHash wants 32 bits, and the upper half of a product is the well-mixed one.
    blank = MinHash(num_perm=_PERMUTATIONS, seed=1, hashfunc=int)
    word_hashes: dict[str, int] = {}
    for text in texts:
        shingles = _shingles(text, word_hashes)
        minhash = blank.copy()
        minhash.update_batch((shingles >> np.uint64(32)).tolist())
        yield shingles, minhash.hashvalues


def _shingles(text: str, word_hashes: dict[str, int]) -> Shingles:
    import numpy as np

    words = text.split(" ")
    for word in words:
        if word not in word_hashes:
            word_hashes[word] = zlib.crc32(word.encode("utf-8", "surrogatepass"))  # `hash` differs from run to run
    hashes = np.array([word_hashes[word] for word in words], dtype=np.uint64)
    width = min(_SHINGLE, len(hashes))
    mixed = np.zeros(len(hashes) - width + 1, dtype=np.uint64)
    for offset in range(width):
        mixed = (mixed ^ hashes[offset : len(hashes) - width + 1 + offset]) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    return np.unique(mixed)


def _overlap(a: Shingles, b: Shingles) -> float:
    import numpy as np

    common = np.intersect1d(a, b, assume_unique=True).size
    return float(common / (a.size + b.size - common))


def _bands(threshold: float) -> tuple[int, int]:
    """Choose the widest bands (fewest false candidates) that miss next to no pair at the threshold."""
    for rows in range(16, 1, -1):
        bands = _PERMUTATIONS // rows
        if (1.0 - threshold**rows) ** bands <= _MISSED:
            return bands, rows
    return _PERMUTATIONS, 1


def _bar(texts: list[str], show_progress: bool) -> Iterable[str]:
    from tqdm.auto import tqdm

    bar: Iterable[str] = tqdm(
        texts, desc="Near-duplicates", unit="text", delay=2, leave=False, disable=not show_progress
    )
    return bar
