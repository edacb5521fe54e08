"""Texts to vectors on a cluster: shard by shard, in workers that hold the model, each shard written exactly once."""

from __future__ import annotations

import hashlib
import json
import logging
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from llama_index_embft._core.optional import require
from llama_index_embft.errors import ConfigError, EmbftError
from llama_index_embft.scale.ray.cluster import ScaleError, connected, count_of
from llama_index_embft.scale.ray.manifest import OutputFolder, ShardContent, write_shard
from llama_index_embft.scale.ray.model import from_anywhere, load_encoder, same_model_everywhere
from llama_index_embft.scale.ray.shards import Shard, ShardColumns, plan_shards
from llama_index_embft.scale.ray.store import StoreLoader

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from llama_index.core.vector_stores.types import BasePydanticVectorStore

    from llama_index_embft.embeddings.encoding.backends import TextKind
    from llama_index_embft.embeddings.encoding.encoder import Encoder
    from llama_index_embft.scale.ray.model import ModelSource

logger = logging.getLogger(__name__)

# Ray Data keeps some kilobytes about each block; more shards than this share blocks.
_MOST_BLOCKS: Final = 4096


@dataclass(frozen=True)
class EncodeResult:
    """What `encode` did.

    Attributes:
        output_path: Folder of the shards; `read_embeddings` reads it.
        rows: Rows in all shards.
        dim: Length of a vector.
        shards: Shards in all.
        written: Shards that this call embedded; the others were there.
    """

    output_path: Path
    rows: int
    dim: int
    shards: int
    written: int


