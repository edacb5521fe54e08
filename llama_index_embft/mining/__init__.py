"""Hard negatives: strategies that find them, rules that keep false ones out, and a report of what was done."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llama_index_embft.mining.export import (
        flag_embedding_rows,
        labelled_pairs,
        ntuples,
        pairs,
        teacher_rows,
        triplets,
        write_jsonl,
    )
    from llama_index_embft.mining.miner import DEFAULT_STRATEGIES, mine_hard_negatives
    from llama_index_embft.mining.parsing import parse_strategy
    from llama_index_embft.mining.report import MiningReport
    from llama_index_embft.mining.strategies import (
        BM25,
        AbsoluteMargin,
        LeastSimilar,
        Random,
        RankWindow,
        RelativeMargin,
        SameDocument,
        ScoreWindow,
    )
    from llama_index_embft.mining.teachers import CrossEncoder, Judge

__all__ = [
    "BM25",
    "DEFAULT_STRATEGIES",
    "AbsoluteMargin",
    "CrossEncoder",
    "Judge",
    "LeastSimilar",
    "MiningReport",
    "Random",
    "RankWindow",
    "RelativeMargin",
    "SameDocument",
    "ScoreWindow",
    "flag_embedding_rows",
    "labelled_pairs",
    "mine_hard_negatives",
    "ntuples",
    "pairs",
    "parse_strategy",
    "teacher_rows",
    "triplets",
    "write_jsonl",
]

_HOME = {
    **dict.fromkeys(
        (
            "BM25",
            "AbsoluteMargin",
            "LeastSimilar",
            "Random",
            "RankWindow",
            "RelativeMargin",
            "SameDocument",
            "ScoreWindow",
        ),
        "strategies",
    ),
    **dict.fromkeys(("CrossEncoder", "Judge"), "teachers"),
    **dict.fromkeys(("DEFAULT_STRATEGIES", "mine_hard_negatives"), "miner"),
    **dict.fromkeys(
        ("flag_embedding_rows", "labelled_pairs", "ntuples", "pairs", "teacher_rows", "triplets", "write_jsonl"),
        "export",
    ),
    "MiningReport": "report",
    "parse_strategy": "parsing",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
