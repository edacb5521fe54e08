"""Hard negatives on a cluster: the corpus is searched in parts, everything else is `mining`."""

from __future__ import annotations

import itertools
import json
import logging
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from llama_index_embft._core.files import atomic_write_text
from llama_index_embft._core.optional import require
from llama_index_embft.errors import ConfigError
from llama_index_embft.mining.choice import Choice
from llama_index_embft.mining.forbidden import Forbidden
from llama_index_embft.mining.miner import DEFAULT_STRATEGIES, _aligned, _check, _check_search, _steps
from llama_index_embft.mining.panel import PANEL_UNIT, Material, Panel
from llama_index_embft.mining.parsing import as_strategies
from llama_index_embft.mining.report import MiningReport
from llama_index_embft.mining.strategies import LeastSimilar, Source
from llama_index_embft.scale.ray.cluster import connected, count_of
from llama_index_embft.scale.ray.encoding import encode
from llama_index_embft.scale.ray.index import Part, Settings, ShardedIndex
from llama_index_embft.scale.ray.manifest import read_embeddings, read_manifest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_index.core.llms import LLM
    from numpy.typing import NDArray

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.search.rows import Metric

logger = logging.getLogger(__name__)

# A part below this size is searched faster than it is asked for.
_LEAST_ROWS = 1024


