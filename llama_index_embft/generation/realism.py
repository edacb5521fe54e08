"""How real made-up questions look: what can be told before anything is trained on them, and without a proof set."""

from __future__ import annotations

import math
import random
import statistics
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from llama_index_embft._core.checks import check_number
from llama_index_embft._core.language import kind_of, length_in_words
from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
from llama_index_embft.errors import GenerationError
from llama_index_embft.search.lexical import LexicalIndex
from llama_index_embft.search.tokenizing import words

if TYPE_CHECKING:
    from collections.abc import Sequence

_DEPTH: Final = 10
_SOLVED: Final = 0.85  # of the made-up questions by shared words: more leaves little else to learn from them
_SURE: Final = 2.0  # standard errors from which on two shares are said to differ
_SMALL: Final = 0.05  # and a difference that nobody would act on is not told, however sure
_KINDS_TOLD: Final = 3
_QUESTION_MARKS: Final = ("?", "？", "؟", ";")  # the last is the Greek one


@dataclass(frozen=True)
class QuestionProfile:
    """What a set of questions looks like.

    Attributes:
        n: Questions that were looked at.
        bm25_first: Share of them for which BM25 puts a right passage in first place; None: right passages not known.
        bm25_ten: Share for which it puts one in the first ten.
        overlap: Mean share of a question's words that stand in its right passage.
        length: Median number of words; characters where words are not spaced.
        question_marks: Share that end with a question mark.
        kinds: Kind of question (``"what"``, ``"how"``, ``"keywords"``, …) -> its share, the largest first.
    """

    n: int
    bm25_first: float | None
    bm25_ten: float | None
    overlap: float | None
    length: float
    question_marks: float
    kinds: dict[str, float]


@dataclass(frozen=True)
class Realism:
    """Made-up questions beside real ones, where there are real ones.

    Attributes:
        made: The made-up questions.
        real: The real ones; None: none were given.
    """

    made: QuestionProfile
    real: QuestionProfile | None = None

    @property
    def solved_by_words(self) -> bool:
        """Whether the made-up questions say little about real ones, because shared words solve them.

        With real questions: whether BM25 puts the passage in first place for significantly more of the made-up ones.
        Without: whether it does for 85 % of them. Of questions taken from the text it did for 92 to 98 %, of an LLM's
        for 59 and 68 %, and of people's for 22 to 69 % (on one small corpus 96 %).
        """
        made = self.made.bm25_first
        if made is None:
            return False
        if self.real is None or self.real.bm25_first is None:
            return made >= _SOLVED
        return made > self.real.bm25_first and _differ(made, self.made.n, self.real.bm25_first, self.real.n)

    def sentences(self) -> tuple[str, ...]:
        """What was found, most telling first; differences that may be chance are not called any."""
        return tuple(sentence for sentence in (self._by_words(), self._wording(), self._kind()) if sentence)

    def __str__(self) -> str:
        return "\n".join(self.sentences())

    def to_dict(self) -> dict[str, Any]:
        """Plain data, with the sentences under ``in_words``."""
        return {**asdict(self), "solved_by_words": self.solved_by_words, "in_words": list(self.sentences())}

    def _by_words(self) -> str:
        made, real = self.made, self.real
        if made.bm25_ten is None or made.bm25_first is None:
            return ""
        found = (
            f"By shared words alone {_percent(made.bm25_ten)} of {made.n:,} made-up questions find their passage in "
            f"the first ten ({_percent(made.bm25_first)} in first place)"
        )
        if real is not None and real.bm25_ten is not None and real.bm25_first is not None:
            found += f", and {_percent(real.bm25_ten)} of {real.n:,} real ones ({_percent(real.bm25_first)})"
            if self.solved_by_words:
                return f"{found}: the made-up ones are easier, and figures over them promise too much."
            if _differ(made.bm25_first, made.n, real.bm25_first, real.n):
                return f"{found}: the made-up ones are harder."
            return f"{found}: no more than chance between them."
        if self.solved_by_words:
            return f"{found}: they repeat their passages, and show little about questions in other words."
        return f"{found}."

    def _wording(self) -> str:
        made, real = self.made, self.real
        length = f"{made.length:g} words" + (f" (real ones {real.length:g})" if real is not None else "")
        if made.overlap is None:
            return f"Made-up questions have {length}."
        overlap = _percent(made.overlap)
        if real is not None and real.overlap is not None:
            overlap += f" ({_percent(real.overlap)})"
        return f"Made-up questions have {length}, of which {overlap} stand in their passage."

    def _kind(self) -> str:
        made, real = self.made, self.real
        if real is None:
            named = ", ".join(f"{kind} {_percent(share)}" for kind, share in list(made.kinds.items())[:3])
            return f"Kinds of made-up questions: {named}; {_percent(made.question_marks)} end with a question mark."
        shares = {kind: (made.kinds.get(kind, 0.0), real.kinds.get(kind, 0.0)) for kind in {**made.kinds, **real.kinds}}
        shares["with a question mark at the end"] = (made.question_marks, real.question_marks)
        telling = [kind for kind, (one, other) in shares.items() if _differ(one, made.n, other, real.n)]
        widest = sorted(telling, key=lambda kind: -abs(shares[kind][0] - shares[kind][1]))[:_KINDS_TOLD]
        if not widest:
            return "In kind and question marks they differ no more than by chance."
        told = [f"{kind} {_percent(shares[kind][0])} (real {_percent(shares[kind][1])})" for kind in widest]
        return f"Kinds that differ: {', '.join(told)}."


