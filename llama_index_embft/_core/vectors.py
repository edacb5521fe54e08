"""Rows of unit length: the one place that divides by a norm."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def unit_rows(vectors: NDArray[np.float32], *, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """Scale each row to length 1; a row of zeros stays zeros.

    Args:
        vectors: Shape ``(n, dim)``.
        out: Where to write; ``vectors`` itself to work in place. Default: a new array.

    Returns:
        Shape ``(n, dim)``, of the type of ``vectors``.
    """
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    tiny = np.finfo(vectors.dtype).tiny
    scaled: NDArray[np.float32] = np.divide(vectors, np.maximum(lengths, tiny), out=out)
    return scaled
