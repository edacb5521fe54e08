"""Hard negatives: documents that a model takes for an answer and that are none."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from llama_index_embft._core.optional import require
from llama_index_embft.errors import ConfigError
from llama_index_embft.mining.choice import Choice
from llama_index_embft.mining.forbidden import Forbidden
from llama_index_embft.mining.panel import PANEL_UNIT, Material, Panel
from llama_index_embft.mining.parsing import as_strategies
from llama_index_embft.mining.report import MiningReport
from llama_index_embft.mining.strategies import Source
from llama_index_embft.mining.teachers import Teacher
from llama_index_embft.search.approximate import ApproximateIndex
from llama_index_embft.search.topk import ExactIndex, descending

if TYPE_CHECKING:
    from llama_index.core.llms import LLM
    from numpy.typing import NDArray

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.search.rows import Metric

logger = logging.getLogger(__name__)

DEFAULT_STRATEGIES: Final = ("rank:1-100", "margin:0.95")


def mine_hard_negatives(
    dataset: EmbeddingQAFinetuneDataset,
    embed_model: Any,
    strategies: Sequence[Any] | str = DEFAULT_STRATEGIES,
    num_negatives: int = 15,
    *,
    llm: LLM | None = None,
    relabel: bool = False,
    pad: bool = False,
    near_duplicates: float | None = 0.8,
    search: Literal["exact", "hnsw", "ivf"] = "exact",
    metric: Metric = "cosine",
    seed: int = 0,
    device: Any = None,
    memory: int = 512 << 20,
    cache: Any = "default",
    batch_size: int | None = None,
    show_progress: bool = False,
    report: MiningReport | None = None,
) -> EmbeddingQAFinetuneDataset:
    """Find hard negatives for every query.

    A document is never a negative of a query that it answers, nor one that is exactly or nearly the same as such a
    document, nor a chunk that shares text with one (the splitter's overlap, parents and children).

    Deterministic: the same inputs and seed give the same negatives, on any device and with any ``memory``.

    Args:
        dataset: Queries, documents and positives; not changed. Negatives that it has are replaced.
        embed_model: A LlamaIndex embedding, a SentenceTransformer, an `Encoder`, or ready embeddings: a pair (of the
            queries, of the corpus), each an array with a row for each id in the data set's order, or a mapping from id
            to vector, such as ``index.vector_store.data.embedding_dict``.
        strategies: Where candidates come from and which are dropped; texts as in `parse_strategy`, or objects. Sources
            take turns; filters apply to all. Filters alone apply to the 100 best documents. The default takes the
            hardest among 100 that score at most 95 % of the lowest positive.
        num_negatives: Negatives wanted for each query.
        llm: The LLM of the strategy ``"judge"``.
        relabel: A candidate that a cross-encoder or judge finds relevant becomes a further positive (RLHN); otherwise
            it is only dropped.
        pad: Fill up with random documents where the strategies leave too few; otherwise such queries have fewer, and a
            warning counts them.
        near_duplicates: Overlap of words from which two documents count as the same, see `near_duplicate_groups`; 1.0
            asks for equal words. None compares whole texts letter by letter and looks for no shared text, which saves
            about 0.5 ms a document: for corpora that are known to hold no duplicates and no overlapping chunks.
        search: ``"exact"``; or ``"hnsw"`` or ``"ivf"`` for the approximate search of FAISS (extra ``faiss``), whose
            recall against the exact one is measured on 200 queries and noted in the report.
        metric: ``"cosine"``, or ``"dot"`` for models that rank by the inner product.
        seed: Of every random choice.
        device: Where to search; None takes a GPU if there is one.
        memory: Bytes for the search beside embeddings and result, about.
        cache: Where embeddings are kept, see `as_encoder`.
        batch_size: Texts a batch, see `as_encoder`.
        show_progress: Show progress bars for long work.
        report: An empty `MiningReport` to be filled in.

    Returns:
        A copy with ``negative_docs``, hardest first within each source; with ``relabel`` also with more
        ``relevant_docs``.

    Raises:
        ConfigError: An argument or a strategy is not allowed; embeddings do not fit the data set or hold NaN; the
            corpus has no more documents than negatives are wanted; or no negative is found at all.
        ModelError: The embedding model or the cross-encoder failed.
    """
    started = time.monotonic()
    report = report if report is not None else MiningReport()
    chosen = as_strategies(strategies, llm=llm)
    _check(dataset, num_negatives, near_duplicates, relabel, chosen)
    _check_search(search, metric)  # before the texts are embedded, which may take hours
    queries, corpus = _embeddings(dataset, embed_model, cache, batch_size, show_progress)
    report.seconds["embedding"] = time.monotonic() - started
    depth = max((source.depth for source in chosen if isinstance(source, Source)), default=0)
    material = Material(
        dataset=dataset,
        queries=queries,
        corpus=corpus,
        index=_index(corpus, list(dataset.corpus), search, metric, device, memory),
        forbidden=Forbidden(dataset, near_duplicates, show_progress=show_progress),
        num_negatives=num_negatives,
        depth=min(depth, len(dataset.corpus)),
        seed=seed,
    )
    if isinstance(material.index, ApproximateIndex) and material.depth:
        recall = material.index.recall(queries, material.depth)
        material.notes.append(
            f"Approximate search ({search}) finds {recall:.1%} of the exact {material.depth} best documents."
        )
    material.index.check(queries)
    choice = Choice(material, chosen, relabel=relabel, pad=pad, report=report)
    size = max(1, memory // 2 // (64 * max(depth, 4 * num_negatives)) // PANEL_UNIT) * PANEL_UNIT
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`queries`: .* are all zeros")  # said once, for all of them
        for start in _steps(len(material.query_ids), size, show_progress):
            choice.take(Panel(material, start, min(start + size, len(material.query_ids))))
    result = choice.result()
    report.seconds["all"] = time.monotonic() - started
    for warning in report.warnings():
        logger.warning("%s", warning)
    return result


def _check(
    dataset: EmbeddingQAFinetuneDataset,
    num_negatives: int,
    near_duplicates: float | None,
    relabel: bool,
    strategies: Sequence[Any],
) -> None:
    if num_negatives < 1:
        raise ConfigError(f"`num_negatives` must be at least 1, got {num_negatives}.")
    if near_duplicates is not None and not 0 < near_duplicates <= 1:
        raise ConfigError(f"`near_duplicates` must be above 0 and at most 1, got {near_duplicates}.")
    if not dataset.queries:
        raise ConfigError("The data set has no queries to mine negatives for.")
    if len(dataset.corpus) <= num_negatives:
        raise ConfigError(
            f"The corpus has {len(dataset.corpus)} documents, so no query can have {num_negatives} negatives; lower "
            "`num_negatives`, or add documents to the corpus (they need no queries)."
        )
    if relabel and not any(isinstance(strategy, Teacher) for strategy in strategies):
        raise ConfigError(
            "`relabel` needs a strategy that tells relevant documents from others: 'judge' or 'cross-encoder:MODEL'."
        )


def _check_search(search: str, metric: str) -> None:
    if search not in ("exact", "hnsw", "ivf"):
        raise ConfigError(f"`search` must be 'exact', 'hnsw' or 'ivf', got {search!r}.")
    if metric not in ("cosine", "dot"):
        raise ConfigError(f"`metric` must be 'cosine' or 'dot', got {metric!r}.")
    if search != "exact":
        require("faiss", feature=f"search={search!r}")


def _index(corpus: Any, ids: list[str], search: str, metric: Metric, device: Any, memory: int) -> ExactIndex:
    order = descending(ids)
    if search == "exact":
        return ExactIndex(corpus, metric=metric, device=device, memory=memory, tie_order=order)
    kind: Literal["hnsw", "ivf"] = "hnsw" if search == "hnsw" else "ivf"
    return ApproximateIndex(corpus, kind, metric=metric, memory=memory, tie_order=order)


def _embeddings(
    dataset: EmbeddingQAFinetuneDataset, given: Any, cache: Any, batch_size: int | None, show_progress: bool
) -> tuple[Any, Any]:
    if isinstance(given, (tuple, list)):
        if len(given) != 2:
            raise ConfigError(f"Ready embeddings are a pair (of the queries, of the corpus), got {len(given)} parts.")
        return (
            _aligned(given[0], list(dataset.queries), "queries"),
            _aligned(given[1], list(dataset.corpus), "documents"),
        )
    from llama_index_embft.embeddings.encoding.encoder import as_encoder

    encoder = as_encoder(given, cache=cache, batch_size=batch_size, show_progress=show_progress)
    corpus = encoder.encode_documents(list(dataset.corpus.values()))
    return encoder.encode_queries(list(dataset.queries.values())), corpus


def _aligned(given: Any, ids: list[str], kind: str) -> NDArray[np.float32]:
    """Ready embeddings in the order of the ids."""
    if isinstance(given, Mapping):
        missing = [id_ for id_ in ids if id_ not in given]
        if missing:
            raise ConfigError(
                f"{len(missing)} of {len(ids)} {kind} of the data set have no embedding under their id, for example "
                f"{missing[0]!r}; the embeddings given are for {len(given)} ids such as {next(iter(given), None)!r}. "
                "Give those of this data set."
            )
        lengths = {len(given[id_]) for id_ in ids}
        if len(lengths) > 1:
            raise ConfigError(f"The embeddings of the {kind} have different lengths: {sorted(lengths)[:5]}.")
        return np.array([given[id_] for id_ in ids], dtype=np.float32)
    try:
        matrix: NDArray[np.float32] = given if hasattr(given, "shape") else np.asarray(given, dtype=np.float32)
    except (TypeError, ValueError) as err:
        raise ConfigError(f"Embeddings of the {kind} are no matrix of numbers: {err}.") from err
    shape = tuple(matrix.shape)
    if len(shape) != 2 or shape[0] != len(ids):
        raise ConfigError(
            f"Embeddings of the {kind} must have shape ({len(ids)}, dim), a row for each id in the data set's order; "
            f"got {shape}."
        )
    return matrix


def _steps(n: int, size: int, show_progress: bool) -> Any:
    from tqdm.auto import tqdm

    return tqdm(
        range(0, n, size), desc="Mining", unit="block", delay=2, leave=False, disable=not show_progress or n <= size
    )
