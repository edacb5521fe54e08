"""Where sentences and words begin and end, in any script.

By Unicode's own classes (`regex` knows them: what ends a sentence, what is a letter, what is a mark on a letter), so no
script is cut at its vowel signs, and full stops of Hindi, Arabic, Burmese or Ethiopic writing count as such. Text in a
script without spaces (Chinese, Japanese, Thai) is taken character by character, which needs no dictionary.
"""

from __future__ import annotations

import re
from typing import Any, Final

import regex

_UNSPACED: Final = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}"
# A letter with its marks; the joiners of Persian and Indian writing stand within words.
_LETTERS: Final = rf"(?:[[\p{{L}}\p{{N}}]--[{_UNSPACED}]][\p{{M}}\u200c\u200d\u0640]*+)++"
# With a hyphen or apostrophe within; a point only within a number or between single capitals ("1.7", "U.S").
_WORD: Final = regex.compile(
    rf"[{_UNSPACED}]\p{{M}}*+|{_LETTERS}(?:(?:[-'’&]|(?<=\d)[.,](?=\d)|(?<=\b[A-Z])\.(?=[A-Z]\b)){_LETTERS})*+",
    regex.V1,
)
_UNSPACED_CHAR: Final = regex.compile(rf"[{_UNSPACED}]")
# Latin, Greek and Cyrillic text has neither marks nor characters without spaces, and `re` is five times as quick there.
_BEYOND_LETTERS: Final = re.compile(r"[^\x00-\u02ff\u0370-\u0482\u048a-\u052f\u1e00-\u1fff\u2010-\u206f\u20a0-\u22ff]")
_PLAIN_WORD: Final = re.compile(
    r"[^\W_]+(?:(?:[-'’&]|(?<=\d)[.,](?=\d)|(?<=\b[A-Z])\.(?=[A-Z]\b))[^\W_]+)*",
)
_FIRST_UNSPACED: Final = "\u0e00"

_THAI: Final = regex.compile(r"\p{Thai}")
_THAI_SENTENCE: Final = 20  # characters from which on a clause stands alone
_FULL_STOP: Final = r"\p{Sentence_Break=STerm}\p{Sentence_Break=ATerm}"
_SENTENCE_END: Final = regex.compile(
    rf"(?<=[{_FULL_STOP}][\"'”’»)\]]?)\s+"
    # A full stop glued to a capital is what PDF extraction leaves of a line end ("prohibited.Recent events").
    r"|(?<=[a-z0-9)%]\.)(?=[A-Z](?:[a-z]|\s[a-z]))"
    r"|(?<=[。！？｡；])(?![”’」』）])|(?<=[。！？｡；][”’」』）])",
    regex.V1,
)
# In front of a full stop that ends no sentence: titles and short forms of several languages, single letters.
_ABBREVIATION: Final = regex.compile(
    r"(?:\b(?:Mr|Mrs|Ms|Dr|Prof|St|Inc|Ltd|Co|Corp|Jr|Sr|No|Nos|vs|Fig|Figs|Eq|Sec|Art|Abs|Nr|Bd|Hr|Fr|Frl|Tel|Str|al"
    r"|approx|cf|ca|bzw|usw|evtl|ggf|inkl|vgl|etc|Mme|Mlle|Mgr|av|env|Sra|Srta|Dra|núm|pág|fl|kl|ev|ung|kap|pkt|[zdu]|\p{Lu})"
    r"|\b(?:e\.g|i\.e|U\.S|U\.K|a\.m|p\.m|Ph\.D|z\.\s?B|d\.\s?h|u\.\s?a|f\.eks|bl\.a|m\.m|o\.l|p\.ex|EE\.\s?UU)"
    r"|\b(?:т\.\s?е|т\.\s?д|г|гг|им|ул|др|руб|тыс|млн|см|стр))\.$"
)
# "am 3. Mai", "den 17. mai", "im 19. Jahrhundert": a number with a point is an ordinal in much of Europe.
_ORDINAL: Final = regex.compile(r"(?:^|\D)\d{1,2}\.$")
_AFTER_ORDINAL: Final = regex.compile(
    r"^(?:\p{Ll}|Jan|Feb|Mär|Apr|Mai|Jun|Jul|Aug|Sep|Okt|Nov|Dez|Jahrhundert|Jh|Auflage|Platz|Liga|Klasse)"
)
_LONGEST_MARK: Final = 24  # characters in front of a full stop that tell whether it ends a sentence
LONGEST_SENTENCE: Final = 2000  # characters; the templates' time grows faster than a sentence's length
_LIST_MARK: Final = r"\n(?=\s*(?:[-*•#]|\d+[.)])\s)"
_BLOCK: Final = regex.compile(rf"\n\s*\n|{_LIST_MARK}")


