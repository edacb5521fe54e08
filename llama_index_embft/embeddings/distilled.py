"""A small model for the queries of an index whose documents a larger one has embedded: `DistilledEmbedding`."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import (
    Field,
    PrivateAttr,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from llama_index_embft.embeddings.describe import load_described_base, load_local, read_json
from llama_index_embft.embeddings.identity import ModelIdentity, fingerprints, is_earlier, known_identity
from llama_index_embft.embeddings.wrapped import embedding_from_dict, embedding_to_dict
from llama_index_embft.errors import ModelError

if TYPE_CHECKING:
    from typing_extensions import Self

    from llama_index_embft.embeddings.sentence_transformer import TextKind

DISTILLED: Final = "distilled"
_RECORD: Final = "embft.json"


class DistilledEmbedding(BaseEmbedding):
    """Queries by a student that runs here, documents by the teacher whose vectors it has learned to give.

    An index that the teacher embedded stays as it is, and takes this model in its place: the document side, by which an
    index knows its model, is the teacher's. The teacher is loaded when the first document is embedded, and never for
    queries alone.

    Args:
        distilled_path: Folder that `DistillationEngine` saved.
        teacher: The model that embeds the documents; None: it is loaded as the folder describes it, where it runs here.
        query_prompt: Put before each query; None: the one that the student was trained with.
        device: Torch device; None takes a GPU where there is one.
        force: Accept another teacher than the student was trained by, or one that cannot be told from others.
        trust_remote_code: Run code that comes with the student or the teacher. Only for repositories you have read.
        **fields: Fields of `BaseEmbedding`.

    Raises:
        ModelError: The folder holds no distilled model, is damaged, or belongs to another teacher.
    """

    distilled_path: str = Field(description="Folder of the student.")
    _student: BaseEmbedding = PrivateAttr()
    _teacher: BaseEmbedding | None = PrivateAttr()
    _record: dict[str, Any] = PrivateAttr()
    _query_prompt: str | None = PrivateAttr()
    _loading: dict[str, Any] = PrivateAttr()

    def __init__(
        self,
        distilled_path: str | Path,
        teacher: BaseEmbedding | None = None,
        *,
        query_prompt: str | None = None,
        device: str | None = None,
        force: bool = False,
        trust_remote_code: bool = False,
        **fields: Any,
    ) -> None:
        folder = Path(distilled_path)
        record = _read(folder)
        if teacher is not None and not force:
            _check_teacher(teacher, record["teacher"], folder)
        student = load_local(
            str(folder),
            query_prompt=record["prompts"]["query"] if query_prompt is None else query_prompt,
            document_prompt=record["prompts"]["document"],
            max_length=record.get("max_length"),
            device=device,
            trust_remote_code=trust_remote_code,
        )
        name = f"{folder.name}→{record['teacher']['name']}"
        super().__init__(**{"model_name": name, "distilled_path": str(folder), **fields})
        self._student, self._teacher, self._record, self._query_prompt = student, teacher, record, query_prompt
        self._loading = {"device": device, "force": force, "trust_remote_code": trust_remote_code}

    @classmethod
    def class_name(cls) -> str:
        """Name for LlamaIndex's serialization."""
        return "DistilledEmbedding"

    def model_of(self, side: TextKind) -> BaseEmbedding:
        """The student for queries, the teacher for documents.

        Raises:
            ModelError: The teacher is asked for, was not given, and cannot be loaded from what the folder says of it.
        """
        if side == "query":
            return self._student
        if self._teacher is None:
            said = self._record["teacher"]
            teacher = load_described_base(
                said["description"],
                self.distilled_path,
                self._loading["device"],
                trust_remote_code=self._loading["trust_remote_code"],
            )
            if not self._loading["force"]:
                _check_teacher(teacher, said, Path(self.distilled_path))
            self._teacher = teacher
        return self._teacher

    def identity(self, side: TextKind, given: str | None = None) -> ModelIdentity | None:
        """The student's for queries; for documents the teacher's, as it was when the student was trained.

        A teacher that was accepted by ``force`` has its own, for which it is loaded where it can be.

        Args:
            side: Kind of text.
            given: Stands for a teacher of a class that is not known, as in `identify`.
        """
        if side == "query":
            return known_identity(self._student, side)
        teacher = self._record["teacher"]
        if self._loading["force"]:  # whoever it is, the vectors are its own
            with suppress(ModelError):  # one that cannot be loaded embeds nothing, so the record cannot be wrong
                forced = self.model_of(side)
                own = known_identity(forced, side)
                if own is not None or given is None:
                    return own
                return ModelIdentity.of(forced.model_name, "given", given)
        if teacher["document"] is not None:
            return ModelIdentity(teacher["document"], teacher["name"])
        return None if given is None else ModelIdentity.of(teacher["name"], "given", given)

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._student._get_query_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await self._student._aget_query_embedding(query)

    # By its public calls: its batches, its limits and its cache are its own.
    def _get_text_embedding(self, text: str) -> list[float]:
        return self.model_of("document").get_text_embedding(text)

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return await self.model_of("document").aget_text_embedding(text)

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self.model_of("document").get_text_embedding_batch(texts)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await self.model_of("document").aget_text_embedding_batch(texts)

    # The name of LlamaIndex's own, which it replaces.
    @model_serializer(mode="wrap")
    def custom_model_dump(self, handler: SerializerFunctionWrapHandler, _info: SerializationInfo) -> dict[str, Any]:
        """Fields, class name, the teacher where it was given, and the identity of both sides."""
        data: dict[str, Any] = handler(self) | {"class_name": self.class_name(), "force": self._loading["force"]}
        data["teacher"] = None if self._teacher is None else embedding_to_dict(self._teacher)
        return data | {"query_prompt": self._query_prompt, "identity": fingerprints(self)}

    @classmethod
    def from_dict(cls, data: dict[str, Any], **kwargs: Any) -> Self:
        """Load the model that `to_dict` described; ``teacher`` may be given where a dict cannot build it.

        Raises:
            ModelError: The folder is gone, or the teacher cannot be built from the dict.
        """
        merged = {**data, **kwargs}
        if isinstance(merged.get("teacher"), dict):
            merged["teacher"] = embedding_from_dict(merged["teacher"])
        made = ("class_name", "identity", "model_name")
        return cls(**{name: value for name, value in merged.items() if name not in made})


