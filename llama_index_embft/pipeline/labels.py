"""Questions over other texts, brought to the texts that are searched: by what the passages say, not by their ids."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Final, NamedTuple

from llama_index_embft.dataset.near_duplicates import normalise

if TYPE_CHECKING:
    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset

_SHINGLE: Final = 5
# Of the shorter text's shingles: a passage that was cut elsewhere shares at least half with its best chunk.
_SAME_PASSAGE: Final = 0.5


class PlacedQuestions(NamedTuple):
    """Questions whose passages were looked for in a corpus.

    Attributes:
        questions: Those found, over the corpus.
        lost: Ids of those whose passages are not in it.
    """

    questions: EmbeddingQAFinetuneDataset
    lost: tuple[str, ...]


def place_questions(questions: EmbeddingQAFinetuneDataset, corpus: EmbeddingQAFinetuneDataset) -> PlacedQuestions:
    """Find the passages of questions in a corpus that may have been cut differently.

    A passage is a chunk if both are the same text but for case, spaces and punctuation, or if at least half of the
    shorter one's runs of five words stand in the other. An id alone proves nothing: texts change under their ids.

    Args:
        questions: With passages of their own.
        corpus: The texts that are searched.
    """
    if questions.corpus == corpus.corpus:
        return PlacedQuestions(questions, ())
    places = _Places(corpus)
    found: dict[str, dict[str, int]] = {}
    cache: dict[str, list[str]] = {}
    for query, grades in questions.qrels().items():
        at: dict[str, int] = {}
        for doc, grade in grades.items():
            if doc not in cache:
                cache[doc] = places.of(doc, questions.corpus[doc], questions.bare_text(doc))
            for chunk in cache[doc]:
                at[chunk] = max(grade, at.get(chunk, 0))
        if at:
            found[query] = at
    answers = {query: answer for query, answer in questions.reference_answers.items() if query in found}
    placed = corpus.replace(
        queries={query: questions.queries[query] for query in found},
        relevant_docs={query: list(at) for query, at in found.items()},
        relevance_grades={query: at for query, at in found.items() if any(grade != 1 for grade in at.values())},
        reference_answers=answers,
        provenance=questions.provenance,
    )
    return PlacedQuestions(placed, tuple(query for query in questions.queries if query not in found))


class _Places:
    def __init__(self, corpus: EmbeddingQAFinetuneDataset) -> None:
        self._texts = dict(corpus.corpus)
        self._by_text: defaultdict[str, list[str]] = defaultdict(list)
        self._by_shingle: defaultdict[int, list[str]] = defaultdict(list)
        self._sizes: dict[str, int] = {}
        for doc in corpus.corpus:
            words = normalise(corpus.bare_text(doc))
            for text in {words, normalise(corpus.corpus[doc])}:
                self._by_text[text].append(doc)
            shingles = _shingles(words)
            self._sizes[doc] = len(shingles)
            for shingle in shingles:
                self._by_shingle[shingle].append(doc)

    def of(self, doc: str, text: str, bare: str) -> list[str]:
        if self._texts.get(doc) == text:
            return [doc]
        words = normalise(bare)
        same = self._by_text.get(words) or self._by_text.get(normalise(text))
        if same:
            return same
        shingles = _shingles(words)
        shared = Counter(chunk for shingle in shingles for chunk in self._by_shingle.get(shingle, ()))
        return [
            chunk
            for chunk, count in shared.most_common()
            if count >= _SAME_PASSAGE * min(len(shingles), self._sizes[chunk])
        ]


def _shingles(words: str) -> set[int]:
    tokens = words.split()
    return {hash(tuple(tokens[at : at + _SHINGLE])) for at in range(max(0, len(tokens) - _SHINGLE + 1))}
