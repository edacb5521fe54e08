"""Vectors of a corpus that need not fit into memory: straight into a memory-mapped ``.npy`` file, resumable."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from llama_index_embft._core.files import atomic_write_text
from llama_index_embft.embeddings.encoding.encoder import Encoder, TextKind, as_encoder
from llama_index_embft.errors import ConfigError, OutputError

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from llama_index.core.base.embeddings.base import BaseEmbedding
    from sentence_transformers import SentenceTransformer

    from llama_index_embft.embeddings.encoding.batching import EncodePrecision

_TEXTS_PER_BLOCK: Final = 8192


def encode_to_file(
    texts: Sequence[str],
    model: BaseEmbedding | SentenceTransformer | Encoder,
    path: str | os.PathLike[str],
    *,
    kind: TextKind = "document",
    dtype: Literal["float32", "float16"] = "float32",
    precision: EncodePrecision = "auto",
    texts_per_block: int = _TEXTS_PER_BLOCK,
    show_progress: bool = False,
) -> Path:
    """Embed texts into a ``.npy`` file, row by row in their order; `numpy.load` maps it into memory.

    Vectors are written block by block beside the file, which appears when all are there. A run that was killed goes on
    where it stood, at most a block back, when it is called with the same texts and model. The cache is not used: a
    corpus of this size is embedded once.

    Args:
        texts: A sequence; only a block of it is held at a time, so it may read from a disk.
        model: A LlamaIndex embedding, a SentenceTransformer, or an `Encoder`, which keeps its own precision and cache.
        path: The file to be.
        kind: What the texts are, which decides the prompt.
        dtype: Of the file; ``"float16"`` halves it.
        precision: Of the computation, see `as_encoder`.
        texts_per_block: Texts between two writes.
        show_progress: Show a progress bar.

    Returns:
        The path.

    Raises:
        ConfigError: There is no text, or an argument is out of range.
        OutputError: The file cannot be written, or what lies beside it is the beginning of another run.
        ModelError: The model returns unusable vectors.
    """
    from tqdm.auto import tqdm

    if kind not in ("query", "document"):
        raise ConfigError(f"`kind` must be 'query' or 'document', got {kind!r}.")
    if dtype not in ("float32", "float16"):
        raise ConfigError(f"`dtype` must be 'float32' or 'float16', got {dtype!r}.")
    if texts_per_block < 1:
        raise ConfigError(f"`texts_per_block` must be at least 1, got {texts_per_block}.")
    if not len(texts):
        raise ConfigError("There is no text to embed; give at least one.")
    target = Path(path)
    encoder = as_encoder(model, cache=None, precision=precision)
    part = target.with_name(target.name + ".part")
    progress = target.with_name(target.name + ".progress.json")
    settings = {
        "texts": len(texts),
        "kind": kind,
        "dtype": dtype,
        "precision": encoder.backend.precision,
        "fingerprint": encoder.fingerprint,
    }
    encode = encoder.encode_documents if kind == "document" else encoder.encode_queries
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        done, digest = _resume(texts, part, progress, settings, texts_per_block)
        rows: Any = np.lib.format.open_memmap(part, mode="r+") if done else None
        with tqdm(total=len(texts), initial=done, unit="text", delay=1.0, disable=not show_progress) as bar:
            for start in range(done, len(texts), texts_per_block):
                block = list(texts[start : start + texts_per_block])
                vectors = encode(block)
                if rows is None:
                    rows = np.lib.format.open_memmap(part, "w+", np.dtype(dtype), (len(texts), vectors.shape[1]))
                rows[start : start + len(block)] = vectors
                rows.flush()  # the vectors are on the disk before the note that says so
                _add(digest, block)
                state = {**settings, "done": start + len(block), "digest": digest.hexdigest()}
                atomic_write_text(progress, json.dumps(state))
                bar.update(len(block))
        del rows
        part.replace(target)
        progress.unlink()
    except OSError as err:
        if isinstance(err, OutputError):
            raise
        raise OutputError(
            f"Cannot write {target}: {err.strerror or err}; free some space or choose another place. "
            "What was embedded so far is kept beside it."
        ) from err
    return target


def _resume(
    texts: Sequence[str], part: Path, progress: Path, settings: dict[str, Any], texts_per_block: int
) -> tuple[int, Any]:
    """Rows that are done, and the hash of their texts so far."""
    digest = hashlib.blake2b(digest_size=16)
    if not (part.exists() and progress.exists()):
        return 0, digest
    try:
        state = json.loads(progress.read_text(encoding="utf-8"))
        done, known = int(state.pop("done")), str(state.pop("digest"))
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        raise OutputError(f"{progress} cannot be read; delete it and {part.name} to begin anew.") from err
    changed = sorted(name for name in settings if state.get(name) != settings[name])
    for start in range(0, done, texts_per_block):
        _add(digest, list(texts[start : min(done, start + texts_per_block)]))
    if not changed and digest.hexdigest() != known:
        changed = ["texts"]
    if changed:
        raise OutputError(
            f"{part} is the beginning of another run (different: {', '.join(changed)}); give that run's texts and "
            f"settings to go on, or delete it and {progress.name} to begin anew."
        )
    return done, digest


def _add(digest: Any, texts: list[str]) -> None:
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
