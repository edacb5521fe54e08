"""The model that learns: by name, from the first layers of its teacher, and with a projection where it is narrower."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from llama_index_embft._core.vectors import unit_rows
from llama_index_embft.embeddings.describe import describe_base
from llama_index_embft.embeddings.encoding.backends import SentenceTransformerBackend
from llama_index_embft.embeddings.encoding.encoder import Encoder, as_encoder
from llama_index_embft.embeddings.fingerprint import fingerprint_sentence_transformer
from llama_index_embft.embeddings.sentence_transformer import loaded_from, position_limit, prompts_of, set_max_length
from llama_index_embft.errors import ConfigError, ModelError
from llama_index_embft.finetune.running.base_model import load_base_model, make_trainable
from llama_index_embft.finetune.running.processes import device_of_process

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_index.core.base.embeddings.base import BaseEmbedding
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer
    from torch import nn

    from llama_index_embft.embeddings.sentence_transformer import TextKind
    from llama_index_embft.finetune.distill.settings import DistillationSettings
    from llama_index_embft.finetune.distill.targets import Targets

_FITTED_ON: Final = 2000  # texts; the projection is trained on all of them afterwards
_RIDGE: Final = 1e-3  # of the mean variance
# Mean cosine to the teacher from which a student is in its space already: a version of it, and not a stranger, whose
# vectors of the same dimension have a cosine near 0.
_SAME_SPACE: Final = 0.5


@dataclass(frozen=True)
class Student:
    """The model that learns.

    Attributes:
        model: Trained in place.
        prompts: ``query`` and ``document``: put before texts.
        description: What it was made from, see `describe_base`.
        fingerprint: Hash of that; None where it cannot be told from others.
        reads_all: Whether it reads as much of a text as its teacher does.
    """

    model: SentenceTransformer
    prompts: dict[TextKind, str]
    description: dict[str, Any]
    fingerprint: str | None
    reads_all: bool = False

    def encoder(self, *, normalize: bool = True) -> Encoder:
        """Embeds with the model as it stands, without a cache."""
        backend = SentenceTransformerBackend(
            self.model, prompts=self.prompts, normalize=normalize, name="student", batch_size=None, route=True
        )
        return Encoder(backend, cache=None)


def load_student(
    model_id: str | SentenceTransformer | None,
    teacher: BaseEmbedding | None,
    documents: Sequence[str],
    settings: DistillationSettings,
    *,
    with_queries: bool,
) -> Student:
    """The student as it is before training, without a projection.

    Args:
        model_id: Folder or hub name; or a loaded model, which is copied; None: made of the teacher's first layers.
        teacher: The teacher; None where only its vectors are known.
        documents: What it will read: decides how much of a text.
        settings: Layers, prompts, length, device.
        with_queries: Whether it sees queries. Without them all texts go by way of its query side, which is the one that
            serves, and its prompt for documents is that for queries.

    Raises:
        ConfigError: Neither a student nor `student_layers` is given, or both; or the teacher has no layers here.
        ModelError: It cannot be loaded, or cut.
    """
    if (model_id is None) == (settings.student_layers is None):
        which = "neither is" if model_id is None else "both are"
        raise ConfigError(
            f"The student is named by `model_id`, or made by `student_layers` of the teacher, and {which} given; give "
            "one of them."
        )
    own = _tokens_read(teacher) if settings.text.max_seq_length == "auto" else None
    text = settings.text if own is None else replace(settings.text, max_seq_length=None)
    if isinstance(model_id, str):
        base = load_base_model(
            model_id,
            text,
            passages=documents,
            device=device_of_process(settings.device),
            trust_remote_code=settings.trust_remote_code,
        )
        prompts: dict[TextKind, str] = {"query": base.prompts["query"], "document": base.prompts["document"]}
        student = Student(base.model, prompts, base.description, base.fingerprint)
    else:
        student = _copied(model_id, settings.device) if model_id is not None else _cut(teacher, settings)
        make_trainable(
            student.model,
            str(student.description["model_name"]),
            max_seq_length=text.max_seq_length,
            passages=documents,
        )
        given: dict[TextKind, str | None] = {"query": text.query_prompt, "document": text.document_prompt}
        student.prompts.update({kind: prompt for kind, prompt in given.items() if prompt is not None})
    if own is not None and isinstance(student.model.max_seq_length, int):
        set_max_length(student.model, min(own, position_limit(student.model) or own), "the student")
        student = replace(student, reads_all=student.model.max_seq_length == own)
    if not with_queries:
        student.prompts["document"] = student.prompts["query"]
    return student


def _tokens_read(teacher: BaseEmbedding | None) -> int | None:
    """Tokens of a text that a teacher reads; None where it does not run here, or reads any number.

    A student that reads less misses what the vector says, and one that reads more sees what it cannot say.
    """
    backend = None if teacher is None else as_encoder(teacher, cache=None).backend
    length = backend.model.max_seq_length if isinstance(backend, SentenceTransformerBackend) else None
    return length if isinstance(length, int) else None


def with_projection(student: Student, targets: Targets) -> None:
    """End the student in vectors of the teacher's dimension and of length 1; changes the model.

    A linear layer is put on where the dimensions differ, and where they are equal by chance: the spaces of two models,
    or of a model's middle and its end, have nothing in common. It begins as the least-squares fit of the student's
    vectors to the teacher's, and is trained with the rest.
    """
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize
    from torch import from_numpy, nn

    model = student.model
    model.truncate_dim = None
    while isinstance(model[-1], Normalize):
        del model[-1]
    found, wanted = _sample(student, targets)
    width = found.shape[1]
    if width != targets.dim or float((unit_rows(found) * wanted).sum(axis=1).mean()) < _SAME_SPACE:
        weight, bias = _least_squares(found, wanted)
        model.append(
            Dense(
                width,
                targets.dim,
                activation_function=nn.Identity(),
                init_weight=from_numpy(weight),
                init_bias=from_numpy(bias),
            ).to(model.device)
        )
    model.append(Normalize())


def _copied(model: SentenceTransformer, device: str | None) -> Student:
    if not (hasattr(model, "encode") and hasattr(model, "prompts")):
        raise ConfigError(
            f"`model_id` is a {type(model).__name__}; give a folder, a hub name or a SentenceTransformer."
        )
    own = copy.deepcopy(model)
    place = device_of_process(device)
    description = {"class_name": "SentenceTransformer", "model_name": loaded_from(model)}
    return Student(
        own if place is None else own.to(place),
        prompts_of(own),
        description,
        fingerprint_sentence_transformer(own, normalize=True),
    )


def _cut(teacher: BaseEmbedding | None, settings: DistillationSettings) -> Student:
    backend = None if teacher is None else as_encoder(teacher, cache=None).backend
    if teacher is None or not isinstance(backend, SentenceTransformerBackend):
        who = "vectors alone" if teacher is None else f"{teacher.model_name}, whose layers are not here"
        raise ConfigError(
            f"`student_layers` is {settings.student_layers}, and the teacher is {who}; name a student instead."
        )
    assert settings.student_layers is not None
    model = first_layers(backend.model, settings.student_layers)
    place = device_of_process(settings.device)
    return Student(
        model if place is None else model.to(place),
        dict(backend.prompts),
        describe_base(teacher),
        fingerprint_sentence_transformer(model, normalize=True),
    )


def first_layers(model: SentenceTransformer, n: int) -> SentenceTransformer:
    """A copy of a model whose transformer ends after so many layers.

    Args:
        model: Left as it is; the layers that are not wanted are not copied.
        n: Layers to keep.

    Raises:
        ConfigError: It has no more layers than that.
        ModelError: Its layers are not found, or the copy could not be loaded again.
    """
    from torch import nn

    transformer: Any = getattr(model[0], "auto_model", None)
    config = getattr(transformer, "config", None)
    have = int(getattr(config, "num_hidden_layers", 0))
    lists = [
        (name, part)
        for name, part in (transformer.named_modules() if isinstance(transformer, nn.Module) else ())
        if isinstance(part, nn.ModuleList) and len(part) == have
    ]
    if len(lists) != 1:
        raise ModelError(
            f"The teacher begins with {type(model[0]).__name__}, in which one list of layers is not to be found; name "
            "a student instead of student_layers."
        )
    if n >= have:
        raise ConfigError(f"`student_layers` is {n}, and the teacher has {have} layers; it must be below that.")
    place, layers = lists[0]
    parent, _, name = place.rpartition(".")
    holder = transformer.get_submodule(parent)
    setattr(holder, name, layers[:n])
    try:
        student = copy.deepcopy(model)
    finally:
        setattr(holder, name, layers)
    cut: Any = student[0].auto_model
    cut.config.num_hidden_layers = n
    for key, value in list(vars(cut.config).items()):  # kinds of attention, layer by layer
        if isinstance(value, list) and len(value) == have:
            setattr(cut.config, key, value[:n])
    _check_loadable(cut)
    return student


def _check_loadable(transformer: nn.Module) -> None:
    """A folder is read by building the class from its configuration: that must have the same weights."""
    import torch

    with torch.device("meta"):
        built = type(transformer)(transformer.config)
    if {name: tensor.shape for name, tensor in built.state_dict().items()} != {
        name: tensor.shape for name, tensor in transformer.state_dict().items()
    }:
        raise ModelError(
            f"A {type(transformer).__name__} of fewer layers could not be loaded again; name a student instead of "
            "student_layers."
        )


def _sample(student: Student, targets: Targets) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The student's vectors, as long as they are, and the teacher's, of an even sample of what is learned from."""
    encoder = student.encoder(normalize=False)
    found, wanted = [], []
    for kind, rows in targets.training():
        some = rows[:: max(1, len(rows) // _FITTED_ON)][:_FITTED_ON]
        texts = [targets.texts[kind][row] for row in some]
        found.append(encoder.encode_queries(texts) if kind == "query" else encoder.encode_documents(texts))
        wanted.append(targets.vectors[kind][some])
    return np.concatenate(found), np.concatenate(wanted)


def _least_squares(
    found: NDArray[np.float32], wanted: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weight ``(dim, width)`` and bias ``(dim,)`` that bring vectors nearest to others."""
    x, y = found.astype(np.float64), wanted.astype(np.float64)
    mean_x, mean_y = x.mean(axis=0), y.mean(axis=0)
    x = x - mean_x
    gram = x.T @ x
    ridge = max(_RIDGE * float(np.trace(gram)) / len(gram), 1e-12)
    slope = np.linalg.solve(gram + ridge * np.eye(len(gram)), x.T @ (y - mean_y))
    return slope.T.astype(np.float32).copy(), (mean_y - mean_x @ slope).astype(np.float32)
