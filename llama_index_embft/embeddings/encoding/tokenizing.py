"""Texts into token ids, by the tokenizer and numpy: on its way to tensors transformers walks over all in Python."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_THREADS: Final = "TOKENIZERS_PARALLELISM"


class _AllCores:
    """How many blocks of this process want all cores now, and what the setting was before the first."""

    lock = threading.Lock()
    blocks = 0
    before: str | None = None


def preprocess(model: Any, inputs: Sequence[Any], prompt: str | None = None, **options: Any) -> dict[str, Any]:
    """What ``model.preprocess`` returns, sooner where the model reads plain text.

    transformers flattens the ids of a whole batch in Python, only to see whether there are any
    (`BatchEncoding.convert_to_tensors`). With MiniLM's tokenizer that takes half as long as the tokenizer itself,
    and it holds Python's lock, so that no other thread can send work to a GPU: ``python benchmarks/overhead.py``.

    Args:
        model: A SentenceTransformer or CrossEncoder.
        inputs: Texts, or pairs of texts.
        prompt: Put before each text.
        **options: For the model's ``preprocess``, such as ``task``.
    """
    import torch

    if not reads_plain_text(model):
        features: dict[str, Any] = model.preprocess(inputs, prompt=prompt, **options)
        return features
    features = model.preprocess(
        inputs, prompt=prompt, processing_kwargs={"common": {"return_tensors": None}}, **options
    )
    for name, value in features.items():
        if isinstance(value, list) and value and isinstance(value[0], list):
            features[name] = torch.from_numpy(np.array(value, dtype=np.int64))
    return features


def reads_plain_text(model: Any) -> bool:
    """Whether the first module is a transformer that is given padded token ids of texts, and nothing else."""
    from sentence_transformers.sentence_transformer.modules import Transformer

    first = model[0]
    if type(first) is not Transformer or first.processing_kwargs:
        return False
    return list(first.modality_config) == ["text"] and first.query_expansion is None


@contextmanager
def on_all_cores(wanted: bool = True) -> Iterator[None]:
    """Let the tokenizer use all cores, whatever it is told elsewhere, and put the setting back.

    Commands turn its threads off, because a process that has used them cannot fork safely. Beside a GPU one core cannot
    tokenise as fast as the model reads; beside a model on the CPU more threads would take its cores.
    Blocks of several threads may overlap: the last that ends puts the setting back.

    Args:
        wanted: False changes nothing.
    """
    if not wanted:
        yield
        return
    with _AllCores.lock:
        if not _AllCores.blocks:
            _AllCores.before = os.environ.get(_THREADS)
        _AllCores.blocks += 1
        os.environ[_THREADS] = "true"  # the tokenizer looks at it in each call
    try:
        yield
    finally:
        with _AllCores.lock:
            _AllCores.blocks -= 1
            if not _AllCores.blocks:
                if _AllCores.before is None:
                    os.environ.pop(_THREADS, None)
                else:
                    os.environ[_THREADS] = _AllCores.before
