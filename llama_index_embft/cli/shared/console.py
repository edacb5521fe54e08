"""What the commands share: the console, quiet libraries, and how a finished run is shown."""

from __future__ import annotations

import logging
import os
import shlex
import sys
from typing import TYPE_CHECKING

from llama_index_embft._core.redaction import Redactor
from llama_index_embft._core.terminal import SafeConsole

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset

console = SafeConsole()
errors = SafeConsole(stderr=True)


def quiet_libraries() -> None:
    """Keep the progress bars and advice of the libraries below out of the way of ours."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    from datasets.utils.logging import disable_progress_bar

    disable_progress_bar()
    for name in ("sentence_transformers", "httpx", "pypdf"):
        logging.getLogger(name).setLevel(logging.ERROR)


def command_line() -> str:
    """The command as it was typed, without passwords and keys, for records of a run."""
    return Redactor()(shlex.join(["embft", *sys.argv[1:]]))


def show_cut(embed_model: BaseEmbedding, dataset: EmbeddingQAFinetuneDataset) -> None:
    """Say how many passages are longer than what the model reads, where they are more than a few."""
    from llama_index_embft.embeddings.truncation import WORTH_SAYING, truncation_of

    cut = truncation_of(embed_model, list(dataset.corpus.values()))
    if cut is not None and cut.share > WORTH_SAYING:
        console.print(f"Note: {cut.sentence()}", markup=False, soft_wrap=True)
