"""How real made-up questions look, told before anything is trained: in words, on any size, in any script."""

from __future__ import annotations

import json

import pytest

from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
from llama_index_embft.errors import ConfigError, GenerationError
from llama_index_embft.generation import question_realism
from llama_index_embft.search import LexicalIndex

FRUIT = (
    "apple", "banana", "cherry", "date", "elder", "fig", "grape", "hazel", "iris", "juniper", "kiwi", "lemon", "mango",
    "nectar", "olive", "peach", "quince",
)  # fmt: skip
CORPUS = {
    f"c{i}": f"The {fruit} grows on hill {i} and is picked by {fruit} farmers in May." for i, fruit in enumerate(FRUIT)
}


def asked(*pairs: tuple[str, str], corpus: dict[str, str] | None = None) -> EmbeddingQAFinetuneDataset:
    """Questions, each with the id of its passage."""
    return EmbeddingQAFinetuneDataset(
        queries={f"q{i}": text for i, (text, _) in enumerate(pairs)},
        corpus=corpus or CORPUS,
        relevant_docs={f"q{i}": [doc] for i, (_, doc) in enumerate(pairs)},
    )


def copied(n: int = 16) -> EmbeddingQAFinetuneDataset:
    return asked(*((f"Who picks the {fruit} on hill {i}?", f"c{i}") for i, fruit in enumerate(FRUIT[:n])))


def paraphrased(n: int = 16) -> EmbeddingQAFinetuneDataset:
    return asked(*((f"harvest season number {chr(97 + i)}", f"c{i}") for i in range(n)))


def test_questions_that_repeat_their_passage_are_called_so() -> None:
    found = question_realism(copied())
    assert (found.made.bm25_first, found.made.bm25_ten, found.real) == (1.0, 1.0, None)
    assert found.solved_by_words
    assert found.sentences() == (
        "By shared words alone 100 % of 16 made-up questions find their passage in the first ten (100 % in first "
        "place): they repeat their passages, and show little about questions in other words.",
        "Made-up questions have 7 words, of which 71 % stand in their passage.",
        "Kinds of made-up questions: who 100 %; 100 % end with a question mark.",
    )
    assert str(found) == "\n".join(found.sentences())


def test_real_ones_in_other_words_show_that_the_made_up_ones_are_easier() -> None:
    found = question_realism(copied(), paraphrased())
    assert found.real is not None
    assert (found.real.bm25_first, found.real.bm25_ten, found.real.overlap) == (0.0, 0.0, 0.0)
    assert found.solved_by_words
    assert "and 0 % of 16 real ones (0 %): the made-up ones are easier" in str(found)
    assert "Made-up questions have 7 words (real ones 4), of which 71 % (0 %) stand in their passage." in str(found)
    assert "who 100 % (real 0 %)" in str(found)
    assert "with a question mark at the end 100 % (real 0 %)" in str(found)
    assert json.loads(json.dumps(found.to_dict()))["in_words"] == list(found.sentences())


def test_made_up_ones_like_the_real_ones_are_not_blamed() -> None:
    same = question_realism(copied(), copied())
    assert not same.solved_by_words
    assert "no more than chance between them." in str(same)
    assert "In kind and question marks they differ no more than by chance." in str(same)
    harder = question_realism(paraphrased(), copied())
    assert not harder.solved_by_words
    assert "the made-up ones are harder." in str(harder)


@pytest.mark.parametrize("n", [1, 2])
def test_a_handful_shows_no_difference(n: int) -> None:
    found = question_realism(copied(16), asked(*[("Who picks the apple?", "c0")] * n))
    assert not found.solved_by_words
    assert question_realism(copied(1), ["Who picks figs?"]).made.n == 1


def test_bare_questions_are_compared_by_their_wording_alone() -> None:
    found = question_realism(copied(), ["apple season", "hill 3"])
    assert found.real is not None
    assert (found.real.bm25_ten, found.real.overlap, found.real.length) == (None, None, 2.0)
    assert "real ones find" not in str(found)
    assert "7 words (real ones 2), of which 71 % stand" in str(found)
    assert question_realism(copied(), []).real is None


def test_chinese_is_read_by_character() -> None:
    corpus = {
        "a": "公司的总部在上海，成立于一九九八年。",
        "b": "产品在北京生产，由工人检验。",
        "c": "员工每年有十五天假期。",
    }
    made = asked(("公司的总部在哪里？", "a"), ("产品由谁检验？", "b"), ("员工每年有多少天假期？", "c"), corpus=corpus)
    found = question_realism(made, ["请问放假几天"])
    assert found.made.bm25_first == 1.0
    assert found.made.length == 8
    assert 0.5 < (found.made.overlap or 0) < 1
    assert found.made.question_marks == 1.0
    assert set(found.made.kinds) == {"where", "who", "how"}


def test_a_passage_of_its_own_corpus_and_one_of_several_right_ones_count() -> None:
    other = asked(("Where do plums ripen?", "p"), corpus={"p": "Plums ripen in sheds.", "x": "Nothing."})
    found = question_realism(copied(), other)
    assert found.real is not None
    assert found.real.bm25_first == 1.0
    several = EmbeddingQAFinetuneDataset(
        queries={"q": "peach farmers"}, corpus=CORPUS, relevant_docs={"q": ["c0", f"c{FRUIT.index('peach')}"]}
    )
    assert question_realism(several).made.overlap == 1.0
    assert question_realism(several).made.bm25_first == 1.0


def test_sample_seed_and_a_ready_index() -> None:
    index = LexicalIndex.build(dict(CORPUS))
    few = question_realism(copied(), sample=5, lexical=index)
    assert few.made.n == 5
    assert few == question_realism(copied(), sample=5)
    empty = EmbeddingQAFinetuneDataset(queries={}, corpus=CORPUS, relevant_docs={})
    with pytest.raises(GenerationError, match="no made-up questions"):
        question_realism(empty)
    assert question_realism(copied(), empty).real is None
    with pytest.raises(ConfigError, match=r"`sample` is 0; it must be at least 1\."):
        question_realism(copied(), sample=0)


def test_questions_without_a_word() -> None:
    found = question_realism(asked(("???", "c0")))
    assert (found.made.overlap, found.made.bm25_ten, found.made.length) == (0.0, 0.0, 0)
