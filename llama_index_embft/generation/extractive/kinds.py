"""The kinds of question that can be made without an LLM, each a function of one chunk.

A kind gets the chunk, the corpus' term counts and a seeded random generator, and returns candidate questions, best
first; it may return none. What a kind is worth is measured by `benchmarks/extractive.py`, not assumed.
"""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable, Sequence
from typing import Final

from llama_index_embft.generation.extractive import chinese, english, european, japanese
from llama_index_embft.generation.extractive.chunk import Chunk
from llama_index_embft.generation.extractive.terms import (
    CHINESE_STOP_CHARS,
    ENGLISH_STOP_WORDS,
    CorpusTerms,
)
from llama_index_embft.generation.extractive.text import is_unspaced, words
from llama_index_embft.generation.extractive.well_formed import broken_rules

Kind = Callable[[Chunk, CorpusTerms, random.Random], list[str]]

_THAI_SIGNS: Final = frozenset("ะัาำิีึืฺุู็่้๊๋์ํ๎ๅ")
# More candidates than anyone asks for: some fall away as duplicates of another chunk's.
_CANDIDATES: Final = 8
_DRAWS: Final = 6
# Characters from which on a stretch without a stop character is cut, so that a part of it can be dropped.
_LONGEST_RUN: Final = 8


def pick_sentences(chunk: Chunk, corpus: CorpusTerms, rng: random.Random) -> list[str]:
    """Order a chunk's sentences at random, the more informative (rarer words) likelier to come first.

    A weighted draw without replacement: each sentence gets the key ``u ** (1 / weight)``, u uniform in (0, 1).
    """
    keyed = []
    for sentence in chunk.sentences:
        weight = corpus.mean_rarity(sentence) ** 2
        if weight > 0:
            keyed.append((rng.random() ** (1 / weight), sentence))
    return [sentence for _, sentence in sorted(keyed, reverse=True)]


def title(chunk: Chunk, corpus: CorpusTerms, rng: random.Random) -> list[str]:  # noqa: ARG001 - one signature for all
    """Headings and titles: of the metadata, and heading-like lines of the text."""
    return list(chunk.headings[:_CANDIDATES])


def keywords(chunk: Chunk, corpus: CorpusTerms, rng: random.Random) -> list[str]:
    """A keyword search: two to four key phrases of the chunk, space-separated."""
    phrases = corpus.key_phrases(chunk.text, 10)
    if len(phrases) < 2:
        return []
    made = []
    for _ in range(_CANDIDATES):
        size = min(len(phrases), rng.randint(2, 4))
        # The best phrases come first, so a draw from a short head stays on the chunk's subject.
        made.append(" ".join(rng.sample(phrases[: max(size, 6)], size)))
    return made


def phrases(chunk: Chunk, corpus: CorpusTerms, rng: random.Random) -> list[str]:
    """A question template around one or two key phrases ("What is the role of X in Y?")."""
    found = corpus.key_phrases(chunk.text, 6)
    if chunk.language == "en":
        return english.phrase_questions(found, rng, _CANDIDATES)
    if chunk.language == "zh":
        return chinese.phrase_questions(chunk, found, rng, _CANDIDATES)
    return []


def pattern(chunk: Chunk, corpus: CorpusTerms, rng: random.Random) -> list[str]:
    """A question from the form of one sentence: a definition, a cause, a figure, a date; only well-formed ones."""
    made: list[str] = []
    for sentence in pick_sentences(chunk, corpus, rng):
        options = _sentence_questions(chunk, sentence)
        good = [
            question
            for question in (corpus.natural_case(option, language=chunk.language) for option in options)
            if not broken_rules(question, chunk.language) and not corpus.is_damaged(question, language=chunk.language)
        ]
        if good:
            made.append(rng.choice(good))
        if len(made) == _CANDIDATES:
            break
    return made


def template_questions(text: str) -> list[str]:
    """Everything that the templates make from a text, also what `broken_rules` would drop: to see what they drop.

    Args:
        text: Text of one chunk.
    """
    chunk = Chunk(text)
    return [question for sentence in chunk.sentences for question in _sentence_questions(chunk, sentence)]


