"""``embft judge``: systems compared by an LLM's grades, calibrated on a few questions that people graded."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  # typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llama_index_embft.calls import CallSettings  # noqa: TC001
from llama_index_embft.cli.shared.data import read_data
from llama_index_embft.cli.shared.llm import LLMOptions  # noqa: TC001

if TYPE_CHECKING:
    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset


def judge(
    reports: Annotated[list[Path], typer.Argument(help="Reports of `embft evaluate --out`, the system in use first.")],
    data: Annotated[Path, typer.Option(help="The data set of the reports, in any format: it has the texts.")],
    labels: Annotated[
        Path | None, typer.Option(help="People's grades: the filled sheet of --sheet, or TREC qrels.")
    ] = None,
    sheet: Annotated[
        Path | None, typer.Option(help="Write a CSV file of passages for people to grade, and stop.")
    ] = None,
    sample: Annotated[int, typer.Option(min=1, help="Questions drawn for the sheet; 30 to 100 are sensible.")] = 50,
    grades: Annotated[
        Path | None, typer.Option(help="A judge's grades that exist (CSV or TREC qrels), instead of asking an LLM.")
    ] = None,
    save_grades: Annotated[Path | None, typer.Option(help="Write the judge's grades as TREC qrels.")] = None,
    primary: Annotated[str, typer.Option(help="The metric; its cut-off says how many hits are judged.")] = "ndcg@10",
    by_query: Annotated[
        bool, typer.Option("--by-query", help="Take queries as independent, even about one document.")
    ] = False,
    report: Annotated[Path | None, typer.Option(help="Write the figures as JSON.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Draws the questions of the sheet.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say how many pairs would be judged, and stop.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before the LLM is paid.")] = False,
    *,
    llm: Annotated[LLMOptions, "The judge"],
    calls: Annotated[CallSettings, "Its calls"],
) -> dict[str, Any]:
    """Compare systems by an LLM's grades, calibrated on a few questions that people graded.

    The LLM grades every passage that a system found, from 0 to 3, against the whole passage. People grade the same
    passages of 30 to 100 questions, drawn at random. What is shown is the metric by people's grades, with intervals
    that hold however biased the judge is, and how many labels would halve them.

    Examples:
    embft judge base.json tuned.json --data test.json --sheet to-grade.csv --sample 50
    embft judge base.json tuned.json --data test.json --labels to-grade.csv --llm openai --llm-model gpt-4o-mini
    embft judge base.json tuned.json --data test.json --labels to-grade.csv --grades judge.qrels
    """
    import json

    from llama_index_embft._core.files import atomic_write_text
    from llama_index_embft.cli.shared.console import console, written
    from llama_index_embft.cli.shared.options import changed, check_not_with, check_only_for, check_outputs
    from llama_index_embft.dataset import write_qrels
    from llama_index_embft.errors import ConfigError
    from llama_index_embft.evaluation import (
        RetrievalReport,
        check_labels,
        compare_by_judge,
        draw_questions,
        pool_results,
        read_labels,
        write_label_sheet,
    )
    from llama_index_embft.evaluation.metrics import parse_metric

    of_llm = {**changed(llm), **changed(calls), "yes": yes}
    of_comparison: dict[str, Any] = {"labels": labels, "grades": grades, "report": report, "save_grades": save_grades}
    of_comparison |= {"by_query": by_query, "dry_run": dry_run, **of_llm}
    check_not_with("--sheet", sheet is not None, of_comparison)
    check_only_for("--sheet", sheet is not None, {"sample": None if sample == 50 else sample, "seed": seed or None})
    check_not_with("--grades", grades is not None, of_llm)
    check_outputs({"sheet": sheet, "save_grades": save_grades, "report": report}, (*reports, data, labels, grades))
    dataset = read_data(data)
    systems = [RetrievalReport.from_json(path) for path in reports]
    pool = pool_results(systems, parse_metric(primary)[1] or 0)
    pairs = sum(map(len, pool.values()))
    if sheet is not None:
        texts = {doc: dataset.bare_text(doc) for doc in dataset.corpus}
        rows = write_label_sheet(sheet, pool, draw_questions(pool, sample, seed), dataset.queries, texts)
        console.print(f"{sample} of {len(pool):,} questions drawn; {rows:,} passages to grade from 0 to 3:")
        for line in ("0 unrelated", "1 on the subject, no answer", "2 some of the answer", "3 the answer"):
            console.print(f"  {line}")
        return {"questions": sample, "pairs": rows, **written(sheet)}
    console.print(f"{len(pool):,} questions, {pairs:,} passages of {len(systems)} systems to be judged")
    if dry_run:
        return {"questions": len(pool), "pairs": pairs, "written": []}
    if labels is None:
        raise ConfigError(
            "A judge alone is biased by an unknown amount: give people's grades with --labels (--sheet writes what is "
            "to be graded)."
        )
    human = read_labels(labels)
    check_labels(pool, human)
    judged = read_labels(grades) if grades is not None else _ask(dataset, pool, llm, calls, yes=yes)
    if save_grades is not None:  # before anything can fail: they were paid for
        write_qrels(judged, save_grades)
    result = compare_by_judge(systems, judged, human, metric=primary, cluster_by="query" if by_query else "document")
    console.print(result.table().to_rich({"better": "green", "worse": "red"}))
    for line in (*result.sentences(), *(f"Note: {note}" for note in (*result.notes, *_notes(dataset)))):
        console.print(line, markup=False, soft_wrap=True)
    record = {**result.to_dict(), "notes": [*result.notes, *_notes(dataset)], "questions": len(pool), "pairs": pairs}
    if report is not None:
        atomic_write_text(report, json.dumps(record, indent=2, allow_nan=False) + "\n")
    return {**record, **written(report, save_grades)}


def _ask(
    dataset: EmbeddingQAFinetuneDataset,
    pool: dict[str, tuple[str, ...]],
    llm: LLMOptions,
    calls: CallSettings,
    *,
    yes: bool,
) -> dict[str, dict[str, int]]:
    from llama_index_embft.calls import check_llm
    from llama_index_embft.cli.shared.cost import confirm_cost
    from llama_index_embft.generation import estimate_grading, grade_passages

    client = llm.client()
    texts = {doc: dataset.bare_text(doc) for doc in dataset.corpus}
    estimate = estimate_grading(pool, dataset.queries, texts, client, calls)
    confirm_cost(estimate, yes=yes, max_cost=calls.max_cost, cheaper="judge fewer hits, such as --primary ndcg@5")
    check_llm(client)
    return grade_passages(pool, dataset.queries, texts, client, calls=calls).grades


def _notes(dataset: EmbeddingQAFinetuneDataset) -> list[str]:
    """What a reader should know of the questions themselves."""
    from llama_index_embft.dataset.prepared import own_text_documents
    from llama_index_embft.dataset.provenance import BY_LLM, BY_TEXT

    notes = []
    if dataset.provenance.made_by in (BY_LLM, BY_TEXT):
        notes.append(
            "The questions were made from passages that are searched here, so every system finds their sources more "
            "easily than the answers to what people ask."
        )
    own = own_text_documents(dataset)
    if own:
        notes.append(f"{len(own)} questions are passages themselves, word for word; they are graded like any other.")
    return notes
