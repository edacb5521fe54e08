"""The outcome of a comparison: data first, with renderers for terminals, pull requests, notebooks and browsers."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict
from html import escape
from typing import TYPE_CHECKING, Any, Final

from llama_index_embft._core.files import atomic_write_text
from llama_index_embft._core.tables import TextTable
from llama_index_embft.errors import EvaluationError
from llama_index_embft.evaluation.junit import Outcome, junit_xml
from llama_index_embft.evaluation.statistics.findings import (
    ComparisonRecord,
    Decision,
    GuardResult,
    MetricComparison,
    QueryChange,
    SliceComparison,
    SystemComparison,
    interval,
    json_number,
)
from llama_index_embft.evaluation.statistics.plain_words import in_words, meaning_of, summary
from llama_index_embft.evaluation.statistics.verdict import interval_name, p_value

if TYPE_CHECKING:
    import os
    from pathlib import Path

    import pandas as pd
    from rich.console import Group

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.evaluation.records import RetrievalReport
    from llama_index_embft.evaluation.statistics.significance import PairedResult

_COUNTS: Final = 6  # column of wins, losses and ties
FORMAT: Final = "llama-index-embft/comparison"


class Comparison(ComparisonRecord):
    """A `ComparisonRecord` that can be shown: in terminals, pull requests, notebooks and browsers."""

    @property
    def decision(self) -> Decision:
        """The first tuned system's decision."""
        return self.systems[0].decision

    @property
    def verdict(self) -> str:
        """What is found about the first tuned system, in words: for 100 questions first, then the reasons."""
        return " ".join(self.sentences(self.systems[0]))

    def sentences(self, system: SystemComparison) -> tuple[str, ...]:
        """What is found about a system: the sentence for readers who know no metric, then the reasons of the decision.

        Args:
            system: One of `systems`.
        """
        plain = in_words(system, self.primary)
        return (plain, *system.reasons) if plain else system.reasons

    def improved(self, n: int = 10) -> tuple[QueryChange, ...]:
        """The first tuned system's most improved queries."""
        return self.systems[0].improved(n)

    def harmed(self, n: int = 10) -> tuple[QueryChange, ...]:
        """The first tuned system's most harmed queries."""
        return self.systems[0].harmed(n)

    def regressed(self) -> bool:
        """Whether any system must not be adopted: what ``embft compare --fail-on-regression`` asks."""
        return any(system.decision == "do not adopt" for system in self.systems)

    def __repr__(self) -> str:
        names = ", ".join(system.label for system in self.systems)
        return f"{type(self).__name__}({names} against {self.base.label}: {self.decision})"

    # --- renderers ----------------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """The content of ``report.json``: ``metrics`` holds the first tuned system, ``systems`` all of them."""
        systems = [_system_to_dict(system, self.primary) for system in self.systems]
        return {
            "format": FORMAT,
            "version": 1,
            "base": _model(self.base),
            "tuned": _model(self.systems[0].report),
            "data": {
                "hash": self.base.data_hash,
                "queries": len(self.base.query_ids),
                "corpus_size": self.base.corpus_size,
                "text": self.base.text,
                "from": self.data,
            },
            "text": self.base.text,
            "queries": len(self.base.query_ids),
            "corpus_size": self.base.corpus_size,
            "primary": self.primary,
            "decision": self.decision,
            "chosen": self.chosen,
            "in_words": in_words(self.systems[0], self.primary),
            "summary": summary(self),
            "verdict": self.verdict,
            "reasons": list(self.systems[0].reasons),
            "warnings": list(self.notes),
            "cluster_by": self.cluster_by,
            "n_resamples": self.n_resamples,
            "seed": self.seed,
            "alpha": self.alpha,
            "notes": list(self.notes),
            "versions": self.versions,
            "date": self.date,
            "command": self.command,
            "metrics": systems[0]["metrics"],
            "systems": systems,
        }

    def decision_record(self) -> dict[str, Any]:
        """What a saved model keeps of this comparison in its ``embft.json``, which its model card is written from."""
        system = self.systems[0]
        return {
            "decision": self.decision,
            "in_words": in_words(system, self.primary),
            "reasons": list(system.reasons),
            "warnings": list(self.notes),
            "metric": self.primary,
            **system.metrics[self.primary].to_dict(),
            "meaning": meaning_of(self.primary),
            "cost": system.cost.to_dict() if system.cost is not None else None,
            "data": self.data,
            "test_hash": self.base.data_hash,
            "folds": system.report.folds,
            "command": self.command,
            "date": self.date,
        }

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Save `to_dict` as a file, whole or not at all."""
        atomic_write_text(path, json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n")

    def to_pandas(self) -> pd.DataFrame:
        """A row a system and metric."""
        import pandas as pd

        rows = [
            {"system": system.label, "metric": name, **_flat(metric)}
            for system in self.systems
            for name, metric in system.metrics.items()
        ]
        return pd.DataFrame(rows).set_index(["system", "metric"])

    def leaderboard(self) -> pd.DataFrame:
        """A row a system, the base first: the best-known metrics, the decision, and the time it took."""
        import pandas as pd

        rows = []
        for report, decision in [(self.base, "base"), *((system.report, system.decision) for system in self.systems)]:
            row: dict[str, Any] = {"system": report.label}
            row |= {name: report.mean(name) for name in self.headline()}
            row |= {"decision": decision, "seconds": sum(report.seconds.values())}
            if report.latencies:
                row["median ms a query"] = 1000 * statistics.median(report.latencies)
            rows.append(row)
        return pd.DataFrame(rows).set_index("system")

    def to_markdown(self, metrics: str | tuple[str, ...] | None = None) -> str:
        """A table for a pull request, with the verdict above it."""
        blocks = [_cell(summary(self))] if len(self.systems) > 1 else []
        for system in self.systems:
            lines = [f"**{_cell(system.label)}** against **{_cell(self.base.label)}**", ""]
            lines += [f"**{system.decision.capitalize()}.** {_cell(' '.join(self.sentences(system)))}", ""]
            lines += [self._table(system, metrics).to_markdown()]
            lines += ["", _cell(" ".join(system.cost.sentences()))] if system.cost is not None else []
            blocks.append("\n".join(lines))
        notes = "\n".join(f"- {_cell(note)}" for note in self.notes)
        return "\n\n".join([*blocks, notes] if notes else blocks)

    def to_junit(self, path: str | os.PathLike[str], *, must_gain: bool = False) -> None:
        """Save JUnit XML, a test for each system, for servers of continuous integration.

        Args:
            path: The file.
            must_gain: A system fails also where no gain is proven; else only where it must not be adopted.
        """
        fails = {"do not adopt", "not proven"} if must_gain else {"do not adopt"}
        outcomes = [
            Outcome(
                f"{system.label} against {self.base.label}",
                " ".join(self.sentences(system)),
                system.decision if system.decision in fails else "",
            )
            for system in self.systems
        ]
        atomic_write_text(path, junit_xml(outcomes, group=self.primary, date=str(self.date)))

    def to_rich(self, metrics: str | tuple[str, ...] | None = None) -> Group:
        """Tables for a terminal of 80 columns or more, one a system; the counts of wins and losses are left out."""
        from rich.console import Group
        from rich.text import Text

        tables = []
        for system in self.systems:
            header, *rows = (
                [*row[:_COUNTS], *row[_COUNTS + 1 :]]
                for table in [self._table(system, metrics)]
                for row in [table.header, *table.rows]
            )
            rows = [[*row[:-1], "n. s." if row[-1] == "not significant" else row[-1]] for row in rows]
            shown = TextTable(header, rows).to_rich(styles={"gain": "green", "loss": "red"})
            shown.title = Text(system.label, style="bold") if len(self.systems) > 1 else None
            shown.title_justify = "left"
            tables.append(shown)
        caption = "n. s.: not significant; p (Holm): corrected for the number of tests"
        tables[-1].caption, tables[-1].caption_justify = Text(caption, style="dim"), "left"
        return Group(*tables)

    def to_html(self, path: str | os.PathLike[str], dataset: EmbeddingQAFinetuneDataset | None = None) -> None:
        """Write one self-contained page; it needs no network.

        Args:
            path: File to write, whole or not at all.
            dataset: Gives the texts of the hits; without it the page shows ids.

        Raises:
            OutputError: The file cannot be written.
        """
        from llama_index_embft.evaluation.pages.page import render_comparison

        atomic_write_text(path, render_comparison(self, dataset))

    def save_plots(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write the plots as SVG and PNG files, for a pull request; see `plots.save_plots`."""
        from llama_index_embft.evaluation.pages.plots import save_plots

        return save_plots(self, folder)

    def _repr_html_(self) -> str:
        parts = []
        for system in self.systems:
            caption = f"<b>{escape(system.label)}</b> against <b>{escape(self.base.label)}</b>"
            parts.append(
                f"<p><b>{escape(system.decision.capitalize())}.</b> {escape(' '.join(self.sentences(system)))}</p>"
                + self._table(system, None).to_html(caption)
            )
        notes = "".join(f"<li>{escape(note)}</li>" for note in self.notes)
        return "".join(parts) + (f"<ul>{notes}</ul>" if notes else "")

    def _table(self, system: SystemComparison, metrics: str | tuple[str, ...] | None) -> TextTable:
        names = self.headline() if metrics is None else (metrics,) if isinstance(metrics, str) else metrics
        unknown = [name for name in names if name not in system.metrics]
        if unknown:
            raise EvaluationError(f"No metric {unknown[0]!r} was compared; there are {', '.join(system.metrics)}.")
        rows = []
        for row in (system.metrics[name] for name in names):
            test = row.test
            figures = [f"{row.base:.4f}", f"{row.tuned:.4f}", f"{test.difference:+.4f}", interval(test.interval)]
            counts = f"{test.wins}/{test.losses}/{test.ties}"
            rows.append([row.metric, *figures, p_value(row.p_holm), counts, row.outcome])
        header = [
            "metric",
            "base",
            "tuned",
            "difference",
            interval_name(self.alpha),
            "p (Holm)",
            "win/loss/tie",
            "outcome",
        ]
        return TextTable(header, rows)


