"""Split a data set so that nothing learnt on one side is asked for on another."""

from __future__ import annotations

import logging
import random
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from llama_index_embft.dataset.ties import By, group_numbers, query_ties
from llama_index_embft.errors import ConfigError, DatasetError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset

logger = logging.getLogger(__name__)

SIDES = ("train", "val", "test")

# Whole groups in random order rarely fill the sides exactly; the best of several orders does. The limit keeps data sets
# of many small groups, which come out even at once, from being shuffled in vain.
_TRIES, _PLACEMENTS = 64, 200_000


class Split(NamedTuple):
    """Three data sets that share no document."""

    train: EmbeddingQAFinetuneDataset
    val: EmbeddingQAFinetuneDataset
    test: EmbeddingQAFinetuneDataset


def split_dataset(
    dataset: EmbeddingQAFinetuneDataset,
    *,
    by: By = "document",
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    seed: int = 0,
    keep_corpus: bool = True,
    near_duplicates: float | None = 0.8,
    show_progress: bool = True,
) -> Split:
    """Split the queries into train, validation and test so that no document is asked about on two sides.

    Queries stay together when they ask about one source document, about near-duplicates of each other, or are
    themselves the same question. What counts as a document is ``dataset.document_of(chunk)``. The result depends on the
    content and the seed alone, not on the order of the queries. Each side's provenance names its side and, as parent,
    the data set that it was cut from.

    Args:
        dataset: At least one query for each side.
        by: ``"document"``: a source document and all its chunks form a unit. ``"chunk"``: each chunk is its own unit,
            for a corpus cut from one document; neighbouring chunks then end on different sides. Or a function of the
            data set and a query id that returns the unit, such as a company, an author or a year, for every query; one
            chunk is still never on two sides.
        fractions: Shares of train, validation and test among the queries, adding up to 1; a share may be 0. Units are
            never broken, so the sizes are as near as the units allow.
        seed: Chooses which units go where.
        keep_corpus: Give each side the whole corpus as its haystack, as the index will have it. False leaves each side
            only the documents of its own queries, which makes retrieval easier and its figures higher.
        near_duplicates: Overlap of two chunks, above 0 and at most 1, from which they count as one; see
            `near_duplicate_groups`. None turns the search off, and only equal texts count as one.
        show_progress: Show a bar where the search takes more than two seconds.

    Raises:
        ConfigError: An argument has a value that is not allowed, or the function `by` returns no unit.
        DatasetError: A side would be empty, because there are too few queries or too many of them hang together.
    """
    wanted = _checked_fractions(fractions)
    query_ids = sorted(dataset.queries)
    if by == "document":
        _warn_without_sources(dataset)
    groups = group_numbers(query_ties(dataset, query_ids, by, near_duplicates, show_progress=show_progress))
    sizes = Counter(groups)
    _check_enough(dataset, sizes, wanted, by)
    side_of = _assign(sizes, wanted, seed)
    members = Counter(side_of[group] for group in groups)
    _warn_if_uneven(members, wanted, sizes)
    # The caller's order, so that a split of a file reads like the file.
    group_of = dict(zip(query_ids, groups, strict=True))
    parent = dataset.content_hash()
    parts = [
        dataset.subset(
            [query_id for query_id in dataset.queries if side_of[group_of[query_id]] == number], keep_corpus=keep_corpus
        )
        for number in range(len(SIDES))
    ]
    for part, side in zip(parts, SIDES, strict=True):
        part.provenance = part.provenance.model_copy(update={"split": side, "parent": parent})
    return Split(*parts)


def _checked_fractions(fractions: Sequence[float]) -> list[float]:
    try:
        wanted = [float(fraction) for fraction in fractions]
    except (TypeError, ValueError):  # one number, or a text
        wanted = []
    if len(wanted) != len(SIDES) or min(wanted) < 0.0 or not abs(sum(wanted) - 1.0) <= 1e-6 or wanted[0] == 0.0:
        raise ConfigError(
            "`fractions` must be three shares for train, validation and test that add up to 1, the first above 0, "
            f"got {fractions!r}."
        )
    return wanted


