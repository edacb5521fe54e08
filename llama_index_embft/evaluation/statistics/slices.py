"""Parts of the queries that are worth a look of their own."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from llama_index_embft._core.language import detect_language, kind_of, length_in_words
from llama_index_embft.errors import ConfigError

if TYPE_CHECKING:
    from llama_index_embft.evaluation.records import RetrievalReport

Slicer = str | Mapping[str, Any] | Callable[[str, str], Any]
"""The name of a built-in division, query id -> label, or a function of query id and text."""

_MOST_PARTS: Final = 12  # beyond these, the smallest parts are joined: a table of hundreds says nothing
_REST: Final = "all others"

_LANGUAGES: Final = {
    "en": "English", "de": "German", "fr": "French", "es": "Spanish", "it": "Italian", "pt": "Portuguese",
    "nl": "Dutch", "pl": "Polish", "sv": "Swedish", "tr": "Turkish", "zh": "Chinese", "ja": "Japanese", "ko": "Korean",
    "el": "Greek", "he": "Hebrew", "th": "Thai", "cyrillic": "Cyrillic script", "arabic": "Arabic script",
    "devanagari": "Devanagari script",
}  # fmt: skip


def slice_labels(
    report: RetrievalReport, slices: Iterable[Slicer] | Mapping[str, Slicer] | str
) -> dict[str, list[str]]:
    """Name of a division -> label of each query, in row order.

    Raises:
        ConfigError: A division is unknown or leaves queries without a label.
    """
    if isinstance(slices, str):
        slices = [slices]
    if isinstance(slices, Mapping):
        named = dict(slices)
    else:
        named = {}
        for i, slicer in enumerate(slices, 1):
            name = slicer if isinstance(slicer, str) else getattr(slicer, "__name__", f"slice {i}")
            named[f"{name} ({i})" if name in named and not isinstance(slicer, str) else name] = slicer  # two lambdas
    return {name: _fewer(_labels(report, name, slicer)) for name, slicer in named.items()}


def _labels(report: RetrievalReport, name: str, slicer: Slicer) -> list[str]:
    if isinstance(slicer, Mapping):
        missing = [query for query in report.query_ids if query not in slicer]
        if missing:
            raise ConfigError(
                f"The slices {name!r} give no label for query {missing[0]!r} (and {len(missing) - 1} more); label each."
            )
        return [str(slicer[query]) for query in report.query_ids]
    if callable(slicer):
        return [str(slicer(query, text)) for query, text in zip(report.query_ids, report.queries, strict=True)]
    if slicer == "document":
        return list(report.documents)
    if slicer == "length":
        return _by_length(report.queries)
    if slicer == "language":
        return [language_of(text) for text in report.queries]
    if slicer == "script":
        return [script_of(text) for text in report.queries]
    if slicer == "kind":
        return [kind_of(text) for text in report.queries]
    raise ConfigError(
        f"Unknown slices {slicer!r}: use 'document', 'length', 'language', 'script', 'kind', a mapping or a function."
    )


def _by_length(queries: Iterable[str]) -> list[str]:
    """Three parts of about equal size by number of words; a character counts where words are not spaced."""
    lengths = np.array([length_in_words(text) for text in queries])
    low, high = (int(cut) for cut in np.quantile(lengths, [1 / 3, 2 / 3]))

    def label(length: int) -> str:
        if length <= low:
            return f"up to {low} words"
        return f"{low + 1} to {high} words" if length <= high else f"over {high} words"

    return [label(int(length)) for length in lengths]


def language_of(text: str) -> str:
    """The language of a text, or ``"undetected"`` where the evidence is too thin, as it is in most keyword queries."""
    found = detect_language(text)
    return "undetected" if found is None else _LANGUAGES.get(found, found)


def script_of(text: str) -> str:
    """The script most letters of a text are in, which is a fair guess at its language group."""
    scripts: Counter[str] = Counter()
    for character in text:
        if character.isalpha():
            script = unicodedata.name(character, "OTHER").split()[0].capitalize()
            scripts[{"Cjk": "Han", "Hiragana": "Japanese", "Katakana": "Japanese"}.get(script, script)] += 1
    if scripts["Japanese"]:
        return "Japanese"  # kana beside Han characters
    return max(scripts, key=scripts.__getitem__) if scripts else "no letters"


def _fewer(labels: list[str]) -> list[str]:
    sizes = Counter(labels)
    if len(sizes) <= _MOST_PARTS:
        return labels
    kept = {name for name, _ in sizes.most_common(_MOST_PARTS - 1)}
    return [label if label in kept else _REST for label in labels]
