"""Exceptions with a sentence for the user.

Every message says what is wrong, where, and what to do next. The command line prints the message alone and exits
with code 2; anything that is not an `EmbftError` is a defect of this package and keeps its traceback.
"""

from __future__ import annotations


class EmbftError(Exception):
    """Base of every error that this package raises on purpose."""

    def __str__(self) -> str:
        """The sentence; a half of a surrogate pair, as damaged data hold it, is written as its number.

        No terminal and no file takes such a half as it is.
        """
        return super().__str__().encode("utf-8", "backslashreplace").decode("utf-8")


class DatasetError(EmbftError, ValueError):
    """A data set, or a file that should hold one, breaks a rule of the format."""


class DocumentError(EmbftError, ValueError):
    """A user's input file or folder cannot be turned into text."""


class ModelError(EmbftError, ValueError):
    """An embedding model, adapter or saved result cannot be loaded, or is not the one expected."""


class GenerationError(EmbftError, RuntimeError):
    """Questions could not be made."""


class TrainingError(EmbftError, RuntimeError):
    """Training could not start, or had to stop."""


class EvaluationError(EmbftError, ValueError):
    """Results cannot be scored or compared."""


class ConfigError(EmbftError, ValueError):
    """An argument has a value that is not allowed, or contradicts another."""


class OutputError(EmbftError, OSError):
    """A result cannot be written: no permission, no space, or something is in the way."""


class MissingExtraError(EmbftError, ImportError):
    """An optional package is needed and not installed; the message holds the pip command."""
