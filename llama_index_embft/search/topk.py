"""One exact nearest-neighbour search, blocked, for CPU and GPU.

Scores are computed from rows rounded as `rows` describes, in float64, where they are exact, and then rounded to
float32: so results do not depend on block sizes, threads or device, and equal scores are really equal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from llama_index_embft.errors import ConfigError
from llama_index_embft.search.rows import Metric, Rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

_TILE_BYTES = 64 << 20  # one tile of scores with its keys
_NOTHING = -(1 << 63)


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
) -> TopK:
    """Find the ``k`` corpus rows with the highest score for each query, exactly.

    Equal scores (as float32) keep corpus order: the lower row wins. Whoever wants trec_eval's order (score, then id,
    descending) passes the corpus in descending order of id, or calls `top_k_ids`.

    Args:
        queries: Shape ``(n_queries, dim)``; numpy array (a memory-mapped one too) or torch tensor.
        corpus: Shape ``(n_docs, dim)``; likewise.
        k: Hits per query, at least 1. Where fewer documents are allowed, the rest is row -1 with score -inf.
        metric: ``"cosine"``, or ``"dot"`` for the plain inner product.
        exclude: For each query the corpus rows that it must not return.
        device: Where to compute; None takes the device of tensors, else a GPU if there is one.

    Raises:
        ConfigError: Widths differ, NaN or infinity in a row, ``k`` below 1, an excluded row that does not exist.
    """
    import torch

    if metric not in ("cosine", "dot"):
        raise ConfigError(f"`metric` must be 'cosine' or 'dot', got {metric!r}.")
    if k < 1:
        raise ConfigError(f"`k` must be at least 1, got {k}.")
    place = _device(device, queries, corpus)
    left, right = Rows(queries, metric, place, "queries"), Rows(corpus, metric, place, "corpus")
    if left.dim != right.dim:
        raise ConfigError(f"`queries` have {left.dim} dimensions and `corpus` {right.dim}; embed both with one model.")
    barred = _flatten(exclude, left.n, right.n)
    rows = np.full((left.n, k), -1, dtype=np.int64)
    scores = np.full((left.n, k), -np.inf, dtype=np.float32)
    if not right.n:
        return TopK(rows, scores)
    height = min(max(left.n, 1), 1024)
    width = max(256, _TILE_BYTES // (24 * height))
    for start in range(0, left.n, height):
        some = left.take(slice(start, start + height)).to(torch.float64)
        best = torch.full((len(some), 0), _NOTHING, dtype=torch.int64, device=place)
        for column in range(0, right.n, width):
            block = right.take(slice(column, column + width)).to(torch.float64)
            keys = _keys((some @ block.T).to(torch.float32), column)
            for query, row in barred(start, start + height, column, column + width):
                keys[query.to(place), row.to(place)] = _NOTHING
            best = torch.cat([best, keys], dim=1)
            best = best.topk(min(k, best.shape[1]), dim=1).values
        found_rows, found_scores = _unpack(best)
        rows[start : start + height, : best.shape[1]] = found_rows
        scores[start : start + height, : best.shape[1]] = found_scores
    return TopK(rows, scores)


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
    order = np.array(sorted(range(len(corpus_ids)), key=corpus_ids.__getitem__, reverse=True), dtype=np.int64)
    place_of = {corpus_ids[int(old)]: new for new, old in enumerate(order)}
    exclude = None
    if exclude_ids is not None:
        unknown = sorted({i for ids in exclude_ids.values() for i in ids} - place_of.keys())
        if unknown:
            raise ConfigError(
                f"`exclude_ids` names {len(unknown)} ids that are not in the corpus, e.g. {unknown[0]!r}."
            )
        exclude = [np.array([place_of[i] for i in exclude_ids.get(q, ())], dtype=np.int64) for q in query_ids]
    hits = top_k(queries, corpus[order], k, metric=metric, exclude=exclude, device=device)
    return {
        query_id: {
            corpus_ids[int(order[row])]: float(score) for row, score in zip(rows, scores, strict=True) if row >= 0
        }
        for query_id, rows, scores in zip(query_ids, hits.rows, hits.scores, strict=True)
    }


def _device(device: Any, *inputs: Any) -> Any:
    import torch

    if device is not None:
        return torch.device(device)
    for given in inputs:
        if isinstance(given, torch.Tensor) and given.device.type != "cpu":
            return given.device
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _keys(scores: Tensor, first_row: int) -> Tensor:
    """Integers that sort as (score, then lower row): ``(n, m)`` float32 to int64, no two alike in a line."""
    import torch

    bits = (scores + 0.0).view(torch.int32).to(torch.int64)  # + 0.0 makes -0.0 equal to 0.0
    bits ^= (bits >> 63) & 0x7FFFFFFF  # negative floats sort backwards as integers
    rows = torch.arange(first_row, first_row + scores.shape[1], device=scores.device)
    return (bits << 32) + (0xFFFFFFFF - rows)


def _unpack(keys: Tensor) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Rows and scores back from `_keys`."""
    import torch

    bits = keys >> 32
    rows = 0xFFFFFFFF - (keys & 0xFFFFFFFF)
    scores = (bits ^ ((bits >> 63) & 0x7FFFFFFF)).to(torch.int32).view(torch.float32)
    empty = keys == _NOTHING
    return (
        rows.masked_fill(empty, -1).cpu().numpy(),
        scores.masked_fill(empty, -np.inf).cpu().numpy(),
    )


def _flatten(exclude: Sequence[NDArray[np.int64]] | None, n_queries: int, n_docs: int) -> Any:
    """Check the exclusions; give back a function from a tile to its excluded (line, column) pairs."""
    import torch

    if exclude is None:
        return lambda *_: ()
    if len(exclude) != n_queries:
        raise ConfigError(f"`exclude` must hold one array per query: {len(exclude)} arrays, {n_queries} queries.")
    arrays = [np.asarray(rows, dtype=np.int64).ravel() for rows in exclude]
    docs = np.concatenate([*arrays, np.empty(0, dtype=np.int64)])
    owners = np.repeat(np.arange(n_queries), [len(rows) for rows in arrays])
    if len(docs) and (docs.min() < 0 or docs.max() >= n_docs):
        raise ConfigError(f"`exclude` names row {docs.min() if docs.min() < 0 else docs.max()}; corpus has {n_docs}.")

    def tile(top: int, bottom: int, left: int, right: int) -> list[tuple[Tensor, Tensor]]:
        low, high = np.searchsorted(owners, [top, bottom])
        inside = (docs[low:high] >= left) & (docs[low:high] < right)
        if not inside.any():
            return []
        return [
            (
                torch.from_numpy(owners[low:high][inside] - top),
                torch.from_numpy(docs[low:high][inside] - left),
            )
        ]

    return tile
