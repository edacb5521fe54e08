"""What the page's script needs for the table of queries: scores, hits and texts, as one JSON value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.evaluation.records import RetrievalReport
    from llama_index_embft.evaluation.statistics.findings import ComparisonRecord

_SHOWN_HITS: Final = 10
_MOST_QUERIES: Final = 5_000  # the table holds the most changed of these; more would make browsers slow
_TEXT_BUDGET: Final = 24_000_000  # characters of corpus text in one page


def build_query_table(
    comparison: ComparisonRecord, dataset: EmbeddingQAFinetuneDataset | None
) -> tuple[dict[str, Any], list[str]]:
    """The data of the table, and what to say where it is not everything.

    Args:
        comparison: What is shown.
        dataset: Gives the texts; None, or one without these queries, shows ids.
    """
    base, systems = comparison.base, comparison.systems
    notes: list[str] = []
    if dataset is not None and not any(query in dataset.queries for query in base.query_ids):
        notes.append("The data set given for the texts has none of these queries; ids are shown instead.")
        dataset = None
    rows = list(range(len(base.query_ids)))
    if len(rows) > _MOST_QUERIES:
        change = np.max(
            [np.abs(s.report.values[comparison.primary] - base.values[comparison.primary]) for s in systems], 0
        )
        rows = sorted(np.argsort(-change, kind="stable")[:_MOST_QUERIES].tolist())
        notes.append(
            f"The table below holds the {_MOST_QUERIES:,} queries that changed most, of {len(base.query_ids):,}; "
            "all figures and plots are over all of them."
        )
    docs: dict[str, int] = {}

    def hits(report: RetrievalReport, row: int) -> list[list[Any]]:
        ids = report.hit_ids[row][:_SHOWN_HITS]
        scores = report.hit_scores[row][:_SHOWN_HITS] or (None,) * len(ids)
        return [[docs.setdefault(doc, len(docs)), _rounded(score)] for doc, score in zip(ids, scores, strict=True)]

    reports = [base, *(system.report for system in systems)]
    depth = min(report.depth for report in reports)
    ranks = [report.first_ranks(depth) for report in reports]
    queries = [
        {
            "id": base.query_ids[row],
            "text": base.queries[row],
            "source": base.documents[row],
            "relevant": [[docs.setdefault(doc, len(docs)), grade] for doc, grade in base.relevant[row].items()],
            "runs": [
                [_rounded(float(report.values[comparison.primary][row])), int(rank[row]), hits(report, row)]
                for report, rank in zip(reports, ranks, strict=True)
            ],
        }
        for row in rows
    ]
    texts, cut = _texts(list(docs), dataset)
    if cut:
        notes.append(f"Texts are cut after {cut:,} characters, to keep this page small.")
    documents = [[doc, text] for doc, text in zip(docs, texts, strict=True)]
    data = {
        "primary": comparison.primary,
        "labels": [report.label for report in reports],
        "queries": queries,
        "documents": documents,
        "left_out": len(base.query_ids) - len(rows),
    }
    return data, notes


def _texts(ids: list[str], dataset: EmbeddingQAFinetuneDataset | None) -> tuple[list[str | None], int | None]:
    """Texts for display, and after how many characters they were cut, if they were."""
    if dataset is None:
        return [None] * len(ids), None
    texts = [dataset.bare_text(doc) if doc in dataset.corpus else None for doc in ids]
    limit = max((len(text) for text in texts if text), default=0)
    whole = limit
    while limit > 500 and sum(min(len(text), limit) for text in texts if text) > _TEXT_BUDGET:
        limit //= 2
    if limit == whole:
        return texts, None
    return [text if text is None or len(text) <= limit else text[:limit] + " …" for text in texts], limit


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
