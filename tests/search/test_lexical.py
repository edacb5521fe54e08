"""BM25: the same figures as a plain computation, in any script, fast on hostile text, and whole after a restart."""

from __future__ import annotations

import json
import time
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from llama_index_embft.errors import ConfigError, ModelError
from llama_index_embft.search import LexicalIndex, terms, words

TEXTS = {
    "a": "The quick brown fox jumps over the lazy dog",
    "b": "A fox is not a dog, and a dog is no fox",
    "c": "Der Vertrag ist zu kündigen",
    "d": "The quick brown fox jumps over the lazy dog",
    "e": "",
}


def plain_bm25(texts: dict[str, str], query: str) -> np.ndarray:
    """Lucene's BM25 by its formula, one word after the other."""
    cut = [terms(text) for text in texts.values()]
    mean = sum(map(len, cut)) / len(cut)
    scores = []
    for text in cut:
        total = 0.0
        for word in terms(query):
            holding = sum(word in other for other in cut)
            idf = np.log(1 + (len(cut) - holding + 0.5) / (holding + 0.5))
            count = text.count(word)
            total += idf * count / (count + 1.5 * (1 - 0.75 + 0.75 * len(text) / mean))
        scores.append(total)
    return np.array(scores)


@pytest.mark.parametrize("query", ["fox", "quick dog dog", "vertrag KÜNDIGEN", "zebra", "", "the fox and the dog"])
def test_scores_are_those_of_the_formula(query):
    index = LexicalIndex.build(TEXTS)
    expected = plain_bm25(TEXTS, query)
    every = index.scores_of([query], np.arange(len(TEXTS))[None])[0]
    np.testing.assert_allclose(every, expected, rtol=1e-5, atol=1e-6)
    rows, scores = index.search([query], 10)
    hits = rows[0][rows[0] >= 0]
    assert hits.tolist() == [row for row in np.argsort(-every, kind="stable") if every[row] > 0]
    np.testing.assert_array_equal(scores[0][: len(hits)], every[hits])
    assert np.isneginf(scores[0][len(hits) :]).all()


def test_the_index_is_the_one_that_bm25s_makes():
    import bm25s

    index = LexicalIndex.build(TEXTS)
    reference = bm25s.BM25()
    reference.index([terms(text) for text in TEXTS.values()], show_progress=False)
    for query in ("fox", "the quick dog dog", "Vertrag kündigen fox"):
        expected = reference.get_scores(terms(query))
        np.testing.assert_allclose(index.scores_of([query], np.arange(5)[None])[0], expected, rtol=1e-5, atol=1e-6)


def test_of_equal_texts_the_first_wins_at_every_depth():
    index = LexicalIndex.build({f"n{i}": "one and the same" for i in range(20)} | {"other": "something else"})
    for k in (1, 3, 20, 30):
        rows = index.search(["same"], k).rows[0]
        assert rows[: min(k, 20)].tolist() == list(range(min(k, 20)))
        assert (rows[20:] == -1).all()


def test_many_queries_at_once_are_each_as_alone():
    index = LexicalIndex.build(TEXTS)
    queries = ["fox", "", "dog lazy", "kündigen"]
    together = index.search(queries, 3)
    for line, query in enumerate(queries):
        alone = index.search([query], 3)
        np.testing.assert_array_equal(together.rows[line], alone.rows[0])
        np.testing.assert_array_equal(together.scores[line], alone.scores[0])
        np.testing.assert_array_equal(index.search(query, 3).rows, alone.rows)
    assert index.search([], 3).rows.shape == (0, 3)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Straße ﬁnden, NAÏVE", ["strasse", "finden", "naïve"]),
        ("cafe\u0301", ["café"]),
        ("max_line_length = 3", ["max_line_length", "max", "line", "length", "3"]),
        ("_private __ ____", ["_private", "private"]),
        ("北京大学", ["北", "京", "大", "学", "北京", "京大", "大学"]),
        ("東京タワー", ["東", "京", "タ", "ワ", "ー", "東京", "京タ", "タワ", "ワー"]),
        ("서울은 컵", ["서울", "울은", "컵"]),
        ("ภาษาไทย", ["ภาษ", "าษา", "ษาไ", "าไท", "ไทย", "ภาษา", "าษาไ", "ษาไท", "าไทย"]),
        ("हिन्दी", ["हिन्दी"]),
        ("ＡＢＣ１２", ["abc12"]),
        ("GPT-4とは", ["gpt", "4", "と", "は", "とは"]),
        ("  \n !? \ud800", []),
    ],
)
def test_words_of_many_scripts(text, expected):
    assert words(text) == expected


