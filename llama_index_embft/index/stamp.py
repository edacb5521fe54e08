"""What an index says of itself: which model embedded it, and whether it is being changed."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from llama_index_embft._core.checks import first_line
from llama_index_embft.embeddings.identity import ModelIdentity
from llama_index_embft.errors import EmbftError
from llama_index_embft.index.canaries import Canary

if TYPE_CHECKING:
    from typing_extensions import Self

State = Literal["ready", "updating", "building"]
_FORMAT: Final = 1


class StoreError(EmbftError, RuntimeError):
    """A vector store cannot do what is asked of it, or does not hold what it should."""


@dataclass(frozen=True)
class Stamp:
    """The identity of an index, kept in the store itself.

    Attributes:
        model: Whose vectors the index holds; while it is updated, whose it held before.
        dim: Their dimension.
        state: ``"ready"``; ``"updating"`` while vectors are replaced, when the index holds two models' vectors and
            must not be searched; ``"building"`` while a new index is filled.
        target: Whose vectors it will hold; set in the state ``"updating"``.
        journal: Path of the file that finishes the update or takes it back; set in the state ``"updating"``.
        canaries: Test sentences with the vectors that a hosted model made of them; () for local models.
    """

    model: ModelIdentity
    dim: int
    state: State = "ready"
    target: ModelIdentity | None = None
    journal: str | None = None
    canaries: tuple[Canary, ...] = ()

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(
            {
                "format": _FORMAT,
                "model": _to_dict(self.model),
                "dim": self.dim,
                "state": self.state,
                "target": None if self.target is None else _to_dict(self.target),
                "journal": self.journal,
                "canaries": [canary._asdict() for canary in self.canaries],
            }
        )

    @classmethod
    def from_json(cls, text: Any, where: str) -> Self:
        """Read what `to_json` wrote.

        Args:
            text: The line; anything else is a damaged stamp.
            where: The index, for messages.

        Raises:
            StoreError: It is damaged, or of a newer version.
        """
        try:
            data = json.loads(text)
            newer = data["format"] > _FORMAT
            if not newer and data["state"] not in get_args(State):
                raise ValueError(f"unknown state {data['state']!r}")
            target = data["target"]
            stamp = cls(
                model=_identity_of(data["model"]),
                dim=int(data["dim"]),
                state=data["state"],
                target=None if target is None else _identity_of(target),
                journal=None if data["journal"] is None else str(data["journal"]),
                canaries=tuple(_canary_of(found) for found in data.get("canaries", ())),
            )
            if stamp.state == "updating" and stamp.target is None:
                raise ValueError("an update without a target")
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as err:
            raise StoreError(
                f"The stamp of {where} is damaged ({first_line(err)}); stamp the index again: "
                "stamp_index(index, embed_model, overwrite=True)."
            ) from err
        if newer:
            raise StoreError(f"The stamp of {where} was written by a newer llama-index-embft; upgrade it.")
        return stamp


def _identity_of(found: dict[str, Any]) -> ModelIdentity:
    fingerprint, name = found["fingerprint"], found["name"]
    if not isinstance(fingerprint, str) or not isinstance(name, str):
        raise TypeError("an identity that is no text")
    return ModelIdentity(fingerprint, name)


def _canary_of(found: dict[str, Any]) -> Canary:
    canary = Canary(found["fingerprint"], found["text"], found["vector"])
    if not all(isinstance(part, str) for part in canary):
        raise TypeError("a test sentence that is no text")
    base64.b64decode(canary.vector, validate=True)  # or a ValueError
    return canary


def _to_dict(identity: ModelIdentity) -> dict[str, Any]:
    return {"fingerprint": identity.fingerprint, "name": identity.name}
