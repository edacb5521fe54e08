"""Who belongs to whom, as NUDGE wants it: copies of a text are one document, and every fifth query may be held out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from llama_index_embft.errors import DatasetError

if TYPE_CHECKING:
    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset

# Where there is no validation set, every fifth query chooses how far to move.
_HELD_OUT: Final = 5


def rows_by_text(texts: list[str]) -> list[list[int]]:
    """For each row the rows with the same text, itself included: an embedding cannot tell them apart."""
    rows_of: dict[str, list[int]] = {}
    for row, text in enumerate(texts):
        rows_of.setdefault(text, []).append(row)
    return [rows_of[text] for text in texts]


def positives_of(dataset: EmbeddingQAFinetuneDataset, row_of: dict[str, int], same: list[list[int]]) -> list[list[int]]:
    """Corpus rows relevant to each query, copies of a relevant document included."""
    return [
        sorted({twin for doc in dataset.relevant_docs[query] for twin in same[row_of[doc]]})
        for query in dataset.queries
    ]


def hold_out(dataset: EmbeddingQAFinetuneDataset) -> tuple[EmbeddingQAFinetuneDataset, EmbeddingQAFinetuneDataset]:
    """Take every fifth query of those whose documents have another one, so that what is held out can be reached."""
    texts_of = {
        query: {dataset.corpus[doc] for doc in docs} for query, docs in dataset.relevant_docs.items()
    }  # documents of one text move together, so they count as one
    asked: dict[str, int] = {}
    for texts in texts_of.values():
        for text in texts:
            asked[text] = asked.get(text, 0) + 1
    held: list[str] = []
    shared = 0
    for query_id in dataset.queries:
        texts = texts_of[query_id]
        if any(asked[text] > 1 for text in texts):
            shared += 1
            if shared % _HELD_OUT == 0:
                held.append(query_id)
                for text in texts:
                    asked[text] -= 1
    if not held:
        raise DatasetError(
            "There are no queries to choose the step with: hardly any document has two of them; give a val_dataset "
            "with other queries about the same documents."
        )
    kept = set(held)
    return dataset.subset([query for query in dataset.queries if query not in kept]), dataset.subset(held)
