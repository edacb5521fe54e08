"""Checks of arguments, and the one way in which their errors are worded: value, rule, next step."""

from __future__ import annotations

from difflib import get_close_matches
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from llama_index_embft._core.redaction import redact
from llama_index_embft.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

_LONGEST = 20_000  # characters of a foreign error that are looked at; some hold a whole page


def check_number(
    name: str,
    value: float,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    whole: bool = False,
    hint: str = "",
) -> None:
    """Refuse a number outside its range; NaN lies outside every range.

    Args:
        name: The argument's name, as the caller writes it.
        value: What was given.
        at_least: Least value that is allowed.
        above: The value must be greater than this.
        at_most: Greatest value that is allowed.
        below: The value must be less than this.
        whole: The value must be a whole number.
        hint: A next step, put behind the rule ("use None for no limit").

    Raises:
        ConfigError: The value breaks a rule, or is no number.
    """
    if not isinstance(value, Real):
        raise ConfigError(
            f"`{name}` is {redact(repr(value))[:80]}, which is not a number{f'; {hint}' if hint else ''}."
        )
    if whole and not isinstance(value, Integral):
        raise ConfigError(f"`{name}` is {value}; it must be a whole number{f': {hint}' if hint else ''}.")
    rules = [
        ("at least", at_least, at_least is None or value >= at_least),
        ("above", above, above is None or value > above),
        ("at most", at_most, at_most is None or value <= at_most),
        ("below", below, below is None or value < below),
    ]
    if all(holds for _, _, holds in rules):
        return
    rule = " and ".join(
        f"{word} {bound}" if isinstance(bound, int) else f"{word} {bound:g}"
        for word, bound, _ in rules
        if bound is not None
    )
    raise ConfigError(f"`{name}` is {value}; it must be {rule}{f': {hint}' if hint else ''}.")


def check_choice(name: str, value: Any, choices: Iterable[Any], *, hint: str = "") -> None:
    """Refuse a value that is not one of those allowed, and name the nearest that is.

    Raises:
        ConfigError: The value is not among ``choices``.
    """
    allowed = list(choices)
    if value in allowed:
        return
    near = get_close_matches(str(value), [str(choice) for choice in allowed], n=1)
    listed = ", ".join(map(repr, allowed))
    guess = f" (did you mean {near[0]!r}?)" if near else ""
    raise ConfigError(f"`{name}` is {value!r}; it must be one of {listed}{guess}{f': {hint}' if hint else ''}.")


def first_line(err: BaseException) -> str:
    """What another library's exception says: one line without secrets and its last full stop, or its type."""
    lines = redact(str(err)[:_LONGEST]).strip().splitlines()
    return lines[0].strip().rstrip(".") if lines else type(err).__name__
