"""The choice among candidates equals one that is made the plain way, query by query, over several blocks of queries."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest

from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
from llama_index_embft.errors import ConfigError
from llama_index_embft.mining import MiningSettings, mine_hard_negatives
from llama_index_embft.mining.context import BLOCK_UNIT, Candidates
from llama_index_embft.mining.strategies import Source
from llama_index_embft.mining.teachers import Teacher

QUERIES, TEXTS, WANTED = 2 * BLOCK_UNIT + 30, 150, 3  # so many that they are two blocks


class Moody(Teacher):
    """Finds every third pair relevant."""

    def __init__(self):
        self.scores = {}

    def __str__(self):
        return "moody"

    def relevant(self, context, pairs):
        return [(7 * pair.query + pair.row) % 3 == 0 for pair in pairs]


class Lenient(Moody):
    """Finds none relevant, and is not asked about nothing."""

    def __str__(self):
        return "lenient"

    def relevant(self, context, pairs):
        assert pairs
        return [False] * len(pairs)


@pytest.fixture(scope="module")
def data():
    """Each text twice, so that whoever finds one relevant has to leave out the other."""
    rng = np.random.default_rng(0)
    words = [f"{rng.integers(10**9)} {rng.integers(10**9)} {n}" for n in range(TEXTS)]
    corpus = {f"d{n}": words[n % TEXTS] + ("" if n < TEXTS else "!") for n in range(2 * TEXTS)}
    dataset = EmbeddingQAFinetuneDataset(
        queries={f"q{n}": f"ask {n}" for n in range(QUERIES)},
        corpus=corpus,
        relevant_docs={f"q{n}": [f"d{n % TEXTS}"] for n in range(QUERIES)},
    )
    queries, vectors = rng.normal(size=(QUERIES, 8)), rng.normal(size=(2 * TEXTS, 8))
    return dataset, (
        (queries / np.linalg.norm(queries, axis=1, keepdims=True)).astype(np.float32),
        (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32),
    )


def twins(row: int) -> set[int]:
    return {row, (row + TEXTS) % (2 * TEXTS)}


def chosen(query: int, candidates: list[int]) -> tuple[list[int], list[int], int, int]:
    """Negatives, new positives, and how many were dropped by the teacher and for their likeness to a new positive."""
    waiting, accepted, blocked, positives = deque(candidates), [], set(), []
    by_teacher = by_likeness = 0
    while True:
        asked = []
        while waiting and len(asked) < WANTED - len(accepted):
            row = waiting.popleft()
            if row in blocked:
                by_likeness += 1
            else:
                asked.append(row)
        if not asked:
            return accepted, positives, by_teacher, by_likeness
        for row in asked:
            if (7 * query + row) % 3 == 0:
                by_teacher += 1
                if row not in blocked:
                    positives.append(row)
                blocked |= twins(row)
        kept = [*accepted, *(row for row in asked if (7 * query + row) % 3)]
        accepted = [row for row in kept if row not in blocked]
        by_likeness += len(kept) - len(accepted)


@pytest.mark.parametrize("pad", [False, True])
def test_teachers_are_asked_until_enough_is_left_and_their_finds_leave_with_their_copies(data, pad):
    dataset, vectors = data
    strategies = ["rank:1-6", Moody(), Lenient()]
    settings = MiningSettings(pad=pad, memory=1 << 20)
    mined = mine_hard_negatives(dataset, vectors, strategies, WANTED, relabel=True, settings=settings)
    cosines = vectors[0].astype(np.float64) @ vectors[1].T.astype(np.float64)
    place = {doc: row for row, doc in enumerate(dataset.corpus)}
    expected = []
    for query in range(QUERIES):
        own = twins(query % TEXTS)
        near = [row for row in np.argsort(-cosines[query]).tolist() if row not in own][:6]
        expected.append((own, *chosen(query, near)))
    for query, (own, negatives, positives, *_) in enumerate(expected):
        found = [place[doc] for doc in mined.negative_docs.get(f"q{query}", [])]
        assert found[: len(negatives)] == negatives
        if pad:
            barred = own.union(*map(twins, positives))
            assert len(set(found)) == WANTED
            assert not barred & set(found)
        else:
            assert len(found) == len(negatives)
        assert mined.relevant_docs[f"q{query}"] == [f"d{query % TEXTS}", *(f"d{row}" for row in positives)]
    counts = [len(negatives) for _, negatives, *_ in expected]
    assert set(counts) == {0, 1, 2, 3}  # else this shows less
    report = mined.report
    assert report.dropped == {
        "moody": sum(by_teacher for *_, by_teacher, _ in expected),
        "lenient": 0,
        "likeness to a new positive": sum(by_likeness for *_, by_likeness in expected),
    }
    assert report.short == (0 if pad else sum(0 < count < WANTED for count in counts))
    assert report.without == (0 if pad else counts.count(0))
    assert report.padded == (sum(WANTED - count for count in counts) if pad else 0)


class Strict(Moody):
    """Finds all relevant."""

    def relevant(self, context, pairs):
        return [True] * len(pairs)


def test_where_the_first_teacher_leaves_nothing_the_second_is_not_asked(data):
    with pytest.raises(ConfigError, match="moody dropped"):
        mine_hard_negatives(*data, ["rank:1-6", Strict(), Lenient()], WANTED)


class Listed(Source):
    """Proposes what it is given, with gaps."""

    def __init__(self, name: str, rows: list[int]) -> None:
        self.name, self.rows = name, rows

    def __str__(self) -> str:
        return self.name

    def propose(self, block) -> Candidates:
        rows = np.tile(np.array(self.rows, dtype=np.int64), (len(block), 1))
        return Candidates(rows, np.where(rows >= 0, rows / 1000, -np.inf).astype(np.float32))


def test_a_source_with_gaps_loses_no_turn():
    docs = 200
    dataset = EmbeddingQAFinetuneDataset(
        queries={"q": "?"}, corpus={f"d{n}": f"text {n}" for n in range(docs)}, relevant_docs={"q": ["d199"]}
    )
    vectors = np.ones((1, 2)), np.ones((docs, 2))
    rng = np.random.default_rng(1)
    one = np.where(rng.random(60) < 0.5, rng.permutation(90)[:60], -1).tolist()
    two = np.where(rng.random(50) < 0.5, 90 + rng.permutation(90)[:50], -1).tolist()
    mined = mine_hard_negatives(dataset, vectors, [Listed("one", one), Listed("two", two)], 40)
    turns = [[row for row in rows if row >= 0] for rows in (one, two)]
    merged = [row for pair in zip(*turns, strict=False) for row in pair]
    rest = turns[0][len(turns[1]) :] + turns[1][len(turns[0]) :]
    found = [*merged, *rest][:40]
    assert mined.negative_docs == {"q": [f"d{row}" for row in found]}
    assert mined.report.proposed == {"one": len(turns[0]), "two": len(turns[1])}
    assert mined.report.negative_scores[0, : len(found)] == pytest.approx(np.array(found) / 1000)
    assert mined.report.origin[0, : len(found)].tolist() == [int(row >= 90) for row in found]


def test_the_first_document_is_one_like_every_other():
    def mined(docs: int, strategy: str, wanted: int, **settings):
        dataset = EmbeddingQAFinetuneDataset(
            queries={"q": "?"},
            corpus={f"d{n}": f"text number {n}" for n in range(docs)},
            relevant_docs={"q": [f"d{docs - 1}"]},
        )
        vectors = np.ones((1, 2)), np.stack([np.ones(docs), np.arange(docs)], axis=1)
        return mine_hard_negatives(dataset, vectors, strategy, wanted, settings=MiningSettings(**settings))

    assert mined(2, "rank:1-1", 1).negative_docs == {"q": ["d0"]}
    assert set(mined(4, "rank:1-1", 3, pad=True).negative_docs["q"]) == {"d0", "d1", "d2"}
