"""Where a data set comes from: what nobody can see in its texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from typing_extensions import Self


class Provenance(BaseModel):
    """Where a data set comes from. It says nothing about the content, so the content hash leaves it out.

    Attributes:
        split: Which side of a split this is: ``"train"``, ``"val"`` or ``"test"``.
        made_by: Which model or reader made the questions or the labels.
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
