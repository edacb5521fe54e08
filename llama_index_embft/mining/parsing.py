"""Strategies from their text form."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from llama_index_embft.errors import ConfigError
from llama_index_embft.mining.judge import LLMJudge
from llama_index_embft.mining.strategies import (
    BM25,
    AbsoluteMargin,
    Filter,
    LeastSimilar,
    Random,
    RankWindow,
    RelativeMargin,
    SameDocument,
    ScoreWindow,
    Source,
)
from llama_index_embft.mining.teachers import CrossEncoder, Teacher

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llama_index.core.llms import LLM

Strategy = Source | Filter | Teacher

DEFAULT_STRATEGIES: Final = ("rank:1-100", "margin:0.95")

_NUMBER: Final = r"(-?(?:\d+\.?\d*|\.\d+))"
# Text form -> pattern and maker. A new strategy is one new file, and one line here.
STRATEGY_FORMS: Final[dict[str, tuple[str, Callable[..., Strategy]]]] = {
    "rank:10-50": (r"rank:(\d+)-(\d+)", lambda first, last: RankWindow(int(first), int(last))),
    "rank:10-50:random": (r"rank:(\d+)-(\d+):random", lambda first, last: RankWindow(int(first), int(last), "random")),
    "score:0.3-0.7": (rf"score:{_NUMBER}-{_NUMBER}", lambda low, high: ScoreWindow(float(low), float(high))),
    "margin:0.95": (rf"margin:{_NUMBER}", lambda share: RelativeMargin(float(share))),
    "gap:0.05": (rf"gap:{_NUMBER}", lambda gap: AbsoluteMargin(float(gap))),
    "random": ("random", Random),
    "least-similar": ("least-similar", LeastSimilar),
    "bm25:50": (r"bm25:(\d+)", lambda last: BM25(int(last))),
    "same-document": ("same-document", SameDocument),
    "cross-encoder:MODEL": (r"cross-encoder:(.+)", CrossEncoder),
}


def parse_strategy(text: str, *, llm: LLM | None = None, trust_remote_code: bool = False) -> Strategy:
    """Make a strategy from its text form.

    Args:
        text: ``rank:10-50``, ``rank:10-50:random``, ``score:0.3-0.7``, ``margin:0.95``, ``gap:0.05``, ``random``,
            ``least-similar``, ``bm25:50``, ``same-document``, ``cross-encoder:MODEL`` or ``judge``.
        llm: The LLM of ``judge``.
        trust_remote_code: Run code that comes with a cross-encoder.

    Raises:
        ConfigError: There is no such strategy, its numbers make no sense, or ``judge`` has no LLM.
    """
    form = text.strip()
    if form == "judge":
        if llm is None:
            raise ConfigError("The strategy 'judge' needs an LLM: pass `llm=`, any LlamaIndex LLM.")
        return LLMJudge(llm)
    for pattern, make in STRATEGY_FORMS.values():
        found = re.fullmatch(pattern, form)
        if found:
            made = make(*found.groups())
            if isinstance(made, CrossEncoder):
                made.trust_remote_code = trust_remote_code
            return made
    raise ConfigError(f"There is no strategy {text!r}; the forms are: {', '.join([*STRATEGY_FORMS, 'judge'])}.")


def as_strategies(
    given: Sequence[Any] | str, *, llm: LLM | None = None, trust_remote_code: bool = False
) -> list[Strategy]:
    """Make a list of strategies, of which at least one proposes candidates.

    Where all are filters, they apply to the 100 best documents.

    Raises:
        ConfigError: See `parse_strategy`; an element is no strategy, or stands there twice.
    """
    items = [given] if isinstance(given, (str, Source, Filter, Teacher)) else list(given)
    strategies: list[Strategy] = []
    for item in items:
        if isinstance(item, str):
            strategies.append(parse_strategy(item, llm=llm, trust_remote_code=trust_remote_code))
        elif isinstance(item, (Source, Filter, Teacher)):
            strategies.append(item)
        else:
            raise ConfigError(f"The strategy {item!r} is neither a text such as 'rank:10-50' nor a strategy object.")
    names = [str(strategy) for strategy in strategies]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"The strategy {twice[0]!r} is named twice; leave one out.")
    if not any(isinstance(strategy, Source) for strategy in strategies):
        strategies.insert(0, RankWindow(1, 100))
    return strategies
