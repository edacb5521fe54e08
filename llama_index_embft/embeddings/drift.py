"""A new model that searches an old model's index: its vectors, mapped into the old space.

The map is learned by `finetune.drift.DriftAdapter` (Drift-Adapter, arXiv 2509.23471); here is what serves it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from llama_index.core.bridge.pydantic import Field, PrivateAttr

from llama_index_embft._core.files import write_folder_atomically
from llama_index_embft.embeddings.fingerprint import ModelIdentity, identify
from llama_index_embft.embeddings.wrapped import WrappedEmbedding
from llama_index_embft.errors import ModelError

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from numpy.typing import NDArray

WEIGHTS_FILE: Final = "drift.safetensors"
CONFIG_FILE: Final = "config.json"
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
        blocks = [self._map(unit(vectors[i : i + _ROWS_PER_BLOCK])) for i in range(0, len(vectors), _ROWS_PER_BLOCK)]
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
        return unit(y)


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale rows of shape ``(n, dim)`` to length 1; rows of zeros stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: NDArray[np.float32] = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
    return scaled


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
        if expected and not force:
            actual = identify(new_embed_model, "query")
            if actual.fingerprint != expected:
                raise ModelError(
                    f"The drift map in {folder} was fitted on {config['new']['name']} (fingerprint {expected[:12]}), "
                    f"not on {actual}; load the model it was fitted on, or pass force=True."
                )
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

    def identity(self, side: Literal["query", "document"]) -> ModelIdentity:
        """Whose index this searches: the old model's; and, for queries, the new model with the map."""
        if side == "document":
            return self._old
        new = identify(self._base, "query")
        return ModelIdentity(f"{new.fingerprint}-{self.map_fingerprint}", self.model_name)

    def _change_query(self, vector: list[float]) -> list[float]:
        return self._change_documents([], [vector])[0]

    def _change_documents(self, texts: list[str], vectors: list[list[float]]) -> list[list[float]]:  # noqa: ARG002
        result: list[list[float]] = self._map(np.asarray(vectors, dtype=np.float32)).tolist() if vectors else []
        return result

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
        "format": "llama-index-embft drift",
        "kind": drift_map.kind,
        "old": {"fingerprint": old.fingerprint, "name": old.name},
        "new": {"fingerprint": new.fingerprint, "name": new.name},
    }
    tensors = {name: np.ascontiguousarray(tensor, dtype=np.float32) for name, tensor in drift_map.tensors.items()}
    with write_folder_atomically(folder) as temporary:
        save_file(tensors, str(Path(temporary) / WEIGHTS_FILE))
        (Path(temporary) / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        (Path(temporary) / "embft.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def read_drift(folder: str | Path) -> tuple[dict[str, Any], DriftMap]:
    """Read and check what `save_drift` wrote.

    Raises:
        ModelError: There is no map in the folder, or a file is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    folder = Path(folder)
    if not (folder / WEIGHTS_FILE).is_file() or not (folder / CONFIG_FILE).is_file():
        raise ModelError(f"{folder} holds no drift map ({WEIGHTS_FILE} and {CONFIG_FILE}); check the path.")
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        complete = all({"fingerprint", "name"} == set(config[side]) for side in ("old", "new"))
        tensors = load_file(str(folder / WEIGHTS_FILE))
        fits = complete and _fit_together(tensors)
        drift_map = DriftMap(kind=config["kind"], tensors=tensors)
    except (SafetensorError, ValueError, KeyError, TypeError, OSError) as err:
        reason = str(err).splitlines()[0] if str(err) else type(err).__name__
        raise ModelError(f"The drift map in {folder} is damaged ({reason}); copy or fit it again.") from err
    if not fits:
        raise ModelError(f"The files in {folder} do not belong together or hold NaN; copy or fit the map again.")
    return config, drift_map


def _fit_together(tensors: dict[str, NDArray[np.float32]]) -> bool:
    if not set(tensors) <= set(_TENSORS) or any(not np.isfinite(t).all() for t in tensors.values()):
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
