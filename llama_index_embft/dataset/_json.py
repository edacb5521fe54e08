"""Read a data set's JSON, telling apart all the ways in which a file can be no data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index_embft.errors import DatasetError

if TYPE_CHECKING:
    import os


class Repeated(dict[str, Any]):
    """A JSON object in which at least one key stood more than once; the first value of each key is kept.

    Attributes:
        extra: Key -> how many times too often it stood there.
        conflicting: The keys whose values differ, so that nobody can tell which one was meant.
    """

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__()
        self.extra: dict[str, int] = {}
        self.conflicting: set[str] = set()
        for key, value in pairs:
            if key not in self:
                self[key] = value
                continue
            self.extra[key] = self.extra.get(key, 0) + 1
            if value != self[key]:
                self.conflicting.add(key)


def read_object(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a file whose top level is a JSON object; objects in it with repeated keys are `Repeated`.

    Raises:
        DatasetError: There is no such file, it cannot be read, is not text, not JSON, or not an object.
    """
    text = _read_text(Path(path))
    if not text.strip():
        raise DatasetError(f"{path} is empty; it should hold a data set as JSON.")
    try:
        data = json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as err:
        if err.pos >= len(text.rstrip()) or err.msg.startswith("Unterminated string"):
            raise DatasetError(
                f"{path} ends in the middle of its JSON (line {err.lineno}); it was probably cut off while it was "
                "written or copied: make it again."
            ) from err
        hint = " It looks like JSON Lines; this reader takes one JSON object." if err.msg == "Extra data" else ""
        raise DatasetError(f"{path} is not JSON: {err.msg} at line {err.lineno}, column {err.colno}.{hint}") from err
    except (ValueError, RecursionError) as err:
        raise DatasetError(f"{path} cannot be read as JSON: {err}.") from err
    if not isinstance(data, dict):
        raise DatasetError(
            f"{path} holds a JSON {_json_name(data)}; a data set is one JSON object with `queries`, `corpus` and "
            "`relevant_docs`."
        )
    if isinstance(data, Repeated):
        raise DatasetError(f"{path} has the section {min(data.extra)!r} twice; join the two into one.")
    return data


def _read_text(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise DatasetError(f"There is no data set file {path}; check the path.") from None
    except IsADirectoryError:
        raise DatasetError(f"{path} is a folder; give the JSON file in it.") from None
    except OSError as err:
        raise DatasetError(f"Cannot read the data set file {path}: {err.strerror or err}.") from err
    encoding = json.detect_encoding(raw)  # also knows UTF-8 with a mark, UTF-16 and UTF-32
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as err:
        raise DatasetError(
            f"{path} is not {encoding.upper().removesuffix('-SIG')} text (byte {err.start}); save it as UTF-8."
        ) from err


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    return made if len(made) == len(pairs) else Repeated(pairs)


def _json_name(value: object) -> str:
    if isinstance(value, list):
        return "list"
    return {"str": "string", "bool": "boolean", "NoneType": "null"}.get(type(value).__name__, "number")
