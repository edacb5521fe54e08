"""A validation set out of the training set."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from llama_index_embft.errors import ConfigError, DatasetError

if TYPE_CHECKING:
    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset

logger = logging.getLogger(__name__)


def hold_out(
    dataset: EmbeddingQAFinetuneDataset, val: EmbeddingQAFinetuneDataset | None, share: float | None, seed: int
) -> tuple[EmbeddingQAFinetuneDataset, EmbeddingQAFinetuneDataset | None]:
    """Training and validation set: as given, or the training set split by document.

    Raises:
        ConfigError: Both a validation set and a share are given.
        DatasetError: There are too few documents to split.
    """
    if share is None:
        return dataset, val
    if val is not None:
        raise ConfigError("`val_split` and `val_dataset` both name a validation set; give one of them.")
    from llama_index_embft.dataset.split import split_dataset

    fractions = (1.0 - share, share, 0.0)
    try:
        split = split_dataset(dataset, fractions=fractions, seed=seed)
    except DatasetError:
        split = split_dataset(dataset, fractions=fractions, seed=seed, by="chunk")
        logger.warning("val_split: the training set is about one document, so it was split by chunk instead.")
    return split.train, split.val
