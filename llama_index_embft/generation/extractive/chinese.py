"""Chinese question templates. Chinese asks in place: the asked part of a statement is replaced where it stands."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from llama_index_embft.generation.extractive.text import Chunk

QUESTION_ENDS: Final = ("是什么？", "吗？", "有什么？", "怎么样？", "是谁？")

_PAIR_TEMPLATES: Final = ("{a}和{b}有什么关系？", "{a}的{b}是什么？")
_SINGLE_TEMPLATES: Final = ("{a}是什么？", "什么是{a}？", "关于{a}有哪些说明？")

_TOPIC: Final = re.compile(
    r"^[“《「]?([^，。（(“”《》「」；：、\s][^，。（(“”《》「」；：、]{1,18}?)[”》」]?(?:（|\(|，|,|是|为|為|位于|位於|乃|指)"
)
_WEAK_TOPIC: Final = re.compile(
    r"^(?:这|该|此|其|他|她|它|在|于|从|由|但|而|并|因|如|当|根据|目前|后来|同年|随后|之后|\d)"
)
_LEAD: Final = re.compile(r"^(?:但是?|而且?|并且?|且|因此|所以|其中|另外|此外|同时|后来|随后|之后|然而|不过)")
# Asked part -> question words; the first pattern that is found decides.
_IN_PLACE: Final = (
    (re.compile(r"(?:公元前?)?\d{3,4}年(?:\d{1,2}月)?(?:\d{1,2}[日号])?"), ("什么时候", "哪一年", "何时")),
    (re.compile(r"(?<![\d.])\d[\d,.，]*(?:多|余)?[百千万亿]*[%％]"), ("百分之多少",)),
    (re.compile(r"(?<![\d.])\d[\d,.]*(?:多|余)?[百千万亿]*(?=[^\d年月日号第.％%,，。；、）)]) ?"), ("多少",)),
    (re.compile(r"(?<=位于|位於|坐落)于?[^，。；]{2,}$"), ("哪里", "什么地方")),
    (
        re.compile(
            r"(?<=由)[^由，。；]{2,10}?(?=创作|执导|主演|设计|建造|发行|制作|编写|开发|主持|负责|演唱|主办|创办|创立|提出|发明|导演)"
        ),
        ("谁", "哪个机构"),
    ),
    (re.compile(r"(?<=分布|生活|栖息|出没|居住)[在于於][^，。；]{2,}$"), ("在哪里", "于什么地方")),
    (re.compile(r"(?<=毕业于|出生于|就读于|任职于|效力于)[^，。；]{2,}$"), ("哪里",)),
    (re.compile(r"(?<=以)[^以，。；]{1,15}?(?=为食|闻名|著称|为主)"), ("什么",)),
    (re.compile(r"(?<=担任|出任)[^，。；]{2,}$"), ("什么职务",)),
    (re.compile(r"(?<=包括|包含|属于|获得|拥有|导致|用于|用来|称为)[^，。；]{2,}$"), ("什么", "哪些")),
    (re.compile(r"《[^》]{1,20}》"), ("哪部作品", "什么")),
)
_ALIAS: Final = re.compile(r"(?:又称为?|又名|又叫|也称为?|也叫|别名|别称|俗称|简称|全称|原名|本名|被称为|被称作)")
_CAUSE: Final = re.compile(r"^(?:因为|由于|因)([^，]{2,40})，([^，。；]{4,30})")
_DEFINITION: Final = re.compile(
    r"^[^，。；]{2,40}(?:是|为|為)[^，。；]{0,30}(?:一种|一個|一个|一位|一座|一部|一款|一名|之一)"
)


def topic_of(chunk: Chunk) -> str:
    """What the chunk is about: its heading, or the subject its first sentence opens with; empty where unclear."""
    if chunk.headings:
        return chunk.headings[0]
    match = _TOPIC.match(chunk.text.strip())
    if not match or _WEAK_TOPIC.match(match[1]):
        return ""
    return match[1].strip()


def phrase_questions(chunk: Chunk, phrases: Sequence[str], rng: random.Random, limit: int) -> list[str]:
    """Fill templates with the topic and a key phrase, or with one key phrase."""
    topic = topic_of(chunk)
    made = []
    for i, phrase in enumerate(phrases[:limit]):
        if topic and topic not in phrase and phrase not in topic and i % 2 == 0:
            made.append(rng.choice(_PAIR_TEMPLATES).format(a=topic, b=phrase))
        else:
            made.append(rng.choice(_SINGLE_TEMPLATES).format(a=phrase))
    return made


def sentence_questions(chunk: Chunk, sentence: str) -> list[str]:
    """Make every question that the form of the sentence allows, with the chunk's topic where it lacks a subject."""
    topic = topic_of(chunk)
    sentence = re.sub(r"（[^）]*）|\([^)]*\)|“”|「」", "", sentence)
    made = []
    if topic and _DEFINITION.match(sentence) and topic in sentence[:20]:
        made.append(f"{topic}是什么？")
    if match := _CAUSE.match(sentence):
        made.append(f"为什么{_with_topic(topic, match[2])}？")
    for clause in re.split(r"[，；。！？：]", sentence):
        clause = _LEAD.sub("", clause.strip())
        if topic and (alias := _ALIAS.search(clause)):
            made.append(f"{topic}{alias.group()}什么？")
        if not 5 <= len(clause) <= 36:
            continue
        for form, asked in _IN_PLACE:
            match = form.search(clause)
            # A bare figure ("2009年底，") leaves nothing to ask about.
            if match and len(clause) - len(match.group()) >= (3 if match.group()[0].isdigit() else 2):
                rest = clause[: match.start()] + asked[len(clause) % len(asked)] + clause[match.end() :]
                made.append(f"{_with_topic(topic, rest)}？")
                break
    return [q for q in made if 6 <= len(q) <= 50]


def _with_topic(topic: str, clause: str) -> str:
    return (
        clause
        if not topic or topic in clause or topic[:2] in clause[:6]
        else topic + re.sub(r"^[他她它其该此这]", "", clause)
    )