def word_set(text: str) -> frozenset[str]:
    """Words written in one text, for tables that would be unreadable as lists."""
    return frozenset(text.split())


def words(text: str) -> list[str]:
    """Split into words; a character of a script without spaces is a word of its own, with the marks on it."""
    return list(_pattern_for(text).findall(text))


def word_spans(text: str) -> list[tuple[str, int]]:
    """Words with the places where they begin."""
    return [(match.group(), match.start()) for match in _pattern_for(text).finditer(text)]


def _pattern_for(text: str) -> Any:
    return _PLAIN_WORD if _BEYOND_LETTERS.search(text) is None else _WORD


def is_unspaced_word(word: str) -> bool:
    """Tell whether a word is a character of a script without spaces."""
    return word >= _FIRST_UNSPACED and _UNSPACED_CHAR.match(word) is not None


def is_unspaced(text: str) -> bool:
    """Tell whether most letters belong to a script without spaces between words."""
    tokens = words(text)
    return bool(tokens) and 2 * sum(map(is_unspaced_word, tokens)) >= len(tokens)


def clean(text: str) -> str:
    """Undo what line breaking does to prose: hyphenated line ends are joined, white space runs become one space."""
    text = str(regex.sub(r"(?<=\p{Ll})[-\u00ad]\n(?=\p{Ll})", "", text)).replace("\u00ad", "")
    return re.sub(r"\s+", " ", text).strip()


def split_sentences(text: str) -> list[str]:
    """Split into sentences, also where PDF extraction lost the space after the full stop, and at blank lines."""
    sentences: list[str] = []
    capitals = any(_first(piece).isupper() for piece in _SENTENCE_END.split(clean(text))[1:])
    for block in _BLOCK.split(text):
        held: list[str] = []
        for piece in _SENTENCE_END.split(clean(block)):
            if held and _begins(piece, " ".join(held[-2:])[-_LONGEST_MARK:], capitals=capitals):
                sentences.append(" ".join(held))
                held = []
            if piece := piece.strip():
                held.append(piece)
        if held:
            sentences.append(" ".join(held))
    return [part for sentence in sentences for part in _thai_phrases(sentence)]


def _begins(piece: str, before: str, *, capitals: bool) -> bool:
    """Whether a piece begins a sentence, and does not go on with the one before."""
    if _ABBREVIATION.search(before) or (_ORDINAL.search(before) and _AFTER_ORDINAL.match(piece)):
        return False
    # A small letter goes on ("approx. three"), unless no sentence of the text begins with a capital.
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
    """Tell a sentence from a table row, a heading or a line of dots: of fair length, mostly letters, not shouted."""
    if len(sentence) > LONGEST_SENTENCE:
        return False
    tokens = words(sentence)
    if is_unspaced(sentence):
        return 8 <= len(tokens) <= 150
    if not 6 <= len(tokens) <= 80 or "...." in sentence or ". . ." in sentence:
        return False
    letters = sum(1 for t in tokens if t[0].isalpha())
    shouted = sum(1 for t in tokens if t.isupper() and len(t) > 1)
    return letters >= 0.7 * len(tokens) and shouted <= 0.5 * len(tokens)
