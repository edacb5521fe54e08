"""What the extractive kinds read: sentences, words and key phrases of a chunk, and how rare they are in the corpus.

Everything is counted from the corpus itself; there is no model and nothing to download. Text in a script without
spaces (Chinese, Japanese) is counted in pairs of characters, which needs no dictionary and misses no new word.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final, Literal

from llama_index_embft._core.language import COMBINING_MARKS, detect_language

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Sequence

Language = Literal["en", "zh", "other"]

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

_UNSPACED: Final = "\u3400-\u4dbf\u4e00-\u9fff\u3040-\u30ff\u0e00-\u0e7f"  # Han, kana, Thai
_LETTERS: Final = rf"(?:[^\W_{_UNSPACED}]|(?<=\w)[{COMBINING_MARKS}]|(?<=[{COMBINING_MARKS}])[{COMBINING_MARKS}])+"
_THAI: Final = re.compile(r"[\u0e00-\u0e7f]")
_THAI_SENTENCE: Final = 20  # characters from which on a clause stands alone
# Letters, with a hyphen or apostrophe within; a point only within a number or between single capitals ("1.7", "U.S").
_WORD: Final = re.compile(
    rf"[{_UNSPACED}]|{_LETTERS}(?:(?:[-'’&]|(?<=\d)[.,](?=\d)|(?<=\b[A-Z])\.(?=[A-Z]\b)){_LETTERS})*"
)
_UNSPACED_CHAR: Final = re.compile(rf"[{_UNSPACED}]")

_ABBREVIATION: Final = re.compile(
    r"(?:\b(?:Mr|Mrs|Ms|Dr|Prof|St|Inc|Ltd|Co|Corp|Jr|Sr|No|Nos|vs|Fig|Figs|Eq|Sec|Art|al|approx|cf|ca|[A-Z])"
    r"|\b(?:e\.g|i\.e|U\.S|U\.K|a\.m|p\.m|Ph\.D))\.$"
)
# Full stops of Latin, Cyrillic, Greek, Arabic, Hindi, Burmese, Ethiopic and Armenian writing.
_ENDS: Final = ".!?؟۔।॥။።։"
# A full stop glued to a capital is what PDF extraction leaves of a line end ("prohibited.Recent events").
_SENTENCE_END: Final = re.compile(
    rf"(?:(?<=[{_ENDS}])|(?<=[{_ENDS}][\"'”’)\]»]))\s+"
    r"|(?<=[a-z0-9)%]\.)(?=[A-Z][a-z])"
    r"|(?<=[。！？；])(?![”’」』）])|(?<=[。！？；][”’」』）])"
)


@dataclass(frozen=True)
class Chunk:
    """One chunk's text, cut up once for every kind.

    Attributes:
        text: Text without metadata, white space normalised within lines.
        headings: Headings and titles, from the metadata and from heading-like lines, best first.
    """

    text: str
    headings: tuple[str, ...] = ()

    @cached_property
    def language(self) -> Language:
        """Which question templates fit; ``"other"`` has none, only the kinds that reuse the text's own words."""
        found = detect_language(self.text)
        if found is None:  # "cannot tell" for many a dense English abstract; prose is enough to choose templates
            tokens = words(self.text[:4000])
            english = sum(1 for token in tokens if token.lower() in ENGLISH_STOP_WORDS)
            return "en" if english > 0.15 * len(tokens) else "other"
        return "en" if found == "en" else "zh" if found == "zh" else "other"

    @cached_property
    def sentences(self) -> tuple[str, ...]:
        """Sentences of running prose in order; lines of tables, dots and page furniture are left out."""
        return tuple(s for s in split_sentences(self.text) if is_prose(s))


def words(text: str) -> list[str]:
    """Split into words; a character of a script without spaces is a word of its own."""
    return _WORD.findall(text)


def is_unspaced(text: str) -> bool:
    """Tell whether most letters belong to a script without spaces between words."""
    tokens = words(text)
    return bool(tokens) and 2 * sum(1 for t in tokens if _UNSPACED_CHAR.match(t)) >= len(tokens)


def clean(text: str) -> str:
    """Undo what line breaking does to prose: hyphenated line ends are joined, white space runs become one space."""
    text = re.sub(r"(?<=[a-z])[-\u00ad]\n(?=[a-z])", "", text).replace("\u00ad", "")
    return re.sub(r"\s+", " ", text).strip()


