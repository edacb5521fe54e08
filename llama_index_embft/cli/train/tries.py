"""How ``embft train`` shows what an engine has tried before it chose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from llama_index_embft.cli.shared.console import console

if TYPE_CHECKING:
    from llama_index_embft.finetune.engine import FinetuneResult

_SETTINGS: Final = ("kind", "start", "bias", "rank", "output_dim", "learning_rate")
_OUTCOME: Final = ("step", "epoch", "ridge", "seconds", "note")
_LEFT: Final = ("kind", "start", "note")
_FORMATS: Final = {"learning_rate": "g", "seconds": ".1f", "ridge": ".3g"}


def show_tries(result: FinetuneResult) -> None:
    """Print the table of tries, a row each; nothing where there was nothing to choose."""
    from rich.table import Table

    if not result.tries:
        return
    # Where folds chose, these are other numbers than those of the summary, which may come from a validation set.
    judge = (result.selection or "validation").partition("'")[0]
    # A column that says nothing about any row (no adapter has a bias, say) would only make the table wide.
    used = {name for row in result.tries for name, value in row.items() if value not in (None, False)}
    names = [name for name in (*_SETTINGS, result.metric, *_OUTCOME) if name in used]
    table = Table(title=f"Tried, {result.metric} on {judge}", title_justify="left")
    for name in names:
        table.add_column("" if name == "note" else name, justify="left" if name in _LEFT else "right")
    for row in result.tries:
        table.add_row(*(_cell(name, row.get(name), result.metric) for name in names))
    console.print(table)


def _cell(name: str, value: Any, metric: str) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    if isinstance(value, float):
        return format(value, ".4f" if name == metric else _FORMATS.get(name, ".4g"))
    return "" if value is None else str(value)
