"""The whole street in one call: a split data set and a base model in; a compared, saved and reloadable result out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from llama_index_embft.dataset.split import Split, split_dataset
from llama_index_embft.embeddings.adapter.files import save_adapter
from llama_index_embft.embeddings.adapter.modules import linear_adapter
from llama_index_embft.embeddings.describe import describe_base
from llama_index_embft.embeddings.encoding.encoder import as_encoder
from llama_index_embft.embeddings.loading import load_embed_model
from llama_index_embft.errors import ConfigError, DatasetError
from llama_index_embft.evaluation import compare, evaluate_embed_model
from llama_index_embft.finetune.record import result_record

if TYPE_CHECKING:
    from pathlib import Path

    from llama_index.core import VectorStoreIndex
    from llama_index.core.base.embeddings.base import BaseEmbedding

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.evaluation.comparison import Comparison
    from llama_index_embft.finetune.engine import FinetuneResult

Method: TypeAlias = Literal["adapter", "full"]
SplitBy: TypeAlias = Literal["document", "chunk"]
# A test side of 10 % would be too small to show the few points that fine-tuning brings.
_FRACTIONS: Final = (0.72, 0.12, 0.16)
METHODS: Final[tuple[Method, ...]] = ("adapter", "full")


@dataclass(frozen=True)
class TuneOutcome:
    """What `tune_and_compare` leaves behind.

    Attributes:
        comparison: Base against tuned, on the test split.
        result: What training did.
        adopted: Whether the gain on the test split is significant, so that ``model`` holds the tuned model. If not,
            ``model`` behaves exactly as the base model, and the tuned one lies in ``candidate``.
    """

    comparison: Comparison
    result: FinetuneResult
    adopted: bool


def split_for_tuning(dataset: EmbeddingQAFinetuneDataset, *, by: SplitBy = "document", seed: int = 0) -> Split:
    """Split into 72 % train, 12 % validation and 16 % test, as far apart as the documents allow.

    With three or more source documents no document is on two sides. With two, the test side is one of them and the
    validation side takes chunks of the other. One alone cannot be split by document.

    Args:
        dataset: Questions over a corpus.
        by: ``"document"``, or ``"chunk"`` for a corpus cut from few documents.
        seed: See `split_dataset`.

    Raises:
        DatasetError: There is only one source document, or too few questions.
    """
    documents = {dataset.document_of(doc_id) for ids in dataset.relevant_docs.values() for doc_id in ids}
    if by == "chunk" or len(documents) >= 3:
        return split_dataset(dataset, by=by, fractions=_FRACTIONS, seed=seed)
    if len(documents) < 2:
        raise DatasetError(
            "The questions are about one document only, so no other document is left to test on; add documents, or "
            "split this one by chunk (--split-by chunk), which tests on unseen parts of the same document."
        )
    halves = split_dataset(dataset, by="document", fractions=(0.5, 0.0, 0.5), seed=seed)
    inner = split_dataset(halves.train, by="chunk", fractions=(0.85, 0.15, 0.0), seed=seed)
    return Split(inner.train, inner.val, halves.test)


def tune_and_compare(
    split: Split,
    base: BaseEmbedding,
    folder: Path,
    *,
    method: Method = "adapter",
    show_progress: bool = True,
    seed: int = 0,
    may_adopt: bool = True,
    engine_options: dict[str, Any] | None = None,
) -> TuneOutcome:
    """Train on ``split.train``, choose on ``split.val``, compare with the base on ``split.test``, and save everything.

    Args:
        split: From `split_dataset` or `split_for_tuning`.
        base: The embedding model in use today.
        folder: Where to write ``model/``, ``dataset/``, ``reports/``, ``report.json`` and ``report.html``.
        method: ``"adapter"`` trains a linear layer on the query side; ``"full"`` trains all weights, and needs a
            Hugging Face model.
        show_progress: Show progress bars.
        seed: Of training.
        may_adopt: False where something else already speaks against the tuned model, so that ``model`` stays the base.
        engine_options: Further arguments of the engine.

    Raises:
        ConfigError: The method is unknown, or does not fit the base model.
        TrainingError: Training failed.
        OutputError: The folder cannot be written.
    """
    if method not in METHODS:
        raise ConfigError(f"method is {method!r}; choose one of {', '.join(METHODS)}.")
    base_report = evaluate_embed_model(split.test, base, label="base", show_progress=show_progress)
    candidate = folder / "candidate"
    options = {"seed": seed, **(engine_options or {})}
    engine = _engine(method, split, base, candidate, show_progress, options)
    result = engine.finetune()
    tuned = engine.get_finetuned_model()
    tuned_report = evaluate_embed_model(split.test, tuned, label=f"tuned ({method})", show_progress=show_progress)
    comparison = compare(base_report, tuned_report, seed=seed)
    adopted = may_adopt and comparison.decision == "adopt"
    if adopted:
        candidate.rename(folder / "model")
    else:
        _save_base(folder / "model", base, split)
    _save_data(split, folder / "dataset")
    base_report.to_json(folder / "reports" / "base.json")
    tuned_report.to_json(folder / "reports" / "tuned.json")
    comparison.to_json(folder / "report.json")
    comparison.to_html(folder / "report.html", split.test)
    return TuneOutcome(comparison, result, adopted)


def build_index(dataset: EmbeddingQAFinetuneDataset, embed_model: BaseEmbedding) -> VectorStoreIndex:
    """Put a data set's corpus into a `VectorStoreIndex`, with vectors that the embedding cache already has.

    Args:
        dataset: The corpus.
        embed_model: The model that embeds the documents, and later the queries.
    """
    from llama_index.core import VectorStoreIndex
    from llama_index.core.schema import TextNode

    vectors = as_encoder(embed_model).encode_documents(list(dataset.corpus.values()))
    nodes = [
        TextNode(id_=doc_id, text=text, embedding=vector.tolist())
        for (doc_id, text), vector in zip(dataset.corpus.items(), vectors, strict=True)
    ]
    return VectorStoreIndex(nodes, embed_model=embed_model)


def _engine(
    method: Method, split: Split, base: BaseEmbedding, folder: Path, show_progress: bool, options: dict[str, Any]
) -> Any:
    if method == "adapter":
        from llama_index_embft.finetune.adapter.engine import EmbeddingAdapterFinetuneEngine

        return EmbeddingAdapterFinetuneEngine(
            split.train, base, val_dataset=split.val, model_output_path=str(folder), verbose=show_progress, **options
        )
    from llama_index_embft.finetune.full.engine import SentenceTransformersFinetuneEngine
    from llama_index_embft.finetune.full.settings import TextSettings

    description = describe_base(base)
    if description["class_name"] != "HuggingFaceEmbedding":
        raise ConfigError(
            f"method 'full' trains the weights of a Hugging Face model, and {description['model_name']} is a "
            f"{description['class_name']}; use method 'adapter'."
        )
    return SentenceTransformersFinetuneEngine(
        split.train,
        description["model_name"],
        str(folder),
        val_dataset=split.val,
        show_progress_bar=show_progress,
        text=TextSettings(
            query_prompt=description["query_prompt"],
            document_prompt=description["document_prompt"],
            max_seq_length=description["max_length"],
        ),
        **options,
    )


def _save_base(folder: Path, base: BaseEmbedding, split: Split) -> None:
    """Save the base model as an adapter that changes nothing: nobody is handed a model that is not proven."""
    encoder = as_encoder(base)
    dim = encoder.encode_documents(list(split.test.corpus.values())[:1]).shape[1]
    description = describe_base(base)
    record = result_record(
        "base",
        base=description,
        base_fingerprint=encoder.fingerprint,
        prompts={},
        max_length=description.get("max_length"),
        train=split.train,
        val=split.val,
        metrics={},
        settings={},
    )
    save_adapter(folder, linear_adapter(dim), base=description, base_fingerprint=encoder.fingerprint, record=record)


def _save_data(split: Split, folder: Path) -> None:
    for name, part in split._asdict().items():
        part.save_json(folder / f"{name}.json")


def reload(folder: Path, base: BaseEmbedding) -> BaseEmbedding:
    """Load ``model/`` of a finished run, as its user will."""
    rebuilt = describe_base(base)["class_name"] == "HuggingFaceEmbedding"
    return load_embed_model(folder / "model", base_embed_model=None if rebuilt else base)
