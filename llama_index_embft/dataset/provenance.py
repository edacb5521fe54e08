"""Where a data set comes from: what nobody can see in its texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from typing_extensions import Self


BY_LLM: Final = "llm"
"""`Provenance.made_by` of questions that an LLM wrote."""
BY_TEXT: Final = "text"
"""`Provenance.made_by` of questions that were taken from the text."""


class Provenance(BaseModel):
    """Where a data set comes from. It says nothing about the content, so the content hash leaves it out.

    Attributes:
        split: Which side of a split this is: ``"train"``, ``"val"`` or ``"test"``.
        made_by: What made the questions: ``"llm"`` or ``"text"`` where a function of this package made them up; else
            what they are, in words, for reports; None: people asked them, as far as is known.
        parent: Content hash of the data set that this one was cut or mined from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    split: str | None = None
    made_by: str | None = None
    parent: str | None = None

    def __bool__(self) -> bool:
        return any(self.known().values())

    def known(self) -> dict[str, Any]:
        """The fields that say something."""
        return self.model_dump(exclude_none=True)

    def shared_with(self, other: Provenance) -> Self:
        """What holds for the union of two data sets: the fields in which both agree."""
        mine, theirs = self.known(), other.known()
        return type(self)(**{name: value for name, value in mine.items() if theirs.get(name) == value})
