"""Data sets as the commands read them: every format that ``embft convert`` reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset

DATA_HELP: Final = "Data set: a file or folder of any format that embft convert reads."


def read_data(path: Path) -> EmbeddingQAFinetuneDataset:
    """The data set of a file or folder.

    Raises:
        DatasetError: It is of no known format, or broken; the sentence names the format that it was read as.
    """
    from llama_index_embft.dataset import guess_format, read_dataset
    from llama_index_embft.errors import DatasetError

    name = guess_format(path)
    try:
        return read_dataset(path, name)
    except DatasetError as err:
        if repr(name) in str(err):
            raise
        raise DatasetError(f"{str(err).rstrip('.')} (read as the format {name!r}).") from err
