"""The output folder of an encoding job: whose it is, which shards are there, and reading them back in order."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from llama_index_embft._core.files import atomic_write_bytes, atomic_write_text
from llama_index_embft.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from llama_index_embft.scale.ray.shards import Shard

MANIFEST: Final = "manifest.json"
FAILED: Final = "failed.json"
# What the parts of a job are called in the sentence that says why a folder is refused.
_PARTS: Final = {
    "model": "another model",
    "kind": "another kind of text (query or document)",
    "data": "other texts",
    "columns": "other columns",
    "rows_per_shard": "another `rows_per_shard`",
    "keep_texts": "another `keep_texts`",
}


class Embeddings(NamedTuple):
    """Vectors with their ids, in the order of the input."""

    ids: list[str]
    vectors: NDArray[np.float32]  # (n, dim)


class ShardContent(NamedTuple):
    """What one shard file holds."""

    rows: NDArray[np.int64]  # (n,)
    ids: list[str]
    texts: list[str] | None
    vectors: NDArray[np.float32]  # (n, dim)


class OutputFolder:
    """The folder of one job.

    Args:
        path: The folder; need not exist.
        job: What decides the content: model, kind, columns, rows a shard, texts kept or not, and a hash of the data.
        shards: The plan.
    """

    def __init__(self, path: str | Path, job: dict[str, Any], shards: Sequence[Shard]) -> None:
        self.path = Path(path).expanduser().resolve()  # workers have other working folders
        self.job, self.shards = job, shards
        # Only what a single shard depends on: its own texts are in its digest.
        self._salt = json.dumps({key: value for key, value in job.items() if key != "data"}, sort_keys=True)

    def file_of(self, shard: Shard) -> Path:
        """The file of a shard; its name follows from number, texts, model and settings."""
        content = hashlib.blake2b(f"{self._salt}{shard.digest}".encode(), digest_size=8).hexdigest()
        return self.path / f"{shard.number:06d}-{content}.parquet"

    def open(self) -> None:
        """Make the folder this job's, or find that it is already.

        Raises:
            OutputError: It belongs to another job, or holds something else.
        """
        if self.path.is_dir() and any(self.path.iterdir()):
            self._check_mine(read_manifest(self.path))
        else:
            self._write("running")
        self.sweep()
        with suppress(FileNotFoundError):
            (self.path / FAILED).unlink()

    def sweep(self) -> None:
        """Take away what workers that were killed had begun to write."""
        for left_over in self.path.glob(".embft-*.tmp"):
            with suppress(OSError):
                left_over.unlink()

    def _check_mine(self, manifest: dict[str, Any]) -> None:
        found = manifest["job"]
        other = [meaning for part, meaning in _PARTS.items() if found.get(part) != self.job[part]]
        if other:
            raise OutputError(
                f"The folder {self.path} holds the embeddings of another job ({', '.join(other)}); choose a new "
                "folder, or delete that one."
            )

    def _write(self, state: str, **more: Any) -> None:
        record = {"format": 1, "state": state, "job": self.job, **more}
        atomic_write_text(self.path / MANIFEST, json.dumps(record, indent=1, sort_keys=True) + "\n")

    def is_there(self, shard: Shard) -> bool:
        """Whether a shard's file is there and whole."""
        from pyarrow import ArrowException  # type: ignore[import-untyped, unused-ignore]
        from pyarrow.parquet import read_metadata  # type: ignore[import-untyped, unused-ignore]

        try:
            return bool(read_metadata(self.file_of(shard)).num_rows == shard.n_rows)
        except (OSError, ArrowException):
            return False

    def finish(self, dim: int) -> None:
        """Note that all shards are there."""
        files = [self.file_of(shard).name for shard in self.shards]
        n_rows = sum(shard.n_rows for shard in self.shards)
        self._write("complete", shards=files, rows=n_rows, dim=dim)

    def note_failures(self, failed: dict[Shard, str], ids: dict[int, list[str]]) -> None:
        """Write down which rows could not be embedded, and why."""
        records = [
            {"shard": shard.number, "file": shard.path, "reason": reason, "ids": ids.get(shard.number, [])}
            for shard, reason in failed.items()
        ]
        atomic_write_text(self.path / FAILED, json.dumps(records, indent=1, ensure_ascii=False) + "\n")


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """The manifest of an output folder.

    Raises:
        OutputError: There is none, so the folder holds something else.
    """
    path = Path(folder)
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        if manifest["format"] != 1 or not isinstance(manifest["job"], dict):
            raise ValueError(manifest["format"])
    except FileNotFoundError as err:
        raise OutputError(
            f"The folder {path} holds no embeddings made by `encode` (there is no {MANIFEST}); choose a new folder."
        ) from err
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise OutputError(f"{path / MANIFEST} cannot be read ({err}); choose a new folder.") from err
    found: dict[str, Any] = manifest
    return found


def write_shard(path: Path, content: ShardContent) -> None:
    """Write a shard file, whole or not at all."""
    import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]
    from pyarrow.parquet import write_table  # type: ignore[import-untyped, unused-ignore]

    dim = content.vectors.shape[1]
    columns: dict[str, Any] = {"row": pa.array(content.rows), "id": pa.array(content.ids, pa.string())}
    if content.texts is not None:
        columns["text"] = pa.array(content.texts, pa.string())
    columns["vector"] = pa.FixedSizeListArray.from_arrays(pa.array(content.vectors.ravel(), pa.float32()), dim)
    buffer = pa.BufferOutputStream()
    # Vectors are noise to a compressor, and a dictionary of them is larger than they are.
    write_table(pa.table(columns), buffer, compression="none", use_dictionary=False, write_statistics=["row"])
    atomic_write_bytes(path, buffer.getvalue())


def read_shard(path: Path) -> ShardContent:
    """Read a shard file back."""
    from pyarrow.parquet import read_table  # type: ignore[import-untyped, unused-ignore]

    table = read_table(path).combine_chunks()
    vectors = table.column("vector").combine_chunks()
    dim = vectors.type.list_size
    return ShardContent(
        table.column("row").to_numpy(),
        table.column("id").to_pylist(),
        table.column("text").to_pylist() if "text" in table.column_names else None,
        vectors.flatten().to_numpy(zero_copy_only=False).reshape(-1, dim),
    )


def iter_embeddings(folder: str | Path) -> Iterator[ShardContent]:
    """The shards of a finished job, in order, one in memory at a time.

    Raises:
        OutputError: The job is not finished, or a shard is gone.
    """
    path = Path(folder)
    manifest = read_manifest(path)
    if manifest["state"] != "complete":
        raise OutputError(f"The embeddings in {path} are not complete; make the same call of `encode` again to go on.")
    for name in manifest["shards"]:
        if not (path / name).is_file():
            raise OutputError(f"{path / name} is gone; make the same call of `encode` again.")
        yield read_shard(path / name)


def read_embeddings(folder: str | Path) -> Embeddings:
    """All embeddings that `encode` wrote, in the order of the input.

    Args:
        folder: Its output folder.

    Raises:
        OutputError: The job is not finished, or a shard is gone.
    """
    path = Path(folder)
    manifest = read_manifest(path)
    ids: list[str] = []
    vectors = np.empty((manifest.get("rows", 0), manifest.get("dim", 0)), dtype=np.float32)
    for content in iter_embeddings(path):
        vectors[content.rows] = content.vectors
        ids.extend(content.ids)
    return Embeddings(ids, vectors)
