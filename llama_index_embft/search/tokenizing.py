"""Cut texts of any language into what BM25 compares; what was tried stands in ``docs/how-to/hybrid-retriever.md``."""

from __future__ import annotations

import re
from typing import Final

from llama_index_embft._core.language import COMBINING_MARKS, composed

WORDS_VERSION: Final = 1
"""Counts up whenever `terms` cuts otherwise: an index that was built before does not fit its queries any more."""

# Chinese characters and Japanese kana: each is about half a word.
_HAN: Final = "\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_HANGUL: Final = "\uac00-\ud7af"
# Alphabets written without spaces: Thai, Lao, Tibetan, Burmese, Khmer.
_UNSPACED: Final = "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff"
_OTHER: Final = rf"(?:[^\W{_HAN}{_HANGUL}{_UNSPACED}]|[{COMBINING_MARKS}])"
# A word has an end: a megabyte without a space is cut, and each pattern passes over a text once.
_LONGEST: Final = 100
_SPACED: Final = re.compile(rf"{_OTHER}{{1,{_LONGEST}}}")
_RUNS: Final = re.compile(rf"([{_HAN}]+)|([{_HANGUL}]+)|([{_UNSPACED}]+)|({_OTHER}{{1,{_LONGEST}}})")
_NO_SPACES: Final = re.compile(rf"[{_HAN}{_HANGUL}{_UNSPACED}]")
_NEEDS_CUTTING: Final = re.compile(rf"[_{_HAN}{_HANGUL}{_UNSPACED}]")
_BEGINNING: Final = 5  # letters; 5 and 6 gained on all of six sets in two languages, 5 more


def words(text: str) -> list[str]:
    """The words of a text, in its order, in lower case and with compatible characters unified.

    - Words between spaces stay whole; ``max_line_length`` gives ``max``, ``line`` and ``length`` as well.
    - Chinese and Japanese: each character and each pair of neighbours, for a pair is about a word.
    - Korean: each pair of syllables, so that a word is found whatever particle it ends in.
    - Thai, Lao, Tibetan, Burmese, Khmer: each three and each four neighbouring letters.

    Takes time in proportion to the text, whatever stands in it.
    """
    folded = composed(text).casefold()
    if _NEEDS_CUTTING.search(folded) is None:
        return _SPACED.findall(folded)
    found: list[str] = []
    for han, hangul, unspaced, word in _RUNS.findall(folded):
        if word:
            parts = [part for part in word.split("_") if part]
            found += parts if parts == [word] else [word, *parts] if parts else []
        elif han:
            found += [*han, *_grams(han, 2)]
        elif hangul:
            found += _grams(hangul, 2) or [hangul]
        else:
            found += _grams(unspaced, 3) + _grams(unspaced, 4) or [unspaced]
    return found


def terms(text: str) -> list[str]:
    """What a `LexicalIndex` compares: the `words` of a text, and the first five letters of each, marked ``^``.

    A word is then found in another form too ("retrieval" and "retrieved", "Steuer" and "Steuererklärung"), in any
    language with endings, and the same form still counts more. Scripts without spaces need none: their pairs and
    threes overlap as they are.
    """
    found = words(text)
    return found + ["^" + word[:_BEGINNING] for word in found if _NO_SPACES.match(word) is None]


def _grams(run: str, n: int) -> list[str]:
    return [run[i : i + n] for i in range(len(run) - n + 1)]
