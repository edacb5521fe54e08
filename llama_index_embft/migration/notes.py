"""What a rewritten import line alone does not tell: arguments, defaults and calls that are different now."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Note:
    """Something for the user to know or to do.

    Attributes:
        where: ``"line 12"`` or ``"cell 3, line 12"``; empty for the whole file.
        text: One or two sentences.
    """

    where: str
    text: str

    def __str__(self) -> str:
        """As one line."""
        return f"{self.where}: {self.text}" if self.where else self.text


# Pattern of a line of code -> what to say, once a file. A test holds the figures against the signatures.
_LINES: Final = (
    (
        r"(?<!class )\bSentenceTransformersFinetuneEngine\(",
        "Other defaults: batch_size=64 (was 10), use_all_docs=True (False), evaluation once an epoch "
        "(every 50 steps); with val_dataset the best weights are kept, never worse ones than the base model's.",
    ),
    (
        r"(?<!class )\bEmbeddingAdapterFinetuneEngine\(",
        "Other defaults: batch_size=64 (was 10), epochs=40 (1), on vectors that are computed once; saved as "
        "safetensors, and loaded with load_embed_model(folder).",
    ),
    (
        r"\bgenerate_(qa_embedding|question_context)_pairs\(",
        "Questions are asked for concurrently and resumed by content; num_workers, requests_per_minute and filters are "
        "new. A second call with other nodes no longer mixes with the first: it writes to a name of its own.",
    ),
    (
        r"\.aevaluate_dataset\(",
        "aevaluate_dataset is gone from llama_index.core. From llama_index_embft: "
        "report = await aevaluate_retriever(dataset, retriever), then report.summary() or report.to_pandas().",
    ),
    (
        r"\b(ServiceContext\b|service_context\s*=|set_global_service_context)",
        "ServiceContext is gone since LlamaIndex 0.11. Give embed_model= and llm= to the index or the engine instead: "
        "VectorStoreIndex(nodes, embed_model=embed_model).",
    ),
    (
        r"\b(Linear)?AdapterEmbeddingModel\(",
        "An adapter that was trained here is loaded with load_embed_model(folder); one from llama-index-finetuning "
        "stays with LlamaIndex's class.",
    ),
    (r"\.finetune\([^)\s]", "finetune() takes no arguments here; the old one ignored them. Set them on the engine."),
    (
        r"\btrulens_eval\b",
        "trulens_eval is now trulens: pip install 'llama-index-embft[trulens]', and evaluate_app records a query "
        "engine.",
    ),
)


def notes_on(code: str, place: str, said: set[str]) -> list[Note]:
    """Look at every line of code for what needs a word.

    Args:
        code: A script or a cell, magics included.
        place: Put before ``line n``: empty, or ``"cell 3, "``.
        said: What has been said already; what is said now is added.
    """
    found = []
    for number, line in enumerate(code.splitlines(), 1):
        bare = line.partition("#")[0] if not line.lstrip().startswith(("!", "%")) else line
        for pattern, text in _LINES:
            if text not in said and re.search(pattern, bare):
                said.add(text)
                found.append(Note(f"{place}line {number}", text))
    return found
