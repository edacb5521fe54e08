"""The engine that trains a model in use, and what is kept where nothing was trained."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from llama_index_embft._core.files import atomic_write_text
from llama_index_embft.embeddings.adapter.files import save_adapter
from llama_index_embft.embeddings.adapter.modules import linear_adapter
from llama_index_embft.embeddings.describe import describe_base
from llama_index_embft.embeddings.encoding.encoder import as_encoder
from llama_index_embft.embeddings.sentence_transformer import inner_model, runs_own_code
from llama_index_embft.errors import ConfigError
from llama_index_embft.finetune.model_card import model_card
from llama_index_embft.finetune.record import result_record

if TYPE_CHECKING:
    from pathlib import Path

    from llama_index.core.base.embeddings.base import BaseEmbedding

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.embeddings.encoding.cache import EmbeddingCache
    from llama_index_embft.evaluation.comparison import Comparison

RECORD: Final = "embft.json"


def write_decision(folder: Path, comparison: Comparison) -> None:
    """Put what was decided about a saved model into its own record and its model card."""
    path = folder / RECORD
    record = json.loads(path.read_text(encoding="utf-8"))
    record["comparison"] = comparison.decision_record()
    atomic_write_text(path, json.dumps(record, indent=2) + "\n")
    atomic_write_text(folder / "README.md", model_card(record))


def make_engine(
    method: str,
    train: EmbeddingQAFinetuneDataset,
    val: EmbeddingQAFinetuneDataset | None,
    base: BaseEmbedding,
    folder: Path,
    show_progress: bool,
    cache: EmbeddingCache | None,
    options: dict[str, Any],
) -> Any:
    """The engine that trains a base model in use by one method, with the model's own prompts.

    Args:
        method: ``"adapter"``, or ``"full"`` or ``"lora"``, which need a Hugging Face model.
        train: Training set.
        val: Validation set.
        base: The model in use.
        folder: Where to save.
        show_progress: Show bars.
        cache: Where the adapter's vectors are kept.
        options: Further arguments of the engine.

    Raises:
        ConfigError: The method does not fit the base model.
    """
    if method == "adapter":
        from llama_index_embft.finetune.adapter.engine import EmbeddingAdapterFinetuneEngine

        return EmbeddingAdapterFinetuneEngine(
            train,
            base,
            val_dataset=val,
            model_output_path=str(folder),
            verbose=show_progress,
            **{"cache": cache, **options},
        )
    from llama_index_embft.finetune.full.engine import SentenceTransformersFinetuneEngine
    from llama_index_embft.finetune.running.settings import TextSettings

    description = describe_base(base)
    if description["class_name"] != "HuggingFaceEmbedding":
        raise ConfigError(
            f"method '{method}' trains the weights of a Hugging Face model, and {description['model_name']} is a "
            f"{description['class_name']}; use method 'adapter'."
        )
    # The prompts are those of the model in use; how much of a text is read is the engine's choice, as it is without us.
    prompts = TextSettings(query_prompt=description["query_prompt"], document_prompt=description["document_prompt"])
    return SentenceTransformersFinetuneEngine(
        train,
        description["model_name"],
        str(folder),
        val_dataset=val,
        show_progress_bar=show_progress,
        **{"text": prompts, "trust_remote_code": trusts_code(base), **options},
    )


def save_base(
    folder: Path,
    base: BaseEmbedding,
    train: EmbeddingQAFinetuneDataset,
    val: EmbeddingQAFinetuneDataset | None,
) -> None:
    """Save the base model as an adapter that changes nothing: nobody is handed a model that is not proven."""
    encoder = as_encoder(base)
    dim = encoder.encode_documents(list(train.corpus.values())[:1]).shape[1]
    description = describe_base(base)
    record = result_record(
        "base",
        base=description,
        base_fingerprint=encoder.fingerprint,
        prompts={},
        max_length=description.get("max_length"),
        train=train,
        val=val,
        metrics={},
        settings={},
    )
    save_adapter(folder, linear_adapter(dim), base=description, base_fingerprint=encoder.fingerprint, record=record)


def trusts_code(base: BaseEmbedding) -> bool:
    """Whether the code that comes with the base model was allowed to run: its own code is that of the tuned one."""
    inner = inner_model(base)  # LlamaIndex's class forgets that it was told so
    return bool(getattr(base, "trust_remote_code", False)) or (inner is not None and runs_own_code(inner.model))
