"""Checkpoints that are whole or not there, so that a run can be killed at any moment and go on."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from llama_index_embft._core.checks import first_line
from llama_index_embft._core.files import check_replaceable, write_folder_atomically
from llama_index_embft._core.temporary import remove_folder
from llama_index_embft.errors import ConfigError, EmbftError, OutputError, TrainingError

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)

STATE_FILE: Final = "embft_best.json"
WEIGHTS_FILE: Final = "embft_best.safetensors"
PREFIX: Final = "checkpoint-"
# How torch.save and safetensors, which do not raise OSError, tell that the disk took no more.
_DISK_TEXTS: Final = ("os error", "file write failed", "PytorchStreamWriter", "inline_container", "unexpected pos")
_CHUNK: Final = 2**24


class Resumed(NamedTuple):
    """A checkpoint to go on from.

    Attributes:
        path: Its folder, with the Trainer's files.
        state: As it was given to `Checkpoints.write`.
        weights: The best weights so far; None where nothing was measured.
    """

    path: Path
    state: dict[str, Any]
    weights: dict[str, Any] | None


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: Where they lie, as ``checkpoint-<step>``.
        keep: How many; 0 keeps all.
        signature: What decides the course of the run, data and settings; a run with another does not go on from them.
    """

    def __init__(self, folder: Path, *, keep: int, signature: dict[str, Any]) -> None:
        self.folder = folder
        self.keep = keep
        self.signature = signature
        self._own: set[Path] = set()  # that this run wrote or went on from

    def check(self) -> None:
        """Find out before the work that no checkpoint will stand in the place of something that is not ours.

        Raises:
            OutputError: One would.
        """
        for path in self.folder.glob(f"{PREFIX}*"):
            check_replaceable(path)

    def newest(self, step: int | None = None) -> Path | None:
        """The newest checkpoint that this run wrote or went on from, of at most so many steps; None if there is none.

        Those of an earlier run lie there until this one writes its first.

        Args:
            step: Steps that were sound; None takes the newest.
        """
        found = [path for path in self._all() if path in self._own and (step is None or _steps(path) <= step)]
        return found[-1] if found else None

    def resume(self) -> Resumed | None:
        """The checkpoint to go on from: the newest that is whole; None if there is none at all.

        Raises:
            ConfigError: It belongs to a run with other data or settings.
            TrainingError: There are checkpoints, and every one is damaged.
        """
        found = self._all()
        reason = ""
        for path in reversed(found):
            try:
                record, weights = _read(path)
            except Exception as err:  # noqa: BLE001 (whatever a damaged JSON or safetensors file makes its reader raise)
                reason = first_line(err)
                logger.warning("The checkpoint %s is damaged (%s); looking for an older one.", path, reason)
                continue
            self._check_signature(path, record["signature"])
            self._own.add(path)
            return Resumed(path, record["state"], weights)
        if found:
            raise TrainingError(
                f"All {len(found)} checkpoints in {self.folder} are damaged ({reason}); remove that folder, and train "
                "from the beginning."
            )
        return None

    def _check_signature(self, path: Path, before: dict[str, Any]) -> None:
        different = sorted(name for name in {*before, *self.signature} if before.get(name) != self.signature.get(name))
        if different:
            name = different[0]
            raise ConfigError(
                f"The checkpoint {path} cannot be resumed: {name} was {before.get(name)!r} and is "
                f"{self.signature.get(name)!r} now; pass the earlier value, or remove {self.folder} to start again."
            )

    def write(
        self, step: int, fill: Callable[[Path], None], state: dict[str, Any], best: dict[str, Any] | None
    ) -> None:
        """Write a checkpoint, then remove old ones.

        Raises:
            OutputError: It cannot be written; the older ones are still there.
        """
        from safetensors.torch import save_file

        target = self.folder / f"{PREFIX}{step}"
        try:
            with write_folder_atomically(target) as folder:
                fill(folder)
                if best is not None:
                    tensors = {name: tensor.contiguous() for name, tensor in best.items()}
                    save_file(tensors, str(folder / WEIGHTS_FILE))
                record = {"signature": self.signature, "state": state, "files": _sums(folder)}
                text = json.dumps({**record, "check": digest(record)})
                (folder / STATE_FILE).write_text(text, encoding="utf-8")
        except OutputError as err:
            raise OutputError(f"{err} {self._way_on()}") from err
        except EmbftError:
            raise
        except Exception as err:
            if not any(text in str(err) for text in _DISK_TEXTS):
                raise
            raise OutputError(
                f"Cannot write the checkpoint {target}: {first_line(err)}; free some space. {self._way_on()}"
            ) from err
        if not self._own:
            self._remove_others(target)
        self._own.add(target)
        if self.keep:
            for path in self._all()[: -self.keep]:
                remove_folder(path)

    def _remove_others(self, first: Path) -> None:
        """Checkpoints of an earlier run have lost their turn; those with higher numbers would pass for the newest."""
        for path in (*self._all(), *self.folder.glob("round-*")):
            if path != first:
                remove_folder(path)

    def _all(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        whole = [path for path in self.folder.glob(f"{PREFIX}[0-9]*") if (path / STATE_FILE).is_file()]
        numbered = [path for path in whole if path.name.removeprefix(PREFIX).isdecimal()]
        return sorted(numbered, key=_steps)

    def _way_on(self) -> str:
        newest = self.newest()
        if newest is None:
            return "There is no earlier checkpoint."
        return (
            f"The checkpoint {newest} is good: call again with resume_from_checkpoint=True (--resume-from-checkpoint) "
            "to go on from it."
        )


def _steps(path: Path) -> int:
    return int(path.name.removeprefix(PREFIX))


def digest(value: Any) -> str:
    """Short hash of JSON types."""
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=8).hexdigest()


def checkpoint_folder(output_path: str | os.PathLike[str]) -> Path:
    """Where the checkpoints of a run lie: named after its output folder, and after the whole path to it.

    The last part alone is shared by ``runs/a/model`` and ``runs/b/model``, whose runs must not meet.
    """
    whole = os.path.realpath(output_path)
    name = re.sub(r"[^\w.-]", "_", Path(whole).name)[:80] or "model"
    return Path("checkpoints") / f"{name}-{hashlib.blake2b(os.fsencode(whole), digest_size=4).hexdigest()}"


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """State and best weights of a checkpoint, every file of it checked."""
    from safetensors.torch import load_file

    record: dict[str, Any] = json.loads((path / STATE_FILE).read_text(encoding="utf-8"))
    if record.pop("check") != digest(record):
        raise ValueError(f"{STATE_FILE} has been changed")
    now = _sums(path)
    for name, known in record["files"].items():
        if now.get(name) != known:
            raise ValueError(f"{name} is missing" if name not in now else f"{name} is not what was written")
    weights = path / WEIGHTS_FILE
    return record, dict(load_file(str(weights))) if weights.is_file() else None


def _sums(folder: Path) -> dict[str, list[int]]:
    """Size in bytes and CRC-32 of each file, by its path in the folder."""
    found = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = file.relative_to(folder).as_posix()
        if name == STATE_FILE or file.name.startswith(".embft-"):
            continue
        size = checksum = 0
        with file.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                size, checksum = size + len(chunk), zlib.crc32(chunk, checksum)
        found[name] = [size, checksum]
    return found
