"""Chinese question templates. Chinese asks in place: the asked part of a statement is replaced where it stands."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from llama_index_embft.generation.extractive.chunk import Chunk

QUESTION_ENDS: Final = ("是什么？", "吗？", "有什么？", "怎么样？", "是谁？")

_PAIR_TEMPLATES: Final = ("{a}和{b}有什么关系？", "{a}的{b}是什么？")
_SINGLE_TEMPLATES: Final = ("{a}是什么？", "什么是{a}？", "关于{a}有哪些说明？")

_TOPIC: Final = re.compile(
    r"^[“《「]?([^，。（(“”《》「」；：、\s][^，。（(“”《》「」；：、]{1,18}?)[”》」]?(?:（|\(|，|,|是|为|為|位于|位於|乃|指)"
)
_WEAK_TOPIC: Final = re.compile(
    r"^(?:这|该|此|其|他|她|它|以及|在|于|从|由|但|而|并|因|如|当|根据|目前|后来|同年|随后|之后|或者|\d)"
)
_LEAD: Final = re.compile(r"^(?:但是?|而且?|并且?|且|因此|所以|其中|另外|此外|同时|后来|随后|之后|此后|然而|不过)")
# A clause that begins so lacks its subject, which is the chunk's topic. A single character is a predicate only where it
# does not begin a noun ("总部", "会议", "可乐"), which would be a subject of its own.
_PREDICATE_START: Final = re.compile(
    r"^(?:于(?!是)|在(?![线野])|由(?!于)|以(?![色下及前后太内外上])|是(?!否)|为(?!了)|有(?![机限人些关轨线色毒理])|共(?![产和青军享振])|被(?![告害子动保])"
    r"|从(?!业)|自(?![行然由治动我身己卫来信费贡媒])|曾(?![国祖孙巩子])|又|也(?!门)|亦|总(?![部统理裁局署经督监书会体量数额结公编站店厂院司教医]|工[程会])"
    r"|位(?![置移数])|分布(?!式)|生活(?![水方质费])|栖息(?!地)|生于|出生(?![率地])|毕业(?![生典证])|就读|担任|出任|获(?!奖[者作])|加入|成立|创办(?!人)"
    r"|创立(?![者人])|建于|始建|建成|坐落|属(?![性地])|用于|主要|通常|首次|开始|正式|成为|参加(?!者)|参与(?!者)|主演|出演|执导|发行(?![人商量方])|发表"
    r"|出版(?![社物商业])|签约|效力|转会|退役(?!军)|去世|逝世|死于|病逝|当选(?!人)|就任|升任|改名|更名|不(?![丹锈动等明])|很|更|会(?![议员计谈场长馆见社徽费战客])"
    r"|仍|还|就(?![业])|才(?![能华女])|都(?![市柏江城督])|可(?![乐口可靠])|能(?![源力量级])|要(?![求素塞点])|需(?!求)|必(?!要)|因(?![素子果特])"
    r"|当(?![地局事时年代今前天])|多数|面积|人口|体长|全长|身长|身高|体重|海拔|长约|高约|宽约|现(?![代象场金存实状货])|原(?![子因告著油料理则住民始型文野木])|拥有|设有"
    r"|再(?!生)|最终|最后|最初|最早|先后|一度|后(?=[于在被又改更])|将(?![军领])|已|仅|全(?![国部省体市球县世人家区民新])|每(?![个位名人种])|年(?![轻龄度代级少薪报会画老糕]))"
)
_PRONOUN: Final = re.compile(
    r"^(?:[他她它](?!们)|其(?![中他余实次间后])|本(?:鱼|站|线|种|书|校|剧|片|漫画|作品)(?!的))"
)
# What stands before a verb or preposition is a subject; a clause without one is taken for a predicate.
_SUBJECT: Final = re.compile(r"^(?:[该此这其]|[^于在由是为有被曾已]{2,12}(?:于|在|由|是|为|有|被|曾|已))")
_ROLE: Final = re.compile(
    r"(?:演员|歌手|作家|画家|诗人|政治家|导演|运动员|球员|教练|学者|教授|将领|皇帝|国王|军人|企业家|科学家|物理学家|化学家|数学家|作曲家|记者|医生|律师"
    r"|音乐家|主持人|艺人|官员|议员|外交官|牧师|僧人|建筑师|商人|选手|人)$"
)
_YEAR: Final = re.compile(
    r"(?<![\d\-－—–~至到、/.,第第])(?P<before>[于在]?)(?:公元前?)?\d{3,4}年(?:\d{1,2}月)?(?:\d{1,2}[日号])?(?![\d\-－—–~至到间的代初末底中前后起以度、月春夏秋冬])"
)
_MEASURES: Final = (
    "公里|千米|平方公里|平方千米|平方米|公顷|厘米|公分|毫米|米|公斤|千克|克|吨|岁|美元|英镑|港元|日元|欧元|元|英尺|英里|分钟|小时|秒|天|倍"
    "|个(?!月)|人|名|位|集|部|所|家|座|条|种|场|次|只|艘|架|辆|首|张|本|间|层|户|票|节|度"
)
_COUNT: Final = re.compile(
    r"(?P<verb>有|为|是|达|长|高|宽|重|共|占|超过|了|设|收录|容纳|包括|约|达到|拥有|获得|打进|售出|生产|增至|减至|增长|下降)(?:大约|约|近|超过)?"
    rf"(?P<number>\d[\d,.]*(?:多|余)?[百千万亿]*)(?P<unit>[%％]|(?:{_MEASURES}))(?![\-－—–~至到、\d])"
)
_PLACE: Final = re.compile(
    r"(?:(?<=位于)|(?<=坐落于)|(?<=坐落在)|(?<=分布于)|(?<=分布在)|(?<=栖息在)|(?<=栖息于)|(?<=生活在)|(?<=毕业于)|(?<=出生于)|(?<=就读于))[^，。；\d]{2,}$"
)
_MAKER: Final = re.compile(
    r"(?<=由)[^由，。；]{2,12}?(?=创作|执导|主演|设计|建造|发行|制作|编写|开发|主持|演唱|主办|创办|创立|提出|发明|导演|负责|制定|规定|批准|管辖|决定|任命|签发|审批)"
)
_FOOD: Final = re.compile(r"(?<=以)[^以，。；]{1,15}?(?=为食|闻名|著称)")
_OFFICE: Final = re.compile(r"(?<=担任|出任)[^，。；]{2,}$")
_KIND: Final = re.compile(r"(?<=属于|用于|用来)[^，。；]{2,}$")
_LONGEST_OWNER: Final = 10  # characters of what belongs or serves
_WORK: Final = re.compile(r"(?<=出演|主演|执导|创作|发表|出版|发行|编写|撰写|翻译|推出)(?:了|过)?《[^》]{1,20}》$")
_ALIAS: Final = re.compile(
    r"(?:又称为?|又名|又叫|也称为?|也叫|别名|别称|俗称|简称|全称|原名|本名|被称为|被称作)(?=[^，。；]{2,})"
)
_CAUSE: Final = re.compile(r"^(?:因为|由于|因)([^，]{2,40})，([^，。；]{4,30})")
_DEFINITION: Final = re.compile(
    r"^[^，。；]{2,40}(?:是|为|為)(?P<what>[^，。；]{0,30}(?:一种|一個|一个|一位|一座|一部|一款|一名|之一)[^，。；]{0,20})"
)
# What may follow "in which year": a verb, or what leads to one.
_VERB_START: Final = re.compile(
    r"^(?:在|于|由|被|与|和|以|从|向|将|对|又|再|首次|正式|开始|开|获|荣获|毕业|加入|成立|创|建|出版|出演|出任|出生|改|更名|迁|参加|参与|参选|主演|执导|发行|发表|签"
    r"|转|退|去世|逝世|病逝|当选|就任|升|担任|推出|宣布|公布|颁布|通过|设立|举行|举办|赢得|夺|击败|完成|完工|竣工|启用|通车|停|关闭|合并|收购|结婚|入|进入|离|返|回|前往"
    r"|移居|定居|任|晋|为[^了]|成为|提出|提前|发现|发明|首|制作|拍摄|上映|播|推|引进|投入|取得|受|赴|迎|连任|代表)"
)
_BODY: Final = re.compile(r"(?:机关|部门|法院|检察院|机构|局|委员会|政府|医院|学校|公司|企业|银行|协会|中心)$")
_PERSON: Final = re.compile(r"(?:人|者|员|单位|组织|当事人|律师|法官|医师|教师|学生|公民|父母|子女)$")
_END_OF_NOTHING: Final = re.compile(r"(?:时|中|后|前|期间|以来|之间|的|起|日|内|外|下)$")

# Statutes and rules: who must, may and must not do what, and what follows if.
_ARTICLE: Final = re.compile(r"^第[一二三四五六七八九十百千零〇\d]+条(?:之[一二三四五六七八九十])?[\s　]*")
_MEANS: Final = re.compile(r"^(?:本\w{1,4}所称(?:的)?)?(?P<name>[^，。；、的所]{2,16})，?是指")
_CONSEQUENCE: Final = re.compile(
    r"^(?P<if>[^。；：]{8,44}?)的，(?P<then>由|处|应当|依法|可以|责令|给予|没收|吊销|追究|从重|按照|依照|不得|应|必须|视为|无效|不予)"
)
_WHAT_FOLLOWS: Final = {
    "处": "如何处罚", "没收": "如何处罚", "吊销": "如何处罚", "由": "由谁处理", "不得": "有什么限制",
    "应当": "应当怎么办", "应": "应当怎么办", "必须": "应当怎么办", "可以": "可以怎么办",
}  # fmt: skip
_DUTY: Final = re.compile(
    r"^(?P<who>[^，。；：]{2,22}?)(?P<must>应当|有权|不得|可以|必须|负责)(?P<what>[^。；：]{3,60})"
)
_WITHIN: Final = re.compile(
    r"(?<=[^第])(?P<n>[一二三四五六七八九十百两]+|\d+)(?P<unit>个?工作日|日|天|个月|年|小时)(?=(?:以)?内)"
)
_LISTED: Final = re.compile(
    r"(?P<head>具备|符合|提交|载明|包括|履行|遵守|有|具有|提供|享有)(?:的|以)?下列(?P<noun>[^，。；：]{2,8}?)(?:之一)?(?:的)?[:：]?$"
)
_CASES: Final = re.compile(r"^有下列(?:情形|情况|行为|事由)之一的?，(?P<then>[^：。；]{5,40})[:：]?")
_NO_LEGAL_SUBJECT: Final = re.compile(
    r"^(?:对|在|从|经|依|按|根据|因|为|以|由|自|凡|将|但|并|也|如|当|该|其|此|本|前|上述|未|不|有关|情节|违反|造成)|本法|本条|前款|该|其|下列"
)


def topic_of(chunk: Chunk) -> str:
    """What the chunk is about: its heading, or the subject its first sentence opens with; empty where unclear."""
    if chunk.headings:
        return chunk.headings[0]
    match = _TOPIC.match(chunk.text.strip())
    if not match or _WEAK_TOPIC.match(match[1]) or match[1][-1] in "认视作成称行因以分":
        return ""  # "认为" and "行为" hold no "为" that means "is"
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
    sentence = re.sub(r"（[^（）]*）|\([^()]*\)|“”|「」|\s+", "", _ARTICLE.sub("", sentence.strip()))
    made = [*_of_rules(sentence), *_definition(topic, sentence)]
    if match := _CAUSE.match(sentence):
        result = _with_subject(topic, _LEAD.sub("", match[2]))
        made += [f"为什么{result}？"] if result and not _END_OF_NOTHING.search(result) else []
    for clause in re.split(r"[，；。！？：]", sentence):
        clause = _LEAD.sub("", clause)
        if topic and (alias := _ALIAS.match(clause)):
            name = alias.group()
            made.append(
                f"{topic}的{name}是什么？" if name[-1] in "名称" and name[0] not in "又也被" else f"{topic}{name}什么？"
            )
        question = _in_place(clause)
        subject = _with_subject(topic, question) if question else ""
        if subject:
            made.append(f"{subject}？")
        if _has_subject_of_its_own(topic, clause):
            topic = ""  # what follows without a subject goes on about this one
    return [question for question in made if 6 <= len(question) <= 50]


def _in_place(clause: str) -> str:
    """The clause with its asked part replaced; empty where nothing can be asked."""
    if (
        not 6 <= len(clause) <= 36
        or re.search(r"分别|[则却牠]|^待", clause)
        or len(re.findall(r"\d+(?:[.,]\d+)*", clause)) > 3
    ):
        return ""
    year = _YEAR.search(clause)
    rest = clause[year.end() :] if year else ""
    placed = year is not None and (year["before"] or _VERB_START.match(rest)) and not rest.startswith("的")
    if year and placed and len(rest) >= 4 and not _END_OF_NOTHING.search(rest) and not re.search(r"\d{3,4}年", rest):
        return f"{clause[: year.start()]}{year['before'] or '在'}哪一年{rest}"
    if year:
        return ""
    count = _COUNT.search(clause)
    if count and not re.search(r"\d", clause[: count.start()] + clause[count.end() :]):
        before, after = clause[: count.start("number")], clause[count.end("unit") :]
        asked = "百分之多少" if count["unit"] in "%％" else f"多少{count['unit']}"
        return "" if _END_OF_NOTHING.search(clause) or (not before.strip()) else before + asked + after
    if re.search(r"\d", clause):
        return ""
    for form, asked in (
        (_PLACE, "哪里"), (_MAKER, "谁"), (_FOOD, "什么"), (_OFFICE, "什么职务"), (_KIND, "什么"), (_WORK, "什么作品"),
    ):  # fmt: skip
        match = form.search(clause)
        if form is _KIND and match and match.start() > _LONGEST_OWNER:
            continue
        if match and match.start() >= 1 and not re.search(r"是一|就读|毕业.*位|来源", clause[: match.start()]):
            asked = "做什么" if clause[: match.start()].endswith("用来") else asked
            return clause[: match.start()] + asked + clause[match.end() :]
    return ""


def _definition(topic: str, sentence: str) -> list[str]:
    match = _DEFINITION.match(sentence) if topic and topic in sentence[:20] else None
    if not match:
        return []
    return [f"{topic}是谁？" if _ROLE.search(match["what"]) else f"{topic}是什么？"]


def _of_rules(sentence: str) -> list[str]:
    """Questions that statutes, terms and manuals answer: what follows if, who must do what, within what time."""
    made = []
    if match := _MEANS.match(sentence):
        made.append(f"什么是{match['name']}？")
    if (match := _CASES.match(sentence)) and not _NO_LEGAL_SUBJECT.search(match["then"]):
        made.append(f"在哪些情形下，{match['then']}？")
    match = _CONSEQUENCE.match(sentence)
    if (
        match
        and not re.search(
            r"前.?款|本条|该|其|上述|下列|情节|[她它]|他(?!人)|是[^，]*$|^(?:有|但|并|无论)|[“”]", match["if"]
        )
        and "的，" not in match["if"]
    ):
        made.append(f"{match['if']}的，{_WHAT_FOLLOWS.get(match['then'], '如何处理')}？")
    match = _DUTY.match(sentence)
    if (
        match
        and not _NO_LEGAL_SUBJECT.search(match["who"])
        and not match["who"].endswith(("的", "时", "后", "也", "都", "均"))
    ):
        made += _duty(match["who"], match["must"], match["what"])
    return made


def _duty(who: str, must: str, what: str) -> list[str]:
    if listed := _LISTED.search(what):
        return [f"{who}{must}{what[: listed.start()]}{listed['head']}哪些{listed['noun']}？"]
    if within := _WITHIN.search(what):
        unit = within["unit"]
        return [f"{who}{must}{what[: within.start()]}多少{unit}{what[within.end() :]}？"] if len(what) <= 40 else []
    if re.search(r"下列|如下|前款|本条", what):
        return []
    done = re.split(r"[，；]", what)[0]
    if not 4 <= len(done) <= 28 or _END_OF_NOTHING.search(done) or done.startswith("由"):
        return []
    if done != what and re.match(r"(?:按照|依据|根据|依照|将|对|在|向|与|以)", done):
        return []  # the verb stands behind the comma
    if _BODY.search(who):
        return [f"哪个机构{must}{done}？", f"{who}是否{must}{done}？"] if must != "不得" else [f"{who}可以{done}吗？"]
    if _PERSON.search(who):
        return [f"{who}可以{done}吗？"] if must in ("不得", "可以") else [f"谁{must}{done}？"]
    return []


def _has_subject_of_its_own(topic: str, clause: str) -> bool:
    """Whether a clause speaks of something else than the topic: "其总部", "该公司", "会议"."""
    if not topic or _names_topic(topic, clause) or _PREDICATE_START.match(clause) or clause[:1].isdigit():
        return False  # a date says nothing of who
    pronoun = _PRONOUN.match(clause)
    if pronoun and pronoun[0] != "其":
        return False
    return _SUBJECT.match(clause) is not None


def _names_topic(topic: str, clause: str) -> bool:
    """Whether a clause names the topic, in short ("约翰·达利": "达利"), or as "该站" where the topic is a "站"."""
    if topic in clause or topic[:2] in clause[:6] or any(part in clause for part in topic.split("·") if len(part) > 1):
        return True
    return clause[:1] in ("该", "此", "这", "本") and any(topic.endswith(clause[1:end]) for end in (2, 3, 4))


def _with_subject(topic: str, clause: str) -> str:
    """The clause with the topic where its subject is missing; empty where there is no topic to put in."""
    if topic and (topic in clause or topic[:2] in clause[:6]):
        return clause
    stripped = _PRONOUN.sub("", clause)
    if stripped != clause or _PREDICATE_START.match(clause) or re.match(r"^(?:什么|哪|多少|谁|在哪)", clause):
        return topic + stripped if topic else ""
    return clause if len(clause) >= 10 and not _WEAK_TOPIC.match(clause) else ""
