"""Regular expressions that tell the parts of an LLM's answer apart, English and Chinese; two steps of reading one."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# <think> of the R1 family, [THINK] of Mistral's, ◁think▷ of Kimi's.
REASONING_TAG: Final = re.compile(
    r"[<\[◁](?P<end>/?)(?:think|thinking|thoughts?|reasoning|reflection|analysis|scratchpad)[>\]▷]", re.IGNORECASE
)
# Of gpt-oss: everything before the last channel is reasoning.
FINAL_CHANNEL: Final = "<|channel|>final<|message|>"
ANSWER_TAG: Final = re.compile(r"</?(?:answer|output|final|response)>", re.IGNORECASE)
# A server with the wrong template writes them out, and what the model made up as the next turn behind them.
END_TOKEN: Final = re.compile(
    r"<\|(?:im_end|end|eot_id|eom_id|end_of_text|endoftext|return|end_of_turn|eos)\|>|<end_of_turn>|<eos>|</s>\s{0,20}\Z",
    re.IGNORECASE,
)
FINAL_HEADING: Final = re.compile(
    r"^[#*_ ]{0,9}final (?:answers?|output|questions?|quer(?:y|ies)|list)[:*_ ]{0,9}$", re.IGNORECASE | re.MULTILINE
)
# Tags around a query: "<li>What ...?</li>", '<question id="1">'. Within a line they belong to it.
_TAG: Final = r"</?(?:questions?|query|queries|q|li|ol|ul|item|p)(?:[ _]?\d{1,3}|\s[^<>\n]{1,80})?>"
LINE_TAG: Final = re.compile(
    rf"^[ \t]{{0,9}}(?:{_TAG}[ \t]{{0,9}}){{1,8}}|(?:{_TAG}[ \t]{{0,9}}){{1,8}}$", re.IGNORECASE | re.MULTILINE
)
BETWEEN_TAGS: Final = re.compile(rf"({_TAG})[ \t]{{0,9}}(?=<\w)", re.IGNORECASE)
INVISIBLE: Final = "\ufeff\u200b\u200e\u200f\u2060 "
FENCE: Final = re.compile(r"^\s*(```|~~~)[\w+-]*\s*$", re.MULTILINE)
_HAN_NUMBER: Final = "[一二三四五六七八九十百]{1,4}"
_NUMBER: Final = rf"(?:\d{{1,3}}|[０-９]{{1,3}}|{_HAN_NUMBER})"

# "1." "1)" "(1)" "1、" "１．" "一、" "（一）" "第一题：" "①" "Q1:" "[1]" "1:" - a year such as "2021 revenue" is none.
NUMBERED: Final = re.compile(
    rf"""^(?:
        [(（\[【]\s*(?:[Qq]\s*)?{_NUMBER}\s*[)）\]】]\s*[.、．：:]?
      | \d{{1,3}}\s*[.)](?!\d)
      | \d{{1,3}}\s*:(?=\s)
      | [０-９\d]{{1,3}}\s*[、．）：]
      | {_HAN_NUMBER}\s*[、．.）：]
      | 第\s*{_NUMBER}\s*(?:个问题|个|题|问|条)?\s*[：:、.．,，]
      | [\u2460-\u2473\u2776-\u277f]
      | \#\s*\d{{1,3}}\s*[.:)](?=\s)
      | \d{{1,2}}\ufe0f?\u20e3
    )\s*""",
    re.VERBOSE,
)
# "1 - What", "a) What", "ii. What", "#1 What": one that two lines have, and count up with.
_COUNTED: Final = re.compile(
    r"^(?:(?:q\. ?|# ?)(\d{1,3})[.:)]? |[(（\[]?(?:(\d{1,3})(?:(?: ?[-–/|]|[\])]) |, ?)"
    r"|([a-h]|[ivx]{1,5})[)）.\]:] ?))(?=\S)",
    re.IGNORECASE,
)
_COUNTS: Final = (["1", "2"], ["a", "b"], ["i", "ii"])
BULLET: Final = re.compile(r"^(?:(?:[-*+•·●○▪■◦‣–—>]+\s+(?:\[[ xX]?\]\s+)?)|(?:[•·●○▪■◦‣🔹🔸👉❓✅➤➡▶☐]\ufe0f?))")
HEADING: Final = re.compile(r"^#{1,6}\s+")
_LABELS: Final = (
    r"questions?|quer(?:y|ies)|q|preguntas?|frage|domanda|pergunta|vraag|pytanie|ot[aá]zka|fr[aå]ga|sp(?:ø|ö)rsm[aå]l|"
    r"user|kysymys|soru|variation|variant|paraphrase|câu hỏi|вопрос|питання|سؤال|السؤال|प्रश्न|คำถาม|質問|問|질문|문제"
)
_KINDS: Final = (
    r"(?:(?:alternative|alternate|follow-?up|bonus|additional|extra|sample|example|search|keyword|title|natural|user|"
    r"similar|factual|simple|complex|multi-hop|first|second|third|fourth|fifth|another|next|final|last)\s+){0,2}"
)
QUESTION_LABEL: Final = re.compile(
    rf"^(?:{_KINDS}(?:{_LABELS})\s?(?:no\.?\s?|№\s?)?(?:[#(]?\s?\d{{1,3}}\s?\)?)?\s?(?:[:：)]\s?|[.\-–]\s)(?=\S)"
    rf"|(?:问题|提问|题目|问|查询|检索词|关键词查询|标题查询|備选问题|备选问题|問題)\s?(?:{_NUMBER})?\s?[：:、.．]\s?(?=\S))",
    re.IGNORECASE,
)
# "(Easy) What", "[Factual] Why", "Hard: How": how hard or of what sort a question is, and no part of it.
_SORTS: Final = (
    r"(?:easy|medium|moderate|hard|difficult|challenging|basic|simple|intermediate|advanced|beginner|expert|factual|"
    r"factoid|conceptual|inferential|reasoning|analytical|procedural|comparative|multi-hop|open-ended|short|long|"
    r"specific|general|broad|简单|中等|困难)(?: (?:questions?|quer(?:y|ies)))?"
)
SORT_LABEL: Final = re.compile(
    rf"^(?:[(（\[]{_SORTS}[)）\]]\s?[:：-]?|{_SORTS}\s?[:：])\s?(?=\S)",
    re.IGNORECASE,
)
# A label of any language, such as "Kysymys 1:"; counts only where two lines have it with numbers that count up.
NUMBERED_LABEL: Final = re.compile(r"^(?P<label>[^\W\d_][^\d:：?？]{0,30}?)\s?(?P<number>\d{1,3})\s?[:：.)]\s?(?=\S)")
ANSWER_LABEL: Final = re.compile(
    rf"^(?:(?:reference\s+|correct\s+)?answers?\s*(?:\d{{1,3}})?\s*[:：\-]|a\s*\d{{0,3}}\s*[:：]"
    rf"|(?:参考答案|标准答案|正确答案|答案|回答|答)\s*(?:{_NUMBER})?\s*[：:])\s*",
    re.IGNORECASE,
)
# Lines have single spaces when these are used, so that nothing repeats that could be tried in many ways.
INLINE_ANSWER: Final = re.compile(
    r" ?[(（\[]? ?(?:\b(?:reference |correct )?answer ?[:：]|(?<=[?？؟]) ?A ?[:：]|(?<=[?？؟]) ?(?:→|[-=]>|[-–—](?= ))"
    r"|(?:参考答案|正确答案|答案|回答|答) ?[：:]) ?(?P<answer>.*)$",
    re.IGNORECASE,
)
OPTION: Final = re.compile(r"^[(（]?(?P<letter>[A-Ha-h]) ?[).．、）] ?\S")
HEADING_LINE: Final = re.compile(
    r"^(?:(?:the\s+)?(?:quiz|exam|examination|sample|generated|search)?\s*"
    r"(?:questions?|queries|quer(?:y|ies) list|quiz|quer(?:y|ies)(?= ?[#\d]))(?: ?#? ?\d{1,3})?"
    r"|问题(?:列表)?|查询(?:列表)?|题目)\s*(?:list|列表)?\s*[:：]?$",
    re.IGNORECASE,
)
PREAMBLE: Final = re.compile(
    r"^(?:(?:sure|certainly|of course|absolutely|okay|ok|here(?:'s| is| are)|below (?:is|are)|the following|"
    r"these are)\b|based on (?:the|this|your)\b.{0,80}\b(?:here|are|questions|queries)\b|"
    r"i(?:'ve| have) (?:created|generated|written|prepared)|"
    r"以下|下面|好的|当然|没问题|根据(?:上述|以上|给定|提供|上面|文本|这段|所给|您)|这(?:里|是|些)是?)",
    re.IGNORECASE,
)
CLOSING: Final = re.compile(
    r"^(?:let me know|i hope|hope (?:this|these)|feel free|these (?:questions|queries)|note that|note:|"
    r"please let|would you like|"
    r"希望(?:这些|以上|对(?:您|你)|能)|如果(?:您|你)(?:需要|还|有|想)|如需|以上(?:是|就是|问题|查询)|这些(?:问题|查询)|请注意|注[：:])",
    re.IGNORECASE,
)
_OBJECT: Final = r"questions?|quer(?:y|ies)|requests?|passage|excerpt|prompt|an? answer|that\b(?! \w)|the task"
_TASK: Final = rf"(?:{_OBJECT}|with (?:this|that))"
_CANNOT: Final = (
    r"(?:can(?:'t|not| not)|won't|will not|could not|couldn't|do not|don't|am (?:unable|not able) to|was unable to)"
)
# Users write "Unable to connect" and "I can't find my invoice" themselves: a refusal speaks of the task, or of being
# a model, or says sorry and then that it cannot.
_OF_USERS: Final = (
    r"\b(?:my|our) (?!guidelines|programming|training|knowledge|capabilit|polic|instructions|ability|purpose|role"
    r"|apolog)|我的|我们的"
)
REFUSAL: Final = re.compile(
    rf"^(?!.{{0,300}}?(?:{_OF_USERS}))"
    rf"(?:(?:(?:i(?:'m| am) |we(?:'re| are) )?(?:really |very |so )?(?:sorry|afraid)|my apologies|i apologi[sz]e)"
    rf"(?:[,.!]? (?:but |that |for the inconvenience,? )?(?:as an ai\b|(?:i|we) (?:\w+ )?{_CANNOT})|[.!]*$)"
    rf"|(?:i|we) {_CANNOT} (?:\w+ ){{0,2}}"
    r"(?:help|assist|comply|fulfil|generate|create|provide|answer|write|produce|do)\b"
    rf"(?:(?: (?:this|that|so|it)(?: (?:task|request|one|here))?)?[.!]*$|.{{0,60}}?{_TASK})"
    rf"|(?:i(?:'m| am) )?(?:unable|not able) to (?:generate|create|provide|answer|write|produce|comply|help|assist)\b"
    rf".{{0,60}}?{_TASK}"
    r"|as an? (?:ai|artificial intelligence|large language|language)(?: language)? (?:model|assistant|system)\b"
    r"|as an ai,"
    r"|(?:unfortunately,? )?(?:the|this) (?:given |provided )?(?:passage|text|context|content|document) "
    r"(?:does not|doesn't|provides no|contains no|lacks|(?:is|was|seems|appears)(?: to be)? "
    r"(?:empty|blank|incomplete|too short))"
    r"(?:[.!]*$| (?:contain|provide|include|have|give|offer|any|enough|sufficient|to|for)\b|$|[.,!])"
    rf"|(?:unfortunately,? )?there (?:is|are) (?:no|not enough|insufficient|too little) "
    r"(?:\w+ )?(?:information|content|context|text|passage|details|questions?)\b"
    rf"|unfortunately,? (?:i|we) {_CANNOT}|not enough (?:information|context)|insufficient (?:information|context))"
    r"|(?:非常|很|十分)?(?:抱歉|对不起|遗憾)(?:[，,。！!]|$).{0,20}?(?:无法|不能|没有|没法)|(?:非常|很|十分)?(?:抱歉|对不起)[。！!]?$"
    r"|抱歉.{0,10}(?:无法|不能)"
    r"|(?:我|本模型)?(?:无法|不能|没有办法|没法)(?:根据|基于|从|为(?:您|你)|生成|提供|回答|完成|创建).{0,20}?"
    r"(?:问题|查询|请求|任务|答案|内容|文本)|我(?:无法|不能)(?:回答|完成|提供帮助)[。！!]?$"
    r"|作为一?(?:个|名|款)?(?:AI|人工智能|大型?语言模型|大模型|语言模型)(?:语言)?(?:模型|助手|系统)?[，,]"
    r"|(?:该|此|这段|给定的?|提供的?|所给的?)?(?:文本|文章|上下文|内容|资料|段落)(?:中|内)?(?:为空|是空的|不足|(?:没有|不包含|未提供)"
    r"(?:足够|任何|相关|可|有关|信息|内容|具体))",
    re.IGNORECASE,
)
IMPERATIVE: Final = re.compile(
    r"^(?:explain|describe|list|name|compare|contrast|discuss|define|identify|summari[sz]e|outline|analy[sz]e|give|state|"
    r"evaluate|calculate|tell|说明|解释|描述|列出|列举|简述|概述|比较|分析|阐述|请|试|论述)",
    re.IGNORECASE,
)
QUOTES: Final = dict(zip("\"'“‘「『«„`《", "\"'”’」』»“`》", strict=True))
EMPHASIS: Final = re.compile(r"^(?!__[a-z]\w*__(?!\w))(\*\*\*|\*\*|\*|__|_)(?=\S)(.+?)(?<=\S)\1")
SENTENCES: Final = re.compile(r"(?<=[?？؟])\s?(?=\S)")
ASKS: Final = re.compile(r"[?？؟՞፧⸮][\"'”’」』»*_ ）)]{0,8}(?:[(（][^()（）]{0,200}[)）] ?)?$")
# What is left of JSON that could not be read: brackets, a whole object, a field.
JSON_LINE: Final = re.compile(r'^(?:[\[\]{}],?|[{\[].*[}\]],?|"\w+"\s*:.*)$')
# "generated_question", "query_text"; and lists that hold the queries, whatever else the answer lists.
QUERY_NAME: Final = re.compile(r"(?:\w+[_ -])?(?:query|question)(?:[_ -]?text)?")
QUERY_LIST: Final = re.compile(r"(?:(?:generated|search|user)[_ -]?)?(?:questions|queries)|问题(?:列表)?|查询(?:列表)?")
WORDS_AND_SIGNS: Final = re.compile(r"(?:(?<!\S)[-−](?=\d))?[^\W_]+(?:[+#]{1,2}(?!\w))?|[<>≤≥]")
QUERY_FIELDS: Final = ("query", "question", "q", "text", "问题", "查询")
ANSWER_FIELDS: Final = ("answer", "a", "response", "答案", "回答")


def json_strings(body: str) -> Iterator[tuple[str, bool]]:
    """The strings that are closed, in one pass; True for a name, which a colon follows."""
    start = -1
    for mark in re.finditer(r'\\.|"', body, re.DOTALL):
        if mark[0] != '"':
            continue
        if start < 0:
            start = mark.end()
        else:
            yield _unescape(body[start : mark.start()]), body[mark.end() : mark.end() + 20].lstrip().startswith(":")
            start = -1


def _unescape(string: str) -> str:
    try:
        return str(json.loads(f'"{string}"', strict=False))
    except ValueError:
        return string


def without_counts(lines: list[str], asks: Callable[[str], bool]) -> list[str]:
    """Make bullets of marks that count up from line to line: "a) What", "b) How"; "E. coli in what?" has none."""
    found = [_COUNTED.match(line) if asks(line) else None for line in lines]
    marks = [next(filter(None, match.groups())).lower() for match in found if match]
    if marks[:2] not in _COUNTS:
        return lines
    return [f"- {line[match.end() :]}" if match else line for line, match in zip(lines, found, strict=True)]
