"""Which language a text is written in, and what kind of question: enough to choose a prompt and to compare questions.

A query is often three words long, too short for detectors by character statistics, which guess and are wrong. Here a
language is named only on positive evidence: its script, or at least two of its own function words. Everything else is
``None``, "cannot tell", and nobody is accused.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from itertools import groupby
from typing import Final


def _ranges_of_marks() -> str:
    codes = [code for code in range(0x300, 0x2100) if unicodedata.category(chr(code)).startswith("M")]
    runs = groupby(enumerate(codes), lambda pair: pair[1] - pair[0])
    ends = [(run[0][1], run[-1][1]) for run in (list(group) for _, group in runs)]
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in ends)


# For a character class: vowel signs and accents, which Hindi, Tamil or Hebrew words are full of, and ``\w`` lacks.
COMBINING_MARKS: Final = _ranges_of_marks()

# One pattern a script, most telling first: a single kana makes a text Japanese, Han alone makes it Chinese.
_SCRIPTS: Final = {
    "kana": re.compile(r"[\u3041-\u30ff]"),
    "hangul": re.compile(r"[\uac00-\ud7a3]"),
    "han": re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]"),
    "cyrillic": re.compile(r"[\u0400-\u04ff]+"),
    "greek": re.compile(r"[\u0370-\u03ff]{2,}"),  # single letters are formulas
    "arabic": re.compile(r"[\u0600-\u06ff]+"),
    "hebrew": re.compile(r"[\u0590-\u05ff]+"),
    "devanagari": re.compile(r"[\u0900-\u097f]+"),
    "thai": re.compile(r"[\u0e00-\u0e7f]+"),
    "latin": re.compile(r"[A-Za-z\u00c0-\u024f]+"),
}
_NOT_LATIN: Final = re.compile(r"[\u0370-\u1fff\u3041-\ufaff]")  # punctuation and symbols lie between
_LANGUAGE_OF_SCRIPT: Final = {
    "kana": "ja",
    "hangul": "ko",
    "han": "zh",
    "cyrillic": "cyrillic",
    "greek": "el",
    "arabic": "arabic",
    "hebrew": "he",
    "devanagari": "devanagari",
    "thai": "th",
}
# Two Han characters make about one word; a kana text mixes with Han and both count for Japanese.
_WORDS_PER_MATCH: Final = {"han": 0.5, "kana": 0.5, "hangul": 0.4, "thai": 1.0}
# Terms of another script are normal in technical text; below this share of words they do not decide.
_DECISIVE_SHARE: Final = 0.3

# Short, frequent words; single letters (initials, list marks) and words that look English ("die", "come") are left
# out.
# A word that is frequent in two of the languages counts for both; the sums decide.
_FUNCTION_WORDS: Final = {
    "en": "the of and to in is that for was with are what how which does did who when where why on by an be this it "
    "from",
    "de": "der das und ist von den dem mit für auf im ein eine einer wie welche welcher wer wann wird zu nicht des "
    "sich wurde sind bei nach",
    "fr": "le la les des et est une un de du en au pour dans que qui quel quelle quels quelles sur par comment quand "
    "où aux avec sont ce cette plus été",
    "es": "el la los las de es una por para que en qué cuál cuáles cómo cuándo dónde con del su al como fue",
    "it": "il lo la gli le di una che quale quali quando dove con del della dei si sono nel nella",
    "pt": "os de uma para que em qual quais como quando onde com da dos das se na são foi",
    "nl": "de het een en van op voor met wat welke hoe wie wanneer waar dat te zijn wordt niet aan",
    "pl": "na jest się nie że jak co który która które kiedy gdzie czy od dla przez są",
    "sv": "och att det som en av ett är för på vad hur vilken vilket när till inte har jag från blev efter även också",
    # What tells the two apart counts three times; they share nearly all else.
    "no": "og at det som en et er for på hvor hvem hvilken når til ikke har jeg fra også eller av av av hva hva hva "
    "ble ble ble etter etter etter seg seg seg mot mot mot nå nå nå noen noen noen blitt blitt blitt",
    "da": "og at det som en et er for på hvor hvem hvilken når til ikke har jeg fra også eller af af af hvad hvad hvad "
    "blev blev blev efter efter efter sig sig sig mod mod mod nu nu nu nogle nogle nogle blevet blevet blevet",
    "fi": "ja on ei se että oli hän ovat mutta kun joka mitä missä milloin kuka myös sekä tai",
    "ro": "și în din cu pe este care nu un pentru ce unde când cine mai sunt",
    "cs": "a je se na v že s do to jako pro by jsou který která co kde kdy kdo",
    "hu": "és az egy hogy nem is volt ez mi ki hol mikor meg van vagy mint",
    "id": "dan yang di dari untuk dengan pada adalah ini itu dalam tidak apa siapa kapan",
    "vi": "và của là có được trong cho không các một những với khi người ở đã",
    "tr": "ve bir bu için ile nedir hangi nasıl kim zaman olarak daha olan mı mi",
}
_LANGUAGES_OF: Final[dict[str, list[str]]] = {}
for _language, _words in _FUNCTION_WORDS.items():
    for _word in _words.split():
        _LANGUAGES_OF.setdefault(_word, []).append(_language)
# In running text every third or fourth word is one of these; a list of names ("de la Cruz") has far fewer.
_RUNNING_TEXT: Final = 30
_SHARE_IN_RUNNING_TEXT: Final = 0.2
_LATIN_WORD: Final = re.compile(r"[a-z\u00df-\u024f]+")

_QUESTION_WORDS: Final = {
    "what": "what", "which": "which", "who": "who", "whom": "who", "whose": "who", "when": "when", "where": "where",
    "why": "why", "how": "how", "is": "yes or no", "are": "yes or no", "was": "yes or no", "were": "yes or no",
    "do": "yes or no", "does": "yes or no", "did": "yes or no", "can": "yes or no", "could": "yes or no",
    "has": "yes or no", "have": "yes or no", "should": "yes or no", "will": "yes or no", "would": "yes or no",
    "may": "yes or no",
}  # fmt: skip
# Where a question word stands anywhere in the sentence, as it does in Chinese and Japanese.
_QUESTION_SIGNS: Final = (
    ("为什么", "why"), ("為什麼", "why"), ("なぜ", "why"), ("怎么", "how"), ("如何", "how"), ("多少", "how"),
    ("谁", "who"), ("誰", "who"), ("哪里", "where"), ("哪", "which"), ("何时", "when"), ("什么", "what"),
    ("什麼", "what"), ("何", "what"), ("吗", "yes or no"),
)  # fmt: skip
# A word, or a character where words are not spaced.
_WORD_OR_CHARACTER: Final = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|\w+")

# A passage is judged by its beginning; 4,000 characters decide as well as a megabyte.
_SAMPLE: Final = 4_000


# Unicode's reordering of accents takes the square of their number; real text has no piece near this long.
_PIECES: Final = re.compile(r"[\s\S]{1,400}(?:\s|\Z)|[\s\S]{1,400}")


def composed(text: str) -> str:
    """A text with compatible characters unified and accents composed (Unicode's NFKC).

    Takes time in proportion to the text, also where it is made of accents alone: a run of more than 400 characters
    without a space is composed piece by piece.
    """
    if text.isascii():
        return text
    return "".join(unicodedata.normalize("NFKC", piece) for piece in _PIECES.findall(text))


def detect_language(text: str) -> str | None:
    """Name the language of a text, or None where the evidence is too thin.

    Returns:
        A code such as ``"en"``, ``"zh"``, ``"ja"``; for scripts that several languages share, the script's name
        (``"cyrillic"``, ``"arabic"``, ``"devanagari"``).
    """
    sample = text[:_SAMPLE]
    if _NOT_LATIN.search(sample) is None:
        return _latin_language(sample)
    words = {
        script: len(pattern.findall(sample)) * _WORDS_PER_MATCH.get(script, 1.0) for script, pattern in _SCRIPTS.items()
    }
    total = sum(words.values())
    if not total:
        return None
    japanese = words["kana"] + words["han"]
    if words["kana"] and japanese >= _DECISIVE_SHARE * total and words["kana"] >= 0.1 * words["han"]:
        return "ja"
    for script, language in _LANGUAGE_OF_SCRIPT.items():
        if script != "kana" and words[script] >= _DECISIVE_SHARE * total:
            return language
    return _latin_language(sample)


def _latin_language(text: str) -> str | None:
    words = _LATIN_WORD.findall(text.lower())
    counts = Counter(language for word in words for language in _LANGUAGES_OF.get(word, ()))
    (name, best), (_, second) = [*counts.most_common(2), ("", 0), ("", 0)][:2]
    if len(words) >= _RUNNING_TEXT and best < _SHARE_IN_RUNNING_TEXT * len(words):
        return None
    # Two words more than the runner-up, or clearly more in a long text: "de la" alone is five languages.
    return name if best >= 2 and best - second >= max(2, 0.1 * best) else None


def is_chinese(text: str) -> bool:
    """Tell whether the Chinese prompts fit a passage; quick for the many that have no Chinese character at all."""
    return _SCRIPTS["han"].search(text, 0, _SAMPLE) is not None and detect_language(text) == "zh"


def kind_of(query: str) -> str:
    """The kind of question: its question word, ``"yes or no"``, ``"keywords"`` or ``"statement"``."""
    words = re.findall(r"\w+", query.lower())
    for word in words[:1]:
        if word in _QUESTION_WORDS:
            return _QUESTION_WORDS[word]
    for sign, kind in _QUESTION_SIGNS:
        if sign in query:
            return kind
    # "In what year …", "Based on the text, how …": the question word comes later.
    if query.rstrip().endswith(("?", "？")):
        return next(
            (_QUESTION_WORDS[word] for word in words if _QUESTION_WORDS.get(word, "yes or no") != "yes or no"),
            "other question",
        )
    return "keywords" if len(words) <= 4 else "statement"


def length_in_words(text: str) -> int:
    """Number of words; where words are not spaced, each character counts."""
    return len(_WORD_OR_CHARACTER.findall(text))
