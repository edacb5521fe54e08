"""The text tools and templates behind the extractive kinds: sentences, key phrases, English and Chinese questions."""

from __future__ import annotations

import random

import pytest

from llama_index_embft.generation import KINDS
from llama_index_embft.generation.extractive import chinese, english
from llama_index_embft.generation.extractive.kinds import thin
from llama_index_embft.generation.extractive.text import (
    Chunk,
    CorpusTerms,
    candidate_phrases,
    clean,
    is_prose,
    split_sentences,
    terms,
    words,
)


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Dr. No met J. Bond. He won 1.5 games.", ["Dr. No met J. Bond.", "He won 1.5 games."]),
        ("It is prohibited.Recent events show it.", ["It is prohibited.", "Recent events show it."]),
        ("See Fig. 3 for the U.S. share. Next one.", ["See Fig. 3 for the U.S. share.", "Next one."]),
        ("One line\ngoes on. End.\n\nNew block", ["One line goes on.", "End.", "New block"]),
        ("他来了。“走吧！”她说；好的", ["他来了。", "“走吧！”", "她说；", "好的"]),
        ("", []),
    ],
)
def test_sentences(text: str, sentences: list[str]) -> None:
    assert split_sentences(text) == sentences


def test_words_keep_numbers_and_abbreviations_whole_and_cut_glued_sentences() -> None:
    assert words("The U.S. share of 1,234.5 re-enters code.We don't") == [
        "The", "U.S", "share", "of", "1,234.5", "re-enters", "code", "We", "don't",
    ]  # fmt: skip
    assert words("鱼长18厘米") == ["鱼", "长", "18", "厘", "米"]


def test_clean_joins_hyphenated_line_ends_and_spaces() -> None:
    assert clean("an exam-\nple  of\n text") == "an example of text"


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("The cat sat on the mat and it was happy.", "en"),
        (
            "Many patients have had more bleeding than others, while some have not had any. However, they should also "
            "have received anticoagulants because their physicians may recommend them; if they refuse, their relatives "
            "might agree or not.",
            "en",
        ),
        ("Der Hund läuft schnell durch den großen Wald und bellt.", "other"),
        ("鱼长18厘米，分布于美国。", "zh"),
        ("これはペンです。とても便利ですよ。", "other"),
        ("12 34 56", "other"),
        ("", "other"),
    ],
)
def test_language(text: str, language: str) -> None:
    assert Chunk(text).language == language


@pytest.mark.parametrize(
    ("sentence", "prose"),
    [
        ("Total revenue grew by a third over the previous year.", True),
        ("Revenue 2021 2020 2019 3,208 2,364 3,616 12 44", False),
        ("PART II ITEM ONE BUSINESS OVERVIEW OF RISKS", False),
        ("Risk Factors ........................ 12 and so on more", False),
        ("Too short.", False),
        ("美洲似银汉鱼分布于美国奥勒冈州沿岸。", True),
    ],
)
def test_prose(sentence: str, prose: bool) -> None:
    assert is_prose(sentence) is prose


def test_terms_are_content_words_or_pairs_of_characters() -> None:
    assert terms("The price of Krill") == ["price", "krill"]
    assert terms("银汉鱼，鱼") == ["银汉", "汉鱼"]  # no pair across punctuation


def test_phrases_stop_at_stop_words_punctuation_and_page_numbers() -> None:
    assert candidate_phrases("Revenue recognition of the gross bookings, marketplace fee") == [
        "Revenue recognition", "gross bookings", "marketplace fee",
    ]  # fmt: skip
    assert candidate_phrases("Flows83Notes Item") == []
    assert "银汉鱼目" in candidate_phrases("它是银汉鱼目的一种")
    assert "广州恒大" in candidate_phrases("加入《广州恒大》")


def test_key_phrases_prefer_what_is_frequent_here_and_rare_elsewhere() -> None:
    here = "Whales live on krill swarms. There are krill swarms here. The annual report says nothing."
    corpus = CorpusTerms([here, "The annual report of the bank.", "An annual report again."])
    assert corpus.key_phrases(here, 1) == ["krill swarms"]
    assert "annual report" not in corpus.key_phrases(here, 3)
    assert corpus.rarity("unheard") > corpus.rarity("krill") > corpus.rarity("annual") == 0


