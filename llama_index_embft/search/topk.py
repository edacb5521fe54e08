"""One exact nearest-neighbour search, blocked, for CPU and GPU.

Scores are computed from rows rounded as `rows` describes, in float64, where they are exact, and then rounded to
float32: so results do not depend on block sizes, threads or device, and equal scores are really equal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np

from llama_index_embft.errors import ConfigError
from llama_index_embft.search.engine import Barred, low_precision, make_plan, score_pairs, search
from llama_index_embft.search.rows import Metric, Rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

Precision = Literal["auto", "float32", "bfloat16", "float16"]


class TopK(NamedTuple):
    """Hits of each query, best first; a place that nothing fills has row -1 and score -inf."""

    rows: NDArray[np.int64]  # (n_queries, k)
    scores: NDArray[np.float32]  # (n_queries, k)


def top_k(
    queries: Any,
    corpus: Any,
    k: int,
    *,
    metric: Metric = "cosine",
    exclude: Sequence[NDArray[np.int64]] | None = None,
    device: Any = None,
    precision: Precision = "auto",
    memory: int = 512 << 20,
) -> TopK:
    """Find the ``k`` corpus rows with the highest score for each query, exactly.

    Equal scores (as float32) keep corpus order: the lower row wins. For trec_eval's order (score, then id, descending)
    pass the corpus in descending order of id, or call `top_k_ids`, or give an `ExactIndex` its ``tie_order``.

    Args:
        queries: Shape ``(n_queries, dim)``; numpy array (a memory-mapped one too) or torch tensor.
        corpus: Shape ``(n_docs, dim)``; likewise.
        k: Hits per query, at least 1. Where fewer documents are allowed, the rest is row -1 with score -inf.
        metric: ``"cosine"``, or ``"dot"`` for the plain inner product.
        exclude: For each query the corpus rows that it must not return.
        device: Where to compute; None takes the device of tensors, else a GPU if there is one.
        precision: Of the first look at all scores, which decides the speed and nothing else, since whatever can
            be among the best is scored again exactly. ``"auto"``: float16 on a GPU, bfloat16 on a CPU with matrix
            units (AMX), else float32.
        memory: Bytes to use beside inputs and result, about; 512 MiB keeps tiles large enough to run at full speed.

    Raises:
        ConfigError: Widths differ, NaN or infinity in a row, ``k`` below 1, an excluded row that does not exist.
    """
    index = ExactIndex(
        corpus, metric=metric, device=_device(device, queries, corpus), precision=precision, memory=memory
    )
    return index.search(queries, k, exclude=exclude)


class ExactIndex:
    """A corpus that is searched more than once: it is checked and measured once.

    Args:
        corpus: Shape ``(n_docs, dim)``; a numpy array (a memory-mapped one too) or torch tensor. It is not copied,
            except to the memory of a GPU if it takes at most a third of what is free there.
        metric: As in `top_k`, like the other arguments.
        device: None takes the device of the tensor, else a GPU if there is one.
        precision: Of the first look.
        memory: Bytes to use beside inputs and result, about.
        tie_order: All row numbers, of rows with equal scores the winner first; None lets the lower row win.

    Raises:
        ConfigError: A value is not allowed, the corpus is no matrix, or holds NaN or infinity.
    """

    def __init__(
        self,
        corpus: Any,
        *,
        metric: Metric = "cosine",
        device: Any = None,
        precision: Precision = "auto",
        memory: int = 512 << 20,
        tie_order: NDArray[np.int64] | None = None,
    ) -> None:
        import torch

        if metric not in ("cosine", "dot"):
            raise ConfigError(f"`metric` must be 'cosine' or 'dot', got {metric!r}.")
        if precision not in get_args(Precision):
            raise ConfigError(f"`precision` must be one of {', '.join(get_args(Precision))}, got {precision!r}.")
        if memory < 1 << 20:
            raise ConfigError(f"`memory` is in bytes and must be at least 1 MiB, got {memory}.")
        place = _device(device, corpus)
        self.corpus = Rows(corpus, metric, place, "corpus")
        if tie_order is not None:
            self.corpus.order_ties(tie_order)
        self.metric: Metric = metric
        self.memory = memory
        self.low = low_precision(place) if precision == "auto" else getattr(torch, precision)

    def search(self, queries: Any, k: int, *, exclude: Sequence[NDArray[np.int64]] | None = None) -> TopK:
        """The best ``k`` rows of each query; arguments and result as in `top_k`."""
        if k < 1:
            raise ConfigError(f"`k` must be at least 1, got {k}.")
        left = self._queries(queries)
        barred = self._barred(exclude, left.n)
        rows, scores = search(left, self.corpus, k, barred, make_plan(left, self.corpus, k, self.low, self.memory))
        return TopK(rows.numpy(), scores.numpy())

    def check(self, queries: Any) -> None:
        """Raise, or warn of rows of zeros, as a search with these queries would."""
        self._queries(queries)

    def scores(self, queries: Any, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Scores of chosen pairs, the same bits as `search` gives.

        Args:
            queries: Shape ``(n, dim)``.
            rows: Shape ``(n, m)``: corpus rows for each query; -1 for none.

        Returns:
            Shape ``(n, m)``; -inf where the row is -1.

        Raises:
            ConfigError: A row does not exist, or the shapes do not fit.
        """
        left = self._queries(queries)
        if rows.ndim != 2 or len(rows) != left.n:
            raise ConfigError(f"`rows` must have shape (n_queries, m), got {rows.shape} for {left.n} queries.")
        if rows.size and (rows.min() < -1 or rows.max() >= self.corpus.n):
            raise ConfigError(f"`rows` names rows outside the corpus, which has {self.corpus.n}.")
        return score_pairs(left, self.corpus, rows)

    def products(self, queries: Any, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Scores of all queries with some documents; float32 sums, so the last bits may differ from `scores`.

        Args:
            queries: Shape ``(n, dim)``.
            rows: Shape ``(m,)``: corpus rows.

        Returns:
            Shape ``(n, m)``.
        """
        import torch

        left = self._queries(queries)
        exact = left.take(slice(0, left.n))
        documents = self.corpus.take(torch.from_numpy(rows).to(self.corpus.device))
        product: NDArray[np.float32] = (exact @ documents.T).cpu().numpy()
        return product

    def _queries(self, queries: Any) -> Rows:
        left = Rows(queries, self.metric, self.corpus.device, "queries")
        if left.dim != self.corpus.dim:
            raise ConfigError(
                f"`queries` have {left.dim} dimensions and `corpus` {self.corpus.dim}; embed both with one model."
            )
        return left

    def _barred(self, exclude: Sequence[NDArray[np.int64]] | None, n_queries: int) -> Barred:
        n_docs = self.corpus.n
        if exclude is None:
            return Barred(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))
        if len(exclude) != n_queries:
            raise ConfigError(f"`exclude` must hold one array per query: {len(exclude)} arrays, {n_queries} queries.")
        arrays = [np.asarray(rows, dtype=np.int64).ravel() for rows in exclude]
        docs = np.concatenate([*arrays, np.empty(0, dtype=np.int64)])
        if len(docs) and (docs.min() < 0 or docs.max() >= n_docs):
            wrong = docs.min() if docs.min() < 0 else docs.max()
            raise ConfigError(f"`exclude` names row {wrong}; corpus has {n_docs}.")
        return Barred(np.repeat(np.arange(n_queries), [len(rows) for rows in arrays]), docs)


def top_k_ids(
    queries: Any,
    query_ids: Sequence[str],
    corpus: Any,
    corpus_ids: Sequence[str],
    k: int,
    *,
    metric: Metric = "cosine",
    exclude_ids: dict[str, list[str]] | None = None,
    device: Any = None,
) -> dict[str, dict[str, float]]:
    """`top_k` by ids, ordered as trec_eval orders: by score, equal ones by id, both descending.

    Args:
        queries: Shape ``(n_queries, dim)``.
        query_ids: The id of each row of ``queries``.
        corpus: Shape ``(n_docs, dim)``.
        corpus_ids: The id of each row of ``corpus``.
        k: Hits per query, at least 1.
        metric: ``"cosine"`` or ``"dot"``.
        exclude_ids: Query id to the corpus ids that it must not return.
        device: As in `top_k`.

    Returns:
        Query id to (corpus id to score), best first.

    Raises:
        ConfigError: As in `top_k`; ids missing, repeated or unknown.
    """
    for name, ids, matrix in (("query_ids", query_ids, queries), ("corpus_ids", corpus_ids, corpus)):
        if len(ids) != len(matrix) or len(set(ids)) != len(ids):
            raise ConfigError(
                f"`{name}` must hold one distinct id per row: {len(ids)} ids, {len(set(ids))} distinct, "
                f"{len(matrix)} rows."
            )
    place_of = {doc: row for row, doc in enumerate(corpus_ids)}
    exclude = None
    if exclude_ids is not None:
        unknown = sorted({i for ids in exclude_ids.values() for i in ids} - place_of.keys())
        if unknown:
            raise ConfigError(
                f"`exclude_ids` names {len(unknown)} ids that are not in the corpus, e.g. {unknown[0]!r}."
            )
        exclude = [np.array([place_of[i] for i in exclude_ids.get(q, ())], dtype=np.int64) for q in query_ids]
    index = ExactIndex(corpus, metric=metric, device=_device(device, queries, corpus), tie_order=descending(corpus_ids))
    hits = index.search(queries, k, exclude=exclude)
    return {
        query_id: {
            corpus_ids[row]: score for row, score in zip(rows.tolist(), scores.tolist(), strict=True) if row >= 0
        }
        for query_id, rows, scores in zip(query_ids, hits.rows, hits.scores, strict=True)
    }


def descending(ids: Sequence[str]) -> NDArray[np.int64]:
    """The rows of ids in trec_eval's order of ties: the greatest id first."""
    return np.array(sorted(range(len(ids)), key=ids.__getitem__, reverse=True), dtype=np.int64)


def _device(device: Any, *inputs: Any) -> Any:
    import torch

    if device is not None:
        return torch.device(device)
    for given in inputs:
        if isinstance(given, torch.Tensor) and given.device.type != "cpu":
            return given.device
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
