"""Documents moved to where their queries are, and the `BaseEmbedding` that gives them.

A text that was moved comes back with its new vector; every other text, and every query, goes to the base model.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from llama_index.core.bridge.pydantic import Field, PrivateAttr

from llama_index_embft._core.checks import first_line
from llama_index_embft._core.files import write_folder_atomically
from llama_index_embft.embeddings.fingerprint import hash_parts
from llama_index_embft.embeddings.identity import check_base
from llama_index_embft.embeddings.vector_map import write_json
from llama_index_embft.embeddings.wrapped import WrappedEmbedding
from llama_index_embft.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_index.core.base.embeddings.base import BaseEmbedding
    from numpy.typing import NDArray

    from llama_index_embft.embeddings.sentence_transformer import TextKind

VECTORS_FILE: Final = "nudge.safetensors"
CONFIG_FILE: Final = "config.json"


class NudgedEmbedding(WrappedEmbedding):
    """A frozen embedding model, with other vectors for the documents that NUDGE moved.

    Args:
        base_embed_model: The model whose document vectors were moved.
        nudge_path: Folder that `save_nudge` wrote.
        force: Accept another base model than the one whose vectors were moved.

    Raises:
        ModelError: The folder holds no moved vectors, is damaged, or belongs to another base model.
    """

    nudge_path: str = Field(description="Folder of the moved vectors.")
    _row_of: dict[str, int] = PrivateAttr()
    _vectors: Any = PrivateAttr()
    _ids: list[str] = PrivateAttr()
    _force: bool = PrivateAttr()
    _moved_hash: str = PrivateAttr()

    def __init__(
        self, base_embed_model: BaseEmbedding, nudge_path: str | Path, *, force: bool = False, **kwargs: Any
    ) -> None:
        folder = Path(nudge_path)
        config, vectors = read_nudge(folder)
        check_base(base_embed_model, config.get("base_fingerprint"), f"The result in {folder}", force=force)
        super().__init__(
            base_embed_model, model_name=f"{base_embed_model.model_name}+nudge", nudge_path=str(folder), **kwargs
        )
        self._force = force
        self._row_of = {text_hash: row for row, text_hash in enumerate(config["text_hashes"])}
        self._ids = list(config["ids"])
        self._vectors = vectors
        shown = json.dumps([config["ids"], config["text_hashes"]])
        self._moved_hash = hash_parts(
            "moved", shown, hashlib.sha256(np.ascontiguousarray(vectors).tobytes()).hexdigest()
        )

    @classmethod
    def class_name(cls) -> str:
        """Name for LlamaIndex's serialization."""
        return "NudgedEmbedding"

    @property
    def moved(self) -> dict[str, list[float]]:
        """Document id to new vector, for the documents that moved: all that must be written back to a vector store."""
        return dict(zip(self._ids, self._vectors.tolist(), strict=True))

    def replace(self, texts: Sequence[str], vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Put the moved vectors in place of the base model's.

        Args:
            texts: Document texts.
            vectors: Their vectors by the base model, shape ``(len(texts), dim)``.

        Raises:
            ModelError: The base model's vectors have another dimension than the moved ones.
        """
        rows = np.array([self._row_of.get(_hash(text), -1) for text in texts], dtype=np.int64)
        moved = np.flatnonzero(rows >= 0)
        if not moved.size:
            return vectors
        if vectors.shape[1] != self._vectors.shape[1]:
            raise ModelError(
                f"{self._base.model_name} returns {vectors.shape[1]} dimensions, but the vectors in {self.nudge_path} "
                f"have {self._vectors.shape[1]}; load the model whose vectors were moved."
            )
        result = np.array(vectors, dtype=np.float32)
        result[moved] = self._vectors[rows[moved]]
        return result

    def change_batch(self, texts: list[str], vectors: NDArray[np.float32], kind: TextKind) -> NDArray[np.float32]:
        """See `Wrapped.change_batch`; queries leave as they came."""
        return vectors if kind == "query" else self.replace(texts, vectors)

    def _change_query(self, query: str, vector: list[float]) -> list[float]:
        del query
        return vector

    def _change_identity(self, side: TextKind) -> str | None:
        if side == "query" or not self._row_of:
            return None
        return self._moved_hash

    def _saved_arguments(self) -> dict[str, Any]:
        return {"force": self._force}


def holds_nudge(folder: Path) -> bool:
    """Whether a folder holds moved vectors."""
    return (folder / VECTORS_FILE).is_file()


def save_nudge(
    folder: str | Path,
    ids: Sequence[str],
    texts: Sequence[str],
    vectors: NDArray[np.float32],
    *,
    variant: str,
    step: float,
    base: dict[str, Any],
    base_fingerprint: str | None,
    record: dict[str, Any],
) -> None:
    """Save moved vectors as safetensors and JSON; the folder appears whole or not at all.

    Args:
        folder: Where to save; a saved result that is there is replaced.
        ids: Ids of the documents that moved.
        texts: Their texts, as embedded; only their hashes are saved.
        vectors: Shape ``(n_moved, dim)``.
        variant: ``"N"`` or ``"M"``.
        step: How far they moved, see `Movement.at`.
        base: What `embeddings.describe` needs to load the base model again.
        base_fingerprint: Of the base model, checked at loading.
        record: What goes into ``embft.json``.

    Raises:
        OutputError: The folder cannot be written.
    """
    from safetensors.numpy import save_file

    config = {
        "format": "llama-index-embft nudge",
        "kind": "nudge",
        "variant": variant,
        "step": step,
        "base": base,
        "base_fingerprint": base_fingerprint,
        "ids": list(ids),
        "text_hashes": [_hash(text) for text in texts],
    }
    with write_folder_atomically(folder) as temporary:
        save_file({"vectors": np.ascontiguousarray(vectors, dtype=np.float32)}, str(Path(temporary) / VECTORS_FILE))
        write_json(Path(temporary) / CONFIG_FILE, config)
        write_json(Path(temporary) / "embft.json", record)


def read_nudge(folder: Path) -> tuple[dict[str, Any], NDArray[np.float32]]:
    """Read and check what `save_nudge` wrote: the configuration, and vectors of shape ``(n_moved, dim)``.

    Raises:
        ModelError: There are no moved vectors in the folder, or a file is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if not (folder / VECTORS_FILE).is_file() or not (folder / CONFIG_FILE).is_file():
        raise ModelError(f"{folder} holds no moved vectors ({VECTORS_FILE} and {CONFIG_FILE}); check the path.")
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        vectors: NDArray[np.float32] = load_file(str(folder / VECTORS_FILE))["vectors"]
        fits = len(config["ids"]) == len(config["text_hashes"]) == len(vectors) and vectors.ndim == 2
        fits = fits and vectors.dtype.kind == "f" and isinstance(config.get("base_fingerprint"), str | None)
        fits = fits and all(isinstance(one, str) for one in (*config["ids"], *config["text_hashes"]))
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError) as err:
        raise ModelError(
            f"The moved vectors in {folder} are damaged ({first_line(err)}); copy or make them again."
        ) from err
    if not fits or not np.isfinite(vectors).all():
        raise ModelError(f"The files in {folder} do not belong together or hold NaN; copy or make them again.")
    return config, vectors


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
