"""Yes or no in an LLM's words: read where it is certain, refused everywhere else."""

from __future__ import annotations

import contextlib
import time

import pytest

from llama_index_embft.calls.failures import UnusableAnswerError
from llama_index_embft.generation.verdict import read_verdict

YES = [
    "Yes",
    "Yes<|im_end|>",
    "Yes</s>\n",
    "yes.",
    " Yes\n",
    "**Yes**",
    '"Yes"',
    "_Yes_",
    "`yes`",
    "Yes, the document answers it.",
    "Yes the document answers it.",
    "Yes - it says when.",
    "Yes\n\nThe document says when, no doubt.",
    "True",
    "Relevant",
    "Relevant: Yes",
    "Relevant: **Yes**",
    "**Relevant:** Yes",
    "Answer: yes",
    "The answer is yes.",
    "The document gives the year, so yes.",
    "The query asks for a year. The document gives it.\n\nYes",
    "The query asks for a year.\n\n**Answer:** Yes.",
    "<think>No, wait. The year is there.</think>Yes",
    "<think>\nThe document says no more.\n</think>\n\nRelevant: Yes",
    "The document is relevant to the query.",
    "The passage is directly relevant because it names the year.",
    r"\boxed{Yes}",
    r"Answer: $\boxed{\text{Yes}}$",
    '{"relevant": true}',
    '```json\n{"relevant": true}\n```',
    "Yes\n\nQuery: Who?\nDocument: Nobody.\nRelevant: No",
    "是",
    "是的，文字回答了查询。",
    "相关",
    "是否相关：是",
]
NO = [
    "No",
    "no.",
    "**No**",
    "No, it does not.",
    "No - the year is missing.",
    "No because the year is missing.",
    "No\nIt is about cars.",
    "False",
    "Not relevant.",
    "Irrelevant",
    "Relevant: No",
    "Relevant: **No**",
    "Relevant: Not relevant",
    "Verdict: no (it is about cars)",
    "The answer is no.",
    "It is about cars; therefore, no.",
    "The document is not relevant to the query.",
    "<think>Yes? It is about cars.</think>\n\nNo.",
    "No\n\nQuery: Who?\nDocument: He.\nRelevant: Yes",
    "否",
    "不是。",
    "不相关",
    "判断：不相关",
]
NEITHER = [
    "",
    "   ",
    "maybe",
    "yes and no",
    "Yes/No",
    "Yes or no?",
    "Yes. No.",
    "No. Yes-men are another subject.",
    "Yes\nNo",
    "No document was given.",
    "No doubt it is about trees.",
    "There is no answer in the text.",
    "The document is partially about it.",
    "I know nothing.",
    "Noted.",
    "Yesterday",
    "I'm sorry, I cannot help with that.",
    "Relevant documents are hard to find.",
    "Relevant: Yes\nRelevant: No",
    "Is the document relevant?",
    "1",
    "是否",
    "无法判断",
    "<think>Yes",
]


@pytest.mark.parametrize("text", YES)
def test_yes(text):
    assert read_verdict(text) is True


@pytest.mark.parametrize("text", NO)
def test_no(text):
    assert read_verdict(text) is False


@pytest.mark.parametrize("text", NEITHER)
def test_neither_is_never_guessed(text):
    with pytest.raises(UnusableAnswerError):
        read_verdict(text)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"relevant": True}, True),
        ({"answers": False}, False),
        ({"relevant": "No", "why": "Yes, well"}, False),
        ({"verdict": "Yes"}, True),
    ],
)
def test_structured_output(content, expected):
    assert read_verdict(content) is expected


@pytest.mark.parametrize("content", [{}, {"a": "Yes", "b": "No"}, {"relevant": None}, None, 3, {"relevant": []}])
def test_structured_output_that_says_nothing(content):
    with pytest.raises(UnusableAnswerError):
        read_verdict(content)


def test_the_reason_is_said():
    with pytest.raises(UnusableAnswerError, match="both yes and no in 'Relevant: Yes Relevant: No'"):
        read_verdict("Relevant: Yes\nRelevant: No")
    with pytest.raises(UnusableAnswerError, match="the LLM refused: "):
        read_verdict("I'm sorry, I cannot help with that.")


@pytest.mark.parametrize("filler", ["- ", "\n", "yes and ", "relevant: ", "*", " no document ", "“"])
def test_long_answers_are_read_quickly(filler):
    started = time.perf_counter()
    assert read_verdict(f"Yes.\n{'It says so at length, ' * 20_000}\n") is True
    assert read_verdict(f"{'It says so at length, ' * 20_000}\nRelevant: No") is False
    with contextlib.suppress(UnusableAnswerError):
        read_verdict(filler * 200_000)
    assert time.perf_counter() - started < 2