def question_realism(
    made: EmbeddingQAFinetuneDataset,
    real: EmbeddingQAFinetuneDataset | Sequence[str] | None = None,
    *,
    lexical: LexicalIndex | None = None,
    sample: int = 1_000,
    seed: int = 0,
) -> Realism:
    """Look how real made-up questions are, before a model is trained on them.

    1,000 questions of each side over 2,600 passages took 9 s on one busy core.

    Args:
        made: The made-up questions with their passages.
        real: What people asked: a data set, or bare questions, of which only the wording can be compared. A few dozen
            are enough to see a large difference. None: none are known.
        lexical: A BM25 index over the passages of `made`, where there is one already.
        sample: Questions of each side to look at, at least 1; drawn at random where there are more.
        seed: Of that draw.

    Raises:
        ConfigError: `sample` is below 1.
        GenerationError: There are no made-up questions.
    """
    check_number("sample", sample, at_least=1)
    if not made.queries:
        raise GenerationError("There are no made-up questions to look at; make some first.")
    index = lexical if lexical is not None else _index_of(made)
    found = _profile_of(made, index, sample, seed)
    if real is None or not isinstance(real, EmbeddingQAFinetuneDataset):
        asked = _drawn(list(real or ()), sample, seed)
        return Realism(found, _profile(asked) if asked else None)
    if not real.queries:
        return Realism(found)
    same = real.corpus == made.corpus and real.bare_texts == made.bare_texts
    return Realism(found, _profile_of(real, index if same else _index_of(real), sample, seed))


def _index_of(dataset: EmbeddingQAFinetuneDataset) -> LexicalIndex:
    return LexicalIndex.build({doc: dataset.bare_text(doc) for doc in dataset.corpus})


def _profile_of(dataset: EmbeddingQAFinetuneDataset, index: LexicalIndex, sample: int, seed: int) -> QuestionProfile:
    ids = _drawn(list(dataset.queries), sample, seed)
    questions = [dataset.queries[query] for query in ids]
    places = []
    for query, rows in zip(ids, index.search(questions, _DEPTH).rows.tolist(), strict=True):
        relevant = set(dataset.relevant_docs[query])
        hits = [place for place, row in enumerate(rows, 1) if row >= 0 and index.ids[row] in relevant]
        places.append(min(hits, default=_DEPTH + 1))
    overlaps = [
        max((_overlap(question, dataset.bare_text(doc)) for doc in dataset.relevant_docs[query]), default=0.0)
        for query, question in zip(ids, questions, strict=True)
    ]
    return _profile(
        questions,
        first=sum(place == 1 for place in places) / len(ids),
        ten=sum(place <= _DEPTH for place in places) / len(ids),
        overlap=statistics.fmean(overlaps),
    )


def _profile(
    questions: Sequence[str], *, first: float | None = None, ten: float | None = None, overlap: float | None = None
) -> QuestionProfile:
    n = len(questions)
    kinds = Counter(kind_of(question) for question in questions)
    return QuestionProfile(
        n=n,
        bm25_first=first,
        bm25_ten=ten,
        overlap=overlap,
        length=statistics.median(length_in_words(question) for question in questions),
        question_marks=sum(question.rstrip().endswith(_QUESTION_MARKS) for question in questions) / n,
        kinds={kind: count / n for kind, count in kinds.most_common()},
    )


def _overlap(question: str, passage: str) -> float:
    asked = words(question)
    held = set(words(passage))
    return sum(word in held for word in asked) / len(asked) if asked else 0.0


def _drawn(items: list[str], sample: int, seed: int) -> list[str]:
    return items if len(items) <= sample else random.Random(seed).sample(items, sample)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _differ(one: float, n_one: int, other: float, n_other: int) -> bool:
    """Whether two shares differ by more than chance and more than a trifle."""
    both = (one * n_one + other * n_other) / (n_one + n_other)
    error = math.sqrt(both * (1 - both) * (1 / n_one + 1 / n_other))
    return abs(one - other) > max(_SMALL, _SURE * error)
