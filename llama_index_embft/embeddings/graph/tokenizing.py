"""Texts to token ids for an exported graph, with the `tokenizers` library alone: no torch, no transformers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from llama_index_embft.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from sentence_transformers import CrossEncoder, SentenceTransformer

TOKENIZER_FILE: Final = "tokenizer.json"
# What a text encoder may ask for; other inputs (images, masks of a decoder's cache) are not exported.
_KNOWN_INPUTS: Final = ("input_ids", "attention_mask", "token_type_ids")


@dataclass(frozen=True)
class Tokenization:
    """How a graph's inputs are made of texts.

    Attributes:
        inputs: Names of the graph's inputs, in its order.
        max_length: Tokens of a text that are read, special ones included; None: all of them.
        pad_id: Token that fills short texts.
        pad_token: The same as text.
        pad_type_id: Its token type.
        padding_side: ``"right"`` or ``"left"``.
        truncation_side: ``"right"`` or ``"left"``.
        lowercase: Texts are lowercased first (an old setting of sentence-transformers).
    """

    inputs: tuple[str, ...]
    max_length: int | None
    pad_id: int
    pad_token: str
    pad_type_id: int
    padding_side: str
    truncation_side: str
    lowercase: bool

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Tokenization:
        """From ``embft.json``; raises KeyError or TypeError where it is damaged."""
        return cls(**{**record, "inputs": tuple(record["inputs"])})


class GraphTokenizer:
    """Makes the inputs of a graph.

    Args:
        file: The ``tokenizer.json``.
        settings: How it was used when the model was exported.

    Raises:
        ModelError: The file is missing or damaged.
    """

    def __init__(self, file: Path, settings: Tokenization) -> None:
        from tokenizers import Tokenizer

        try:
            self._tokenizer: Any = Tokenizer.from_file(str(file))
        except Exception as err:  # the library raises bare Exception
            raise ModelError(f"The tokenizer {file} cannot be read: {err}; export the model again.") from err
        self.settings = settings
        # What the file says of padding and truncation is what the last caller happened to use.
        self._tokenizer.no_truncation()
        if settings.max_length is not None:
            self._tokenizer.enable_truncation(settings.max_length, direction=settings.truncation_side)
        self._tokenizer.enable_padding(
            direction=settings.padding_side,
            pad_id=settings.pad_id,
            pad_type_id=settings.pad_type_id,
            pad_token=settings.pad_token,
        )

    def __call__(self, texts: Sequence[str | tuple[str, str]]) -> dict[str, NDArray[np.int64]]:
        """Token ids of a batch, padded to its longest text; each value has shape ``(len(texts), tokens)``.

        A pair of texts is read as one, and cut where it is longest.
        """
        found = self._tokenizer.encode_batch(
            [self._clean(text) if isinstance(text, str) else tuple(map(self._clean, text)) for text in texts]
        )
        mask = np.array([one.attention_mask for one in found], dtype=np.int64)
        columns = {"input_ids": [one.ids for one in found], "token_type_ids": [one.type_ids for one in found]}
        values: dict[str, NDArray[np.int64]] = {"attention_mask": mask}
        for name in self.settings.inputs:
            if name in columns:
                values[name] = np.array(columns[name], dtype=np.int64)
        return {name: values[name] for name in self.settings.inputs}

    def _clean(self, text: str) -> str:
        # A lone surrogate, as broken JSON holds it, is no text that the library would take.
        clean = text.encode("utf-8", "replace").decode("utf-8")
        return clean.lower() if self.settings.lowercase else clean


def save_tokenizer(model: SentenceTransformer | CrossEncoder, folder: Path, texts: Sequence[Any]) -> Tokenization:
    """Write the model's ``tokenizer.json`` into a folder.

    Args:
        model: The model.
        folder: Where to write.
        texts: Two of different length, or two pairs, as the model reads them.

    Returns:
        The settings to use it with.

    Raises:
        ModelError: The model's tokenizer has no such file, or the model reads something else than text.
    """
    import json

    tokenizer: Any = getattr(model, "tokenizer", None)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ModelError(
            f"The tokenizer of this model ({type(tokenizer).__name__}) has no tokenizer.json, which an exported graph "
            "needs; export it as fp16 or bf16 instead."
        )
    features = model.preprocess(list(texts))
    inputs = tuple(name for name in features if name in _KNOWN_INPUTS)
    unknown = [name for name, value in features.items() if name not in _KNOWN_INPUTS and hasattr(value, "shape")]
    if unknown or "input_ids" not in inputs or "attention_mask" not in inputs:
        raise ModelError(
            f"The model's inputs ({', '.join(map(str, features))}) are not those of a text encoder; export it as fp16 "
            "or bf16 instead."
        )
    backend.no_padding()
    backend.no_truncation()
    (folder / TOKENIZER_FILE).write_text(json.dumps(json.loads(backend.to_str()), ensure_ascii=False), encoding="utf-8")
    length = model.max_seq_length
    return Tokenization(
        inputs=inputs,
        max_length=int(length) if length is not None and length < 1_000_000 else None,
        pad_id=int(tokenizer.pad_token_id or 0),
        pad_token=str(tokenizer.pad_token or "[PAD]"),
        pad_type_id=int(getattr(tokenizer, "pad_token_type_id", 0) or 0),
        padding_side=str(tokenizer.padding_side),
        truncation_side=str(tokenizer.truncation_side),
        lowercase=bool(getattr(model[0], "do_lower_case", False)),
    )
