"""``embft compare``: which of these saved reports is better, and is that more than chance?"""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  # typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable


def compare(
    base: Annotated[Path, typer.Argument(help="Report of the system in use (JSON, from `embft evaluate --out`).")],
    tuned: Annotated[list[Path], typer.Argument(help="Reports of the systems that might replace it.")],
    html: Annotated[Path | None, typer.Option(help="Write a page with plots and every query's hits.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write the figures as JSON.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the table as Markdown, for a pull request.")] = None,
    junit: Annotated[
        Path | None, typer.Option(help="Write JUnit XML for a CI server; fails what --fail-… would.")
    ] = None,
    plots: Annotated[Path | None, typer.Option(help="Write the plots as SVG and PNG files into this folder.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Data set of the reports, of any format: gives the page the texts.")
    ] = None,
    primary: Annotated[
        str | None, typer.Option(help="Metric that decides, ndcg@10 if not given; choose it before you look.")
    ] = None,
    slices: Annotated[
        list[str] | None, typer.Option(help="Look at parts of the queries: document, length, language, script, kind.")
    ] = None,
    guard: Annotated[
        list[str] | None,
        typer.Option(help="NAME=BASE.json,TUNED.json: reports on a data set that must not get worse."),
    ] = None,
    max_loss: Annotated[float, typer.Option(help="Loss on a guard set that would matter; 0.01 is one point.")] = 0.01,
    by_query: Annotated[
        bool, typer.Option("--by-query", help="Take queries as independent, even about one document.")
    ] = False,
    resamples: Annotated[int, typer.Option(help="Bootstrap resamples and random swaps.")] = 10_000,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same figures.")] = 0,
    fail_on_regression: Annotated[
        bool, typer.Option("--fail-on-regression", help="Exit with code 1 if a system must not be adopted.")
    ] = False,
    fail_unless_better: Annotated[
        bool, typer.Option("--fail-unless-better", help="Exit with code 1 unless a gain is proven for every system.")
    ] = False,
) -> dict[str, Any]:
    """Compare saved reports over the same queries.

    Examples:
    embft compare base.json tuned.json --html report.html --data test.json
    embft compare base.json tuned.json --guard general=g-base.json,g-tuned.json --fail-on-regression
    """
    from rich.markup import escape

    from llama_index_embft.cli.shared.console import command_line, console, written
    from llama_index_embft.cli.shared.data import read_data
    from llama_index_embft.cli.shared.options import check_outputs
    from llama_index_embft.evaluation import compare as compare_reports
    from llama_index_embft.evaluation.statistics import in_words, unseen_loss

    guards = _guards(guard or ())
    outputs = {"report": report, "markdown": markdown, "junit": junit, "html": html, "plots": plots}
    check_outputs(outputs, (base, *tuned, data, *(file for files in guards.values() for file in files)))
    dataset = read_data(data) if data is not None else None
    result = compare_reports(
        base,
        *tuned,
        primary=primary,
        slices=slices or (),
        guard=guards,
        max_loss=max_loss,
        cluster_by="query" if by_query else "document",
        n_resamples=resamples,
        seed=seed,
    ).amended(command=command_line())
    for system in result.systems:
        name = f"{escape(system.label)}: " if len(result.systems) > 1 else ""
        words = in_words(system, result.primary)
        console.print(f"[bold]{name}{system.decision.capitalize()}.[/bold] {escape(words)}".rstrip())
    console.print(result.to_rich())
    for system in result.systems:
        name = f"{escape(system.label)}: " if len(result.systems) > 1 else ""
        console.print(f"{name}{escape(' '.join(system.reasons))}")
        if fail_on_regression and system.decision != "do not adopt":
            console.print(escape(unseen_loss(system.metrics[result.primary], system.on_these, result.cluster_by)))
    for note in result.notes:
        console.print(f"Note: {escape(note)}")
    if report is not None:
        result.to_json(report)
    if markdown is not None:
        from llama_index_embft._core.files import atomic_write_text

        atomic_write_text(markdown, result.to_markdown() + "\n")
    if junit is not None:
        result.to_junit(junit, must_gain=fail_unless_better)
    if html is not None:
        result.to_html(html, dataset)
    if plots is not None:
        result.save_plots(plots)
    unproven = any(system.decision != "adopt" for system in result.systems)
    failed = (fail_on_regression and result.regressed()) or (fail_unless_better and unproven)
    return {**result.to_dict(), **written(report, markdown, junit, html, plots), "exit_code": int(failed)}


def _guards(texts: Iterable[str]) -> dict[str, list[str]]:
    from llama_index_embft.errors import ConfigError

    found: dict[str, list[str]] = {}
    for name, reports in map(_guard, texts):
        if name in found:
            raise ConfigError(f"--guard names {name!r} twice, and one of them would not count; give each a name.")
        found[name] = reports
    return found


def _guard(text: str) -> tuple[str, list[str]]:
    from llama_index_embft.errors import ConfigError

    name, sign, files = text.partition("=")
    reports = [part.strip() for part in files.split(",") if part.strip()]
    if not sign or not name or len(reports) < 2:
        raise ConfigError(f"--guard {text!r} is not understood: write NAME=BASE.json,TUNED.json.")
    return name, reports