def _system_to_dict(system: SystemComparison, primary: str) -> dict[str, Any]:
    return {
        "label": system.label,
        "in_words": in_words(system, primary),
        "outcome": system.outcome,
        "p": system.p,
        "decision": system.decision,
        "reasons": list(system.reasons),
        "on_these": None if system.on_these is None else _plain_test(system.on_these),
        "metrics": {name: metric.to_dict() | {"meaning": meaning_of(name)} for name, metric in system.metrics.items()},
        "slices": [_plain(part) for part in system.slices],
        "guards": [_plain(guard) for guard in system.guards],
        "improved": [asdict(change) for change in system.improved()],
        "harmed": [asdict(change) for change in system.harmed()],
        "seconds": system.report.seconds,
        "cost": system.cost.to_dict() if system.cost is not None else None,
    }


def _model(report: RetrievalReport) -> dict[str, Any]:
    return {"label": report.label, "seconds": report.seconds, "overlap": report.overlap, "folds": report.folds}


def _plain(part: SliceComparison | GuardResult) -> dict[str, Any]:
    content = {**asdict(part), **_plain_test(part.test)}
    del content["test"]
    if isinstance(part, GuardResult):
        content["on_these"] = None if part.on_these is None else _plain_test(part.on_these)
    return content


def _plain_test(test: PairedResult) -> dict[str, Any]:
    values = asdict(test)
    del values["interval"], values["level"]
    values[test.interval_key] = [json_number(end) for end in test.interval]
    return {("clusters" if name == "n_clusters" else name): json_number(value) for name, value in values.items()}


def _flat(metric: MetricComparison) -> dict[str, Any]:
    content = metric.to_dict()
    key = metric.test.interval_key
    content[f"{key}_low"], content[f"{key}_high"] = content.pop(key)
    return content


def _cell(text: str) -> str:
    """Text that cannot break out of a Markdown table or become HTML in it."""
    return escape(text, quote=False).replace("|", "\\|").replace("\n", " ")
