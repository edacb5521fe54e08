"""Vectors of two models of the same texts: checked, and compared by what they find."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from llama_index_embft._core.vectors import unit_rows
from llama_index_embft.errors import ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def share_kept(
    asked: NDArray[np.float32],
    mapped: NDArray[np.float32],
    docs_new: NDArray[np.float32],
    docs_old: NDArray[np.float32],
    k: int,
    exclude: list[NDArray[np.int64]] | None = None,
) -> NDArray[np.float64]:
    """For each query the share of one model's ``k`` hits that another vector of it finds in another space.

    Args:
        asked: Queries by the model whose hits are the truth, shape ``(n, dim_new)``.
        mapped: The same queries as they are asked, shape ``(n, dim_old)``.
        docs_new: The documents by that model.
        docs_old: The documents that are searched.
        k: Hits a query; fewer where there are fewer documents.
        exclude: For each query the documents that it must not find.
    """
    from llama_index_embft.search.topk import top_k

    k = min(k, len(docs_new) - (0 if exclude is None else 1))
    truth = top_k(asked, docs_new, k, exclude=exclude).rows.tolist()
    found = top_k(mapped, docs_old, k, exclude=exclude).rows.tolist()
    return np.array([len(set(a) & set(b)) / k for a, b in zip(truth, found, strict=True)])


def usable_vectors(vectors: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    """Vectors of length 1, shape ``(n, dim)``.

    Args:
        vectors: As they came.
        name: Whose they are, for messages.

    Raises:
        ModelError: One is zero, or holds NaN or infinity.
    """
    bad = np.logical_not(np.isfinite(vectors).all(axis=1) & vectors.any(axis=1))
    if bad.any():
        raise ModelError(f"{int(bad.sum())} of {len(vectors)} vectors of the {name} are NaN, infinite or zero.")
    return unit_rows(np.asarray(vectors, dtype=np.float32))
