"""What several steps of one run need to know of a corpus, found out once: rows, and which texts say nearly the same.

Splitting, mining and training all ask which chunks are near-duplicates, and the sides of a split share their corpus. So
the answers hang on the content of the corpus and not on the object: `prepare_corpus` of a split's test side gives what
splitting has found out already.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict, defaultdict
from threading import Lock
from typing import TYPE_CHECKING, Final

from llama_index_embft.dataset.near_duplicates import near_duplicate_groups, normalise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset

_KEPT: Final = 4  # corpora; ids and numbers alone are kept, no texts
_known: OrderedDict[bytes, PreparedCorpus] = OrderedDict()
_lock = Lock()


class PreparedCorpus:
    """Rows and near-duplicates of a corpus; made by `prepare_corpus`.

    Args:
        ids: Of the documents, in the corpus' order.

    Attributes:
        ids: As given.
        row_of: Document id -> row.
    """

    def __init__(self, ids: tuple[str, ...]) -> None:
        self.ids = ids
        self.row_of = {doc: row for row, doc in enumerate(ids)}
        self._groups: dict[float, tuple[int, ...]] = {}

    @staticmethod
    def bare_texts(dataset: EmbeddingQAFinetuneDataset) -> list[str]:
        """Texts of all documents without metadata, in the corpus' order."""
        return [dataset.bare_texts.get(doc, text) for doc, text in dataset.corpus.items()]

    def near_duplicates(
        self, dataset: EmbeddingQAFinetuneDataset, threshold: float, *, show_progress: bool = False
    ) -> tuple[int, ...]:
        """Group number of each document, see `near_duplicate_groups`; looked for once for each threshold.

        Args:
            dataset: One with this corpus.
            threshold: Overlap from which two documents count as the same; 1.0 for equal words.
            show_progress: Show a bar over long work.
        """
        if threshold not in self._groups:
            groups = near_duplicate_groups(self.bare_texts(dataset), threshold, show_progress=show_progress)
            self._groups[threshold] = tuple(groups)
        return self._groups[threshold]


def prepare_corpus(dataset: EmbeddingQAFinetuneDataset) -> PreparedCorpus:
    """What is known of a data set's corpus in this process; data sets with equal corpora share it."""
    digest = hashlib.blake2b(digest_size=16)
    for doc, text in dataset.corpus.items():
        for part in (doc, dataset.bare_texts.get(doc, text)):
            raw = part.encode("utf-8", "surrogatepass")
            digest.update(b"%d:" % len(raw))
            digest.update(raw)
    key = digest.digest()
    with _lock:
        if key not in _known:
            _known[key] = PreparedCorpus(tuple(dataset.corpus))
        _known.move_to_end(key)
        while len(_known) > _KEPT:
            _known.popitem(last=False)
        return _known[key]


def near_duplicates_of(
    dataset: EmbeddingQAFinetuneDataset, docs: Sequence[str], threshold: float, *, show_progress: bool = False
) -> dict[str, int]:
    """Document id -> number of its group of near-duplicates, for some documents of a corpus.

    Where they are at least half of the corpus, all of it is looked at, and the next step of the run finds it done; from
    a large corpus with few documents in question only those are compared.

    Args:
        dataset: Whose corpus it is.
        docs: Ids of the documents, each once.
        threshold: Overlap from which two documents count as the same; 1.0 for equal words.
        show_progress: Show a bar over long work.
    """
    if 2 * len(docs) >= len(dataset.corpus):
        corpus = prepare_corpus(dataset)
        groups = corpus.near_duplicates(dataset, threshold, show_progress=show_progress)
        return {doc: groups[corpus.row_of[doc]] for doc in docs}
    texts = [dataset.bare_texts.get(doc, dataset.corpus[doc]) for doc in docs]
    return dict(zip(docs, near_duplicate_groups(texts, threshold, show_progress=show_progress), strict=True))


def own_text_documents(dataset: EmbeddingQAFinetuneDataset) -> dict[str, list[str]]:
    """Query id -> documents that are the query itself, word for word, and no positives of it.

    So it is where queries are documents too: duplicate questions, arguments and their counterarguments. Case,
    punctuation and spacing do not count.
    """
    longest = max(map(len, dataset.queries.values()), default=0)
    asked: defaultdict[str, list[str]] = defaultdict(list)
    for query_id, query in dataset.queries.items():
        asked[normalise(query) or query].append(query_id)
    found: defaultdict[str, list[str]] = defaultdict(list)
    for doc, text in dataset.corpus.items():
        bare = dataset.bare_texts.get(doc, text)
        if len(bare) > 2 * longest + 64:  # much longer than any query: not worth the time that normalising takes
            continue
        for query_id in asked.get(normalise(bare) or bare, ()):
            if doc not in dataset.relevant_docs[query_id]:
                found[query_id].append(doc)
    return dict(found)