@pytest.mark.parametrize(
    ("sentence", "question"),
    [
        ("A blue whale is a marine mammal of great size.", "What is blue whale?"),
        ("“Gross Bookings” means the total dollar value of rides.", 'What does "Gross Bookings" mean?'),
        ("In addition, the drivers may stop using our platform.", "How may the drivers stop using our platform?"),
        ("In addition, the drivers may stop using our platform.", "What may stop using our platform?"),
        ("The notes were issued in May 2020 to investors.", "When were the notes issued to investors?"),
        ("Revenue was lower in Europe because riders stayed at home.", "Why was revenue lower in Europe?"),
        ("Cost of revenue rose by $1.2 billion in Europe alone.", "How much cost of revenue rose in Europe alone?"),
        ("If a rider cancels too late, the driver may claim a fee.", "What happens if a rider cancels too late?"),
        ("Goodwill represents the excess of price over value.", "What does goodwill represent?"),
        ("Goodwill represents the excess of price over value.", "What represents the excess of price over value?"),
        ("The IPO could be delayed until 2024 by the regulator.", "When could the IPO be delayed by the regulator?"),
    ],
)  # fmt: skip
def test_english_questions(sentence: str, question: str) -> None:
    assert question in english.sentence_questions(sentence)


def test_long_questions_are_cut_before_a_linking_word() -> None:
    asked = english.sentence_questions("The notes can " + "be sold and held " * 12 + "in full by the bank.")
    assert asked
    assert all(len(q.split()) <= 24 and q.endswith(("held?", "sold?")) for q in asked)


@pytest.mark.parametrize("sentence", ["It is a mammal.", "There was no other way to go on from here.", "Yes."])
def test_english_sentences_without_a_subject_define_nothing(sentence: str) -> None:
    assert not [q for q in english.sentence_questions(sentence) if q.startswith("What")]


@pytest.mark.parametrize(
    ("sentence", "question"),
    [
        ("雪山鱼体长可达45厘米。", "雪山鱼体长可达多少厘米？"),
        ("1860年被首次描述。", "雪山鱼{什么时候|哪一年|何时}被首次描述？"),
        ("又称银汉鱼。", "雪山鱼又称什么？"),
        ("由于过度捕捞，它的数量逐年下降。", "为什么雪山鱼的数量逐年下降？"),
        ("主要分布区位于太平洋沿岸。", "雪山鱼主要分布区位于{哪里|什么地方}？"),
        ("生活在寒冷的深水中。", "雪山鱼生活{在哪里|于什么地方}？"),
        ("以小虾和水草为食。", "雪山鱼以什么为食？"),
        ("雪山鱼是银汉鱼科的一种鱼类。", "雪山鱼是什么？"),
    ],
)
def test_chinese_questions_ask_in_place_and_carry_the_topic(sentence: str, question: str) -> None:
    chunk = Chunk(f"雪山鱼（学名），是一种鱼。{sentence}")
    assert chinese.topic_of(chunk) == "雪山鱼"
    head, _, rest = question.partition("{")
    choices, _, tail = rest.partition("}")
    assert {f"{head}{choice}{tail}" for choice in choices.split("|")} & set(chinese.sentence_questions(chunk, sentence))


@pytest.mark.parametrize("text", ["后来他去了北京，再没有回来。", "1997年，他加入了球队。", ""])
def test_chinese_topic_is_empty_where_the_text_does_not_open_with_one(text: str) -> None:
    assert chinese.topic_of(Chunk(text)) == ""


def test_thinning_keeps_order_and_drops_function_words_more_often() -> None:
    sentence = "the cat of the house with a red hat sat on the very old mat near a warm green stove"
    rng = random.Random(0)
    kept = [thin(sentence, rng).split() for _ in range(300)]
    order = words(sentence)
    for text in kept:
        left = iter(order)
        assert all(word in left for word in text)
    flat = [word for text in kept for word in text]
    assert flat.count("stove") > 1.5 * flat.count("with")
    assert max(map(len, kept)) <= 16


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("text", ["", "x", "1 2 3", "。。。", "word " * 300, "字" * 500, "Zeile ohne Punkt"])
def test_kinds_survive_odd_text(kind: str, text: str) -> None:
    made = KINDS[kind](Chunk(text), CorpusTerms([text, "another text"]), random.Random(0))
    assert all(isinstance(question, str) for question in made)
