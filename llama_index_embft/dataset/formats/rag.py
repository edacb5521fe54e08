"""llama-index-finetuning's JSON, and the RAG format that extends it: one JSON object with ids as keys.

Reading: ``queries``, ``corpus`` and ``relevant_docs`` are needed; the other fields of `EmbeddingQAFinetuneDataset` may
be there, all else is named in a warning.
JSON has to be read whole; memory is the file and the data set.

Lost on writing: ``rag`` nothing; ``llama-index`` all but queries, corpus, relevant documents and mode.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

from llama_index_embft.dataset.formats.rows import write_pieces
from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset

if TYPE_CHECKING:
    import os
    from collections import Counter
    from collections.abc import Iterator

    from llama_index_embft.dataset.formats.build import Builder

_BASIC = ("queries", "corpus", "relevant_docs", "mode")


def read(path: str | os.PathLike[str], build: Builder) -> EmbeddingQAFinetuneDataset:
    """Read either; see `EmbeddingQAFinetuneDataset.from_json`."""
    return EmbeddingQAFinetuneDataset.from_json(path, build.on_error)


def write(dataset: EmbeddingQAFinetuneDataset, path: str | os.PathLike[str], lost: Counter[str]) -> int:
    """Write everything, entry by entry; the same bytes as `EmbeddingQAFinetuneDataset.save_json`."""
    del lost
    write_pieces(path, _pieces(dataset.to_dict()))
    return len(dataset.queries)


def write_basic(dataset: EmbeddingQAFinetuneDataset, path: str | os.PathLike[str], lost: Counter[str]) -> int:
    """Write the four sections of llama-index-finetuning, byte for byte as it writes them."""
    del lost
    fields = dataset.to_dict()
    write_pieces(path, _pieces({name: fields[name] for name in _BASIC}))
    return len(dataset.queries)


def _pieces(fields: dict[str, Any]) -> Iterator[str]:
    """``json.dumps(fields, indent=4)`` in pieces of one entry."""
    for number, (name, section) in enumerate(fields.items()):
        yield ("," if number else "{") + f"\n    {json.dumps(name)}: "
        if not isinstance(section, dict) or not section:
            yield json.dumps(section)
            continue
        for place, (id_, entry) in enumerate(cast("dict[str, Any]", section).items()):
            # Strings hold no line ends here: JSON escapes them.
            text = json.dumps(entry, indent=4).replace("\n", "\n        ")
            yield ("," if place else "{") + f"\n        {json.dumps(id_)}: {text}"
        yield "\n    }"
    yield "\n}"
