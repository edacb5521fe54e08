"""Token ids of the training texts, kept from one epoch to the next, and beside a GPU made ahead of the steps."""

from __future__ import annotations

import threading
from contextlib import contextmanager, suppress
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from llama_index_embft.embeddings.encoding.tokenizing import on_all_cores, preprocess, reads_plain_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

_MOST_BYTES: Final = 512 << 20  # kept at once
_BYTES_A_TEXT: Final = 320  # beside its ids: the array, its key and their place
_MATRICES: Final = ("input_ids", "token_type_ids")
_KNOWN: Final = frozenset({*_MATRICES, "attention_mask", "modality", "prompt_length"})


class KeptTokens:
    """What `preprocess` returns for a batch, without reading a text twice.

    A passage stands in as many rows as there are questions about it, and each row comes once an epoch. The tokenizer
    reads a text when it first comes; from then on a batch is only padded. The features are the same, to the last bit.

    Args:
        model: A SentenceTransformer or CrossEncoder.
        most_bytes: Memory for what is kept, about; texts that come later are read each time.
    """

    def __init__(self, model: Any, *, most_bytes: int = _MOST_BYTES) -> None:
        self._model = model
        self._room = most_bytes
        self._plain = reads_plain_text(model)
        self._rows: dict[bytes, NDArray[np.int32]] = {}  # (n_features, n_tokens) by the text and how it is read
        self._constant: dict[tuple[Any, ...], dict[str, Any]] = {}
        self._lock = threading.Lock()

    @property
    def full(self) -> bool:
        """Whether nothing more is kept."""
        return not self._plain or self._room <= 0

    def __call__(self, inputs: Sequence[Any], prompt: str | None = None, **options: Any) -> dict[str, Any]:
        """Features of a batch.

        Args:
            inputs: Texts, or pairs of texts.
            prompt: Put before each text.
            **options: For the model's ``preprocess``.
        """
        if not self._plain or not inputs:
            return preprocess(self._model, inputs, prompt, **options)
        way = (prompt, *sorted(options.items()))
        keys = [_key(way, one) for one in inputs]
        new = {key: place for place, key in enumerate(keys) if key not in self._rows}
        if new:
            if self.full:
                return preprocess(self._model, inputs, prompt, **options)
            features = preprocess(self._model, [inputs[place] for place in new.values()], prompt, **options)
            if not {"input_ids", "attention_mask"} <= set(features) <= _KNOWN:
                self._plain = False
                return preprocess(self._model, inputs, prompt, **options)
            self._keep(way, list(new), features)
        return self._batch(way, keys)

    def _keep(self, way: tuple[Any, ...], keys: list[bytes], features: dict[str, Any]) -> None:
        mask = features["attention_mask"].numpy().astype(bool)
        names = [name for name in _MATRICES if name in features]
        matrices = [features[name].numpy().astype(np.int32) for name in names]
        rows = {key: np.stack([matrix[row, mask[row]] for matrix in matrices]) for row, key in enumerate(keys)}
        with self._lock:  # the room is counted by two threads
            self._constant[way] = {
                name: None if name in _MATRICES or name == "attention_mask" else value
                for name, value in features.items()
            }
            self._rows |= rows
            self._room -= sum(row.nbytes + _BYTES_A_TEXT for row in rows.values())

    def _batch(self, way: tuple[Any, ...], keys: list[bytes]) -> dict[str, Any]:
        """Pad kept rows as the tokenizer does, to the longest."""
        import torch

        rows = [self._rows[key] for key in keys]
        tokenizer = self._model.tokenizer
        pads = {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id}
        longest = max(row.shape[1] for row in rows)
        features = dict(self._constant[way])
        names = [name for name in _MATRICES if name in features]
        shape = (len(rows), longest)
        matrices = [np.full(shape, pads[name], dtype=np.int64) for name in names]
        mask = np.zeros(shape, dtype=np.int64)
        for place, row in enumerate(rows):
            n = row.shape[1]
            window = slice(longest - n, None) if tokenizer.padding_side == "left" else slice(0, n)
            mask[place, window] = 1
            for matrix, values in zip(matrices, row, strict=True):
                matrix[place, window] = values
        made = dict(zip(names, matrices, strict=True)) | {"attention_mask": mask}
        return {name: torch.from_numpy(made[name]) if name in made else value for name, value in features.items()}


@contextmanager
def read_ahead(
    tokens: KeptTokens, collate: Callable[[list[dict[str, Any]]], Any], rows: Any, batches: Sequence[Sequence[int]]
) -> Iterator[None]:
    """Tokenise the batches to come in a thread of its own, on all cores, until the block ends.

    For training on a GPU, which would wait for the tokenizer in each step. Rust does the work outside of Python's lock.

    Args:
        tokens: Keeps what is read.
        collate: Reads a batch by way of `tokens`; what it returns is thrown away.
        rows: The data set.
        batches: Row numbers of each batch, in the order of training; none: nothing is read ahead.
    """
    if not batches:
        yield
        return
    stop = threading.Event()

    def read() -> None:
        # What goes wrong here goes wrong again in the step that needs the batch, which says so.
        with suppress(Exception), on_all_cores():
            for batch in batches:
                if stop.is_set() or tokens.full:
                    return
                collate([rows[row] for row in batch])

    thread = threading.Thread(target=read, name="read-ahead", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _key(way: tuple[Any, ...], text: Any) -> bytes:
    parts = [text] if isinstance(text, str) else list(text)
    return blake2b(
        repr((way, *map(len, parts))).encode() + "".join(parts).encode("utf-8", "surrogatepass"), digest_size=16
    ).digest()
