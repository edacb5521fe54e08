"""Yes or no, as an LLM says it: strictly, since a label that was guessed teaches the opposite as often as not."""

from __future__ import annotations

import re
from typing import Any, Final

from pydantic import BaseModel, Field

from llama_index_embft.calls.failures import UnusableAnswerError
from llama_index_embft.generation.parse import is_refusal, without_reasoning

_READ_AT_MOST: Final = 2000
_NO: Final = r"no|false|irrelevant|(?:not|non)[ -]?relevant|不相关|不是|无关|否"
_YES: Final = r"yes|true|relevant|相关|是的|是(?!否)"
_WORD: Final = rf"(?:(?P<no>{_NO})|(?P<yes>{_YES}))(?![A-Za-z])"
# "no" is also an article ("No document was given"), so after it must come what ends or explains a verdict.
_OTHER: Final = r"(?!\W{0,6}(?:(?:and|or)\W{1,3})?(?:yes|no)\b)"
_ENDS: Final = r"(?=\s*(?:$|[.,;:!?)\]}\"'’”*_`(–—。，；：！）]|-\s|\n|because\b|since\b))"
_BOX: Final = r"(?:\\?(?:boxed|text)\{)*"
_AFTER_YES: Final = r"(?:(?<=yes)(?=\s)|" + _ENDS + ")"
# A model that completes text goes on with the next example.
_NEXT_EXAMPLE: Final = re.compile(r"\n\W*(?:query|question|document|passage)\W{0,4}[:：]", re.IGNORECASE)
_FLAGS: Final = re.IGNORECASE | re.MULTILINE
_PATTERNS: Final = (
    # At the very start: "Yes, the passage ..."; "Relevant: No" starts with no verdict.
    re.compile(rf"\A[\W_]*(?!relevant\W*[:：=]){_WORD}{_AFTER_YES}{_OTHER}", re.IGNORECASE),
    # On a line alone, also as "\boxed{Yes}".
    re.compile(rf"^[\W_]*{_BOX}{_WORD}[\W_]*$", _FLAGS),
    # Where it is called so: "Relevant: **No**", '"relevant": true', "the answer is no."
    re.compile(
        r"(?:relevan(?:t|ce)|answers?|verdict|judge?ment|conclusion|label|output|result|response|decision"
        r"|相关(?:性)?|答案|结论|判断|回答)"
        rf"[\"'*_`\s]*(?:[:：=]|\bis\b|是|为)[\s\"'“*_`(\[$]*{_BOX}{_WORD}{_AFTER_YES}{_OTHER}",
        _FLAGS,
    ),
    # At the end, drawn as a conclusion.
    re.compile(rf"\b(?:so|thus|therefore|hence)\b\W+{_WORD}\W*\Z", re.IGNORECASE),
    # One plain sentence about the passage.
    re.compile(
        r"\A\W*(?:this|the) (?:document|passage|text) is (?:(?P<no>not )|(?P<yes>))(?:\w+ly )?relevant"
        r"(?: to the (?:query|question))?\W*(?:$|because|since|as )",
        _FLAGS,
    ),
)


class RelevanceVerdict(BaseModel):
    """The judgement of one query and passage."""

    relevant: bool = Field(description="true if the passage answers the query, fully or in part")


def read_verdict(content: Any) -> bool:
    """Take yes or no out of an LLM's answer: a lone word, a labelled one, the start of a sentence, a conclusion.

    Args:
        content: Text, or structured output with one field.

    Raises:
        UnusableAnswerError: There is neither, or both; nothing is guessed.
    """
    if isinstance(content, dict):
        content = next(iter(content.values())) if len(content) == 1 else content.get("relevant", "")
    if isinstance(content, bool):
        return content
    text = re.sub(r"\s*\n\s*", "\n", without_reasoning(str(content))).strip()
    if len(text) > 2 * _READ_AT_MOST:  # a verdict stands at one of its ends
        text = f"{text[:_READ_AT_MOST]} … {text[-_READ_AT_MOST:]}"
    if (following := _NEXT_EXAMPLE.search(text)) and following.start() > 0:
        text = text[: following.start()]
    found = {match["yes"] is not None for pattern in _PATTERNS for match in pattern.finditer(text)}
    if len(found) == 1:
        return found.pop()
    shown = " ".join(text.split())[:100]
    if is_refusal(text):
        raise UnusableAnswerError(f"the LLM refused: {shown!r}")
    raise UnusableAnswerError(f"{'both yes and no' if found else 'neither yes nor no'} in {shown!r}")
