"""Every shape of an answer that LLMs are known to give; see the ids of the cases."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, strategies as st

from llama_index_embft.generation.parse import is_refusal, normalized, parse_items

TWO = ["What was the revenue in 2021?", "How many drivers are there?"]
ZWEI = ["公司2021年的收入是多少？", "平台上有多少司机？"]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("{0}\n{1}", id="plain lines"),
        pytest.param("1. {0}\n2. {1}", id="1."),
        pytest.param("1) {0}\n2) {1}", id="1)"),
        pytest.param("(1) {0}\n(2) {1}", id="(1)"),
        pytest.param("[1] {0}\n[2] {1}", id="[1]"),
        pytest.param("1: {0}\n2: {1}", id="1:"),
        pytest.param("#1 {0}\n#2 {1}", id="#1"),
        pytest.param("Q.1 {0}\nQ.2 {1}", id="Q.1"),
        pytest.param("1 - {0}\n2 - {1}", id="1 -"),
        pytest.param("1/ {0}\n2/ {1}", id="1/"),
        pytest.param("1,{0}\n2,{1}", id="CSV"),
        pytest.param("a) {0}\nb) {1}", id="a)"),
        pytest.param("A. {0}\nB. {1}", id="A."),
        pytest.param("i. {0}\nii. {1}", id="i."),
        pytest.param("1\ufe0f\u20e3 {0}\n2\ufe0f\u20e3 {1}", id="keycaps"),
        pytest.param("\ufeff1. {0}\n\u200b2. {1}", id="invisible marks"),
        pytest.param("🔹 {0}\n🔹 {1}", id="emoji"),
        pytest.param("- [ ] {0}\n- [ ] {1}", id="check boxes"),
        pytest.param("**Easy:** {0}\n(Hard) {1}", id="how hard"),
        pytest.param("User: {0}\nAssistant: a lot\nUser: {1}", id="a chat"),
        pytest.param("<query>{0}</query>\n<query>{1}</query>", id="query tags"),
        pytest.param('<question id="1">{0}</question><question id="2">{1}</question>', id="tags with attributes"),
        pytest.param("<ol>\n<li>{0}</li>\n<li>{1}</li>\n</ol>", id="HTML"),
        pytest.param('"{0}",\n"{1}"', id="lines of JSON"),
        pytest.param("1. {0}\n2. {1}<|im_end|>\n<|im_start|>user\n3. Who?", id="end token"),
        pytest.param("1. {0}\n2. {1}</s>", id="end of sequence"),
        pytest.param("**Thinking:** What would they ask?\n\n**Final Answer:**\n{0}\n{1}", id="untagged reasoning"),
        pytest.param("1. {0} - A lot.\n2. {1} → many", id="answers behind a dash"),
        pytest.param("['{0}', '{1}']", id="Python's list"),
        pytest.param("{{'questions': ['{0}', '{1}']}}", id="Python's dict"),
        pytest.param('{{"text": "The passage.", "questions": ["{0}", "{1}"]}}', id="JSON with the passage"),
        pytest.param('{{"key_facts": ["X is Y"], "questions": ["{0}", "{1}"]}}', id="JSON with facts"),
        pytest.param('{{"questions": "1. {0}\\n2. {1}"}}', id="JSON of one string"),
        pytest.param('[{{"generated_question": "{0}"}}, {{"queryText": "{1}"}}]', id="JSON with other names"),
        pytest.param('{{"{0}": "A lot.", "{1}": "Many."}}', id="JSON of questions as names"),
        pytest.param("- {0}\n- {1}", id="dash"),
        pytest.param("* {0}\n* {1}", id="star"),
        pytest.param("• {0}\n• {1}", id="bullet"),
        pytest.param("– {0}\n– {1}", id="en dash"),
        pytest.param("Question 1: {0}\nQuestion 2: {1}", id="Question 1:"),
        pytest.param("Question: {0}\nQuestion: {1}", id="Question:"),
        pytest.param("Q1. {0}\nQ2. {1}", id="Q1."),
        pytest.param("**Question 1:** {0}\n\n**Question 2:** {1}", id="bold label"),
        pytest.param("**1. {0}**\n\n**2. {1}**", id="bold line"),
        pytest.param("1. **{0}**\n2. **{1}**", id="bold in number"),
        pytest.param("### Question 1\n{0}\n### Question 2\n{1}", id="headings"),
        pytest.param('1. "{0}"\n2. "{1}"', id="quotes"),
        pytest.param("1. “{0}”\n2. “{1}”", id="curly quotes"),
        pytest.param("```\n1. {0}\n2. {1}\n```", id="fence"),
        pytest.param("Here are two questions based on the context:\n\n1. {0}\n2. {1}", id="preamble"),
        pytest.param("Sure! Here are 2 questions:\n{0}\n{1}", id="preamble without numbers"),
        pytest.param("1. {0}\n2. {1}\n\nLet me know if you would like more questions!", id="closing"),
        pytest.param("1. {0}\nAnswer: a lot\n2. {1}\nAnswer: many", id="answers below"),
        pytest.param("{0}\nIt was a lot.\n{1}\nThere are many.", id="unlabelled answers"),
        pytest.param("1. {0}\n2. It was a lot.\n3. {1}\n4. There are many.", id="numbered answers"),
        pytest.param("Q: {0}\nA: a lot\nQ: {1}\nA: many", id="Q and A"),
        pytest.param("1. {0} (Answer: a lot)\n2. {1} Answer: many", id="answers inline"),
        pytest.param("1. {0}\n   A) a lot\n   B) a little\n2. {1}\n   A) ten\n   B) many", id="options"),
        pytest.param("<think>First, 1. Who wrote this?\n</think>\n1. {0}\n2. {1}", id="reasoning"),
        pytest.param("1. {0}\n1. {0}\n2. {1}\n3. {1}", id="duplicates"),
        pytest.param('1. {0}\n2.\n3. {1}\n4. ""', id="empty items"),
        pytest.param("I'm sorry, I cannot name people.\n1. {0}\n2. {1}", id="apology first"),
        pytest.param('["{0}", "{1}"]', id="JSON list"),
        pytest.param('```json\n{{"questions": ["{0}", "{1}"]}}\n```', id="JSON in a fence"),
        pytest.param(
            'Here you go:\n{{"queries": [{{"query": "{0}"}}, {{"query": "{1}"}}]}}\nEnjoy!', id="JSON in words"
        ),
        pytest.param('{{"queries": ["{0}", "{1}",]}}', id="JSON with a comma too many"),
        pytest.param('{{"queries": ["{0}", "{1}", "What is', id="JSON cut off"),
        pytest.param('{{"queries": [{{"query": "{0}"}}, {{"query": "{1}"}}, {{"que', id="JSON objects cut off"),
        pytest.param('{{"1": "{0}", "2": "{1}"}}', id="JSON numbered"),
        pytest.param('{{"q1": "{0}", "q2": "{1}", "topic": "money"}}', id="JSON fields"),
        pytest.param("{0} {1}", id="on one line"),
        pytest.param("Question 1: {0} Question 2: {1}", id="labels on one line"),
        pytest.param("1. What was the\n   revenue in 2021?\n2. {1}", id="wrapped"),
    ],
)
def test_two_english_questions_come_out_of_any_wrapping(text: str) -> None:
    assert [item.query for item in parse_items(text.format(*TWO), limit=5)] == TWO


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("{0}\n{1}", id="plain"),
        pytest.param("1、{0}\n2、{1}", id="1、"),
        pytest.param("１．{0}\n２．{1}", id="full width"),
        pytest.param("一、{0}\n二、{1}", id="一、"),
        pytest.param("（一）{0}\n（二）{1}", id="（一）"),
        pytest.param("（1）{0}\n（2）{1}", id="（1）"),
        pytest.param("①{0}\n②{1}", id="①"),
        pytest.param("第一题：{0}\n第二题：{1}", id="第一题："),
        pytest.param("第1个问题：{0}\n第2个问题：{1}", id="第1个问题："),
        pytest.param("问题：{0}\n问题：{1}", id="问题："),
        pytest.param("问题1：{0}\n答案：很多。\n问题2：{1}\n答案：不少。", id="问题与答案"),
        pytest.param("（一）问题：{0}\n（二）问题：{1}", id="（一）问题："),
        pytest.param("以下是两个问题：\n1. {0}\n2. {1}\n希望这些问题对您有帮助！", id="preamble and closing"),
        pytest.param("好的，根据上述内容，问题如下：\n{0}\n{1}", id="preamble without numbers"),
        pytest.param("1. “{0}”\n2. 「{1}」", id="quotes"),
        pytest.param("问：{0}\n答：很多\n问：{1}\n答：不少", id="问答"),
        pytest.param('{{"问题": ["{0}", "{1}"]}}', id="JSON"),
        pytest.param("{0}（答案：很多）\n{1}（答案：不少）", id="answers inline"),
        pytest.param("第一题：{0} 第二题：{1}", id="on one line"),
    ],
)
def test_two_chinese_questions_come_out_of_any_wrapping(text: str) -> None:
    assert [item.query for item in parse_items(text.format(*ZWEI), limit=5)] == ZWEI


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   \n\n",
        "...",
        "?",
        "I'm sorry, but I can't help with that.",
        "I’m sorry, I cannot assist with this request.",
        "As an AI language model, I cannot generate questions.",
        "Unfortunately, the passage is empty.",
        "The context does not contain enough information to generate questions.",
        "抱歉，我无法根据该内容生成问题。",
        "作为一个人工智能语言模型，我不能回答。",
        "Here are the questions:",
        '{"error": "rate limited"}',
        '{"queries": []}',
        "[]",
        "```json\n{}\n```",
        "<think>I should write 1. What is",
        "{",
    ],
)
def test_nothing_usable_gives_nothing(text: str) -> None:
    assert parse_items(text, limit=5) == []


def test_answers_are_kept_beside_their_questions() -> None:
    text = "Q: What is it?\nA: A dam.\n\n2. When was it built?\n**Answer:** In 1910."
    assert [(item.query, item.answer) for item in parse_items(text, limit=5)] == [
        ("What is it?", "A dam."),
        ("When was it built?", "In 1910."),
    ]


def test_a_refused_answer_is_no_answer() -> None:
    [item] = parse_items([{"query": "What is it?", "answer": "I'm sorry, I don't know."}], limit=2)
    assert item.answer == ""


def test_keyword_queries_without_question_marks_are_all_kept_where_questions_are_not_required() -> None:
    text = "lyft revenue 2021\nWhat was the revenue?\n2020 losses by segment"
    queries = [item.query for item in parse_items(text, limit=5, questions_only=False)]
    assert queries == ["lyft revenue 2021", "What was the revenue?", "2020 losses by segment"]


def test_commands_count_as_questions() -> None:
    text = "What is a dam?\nExplain how the valve works.\nThe valve is old."
    assert [item.query for item in parse_items(text, limit=5)] == ["What is a dam?", "Explain how the valve works."]


def test_quotes_inside_a_question_stay() -> None:
    assert parse_items('1. What does "driver" mean?', limit=1)[0].query == 'What does "driver" mean?'


@pytest.mark.parametrize(
    "question",
    [
        "Q-learning: how does it converge?",
        "Query-time boosting in Elasticsearch?",
        "User-defined functions in SQL?",
        "__init__ vs __new__ in Python?",
        "#1 selling album of 1990?",
        "How do I style <li> elements?",
        "Is my phone covered? It fell into water.",
        "Okinawa hotel booking queries",
        "1-year bond yield?",
    ],
)
def test_the_beginning_of_a_question_is_no_mark(question: str) -> None:
    for text in (f"1. {question}\n2. What is Z?", json.dumps({"queries": [question, "What is Z?"]})):
        assert [item.query for item in parse_items(text, limit=5)] == [question, "What is Z?"]


def test_headings_with_numbers_are_no_keyword_queries() -> None:
    text = "### Query 1\nbest hotels rome\n### Query 2\ncheap hostel"
    assert [item.query for item in parse_items(text, limit=5, questions_only=False)] == [
        "best hotels rome",
        "cheap hostel",
    ]


def test_the_limit_is_kept() -> None:
    assert len(parse_items("\n".join(f"{n}. What is item {n}?" for n in range(1, 9)), limit=3)) == 3


def test_structured_output_may_hold_marks_refusals_and_duplicates_too() -> None:
    queries = ["1. What is it?", "", "what is it", "I'm sorry, I can't do that.", "问题：有多少？"]
    assert [item.query for item in parse_items({"queries": queries}, limit=9)] == ["What is it?", "有多少？"]


@pytest.mark.parametrize(
    "question", ["Why is there no refund?", "What can't a driver do?", "Is the passage toll free?"]
)
def test_questions_that_sound_negative_are_no_refusals(question: str) -> None:
    assert not is_refusal(question)
    assert [item.query for item in parse_items(question, limit=1)] == [question]


def test_users_who_cannot_do_something_do_not_refuse() -> None:
    for query in ("Sorry, I cannot log in to my account", "There is no information on my bill"):
        assert not is_refusal(query)
    for answer in ("I'm sorry, I cannot share my guidelines.", "My apologies, but I can't help with that."):
        assert is_refusal(answer)


def test_normalized_ignores_case_width_and_punctuation_and_nothing_else() -> None:
    assert normalized("What is  it?") == normalized("what is it") == normalized("ＷＨＡＴ is it？")
    assert normalized("in 2020") != normalized("in 2021")
    for one, other in (("C++?", "C#?"), ("C?", "C++"), ("at -5 °C", "at 5 °C"), ("x > 5", "x < 5")):
        assert normalized(one) != normalized(other)


@given(st.text(max_size=300))
def test_any_text_gives_clean_distinct_queries(text: str) -> None:
    queries = [item.query for item in parse_items(text, limit=10)]
    assert all(query.strip() == query and any(c.isalnum() for c in query) and "\n" not in query for query in queries)
    assert len({normalized(query) for query in queries}) == len(queries)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=10),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=10,
    )
)
def test_any_json_is_survived(value: object) -> None:
    for answer in (json.dumps(value), value):
        queries = [item.query for item in parse_items(answer, limit=5)]
        assert len(queries) <= 5
        assert all(query.strip() == query and any(c.isalnum() for c in query) for query in queries)
