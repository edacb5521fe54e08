"""One exact nearest-neighbour search, blocked, for CPU and GPU.

Scores are computed from rows rounded as `rows` describes, in float64, where they are exact, and then rounded to
float32: so results do not depend on block sizes, threads or device, and equal scores are really equal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np

from llama_index_embft._core.checks import check_choice, check_number, first_line
from llama_index_embft.errors import ConfigError
from llama_index_embft.search.engine import ExclusionMask, low_precision, make_plan, score_pairs, search
from llama_index_embft.search.rows import EmbeddingRows, Similarity

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
    similarity: Similarity = "cosine",
    exclude: Sequence[NDArray[np.int64]] | None = None,
    device: Any = None,
    precision: Precision = "auto",
    memory: int = 512 << 20,
) -> TopK:
    """Find the ``k`` corpus rows with the highest score for each query, exactly.

    Equal scores (as float32) keep corpus order: the lower row wins. For trec_eval's order (score, then id, descending)
    give an `ExactIndex` its ``tie_order``, see `descending`.

    Args:
        queries: Shape ``(n_queries, dim)``; numpy array (a memory-mapped one too) or torch tensor.
        corpus: Shape ``(n_docs, dim)``; likewise.
        k: Hits per query, at least 1. Where fewer documents are allowed, the rest is row -1 with score -inf.
        similarity: ``"cosine"``, or ``"dot"`` for the plain inner product.
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
        corpus, similarity=similarity, device=_device(device, queries, corpus), precision=precision, memory=memory
    )
    return index.search(queries, k, exclude=exclude)


class ExactIndex:
    """A corpus that is searched more than once: it is checked and measured once.

    Args:
        corpus: Shape ``(n_docs, dim)``; a numpy array (a memory-mapped one too) or torch tensor. It is not copied,
            except to the memory of a GPU if it takes at most a third of what is free there.
        similarity: As in `top_k`, like the other arguments.
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
        similarity: Similarity = "cosine",
        device: Any = None,
        precision: Precision = "auto",
        memory: int = 512 << 20,
        tie_order: NDArray[np.int64] | None = None,
    ) -> None:
        import torch

        check_choice("similarity", similarity, get_args(Similarity))
        check_choice("precision", precision, get_args(Precision))
        check_number("memory", memory, at_least=1 << 20, hint="it is in bytes")
        place = _device(device, corpus)
        self.corpus = EmbeddingRows(corpus, similarity, place, "corpus")
        if tie_order is not None:
            self.corpus.order_ties(tie_order)
        self.similarity: Similarity = similarity
        self.memory = memory
        self.low = low_precision(place) if precision == "auto" else getattr(torch, precision)

    def search(self, queries: Any, k: int, *, exclude: Sequence[NDArray[np.int64]] | None = None) -> TopK:
        """The best ``k`` rows of each query; arguments and result as in `top_k`."""
        check_number("k", k, at_least=1)
        left = self._queries(queries)
        excluded = self._excluded(exclude, left.n)
        rows, scores = search(left, self.corpus, k, excluded, make_plan(left, self.corpus, k, self.low, self.memory))
        return TopK(rows.numpy(), scores.numpy())

    def recall(self, queries: Any, k: int, *, sample: int = 200) -> float:  # noqa: ARG002 - see `ApproximateIndex`
        """Share of the exact best ``k`` that this index finds: all of it."""
        return 1.0

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
        """Scores of all queries with some documents, the same bits as `search` gives.

        Args:
            queries: Shape ``(n, dim)``.
            rows: Shape ``(m,)``: corpus rows.

        Returns:
            Shape ``(n, m)``.
        """
        import torch

        left = self._queries(queries)
        exact = left.take(slice(0, left.n)).to(torch.float64)
        documents = self.corpus.take(torch.from_numpy(rows).to(self.corpus.device)).to(torch.float64)
        product: NDArray[np.float32] = (exact @ documents.T).to(torch.float32).cpu().numpy()
        return product

    def _queries(self, queries: Any) -> EmbeddingRows:
        left = EmbeddingRows(queries, self.similarity, self.corpus.device, "queries")
        if left.dim != self.corpus.dim:
            raise ConfigError(
                f"`queries` have {left.dim} dimensions and `corpus` {self.corpus.dim}; embed both with one model."
            )
        return left

    def _excluded(self, exclude: Sequence[NDArray[np.int64]] | None, n_queries: int) -> ExclusionMask:
        n_docs = self.corpus.n
        if exclude is None:
            return ExclusionMask(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))
        if len(exclude) != n_queries:
            raise ConfigError(f"`exclude` must hold one array per query: {len(exclude)} arrays, {n_queries} queries.")
        arrays = [np.asarray(rows, dtype=np.int64).ravel() for rows in exclude]
        docs = np.concatenate([*arrays, np.empty(0, dtype=np.int64)])
        if len(docs) and (docs.min() < 0 or docs.max() >= n_docs):
            wrong = docs.min() if docs.min() < 0 else docs.max()
            raise ConfigError(f"`exclude` names row {wrong}; corpus has {n_docs}.")
        return ExclusionMask(np.repeat(np.arange(n_queries), [len(rows) for rows in arrays]), docs)


def descending(ids: Sequence[str]) -> NDArray[np.int64]:
    """The rows of ids in trec_eval's order of ties: the greatest id first."""
    return np.array(sorted(range(len(ids)), key=ids.__getitem__, reverse=True), dtype=np.int64)


def _device(device: Any, *inputs: Any) -> Any:
    import torch

    if device is not None:
        try:
            place = torch.device(device)
            torch.empty(0, device=place)  # what torch knows need not be on this machine
        except (RuntimeError, AssertionError, TypeError) as err:
            raise ConfigError(
                f"`device` is {device!r}, which torch cannot use here ({first_line(err)[:80]}); name one that this "
                "machine has, such as 'cpu', or leave it out."
            ) from err
        return place
    for given in inputs:
        if isinstance(given, torch.Tensor) and given.device.type != "cpu":
            return given.device
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