def _warn_without_sources(dataset: EmbeddingQAFinetuneDataset) -> None:
    unknown = sum(doc not in dataset.source_documents for doc in dataset.corpus)
    if unknown:
        logger.warning(
            "%d of %d chunks do not say which document they were cut from, so each of them counts as a document of its "
            "own, and chunks of one document may land in train and in test. If they were cut from longer documents, "
            "name those: dataset.replace(source_documents=dataset_corpus(nodes).source_documents).",
            unknown,
            len(dataset.corpus),
        )


def _assign(sizes: Counter[int], wanted: list[float], seed: int) -> dict[int, int]:
    """Choose a side for each group: the best balanced of several random orders."""
    total = sizes.total()
    targets = [fraction * total for fraction in wanted]
    rng = random.Random(seed)
    groups = sorted(sizes)
    tries = max(1, min(_TRIES, _PLACEMENTS // len(groups)))
    best: tuple[float, dict[int, int]] | None = None
    for _ in range(tries):
        room = list(targets)
        side_of: dict[int, int] = {}
        for group in rng.sample(groups, len(groups)):
            side = max(range(len(room)), key=room.__getitem__)
            side_of[group] = side
            room[side] -= sizes[group]
        _fill_empty_sides(side_of, sizes, targets, room)
        cost = sum(map(abs, room))
        if best is None or cost < best[0]:
            best = (cost, side_of)
    assert best is not None
    return best[1]


def _fill_empty_sides(side_of: dict[int, int], sizes: Counter[int], targets: list[float], room: list[float]) -> None:
    """Give each side that should have queries, and got none, the smallest group that another side can spare."""
    for side, target in enumerate(targets):
        groups_of = Counter(side_of.values())
        if target > 0.0 and not groups_of[side]:
            spare = [group for group, at in side_of.items() if groups_of[at] > 1]
            moved = min(spare, key=lambda group: (sizes[group], group))
            room[side_of[moved]] += sizes[moved]
            room[side] -= sizes[moved]
            side_of[moved] = side


def _check_enough(dataset: EmbeddingQAFinetuneDataset, sizes: Counter[int], wanted: list[float], by: By) -> None:
    needed = sum(1 for fraction in wanted if fraction > 0.0)
    if len(dataset.queries) < needed:
        raise DatasetError(
            f"The data set has {len(dataset.queries)} queries, too few to split into {needed} parts; add queries."
        )
    if len(sizes) >= needed:
        return
    unit = by if isinstance(by, str) else "key"
    largest = sizes.most_common(1)[0][1]
    only = f"all {largest} queries ask about one {unit}" if len(sizes) == 1 else f"there are only {len(sizes)} units"
    ways = ["add documents"]
    if by == "document":
        ways.append('split by chunk with `by="chunk"` (neighbouring chunks then land on different sides)')
    ways.append("give a part the fraction 0")
    raise DatasetError(
        f"Cannot split into {needed} parts that share no {unit}: {only}, counting near-duplicates as one; "
        f"{', '.join(ways[:-1])}, or {ways[-1]}."
    )


def _warn_if_uneven(members: Counter[int], wanted: list[float], sizes: Counter[int]) -> None:
    total = sizes.total()
    got = [members[side] / total for side in range(len(SIDES))]
    # A few queries more or less are in the nature of whole groups.
    if all(abs(a - b) <= 0.05 or abs(a - b) * total <= 2 for a, b in zip(got, wanted, strict=True)):
        return
    logger.warning(
        "The split gives train/val/test %s %% of the queries instead of %s %%: the largest group of queries that hang "
        "together holds %d of %d.",
        "/".join(f"{100 * share:.0f}" for share in got),
        "/".join(f"{100 * share:.0f}" for share in wanted),
        sizes.most_common(1)[0][1],
        total,
    )
