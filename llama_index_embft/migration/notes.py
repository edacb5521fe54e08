"""What a rewritten import line alone does not tell: arguments, defaults and calls that are different now."""

from __future__ import annotations

import re
from typing import Final, NamedTuple


class Note(NamedTuple):
    """Something for the user to know or to do, and where: ``"cell 3, line 12"``; empty for the whole file."""

    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.text}" if self.where else self.text


# Pattern of a line of code -> what to say, once a file. A test holds the figures against the signatures.
_LINES: Final = {
    r"(?<!class )\bSentenceTransformersFinetuneEngine\(": "Other defaults: batch_size=64 (was 10), use_all_docs=True "
    "(False), evaluation once an epoch (every 50 steps); with val_dataset the best weights are kept, never worse ones "
    "than the base model's.",
    r"(?<!class )\bEmbeddingAdapterFinetuneEngine\(": "Other defaults: batch_size=64 (was 10), epochs=40 (1), on "
    "vectors that are computed once; saved as safetensors, and loaded with load_embed_model(folder).",
    r"\bgenerate_(qa_embedding|question_context)_pairs\(": "Questions are asked for concurrently and resumed by "
    "content; num_workers, requests_per_minute and filters are new. A second call with other nodes no longer mixes "
    "with the first: it writes to a name of its own.",
    r"\.aevaluate_dataset\(": "aevaluate_dataset is gone from llama_index.core. From llama_index_embft: report = await "
    "aevaluate_retriever(dataset, retriever), then report.summary() or report.to_pandas().",
    r"\b(ServiceContext\b|service_context\s*=|set_global_service_context)": "ServiceContext is gone since LlamaIndex "
    "0.11: take it out of the import, write embed_model=embed_model (and llm=llm where there is one) in place of "
    "service_context=…, as in VectorStoreIndex(nodes, embed_model=embed_model), and drop ServiceContext.from_defaults.",
    r"\bllama_index\.experimental\b.*\bNudge\b|\bNudge\(": "Nudge of llama_index.experimental is here "
    "NudgeFinetuneEngine of llama_index_embft.finetune: the same method; the embedding of its get_finetuned_model() "
    "goes into the index.",
    r"\.finetune\([^)\s]": "finetune() takes no arguments here; the old one ignored them. Set them on the engine.",
    r"\btrulens_eval\b": "trulens_eval is now trulens: pip install 'llama-index-embft[trulens]', and evaluate_app "
    "records a query engine.",
}


def notes_on(code: str, place: str, said: set[str]) -> list[Note]:
    """Look at every line of code for what needs a word; what is in `said` already is not said again."""
    found = []
    for number, line in enumerate(code.splitlines(), 1):
        bare = line.partition("#")[0] if not line.lstrip().startswith(("!", "%")) else line
        for pattern, text in _LINES.items():
            if text not in said and re.search(pattern, bare):
                said.add(text)
                found.append(Note(f"{place}line {number}", text))
    return found