def encode(
    inputs: str | Path | Sequence[str | Path],
    embed_model: ModelSource,
    output_path: str | Path,
    *,
    kind: TextKind = "document",
    id_column: str | None = "id",
    text_column: str = "text",
    rows_per_shard: int = 4096,
    keep_texts: bool = False,
    vector_store: BasePydanticVectorStore | None = None,
    store_name: str | None = None,
    workers: int | None = None,
    cpus_per_worker: float = 1,
    gpus_per_worker: float = 0,
    batch_size: int | None = None,
    address: str | None = None,
    show_progress: bool = False,
    trust_remote_code: bool = False,
) -> EncodeResult:
    """Embed the texts of Parquet or JSONL files on a Ray cluster.

    The vectors are those of `embeddings.encode` on one machine, to 1e-6, and so is their order. Texts and vectors do
    not travel through Ray: each worker reads its rows and writes its shard, so ``inputs`` and ``output_path`` must be
    on a disk that all machines see. A shard is written whole, under a name that follows from its texts and the model. A
    call that is repeated does what is missing and nothing else, and a lost machine's shards are done by others.

    Args:
        inputs: Files (``.parquet``, ``.jsonl``), and folders of them.
        embed_model: A folder or name that `load_embed_model` knows on every machine, or a function without arguments
            that makes the model there. A folder is passed on by its whole path: workers have other working folders.
        output_path: Folder of the result, new or of the same job. Its files have the columns ``row`` (number of the row
            over all inputs), ``id``, ``vector`` and, if kept, ``text``.
        kind: ``"document"`` or ``"query"``: which prompt is put before the texts.
        id_column: Where the ids are; None takes the row number.
        text_column: Where the texts are.
        rows_per_shard: Rows that are read, embedded and written at a time; memory of a worker and the work that a crash
            loses grow with it. 4096 rows of 1 KB and 1024 dimensions are 20 MB.
        keep_texts: Write the texts beside the vectors.
        vector_store: A LlamaIndex vector store to fill, in order, while later shards are still embedded. Texts are kept
            for it.
        store_name: Names a store that outlives this process (a Qdrant collection, a table): shards that are in it are
            noted under this name, and a repeated call goes on after them. None fills the store from the first shard on.
        workers: Most workers at a time; None takes what the cluster has CPUs (or GPUs) for.
        cpus_per_worker: CPUs of each; torch takes as many threads.
        gpus_per_worker: GPUs of each; 0 computes on CPUs.
        batch_size: Texts a batch, see `as_encoder`.
        address: The cluster, see `connected`.
        show_progress: Show Ray's progress bars.
        trust_remote_code: Run code that comes with the model, on every machine. Only for repositories you have read.

    Raises:
        ConfigError: An argument is not allowed.
        DocumentError: A file cannot be read.
        OutputError: The folder belongs to another job, or cannot be written.
        ScaleError: No cluster answers, a machine lacks the model, or some shards failed after all others were done.
        MissingExtraError: Ray is not installed.
    """
    require("ray", feature="Embedding on a Ray cluster")
    _check(kind, rows_per_shard, workers, cpus_per_worker, gpus_per_worker)
    if not callable(embed_model):
        embed_model = from_anywhere(str(embed_model))
    columns = ShardColumns(id_column, text_column)
    shards = plan_shards([inputs] if isinstance(inputs, (str, Path)) else inputs, columns, rows_per_shard)
    resource, device = ("GPU", "cuda") if gpus_per_worker else ("CPU", "cpu")
    with connected(address):
        keep_texts = keep_texts or vector_store is not None
        job = {
            "model": same_model_everywhere(
                embed_model, device=device, resource=resource, trust_remote_code=trust_remote_code
            ),
            "kind": kind,
            "columns": list(columns),
            "rows_per_shard": rows_per_shard,
            "keep_texts": keep_texts,
            "data": hashlib.blake2b("".join(s.digest for s in shards).encode(), digest_size=16).hexdigest(),
        }
        folder = OutputFolder(output_path, job, shards)
        folder.open()
        loader = StoreLoader(vector_store, store_name, folder)
        there = {shard for shard in shards if folder.is_there(shard)}
        missing = [shard for shard in shards if shard not in there]
        loader.offer(there)
        worker = WorkerSettings(embed_model, columns, kind, keep_texts, device, batch_size, folder, trust_remote_code)
        share = gpus_per_worker or max(cpus_per_worker, 0.01)
        pool = min(workers or max(1, int(count_of(resource) / share)), max(1, len(missing)))
        failed: dict[Shard, str] = {}
        failed_ids: dict[int, list[str]] = {}
        for record in _run(missing, worker, pool, cpus_per_worker, gpus_per_worker, show_progress):
            shard = shards[int(record["number"])]
            if record["error"]:
                failed[shard] = str(record["error"])
                failed_ids[shard.number] = list(record["ids"])
            else:
                loader.offer([shard])
    if failed:
        folder.note_failures(failed, failed_ids)
        raise ScaleError(_failure_message(failed, folder), {shard.label: why for shard, why in failed.items()})
    dim = _dim(folder)
    folder.finish(dim)
    folder.sweep()
    return EncodeResult(folder.path, sum(shard.n_rows for shard in shards), dim, len(shards), len(missing))


def _check(kind: str, rows_per_shard: int, workers: int | None, cpus: float, gpus: float) -> None:
    if kind not in ("query", "document"):
        raise ConfigError(f"`kind` must be 'query' or 'document', got {kind!r}.")
    if rows_per_shard < 1:
        raise ConfigError(f"`rows_per_shard` must be at least 1, got {rows_per_shard}.")
    if workers is not None and workers < 1:
        raise ConfigError(f"`workers` must be at least 1, got {workers}.")
    if cpus < 0 or gpus < 0 or cpus + gpus == 0:
        raise ConfigError(f"A worker needs a CPU or a GPU; got cpus_per_worker={cpus}, gpus_per_worker={gpus}.")


@dataclass(frozen=True)
class WorkerSettings:
    """What a worker must know."""

    model: ModelSource
    columns: ShardColumns
    kind: TextKind
    keep_texts: bool
    device: str
    batch_size: int | None
    folder: OutputFolder
    trust_remote_code: bool = False


