"""Arguments of the full engine that need more than a look at one number."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from typing import TYPE_CHECKING

from llama_index_embft.errors import ConfigError, DatasetError, ModelError
from llama_index_embft.finetune.full.losses import COSENT

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.finetune.full.losses import Loss

logger = logging.getLogger(__name__)


def hold_out(
    dataset: EmbeddingQAFinetuneDataset, val: EmbeddingQAFinetuneDataset | None, share: float | None, seed: int
) -> tuple[EmbeddingQAFinetuneDataset, EmbeddingQAFinetuneDataset | None]:
    """Training and validation set: as given, or the training set split by document.

    Raises:
        ConfigError: Both a validation set and a share are given, or the share is out of range.
        DatasetError: There are too few documents to split.
    """
    if share is None:
        return dataset, val
    if val is not None:
        raise ConfigError("val_split and val_dataset both name a validation set; give one of them.")
    if not 0.0 < share < 1.0:
        raise ConfigError(f"val_split is {share}; it must be between 0 and 1.")
    from llama_index_embft.dataset.split import split_dataset

    fractions = (1.0 - share, share, 0.0)
    try:
        split = split_dataset(dataset, fractions=fractions, seed=seed)
    except DatasetError:
        split = split_dataset(dataset, fractions=fractions, seed=seed, by="chunk")
        logger.warning("val_split: the training set is about one document, so it was split by chunk instead.")
    return split.train, split.val


def named(loss: Loss | None) -> Loss | None:
    """`CoSENTLoss` by its class needs scored pairs just as much as by its name."""
    return COSENT if getattr(loss, "__name__", None) == "CoSENTLoss" else loss


def checked_merge(
    merge: str | float | None, val: EmbeddingQAFinetuneDataset | None, max_guard_loss: float
) -> str | float | None:
    """The argument `merge`, if it is one that can be followed.

    Raises:
        ConfigError: It is not.
    """
    if not max_guard_loss >= 0.0:
        raise ConfigError(f"max_guard_loss is {max_guard_loss}; it must be 0 or more.")
    if merge is None:
        return None
    if isinstance(merge, str) and merge != "auto":
        raise ConfigError(f"merge is {merge!r}; it must be 'auto', a number between 0 and 1, or None.")
    if not isinstance(merge, str) and not 0.0 <= merge <= 1.0:
        raise ConfigError(f"merge is {merge}; it must be 'auto' or between 0 and 1.")
    if val is None:
        raise ConfigError("merge chooses weights on a validation set; give val_dataset or val_split.")
    return merge


def device_of_process(device: str | None) -> str | None:
    """The device as given; in several processes each has its own GPU."""
    rank = os.environ.get("LOCAL_RANK")
    if device is not None or rank is None:
        return device
    import torch

    return f"cuda:{rank}" if torch.cuda.is_available() else None


def check_compiler(device: str) -> None:
    """Refuse `torch.compile` on a CPU without a C++ compiler, which PyTorch looks for only after the first batch.

    Args:
        device: Type of the device.

    Raises:
        ConfigError: There is none.
    """
    name = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "cl" if os.name == "nt" else "g++")
    if device == "cpu" and shutil.which(name) is None:
        raise ConfigError(
            f"compile=True needs a C++ compiler on a CPU, and there is no {name}; install one, or leave compile out."
        )


def check_tokenizer(model: SentenceTransformer, name: str) -> None:
    """Refuse a model without a vocabulary: transformers makes up an empty one, and every word becomes "unknown".

    Raises:
        ModelError: There is none.
    """
    tokenizer = getattr(model, "tokenizer", None)
    vocabulary = getattr(tokenizer, "get_vocab", None)
    if vocabulary is None:
        return  # other kinds of models bring preprocessing of their own
    if set(vocabulary()) <= set(getattr(tokenizer, "all_special_tokens", ())):
        raise ModelError(
            f"The model {name} has no tokenizer, so all words would be one to it; put tokenizer.json (or vocab.txt) of "
            "its base model beside the weights."
        )
