"""What the commands share: the console, quiet libraries, and what is printed in which mode."""

from __future__ import annotations

import json
import logging
import math
import os
import shlex
import sys
from typing import TYPE_CHECKING, Any, Final

import typer

from llama_index_embft._core.redaction import Redactor
from llama_index_embft._core.terminal import SafeConsole
from llama_index_embft.cli.shared.progress import hide_progress

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from llama_index.core.base.embeddings.base import BaseEmbedding

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset

console = SafeConsole()  # standard output, quiet where that is for JSON
errors = SafeConsole(stderr=True)
_PACKAGE: Final = "llama_index_embft"
_mode: Final = {"json": False}


def set_output(*, as_json: bool, quiet: bool, verbose: int) -> None:
    """Set what reaches the terminal, anew for every command.

    Args:
        as_json: Standard output is for `print_record` alone.
        quiet: Nothing but that, and errors.
        verbose: 1 logs what this package does, 2 its details and the traceback of an error.
    """
    _mode["json"] = as_json
    console.quiet = as_json or quiet
    errors.quiet = quiet
    hide_progress(quiet)
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    logging.getLogger().setLevel(logging.ERROR if quiet else logging.WARNING)
    logging.getLogger(_PACKAGE).setLevel(logging.ERROR if quiet else level)


def steps() -> SafeConsole:
    """Where a long run says what it is doing; where standard output is for JSON, standard error."""
    return errors if console.quiet else console


def print_record(record: Mapping[str, Any]) -> None:
    """Print a result as JSON that every reader takes, where that is asked for: what is no finite number is null."""
    if _mode["json"]:
        typer.echo(json.dumps(_plain(record), indent=2))


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (str, int, type(None))):
        return value
    if isinstance(value, dict):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(inner) for inner in value]
    return _plain(value.item()) if hasattr(value, "item") else str(value)  # a number of numpy; a path, an identity


def written(*paths: Path | None) -> dict[str, list[str]]:
    """Say which files were written; their part of the record."""
    made = [str(path) for path in paths if path is not None]
    for path in made:
        console.print(f"Written: {path}", markup=False, soft_wrap=True)
    return {"written": made}


def shown_bytes(n_bytes: float) -> str:
    """A size as people read it."""
    size = float(n_bytes)
    for unit in ("B", "KB", "MB"):
        if abs(size) < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


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
