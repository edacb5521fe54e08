"""Regular expressions that tell the parts of an LLM's answer apart: English and Chinese."""

from __future__ import annotations

import re
from typing import Final

THINKING: Final = re.compile(r"<(think|thinking|reasoning)>.*?(</\1>|\Z)", re.IGNORECASE | re.DOTALL)
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
      | \#\s*\d{{1,3}}\s*[.:)]?(?=\s)
    )\s*""",
    re.VERBOSE,
)
BULLET: Final = re.compile(r"^(?:[-*+•·●○▪■◦‣–—>]+\s+|[•·●○▪■◦‣])")
HEADING: Final = re.compile(r"^#{1,6}\s+")
_LABELS: Final = r"questions?|quer(?:y|ies)|search\s+quer(?:y|ies)|keyword\s+quer(?:y|ies)|title\s+quer(?:y|ies)|q"
QUESTION_LABEL: Final = re.compile(
    rf"^(?:(?:{_LABELS})\s*(?:no\.?\s*)?(?:[#(]?\s*\d{{1,3}}\s*\)?)?\s*[:：.)\-–]\s*(?=\S)"
    rf"|(?:问题|提问|题目|问|查询|检索词|关键词查询|标题查询)\s*(?:{_NUMBER})?\s*[：:、.．]\s*(?=\S))",
    re.IGNORECASE,
)
ANSWER_LABEL: Final = re.compile(
    rf"^(?:(?:reference\s+|correct\s+)?answers?\s*(?:\d{{1,3}})?\s*[:：\-]|a\s*\d{{0,3}}\s*[:：]"
    rf"|(?:参考答案|标准答案|正确答案|答案|回答|答)\s*(?:{_NUMBER})?\s*[：:])\s*",
    re.IGNORECASE,
)
INLINE_ANSWER: Final = re.compile(
    r"\s*[(（\[]?\s*(?:\b(?:reference |correct )?answer\s*[:：]|(?<=[?？])\s*A\s*[:：]"
    r"|(?:参考答案|正确答案|答案|回答|答)\s*[：:])\s*(?P<answer>.*)$",
    re.IGNORECASE | re.DOTALL,
)
OPTION: Final = re.compile(r"^[(（]?[A-Ha-h]\s*[).．、）]\s*\S")
HEADING_LINE: Final = re.compile(
    r"^(?:(?:the\s+)?(?:quiz|exam|examination|sample|generated|search)?\s*"
    r"(?:questions?|queries|quer(?:y|ies) list|quiz)"
    r"|问题(?:列表)?|查询(?:列表)?|题目)\s*(?:list|列表)?\s*[:：]?$",
    re.IGNORECASE,
)
PREAMBLE: Final = re.compile(
    r"^(?:sure|certainly|of course|absolutely|okay|ok|here(?:'s| is| are)|below (?:is|are)|the following|these are|"
    r"based on (?:the|this|your)\b.{0,80}\b(?:here|are|questions|queries)\b|"
    r"i(?:'ve| have) (?:created|generated|written|prepared)|"
    r"以下|下面|好的|当然|没问题|根据(?:上述|以上|给定|提供|上面|文本|这段|所给|您)|这(?:里|是|些)是?)",
    re.IGNORECASE,
)
CLOSING: Final = re.compile(
    r"^(?:let me know|i hope|hope (?:this|these)|feel free|these (?:questions|queries)|note that|note:|"
    r"please let|would you like|"
    r"希望|如果(?:您|你)|如需|以上(?:是|就是|问题|查询)|这些(?:问题|查询)|请注意|注[：:])",
    re.IGNORECASE,
)
REFUSAL: Final = re.compile(
    r"^(?:(?:i(?:'m| am)\s+(?:really |very |so )?(?:sorry|afraid|unable|not able)|sorry\b|my apologies|i apologi[sz]e|"
    r"i\s+(?:can(?:'t|not)|do not|don't|could not|couldn't|won't|will not)\s+(?:\w+\s+){0,3}"
    r"(?:help|assist|generate|create|provide|comply|fulfil|answer|write|produce|make|do|find|see|have|know)\b|"
    r"as an? (?:ai|artificial|language|large)|unfortunately|unable to|there (?:is|are) (?:no|not enough|insufficient)|"
    r"the (?:given |provided )?(?:passage|text|context|content|document) "
    r"(?:does not|doesn't|is (?:empty|too|not)|provides no|contains no|lacks))"
    r"|抱歉|很抱歉|对不起|非常抱歉|我(?:无法|不能|没有办法|没法)|无法(?:生成|提供|回答|根据|完成)"
    r"|作为一?(?:个|名)?(?:AI|人工智能|大?语言模型)"
    r"|(?:文本|文章|上下文|内容|资料|段落)(?:中)?(?:没有|不包含|未提供|不足|为空))",
    re.IGNORECASE,
)
IMPERATIVE: Final = re.compile(
    r"^(?:explain|describe|list|name|compare|contrast|discuss|define|identify|summari[sz]e|outline|analy[sz]e|give|state|"
    r"evaluate|calculate|tell|说明|解释|描述|列出|列举|简述|概述|比较|分析|阐述|请|试|论述)",
    re.IGNORECASE,
)
QUOTES: Final = dict(zip("\"'“‘「『«„`《", "\"'”’」』»“`》", strict=True))
EMPHASIS: Final = re.compile(r"^(\*\*\*|\*\*|\*|__|_)(?=\S)(.+?)(?<=\S)\1")
SENTENCES: Final = re.compile(r"(?<=[?？])\s*(?=\S)")
JSON_STRING: Final = r'"((?:[^"\\]|\\.)*)"'
BROKEN_PAIR: Final = re.compile(
    rf'"(?:query|question|q|text)"\s*:\s*{JSON_STRING}(?:\s*,\s*"(?:answer|a|response)"\s*:\s*{JSON_STRING})?',
    re.IGNORECASE,
)
# What is left of JSON that could not be read: brackets, a whole object, a field.
JSON_LINE: Final = re.compile(r'^(?:[\[\]{}],?|[{\[].*[}\]],?|"\w+"\s*:.*)$')
QUERY_FIELDS: Final = ("query", "question", "q", "text", "问题", "查询")
ANSWER_FIELDS: Final = ("answer", "a", "response", "答案", "回答")
