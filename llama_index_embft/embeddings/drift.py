"""A new model that searches an old model's index: its vectors, mapped into the old space.

The map is learned by `finetune.drift.DriftAdapter` (Drift-Adapter, arXiv 2509.23471); here is what serves it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from llama_index.core.bridge.pydantic import Field, PrivateAttr

from llama_index_embft._core.checks import first_line
from llama_index_embft._core.vectors import unit_rows
from llama_index_embft.embeddings.identity import ModelIdentity, identify, is_earlier
from llama_index_embft.embeddings.vector_map import (
    DRIFT,
    map_kind,
    read_config,
    read_tensors,
    weights_file,
    write_map,
)
from llama_index_embft.embeddings.wrapped import WrappedEmbedding
from llama_index_embft.errors import ModelError

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from numpy.typing import NDArray

    from llama_index_embft.embeddings.sentence_transformer import TextKind

_TENSORS: Final = ("weight", "bias", "hidden_weight", "hidden_bias", "out_weight")
_ROWS_PER_BLOCK: Final = 16_384


@dataclass(frozen=True)
class DriftMap:
    """From a new model's space into an old one's: ``y = x W + b + gelu(x H + c) O``, scaled to length 1.

    Attributes:
        kind: ``"procrustes"`` (``W`` orthogonal, nothing else), ``"low-rank"`` (orthogonal plus a matrix of low rank,
            and ``b``), or ``"mlp"`` (all of it).
        tensors: ``weight`` ``(dim_new, dim_old)``; ``bias`` ``(dim_old,)``; ``hidden_weight`` ``(dim_new, hidden)``,
            ``hidden_bias`` ``(hidden,)``, ``out_weight`` ``(hidden, dim_old)``; all float32.
    """

    kind: str
    tensors: dict[str, NDArray[np.float32]] = field(repr=False)

    @property
    def dim_new(self) -> int:
        """Dimension of what goes in."""
        return int(self.tensors["weight"].shape[0])

    @property
    def dim_old(self) -> int:
        """Dimension of what comes out."""
        return int(self.tensors["weight"].shape[1])

    @property
    def fingerprint(self) -> str:
        """Hash of the values; 32 hex digits."""
        digest = hashlib.blake2b(digest_size=16)
        for name, tensor in sorted(self.tensors.items()):
            digest.update(f"{name}{tensor.shape}".encode())
            digest.update(np.ascontiguousarray(tensor, dtype="<f4").tobytes())
        return digest.hexdigest()

    def __call__(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map vectors of shape ``(n, dim_new)`` to ``(n, dim_old)``, all of length 1.

        Raises:
            ModelError: They have another dimension.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self.dim_new:
            raise ModelError(
                f"The drift map takes vectors of {self.dim_new} dimensions and got an array of shape {vectors.shape}; "
                "the new model is not the one it was fitted on, or has changed since."
            )
        blocks = [
            self._map(unit_rows(vectors[i : i + _ROWS_PER_BLOCK])) for i in range(0, len(vectors), _ROWS_PER_BLOCK)
        ]
        return np.concatenate(blocks) if blocks else np.empty((0, self.dim_old), dtype=np.float32)

    def _map(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        t = self.tensors
        y = x @ t["weight"]
        if "bias" in t:
            y += t["bias"]
        if "hidden_weight" in t:
            h = x @ t["hidden_weight"] + t["hidden_bias"]
            # GELU by tanh, as torch's approximate="tanh", in which it is trained.
            y += (0.5 * h * (1.0 + np.tanh(0.7978845608 * (h + 0.044715 * h**3)))) @ t["out_weight"]
        return unit_rows(y)


class DriftEmbedding(WrappedEmbedding):
    """A new embedding model on an old model's index, from the first query on and with nothing re-embedded.

    Queries are embedded by the new model and mapped into the old space. So are documents, for nodes that are added
    while the old index still serves; `reembed_index` embeds them properly later.

    Args:
        new_embed_model: The model that the map was fitted on.
        drift_path: Folder that `DriftAdapter.save` wrote.
        force: Accept another new model than the map was fitted on.

    Raises:
        ModelError: The folder holds no map, is damaged, or belongs to another model.
    """

    drift_path: str = Field(description="Folder of the saved map.")
    map_fingerprint: str = Field(default="", description="Hash of the map; set at loading.")
    _map: Any = PrivateAttr()
    _old: ModelIdentity = PrivateAttr()
    _force: bool = PrivateAttr()

    def __init__(
        self, new_embed_model: BaseEmbedding, drift_path: str | Path, *, force: bool = False, **kwargs: Any
    ) -> None:
        folder = Path(drift_path)
        config, drift_map = read_drift(folder)
        expected = config["new"]["fingerprint"]
        if not force:
            _check_new(new_embed_model, expected, config["new"]["name"], folder)
        super().__init__(
            new_embed_model,
            model_name=f"{new_embed_model.model_name}→{config['old']['name']}",
            drift_path=str(folder),
            map_fingerprint=drift_map.fingerprint,
            **kwargs,
        )
        self._map = drift_map
        self._old = ModelIdentity(**config["old"])
        self._force = force

    @classmethod
    def class_name(cls) -> str:
        """Name for LlamaIndex's serialization."""
        return "DriftEmbedding"

    @property
    def new_embed_model(self) -> BaseEmbedding:
        """The model below the map."""
        return self._base

    @property
    def drift_map(self) -> DriftMap:
        """The map."""
        found: DriftMap = self._map
        return found

    def identity(self, side: TextKind, given: str | None = None) -> ModelIdentity | None:
        """Whose index this searches: the old model's; and, for queries, the new model with the map."""
        return self._old if side == "document" else super().identity(side, given=given)

    def change_batch(self, texts: list[str], vectors: NDArray[np.float32], kind: TextKind) -> NDArray[np.float32]:
        """See `Wrapped.change_batch`; queries and documents go through the same map."""
        del texts, kind  # the vectors are enough
        drift_map: DriftMap = self._map
        return drift_map(vectors)

    def _change_identity(self, side: TextKind) -> str | None:
        del side
        return self.map_fingerprint

    def _saved_arguments(self) -> dict[str, Any]:
        return {"force": self._force}

    @classmethod
    def _derived_fields(cls) -> frozenset[str]:
        return frozenset({"map_fingerprint"})


