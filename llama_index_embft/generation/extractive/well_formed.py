"""Rules of shape that tell a well-formed question from a bad one: no model, so they see form and not sense."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Final

from llama_index_embft.generation.extractive.english_words import LINKS, POINTERS, PREPOSITIONS
from llama_index_embft.generation.extractive.text import LONGEST_SENTENCE, is_unspaced, word_set, words

_MARKS: Final = (("(", ")"), ("[", "]"), ("“", "”"), ("《", "》"), ("「", "」"), ("（", "）"), ("『", "』"), ("«", "»"))
_ENGLISH_STARTS: Final = word_set(
    """
    what which who whom whose when where why how is are was were do does did can could may might must will would
    should has have had by to in for on from
    """
)
_WANTS_MORE: Final = word_set(
    """
    equal according depending resulting leaving carried subject allowing range such net driven following relating
    related ranging consisting including believes cease
    """
)
_SHORTEST, _LONGEST = 4, 24  # words
_SHORTEST_UNSPACED, _LONGEST_UNSPACED = 6, 50  # characters
# Chinese: what points to text that is not there, and pieces that begin or end in the middle.
_CHINESE_POINTERS: Final = re.compile(
    r"前.?款|前条|本条|上述|下列|(?<!应)该(?!如何|怎)|这[个些种]|本[作片书剧]|此[河地种类次时]|以上|以下|如下|本文|此外|其中|前者|后者"
)
_CHINESE_BAD_START: Final = re.compile(
    r"^(?:的|了|和|与|及|或|也|都|就|而|并|但|且|则|往往|改制|譬如|例如|下设|设有|约有|录制|专项|离|把|为(?!什么)[^，]*？|但是|因此|所以|不得|应当|可以|以及|对|将|由于|被(?!告|许可|请求|害|上诉|申请|执行|继承|监护|保险|代理|选举|侵权|征))"
)
# What is asked about is the subject or a verb's time; here it stands in a phrase, beside a second verb, or in a list.
_CHINESE_NO_SENTENCE: Final = re.compile(
    r"^[^是]*(?:由谁|哪一年)[\u4e00-\u9fff]{2,4}的[\u4e00-\u9fff]{2,12}？"  # 由谁主办的比赛？
    r"|^在哪一年[^，]*的[\u4e00-\u9fff]{2,12}？"
    r"|^为什么(?:故此|因此|进行|更|具有|有|是|包括)|因位于|并不主要|哪一年[^，]{0,8}(?:前夕|选举)|，处[一二三五十]+？|(?:认定|不)属于什么|哪一年在[^，]*[上中里内时后前]？|的在哪一年|是[^，]*位于哪里|则是|是约|(?:主要|[著着])？"
    r"|什么[^？]{0,4}、|多少[个种][^？]*[及和、](?:十|数|几|多)"
)
_JAPANESE_POINTERS: Final = re.compile(r"^(?:また|しかし|そして|なお|その|この|これ|それ|ただし|同)")
_POINTERS: Final = {
    "de": "dies dieser diese dieses diesem diesen er sie es sein ihre ihr seine dort hier dabei davon dazu solche",
    "fr": "ce cet cette ces il elle ils elles celui celle ceux cela ici son sa ses leur leurs y",
    "es": "este esta estos estas ese esa esos esas él ella ellos ellas esto eso aquí su sus",
    "pt": "este esta estes estas esse essa esses essas ele ela eles elas isto isso aqui seu sua seus suas",
    "no": "dette denne disse han hun de den det sin sitt sine hans hennes deres her der slik slike vi jeg",
}


def broken_rules(question: str, language: str) -> list[str]:
    """The rules of shape that a question breaks; none for a well-formed one.

    Args:
        question: The question.
        language: Code of its language; languages without rules of their own are held to the general ones.

    Returns:
        Names of rules, such as ``"points outside"`` or ``"ends in the middle"``.
    """
    if len(question) > LONGEST_SENTENCE:
        return ["too long"]
    found = _general(question)
    if language == "en":
        found += _english(question)
    elif language == "zh":
        found += _chinese(question)
    elif language == "ja":
        found += ["points outside"] if _JAPANESE_POINTERS.match(question) else []
    elif language in _POINTERS:
        begin = {word.lower() for word in question.split()[1:4]}
        found += ["points outside"] if begin & set(_POINTERS[language].split()) else []
    return found


def _general(question: str) -> list[str]:
    tokens = words(question)
    found = []
    unspaced = is_unspaced(question)
    shortest, longest = (_SHORTEST_UNSPACED, _LONGEST_UNSPACED) if unspaced else (_SHORTEST, _LONGEST)
    if not shortest <= len(tokens) <= longest:
        found.append("too short" if len(tokens) < shortest else "too long")
    if not question.endswith(("?", "？", "؟")):
        found.append("no question mark")
    if any(question.count(left) != question.count(right) for left, right in _MARKS) or question.count('"') % 2:
        found.append("a bracket or quotation mark alone")
    if not unspaced and any(a.lower() == b.lower() for a, b in pairwise(tokens)):
        found.append("a word twice")
    if re.search(r"\.\.|…|•|[|=<>{}\\~^]|\s/|/\s|[,;:] ?[,;:?]|[-–] ?[?]|https?:|www\.|\w@\w", question):
        found.append("signs of tables, links or lists")
    digits = sum(1 for token in tokens if token[0].isdigit())
    if digits > max(2, 0.3 * len(tokens)) and not unspaced:
        found.append("figures")
    return found


def _english(question: str) -> list[str]:
    tokens = question.rstrip("?").split()
    lowered = [token.strip("“”\"'’,.").lower() for token in tokens]
    found = []
    if lowered[0] not in _ENGLISH_STARTS:
        found.append("no question word")
    if set(lowered[1:]) & (
        POINTERS - {"it", "its", "their", "them", "they", "here", "such", "theirs", "below", "above"}
    ):
        found.append("points outside")
    if set(lowered[1:4]) & {"it", "its", "their", "they", "them", "such"}:
        found.append("points outside")
    # "at a price equal?", "to attract, hire?": what was to follow was cut off.
    if lowered[-1] in _WANTS_MORE or re.search(r", \w+[?]$", question):
        found.append("ends in the middle")
    if lowered[-1] in LINKS | {"the", "a", "an", "and", "or", "but", "not"}:
        found.append("ends in the middle")
    if any(
        word.lower() in PREPOSITIONS - {"in", "on", "to", "for", "by", "of", "with"} and after[:1] == ","
        for word, after in pairwise(tokens)
    ) or any(token.lower().rstrip(",") in PREPOSITIONS and token.endswith(",") for token in tokens):
        found.append("a preposition without its noun")
    # "YouTube" pays for "RevenueThe"; "iPhone" and "McDonald" do not.
    if (
        re.search(r"[a-z][.;:] ?[A-Z]|[a-z]{2}[A-Z][a-z]{2}|[a-z]{2}\d+\b|[a-z],[a-z]|\.\d+[?]", question)
        and "Mac" not in question
    ):
        found.append("two words or sentences run together")
    return found


def _chinese(question: str) -> list[str]:
    found = []
    if _CHINESE_POINTERS.search(question):
        found.append("points outside")
    if _CHINESE_BAD_START.match(question):
        found.append("begins in the middle")
    if re.search(
        r"《》|“”|百分之多少[%％]|多少[%％]|第多少|[，、；：] ?？|(?:的|和|与|及|或|在|由|对|把)？$", question
    ):
        found.append("ends in the middle")
    if _CHINESE_NO_SENTENCE.search(question):
        found.append("no sentence")
    if re.search(r"(?P<run>[\u4e00-\u9fff]{2,})(?P=run)", question):
        found.append("a word twice")
    if re.search(r"第[一二三四五六七八九十百零]+[条款项章节]", question):
        found.append("points outside")
    return found