def test_terms_are_the_words_and_their_beginnings():
    beginnings = ["^steue", "^2024", "^max_l", "^max", "^len"]
    assert terms("Steuererklärung 2024, max_len 北京") == [*words("Steuererklärung 2024, max_len 北京"), *beginnings]
    index = LexicalIndex.build({"x": "Steuern und Abgaben", "y": "Die Steuererklärung", "z": "Stau auf der Autobahn"})
    assert index.search(["Steuererklärungen"], 3).rows[0].tolist() == [1, 0, -1]


def test_a_korean_word_is_found_whatever_particle_it_carries():
    index = LexicalIndex.build({"x": "서울에서는 인구가 줄고 있다", "y": "부산은 바다가 가깝다"})
    assert index.search(["서울의 인구"], 2).rows[0].tolist() == [0, -1]


def test_a_thai_word_is_found_inside_a_sentence_without_spaces():
    index = LexicalIndex.build({"x": "กรุงเทพมหานครเป็นเมืองหลวงของประเทศไทย", "y": "เชียงใหม่อยู่ทางภาคเหนือ"})
    assert index.search(["เมืองหลวง"], 2).rows[0].tolist() == [0, -1]


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=300))
def test_any_text_is_cut_the_same_composed_or_not(text):
    cut = words(text)
    assert all(word and len(word) <= 400 for word in cut)
    assert cut == words(unicodedata.normalize("NFC", text)) or not unicodedata.is_normalized("NFC", text)
    index = LexicalIndex.build({"it": text, "other": "word"})
    assert (0 in index.search([text], 2).rows[0]) == bool(cut)


