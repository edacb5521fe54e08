"""The learning curve: what is known is drawn, the chosen place is marked, and the file is valid XML."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from llama_index_embft.finetune.curves import training_svg

HISTORY = [
    {"step": step, "epoch": step / 10, "loss": 2.0 - step / 20, "ndcg@10": 0.6 + step / 200, "mrr@10": 0.5}
    for step in range(0, 31, 10)
]
GUARDED = [{**entry, "guard_ndcg@10": 0.97 - entry["step"] / 1000} for entry in HISTORY]
MERGE = [{"weight": w / 10, "ndcg@10": 0.6 + w / 100, "guard_ndcg@10": 0.97 - w / 1000} for w in range(11)]


def texts(svg):
    return [node.text for node in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def lines(svg):
    """Class -> the places of each polyline, in drawing units (y grows downwards)."""
    found = re.findall(r'<polyline class="(\w+) line" points="([^"]*)"', svg)
    return [(kind, [tuple(map(float, p.split(","))) for p in points.split()]) for kind, points in found]


def test_all_three_panels():
    svg = training_svg(GUARDED, best_step=20, merge_curve=MERGE, merge_weight=0.4)
    drawn = lines(svg)
    assert [kind for kind, _ in drawn] == ["loss", "val", "guard", "val", "guard"]
    assert [len(points) for _, points in drawn] == [4, 4, 4, 11, 11]
    shown = texts(svg)
    assert "Training loss" in shown
    assert "Change of ndcg@10 by step (base: 0.600, guard 0.970)" in shown
    assert "best: step 20" in shown
    assert "chosen: 0.4" in shown
    falling = drawn[0][1]
    assert [y for _, y in falling] == sorted(y for _, y in falling)
    # With a guard both begin at no change.
    assert drawn[1][1][0] == drawn[2][1][0]


def test_the_chosen_place_lies_on_the_validation_curve():
    svg = training_svg(HISTORY, best_step=20)
    (_, places) = next(line for line in lines(svg) if line[0] == "val")
    marked = re.search(r'<circle class="mark" cx="([\d.]+)" cy="([\d.]+)"', svg)
    assert (float(marked[1]), float(marked[2])) == places[2]
    assert svg.count('class="mark"') == 1


def test_a_run_without_validation_shows_its_loss_alone():
    svg = training_svg([{"step": 10, "loss": 1.0, "grad_norm": 3.0}, {"step": 20, "loss": 0.5}])
    assert [kind for kind, _ in lines(svg)] == ["loss"]
    assert "validation" not in texts(svg)
    assert "best" not in " ".join(texts(svg))


def test_losses_may_be_closer_together_than_evaluations():
    svg = training_svg(HISTORY, losses=[{"step": step, "loss": 2.0} for step in range(30)])
    assert [(kind, len(points)) for kind, points in lines(svg)] == [("loss", 30), ("val", 4)]


def test_nothing_to_draw():
    assert training_svg([]) is None
    assert training_svg([{"step": 1, "loss": float("nan")}]) is None


def test_what_is_not_finite_is_left_out():
    svg = training_svg([{"step": 1, "loss": 1.0}, {"step": 2, "loss": float("inf")}, {"step": 3, "loss": 2.0}])
    assert len(lines(svg)[0][1]) == 2
    assert "nan" not in svg
    assert "inf" not in svg


def test_one_point_and_a_flat_line_have_a_scale():
    for history in ([{"step": 5, "loss": 1.0}], [{"step": 0, "loss": 0.0}, {"step": 9, "loss": 0.0}]):
        for _, points in lines(training_svg(history)):
            assert all(0 <= x <= 380 and 0 <= y <= 250 for x, y in points)


def test_tick_labels_are_exact():
    shown = texts(training_svg([], merge_curve=MERGE, merge_weight=1.0))
    assert {"0.00", "0.25", "0.50", "0.75", "1.00"} <= set(shown)
    steps = texts(training_svg([{"step": 0, "loss": 1.0}, {"step": 2, "loss": 0.5}]))
    assert {"0", "1", "2"} <= set(steps)
    assert "1.5" not in steps


def test_texts_are_escaped():
    svg = training_svg([{"step": 1, "m<b>": 0.5}], metric="m<b>", title="<script>alert(1)</script>")
    assert "<script>" not in svg
    assert "m<b> by step" in texts(svg)