def split_sentences(text: str) -> list[str]:
    """Split into sentences, also where PDF extraction lost the space after the full stop, and at blank lines."""
    sentences: list[str] = []
    capitals = any(_first(piece).isupper() for piece in _SENTENCE_END.split(clean(text))[1:])
    for block in re.split(r"\n\s*\n|\n(?=\s*(?:[-*•#]|\d+[.)])\s)", text):
        held = ""
        for piece in _SENTENCE_END.split(clean(block)):
            # A small letter goes on ("approx. three"), unless no sentence of the text begins with a capital.
            if held and (not _begins(piece, capitals=capitals) or _ABBREVIATION.search(held)):
                held = f"{held} {piece}".strip()
                continue
            if held:
                sentences.append(held)
            held = piece.strip()
        if held:
            sentences.append(held)
    return [part for sentence in sentences for part in _thai_phrases(sentence)]


def _begins(piece: str, *, capitals: bool) -> bool:
    return not capitals or not _first(piece).islower()


def _first(piece: str) -> str:
    return next((char for char in piece if char.isalnum()), "")


def _thai_phrases(sentence: str) -> list[str]:
    """Thai has no full stop: spaces stand between clauses, of which short ones are joined."""
    if len(_THAI.findall(sentence)) * 2 < len(sentence):
        return [sentence]
    phrases: list[str] = []
    for clause in sentence.split():
        if phrases and len(phrases[-1]) < _THAI_SENTENCE:
            phrases[-1] += f" {clause}"
        else:
            phrases.append(clause)
    return phrases


def is_prose(sentence: str) -> bool:
    """Tell a sentence from a table row, a heading or a line of dots: long enough, mostly letters, not shouted."""
    tokens = words(sentence)
    if is_unspaced(sentence):
        return 8 <= len(tokens) <= 150
    if not 6 <= len(tokens) <= 80 or "...." in sentence or ". . ." in sentence:
        return False
    letters = sum(1 for t in tokens if t[0].isalpha())
    shouted = sum(1 for t in tokens if t.isupper() and len(t) > 1)
    return letters >= 0.7 * len(tokens) and shouted <= 0.5 * len(tokens)


def terms(text: str) -> list[str]:
    """Units whose rarity is counted: lower-case words without English stop words; pairs of unspaced characters."""
    found: list[str] = []
    previous = ""
    for match in _WORD.finditer(text):
        token = match.group()
        if _UNSPACED_CHAR.match(token):
            if previous and text[match.start() - 1] == previous:
                found.append(previous + token)
            previous = token
            continue
        previous = ""
        lowered = token.lower()
        if lowered not in ENGLISH_STOP_WORDS and len(lowered) > 1:
            found.append(lowered)
    return found


def candidate_phrases(text: str) -> list[str]:
    """Phrases that could be key phrases, in the text's own spelling, with repeats.

    Spaced text: runs of one to four words without a stop word or punctuation between. Unspaced text: runs of two to
    eight characters between stop characters and punctuation, and what stands in quotation or title marks.
    """
    found = re.findall(r"[《“「『]([^》”」』\n]{2,16})[》”」』]", text) if _UNSPACED_CHAR.search(text) else []
    for part in re.split(r"[^\w\s\-'’&]|\n", text):
        run: list[str] = []
        for token in [*words(part), ""]:
            unspaced = bool(_UNSPACED_CHAR.match(token))
            stop = token in CHINESE_STOP_CHARS if unspaced else token.lower() in ENGLISH_STOP_WORDS
            if token and not stop and (not run or unspaced == bool(_UNSPACED_CHAR.match(run[-1]))):
                run.append(token)
                continue
            found += _phrases_of(run)
            run = [token] if token and not stop else []
    return found


def _phrases_of(run: Sequence[str]) -> list[str]:
    """The phrase a run of tokens makes, or none where it is too short, too long or only figures."""
    if not run:
        return []
    if _UNSPACED_CHAR.match(run[0]):
        return ["".join(run)] if 2 <= len(run) <= 8 else []
    # "Flows83Notes": what PDF extraction leaves of a table of contents.
    if any(re.search(r"[A-Za-z]{3}\d+[A-Za-z]{3}", token) for token in run):
        return []
    if len(run) > 4 or not (run[0][0].isalpha() and run[-1][0].isalpha()) or len(run[-1]) < 3:
        return []
    return [" ".join(run)] if len(run) > 1 or len(run[0]) > 3 else []


class CorpusTerms:
    """How many chunks hold a term, and what that makes a term, a phrase or a sentence worth.

    Args:
        texts: Text of every chunk; memory is one counter entry for each distinct term (about 100 bytes).
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._chunks_with: Counter[str] = Counter()
        self._n_chunks = 0
        for text in texts:
            self._chunks_with.update(set(terms(text)))
            self._n_chunks += 1

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
        for phrase in candidate_phrases(text):
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
