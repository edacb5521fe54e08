"""Adapters, moved documents and drift maps: each fault that was found, and the right value in its place."""

from __future__ import annotations

import numpy as np
import pytest

from llama_index_embft.finetune import DriftAdapter


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


class TwoModels:
    """Two models' vectors of the same texts: shared meaning, each with a noise of its own."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(0)
        self._maps = [self._rng.standard_normal((16, 48)) for _ in range(2)]

    def vectors(self, n: int) -> list[np.ndarray]:
        meaning = self._rng.standard_normal((n, 16))
        return [unit(meaning @ m + 1.2 * self._rng.standard_normal((n, 48))) for m in self._maps]


@pytest.mark.parametrize("size", [500])
def test_a15_the_drift_report_promises_what_the_whole_index_keeps(size) -> None:
    models = TwoModels()
    old, new = models.vectors(size)
    everything = models.vectors(20_000)
    drift = DriftAdapter.fit(old, new, [str(i) for i in range(size)], kind="low-rank", index_size=20_000)
    score = drift.report.chosen
    assert drift.report.documents == 2 * (size // 5)  # and none of them was fitted on
    queries = models.vectors(200)[1]
    assert score.kept == pytest.approx(
        drift.kept_over(queries, old[: 2 * (size // 5)], new[: 2 * (size // 5)]), abs=0.1
    )
    true = drift.kept_over(queries, *everything)
    assert score.kept > true + 0.1  # over the sample it looks better
    assert score.kept_in_index == pytest.approx(true, abs=0.07)
    low, high = score.kept_in_index_ci95
    assert low < true < high
    assert f"over the 20,000 documents of the index expect {score.kept_in_index:.1%}" in str(drift.report)


def test_a15_without_the_size_of_the_index_the_report_says_that_it_promises_nothing() -> None:
    old, new = TwoModels().vectors(300)
    texts = [str(i) for i in range(300)]
    said = str(DriftAdapter.fit(old, new, texts, kind="procrustes").report)
    assert "over unseen 120 documents of the sample" in said
    assert "pass index_size" in said
    report = DriftAdapter.fit(old, new, texts, kind="procrustes", index_size=300).report
    assert report.documents == 300
    assert report.chosen.kept_in_index == report.chosen.kept
