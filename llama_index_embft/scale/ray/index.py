"""A corpus that is searched in parts, each part by a worker of its own; the answer is that of one search."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from llama_index_embft._core.checks import check_number
from llama_index_embft.errors import ConfigError
from llama_index_embft.scale.ray.cluster import remote
from llama_index_embft.search.rows import EmbeddingRows
from llama_index_embft.search.topk import ExactIndex, TopK, descending

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from llama_index_embft.search.rows import Similarity


class CorpusPart(NamedTuple):
    """Some rows of the corpus, one after the other.

    Attributes:
        first: Number of the first row.
        ids: Ids of the rows.
        data: Where the vectors are: a reference to an array in Ray's object store, or shard files in order.
    """

    first: int
    ids: list[str]
    data: Any


class PartSettings(NamedTuple):
    """How each part is searched."""

    kind: str  # exact, hnsw or ivf
    similarity: Similarity
    memory: int
    device: str


class PartDescription(NamedTuple):
    """What a worker says of its part."""

    dim: int
    warnings: list[str]
    error: str | None


class PartSearcher:
    """Searches one part; runs in a Ray actor, and is made again on another machine where its own is lost.

    Args:
        first: See `CorpusPart`.
        ids: See `CorpusPart`.
        data: See `CorpusPart`; an argument of its own, since Ray puts the array in the place of its reference.
        settings: How to search.
    """

    def __init__(self, first: int, ids: list[str], data: Any, settings: PartSettings) -> None:
        part = CorpusPart(first, ids, data)
        self._first = part.first
        self.description = PartDescription(0, [], None)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                self._index = self._build(part, settings)
                self.description = PartDescription(self._index.corpus.dim, [str(w.message) for w in caught], None)
            except ConfigError as err:  # a constructor that raises would be tried again for ever
                last = part.first + len(part.ids) - 1
                self.description = PartDescription(0, [], f"Rows {part.first} to {last} of the corpus: {err}")

    @staticmethod
    def _build(part: CorpusPart, settings: PartSettings) -> ExactIndex:
        import torch

        from llama_index_embft.search.approximate import ApproximateIndex

        vectors = _vectors(part.data)
        order = descending(part.ids)
        if settings.kind == "exact":
            device = torch.device(settings.device)
            return ExactIndex(
                vectors, similarity=settings.similarity, device=device, memory=settings.memory, tie_order=order
            )
        kind: Any = settings.kind
        return ApproximateIndex(vectors, kind, similarity=settings.similarity, memory=settings.memory, tie_order=order)

    def describe(self) -> PartDescription:
        """Width, warnings and error."""
        return self.description

    def search(
        self, queries: Any, k: int, counts: NDArray[np.int64], excluded: NDArray[np.int64], exactly: bool
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The best ``k`` rows of this part, by their numbers in the corpus.

        Args:
            queries: Shape ``(n, dim)``.
            k: Depth.
            counts: Shape ``(n,)``: how many of ``excluded`` belong to each query.
            excluded: Rows that must not come back, query after query.
            exactly: Search exactly with an approximate index too.
        """
        exclude = np.split(excluded - self._first, np.cumsum(counts)[:-1])
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="`queries`: .* are all zeros")  # said once, by the caller
            find = ExactIndex.search if exactly else type(self._index).search
            found = find(self._index, queries, min(k, self._index.corpus.n), exclude=exclude)
        return np.where(found.rows >= 0, found.rows + self._first, -1), found.scores

    def scores(self, queries: Any, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Scores of chosen pairs; rows count from the start of this part."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="`queries`: .* are all zeros")
            return self._index.scores(queries, rows)

    def products(self, queries: Any, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Scores of all queries with some documents; rows count from the start of this part."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="`queries`: .* are all zeros")
            return self._index.products(queries, rows)


def _vectors(data: Any) -> NDArray[np.float32]:
    if isinstance(data, np.ndarray):
        return data
    from llama_index_embft.scale.ray.manifest import read_shard

    files: Sequence[Path] = data
    return np.concatenate([read_shard(file).vectors for file in files])


class ShardedIndex(ExactIndex):
    """`ExactIndex`, or with FAISS `ApproximateIndex`, over a corpus in parts.

    Exact search gives the same rows in the same order, and the same bits, as one index over the whole corpus: scores do
    not depend on what else is in the matrix, and ties are broken by id among all parts.

    Args:
        parts: The parts, in order; together they are the corpus.
        settings: How to search them.
        gpus: GPUs of each worker.

    Raises:
        ConfigError: The corpus holds NaN or infinity, or parts have different widths.
    """

    def __init__(self, parts: Sequence[CorpusPart], settings: PartSettings, *, gpus: float = 0) -> None:
        # Not `super().__init__`: it wants the matrix, and here nobody holds it.
        self.similarity = settings.similarity
        self.kind = settings.kind
        self._edges = np.array([*(part.first for part in parts), parts[-1].first + len(parts[-1].ids)])
        ids = [id_ for part in parts for id_ in part.ids]
        order = descending(ids)
        self._rank_of = np.empty(len(ids), dtype=np.int64)
        self._rank_of[order] = np.arange(len(ids))
        # No CPU while it waits: where a machine is lost, its parts move to the others, full as those may be.
        lasting: dict[str, Any] = {"max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": "SPREAD"}
        actor = remote(PartSearcher, num_cpus=0, num_gpus=gpus, **lasting)
        self._parts = parts  # keeps the arrays in the object store alive
        self._actors = [actor.remote(part.first, part.ids, part.data, settings) for part in parts]
        self._dim = self._describe()

    def _describe(self) -> int:
        import ray

        descriptions: list[PartDescription] = ray.get([actor.describe.remote() for actor in self._actors])
        error = next((one.error for one in descriptions if one.error), None)
        if error is not None:
            raise ConfigError(error)
        widths = {one.dim for one in descriptions}
        if len(widths) > 1:
            raise ConfigError(f"Parts of the corpus have different dimensions: {sorted(widths)}; embed it again.")
        for message in dict.fromkeys(text for one in descriptions for text in one.warnings):
            warnings.warn(message, stacklevel=3)
        return widths.pop()

    def close(self) -> None:
        """End the workers."""
        import ray

        for actor in self._actors:
            ray.kill(actor)

    def check(self, queries: Any) -> None:
        """See `ExactIndex.check`."""
        import torch

        width = EmbeddingRows(queries, self.similarity, torch.device("cpu"), "queries").dim
        if width != self._dim:
            raise ConfigError(f"`queries` have {width} dimensions and `corpus` {self._dim}; embed both with one model.")

    def search(self, queries: Any, k: int, *, exclude: Sequence[NDArray[np.int64]] | None = None) -> TopK:
        """See `ExactIndex.search`."""
        return self._search(queries, k, exclude, exactly=False)

    def _search(self, queries: Any, k: int, exclude: Sequence[NDArray[np.int64]] | None, *, exactly: bool) -> TopK:
        import ray

        check_number("k", k, at_least=1)
        n = len(queries)
        given = [np.asarray(rows, dtype=np.int64).ravel() for rows in exclude] if exclude is not None else []
        if exclude is not None and len(given) != n:
            raise ConfigError(f"`exclude` must hold one array per query: {len(given)} arrays, {n} queries.")
        owners = np.repeat(np.arange(len(given)), [len(rows) for rows in given])
        excluded = np.concatenate([*given, np.empty(0, dtype=np.int64)])
        shared = ray.put(np.ascontiguousarray(queries))
        asked = []
        for number, actor in enumerate(self._actors):
            mine = self._in_part(excluded, number)
            counts = np.bincount(owners[mine], minlength=n)
            asked.append(actor.search.remote(shared, k, counts, excluded[mine], exactly))
        found = ray.get(asked)
        rows = np.concatenate([rows for rows, _ in found], axis=1)
        scores = np.concatenate([scores for _, scores in found], axis=1)
        ranks = np.where(rows >= 0, self._rank_of[rows], len(self._rank_of))
        order = np.lexsort((ranks, -scores), axis=1)[:, :k]
        best = np.full((n, k), -1, dtype=np.int64)
        graded = np.full((n, k), -np.inf, dtype=np.float32)
        best[:, : order.shape[1]] = np.take_along_axis(rows, order, axis=1)
        graded[:, : order.shape[1]] = np.take_along_axis(scores, order, axis=1)
        return TopK(best, graded)

    def _in_part(self, rows: NDArray[np.int64], number: int) -> NDArray[np.bool_]:
        inside: NDArray[np.bool_] = (rows >= self._edges[number]) & (rows < self._edges[number + 1])
        return inside

    def scores(self, queries: Any, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """See `ExactIndex.scores`."""
        import ray

        if rows.ndim != 2 or len(rows) != len(queries):
            raise ConfigError(f"`rows` must have shape (n_queries, m), got {rows.shape} for {len(queries)} queries.")
        result = np.full(rows.shape, -np.inf, dtype=np.float32)
        queries = np.asarray(queries)
        asked, places = [], []
        for number, actor in enumerate(self._actors):
            lines, columns = np.nonzero(self._in_part(rows, number))
            if not len(lines):
                continue
            # Only the queries that have something here, with their rows moved together at the left.
            some, line = np.unique(lines, return_inverse=True)
            column = np.arange(len(lines)) - np.searchsorted(lines, lines)
            local = np.full((len(some), int(column.max()) + 1), -1, dtype=np.int64)
            local[line, column] = rows[lines, columns] - self._edges[number]
            asked.append(actor.scores.remote(queries[some], local))
            places.append((lines, columns, line, column))
        for graded, (lines, columns, line, column) in zip(ray.get(asked), places, strict=True):
            result[lines, columns] = graded[line, column]
        return result

    def products(self, queries: Any, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """See `ExactIndex.products`."""
        import ray

        result = np.empty((len(queries), len(rows)), dtype=np.float32)
        shared = ray.put(np.ascontiguousarray(queries))
        asked, places = [], []
        for number, actor in enumerate(self._actors):
            mine = self._in_part(rows, number)
            if mine.any():
                asked.append(actor.products.remote(shared, rows[mine] - self._edges[number]))
                places.append(mine)
        for product, mine in zip(ray.get(asked), places, strict=True):
            result[:, mine] = product
        return result

    def recall(self, queries: Any, k: int, *, sample: int = 200) -> float:
        """See `ApproximateIndex.recall`; the exact answer comes from all parts too."""
        picked = np.sort(np.random.default_rng(0).choice(len(queries), min(len(queries), sample), replace=False))
        exact = self._search(queries[picked], k, None, exactly=True).rows
        found = self._search(queries[picked], k, None, exactly=False).rows
        hits = sum(len(set(a[a >= 0].tolist()) & set(b.tolist())) for a, b in zip(exact, found, strict=True))
        return hits / max(1, int((exact >= 0).sum()))
