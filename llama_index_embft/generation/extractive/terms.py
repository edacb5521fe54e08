"""What the words of a chunk are worth: terms, key phrases, how rare they are in the corpus, and where text is damaged.

Everything is counted from the corpus itself; there is no model and nothing to download.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import TYPE_CHECKING, Final

import regex

from llama_index_embft.generation.extractive.text import is_unspaced, is_unspaced_word, word_set, word_spans, words

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

_ENGLISH_STOP_WORDS = """
    a about above after again all also although am among an and any are as at be became because become been before
    being below between both but by can could did do does doing down during each either else etc ever few for from
    further had has have having he hence her here hers him himself his how however i if in into is it its itself
    just least less many may me might more most much must my neither no nor not now of off on once one only or other
    others our ours out over own per rather same shall she should since so some such than that the their them
    themselves then there therefore these they this those though through thus to too two under until up upon us very
    via was we well were what when where whether which while who whom whose why will with within without would yet
    you your yours
"""
ENGLISH_STOP_WORDS: Final = frozenset(_ENGLISH_STOP_WORDS.split())
# Characters that hardly ever stand inside a Chinese term: particles, prepositions, conjunctions, pronouns, copulas.
CHINESE_STOP_CHARS: Final = frozenset(
    "的了是在和与與及于於以为為有等也被由从從到而并並其这這那该該之则則或且但因所将將把让對对就都又很更最他她它们們我你此每各着著过過"
)

# The short words of English that are whole; another one is a piece of a word ("wi ll", "ta x").
_SHORT_WORDS: Final = word_set(
    """
    a i am an as at ax be by do ed eg et ex go he hi id ie if in is it me mg my no of oh ok on or ox pm re so to
    up us vs we al c e p s t x mm cm km kg ml
    """
)
_LONGEST_PHRASE: Final = 4  # words
_LONG, _LONG_OTHER = 6, 4  # letters; syllables of Korean and Amharic say more than a letter
# What is left of a word that was cut, where the whole stands nowhere.
_ENDINGS: Final = word_set(
    "ing ed tion tions ment ments ated ating ation ations ting ally ipally ness able ible ical ative sion ties"
)
_RARE: Final = 8  # times a word stands in the corpus
_ONCE_OR_TWICE: Final = 2
_WITH_STOP_WORD: Final = re.compile(
    r"(?:our|will|been|may|and|the|with|from|which|were|have|provide|based)[a-z]{5,}$"
    r"|[a-z]{5,}(?:our|will|been|and|the|with|from|which|were|of|using)$"
)
_LONG_PAIR: Final = 7
_EVERYWHERE: Final = 200
_SHORTEST_PART: Final = 3  # letters
_FREQUENT: Final = 0.2  # share of the chunks from which on a word is no key word
_FEWEST_CHUNKS: Final = 20


def terms(text: str) -> list[str]:
    """Units whose rarity is counted: lower-case words without English stop words; pairs of unspaced characters."""
    found: list[str] = []
    previous = ""
    end = -1
    for token, start in word_spans(text):
        if is_unspaced_word(token):
            if previous and start == end:
                found.append(previous + token)
            previous, end = token, start + len(token)
            continue
        previous = ""
        lowered = token.lower()
        if lowered not in ENGLISH_STOP_WORDS and len(lowered) > 1:
            found.append(lowered)
    return found


def candidate_phrases(text: str, frequent: Collection[str] = ()) -> list[str]:
    """Phrases that could be key phrases, in the text's own spelling, with repeats.

    Spaced text: runs of one to four words without a stop word or punctuation between. Unspaced text: runs of two to
    eight characters between stop characters and punctuation, and what stands in quotation or title marks.

    Args:
        text: Of a chunk.
        frequent: Further stop words, in lower case.
    """
    found = re.findall(r"[《“「『]([^》”」』\n]{2,16})[》”」』]", text) if is_unspaced(text) else []
    listed = _has_listed_stop_words(text)
    # Marks and joiners belong to their letters.
    for part in regex.split(r"[^\w\p{M}\u200c\u200d\s\-'’&]|\n", text):
        run: list[str] = []
        for token in [*words(part), ""]:
            unspaced = is_unspaced_word(token)
            stop = (
                token in CHINESE_STOP_CHARS
                if unspaced
                else token.lower() in ENGLISH_STOP_WORDS or token.lower() in frequent
            )
            if token and not stop and (not run or unspaced == is_unspaced_word(run[-1])):
                run.append(token)
                continue
            found += _phrases_of(run) if listed or len(run) <= _LONGEST_PHRASE else _long_words(run)
            run = [token] if token and not stop else []
    return found


def _phrases_of(run: Sequence[str]) -> list[str]:
    """The phrase a run of tokens makes, or none where it is too short, too long or only figures."""
    if not run:
        return []
    if is_unspaced_word(run[0]):
        return ["".join(run)] if 2 <= len(run) <= 8 else []
    # "Flows83Notes": what PDF extraction leaves of a table of contents.
    if any(re.search(r"[A-Za-z]{3}\d+[A-Za-z]{3}", token) for token in run):
        return []
    if len(run) > _LONGEST_PHRASE or not (run[0][0].isalpha() and run[-1][0].isalpha()) or len(run[-1]) < 3:
        return []
    return [" ".join(run)] if len(run) > 1 or len(run[0]) > 3 else []


def _has_listed_stop_words(text: str) -> bool:
    """Whether the stop words of the text's language are known: it is English, or has no spaces."""
    tokens = words(text)
    return 10 * sum(1 for t in tokens if t.lower() in ENGLISH_STOP_WORDS or is_unspaced_word(t)) > len(tokens)


