"""Near-duplicates: what counts as one, in which languages, and that nothing hangs on the order."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given, settings, strategies as st

from llama_index_embft.dataset import near_duplicate_groups
from llama_index_embft.dataset.near_duplicates import DisjointSets, _bands, normalise
from llama_index_embft.errors import ConfigError

WORDS = [f"word{n}" for n in range(400)]


def text(seed: int, length: int = 60) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=length))


def changed(base: str, *positions: int) -> str:
    words = base.split()
    for position in positions:
        words[position] = f"other{position}"
    return " ".join(words)


def test_equal_but_for_case_punctuation_and_spacing() -> None:
    assert near_duplicate_groups(["A cat sat.", "a CAT\n sat", "a dog sat", "ａ cat, sat"]) == [0, 0, 1, 0]


def test_one_changed_word_of_sixty_counts_and_ten_do_not() -> None:
    base = text(0)
    groups = near_duplicate_groups([base, changed(base, 30), changed(base, *range(0, 60, 6)), text(1)])
    assert groups == [0, 0, 1, 2]
    # 58 shingles, of which 3 differ: 55 of 61 overlap, that is 0.9016
    assert near_duplicate_groups([base, changed(base, 30)], 0.90) == [0, 0]
    assert near_duplicate_groups([base, changed(base, 30)], 0.91) == [0, 1]


def test_groups_are_transitive() -> None:
    chain = [text(0, 200)]
    for step in range(8):
        chain.append(changed(chain[-1], *range(step * 20, step * 20 + 3)))
    assert near_duplicate_groups([chain[0], chain[-1]]) == [0, 1]
    assert set(near_duplicate_groups(chain)) == {0}


@pytest.mark.parametrize(
    "base",
    [
        "故宫位于北京市中心,是明清两代的皇家宫殿,旧称紫禁城。它占地七十二万平方米,有大小宫殿七十多座,房屋九千余间。",
        "ภาษาไทยเป็นภาษาราชการและภาษาประจำชาติของประเทศไทยมีตัวอักษรเป็นของตัวเองและมีเสียงวรรณยุกต์ห้าเสียง",
        "日本の首都は東京であり、世界でも有数の大都市として知られている。人口はおよそ千四百万人である。",
    ],
    ids=["zh", "th", "ja"],
)
def test_scripts_without_spaces_count_by_character(base: str) -> None:
    other = "完全不同的一段文字,讲的是另一件事情,与前面没有任何关系。"
    near = base[:40] + "x" + base[41:]
    assert near_duplicate_groups([base, near, other], 0.75) == [0, 0, 1]


def test_texts_without_words_are_equal_only_to_themselves() -> None:
    assert near_duplicate_groups(["???", "!!!", "???", "", "one"]) == [0, 1, 0, 2, 3]
    assert near_duplicate_groups([]) == []


def test_short_texts_are_not_thrown_together() -> None:
    assert near_duplicate_groups(["page 1", "page 2", "one", "two", "revenue in 2020", "revenue in 2021"]) == [
        *range(6)
    ]


@pytest.mark.parametrize("threshold", [0.0, -1.0, 1.1, float("nan")])
def test_threshold_is_checked(threshold: float) -> None:
    with pytest.raises(ConfigError, match="threshold must be above 0 and at most 1"):
        near_duplicate_groups(["a"], threshold)


def test_threshold_one_joins_equal_texts_only() -> None:
    base = text(0, 500)
    assert near_duplicate_groups([base, base.upper(), changed(base, 3)], 1.0) == [0, 0, 1]


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.99])
def test_bands_miss_next_to_nothing(threshold: float) -> None:
    bands, rows = _bands(threshold)
    assert bands * rows <= 128
    assert (1 - threshold**rows) ** bands <= 1e-4


def test_a_template_in_thousands_of_copies_stays_fast() -> None:
    rng = random.Random(0)
    copies = [changed(text(0, 100), rng.randrange(100), rng.randrange(100)) for _ in range(2000)]
    start = time.perf_counter()
    groups = near_duplicate_groups([f"{copy} n{n}" for n, copy in enumerate(copies)], show_progress=False)
    assert time.perf_counter() - start < 15  # about 0.5 s; all pairs would be two million comparisons
    assert len(set(groups)) == 1


def test_disjoint_sets() -> None:
    sets = DisjointSets(5)
    sets.join(4, 2)
    sets.join(2, 1)
    assert sets.numbers() == [0, 1, 1, 2, 1]
    assert sets.find(4) == 1


def brute_force(texts: list[str], threshold: float) -> list[int]:
    """The definition, over all pairs."""
    shingles = []
    for content in texts:
        words = normalise(content).split()
        width = min(3, len(words))
        shingles.append({tuple(words[n : n + width]) for n in range(len(words) - width + 1)})
    sets = DisjointSets(len(texts))
    for a in range(len(texts)):
        for b in range(a):
            if len(shingles[a] & shingles[b]) / len(shingles[a] | shingles[b]) >= threshold:
                sets.join(a, b)
    return sets.numbers()


_edits = st.lists(st.tuples(st.integers(0, 3), st.lists(st.integers(0, 39), max_size=6)), min_size=1, max_size=12)


@given(_edits, st.sampled_from([0.5, 0.8, 0.9]))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_equals_the_definition_over_all_pairs(edits, threshold: float) -> None:
    texts = [changed(text(seed, 40), *positions) for seed, positions in edits]
    assert near_duplicate_groups(texts, threshold, show_progress=False) == brute_force(texts, threshold)


@given(_edits, st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_the_order_of_the_texts_does_not_matter(edits, rng) -> None:
    texts = [changed(text(seed, 40), *positions) for seed, positions in edits]
    order = rng.sample(range(len(texts)), len(texts))
    straight = near_duplicate_groups(texts, show_progress=False)
    shuffled = near_duplicate_groups([texts[n] for n in order], show_progress=False)
    pairs = {(a, b) for a in range(len(texts)) for b in range(len(texts)) if straight[a] == straight[b]}
    position = {n: place for place, n in enumerate(order)}
    assert pairs == {
        (a, b) for a in range(len(texts)) for b in range(len(texts)) if shuffled[position[a]] == shuffled[position[b]]
    }
