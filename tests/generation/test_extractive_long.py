"""The extractive kinds on text that is no prose, such as one line of megabytes: time grows with its length."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from llama_index.core.schema import TextNode

from llama_index_embft.generation import generate_extractive_pairs
from llama_index_embft.generation.extractive import japanese
from llama_index_embft.generation.extractive.chunk import Chunk, headings_of, organisation_of
from llama_index_embft.generation.extractive.text import split_sentences
from llama_index_embft.generation.extractive.well_formed import broken_rules

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _at_once() -> Iterator[None]:
    """Each of these took ten seconds to minutes where the time grew with the square of the length."""
    begin = time.process_time()
    yield
    assert time.process_time() - begin < 4


def test_a_register_of_thousands_of_companies() -> None:
    register = [f"We buy from Xq{n}ab Inc. and from Yq{n}ab Corporation." for n in range(4000)]
    assert organisation_of(register) == ""
    assert organisation_of([*register, *["Zenit Tools Inc. is ours."] * 600]) == "Zenit Tools"


def test_a_name_of_one_endless_word() -> None:
    assert organisation_of(["We, our. " * 4 + "A-" * 50_000]) == ""


def test_a_heading_of_spaces() -> None:
    (heading,) = headings_of({}, "# Title" + " " * 50_000 + "x")
    assert heading == "Title x"


def test_marks_that_close_a_heading_are_left_out_and_those_of_a_name_stay() -> None:
    assert headings_of({}, "# A ##\n\n## C#\n\n##  B  \n# #\n   # deep # x #\n#no") == ("A", "C#", "B", "deep # x")


def test_a_sentence_of_more_than_two_thousand_characters_is_no_prose() -> None:
    sentence = "The blue whale is a marine mammal of great size."
    for long in ("Is this a sentence of a file with " + "a" * 100_000, "（" * 100_000 + "北京位于中国的北部地区"):
        assert Chunk(f"{sentence}\n\n{long}.").sentences == (sentence,)
        assert broken_rules(f"{long}?", "en") == ["too long"]


@pytest.mark.parametrize("word", ["Mr. ", "z. B. ", "A. "])
def test_a_sentence_of_abbreviations(word: str) -> None:
    assert split_sentences(f"{word * 60_000}Smith came. He left.") == [f"{word * 60_000}Smith came.", "He left."]


def test_brackets_that_nothing_closes_in_japanese() -> None:
    assert japanese.sentence_questions("東京は日本の首都である" + "（" * 50_000) == []
    assert japanese.sentence_questions("東京（とうきょう）は日本の首都である。") == ["東京とは何ですか？"]


@pytest.mark.parametrize("kind", ["title", "crop"])
def test_no_question_is_as_long_as_a_file(kind: str) -> None:
    whale = "The blue whale is a marine mammal. It was hunted for oil in 1931 by whalers from Norway."
    long = "$1," * 50_000
    nodes = [
        TextNode(text=f"# Blue Whales\n\n# Whales of Old {long} Norway\n\n{long} {whale}"),
        TextNode(text="Mills grind."),
    ]
    questions = generate_extractive_pairs(nodes, kinds=[kind], num_questions_per_chunk=9).queries.values()
    assert questions
    assert max(map(len, questions)) < 100
