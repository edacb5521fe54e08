"""Prompts: deterministic by passage, in its language, with kinds in the shares asked for."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from llama_index_embft.errors import ConfigError
from llama_index_embft.generation import QUERY_KINDS, PromptStyle, QuestionSettings

ENGLISH = "The revenue of Lyft was higher in 2021 than in the year before."
CHINESE = "2021年，滴滴出行的收入比上一年有所增长。"


def style_of(template: str | None = None, n: int = 2, **settings: Any) -> PromptStyle:
    return PromptStyle(template, n, QuestionSettings(**settings))


def test_the_prompt_speaks_the_language_of_the_passage() -> None:
    style = PromptStyle()
    assert "Write 2 different search queries" in style.prompt_for(ENGLISH).body
    assert "请写出2个不同的查询" in style.prompt_for(CHINESE).body
    assert "每行一个" in style.prompt_for(CHINESE).format_line
    assert "请写出" not in style_of(language="en").prompt_for(CHINESE).body
    assert "请写出" in style_of(language="zh").prompt_for(ENGLISH).body


def test_german_passages_get_an_english_prompt_that_asks_for_german() -> None:
    body = PromptStyle().prompt_for("Der Umsatz der Firma ist im Jahr 2021 gestiegen und wird weiter steigen.").body
    assert "Write in the language of the passage" in body


def test_the_same_passage_gets_the_same_prompt_whatever_stands_around_it() -> None:
    options = {
        "personas": ["a", "b", "c"],
        "example_queries": [f"query {n}" for n in range(30)],
        "kinds": dict.fromkeys(QUERY_KINDS, 1.0),
    }
    first, second = style_of(**options), style_of(**options)
    second.prompt_for(CHINESE)
    assert first.prompt_for(ENGLISH) == second.prompt_for(ENGLISH)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_kinds_come_in_their_shares(n: int) -> None:
    style = style_of(n=n, kinds={"question": 5, "keyword": 3, "title": 2})
    counts: Counter[str] = Counter()
    for i in range(2000):
        prompt = style.prompt_for(f"passage {i}")
        assert len(prompt.kinds) == n
        counts.update(prompt.kinds)
    total = sum(counts.values())
    assert {kind: pytest.approx(count / total, abs=0.03) for kind, count in counts.items()} == {
        "question": 0.5,
        "keyword": 0.3,
        "title": 0.2,
    }


def test_two_queries_are_of_two_kinds_where_the_shares_allow() -> None:
    style = style_of(n=2, kinds={"question": 1, "keyword": 1})
    assert all(set(style.prompt_for(f"passage {i}").kinds) == {"question", "keyword"} for i in range(50))


@pytest.mark.parametrize("passage", [ENGLISH, CHINESE])
@pytest.mark.parametrize("kind", QUERY_KINDS)
def test_every_kind_has_its_words_in_both_languages(kind: str, passage: str) -> None:
    bodies = {other: style_of(n=1).prompt_for(passage, kinds=(other,)).body for other in QUERY_KINDS}
    assert len(set(bodies.values())) == len(QUERY_KINDS)
    if kind != "comparison":
        assert style_of(n=1, kinds={kind: 1.0}).prompt_for(passage).body == bodies[kind]


@pytest.mark.parametrize("passage", [ENGLISH, CHINESE])
def test_a_comparison_shows_both_passages_and_one_alone_is_asked_a_question(passage: str) -> None:
    style = style_of(n=2, kinds={"comparison": 1.0})
    both = style.prompt_for(passage, f"{passage} 2.")
    assert f"<passage>\n{passage}\n</passage>\n\n<passage>\n{passage} 2.\n</passage>" in both.body
    assert both.kinds == ("comparison", "comparison")
    assert passage not in both.without_passage
    assert style.prompt_for(passage) == style_of(n=2).prompt_for(passage)


def test_personas_and_examples_are_drawn_by_passage() -> None:
    style = style_of(personas=["a nurse", "a pilot"], example_queries=[f"real query {n}" for n in range(20)])
    bodies = [style.prompt_for(f"passage {i}").body for i in range(100)]
    assert 25 < sum("a nurse" in body for body in bodies) < 75
    assert all(("a nurse" in body) != ("a pilot" in body) for body in bodies)
    assert all(body.count("real query") == 6 for body in bodies)
    assert len({body[body.index("real query") :] for body in bodies}) > 50


def test_only_the_passage_stays_out_of_the_identity() -> None:
    expected = PromptStyle().prompt_for("one passage here").without_passage
    assert PromptStyle().prompt_for("another passage there").without_passage == expected
    for other in (style_of(n=3), style_of(with_answers=True), style_of(kinds={"title": 1.0})):
        assert other.prompt_for("one passage here").without_passage != expected


def test_a_template_of_the_users_own_is_used_as_in_the_peer() -> None:
    prompt = style_of(template="{num_questions_per_chunk} on: {context_str} {{json}}", n=4).prompt_for("a {brace} b")
    assert prompt.body == "4 on: a {brace} b {json}"
    assert prompt.format_line == ""


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"n": 0}, "`num_questions_per_chunk` is 0; it must be at least 1"),
        ({"template": "no place for text"}, "must contain {context_str}"),
        ({"template": "{context_str} {foo}"}, "unknown placeholder {foo}"),
        ({"template": "{context_str} {"}, "unmatched braces"),
        ({"template": "{context_str:.500}"}, "has a format within {context_str}; write {context_str} alone"),
        ({"template": "{context_str!r}"}, "has a format within {context_str}"),
        ({"template": ["{context_str}"]}, "is a list; give the prompt as a text"),
        ({"template": "{context_str}", "personas": ["x"]}, "of your own decides"),
        ({"kinds": {"riddle": 1}}, "`kinds` is 'riddle'; it must be one of 'question',"),
        ({"kinds": {"question": 0}}, r"`kinds\['question'\]` is 0; it must be above 0"),
        ({"kinds": {}}, "a share above 0"),
        ({"kinds": {"question": float("nan")}}, "is nan; it must be above 0"),
        ({"kinds": {"question": "1"}}, "is '1', which is not a number"),
        ({"kinds": ["keyword"]}, "give each kind its share, such as {'keyword': 0.5}"),
        ({"personas": None}, "`personas` is None; it must be a list"),
        ({"personas": "a nurse"}, "`personas` is 'a nurse'; it must be a list"),
        ({"example_queries": ["", "x"]}, "`example_queries` is .*; it must be a list"),
        ({"language": "fr"}, "`language` is 'fr'; it must be one of 'auto', 'en', 'zh'"),
    ],
)
def test_senseless_styles_are_refused(options: dict, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        style_of(**options)