def save_drift(
    folder: str | Path, drift_map: DriftMap, *, old: ModelIdentity, new: ModelIdentity, record: dict[str, Any]
) -> None:
    """Save a map as safetensors and JSON; the folder appears whole or not at all.

    Args:
        folder: Where to save; a saved result that is there is replaced.
        drift_map: The map.
        old: Whose documents the old index holds.
        new: Whose queries are mapped.
        record: What goes into ``embft.json``: how much of the recall is kept, versions.

    Raises:
        OutputError: The folder cannot be written.
    """
    from safetensors.numpy import save_file

    config = {
        "kind": DRIFT,
        "map": drift_map.kind,
        "old": {"fingerprint": old.fingerprint, "name": old.name},
        "new": {"fingerprint": new.fingerprint, "name": new.name},
    }
    tensors = {name: np.ascontiguousarray(tensor, dtype=np.float32) for name, tensor in drift_map.tensors.items()}
    write_map(folder, tensors, config, record, save_file=save_file)


def holds_drift(folder: Path) -> bool:
    """Whether a folder holds a drift map."""
    return map_kind(folder) == DRIFT


def read_drift(folder: str | Path) -> tuple[dict[str, Any], DriftMap]:
    """Read and check what `save_drift` wrote.

    Raises:
        ModelError: There is no map in the folder, or a file is damaged.
    """
    from safetensors.numpy import load_file

    folder = Path(folder)
    config = read_config(folder, "drift map")
    if not holds_drift(folder):
        raise ModelError(f"{folder} holds no drift map, but a map of the kind {config['kind']!r}; check the path.")
    file = weights_file(folder)
    assert file is not None
    tensors = read_tensors(file, load_file, "drift map")
    try:
        complete = all({"fingerprint", "name"} == set(config[side]) for side in ("old", "new"))
        named = complete and all(isinstance(text, str) for side in ("old", "new") for text in config[side].values())
        fits = named and _fit_together(tensors)
        drift_map = DriftMap(kind=str(config.get("map", config["kind"])), tensors=tensors)
    except (ValueError, KeyError, TypeError, IndexError) as err:
        raise ModelError(f"The drift map in {folder} is damaged ({first_line(err)}); copy or fit it again.") from err
    if not fits:
        raise ModelError(f"The files in {folder} do not belong together; copy or fit the map again.")
    return config, drift_map


def _check_new(model: BaseEmbedding, expected: str, name: str, folder: Path) -> None:
    """Make sure that a map sits on the new model that it was fitted on; one without an identity is its user's word."""
    if is_earlier(expected):
        raise ModelError(
            f"The drift map in {folder} was saved by an earlier version, which identified models by other things; if "
            f"{model.model_name} is {name} pass force=True, else fit it again."
        )
    actual = identify(model, "query") if expected else None
    if actual is not None and actual.fingerprint != expected:
        raise ModelError(
            f"The drift map in {folder} was fitted on {name} (fingerprint {expected[:12]}), "
            f"not on {actual}; load the model it was fitted on, or pass force=True."
        )


def _fit_together(tensors: dict[str, NDArray[np.float32]]) -> bool:
    if not set(tensors) <= set(_TENSORS) or any(tensor.dtype.kind != "f" for tensor in tensors.values()):
        return False
    dim_new, dim_old = tensors["weight"].shape
    hidden = tensors["hidden_weight"].shape[1] if "hidden_weight" in tensors else 0
    shapes = {
        "weight": (dim_new, dim_old),
        "bias": (dim_old,),
        "hidden_weight": (dim_new, hidden),
        "hidden_bias": (hidden,),
        "out_weight": (hidden, dim_old),
    }
    mlp = {"hidden_weight", "hidden_bias", "out_weight"} & set(tensors)
    return len(mlp) in (0, 3) and all(tensor.shape == shapes[name] for name, tensor in tensors.items())
