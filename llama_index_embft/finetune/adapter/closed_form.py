"""Linear maps of queries onto documents that need no training: one pass over the pairs, one solve.

With few pairs most directions of the space are never seen, so both maps are pulled to the identity, which is what they
are in a direction without data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_ROWS_AT_ONCE: Final = 16_384


def moments(
    queries: NDArray[np.float32], documents: NDArray[np.float32], positives: Sequence[Sequence[int]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Second moments over all pairs of a query and a relevant document, each scaled to length 1.

    Args:
        queries: Shape ``(n_queries, dim)``.
        documents: Shape ``(n_docs, dim)``; read in blocks, may be memory-mapped.
        positives: For each query the rows of `documents` that are relevant.

    Returns:
        ``XᵀX`` and ``YᵀX`` of shape ``(dim + 1, dim + 1)`` and ``(dim, dim + 1)``, where a row of X is a query with a 1
        behind it (for the bias) and a row of Y its document.
    """
    dim = queries.shape[1]
    owners = np.repeat(np.arange(len(positives)), [len(rows) for rows in positives])
    targets = np.array([row for rows in positives for row in rows], dtype=np.int64)
    xx, yx = np.zeros((dim + 1, dim + 1)), np.zeros((dim, dim + 1))
    for start in range(0, len(owners), _ROWS_AT_ONCE):
        some = slice(start, start + _ROWS_AT_ONCE)
        x = np.concatenate([_unit(queries[owners[some]]), np.ones((len(owners[some]), 1))], axis=1)
        xx += x.T @ x
        yx += _unit(documents[targets[some]]).T @ x
    return xx, yx


def ridge_map(
    xx: NDArray[np.float64], yx: NDArray[np.float64], strength: float, *, bias: bool = False
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """The map W (and bias b) that minimizes ``Σ |W q + b - d|² + λ |W - I|²``.

    Hoerl and Kennard's ridge regression (1970), shrunk to the identity in place of zero.

    Args:
        xx: From `moments`.
        yx: From `moments`.
        strength: λ in units of the mean eigenvalue of ``QᵀQ``, so that it means the same for any model and any number
            of pairs.
        bias: Fit a bias; it is not shrunk.

    Returns:
        W of shape ``(dim, dim)``, and b of shape ``(dim,)`` or None.
    """
    dim = len(yx)
    size = dim + 1 if bias else dim
    pull = strength * np.trace(xx[:dim, :dim]) / dim
    left, right = xx[:size, :size].copy(), yx[:, :size].copy()
    left[np.arange(dim), np.arange(dim)] += pull
    right[:, :dim] += pull * np.eye(dim)
    solved = np.linalg.solve(left, right.T).T
    return solved[:, :dim], solved[:, dim] if bias else None


def procrustes_map(xx: NDArray[np.float64], yx: NDArray[np.float64], strength: float) -> NDArray[np.float64]:
    """The rotation R that minimizes ``Σ |R q - d|² + λ |R - I|²`` (Schönemann, 1966, with a pull to the identity).

    Args:
        xx: From `moments`; only sets the unit of `strength`.
        yx: From `moments`.
        strength: As in `ridge_map`; 0 is the classic solution, arbitrary in directions that no pair shows.

    Returns:
        Orthogonal, shape ``(dim, dim)``: it keeps lengths and angles among queries.
    """
    dim = len(yx)
    pull = strength * np.trace(xx[:dim, :dim]) / dim
    left, _, right = np.linalg.svd(yx[:, :dim] + pull * np.eye(dim))
    rotation: NDArray[np.float64] = left @ right
    return rotation


def principal_directions(documents: NDArray[np.float32], output_dim: int) -> NDArray[np.float64]:
    """The directions that keep the most of the documents' inner products.

    Rows of length 1 at right angles to each other; shape ``(output_dim, dim)``.

    Args:
        documents: Shape ``(n_docs, dim)``; read in blocks, may be memory-mapped.
        output_dim: How many; at most ``dim``.
    """
    dim = documents.shape[1]
    total = np.zeros((dim, dim))
    for start in range(0, len(documents), _ROWS_AT_ONCE):
        some = _unit(documents[start : start + _ROWS_AT_ONCE])
        total += some.T @ some
    _, vectors = np.linalg.eigh(total)
    directions: NDArray[np.float64] = vectors[:, ::-1][:, :output_dim].T
    return directions


def low_rank_part(matrix: NDArray[np.float64], rank: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """``up`` ``(dim, rank)`` and ``down`` ``(rank, dim)`` with ``I + up @ down`` closest to the matrix."""
    left, sizes, right = np.linalg.svd(matrix - np.eye(len(matrix)))
    root = np.sqrt(sizes[:rank])
    return left[:, :rank] * root, root[:, None] * right[:rank]


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    wide = vectors.astype(np.float64)
    length = np.linalg.norm(wide, axis=1, keepdims=True)
    scaled: NDArray[np.float64] = wide / np.where(length > 0, length, 1.0)
    return scaled
