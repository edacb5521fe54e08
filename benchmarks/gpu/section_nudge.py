"""NUDGE on ready vectors: the directions, the closed-form step, the ranking after it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from kit import unit_vectors

if TYPE_CHECKING:
    from kit import Kit


def run(kit: Kit) -> None:
    """Compare small results with the CPU's, then measure."""
    from llama_index_embft.finetune.nudge import StepSearch, closed_form_step, movement

    corpus, asked, positives = _data(400, 120, 32)
    moves = movement(corpus, asked, positives, "N")
    here, there = (
        closed_form_step(asked, corpus, positives, moves, device=device)
        for device in (kit.device, kit.reference_device())
    )
    kit.check("NUDGE: difference of the closed form's step to the CPU's", abs(here[0] - there[0]), 1e-5)
    kit.check("NUDGE: difference of queries answered first", abs(here[1] - there[1]), 0)
    rows = [
        StepSearch(asked, corpus, moves, 10, device=device).after(there[0]).rows
        for device in (kit.device, kit.reference_device())
    ]
    kit.check("NUDGE: ids after the step that differ from the CPU's", float((rows[0] != rows[1]).sum()), 0)

    n_docs, n_queries, dim = kit.size(1_000_000, 500), kit.size(50_000, 100), kit.size(768, 32)
    corpus, asked, positives = _data(n_docs, n_queries, dim)
    val = kit.size(2_000, 40)
    shape = f"{n_docs} documents, {n_queries} queries, {val} of validation, {dim} dimensions"
    moves = movement(corpus, asked, positives, "N")
    seconds = kit.timed(lambda: movement(corpus, asked, positives, "N"), repeats=1, warm=False)
    kit.add(what="NUDGE: directions (CPU)", shape=shape, seconds=seconds)
    if kit.has_time_for("NUDGE: closed form", 0.5):
        work = lambda: closed_form_step(asked[:val], corpus, positives[:val], moves, device=kit.device)  # noqa: E731
        kit.add(what="NUDGE: closed form", shape=shape, seconds=kit.timed(work, repeats=1, warm=False))
    if kit.has_time_for("NUDGE: search before and after a step", 0.3):
        work = lambda: StepSearch(asked[:val], corpus, moves, 10, device=kit.device).after(0.1)  # noqa: E731
        seconds = kit.timed(work, repeats=1, warm=False)
        kit.add(what="NUDGE: search before and after a step", shape=shape, seconds=seconds)


def _data(n_docs: int, n_queries: int, dim: int) -> tuple[np.ndarray, np.ndarray, list[list[int]]]:
    """Queries near their documents; two queries a document."""
    corpus = unit_vectors(n_docs, dim, seed=9)
    positives = [[row // 2] for row in range(n_queries)]
    near = corpus[[rows[0] for rows in positives]] + 0.8 * unit_vectors(n_queries, dim, seed=10)
    near /= np.linalg.norm(near, axis=1, keepdims=True)
    return corpus, near.astype(np.float32), positives