def mine_hard_negatives(
    dataset: EmbeddingQAFinetuneDataset,
    embed_model: Any,
    strategies: Sequence[Any] | str = DEFAULT_STRATEGIES,
    num_negatives: int = 15,
    *,
    work_path: str | Path | None = None,
    parts: int | None = None,
    gpus_per_worker: float = 0,
    address: str | None = None,
    llm: LLM | None = None,
    relabel: bool = False,
    pad: bool = False,
    near_duplicates: float | None = 0.8,
    search: Literal["exact", "hnsw", "ivf"] = "exact",
    metric: Metric = "cosine",
    seed: int = 0,
    memory: int = 512 << 20,
    batch_size: int | None = None,
    rows_per_shard: int = 4096,
    show_progress: bool = False,
    report: MiningReport | None = None,
) -> EmbeddingQAFinetuneDataset:
    """Find hard negatives for every query on a Ray cluster.

    The result is that of `mining.mine_hard_negatives`: each part of the corpus is searched exactly, with the documents
    that may not be negatives of a query left out inside the search, and the parts are merged by score, then id,
    descending. A lost machine's parts are loaded and searched again by others. With ``search="hnsw"`` or ``"ivf"`` each
    part has a FAISS index of its own, so the result is not the one of a single index; its recall is in the report.

    Embeddings of the corpus stay with the workers, except for the strategy ``least-similar``, which reads them here.
    Duplicates and overlaps are looked for here, on the texts; cross-encoder and judge run here too.

    Args:
        dataset: Queries, documents and positives; not changed.
        embed_model: A folder or name that `load_embed_model` knows on every machine, or a function that makes the model
            there; or ready embeddings: a pair (of the queries, of the corpus) as in `mining.mine_hard_negatives`.
        strategies: As there.
        num_negatives: As there.
        work_path: Folder for the embeddings, on a disk that all machines see; needed unless they are given. What is in
            it is not embedded again.
        parts: Parts of the corpus, each with a worker; None takes one for each CPU (or GPU), of 1024 rows at least.
        gpus_per_worker: GPUs of each worker.
        address: The cluster, see `connected`.
        llm: As there, like the following.
        relabel: See there.
        pad: See there.
        near_duplicates: See there.
        search: See there.
        metric: See there.
        seed: See there.
        memory: Bytes for the search in each worker, about.
        batch_size: See there.
        rows_per_shard: See `encode`.
        show_progress: See there.
        report: See there.

    Raises:
        ConfigError: As there.
        OutputError: ``work_path`` holds the embeddings of another data set or model.
        ScaleError: No cluster answers, a machine lacks the model, or shards could not be embedded.
        MissingExtraError: Ray, or FAISS, is not installed.
    """
    require("ray", feature="Mining on a Ray cluster")
    started = time.monotonic()
    report = report if report is not None else MiningReport()
    chosen = as_strategies(strategies, llm=llm)
    _check(dataset, num_negatives, near_duplicates, relabel, chosen)
    _check_search(search, metric)
    if parts is not None and parts < 1:
        raise ConfigError(f"`parts` must be at least 1, got {parts}.")
    depth = max((source.depth for source in chosen if isinstance(source, Source)), default=0)
    with connected(address):
        n_parts = parts or min(count_of("GPU" if gpus_per_worker else "CPU"), -(-len(dataset.corpus) // _LEAST_ROWS))
        if isinstance(embed_model, (tuple, list)):
            given = _given(dataset, embed_model, n_parts)
        else:
            options = {"batch_size": batch_size, "gpus_per_worker": gpus_per_worker, "show_progress": show_progress}
            options["rows_per_shard"] = rows_per_shard
            given = _embedded(dataset, embed_model, work_path, n_parts, options)
        queries, corpus, cut = given
        report.seconds["embedding"] = time.monotonic() - started
        settings = Settings(search, metric, memory, "cuda" if gpus_per_worker else "cpu")
        index = ShardedIndex(cut, settings, gpus=gpus_per_worker)
        try:
            needs_corpus = any(isinstance(strategy, LeastSimilar) for strategy in chosen)
            material = Material(
                dataset=dataset,
                queries=queries,
                corpus=corpus.read() if needs_corpus else np.empty((0, queries.shape[1]), dtype=np.float32),
                index=index,
                forbidden=Forbidden(dataset, near_duplicates, show_progress=show_progress),
                num_negatives=num_negatives,
                depth=min(depth, len(dataset.corpus)),
                seed=seed,
            )
            if search != "exact" and material.depth:
                recall = index.recall(queries, material.depth)
                material.notes.append(
                    f"Approximate search ({search}, {len(cut)} parts) finds {recall:.1%} of the exact "
                    f"{material.depth} best documents."
                )
            index.check(queries)
            choice = Choice(material, chosen, relabel=relabel, pad=pad, report=report)
            size = max(1, memory // 2 // (64 * max(depth, 4 * num_negatives)) // PANEL_UNIT) * PANEL_UNIT
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="`queries`: .* are all zeros")
                for start in _steps(len(material.query_ids), size, show_progress):
                    choice.take(Panel(material, start, min(start + size, len(material.query_ids))))
        finally:
            index.close()
    result = choice.result()
    report.seconds["all"] = time.monotonic() - started
    for warning in report.warnings():
        logger.warning("%s", warning)
    return result


class _Corpus:
    """The embeddings of the corpus, for the one strategy that reads them here."""

    def __init__(self, data: NDArray[np.float32] | Path) -> None:
        self._data = data

    def read(self) -> NDArray[np.float32]:
        return read_embeddings(self._data).vectors if isinstance(self._data, Path) else self._data


def _given(
    dataset: EmbeddingQAFinetuneDataset, pair: Sequence[Any], n_parts: int
) -> tuple[NDArray[np.float32], _Corpus, list[Part]]:
    import ray

    if len(pair) != 2:
        raise ConfigError(f"Ready embeddings are a pair (of the queries, of the corpus), got {len(pair)} parts.")
    queries = _aligned(pair[0], list(dataset.queries), "queries")
    corpus = _aligned(pair[1], list(dataset.corpus), "documents")
    ids = list(dataset.corpus)
    edges = np.linspace(0, len(ids), min(n_parts, len(ids)) + 1).astype(int).tolist()
    cut = [
        Part(low, ids[low:high], ray.put(np.ascontiguousarray(corpus[low:high])))
        for low, high in itertools.pairwise(edges)
    ]
    return np.asarray(queries), _Corpus(corpus), cut


def _embedded(
    dataset: EmbeddingQAFinetuneDataset, model: Any, work_path: str | Path | None, n_parts: int, options: dict[str, Any]
) -> tuple[NDArray[np.float32], _Corpus, list[Part]]:
    if work_path is None:
        raise ConfigError("Give a `work_path` for the embeddings: a folder on a disk that all machines see.")
    folder = Path(work_path).expanduser().resolve()
    for name, texts in (("corpus", dataset.corpus), ("queries", dataset.queries)):
        lines = (json.dumps({"id": id_, "text": text}) + "\n" for id_, text in texts.items())
        atomic_write_text(folder / f"{name}.jsonl", "".join(lines))
        kind: Any = "document" if name == "corpus" else "query"
        encode(folder / f"{name}.jsonl", model, folder / name, kind=kind, **options)
    files = [folder / "corpus" / name for name in read_manifest(folder / "corpus")["shards"]]
    groups = [group.tolist() for group in np.array_split(np.arange(len(files)), min(n_parts, len(files)))]
    size, ids = options["rows_per_shard"], list(dataset.corpus)
    cut = [
        Part(group[0] * size, ids[group[0] * size : (group[-1] + 1) * size], [files[n] for n in group])
        for group in groups
    ]
    return read_embeddings(folder / "queries").vectors, _Corpus(folder / "corpus"), cut
