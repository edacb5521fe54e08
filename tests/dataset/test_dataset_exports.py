"""The public names of the folder, and what importing them costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import llama_index_embft.dataset as dataset


def test_every_public_name_is_there() -> None:
    for name in dataset.__all__:
        assert getattr(dataset, name).__name__ == name
        assert name in dir(dataset)
    with pytest.raises(AttributeError, match="attribute nothing"):
        dataset.nothing  # noqa: B018


def test_the_data_set_loads_without_heavy_packages() -> None:
    code = (
        "import sys; from llama_index_embft.dataset import EmbeddingQAFinetuneDataset, split_dataset, load_documents;"
        "print([m for m in ('torch', 'transformers', 'llama_index.core', 'scipy', 'numpy', 'pypdf', 'bs4')"
        " if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
