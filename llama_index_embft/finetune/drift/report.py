"""How good a drift map is, against re-embedding everything."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DriftScore:
    """What one kind of map keeps, on queries that it has not seen.

    Attributes:
        kind: The map; ``"none"`` stands for the new model's queries sent to the old index as they are.
        kept: Share of the ``k`` hits of the new model over its own vectors (the full re-embed) that the mapped query
            finds among its ``k`` hits over the old vectors: the recall that is kept, with the re-embed's hits as truth.
        ci95: Bootstrap interval of `kept`, over queries.
        recall: Of the documents labelled relevant, in ``k`` hits; None without labels.
        validation: `kept` on the validation queries, by which ``"auto"`` chooses.
        fit_seconds: Time of the fit, embedding not included.
    """

    kind: str
    kept: float
    ci95: tuple[float, float]
    recall: float | None
    validation: float
    fit_seconds: float


@dataclass(frozen=True)
class DriftReport:
    """How good the map is, against re-embedding everything.

    Attributes:
        kind: The map that was chosen.
        k: Hits a query.
        queries: Test queries, unseen by fit and choice.
        documents: Documents that they searched.
        pairs: Pairs of vectors that the map was fitted on.
        scores: A row a kind, that was fitted.
        full_recall: Labelled recall of the full re-embed; None without labels.
        old_recall: Labelled recall of the old model on its index; None without labels, or without the old model.
    """

    kind: str
    k: int
    queries: int
    documents: int
    pairs: int
    scores: tuple[DriftScore, ...]
    full_recall: float | None = None
    old_recall: float | None = None

    @property
    def chosen(self) -> DriftScore:
        """The score of the map that was chosen."""
        return next(score for score in self.scores if score.kind == self.kind)

    @property
    def recall_kept(self) -> float | None:
        """Labelled recall of the map, as a share of the full re-embed's; None without labels."""
        if self.full_recall is None or self.chosen.recall is None or not self.full_recall:
            return None
        return self.chosen.recall / self.full_recall

    def __str__(self) -> str:
        best = self.chosen
        text = (
            f"{self.kind}: {best.kept:.1%} of the full re-embed's {self.k} hits are kept "
            f"(95 % interval {best.ci95[0]:.1%} to {best.ci95[1]:.1%}; {self.queries} unseen queries over "
            f"{self.documents:,} documents, fitted on {self.pairs:,} pairs)"
        )
        if self.recall_kept is not None:
            text += (
                f"; of the documents labelled relevant it finds {best.recall:.3f}, {self.recall_kept:.1%} of the "
                f"re-embed's {self.full_recall:.3f}"
            )
        return text
