"""A data set as the columns that sentence-transformers trains on."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset

logger = logging.getLogger(__name__)


def training_columns(dataset: EmbeddingQAFinetuneDataset, *, use_all_docs: bool) -> dict[str, list[str]]:
    """Turn queries and their documents into columns ``anchor, positive[, negative_1, …]``, a row a pair.

    The number of negatives is the same for every row, as the losses need it: that of the query which has the fewest.
    Where some queries have none, none are used, and a warning says so.

    Args:
        dataset: The training set.
        use_all_docs: A row for each relevant document of a query; False: only for the first.
    """
    counts = [len(dataset.negative_docs.get(query_id, ())) for query_id in dataset.queries]
    n_negatives = min(counts, default=0)
    if n_negatives == 0 and any(counts):
        logger.warning(
            "%d of %d queries have no negative_docs, so none are used; mine them for all queries, or leave those "
            "queries out with subset().",
            counts.count(0),
            len(counts),
        )
    columns: dict[str, list[str]] = {"anchor": [], "positive": []}
    columns |= {f"negative_{number}": [] for number in range(1, n_negatives + 1)}
    for query_id, query in dataset.queries.items():
        relevant = dataset.relevant_docs[query_id]
        negatives = dataset.negative_docs.get(query_id, [])
        for document in relevant if use_all_docs else relevant[:1]:
            columns["anchor"].append(query)
            columns["positive"].append(dataset.corpus[document])
            for number in range(1, n_negatives + 1):
                columns[f"negative_{number}"].append(dataset.corpus[negatives[number - 1]])
    return columns
