"""Counting tokens, and cutting a passage to what a model can read."""

from __future__ import annotations

from typing import Final

# No tokenizer in use makes more than one token of two characters of ordinary Latin text on average.
_CHARACTERS_PER_TOKEN_AT_LEAST: Final = 2.0
# Beyond this a text is counted by its first part: a tokenizer is slow on megabytes, above all without spaces.
_COUNTED: Final = 50_000
# Our tokenizer is not the model's; a third more is what Llama-like vocabularies need for the same English text.
_MARGIN: Final = 0.75


def count_tokens(text: str) -> int:
    """Tokens of a text by LlamaIndex's global tokenizer; long texts are counted by their first 50,000 characters."""
    from llama_index.core.utils import get_tokenizer

    if len(text) <= _COUNTED:
        return len(get_tokenizer()(text))
    return round(len(get_tokenizer()(text[:_COUNTED])) * len(text) / _COUNTED)


def count_in_any_tokenizer(text: str) -> int:
    """Tokens of a text in the least thrifty tokenizer of those in use, as far as ours can tell."""
    return round(count_tokens(text) / _MARGIN)


def certainly_fits(text: str, limit: int) -> bool:
    """Whether a text has at most ``limit`` tokens in any tokenizer; told from its length alone."""
    characters_per_token = _CHARACTERS_PER_TOKEN_AT_LEAST if text.isascii() else 0.5
    return len(text) <= limit * _MARGIN * characters_per_token


def cut_to_tokens(text: str, limit: int) -> str:
    """Keep the beginning of a text, at most about ``limit`` tokens, with a margin for other tokenizers."""
    allowed = max(1, int(limit * _MARGIN))
    shorter = text[: allowed * 12]  # no text has more than a dozen characters a token for long
    tokens = count_tokens(shorter)
    while tokens > allowed and shorter:
        shorter = shorter[: min(int(len(shorter) * allowed / tokens), len(shorter) - 1)]
        tokens = count_tokens(shorter)
    if len(shorter) == len(text):
        return text
    end = max(shorter.rfind(mark) for mark in (" ", "\n", "。", "，"))
    return shorter[:end] if end > len(shorter) // 2 else shorter
