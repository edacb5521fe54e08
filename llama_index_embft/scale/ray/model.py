"""The embedding model on the machines of a cluster: the same one everywhere, known before the work begins."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from llama_index_embft.embeddings.describe import resolve_model_name
from llama_index_embft.embeddings.loading import load_embed_model
from llama_index_embft.errors import ConfigError, EmbftError
from llama_index_embft.scale.ray.cluster import ScaleError, ask_nodes

if TYPE_CHECKING:
    from collections.abc import Callable

    from llama_index.core.base.embeddings.base import BaseEmbedding

    from llama_index_embft.embeddings.encoding.encoder import Encoder

ModelSource: TypeAlias = "str | Path | Callable[[], BaseEmbedding]"
"""A folder or name that `load_embed_model` knows on every machine, or a function that makes the model there."""


def from_anywhere(model: str) -> str:
    """The whole path of a model that is a folder here; any other name as it is."""
    name = str(model).removeprefix("local:").strip()
    folder = Path(name).expanduser()
    return str(folder.absolute()) if name and folder.is_dir() else model


def load_encoder(
    model: ModelSource, *, device: str | None, batch_size: int | None, trust_remote_code: bool = False
) -> Encoder:
    """Load the model on this machine; without a cache, whose one file many machines must not write to."""
    from llama_index_embft.embeddings.encoding.encoder import as_encoder

    loaded: Any = (
        model() if callable(model) else load_embed_model(model, device=device, trust_remote_code=trust_remote_code)
    )
    return as_encoder(loaded, cache=None, batch_size=batch_size)


def digest_of_model(model: ModelSource, device: str | None, *, trust_remote_code: bool = False) -> str:
    """Hash of the model as this machine has it: of the files where it is a folder, which needs no torch.

    Raises:
        EmbftError: It is not here, or cannot be told from others.
    """
    if not callable(model):
        folder = Path(resolve_model_name(model))
        if folder.is_dir():
            return _digest_of_files(folder)
    encoder = load_encoder(model, device=device, batch_size=None, trust_remote_code=trust_remote_code)
    if encoder.fingerprint is None:
        raise ConfigError(
            f"Nothing tells the model {encoder.name} from others, so a repeated run could not know its own results; "
            "give a folder, a name on the hub, or a model of a class that is known (LlamaIndex's own clients)."
        )
    return encoder.fingerprint


def _digest_of_files(folder: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".md"):
        digest.update(f"{file.relative_to(folder).as_posix()}\n{file.stat().st_size}\n".encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


def _ask(model: ModelSource, device: str | None, trust_remote_code: bool) -> tuple[str | None, str | None]:
    try:
        return digest_of_model(model, device, trust_remote_code=trust_remote_code), None
    except EmbftError as err:
        return None, str(err)


def same_model_everywhere(
    model: ModelSource, *, device: str | None, resource: str, trust_remote_code: bool = False
) -> str:
    """Hash of the model, once all machines that will work have the same one.

    Args:
        model: The model.
        device: Torch device of the workers.
        resource: What the workers need: ``"CPU"`` or ``"GPU"``.
        trust_remote_code: Run code that comes with the model, on every machine.

    Raises:
        ScaleError: A machine lacks it, or has another one under this name.
    """
    answers = ask_nodes(_ask, model, device, trust_remote_code, resource=resource)
    for node, (_, error) in answers.items():
        if error is not None:
            raise ScaleError(
                f"The node {node.address} ({node.id[:8]}) cannot use the model: {error} Every node needs it under the "
                "same name: copy it there, or put it on a shared disk."
            )
    found = {digest: node for node, (digest, _) in answers.items()}
    if len(found) > 1:
        where = ", ".join(f"{node.address} ({node.id[:8]})" for node in found.values())
        raise ScaleError(f"Nodes have different models under the name {model!r}, for example {where}; copy one to all.")
    if not found:
        raise ScaleError("No node of the cluster answered when asked for the model; look at `ray status`.")
    return str(next(iter(found)))
