"""What an export cost and what it gained, in one table: size, speed, and the quality that is left."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llama_index_embft._core.files import atomic_write_text
from llama_index_embft._core.tables import TextTable
from llama_index_embft.evaluation.statistics.findings import interval, json_number

if TYPE_CHECKING:
    import os
    from pathlib import Path

    import pandas as pd
    from rich.table import Table

    from llama_index_embft.evaluation.comparison import Comparison


@dataclass(frozen=True)
class ExportRow:
    """One format, or the model it was made from.

    Attributes:
        format: Name of the format; ``"torch"`` for the model itself.
        folder: Where it lies; None for the model itself.
        megabytes: All files of the folder, in 1,000,000 bytes; of the model itself: its weights in memory.
        texts_per_second: Documents of the validation set, or probes, after a warm-up; of a reranker pairs.
        cosine_min: Least similar of the probed texts to the model's own vector; 1 for the model itself, None for a
            reranker.
        cosine_mean: Their mean.
        logit_difference: Of a reranker: largest difference to the model's own logits over the probed pairs.
        quality: Mean of the metric on the validation set; None without one.
        difference: Against the model itself; None for it and without a validation set.
        ci95: 95 % interval of the difference, paired and by document.
        p: Two-sided, corrected for the number of formats.
        outcome: ``"gain"``, ``"loss"``, ``"same"`` or ``"not significant"``.
    """

    format: str
    folder: Path | None
    megabytes: float
    texts_per_second: float
    cosine_min: float | None = None
    cosine_mean: float | None = None
    logit_difference: float | None = None
    quality: float | None = None
    difference: float | None = None
    ci95: tuple[float, float] | None = None
    p: float | None = None
    outcome: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON types; what is not a number (an interval of one document) becomes None."""
        values = dict(vars(self))
        values["folder"] = None if self.folder is None else str(self.folder)
        values["ci95"] = None if self.ci95 is None else [json_number(value) for value in self.ci95]
        return {name: json_number(value) for name, value in values.items()}


@dataclass(frozen=True)
class ExportReport:
    """The model and its exports side by side.

    Attributes:
        rows: The model itself, then each format.
        metric: What `quality` is, for example ``"ndcg@10"``; None without a validation set.
        queries: Queries of the validation set; 0 without one.
        texts: Texts that speed was measured on.
        device: Where the model itself ran; graphs run on the CPU.
        comparison: The full comparison on the validation set, for `to_html` and the like.
    """

    rows: tuple[ExportRow, ...]
    metric: str | None
    queries: int
    texts: int
    device: str
    comparison: Comparison | None = None

    def __getitem__(self, format: str) -> ExportRow:
        """The row of a format."""
        return next(row for row in self.rows if row.format == format)

    def __str__(self) -> str:
        """The table and what it rests on."""
        return self.to_markdown()

    @property
    def of_reranker(self) -> bool:
        """Whether it was a reranker that was exported."""
        return self.rows[0].logit_difference is not None

    def table(self) -> TextTable:
        """A row a format."""
        if self.of_reranker:
            return TextTable(["format", "MB", "pairs/s", "logit difference"], [self._cells(row) for row in self.rows])
        header = ["format", "MB", "texts/s", "cosine, least", "cosine, mean"]
        if self.metric is not None:
            header += [self.metric, "difference", "95 % interval", "p", "outcome"]
        return TextTable(header, [self._cells(row) for row in self.rows])

    def _cells(self, row: ExportRow) -> list[str]:
        cells = [row.format, f"{row.megabytes:.1f}", f"{row.texts_per_second:.1f}"]
        if row.logit_difference is not None:
            return [*cells, f"{row.logit_difference:.5f}"]
        cells += [f"{row.cosine_min:.5f}", f"{row.cosine_mean:.5f}"]
        if self.metric is None:
            return cells
        cells.append("" if row.quality is None else f"{row.quality:.4f}")
        if row.difference is None or row.ci95 is None or row.p is None:
            return [*cells, "", "", "", ""]
        return [*cells, f"{row.difference:+.4f}", interval(row.ci95), f"{row.p:.3f}", row.outcome or ""]

    def basis(self) -> str:
        """One sentence: what the figures rest on."""
        quality = f"quality on {self.queries:,} queries; " if self.metric is not None else "quality not measured; "
        what = "pairs" if self.of_reranker else "texts"
        return f"{quality}speed on {self.texts:,} {what}, torch on {self.device}, graphs on the CPU."

    def to_markdown(self) -> str:
        """A Markdown table and what it rests on."""
        return f"{self.table().to_markdown()}\n\n{self.basis().capitalize()}"

    def to_pandas(self) -> pd.DataFrame:
        """A row a format."""
        import pandas as pd

        return pd.DataFrame([row.to_dict() for row in self.rows]).set_index("format")

    def to_rich(self) -> Table:
        """A table for a terminal."""
        return self.table().to_rich()

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "metric": self.metric,
            "queries": self.queries,
            "texts": self.texts,
            "device": self.device,
            "rows": [row.to_dict() for row in self.rows],
        }

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Save `to_dict`, whole or not at all."""
        atomic_write_text(path, json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n")
