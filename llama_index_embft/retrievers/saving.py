"""A `StackRetriever` as a folder: its settings, its part by words, and who embeds its queries and documents."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from llama_index_embft._core.checks import first_line
from llama_index_embft._core.environment import package_versions
from llama_index_embft._core.files import write_folder_atomically
from llama_index_embft.embeddings.identity import ModelIdentity, identify
from llama_index_embft.errors import ConfigError, EmbftError, ModelError
from llama_index_embft.index.canaries import check_canaries
from llama_index_embft.index.identity import check_stamp, verify_vectors
from llama_index_embft.index.stores.base import capital
from llama_index_embft.index.stores.opening import open_table
from llama_index_embft.retrievers.loading import load_reranker
from llama_index_embft.retrievers.reranking import CrossEncoderReranker
from llama_index_embft.retrievers.settings import StackSettings
from llama_index_embft.retrievers.stack import StackRetriever
from llama_index_embft.search.lexical import LexicalIndex

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llama_index.core import VectorStoreIndex
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from llama_index.core.vector_stores import MetadataFilters

    from llama_index_embft.index.stores.base import VectorTable

_RECORD: Final = "embft.json"
_LEXICAL: Final = "lexical"
_RERANKER: Final = "reranker"
_FORMAT: Final = 1
_SAMPLE: Final = 3  # documents that are embedded again where an index does not say who embedded it


def save_retriever(
    retriever: StackRetriever,
    folder: str | Path,
    *,
    identity: str | None = None,
    details: Mapping[str, Any] | None = None,
) -> Path:
    """Write a retriever into a folder, whole or not at all; `load_retriever` puts it over its index again.

    The folder holds ``embft.json``, the part by words, and a `CrossEncoderReranker` with its model. It holds neither
    the vectors and texts, which the index keeps, nor the embedding model, nor a reranker of another class, nor
    ``vector_store_kwargs``; `load_retriever` wants what is missing.

    Args:
        retriever: Over an index.
        folder: Where to; a folder that this package wrote is replaced.
        identity: For an embedding model of a class that is not known; see `stamp_index`.
        details: Further entries of ``embft.json``, such as ``metrics``, or ``chosen_on`` with the `text_hashes` of the
            questions that the weight was learnt from, so that an evaluation on them says so.

    Returns:
        The folder.

    Raises:
        ConfigError: The retriever is not over an index.
        ModelError: Nothing says what decides the vectors of its embedding model.
        OutputError: The folder cannot be written.
    """
    if retriever.index is None:
        raise ConfigError("Only a retriever over an index can be saved, and this one searches another retriever.")
    reranker = retriever.reranker
    own = reranker if isinstance(reranker, CrossEncoderReranker) and reranker.can_be_saved else None
    record = {
        **(details or {}),
        "format": _FORMAT,
        "kind": "retriever",
        "settings": asdict(retriever.settings),
        "similarity_top_k": retriever.similarity_top_k,
        "models": _models(retriever, identity),
        "reranker": None if retriever.reranker is None else type(retriever.reranker).__name__,
        "reranker_saved": own is not None,
        "vector_store_kwargs": sorted(retriever.vector_store_kwargs),
        "filters": None if retriever.filters is None else retriever.filters.model_dump(mode="json"),
        "versions": package_versions(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    with write_folder_atomically(folder) as temporary:
        if own is not None:
            own.save_model(temporary / _RERANKER)
        if _keeps_words(retriever.settings, retriever.filters):
            (temporary / _LEXICAL).mkdir()
            retriever.lexical.save(temporary / _LEXICAL)
        (temporary / _RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    retriever.folder = str(folder)
    return Path(folder)


def load_retriever(
    folder: str | Path,
    index: VectorStoreIndex,
    *,
    embed_model: BaseEmbedding | None = None,
    reranker: BaseNodePostprocessor | None = None,
    similarity_top_k: int | None = None,
    identity: str | None = None,
    strict: bool = False,
    vector_store_kwargs: dict[str, Any] | None = None,
    device: str | None = None,
    trust_remote_code: bool = False,
) -> StackRetriever:
    """Put a saved retriever over its index.

    Makes sure that the index was embedded by the model that the retriever was made with: by the index's stamp and its
    test sentences, and where it has none by embedding three of its documents again. Nodes that were added or deleted
    since are taken into account; where a text has changed under its id call `StackRetriever.refresh`.

    Args:
        folder: What `save_retriever` wrote.
        index: The index, opened.
        embed_model: Embeds the queries; None takes the index's own.
        reranker: The reranker, if it was saved with one of another class; None: the saved one.
        similarity_top_k: Nodes to return; None: as saved.
        identity: For an embedding model of a class that is not known, as it was given to `save_retriever`.
        strict: See `StackRetriever`.
        vector_store_kwargs: See `StackRetriever`; where it was saved with some, they must be given again.
        device: Torch device of the saved reranker; None takes a GPU where there is one.
        trust_remote_code: Run code that comes with the saved reranker. Only for models you have read.

    Raises:
        ModelError: The folder is damaged or no retriever, another model embedded the index or is to embed the queries,
            or most of the nodes are gone.
        ConfigError: It was saved with a reranker or with ``vector_store_kwargs``, and none is given.
    """
    folder = Path(folder)
    record = _read(folder)
    settings, filters = _settings_of(record, folder)
    if reranker is None and record.get("reranker_saved"):
        reranker = load_reranker(folder / _RERANKER, device=device, trust_remote_code=trust_remote_code)
    if record["reranker"] is not None and reranker is None:
        raise ConfigError(
            f"The retriever in {folder} ranks with a reranker ({record['reranker']}), which is not saved with it; load "
            "it and pass reranker=..., or save the retriever without it."
        )
    wanted = record.get("vector_store_kwargs")
    if wanted and vector_store_kwargs is None:
        raise ConfigError(
            f"The retriever in {folder} asks the store with {', '.join(map(str, wanted))}, which is not saved with it; "
            "pass vector_store_kwargs={...}, or {} to ask without."
        )
    table = open_table(index)
    if settings.dense_weight > 0:
        _check_models(record, folder, table, embed_model or index._embed_model, identity)
    lexical = None
    if _keeps_words(settings, filters):
        lexical = LexicalIndex.load(folder / _LEXICAL)
        _check_nodes(lexical, table, folder)
    retriever = StackRetriever(
        index,
        settings,
        embed_model=embed_model,
        reranker=reranker,
        similarity_top_k=record["similarity_top_k"] if similarity_top_k is None else similarity_top_k,
        filters=filters,
        lexical=lexical,
        strict=strict,
        vector_store_kwargs=vector_store_kwargs,
    )
    retriever.folder = str(folder)
    return retriever


def _keeps_words(settings: StackSettings, filters: MetadataFilters | None) -> bool:
    """Whether the part by words is kept in the folder; that of filtered nodes is built again."""
    return settings.dense_weight < 1 and filters is None


def _models(retriever: StackRetriever, identity: str | None) -> dict[str, dict[str, str]] | None:
    """Who embeds; None where no query is ever embedded."""
    if retriever.settings.dense_weight == 0:
        return None
    model = retriever.embed_model
    assert model is not None  # LlamaIndex's retriever over an index has one
    return {
        "document": asdict(identify(model, "document", identity=identity)),
        "query": asdict(identify(model, "query", identity=identity)),
    }


def _read(folder: Path) -> dict[str, Any]:
    if not (folder / _RECORD).is_file():
        raise ModelError(
            f"{folder} holds no saved retriever ({_RECORD} is missing); give the folder of save_retriever."
        )
    try:
        record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        kind, version = record["kind"], record["format"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as err:
        raise _damaged(folder, err) from err
    if kind != "retriever":
        raise ModelError(f"{folder} holds a saved result of the kind {kind!r} and no retriever; see load_embed_model.")
    if version != _FORMAT:
        raise ModelError(f"The retriever in {folder} was written by a newer llama-index-embft; upgrade it.")
    assert isinstance(record, dict)
    return record


def _settings_of(record: dict[str, Any], folder: Path) -> tuple[StackSettings, MetadataFilters | None]:
    from llama_index.core.vector_stores import MetadataFilters

    try:
        settings = StackSettings(**record["settings"])
        filters = None if record["filters"] is None else MetadataFilters.model_validate(record["filters"])
        if settings.dense_weight > 0:
            _ = _identity_of(record, "document"), _identity_of(record, "query")
        entries = {"similarity_top_k": int, "reranker": str | None, "vector_store_kwargs": list | None}
        if not all(isinstance(record.get(name), kind) for name, kind in entries.items()):
            raise TypeError("an entry of the wrong kind")
    except (EmbftError, ValueError, KeyError, TypeError) as err:
        raise _damaged(folder, err) from err
    return settings, filters


def _identity_of(record: dict[str, Any], side: str) -> ModelIdentity:
    found = record["models"][side]
    return ModelIdentity(str(found["fingerprint"]), str(found["name"]))


def _check_models(
    record: dict[str, Any], folder: Path, table: VectorTable, model: BaseEmbedding, identity: str | None
) -> None:
    saved, given = _identity_of(record, "query"), identify(model, "query", identity=identity)
    if saved != given:
        raise ModelError(
            f"The retriever in {folder} was saved with queries embedded by {saved}, not by {given}; pass that model: "
            "embed_model=load_embed_model(...)."
        )
    if table.read_stamp() is not None:
        stamp = check_stamp(table, _identity_of(record, "document"))
        check_canaries(stamp.canaries, model, table.label, identity=identity)
    else:
        verify_vectors(table, model, _SAMPLE)


def _check_nodes(lexical: LexicalIndex, table: VectorTable, folder: Path) -> None:
    held = {node_id for batch in table.id_batches(10_000) for node_id in batch}
    gone = [node_id for node_id in lexical.ids if node_id not in held]
    if 2 * len(gone) > len(lexical):
        raise ModelError(
            f"{capital(table.label)} lacks {len(gone)} of the {len(lexical)} nodes of the retriever in {folder} "
            f"(first: {gone[0]!r}); give the index that it was made for, or make a new one for this index."
        )


def _damaged(folder: Path, err: Exception) -> ModelError:
    return ModelError(
        f"{folder / _RECORD} is damaged ({first_line(err)}); restore the folder, or make the retriever again."
    )
