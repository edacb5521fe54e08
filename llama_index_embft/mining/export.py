"""A mined data set as rows of the formats that trainers read.

Every function yields plain dicts of texts; `write_jsonl` writes them to a file, and
``datasets.Dataset.from_list(list(rows))`` makes a Hugging Face data set of them. `llama_index_embft.dataset` writes
whole data sets in these and other formats (`write_dataset`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_index_embft.dataset.formats.rows import json_line, write_pieces
from llama_index_embft.dataset.formats.trainer_rows import (
    flag_embedding_rows,
    labelled_pairs,
    ntuples,
    pairs,
    teacher_rows,
    triplets,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["flag_embedding_rows", "labelled_pairs", "ntuples", "pairs", "teacher_rows", "triplets", "write_jsonl"]


def write_jsonl(rows: Iterable[dict[str, Any]], path: str | Path) -> int:
    """Write rows as JSON lines, one by one, whole or not at all.

    Returns:
        How many rows there were.

    Raises:
        DatasetError: A text holds half of a character (a lone surrogate).
        OutputError: The file cannot be written.
    """
    return write_pieces(path, map(json_line, rows))