def _long_words(run: Sequence[str]) -> list[str]:
    """The words of a run that no stop word divides, short ones left out, which are mostly function words."""
    return [word for word in run if word[0].isalpha() and len(word) >= (_LONG if word.isascii() else _LONG_OTHER)]


def _is_piece(word: str) -> bool:
    return 0 < len(word) <= 2 and word.isalpha() and word.isascii() and word not in _SHORT_WORDS


class CorpusTerms:
    """How many chunks hold a term, and what that makes a term, a phrase or a sentence worth.

    Args:
        texts: Text of every chunk; memory is one counter entry for each distinct term (about 100 bytes).
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._chunks_with: Counter[str] = Counter()
        self._words: Counter[str] = Counter()
        self._lower_case: Counter[str] = Counter()
        self._n_chunks = 0
        for text in texts:
            self._chunks_with.update(set(terms(text)))
            found = words(text)
            self._words.update(word.lower() for word in found)
            self._lower_case.update(word for word in found if word.islower())
            self._n_chunks += 1
        # English has a list of stop words; those of other languages are what stands in many of their chunks.
        english = sum(self._words[word] for word in ENGLISH_STOP_WORDS) > 0.15 * self._words.total()
        known = english or self._n_chunks < _FEWEST_CHUNKS
        self._frequent = frozenset(
            term for term, n in self._chunks_with.items() if not known and n > _FREQUENT * self._n_chunks
        )

    def natural_case(self, question: str, *, language: str) -> str:
        """Write a word within a question as the corpus does: it may have its capital from a sentence's start."""
        if language == "de":
            return question
        tokens = question.split(" ")
        for place, word in enumerate(tokens[1:], 1):
            bare = word.rstrip("?,.")
            beside = [*tokens[max(1, place - 1) : place], *tokens[place + 1 : place + 2]]
            if any(other[:1].isupper() for other in beside):
                continue  # a name of several words
            if bare.istitle() and bare.isalpha() and 2 * self._lower_case[bare.lower()] > self._words[bare.lower()] > 0:
                tokens[place] = word.lower()
        return " ".join(tokens)

    def is_damaged(self, text: str, *, language: str) -> bool:
        """Tell whether PDF extraction cut a word ("impa irment") or lost a space ("ourfuture").

        Args:
            text: A sentence or question.
            language: In English lost spaces are looked for too; other languages write compounds as one word.
        """
        glued = language == "en"
        tokens = [word.lower() for word in text.replace("-", " ").split()]
        bare = [token.strip(".,;:!?()[]“”\"'’") for token in tokens]
        for before, word, after in zip(["", *bare], bare, [*bare[1:], ""], strict=False):
            if glued and (word in _ENDINGS or _is_piece(word)) and not before[-1:].isdigit():
                return True
            if after and word.isalpha() and after.isalpha() and self._belong_together(word, after):
                return True
            if glued and len(word) >= 5 and word.isalpha() and self._is_two(word):
                return True
        return False

    def _belong_together(self, first: str, second: str) -> bool:
        joined = self._words[first + second]
        return joined > 0 and joined >= min(self._words[first], self._words[second])

    def _is_two(self, word: str) -> bool:
        n = self._words[word]
        if n > _RARE:
            return False
        # "ourinventions", of which nothing but "our" stands elsewhere.
        if self._words["the"] >= _EVERYWHERE and n <= _ONCE_OR_TWICE and _WITH_STOP_WORD.match(word):
            return True
        for at in range(1, len(word)):
            first, second = self._words[word[:at]], self._words[word[at:]]
            # "mostcritical": both parts are far more frequent than the word; "into" and "another" are no rare words.
            parts = min(at, len(word) - at)
            if (parts >= _SHORTEST_PART or max(first, second) >= _EVERYWHERE) and min(first, second) > max(2, 5 * n):
                return True
            # "expireor", "beenupdated": a word that is everywhere, and a long one that is anywhere.
            if parts >= 2 and max(first, second) >= _EVERYWHERE and min(first, second) > 0 and len(word) >= _LONG_PAIR:
                return True
        return False

    def rarity(self, term: str) -> float:
        """Inverse document frequency, smoothed, at least 0; a term of every chunk is worth nothing."""
        return math.log((1 + self._n_chunks) / (1 + self._chunks_with[term])) if self._n_chunks > 1 else 1.0

    def mean_rarity(self, text: str) -> float:
        """Mean rarity of a text's terms; 0 where it has none."""
        found = terms(text)
        return sum(map(self.rarity, found)) / len(found) if found else 0.0

    def key_phrases(self, text: str, limit: int) -> list[str]:
        """Phrases frequent in this chunk and rare in the corpus, best first, none part of a better one."""
        counts: Counter[str] = Counter()
        spelling: dict[str, str] = {}
        for phrase in candidate_phrases(text, self._frequent):
            counts[phrase.lower()] += 1
            spelling.setdefault(phrase.lower(), phrase)

        def worth(phrase: str) -> float:
            # A phrase of two or three words says more than one word; of four, hardly more.
            size = min(3, len(phrase) / 2 if is_unspaced(phrase) else len(phrase.split()))
            return (1 + math.log(counts[phrase])) * self.mean_rarity(phrase) * math.sqrt(size)

        chosen: list[str] = []
        for phrase in sorted(counts, key=lambda p: (-worth(p), p)):
            if len(chosen) == limit:
                break
            if worth(phrase) > 0 and not any(phrase in other or other in phrase for other in chosen):
                chosen.append(phrase)
        return [spelling[phrase] for phrase in chosen]
