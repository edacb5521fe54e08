"""Japanese questions: the asked part is replaced where it stands, and the sentence ends in か."""

from __future__ import annotations

import re
from typing import Final

_PLAIN: Final = "[^、。，「」（）はがをにで]"
_TOPIC: Final = re.compile(rf"^(?P<topic>{_PLAIN}{{2,20}}(?:の{_PLAIN}{{1,15}})?)は、?(?P<rest>.+)$")
_WEAK_TOPIC: Final = re.compile(
    r"^(?:これ|それ|あれ|この|その|あの|ここ|そこ|彼|また|しかし|そして|なお|ただし|同|本|当|今|現在|以下|前者|後者|一方|さらに)"
)
_DEFINITION: Final = re.compile(r"(?:の(?:一種|一つ|ひとつ|総称|こと)|である|です|をいう|のことである|を指す)$")
_FIGURE: Final = re.compile(
    r"[\d０-９一二三四五六七八九十百千万]+(?:日|週間|年|か月|時間|分|人|円)[^、]{0,2}(?:である|です)$"
)
_PERSON: Final = re.compile(
    r"(?:選手|監督|俳優|女優|歌手|歌人|詩人|人物|作家|画家|学者|政治家|医師|教授|作曲家|実業家|軍人|武将|研究者|社長|大統領|首相|皇帝|王)"
    r"(?:である|です|だ)?$"
)
_YEAR: Final = r"(?:西暦|紀元前)?[\d０-９]{3,4}年(?:[（(][^）)]*[）)])?(?:[\d０-９]{1,2}月)?(?:[\d０-９]{1,2}日)?"
_NAMED: Final = rf"{_PLAIN}{{2,12}}(?:氏|さん|家|者|王|社|会)"
_COUNTERS: Final = (
    "人|個|本|匹|頭|冊|台|校|社|店|件|回|軒|種|か国|カ国|ヶ国|機|隻|点|円|ドル|メートル|キロ|トン|歳|パーセント|%|％"
)
# Asked part -> question word; the first that is found decides.
_IN_PLACE: Final = (
    (re.compile(rf"{_YEAR}(?P<to>に|から|まで)"), "何年"),
    (re.compile(rf"(?:約|およそ)?[\d０-９,，.．]+(?:万|億|千)*(?P<to>{_COUNTERS})"), "何"),
    # By a person, where the name is foreign or has a title; floods and fires do things too.
    (re.compile(rf"(?<=[は、にで])(?:[ァ-ヴー・]{{2,20}}|{_NAMED})(?P<to>によって)"), "誰"),
    (re.compile(rf"(?<=は){_PLAIN}{{2,15}}(?P<to>によって)"), "何"),
    (re.compile(rf"(?<=[は、]){_PLAIN}{{2,20}}(?P<to>に(?:位置|所在|本社|本部|拠点))"), "どこ"),
    (re.compile(rf"(?<=[は、]){_PLAIN}{{2,15}}(?P<to>で(?:生まれ|開催|行われ|行なわれ|製造|生産))"), "どこ"),
)  # fmt: skip
_VERB_END: Final = re.compile(r"(?:た|る|く|ぐ|す|つ|ぬ|ぶ|む|う|ない|である|です)$")
_LONGEST: Final = 50  # characters


def sentence_questions(sentence: str) -> list[str]:
    """Make every question that the form of the sentence allows; sentences without a topic of their own give none."""
    text = re.sub(r"（[^（）]*）|\([^()]*\)", "", sentence).rstrip("。．. ")
    match = _TOPIC.match(text)
    if match is None or _WEAK_TOPIC.match(match["topic"]):
        return []
    topic, rest = match["topic"], match["rest"]
    made = []
    if _DEFINITION.search(rest) and "、" not in rest[-6:] and not _FIGURE.search(rest):
        made.append(f"{topic}とは誰ですか？" if _PERSON.search(rest) else f"{topic}とは何ですか？")
    for form, word in _IN_PLACE if len(text) <= _LONGEST else ():
        found = form.search(text)
        if found and found.start() >= len(topic):
            statement = text[: found.start()] + word + text[found.start("to") :]
            made += [f"{statement.removesuffix('だ')}か？"] if _VERB_END.search(statement.removesuffix("だ")) else []
            break
    return made
