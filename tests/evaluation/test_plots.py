"""Plots as PNG files, and slices by language."""

from __future__ import annotations

from pathlib import Path

import pytest
from evaluation_helpers import many_queries, noisy_report
from PIL import Image

from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
from llama_index_embft.errors import ConfigError
from llama_index_embft.evaluation import compare
from llama_index_embft.evaluation.pages import save_plots
from llama_index_embft.evaluation.pages.plots_png import _dashes
from llama_index_embft.evaluation.statistics.slices import language_of

BASE, TUNED, BETTER, WORSE = (0x66, 0x75, 0x8A), (0x1F, 0x5F, 0xD6), (0x0E, 0x6F, 0x3F), (0xAD, 0x3A, 0x08)


@pytest.fixture(scope="module")
def comparison():
    dataset = many_queries(60)
    base, tuned = (noisy_report(dataset, 1.6 - 0.4 * i, seed=i, label=f"模型 {i} <b>") for i in (0, 1))
    return compare(base, tuned, n_resamples=10)


def colours(image: Image.Image) -> dict[tuple[int, int, int], int]:
    return {colour: count for count, colour in image.convert("RGB").getcolors(1 << 20)}


def test_each_plot_is_an_svg_and_a_png_of_the_same_shape(comparison, tmp_path: Path) -> None:
    paths = comparison.save_plots(tmp_path / "plots")
    assert sorted(path.name for path in paths) == [
        f"{name}.{kind}" for name in ("differences", "recall", "scores-base", "scores-tuned") for kind in ("png", "svg")
    ]
    for path in paths:
        if path.suffix == ".png":
            with Image.open(path) as image:
                assert image.size == (1000, 708)
                assert len(colours(image)) > 20


def test_a_png_shows_what_is_there(comparison, tmp_path: Path) -> None:
    save_plots(comparison, tmp_path, formats=("png",))
    assert not list(tmp_path.glob("*.svg"))
    with Image.open(tmp_path / "recall.png") as image:
        found = colours(image)
        assert min(found[TUNED], found[BASE]) > 500
    with Image.open(tmp_path / "differences.png") as image:
        found = colours(image)
    test = comparison.systems[0].metrics[comparison.primary].test
    assert test.wins > test.losses > 0
    assert found[BETTER] > found[WORSE] > 100


def test_unknown_formats(comparison, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="`formats` is 'pdf'"):
        save_plots(comparison, tmp_path, formats=("pdf",))  # type: ignore[arg-type]


def test_dashes() -> None:
    pieces = list(_dashes([(0, 0), (8, 0), (8, 0), (20, 0)], 6, 4))
    drawn = sum(abs(two[0] - one[0]) for one, two in pieces)
    assert drawn == pytest.approx(12)  # 6 of each 10, over 20
    assert not any(one[0] < 8 and two[0] > 6 for one, two in pieces)  # the gap from 6 to 10


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("What is the revenue of the company for the year?", "English"),
        ("Wie hoch ist der Umsatz und wann wird das gezahlt?", "German"),
        ("公司的总部在哪里？", "Chinese"),
        ("会社の本社はどこですか", "Japanese"),
        ("Где находится офис компании", "Cyrillic script"),
        ("revenue 2021", "undetected"),
        ("42?", "undetected"),
    ],
)
def test_the_language_of_a_query(text: str, language: str) -> None:
    assert language_of(text) == language


def test_languages_are_parts_of_a_comparison_and_of_its_page(tmp_path: Path) -> None:
    plain = many_queries(60).model_dump()
    kinds = ["What is the meaning of the thing with number {}?", "第{}号的东西在哪里？", "thing {}"]
    plain["queries"] = {query: kinds[i % 3].format(i) for i, query in enumerate(plain["queries"])}
    dataset = EmbeddingQAFinetuneDataset(**plain)
    result = compare(
        noisy_report(dataset, 1.6, label="a"), noisy_report(dataset, 0.9, label="b"), slices="language", n_resamples=10
    )
    parts = {part.name: part.test.n for part in result.systems[0].slices if part.by == "language"}
    assert parts == {"English": 20, "Chinese": 20, "undetected": 20}
    result.to_html(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert all(name in page for name in parts)


def test_notebooks_show_tables() -> None:
    dataset = many_queries(30)
    report = noisy_report(dataset, 0.9, label="<script>alert(1)</script>")
    result = compare(report, noisy_report(dataset, 0.5, label="b & c"), n_resamples=10)
    for shown in (report._repr_html_(), result._repr_html_()):
        assert "<table" in shown
        assert "ndcg" in shown
        assert "<script" not in shown