def _sentence_questions(chunk: Chunk, sentence: str) -> list[str]:
    if chunk.language == "en":
        return english.sentence_questions(sentence, chunk.organisation)
    if chunk.language == "zh":
        return chinese.sentence_questions(chunk, sentence)
    if chunk.language == "ja":
        return japanese.sentence_questions(sentence)
    return european.sentence_questions(sentence, chunk.language)


def asked(chunk: Chunk, corpus: CorpusTerms, rng: random.Random) -> list[str]:
    """A question word before the words of one sentence, some dropped: no grammar, but the look of a question."""
    if chunk.language not in ("en", "zh"):
        return []
    starts = english.QUESTION_STARTS if chunk.language == "en" else ("",)
    ends = ("?",) if chunk.language == "en" else chinese.QUESTION_ENDS
    return [f"{rng.choice(starts)} {thinned}{rng.choice(ends)}".strip() for thinned in dropout(chunk, corpus, rng)]


def cloze(chunk: Chunk, corpus: CorpusTerms, rng: random.Random) -> list[str]:
    """The inverse cloze task: one sentence as it stands, which the chunk (left whole) should be found by."""
    picked = pick_sentences(chunk, corpus, rng)
    return [sentence for sentence in picked if not corpus.is_damaged(sentence, language=chunk.language)][:_CANDIDATES]


def dropout(chunk: Chunk, corpus: CorpusTerms, rng: random.Random) -> list[str]:
    """The inverse cloze task with words dropped and lower-cased, so that the query is no copy of the chunk."""
    made = (_thinned(sentence, rng) for sentence in pick_sentences(chunk, corpus, rng)[:_CANDIDATES])
    return [text for text in made if text]


def _thinned(sentence: str, rng: random.Random) -> str:
    """What `thin` makes, drawn again while it is a stretch of the sentence after all; empty where it stays one."""
    draws = (thin(sentence, rng) for _ in range(_DRAWS))
    return next((text for text in draws if text and text not in sentence.lower()), "")


def crop(chunk: Chunk, corpus: CorpusTerms, rng: random.Random) -> list[str]:  # noqa: ARG001 - one signature for all
    """A random stretch of the text of 6 to 24 words, wherever it begins and ends (as in Contriever)."""
    unspaced = is_unspaced(chunk.text)
    units: Sequence[str] = chunk.text.replace("\n", "") if unspaced else chunk.text.split()
    low, high = (8, 40) if unspaced else (6, 24)
    if len(units) < 2 * low:
        return []
    made = []
    for _ in range(_CANDIDATES):
        size = min(len(units), rng.randint(low, high))
        start = rng.randrange(len(units) - size + 1)
        made.append(("" if unspaced else " ").join(units[start : start + size]).strip())
    return made


def thin(sentence: str, rng: random.Random, *, keep: float = 0.6, longest: int = 16) -> str:
    """Drop words of a sentence at random.

    Args:
        sentence: One sentence.
        rng: Where the choice comes from.
        keep: Share of the content words kept; of function words, half of that share.
        longest: Most words kept; in a script without spaces, three characters count as one word.

    Returns:
        The words kept, in order, lower-cased; empty where fewer than three remain.
    """
    if is_unspaced(sentence):
        parts, run = [], ""
        for token in [*words(sentence), ""]:
            stops = not token or token in CHINESE_STOP_CHARS
            # A vowel sign stays with its letter.
            full = len(run) >= _LONGEST_RUN and not unicodedata.combining(token[:1] or "x") and token not in _THAI_SIGNS
            if run and (stops or full):
                parts += [run] if rng.random() < keep else []
                run = ""
            run += "" if stops else token
        joined = "".join(parts).lower()
        return joined[: 3 * longest] if len(joined) >= 4 else ""
    kept = []
    for word in words(sentence):
        share = keep / 2 if word.lower() in ENGLISH_STOP_WORDS else keep
        if rng.random() < share:
            kept.append(word.lower())
    if len(kept) > longest:
        start = rng.randrange(len(kept) - longest + 1)
        kept = kept[start : start + longest]
    return " ".join(kept) if len(kept) >= 3 else ""


KINDS: Final[dict[str, Kind]] = {
    "title": title,
    "keywords": keywords,
    "phrases": phrases,
    "pattern": pattern,
    "asked": asked,
    "cloze": cloze,
    "dropout": dropout,
    "crop": crop,
}
