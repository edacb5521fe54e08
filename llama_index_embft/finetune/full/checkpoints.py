"""Checkpoints that are whole or not there, so that a run can be killed at any moment and go on."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from typing import TYPE_CHECKING, Any, Final

from llama_index_embft._core.files import write_folder_atomically
from llama_index_embft.errors import ConfigError, EmbftError, OutputError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

logger = logging.getLogger(__name__)

STATE_FILE: Final = "embft_best.json"
WEIGHTS_FILE: Final = "embft_best.safetensors"
PREFIX: Final = "checkpoint-"
# What the Trainer itself writes into a checkpoint: half of one, or one of the stock engine, may be replaced.
_TRAINER_FILES: Final = ("model.safetensors", "modules.json", "trainer_state.json", "optimizer.pt")
# How torch.save and safetensors, which do not raise OSError, tell that the disk took no more.
_DISK_TEXTS: Final = ("os error", "file write failed", "PytorchStreamWriter", "inline_container", "unexpected pos")


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
        self._resumed = False
        self._written = 0

    def newest(self) -> Path | None:
        """The checkpoint to go on from; None if there is none."""
        found = self._all()
        return found[-1] if found else None

    def read(self, checkpoint: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """State and best weights of a checkpoint.

        Raises:
            ConfigError: It belongs to a run with other data or settings.
        """
        from safetensors.torch import load_file

        record = json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8"))
        before = record["signature"]
        different = sorted(name for name in {*before, *self.signature} if before.get(name) != self.signature.get(name))
        if different:
            name = different[0]
            raise ConfigError(
                f"The checkpoint {checkpoint} cannot be resumed: {name} was {before.get(name)!r} and is "
                f"{self.signature.get(name)!r} now; call with what it was, or remove {self.folder} to begin anew."
            )
        self._resumed = True
        weights = checkpoint / WEIGHTS_FILE
        return record["state"], dict(load_file(str(weights))) if weights.is_file() else None

    def write(
        self, step: int, fill: Callable[[Path], None], state: dict[str, Any], best: dict[str, Any] | None
    ) -> None:
        """Write a checkpoint, then remove old ones.

        Args:
            step: Its number.
            fill: Puts the trainer's files into a folder.
            state: JSON types.
            best: The best weights so far.

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
                text = json.dumps({"signature": self.signature, "state": state})
                (folder / STATE_FILE).write_text(text, encoding="utf-8")
        except OutputError as err:
            raise OutputError(f"{err} {self._way_on()}") from err
        except EmbftError:
            raise
        except Exception as err:
            if not any(text in str(err) for text in _DISK_TEXTS):
                raise
            reason = str(err).strip().splitlines()[0]
            raise OutputError(
                f"Cannot write the checkpoint {target}: {reason}; free some space. {self._way_on()}"
            ) from err
        if not self._resumed and not self._written:
            self._remove_others(target)
        self._written += 1
        self._prune()

    def _remove_others(self, first: Path) -> None:
        """Checkpoints of an earlier run have lost their turn; those with higher numbers would pass for the newest."""
        for path in (*self._all(), *self.folder.glob("round-*")):
            if path != first:
                shutil.rmtree(path, ignore_errors=True)

    def _all(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        whole = [path for path in self.folder.glob(f"{PREFIX}[0-9]*") if (path / STATE_FILE).is_file()]
        return sorted(whole, key=lambda path: int(path.name.removeprefix(PREFIX)))

    def _prune(self) -> None:
        # What a killed run was writing carries a temporary name and is of no use to anyone.
        for path in self.folder.glob(".embft-*.tmp"):
            shutil.rmtree(path, ignore_errors=True)
        if self.keep:
            for path in self._all()[: -self.keep]:
                shutil.rmtree(path, ignore_errors=True)

    def _way_on(self) -> str:
        newest = self.newest()
        if newest is None:
            return "There is no earlier checkpoint."
        return (
            f"The checkpoint {newest} is good: call again with resume_from_checkpoint=True (--resume-from-checkpoint) "
            "to go on from it."
        )


def digest(value: Any) -> str:
    """Short hash of JSON types."""
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=8).hexdigest()
