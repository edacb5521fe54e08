"""A fast first look at all scores: which documents can be among the best k of a query, and which cannot.

Scores are taken at low precision (bfloat16 on CPUs with matrix units, float16 on GPUs, else float32) together with a
proven bound on their error, so what is dropped here is certainly not among the best k; what stays is scored exactly
later. Selection costs little next to the matrix product, because nothing is sorted: each query has a floor, whole
groups of 16 scores are passed over when their maximum is below it, and only what reaches it is written down.

The error of a score, with q' and c' the rounded rows, m the mean document and all norms Euclidean, is at most
``|q - q'| |c - m| + |q'| |(c - m) - c'|`` (Cauchy-Schwarz) for rounding the rows, plus ``2 (dim + 4) 2^-24 |q'| |c'|``
for summing in float32, plus a relative part for rounding the result. The mean is subtracted because it shifts all
scores of one query alike, which changes no rank, and makes the rows that are rounded shorter. The whole proof, and what
it asks of a change, stands in docs/explanation/search.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llama_index_embft.search.select import kth_best, places

if TYPE_CHECKING:
    from torch import Tensor

GROUP = 16


@dataclass(frozen=True)
class SearchPlan:
    """Sizes that bound the memory of a search; results do not depend on them.

    Attributes:
        panel: Queries that are worked on in one pass over the corpus.
        height: Queries in one tile of scores.
        width: Documents in one tile, a multiple of 16.
        capacity: Candidates kept for one query.
        sample: Documents looked at beforehand to guess a floor; 0 for none.
        low: Torch data type of the first look.
    """

    panel: int
    height: int
    width: int
    capacity: int
    sample: int
    low: Any


class LowQueries:
    """Queries at low precision, with what the error bound needs.

    Args:
        exact: Shape ``(n, dim)`` float32, from `EmbeddingRows.take`.
        low: Torch data type.
    """

    def __init__(self, exact: Tensor, low: Any) -> None:
        import torch

        if low.itemsize < 4:  # a power of two brings the norm below 1: exact, and only the order within a query matters
            _, exponent = torch.frexp(_norms(exact))
            exact = torch.ldexp(exact, -exponent.unsqueeze(1))
        self.rows = exact.to(low)
        self.lost = _norms(exact - self.rows.to(torch.float32))  # (n,)
        self.norms = _norms(self.rows)  # (n,)


class LowBlock:
    """A block of documents at low precision, padded to a multiple of 16 rows, with what the error bound needs.

    Args:
        exact: Shape ``(n, dim)`` float32, from `EmbeddingRows.take`.
        mean: Shape ``(dim,)``: subtracted from each row; any vector is right, the mean is best.
        scale: A power of two that brings norms to about 1.
        low: Torch data type; float32 rows are taken as they are.
    """

    def __init__(self, exact: Tensor, mean: Tensor, scale: float, low: Any) -> None:
        import torch

        self.count = len(exact)
        centred = exact if low.itemsize == 4 else (exact - mean).mul_(scale)
        rows = centred.to(low)
        self.longest = _norms(centred).amax()
        # Centring rounds too, by 2^-24 of the length; 1e-6 covers that, and results too small for float16.
        self.lost = _norms(centred - rows.to(torch.float32)).amax() + (1e-6 if low.itemsize < 4 else 0.0)
        self.rows = torch.nn.functional.pad(rows, (0, 0, 0, -len(rows) % GROUP))


def _divide(numbers: Tensor, by: int) -> tuple[Tensor, Tensor]:
    """Quotient and remainder; by shifts where that is possible, since division is slow."""
    if by & (by - 1):
        quotient = numbers // by
        return quotient, numbers - quotient * by
    return numbers >> (by.bit_length() - 1), numbers & (by - 1)


def _norms(rows: Tensor) -> Tensor:
    """Upper bounds of the rows' Euclidean norms, float32."""
    import torch

    norms: Tensor = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float32) * 1.001
    return norms