class ShardWorker:
    """Holds the model; reads, embeds and writes shards. Ray Data makes one in each worker process.

    Args:
        settings: What to do.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        self.settings = settings
        self._encoder: Encoder | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Do some shards, given as rows of a Ray data set; failures are results, so that one cannot stop the others."""
        columns = {name: [_plain(value) for value in values] for name, values in batch.items()}
        shards = [Shard(**dict(zip(columns, values, strict=True))) for values in zip(*columns.values(), strict=True)]
        errors, ids = [], []
        for shard in shards:
            error, failed_ids = self._attempt(shard)
            errors.append(error)
            ids.append(json.dumps(failed_ids))  # lists of different lengths are no column
        return {"number": [shard.number for shard in shards], "error": errors, "ids": ids}

    def _attempt(self, shard: Shard) -> tuple[str, list[str]]:
        known: list[str] = []
        reason = self._failure(shard, known)
        if reason:  # once more: a disk or a driver may have had a bad moment
            reason = self._failure(shard, known)
        return (f"{reason[:500]} (node {_here()})", known) if reason else ("", [])

    def _failure(self, shard: Shard, known: list[str]) -> str:
        try:
            self._do(shard, known)
        except EmbftError as err:
            return str(err)
        except Exception as err:  # noqa: BLE001 - any failure of a model is a result here, see __call__
            return f"{type(err).__name__}: {err}"
        return ""

    def _do(self, shard: Shard, known: list[str]) -> None:
        settings = self.settings
        if settings.folder.is_there(shard):  # a worker that was lost had just finished it
            return
        rows = shard.read(settings.columns)
        known[:] = rows.ids
        if self._encoder is None:
            self._encoder = load_encoder(
                settings.model,
                device=settings.device,
                batch_size=settings.batch_size,
                trust_remote_code=settings.trust_remote_code,
            )
        embed = self._encoder.encode_queries if settings.kind == "query" else self._encoder.encode_documents
        numbers = np.arange(shard.first_row, shard.first_row + shard.n_rows, dtype=np.int64)
        texts = rows.texts if settings.keep_texts else None
        write_shard(settings.folder.file_of(shard), ShardContent(numbers, rows.ids, texts, embed(rows.texts)))


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _here() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())[:8]


def _run(
    shards: list[Shard], worker: WorkerSettings, pool: int, cpus: float, gpus: float, show_progress: bool
) -> Iterator[dict[str, Any]]:
    """Have the shards done, and yield a record for each as it is finished."""
    if not shards:
        return
    import ray

    with _quiet(show_progress):
        plan = ray.data.from_items(
            [shard.as_row() for shard in shards], override_num_blocks=min(len(shards), _MOST_BLOCKS)
        )
        # From 1 on: where a machine is lost and nobody replaces it, the others go on with fewer workers.
        done = plan.map_batches(
            ShardWorker,
            fn_constructor_args=(worker,),
            batch_size=1,
            num_cpus=cpus,
            num_gpus=gpus or None,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=pool, initial_size=pool),
        )
        for record in done.iter_rows():
            yield {**record, "ids": json.loads(record["ids"])}


@contextmanager
def _quiet(show_progress: bool) -> Iterator[None]:
    """Keep Ray Data's reports away unless they are wanted."""
    from ray.data import DataContext

    if show_progress:
        yield
        return
    context, log = DataContext.get_current(), logging.getLogger("ray.data")
    before, level = context.enable_progress_bars, log.level
    context.enable_progress_bars = False
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        context.enable_progress_bars = before
        log.setLevel(level)


def _failure_message(failed: dict[Shard, str], folder: OutputFolder) -> str:
    shard, reason = next(iter(failed.items()))
    return (
        f"{len(failed)} of {len(folder.shards)} shards could not be embedded, the first is {shard.label}: "
        f"{reason.rstrip('.')}. All ids are in {folder.path / 'failed.json'}; the other shards are done: make the same "
        "call again when the cause is removed, and only these are done."
    )


def _dim(folder: OutputFolder) -> int:
    from pyarrow.parquet import read_schema  # type: ignore[import-untyped, unused-ignore]

    return int(read_schema(folder.file_of(folder.shards[0])).field("vector").type.list_size)
