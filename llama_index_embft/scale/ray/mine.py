"""Hard negatives on a cluster: the corpus is searched in parts, everything else is `mining`."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llama_index_embft._core.files import atomic_write_text
from llama_index_embft._core.optional import require
from llama_index_embft.errors import ConfigError
from llama_index_embft.mining.parsing import DEFAULT_STRATEGIES
from llama_index_embft.mining.session import MiningSession
from llama_index_embft.mining.strategies import LeastSimilar
from llama_index_embft.mining.vectors import given_vectors
from llama_index_embft.scale.ray.cluster import connected, count_of
from llama_index_embft.scale.ray.encoding import encode
from llama_index_embft.scale.ray.index import CorpusPart, PartSettings, ShardedIndex
from llama_index_embft.scale.ray.manifest import read_embeddings, read_manifest
from llama_index_embft.scale.ray.settings import MiningWorkers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_index.core.llms import LLM
    from numpy.typing import NDArray

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.mining.mined import MinedDataset
    from llama_index_embft.mining.settings import MiningSettings

# A part below this size is searched faster than it is asked for.
_LEAST_ROWS = 1024


def mine_hard_negatives(
    dataset: EmbeddingQAFinetuneDataset,
    embed_model: Any,
    strategies: Sequence[Any] | str = DEFAULT_STRATEGIES,
    num_negatives: int = 15,
    *,
    work_path: str | Path | None = None,
    address: str | None = None,
    llm: LLM | None = None,
    relabel: bool = False,
    seed: int = 0,
    show_progress: bool = False,
    settings: MiningSettings | None = None,
    workers: MiningWorkers | None = None,
) -> MinedDataset:
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
        address: The cluster, see `connected`.
        llm: As in `mining.mine_hard_negatives`, like the following.
        relabel: See there.
        seed: See there.
        show_progress: See there.
        settings: See there; ``memory`` is that of the search in each worker.
        workers: How to divide the work; None for the defaults of `MiningWorkers`.

    Raises:
        ConfigError: As there.
        OutputError: ``work_path`` holds the embeddings of another data set or model.
        ScaleError: No cluster answers, a machine lacks the model, or shards could not be embedded.
        MissingExtraError: Ray, or FAISS, is not installed.
    """
    require("ray", feature="Mining on a Ray cluster")
    session = MiningSession(
        dataset,
        strategies,
        num_negatives,
        llm=llm,
        relabel=relabel,
        seed=seed,
        show_progress=show_progress,
        settings=settings,
    )
    workers = workers if workers is not None else MiningWorkers()
    how, gpus = session.settings, workers.gpus_per_worker
    with connected(address):
        n_parts = workers.parts or min(count_of("GPU" if gpus else "CPU"), -(-len(dataset.corpus) // _LEAST_ROWS))
        if isinstance(embed_model, (tuple, list)):
            queries, corpus, cut = _given(dataset, embed_model, n_parts)
        else:
            queries, corpus, cut = _embedded(
                dataset, embed_model, work_path, n_parts, workers, show_progress, how.trust_remote_code
            )
        needs_corpus = any(isinstance(strategy, LeastSimilar) for strategy in session.strategies)
        index = ShardedIndex(
            cut, PartSettings(how.search, how.similarity, how.memory, "cuda" if gpus else "cpu"), gpus=gpus
        )
        try:
            return session.mine(
                queries,
                corpus.read() if needs_corpus else np.empty((0, queries.shape[1]), dtype=np.float32),
                index,
                index_name="" if how.search == "exact" else f"{how.search}, {len(cut)} parts",
            )
        finally:
            index.close()


class _Corpus:
    """The embeddings of the corpus, for the one strategy that reads them here."""

    def __init__(self, data: NDArray[np.float32] | Path) -> None:
        self._data = data

    def read(self) -> NDArray[np.float32]:
        return read_embeddings(self._data).vectors if isinstance(self._data, Path) else self._data


def _given(
    dataset: EmbeddingQAFinetuneDataset, pair: Sequence[Any], n_parts: int
) -> tuple[NDArray[np.float32], _Corpus, list[CorpusPart]]:
    import ray

    queries, corpus = given_vectors(dataset, pair)
    ids = list(dataset.corpus)
    edges = np.linspace(0, len(ids), min(n_parts, len(ids)) + 1).astype(int).tolist()
    cut = [
        CorpusPart(low, ids[low:high], ray.put(np.ascontiguousarray(corpus[low:high])))
        for low, high in itertools.pairwise(edges)
    ]
    return np.asarray(queries), _Corpus(corpus), cut


def _embedded(
    dataset: EmbeddingQAFinetuneDataset,
    model: Any,
    work_path: str | Path | None,
    n_parts: int,
    workers: MiningWorkers,
    show_progress: bool,
    trust_remote_code: bool,
) -> tuple[NDArray[np.float32], _Corpus, list[CorpusPart]]:
    if work_path is None:
        raise ConfigError("Give a `work_path` for the embeddings: a folder on a disk that all machines see.")
    folder = Path(work_path).expanduser().resolve()
    for name, texts in (("corpus", dataset.corpus), ("queries", dataset.queries)):
        lines = (json.dumps({"id": id_, "text": text}) + "\n" for id_, text in texts.items())
        atomic_write_text(folder / f"{name}.jsonl", "".join(lines))
        kind: Any = "document" if name == "corpus" else "query"
        encode(
            folder / f"{name}.jsonl",
            model,
            folder / name,
            kind=kind,
            batch_size=workers.batch_size,
            gpus_per_worker=workers.gpus_per_worker,
            rows_per_shard=workers.rows_per_shard,
            show_progress=show_progress,
            trust_remote_code=trust_remote_code,
        )
    files = [folder / "corpus" / name for name in read_manifest(folder / "corpus")["shards"]]
    groups = [group.tolist() for group in np.array_split(np.arange(len(files)), min(n_parts, len(files)))]
    size, ids = workers.rows_per_shard, list(dataset.corpus)
    cut = [
        CorpusPart(group[0] * size, ids[group[0] * size : (group[-1] + 1) * size], [files[n] for n in group])
        for group in groups
    ]
    return read_embeddings(folder / "queries").vectors, _Corpus(folder / "corpus"), cut
