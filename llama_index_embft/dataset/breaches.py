"""Broken rules as sentences: of our own checks, and of pydantic's report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from llama_index_embft.dataset import checks
from llama_index_embft.dataset.sources import clipped
from llama_index_embft.errors import DatasetError

if TYPE_CHECKING:
    from pydantic import ValidationError

REQUIRED: Final = ("queries", "corpus", "relevant_docs")


class BrokenDatasetError(DatasetError):
    """A breach of a rule, kept in two parts so that `from_json` can add the file and its own way out."""

    def __init__(self, statement: str, advice: str, *, source: str | None = None, droppable: bool = True) -> None:
        self.statement, self.advice, self.droppable = clipped(statement), advice, droppable
        where = f"{source}: " if source else "Broken data set: "
        call = f"from_json({source!r}" if source else "from_dict(fields"
        way_out = f', or load it with `EmbeddingQAFinetuneDataset.{call}, on_error="drop")`' if droppable else ""
        super().__init__(f"{where}{self.statement}; {advice}{way_out}.")

    def __reduce__(self) -> tuple[Any, ...]:  # two required arguments: the default would not unpickle
        return (DatasetError, (str(self),))


def require_sections(fields: Mapping[str, Any]) -> None:
    """Dropping takes entries out of sections; it cannot make up a section."""
    for name in REQUIRED:
        if name not in fields:
            raise _missing(name)
    for name in checks.SECTIONS:
        if not isinstance(fields.get(name, {}), Mapping):
            raise _wrong_type(f"`{name}`", "an object with ids as keys", fields[name], more=0, droppable=False)


def _missing(name: str) -> BrokenDatasetError:
    return BrokenDatasetError(
        f"the section `{name}` is missing",
        "a data set has at least `queries`, `corpus` and `relevant_docs`",
        droppable=False,
    )


def _wrong_type(place: str, expected: str, value: Any, *, more: int, droppable: bool) -> BrokenDatasetError:
    shown = repr(value)
    shown = shown if len(shown) <= 40 else shown[:37] + "..."
    others = f" (and {more} more values of a wrong type)" if more else ""
    return BrokenDatasetError(
        f"{place} should be {expected}, got {shown} ({type(value).__name__}){others}",
        "correct it",
        droppable=droppable,
    )


_EXPECTED = {
    "model_type": "an object",
    "dict_type": "an object with ids as keys",
    "list_type": "a list of document ids",
    "string_type": "a string",
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
}


def as_dataset_error(err: ValidationError) -> DatasetError:
    """Turn pydantic's report into one sentence."""
    first = err.errors(include_url=False)[0]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, DatasetError):
        return cause
    section, *rest = first["loc"] if first["loc"] else ("data set",)
    if first["type"] == "missing":
        return _missing(str(section))
    if first["type"] == "extra_forbidden":
        return BrokenDatasetError(
            f"there is no field `{section}`",
            f"the fields are {', '.join(checks.SECTIONS)}, mode, provenance",
            droppable=False,
        )
    place = f"`{section}`" + "".join(f"[{part!r}]" for part in rest if part != "[key]")
    if "[key]" in rest:
        place = f"the id {rest[0]!r} in `{section}`" if rest.index("[key]") == 1 else f"a key of {place}"
    expected = _EXPECTED.get(first["type"], "of another type")
    return _wrong_type(place, expected, first["input"], more=err.error_count() - 1, droppable=bool(rest))