@pytest.mark.parametrize(
    "text",
    ["e" + "\u0301\u0323" * 200_000, "x" * 400_000, "_" * 400_000, "a_" * 200_000, "北" * 200_000, "ก" * 200_000],
    ids=["accents", "one word", "underscores", "parts", "chinese", "thai"],
)
def test_hostile_text_takes_time_in_proportion(text):
    def seconds(part: str) -> float:
        start = time.process_time()
        words(part)
        return time.process_time() - start

    half, whole = min(seconds(text[: len(text) // 2]) for _ in range(2)), seconds(text)
    assert whole < 6 * half + 0.2  # four times is what the square of the length would take
    assert whole < 5


def test_a_query_of_a_million_words_asks_for_each_once():
    index = LexicalIndex.build({str(i): f"word{i % 7} common" for i in range(2000)})
    start = time.process_time()
    long = index.search(["common word3 " * 300_000], 5)
    assert time.process_time() - start < 5
    np.testing.assert_array_equal(long.rows, index.search(["common word3"], 5).rows)


def test_an_updated_index_equals_one_built_anew():
    index = LexicalIndex.build(TEXTS)
    new = index.updated({"f": "a new fox came by", "b": "its text has changed"}, removed=["a", "unknown"])
    texts = {"c": TEXTS["c"], "d": TEXTS["d"], "e": "", "f": "a new fox came by", "b": "its text has changed"}
    fresh = LexicalIndex.build(texts)
    assert new.ids == fresh.ids
    for query in ("fox", "text changed", "the lazy dog", "kündigen"):
        np.testing.assert_array_equal(new.search([query], 5).rows, fresh.search([query], 5).rows)
        np.testing.assert_allclose(new.search([query], 5).scores, fresh.search([query], 5).scores, rtol=1e-6)
    assert index.ids == tuple(TEXTS)  # the old one still answers
    assert index.search(["fox"], 5).rows[0].tolist() == [1, 0, 3, -1, -1]
    with pytest.raises(ConfigError, match="No text would be left"):
        index.updated({}, removed=TEXTS)


def test_it_is_the_same_after_a_restart(tmp_path):
    texts = TEXTS | {"\u96ea/../\ud800": "北京大学 snow"}
    index = LexicalIndex.build(texts)
    index.save(tmp_path)
    assert not list(tmp_path.rglob("*.pkl"))
    loaded = LexicalIndex.load(tmp_path)
    assert loaded.ids == index.ids
    assert loaded.row_of == index.row_of
    for query in ("fox dog", "大学", "zebra"):
        for mine, other in zip(index.search([query], 4), loaded.search([query], 4), strict=True):
            np.testing.assert_array_equal(mine, other)
    more = {"new": "another fox"}
    np.testing.assert_array_equal(
        loaded.updated(more).search(["fox"], 9).scores, index.updated(more).search(["fox"], 9).scores
    )


@pytest.mark.parametrize("texts", [{"a": "", "b": "?!"}, {"a": "one"}])
def test_texts_without_words_or_a_single_one_can_be_kept(tmp_path, texts):
    LexicalIndex.build(texts).save(tmp_path)
    loaded = LexicalIndex.load(tmp_path)
    assert len(loaded.updated({"c": "two"})) == len(texts) + 1
    assert loaded.search(["two"], 2).rows.tolist() == [[-1, -1]]
    assert loaded.search(["one"], 1).rows.tolist() == [[0 if "one" in texts.values() else -1]]


def damage_ids(folder):
    about = json.loads((folder / "lexical.json").read_text())
    about["ids"].pop()
    (folder / "lexical.json").write_text(json.dumps(about))


def point_outside(folder):
    name = next(folder.glob("indices*.npy"))
    rows = np.load(name)
    rows[0] = 10**6
    np.save(name, rows)


def truncate(folder):
    name = next(folder.glob("data*.npy"))
    name.write_bytes(name.read_bytes()[:-3])


def smuggle_a_pickle(folder):
    np.save(next(folder.glob("data*.npy")), np.array([{"not": "numbers"}], dtype=object), allow_pickle=True)


@pytest.mark.parametrize("damage", [damage_ids, point_outside, truncate, smuggle_a_pickle])
def test_a_damaged_index_is_refused_in_one_sentence(tmp_path, damage):
    LexicalIndex.build(TEXTS).save(tmp_path)
    damage(tmp_path)
    with pytest.raises(ModelError, match=r"The lexical index in .* cannot be read .*build it again from its texts\.$"):
        LexicalIndex.load(tmp_path)


def test_an_index_of_other_words_is_refused(tmp_path):
    LexicalIndex.build(TEXTS, tokens=str.split).save(tmp_path)
    with pytest.raises(ModelError, match=r"was built with words cut by .*str\.split"):
        LexicalIndex.load(tmp_path)
    assert LexicalIndex.load(tmp_path, tokens=str.split).search(["lazy"], 3).rows[0].tolist() == [0, 3, -1]


def test_bad_input_is_named():
    with pytest.raises(ConfigError, match="There are no texts"):
        LexicalIndex.build({})
    index = LexicalIndex.build(TEXTS)
    with pytest.raises(ConfigError, match="`k` is 0"):
        index.search(["fox"], 0)
    with pytest.raises(ConfigError, match="names rows outside"):
        index.scores_of(["fox"], np.array([[5]]))
    with pytest.raises(ConfigError, match="it must be"):
        index.scores_of(["fox", "dog"], np.array([[0]]))
    assert np.isneginf(index.scores_of(["fox"], np.array([[-1, 0]]))[0, 0])
