"""The exact search: look at everything at low precision, score what can matter exactly, take the best k.

Where the first look cannot decide (thousands of documents with one score, very small inputs), everything is scored
exactly instead; the result is the same.
"""

from __future__ import annotations

import itertools
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from llama_index_embft.search.select import best_keys, places
from llama_index_embft.search.sweep import GROUP, CandidatePool, LowBlock, LowQueries, SearchPlan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from torch import Tensor

    from llama_index_embft.search.rows import EmbeddingRows

_NOTHING = -(1 << 63)
_REDUCTIONS = (
    "allow_fp16_reduced_precision_reduction",
    "allow_bf16_reduced_precision_reduction",
    "allow_fp16_accumulation",
)
_SMALL = 1 << 22  # below this number of scores the first look is not worth its start


class ExclusionMask:
    """Corpus rows that queries must not return.

    Args:
        owners: Query number of each pair, ascending.
        rows: Corpus row of each pair.
    """

    def __init__(self, owners: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
        self.owners, self.rows = owners, rows

    def of(self, queries: NDArray[np.int64]) -> ExclusionMask:
        """The pairs of some queries (ascending), whose new number is their place in the array."""
        start, end = np.searchsorted(self.owners, queries), np.searchsorted(self.owners, queries, side="right")
        length = end - start
        place = np.arange(length.sum()) + np.repeat(start - (length.cumsum() - length), length)
        return ExclusionMask(np.repeat(np.arange(len(queries)), length), self.rows[place])

    def blocks(self, width: int, n_docs: int) -> list[ExclusionMask]:
        """The pairs of each block of ``width`` documents, with rows counted from the start of the block."""
        if not len(self.rows):
            return [self] * -(-n_docs // width)
        order = np.argsort(self.rows, kind="stable")
        edges = np.searchsorted(self.rows[order], np.arange(0, n_docs + width, width))
        return [
            ExclusionMask(self.owners[some], self.rows[some] - column)
            for column, some in zip(
                range(0, n_docs, width),
                (np.sort(order[low:high]) for low, high in itertools.pairwise(edges)),
                strict=False,
            )
        ]

    def strike(self, scores: Tensor, top: int, value: float) -> None:
        """Overwrite the scores of the pairs in a tile whose first query is number ``top``."""
        import torch

        low, high = np.searchsorted(self.owners, [top, top + len(scores)])
        if low < high:
            lines = torch.from_numpy(self.owners[low:high] - top).to(scores.device)
            scores[lines, torch.from_numpy(self.rows[low:high]).to(scores.device)] = value


def search(
    queries: EmbeddingRows, corpus: EmbeddingRows, k: int, excluded: ExclusionMask, plan: SearchPlan | None
) -> tuple[Tensor, Tensor]:
    """The best k documents of each query.

    Args:
        queries: The rows to search for.
        corpus: The rows to search in.
        k: At least 1.
        excluded: Pairs that must not come back.
        plan: Sizes and precision; None scores everything exactly.

    Returns:
        Rows ``(n, k)`` int64 and scores ``(n, k)`` float32, on the CPU.
    """
    import torch

    rows = torch.full((queries.n, k), -1, dtype=torch.int64)
    scores = torch.full((queries.n, k), -torch.inf)
    if not queries.n or not corpus.n:
        return rows, scores
    pending = np.arange(queries.n)
    passes = [plan] if plan is not None else []
    if plan is not None and plan.sample:
        passes.append(SearchPlan(**{**vars(plan), "sample": 0}))  # for those whose guessed floor was too high
    with torch.no_grad(), _full_precision():
        for attempt in passes:
            undecided = []
            for start in range(0, len(pending), attempt.panel):
                panel = pending[start : start + attempt.panel]
                done = _search_panel(queries, corpus, panel, k, excluded.of(panel), attempt, rows, scores)
                undecided.append(panel[~done])
            pending = np.concatenate(undecided)
            if not len(pending):
                return rows, scores
        _search_plainly(queries, corpus, pending, k, excluded.of(pending), rows, scores)
    return rows, scores


def _search_panel(
    queries: EmbeddingRows,
    corpus: EmbeddingRows,
    panel: NDArray[np.int64],
    k: int,
    excluded: ExclusionMask,
    plan: SearchPlan,
    rows: Tensor,
    scores: Tensor,
) -> NDArray[np.bool_]:
    """Search some queries in two passes over the corpus, and write down the results of those that are decided."""
    import torch

    exact = queries.take(torch.from_numpy(panel).to(queries.device))
    complete, counts, candidates = _first_look(LowQueries(exact, plan.low), corpus, k, excluded, plan).finish()
    graded = _grade(exact, corpus, counts, candidates, plan)
    done = complete.cpu().numpy()
    step = max(1, (1 << 22) // max(k, int(counts.max())))
    starts = counts.cumsum(0) - counts
    for top in range(0, len(panel), step):
        some = counts[top : top + step]
        keys = torch.full((len(some), max(k, int(some.max()))), _NOTHING, dtype=torch.int64, device=exact.device)
        inside = torch.arange(keys.shape[1], device=exact.device) < some.unsqueeze(1)
        low, high = int(starts[top]), int(starts[top + len(some) - 1] + some[-1])
        keys.view(-1)[places(inside)] = _keys(graded[low:high], candidates[low:high].to(torch.int64), corpus)
        decided = done[top : top + step]
        where = torch.from_numpy(panel[top : top + step][decided])
        rows[where], scores[where] = (part[torch.from_numpy(decided)] for part in _unpack(best_keys(keys, k), corpus))
    return done


def _grade(exact: Tensor, corpus: EmbeddingRows, counts: Tensor, candidates: Tensor, plan: SearchPlan) -> Tensor:
    """Exact scores of the candidates: ``(pairs,)`` float32.

    Args:
        exact: Shape ``(n, dim)``: the queries.
        corpus: The rows that candidates name.
        counts: Shape ``(n,)``: candidates of each query.
        candidates: Shape ``(pairs,)``: corpus rows, one query after the other.
        plan: Sizes.
    """
    import torch

    graded = torch.empty(len(candidates), dtype=torch.float32, device=exact.device)
    owner = torch.repeat_interleave(torch.arange(len(counts), device=exact.device), counts)
    block_of = candidates // plan.width
    order = torch.argsort(block_of.to(torch.int16 if corpus.n // plan.width < 2**15 else torch.int32), stable=True)
    ends = torch.bincount(block_of, minlength=-(-corpus.n // plan.width)).cumsum(0).tolist()
    del block_of
    wide = exact.to(torch.float64)
    for number, (low, high) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
        if low < high:
            some = order[low:high]
            column = number * plan.width
            block = corpus.take(slice(column, column + plan.width)).to(torch.float64)
            graded[some] = _pair_scores(wide, block, owner[some], candidates[some].to(torch.int64) - column)
    return graded


def _first_look(
    queries: LowQueries, corpus: EmbeddingRows, k: int, excluded: ExclusionMask, plan: SearchPlan
) -> CandidatePool:
    """Candidates of all queries of a panel."""
    import torch

    device = queries.rows.device
    pool = CandidatePool(queries, k, plan, corpus.n)
    picked = np.sort(np.random.default_rng(0).choice(corpus.n, min(corpus.n, plan.sample or 4096), replace=False))
    sample = corpus.take(torch.from_numpy(picked).to(device))
    mean = sample.mean(dim=0)
    scale = 2.0**-corpus.exponent
    scores = torch.empty(plan.height * max(plan.width, plan.sample), dtype=plan.low, device=device)
    tiles = [slice(top, min(top + plan.height, len(queries.rows))) for top in range(0, len(queries.rows), plan.height)]
    if plan.sample:
        block = LowBlock(sample, mean, scale, plan.low)
        expected = k * plan.sample / corpus.n
        rank = round(expected + 2 * expected**0.5 + 1)  # two in a hundred queries get a second pass: cheaper than more
        for tile in tiles:
            pool.guess(tile, _product(queries.rows[tile], block.rows, scores), rank, block)
    del sample
    blocks = excluded.blocks(plan.width, corpus.n)
    for column, struck in zip(range(0, corpus.n, plan.width), blocks, strict=True):
        block = LowBlock(corpus.take(slice(column, column + plan.width)), mean, scale, plan.low)
        for tile in tiles:
            part = _product(queries.rows[tile], block.rows, scores)
            part[:, block.count :] = -torch.inf
            struck.strike(part, tile.start, -torch.inf)
            pool.offer(tile, part, column, block)
    return pool


def _product(queries: Tensor, block: Tensor, out: Tensor) -> Tensor:
    """Matrix product into memory that is used again and again: fresh pages cost as much as the product."""
    import torch

    part: Tensor = out[: len(queries) * len(block)].view(len(queries), len(block))
    torch.mm(queries, block.T, out=part)
    return part


def _pair_scores(queries: Tensor, block: Tensor, line: Tensor, column: Tensor) -> Tensor:
    """Exact scores of (query, document) pairs, rounded to float32: ``(pairs,)``.

    Args:
        queries: Shape ``(n, dim)`` float64.
        block: Shape ``(m, dim)`` float64.
        line: Shape ``(pairs,)``: query of each pair, ascending.
        column: Shape ``(pairs,)``: document of each pair.
    """
    import torch

    if queries.device.type == "cpu":
        edges = torch.nn.functional.pad(torch.bincount(line, minlength=len(queries)).cumsum(0), (1, 0))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # "sparse tensors are in beta"
            pairs = torch.sparse_csr_tensor(
                edges, column, torch.zeros(len(line), dtype=torch.float64), size=(len(queries), len(block))
            )
            scored = torch.sparse.sampled_addmm(pairs, queries, block.T, beta=0.0)
        result: Tensor = scored.values().to(torch.float32)
        return result
    result = torch.empty(len(line), dtype=torch.float32, device=queries.device)
    step = max(1, (128 << 20) // (24 * queries.shape[1]))
    for start in range(0, len(line), step):
        some = slice(start, start + step)
        result[some] = (queries[line[some]] * block[column[some]]).sum(dim=1).to(torch.float32)
    return result


def score_pairs(queries: EmbeddingRows, corpus: EmbeddingRows, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Exact scores of chosen pairs, rounded to float32.

    Args:
        queries: n rows.
        corpus: The rows to score them with.
        rows: Shape ``(n, m)``: corpus rows of each query; -1 for none, which scores -inf.
    """
    import torch

    result = np.full(rows.shape, -np.inf, dtype=np.float32)
    step = max(1, (32 << 20) // (12 * corpus.dim * max(1, rows.shape[1])))
    for start in range(0, len(rows), step):
        some = rows[start : start + step]
        exact = queries.take(slice(start, start + step)).to(torch.float64)
        chosen = torch.from_numpy(np.maximum(some, 0)).to(corpus.device)
        documents = corpus.take(chosen.flatten()).to(torch.float64).view(*some.shape, corpus.dim)
        scores = torch.bmm(documents, exact.unsqueeze(2)).squeeze(2).to(torch.float32)
        result[start : start + step] = np.where(some >= 0, scores.cpu().numpy(), -np.inf)
    return result


def _search_plainly(
    queries: EmbeddingRows,
    corpus: EmbeddingRows,
    some: NDArray[np.int64],
    k: int,
    excluded: ExclusionMask,
    rows: Tensor,
    scores: Tensor,
) -> None:
    """Score everything exactly."""
    import torch

    height = min(len(some), 1024)
    width = max(256, (64 << 20) // (24 * height))
    blocks = excluded.blocks(width, corpus.n)
    for top in range(0, len(some), height):
        where = torch.from_numpy(some[top : top + height])
        exact = queries.take(where.to(queries.device)).to(torch.float64)
        best = torch.full((len(exact), k), _NOTHING, dtype=torch.int64, device=exact.device)
        for column, struck in zip(range(0, corpus.n, width), blocks, strict=True):
            block = corpus.take(slice(column, column + width)).to(torch.float64)
            numbers = torch.arange(column, column + len(block), device=exact.device)
            keys = _keys((exact @ block.T).to(torch.float32), numbers, corpus)
            struck.strike(keys, top, _NOTHING)
            best = best_keys(torch.cat([best, keys], dim=1), k)
        rows[where], scores[where] = _unpack(best, corpus)


def _keys(scores: Tensor, rows: Tensor, corpus: EmbeddingRows) -> Tensor:
    """Integers that sort as (score, then who wins ties); no two of one query are alike.

    Args:
        scores: Any shape, float32.
        rows: Corpus rows, int64, of a shape that broadcasts; below 2^32.
        corpus: Knows who wins ties; the lower row where nothing was said.
    """
    import torch

    ranks = rows if corpus.rank_of is None else corpus.rank_of[rows]
    bits = (scores + 0.0).view(torch.int32).to(torch.int64)  # + 0.0 makes -0.0 equal to 0.0
    bits ^= (bits >> 63) & 0x7FFFFFFF  # negative floats sort backwards as integers
    return (bits << 32) + (0xFFFFFFFF - ranks)


def _unpack(keys: Tensor, corpus: EmbeddingRows) -> tuple[Tensor, Tensor]:
    """Rows and scores back from `_keys`, on the CPU."""
    import torch

    empty = keys == _NOTHING
    rows = (0xFFFFFFFF - (keys & 0xFFFFFFFF)).masked_fill(empty, 0)
    if corpus.by_rank is not None:
        rows = corpus.by_rank[rows]
    bits = keys >> 32
    scores = (bits ^ ((bits >> 63) & 0x7FFFFFFF)).to(torch.int32).view(torch.float32)
    return rows.masked_fill(empty, -1).cpu(), scores.masked_fill(empty, -torch.inf).cpu()


def make_plan(queries: EmbeddingRows, corpus: EmbeddingRows, k: int, low: Any, memory: int) -> SearchPlan | None:
    """Sizes for a search that takes about ``memory`` bytes beside its inputs and its result; None for a small one."""
    if queries.n * corpus.n < _SMALL or 8 * k > corpus.n:
        return None
    gpu = queries.device.type == "cuda"
    capacity = -(-(4 * k + 128) // GROUP) * GROUP
    tile = memory // 8 // low.itemsize
    width = min(16384 if gpu else 8192, -(-corpus.n // GROUP) * GROUP)
    width = max(GROUP, min(width, memory // 8 // (20 * corpus.dim) // GROUP * GROUP))
    height = max(16, min(8192 if gpu else 2048, tile // width, queries.n))
    # A candidate takes 8 bytes in the pool and up to 24 while it is scored; a query also has its own row.
    panel = max(height, memory // 2 // (12 * capacity + 12 * corpus.dim))
    sample = 0
    if corpus.n >= 1 << 13:  # about an eighth of the work, and the fewer are kept needlessly
        sample = min(1 << (corpus.n // 8).bit_length() - 1, 1 << 15)
    return SearchPlan(panel=panel, height=height, width=width, capacity=capacity, sample=sample, low=low)


def low_precision(device: Any) -> Any:
    """The data type whose matrix product is fastest on a device, among those that lose few candidates."""
    import torch

    if device.type == "cuda":
        return torch.float16
    supported = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return torch.bfloat16 if device.type == "cpu" and supported is not None and supported() else torch.float32


@contextmanager
def _full_precision() -> Iterator[None]:
    """The error bound assumes float32 sums: settings that allow less are put back afterwards, as they were.

    From torch 2.9 on a setting of its own for matrix products hides the general one, and what has none says the general
    one's value. So "none" is put back where both are the same: what the caller sets later then holds here too.
    """
    import torch

    backends: Any = torch.backends
    matmul = backends.cuda.matmul
    plain = [name for name in _REDUCTIONS if getattr(matmul, name, None) is not None]  # the last is new in torch 2.7
    before = {name: getattr(matmul, name) for name in plain}
    restore = []
    if hasattr(matmul, "fp32_precision"):
        general = backends.fp32_precision
        for products in (matmul, backends.mkldnn.matmul):
            own = products.fp32_precision
            restore.append((products, "none" if own == general else own))
            products.fp32_precision = "ieee"
    else:
        legacy = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
    for name in plain:
        setattr(matmul, name, False)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(matmul, name, value)
        for products, value in restore:
            products.fp32_precision = value
        if not restore:
            torch.set_float32_matmul_precision(legacy)
