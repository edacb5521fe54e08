"""Approximate search by FAISS, for corpora where even a fast exact search takes too long; its recall is measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from llama_index_embft._core.checks import check_choice, check_number
from llama_index_embft._core.optional import require
from llama_index_embft.search.topk import ExactIndex, TopK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from llama_index_embft.search.rows import Similarity

_BATCH = 1 << 16  # rows that are normalised and handed to FAISS at a time


class ApproximateIndex(ExactIndex):
    """A FAISS index; what it finds is scored exactly, and `recall` says how much of the exact answer it finds.

    Args:
        corpus: Shape ``(n_docs, dim)``.
        kind: ``"hnsw"``, a graph of neighbours: slow to build, high recall. ``"ivf"``, clusters of which the nearest
            are searched: quick to build, recall depends on ``effort``.
        effort: How hard to look: candidates kept on the way for HNSW (``efSearch``, at least k is used), clusters
            visited for IVF (``nprobe``). None takes 128 for HNSW and an eighth of the clusters for IVF; deep
            searches visit more.
        similarity: ``"cosine"`` or ``"dot"``.
        memory: Bytes for the exact search that recall is measured with; FAISS itself holds a copy of the corpus.
        tie_order: As in `ExactIndex`.

    Raises:
        MissingExtraError: FAISS is not installed.
        ConfigError: An argument is not allowed.
    """

    def __init__(
        self,
        corpus: Any,
        kind: Literal["hnsw", "ivf"] = "hnsw",
        *,
        effort: int | None = None,
        similarity: Similarity = "cosine",
        memory: int = 512 << 20,
        tie_order: NDArray[np.int64] | None = None,
    ) -> None:
        faiss = require("faiss", feature="Approximate search")
        check_choice("kind", kind, ("hnsw", "ivf"))
        if effort is not None:
            check_number("effort", effort, at_least=1)
        super().__init__(corpus, similarity=similarity, device="cpu", memory=memory, tie_order=tie_order)
        self.kind = kind
        n, dim = self.corpus.n, self.corpus.dim
        if kind == "hnsw":
            self._faiss = faiss.IndexHNSWFlat(dim, 32, faiss.METRIC_INNER_PRODUCT)
            self._effort = effort or 128
        else:
            clusters = max(1, min(int(4 * n**0.5), n // 39))  # FAISS asks for 39 training rows a cluster
            self._faiss = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, clusters, faiss.METRIC_INNER_PRODUCT)
            self._effort = min(effort or max(1, clusters // 8), clusters)
            picked = np.sort(np.random.default_rng(0).choice(n, min(n, 64 * clusters), replace=False))
            self._faiss.train(self._rows(picked))
        for start in range(0, n, _BATCH):
            self._faiss.add(self._rows(np.arange(start, min(start + _BATCH, n))))

    def _rows(self, numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        import torch

        rows: NDArray[np.float32] = self.corpus.take(torch.from_numpy(numbers)).numpy()
        return rows

    def search(self, queries: Any, k: int, *, exclude: Sequence[NDArray[np.int64]] | None = None) -> TopK:
        """The best ``k`` rows that the index finds for each query; where it finds fewer, row -1 and score -inf.

        Arguments and order as in `ExactIndex.search`.
        """
        check_number("k", k, at_least=1)
        left = self._queries(queries)
        rows = np.full((left.n, k), -1, dtype=np.int64)
        scores = np.full((left.n, k), -np.inf, dtype=np.float32)
        excluded = self._excluded(exclude, left.n)
        depth = min(self.corpus.n, k + int(np.bincount(excluded.owners, minlength=1).max()))
        if self.kind == "hnsw":
            self._faiss.hnsw.efSearch = max(self._effort, depth)
        else:  # as many clusters as hold four times what is asked for, where that is more
            clusters = self._faiss.nlist
            self._faiss.nprobe = min(clusters, max(self._effort, -(-4 * depth * clusters // self.corpus.n)))
        keys = np.sort(excluded.owners * self.corpus.n + excluded.rows)
        for start in range(0, left.n, 1024):
            some = left.take(slice(start, start + 1024)).numpy()
            _, found = self._faiss.search(some, depth)
            found = found.astype(np.int64)
            lines = np.arange(start, start + len(some))[:, None]
            found[np.isin(lines * self.corpus.n + found, keys)] = -1
            graded = self.scores(queries[start : start + len(some)], found)
            ranks = found if self.corpus.rank_of is None else self.corpus.rank_of.numpy()[found]
            order = np.lexsort((ranks, -graded), axis=1)[:, :k]
            rows[start : start + len(some), : order.shape[1]] = np.take_along_axis(found, order, axis=1)
            scores[start : start + len(some), : order.shape[1]] = np.take_along_axis(graded, order, axis=1)
        rows[np.isneginf(scores)] = -1
        return TopK(rows, scores)

    def recall(self, queries: Any, k: int, *, sample: int = 200) -> float:
        """Share of the exact best ``k`` that this index finds, over some queries drawn at random.

        Args:
            queries: Shape ``(n, dim)``.
            k: Depth.
            sample: Queries to try, each against the whole corpus.
        """
        picked = np.sort(np.random.default_rng(0).choice(len(queries), min(len(queries), sample), replace=False))
        exact = super().search(queries[picked], k).rows
        found = self.search(queries[picked], k).rows
        hits = sum(len(set(a[a >= 0].tolist()) & set(b.tolist())) for a, b in zip(exact, found, strict=True))
        return hits / max(1, int((exact >= 0).sum()))
