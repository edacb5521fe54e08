"""Files of a map on vectors: the adapters (linear, low-rank, MLP, a module of your own) and the drift map.

A folder with ``adapter.safetensors`` and ``config.json``, whose ``kind`` says what the tensors are. Drift maps of an
earlier version, which lie in ``drift.safetensors``, are read too.
"""

from __future__ import annotations

import json
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, Final

from llama_index_embft._core.checks import first_line
from llama_index_embft._core.files import write_folder_atomically
from llama_index_embft.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

WEIGHTS_FILE: Final = "adapter.safetensors"
CONFIG_FILE: Final = "config.json"
DRIFT: Final = "drift"
_FORMAT: Final = "llama-index-embft map"
_EARLIER: Final = ("llama-index-embft adapter", "llama-index-embft drift")
_EARLIER_DRIFT_FILE: Final = "drift.safetensors"


def write_map(
    folder: str | Path,
    tensors: Mapping[str, Any],
    config: dict[str, Any],
    record: dict[str, Any],
    *,
    save_file: Callable[[dict[str, Any], str], None],
) -> None:
    """Save a map; the folder appears whole or not at all.

    Args:
        folder: Where to save; a saved result that is there is replaced.
        tensors: Its numbers, by name.
        config: Its ``kind``, sizes, and the models it belongs to.
        record: What goes into ``embft.json``.
        save_file: That of safetensors for these tensors.

    Raises:
        OutputError: The folder cannot be written.
    """
    with write_folder_atomically(folder) as temporary:
        save_file(dict(tensors), str(Path(temporary) / WEIGHTS_FILE))
        write_json(Path(temporary) / CONFIG_FILE, {"format": _FORMAT, **config})
        write_json(Path(temporary) / "embft.json", record)


def map_kind(folder: Path) -> str | None:
    """What a folder's map is: ``"drift"``, or a kind of adapter; None where it holds no map of ours."""
    if (folder / _EARLIER_DRIFT_FILE).is_file():
        return DRIFT
    if not (folder / WEIGHTS_FILE).is_file():
        return None
    try:
        return str(read_config(folder, "map")["kind"])
    except (ModelError, KeyError):
        return "adapter"  # a damaged one, of which its reader says so


def read_config(folder: Path, what: str) -> dict[str, Any]:
    """Read ``config.json``.

    Args:
        folder: Where it lies.
        what: The map in words, such as ``adapter``.

    Raises:
        ModelError: There is no map in the folder, or the file is damaged or of a newer version.
    """
    if weights_file(folder) is None or not (folder / CONFIG_FILE).is_file():
        raise ModelError(f"{folder} holds no {what} ({WEIGHTS_FILE} and {CONFIG_FILE}); check the path.")
    try:
        config: Any = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as err:
        raise ModelError(
            f"{folder / CONFIG_FILE} is damaged ({first_line(err)}); train or copy the {what} again."
        ) from err
    if not isinstance(config, dict) or not isinstance(config.get("kind"), str):
        raise ModelError(f"{folder / CONFIG_FILE} is damaged (no kind); train or copy the {what} again.")
    if config.get("format") not in (_FORMAT, *_EARLIER):
        raise ModelError(
            f"{folder / CONFIG_FILE} has the format {config.get('format')!r}, which this version does not know; "
            f"upgrade llama-index-embft, or train the {what} again."
        )
    return config


def weights_file(folder: Path) -> Path | None:
    """The file with the numbers; None where there is none."""
    return next((file for name in (WEIGHTS_FILE, _EARLIER_DRIFT_FILE) if (file := folder / name).is_file()), None)


def read_tensors(file: Path, load_file: Callable[[str], dict[str, Any]], what: str) -> dict[str, Any]:
    """Read the numbers of a map.

    Args:
        file: See `weights_file`.
        load_file: That of safetensors, or what else reads the file.
        what: The map in words, for messages.

    Raises:
        ModelError: The file is damaged, or holds NaN or infinity.
    """
    try:
        tensors = load_file(str(file))
    except UnpicklingError as err:  # whose advice is to run whatever the file holds
        raise ModelError(
            f"The weights in {file} cannot be used (they are not numbers alone): the file is damaged, or holds code "
            f"that would run; copy or train the {what} again."
        ) from err
    except Exception as err:  # each reader of weights raises its own kinds
        raise ModelError(
            f"The weights in {file} cannot be used ({first_line(err)}); the file is cut short or belongs to another "
            f"{what}: copy or train it again."
        ) from err
    check_finite(tensors, file, what)
    return tensors


def check_finite(tensors: Mapping[str, Any], file: Path, what: str) -> None:
    """Refuse numbers that would turn every vector into NaN.

    Raises:
        ModelError: A tensor holds NaN or infinity.
    """
    # Zero times a number is zero, unless that is infinite or NaN: true of arrays and of tensors.
    bad = [name for name, tensor in tensors.items() if float((tensor * 0).sum()) != 0.0]
    if bad:
        raise ModelError(
            f"The weights in {file} hold NaN or infinity (in {bad[0]}): the training of the {what} failed, or the file "
            "is damaged; train or copy it again."
        )


def write_json(file: Path, content: dict[str, Any]) -> None:
    """Write one JSON object, indented."""
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
