"""What a format cannot hold: counted before it is written, so that nothing goes without a word."""

from __future__ import annotations

from collections import Counter
from typing import Final

from llama_index_embft.dataset.formats.build import content_id
from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset

NEGATIVES: Final = "negatives"
GRADES: Final = "grades"
ANSWERS: Final = "answers"
BARE_TEXTS: Final = "bare texts"
SOURCES: Final = "source documents"
UNLINKED: Final = "documents that no query names"
IDS: Final = "ids"
MODE: Final = "mode"
SCORES: Final = "teacher scores"
PROVENANCE: Final = "provenance"
EVERYTHING: Final = frozenset(
    [NEGATIVES, GRADES, ANSWERS, BARE_TEXTS, SOURCES, UNLINKED, IDS, MODE, SCORES, PROVENANCE]
)


def count_losses(dataset: EmbeddingQAFinetuneDataset, holds: frozenset[str]) -> Counter[str]:
    """Count what a format with these abilities leaves out; see the constants of this module."""
    lost = Counter[str]()
    if NEGATIVES not in holds:
        lost["negative documents"] = sum(map(len, dataset.negative_docs.values()))
    if GRADES not in holds:
        grades = (grade for docs in dataset.relevance_grades.values() for grade in docs.values())
        lost["grades above 1"] = sum(grade > 1 for grade in grades)
    if ANSWERS not in holds:
        lost["reference answers"] = len(dataset.reference_answers)
    if BARE_TEXTS not in holds:
        lost["bare texts"] = len(dataset.bare_texts)
    if SOURCES not in holds:
        lost["source documents"] = len(dataset.source_documents)
    if UNLINKED not in holds:
        named = {doc for docs in dataset.relevant_docs.values() for doc in docs}
        if NEGATIVES in holds:
            named.update(doc for docs in dataset.negative_docs.values() for doc in docs)
        lost["documents that no query names"] = len(dataset.corpus.keys() - named)
    if SCORES not in holds:
        lost["teacher scores"] = sum(map(len, dataset.teacher_scores.values()))
    elif UNLINKED not in holds:
        relevant, negative = dataset.relevant_docs, dataset.negative_docs
        lost["teacher scores of documents that their query does not name"] = sum(
            len(scores.keys() - {*relevant[query], *negative.get(query, ())})
            for query, scores in dataset.teacher_scores.items()
        )
    if PROVENANCE not in holds:
        lost["provenance fields"] = len(dataset.provenance.known())
    if MODE not in holds and dataset.mode != "text":
        lost["mode"] = 1
    return +lost


def by_text(dataset: EmbeddingQAFinetuneDataset) -> tuple[EmbeddingQAFinetuneDataset, Counter[str]]:
    """The data set as formats without ids see it: the same text is the same query or document.

    Returns:
        The data set with ids made of contents (`content_id`), and counts of what that lost: ids, second answers and
        sources, and negatives that are relevant to the same question under another id. Of two grades the higher stays.
    """
    lost = Counter[str]()
    queries = {query: content_id(text, "q-") for query, text in dataset.queries.items()}
    docs = {doc: content_id(text, "d-") for doc, text in dataset.corpus.items()}
    for what, ids in (("query ids", queries), ("document ids", docs)):
        lost[f"{what} (made anew from the texts)"] = sum(old != new for old, new in ids.items())
        lost[f"{what} of the same text (joined)"] = len(ids) - len(set(ids.values()))
    relevant: dict[str, dict[str, int]] = {}
    for query, judged in dataset.qrels().items():
        grades = relevant.setdefault(queries[query], {})
        for doc, grade in judged.items():
            if grades.setdefault(docs[doc], grade) != grade:
                lost["second grades of the same text"] += 1
                grades[docs[doc]] = max(grade, grades[docs[doc]])
    negatives: dict[str, dict[str, None]] = {}
    for query, ids_of in dataset.negative_docs.items():
        for doc in ids_of:
            if docs[doc] in relevant[queries[query]]:
                lost["negatives that are relevant under another id"] += 1
            else:
                negatives.setdefault(queries[query], {})[docs[doc]] = None
    scores: dict[str, dict[str, float]] = {}
    for query, of_docs in dataset.teacher_scores.items():
        mine = scores.setdefault(queries[query], {})
        for doc, score in of_docs.items():
            lost["second teacher scores of the same text"] += mine.setdefault(docs[doc], score) != score
    merged = EmbeddingQAFinetuneDataset(
        queries={queries[query]: text for query, text in dataset.queries.items()},
        corpus={docs[doc]: text for doc, text in dataset.corpus.items()},
        relevant_docs={query: list(ids_of) for query, ids_of in relevant.items()},
        negative_docs={query: list(ids_of) for query, ids_of in negatives.items()},
        reference_answers=_first_of(dataset.reference_answers, queries, "second answers of the same question", lost),
        relevance_grades={query: {d: g for d, g in ids_of.items() if g > 1} for query, ids_of in relevant.items()},
        teacher_scores=scores,
        bare_texts=_first_of(dataset.bare_texts, docs, "second bare texts of the same text", lost),
        source_documents=_first_of(dataset.source_documents, docs, "second sources of the same text", lost),
        mode=dataset.mode,
        provenance=dataset.provenance,
    )
    return merged, +lost


def _first_of(section: dict[str, str], ids: dict[str, str], what: str, lost: Counter[str]) -> dict[str, str]:
    made: dict[str, str] = {}
    for old, value in section.items():
        if made.setdefault(ids[old], value) != value:
            lost[what] += 1
    return made
