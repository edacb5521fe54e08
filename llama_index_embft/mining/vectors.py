"""Ready embeddings in the order of a data set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from llama_index_embft.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset


def given_vectors(
    dataset: EmbeddingQAFinetuneDataset, pair: Sequence[Any]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Check ready embeddings and bring them into the data set's order.

    Args:
        dataset: Whose ids count.
        pair: Of the queries, of the corpus; each an array ``(n, dim)`` in the data set's order, or a mapping from id to
            vector.

    Raises:
        ConfigError: Ids are missing, or shapes do not fit.
    """
    if len(pair) != 2:
        raise ConfigError(f"Ready embeddings are a pair (of the queries, of the corpus), got {len(pair)} parts.")
    return _aligned(pair[0], list(dataset.queries), "queries"), _aligned(pair[1], list(dataset.corpus), "documents")


def _aligned(given: Any, ids: list[str], kind: str) -> NDArray[np.float32]:
    """Ready embeddings in the order of the ids."""
    if isinstance(given, Mapping):
        missing = [id_ for id_ in ids if id_ not in given]
        if missing:
            raise ConfigError(
                f"{len(missing)} of {len(ids)} {kind} of the data set have no embedding under their id, for example "
                f"{missing[0]!r}; the embeddings given are for {len(given)} ids such as {next(iter(given), None)!r}. "
                "Give those of this data set."
            )
        lengths = {len(given[id_]) for id_ in ids}
        if len(lengths) > 1:
            raise ConfigError(f"The embeddings of the {kind} have different lengths: {sorted(lengths)[:5]}.")
        return np.array([given[id_] for id_ in ids], dtype=np.float32)
    try:
        matrix: NDArray[np.float32] = given if hasattr(given, "shape") else np.asarray(given, dtype=np.float32)
    except (TypeError, ValueError) as err:
        raise ConfigError(f"Embeddings of the {kind} are no matrix of numbers: {err}.") from err
    shape = tuple(matrix.shape)
    if len(shape) != 2 or shape[0] != len(ids):
        raise ConfigError(
            f"Embeddings of the {kind} must have shape ({len(ids)}, dim), a row for each id in the data set's order; "
            f"got {shape}."
        )
    return matrix