class CandidatePool:
    """Candidates of the queries of one panel.

    Attributes:
        values: Shape ``(panel, capacity)`` float32: low-precision scores, in order of arrival.
        rows: Shape ``(panel, capacity)``: corpus rows.
        count: Shape ``(panel,)``: how many places are filled.
        bound: Shape ``(panel,)`` float32: k documents are known to score at least this.
        hunch: Shape ``(panel,)`` float32: a guess below which nothing is kept; checked in `finish`.
        spilled: Shape ``(panel,)``: too many candidates; this query must be searched another way.
    """

    def __init__(self, queries: LowQueries, k: int, plan: SearchPlan, n_docs: int) -> None:
        import torch

        n, device = len(queries.rows), queries.rows.device
        self.queries, self.k, self.plan = queries, k, plan
        self.values = torch.empty((n, plan.capacity), dtype=torch.float32, device=device)
        self.rows = torch.empty((n, plan.capacity), dtype=torch.int32 if n_docs < 2**31 else torch.int64, device=device)
        self.count = torch.zeros(n, dtype=torch.int64, device=device)
        self.bound = torch.full((n,), -torch.inf, device=device)
        self.hunch = torch.full((n,), -torch.inf, device=device)
        self.error = torch.zeros(n, device=device)  # the largest so far
        self.spilled = torch.zeros(n, dtype=torch.bool, device=device)
        self.unit = torch.finfo(plan.low).eps / 2 * 1.01 if plan.low.itemsize < 4 else 0.0

    def guess(self, tile: slice, scores: Tensor, rank: int, block: LowBlock) -> None:
        """Set a floor from a sample of the documents.

        Args:
            tile: Queries of the panel that the scores belong to.
            scores: Shape ``(height, sample)``.
            rank: Rank in the sample that the k-th best of all is expected to reach.
            block: The sample.
        """
        import torch

        groups = scores.shape[1] // 8
        tops = scores.view(len(scores), 8, groups).amax(dim=1).to(torch.float32)
        best = kth_best(tops, min(rank, groups))
        # What scores a little less may still be better, by twice the error: once for it, once for the k-th best.
        self.hunch[tile] = best - 2 * (self._error(tile, block) + self.unit * best.abs())

    def _error(self, tile: slice, block: LowBlock) -> Tensor:
        """Bound of the error of a score before it is rounded itself: ``(height,)``."""
        norms = self.queries.norms[tile]
        sums = 2e-7 * (self.queries.rows.shape[1] + 4) * block.longest  # 4: for the last roundings, and those here
        return self.queries.lost[tile] * block.longest + norms * (block.lost + sums)

    def offer(self, tile: slice, scores: Tensor, column: int, block: LowBlock) -> None:
        """Take over what can still be among the best k.

        Args:
            tile: Queries of the panel that the scores belong to.
            scores: Shape ``(height, width)``, low precision; -inf is never taken.
            column: Corpus row of the first column.
            block: The documents behind the columns.
        """
        import torch

        height, width = scores.shape
        groups = width // GROUP
        error = self._error(tile, block)
        self.error[tile] = torch.maximum(self.error[tile], error)
        grouped = scores.view(height, GROUP, groups)
        if bool(((self.bound[tile] == -torch.inf) & (self.hunch[tile] == -torch.inf)).any()):
            self._raise_bound(tile, grouped)
        least = self._floor(tile, error)
        if bool((least > 0).all()):
            # The bits of positive floats sort as integers do, and integers are compared several times faster.
            kind = torch.int16 if scores.dtype.itemsize == 2 else torch.int32
            least = least.to(scores.dtype).view(kind) - 1  # one step down, since the conversion may have gone up
            grouped = grouped.view(kind)
        hit = places(grouped.amax(dim=1) >= least.unsqueeze(1))
        line, group = _divide(hit, groups)
        members = grouped[line, :, group]  # (hits, 16)
        found = places(members >= least.index_select(0, line).unsqueeze(1))
        hit, member = _divide(found, GROUP)
        values = members.view(scores.dtype).view(-1).index_select(0, found).to(torch.float32)
        rows = (member * groups).add_(group.index_select(0, hit)).add_(column)
        self._append(tile, line.index_select(0, hit), values, rows)

    def _raise_bound(self, tile: slice, grouped: Tensor) -> None:
        """The k-th best of the groups' maxima is a lower bound of the k-th best score: they are different documents."""
        import torch

        height, group, groups = grouped.shape
        while groups < 2 * self.k and group > 1:
            group, groups = group // 2, groups * 2
        if groups < self.k:
            return
        best = grouped.reshape(height, group, groups).amax(dim=1).to(torch.float32)
        self.bound[tile] = torch.maximum(self.bound[tile], self._surely(tile, kth_best(best, self.k)))

    def _surely(self, tile: Any, value: Tensor) -> Tensor:
        """What a document with this low-precision score scores at least."""
        return value - (self.unit * value.abs()).nan_to_num(0.0) - self.error[tile]  # 0 * inf: nothing known yet

    def _floor(self, tile: Any, error: Tensor) -> Tensor:
        """The lowest low-precision score that is worth keeping."""
        import torch

        floor = torch.maximum(self._reach(tile, error), self.hunch[tile]).clamp_min(torch.finfo(self.plan.low).min)
        return floor.masked_fill(self.spilled[tile], torch.finfo(self.plan.low).max)

    def _reach(self, tile: Any, error: Tensor) -> Tensor:
        """The lowest low-precision score of a document that can score as much as the bound."""
        import torch

        reach = self.bound[tile] - error
        return torch.where(reach > 0, reach / (1 + self.unit), reach / (1 - self.unit))

    def _append(self, tile: slice, line: Tensor, values: Tensor, rows: Tensor) -> None:
        """Write candidates down; ``line`` ascends."""
        import torch

        coming = torch.bincount(line, minlength=len(self.count[tile]))
        full = self.count[tile] + coming > self.plan.capacity
        if bool(full.any()):
            self._squeeze(torch.nonzero(full).flatten() + tile.start)
            over = self.count[tile] + coming > self.plan.capacity
            self.spilled[tile] |= over
            keep = ~over[line]
            line, values, rows = line[keep], values[keep], rows[keep]
            coming = torch.where(over, 0, coming)
        lines = torch.arange(len(coming), device=line.device) + tile.start
        first = lines * self.plan.capacity + self.count[tile] - (coming.cumsum(0) - coming)
        place = first.index_select(0, line) + torch.arange(len(line), device=line.device)
        self.values.view(-1)[place] = values
        self.rows.view(-1)[place] = rows.to(self.rows.dtype)
        self.count[tile] += coming

    def _kept(self, some: Any) -> tuple[Tensor, Tensor]:
        """Raise the bound of some queries by what they hold; which of their places are still worth keeping, and values.

        Args:
            some: A slice, or an array of query numbers.
        """
        import torch

        filled = torch.arange(self.plan.capacity, device=self.count.device) < self.count[some].unsqueeze(1)
        values = self.values[some].masked_fill(~filled, -torch.inf)
        self.bound[some] = torch.maximum(self.bound[some], self._surely(some, kth_best(values, self.k)))
        return filled & (values >= self._floor(some, self.error[some]).unsqueeze(1)), values

    def _squeeze(self, some: Tensor) -> None:
        """Drop what some queries need not hold any more; order of arrival stays."""
        import torch

        keep, values = self._kept(some)
        rows = self.rows[some]
        found = places(keep)
        line = found // self.plan.capacity
        kept = keep.sum(dim=1)
        first = some * self.plan.capacity - (kept.cumsum(0) - kept)
        place = first.index_select(0, line) + torch.arange(len(line), device=line.device)
        self.values.view(-1)[place] = values.view(-1).index_select(0, found)
        self.rows.view(-1)[place] = rows.view(-1).index_select(0, found)
        self.count[some] = kept

    def finish(self) -> tuple[Tensor, Tensor, Tensor]:
        """What can be among the best k.

        Returns:
            For each query whether its candidates are complete (not where a guessed floor was too high, or space was
            short), and how many they are (0 where incomplete); then the candidates' rows, one query after the other.
        """
        import torch

        complete = torch.empty_like(self.spilled)
        counts = torch.empty_like(self.count)
        rows = []
        step = max(1, (1 << 22) // self.plan.capacity)
        for start in range(0, len(self.count), step):
            some = slice(start, min(start + step, len(self.count)))
            keep, _ = self._kept(some)
            enough = self._reach(some, self.error[some]) >= self.hunch[some]
            complete[some] = ~self.spilled[some] & enough
            keep &= complete[some].unsqueeze(1)
            counts[some] = keep.sum(dim=1)
            rows.append(self.rows[some].view(-1).index_select(0, places(keep)))
        return complete, counts, torch.cat(rows)
