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
        kept_in_index: What is kept over the whole index: `kept` where the documents are all of it, else an estimate
            from the sample; None where its size is not known, or the sample is too small to tell.
        kept_in_index_ci95: Its interval, which of an estimate covers its model too.
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
    kept_in_index: float | None = None
    kept_in_index_ci95: tuple[float, float] | None = None


@dataclass(frozen=True)
class DriftReport:
    """How good the map is, against re-embedding everything.

    Attributes:
        kind: The map that was chosen.
        k: Hits a query.
        queries: Test queries, unseen by fit and choice.
        documents: Documents that they searched: all of the index, or those of the sample that the map was not fitted
            on, since it fits what it has seen better.
        index_size: Documents of the index; None: unknown.
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
    index_size: int | None = None
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

    def _beyond_the_sample(self) -> str:
        best = self.chosen
        if self.index_size is None:
            return "the more documents an index has the fewer are kept: pass index_size for an estimate over all of it"
        if best.kept_in_index is None or best.kept_in_index_ci95 is None:
            return f"too few to tell what is kept over the {self.index_size:,} documents of the index, which is less"
        low, high = best.kept_in_index_ci95
        return (
            f"over the {self.index_size:,} documents of the index expect {best.kept_in_index:.1%} "
            f"({low:.1%} to {high:.1%}, estimated)"
        )

    def __str__(self) -> str:
        best = self.chosen
        whole = self.index_size == self.documents
        over = "all" if whole else "unseen"
        text = (
            f"{self.kind}: {best.kept:.1%} of the full re-embed's {self.k} hits are kept "
            f"(95 % interval {best.ci95[0]:.1%} to {best.ci95[1]:.1%}; {self.queries} unseen queries over {over} "
            f"{self.documents:,} documents{' of the index' if whole else ' of the sample'}, fitted on "
            f"{self.pairs:,} pairs)"
        )
        if not whole:
            text += f"; {self._beyond_the_sample()}"
        if self.recall_kept is not None:
            text += (
                f"; of the documents labelled relevant it finds {best.recall:.3f}, {self.recall_kept:.1%} of the "
                f"re-embed's {self.full_recall:.3f}"
            )
        return text