def holds_distilled(folder: Path) -> bool:
    """Whether a folder holds a model that `DistillationEngine` saved."""
    return read_json(folder / _RECORD).get("kind") == DISTILLED


def teacher_record(
    name: str, description: dict[str, Any], document: ModelIdentity | None, query: ModelIdentity | None
) -> dict[str, Any]:
    """What ``embft.json`` of a distilled model says of its teacher.

    Args:
        name: For messages.
        description: Of `describe_base`; empty where only its vectors are known.
        document: Who makes its document vectors; None where nothing tells.
        query: Likewise for queries.
    """
    return {
        "name": name,
        "description": description,
        "document": None if document is None else document.fingerprint,
        "query": None if query is None else query.fingerprint,
    }


def _read(folder: Path) -> dict[str, Any]:
    record = read_json(folder / _RECORD)
    if not record:
        raise ModelError(f"{folder} holds no saved result ({_RECORD} is missing or damaged); check the path.")
    if record.get("kind") != DISTILLED:
        raise ModelError(
            f"{folder} holds a saved result of the kind {record.get('kind')!r} and no distilled model; load it with "
            "load_embed_model."
        )
    teacher: Any = record.get("teacher")
    prompts: Any = record.get("prompts")
    length = record.get("max_length")
    whole = isinstance(teacher, dict) and isinstance(prompts, dict)
    whole = whole and all(isinstance(prompts.get(side), str) for side in ("query", "document"))
    whole = whole and isinstance(teacher.get("name"), str) and isinstance(teacher.get("description"), dict)
    whole = whole and all(isinstance(teacher.get(side, 0), str | None) for side in ("query", "document"))
    if not (whole and isinstance(length, int | None)):
        raise ModelError(f"{folder / _RECORD} is damaged (teacher or prompts); distil the model again.")
    return record


def _check_teacher(teacher: BaseEmbedding, said: dict[str, Any], folder: Path) -> None:
    """Make sure that documents are embedded by the model whose vectors the student has learned."""
    if is_earlier(said["document"]):
        raise ModelError(
            f"The student in {folder} was saved by an earlier version, which identified models by other things; if "
            f"{teacher.model_name} is its teacher pass force=True, else distil it again."
        )
    actual = known_identity(teacher, "document")
    if actual is None or said["document"] is None:
        raise ModelError(
            f"Nothing tells whether {teacher.model_name} is the teacher of the student in {folder} ({said['name']}); "
            "if it is, pass force=True."
        )
    if actual.fingerprint != said["document"]:
        raise ModelError(
            f"The student in {folder} was trained by {said['name']} (fingerprint {said['document'][:12]}), not by "
            f"{actual}; load that teacher, or pass force=True."
        )
