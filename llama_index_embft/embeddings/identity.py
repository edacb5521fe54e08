"""Whose vectors are these? An identity holds what decides vectors, and nothing else.

Models that run here: weights, configurations, tokenizer, pooling, normalization, prompt, length, dimensions, precision.
Hosted models of a class that is known: provider, address, model, and every setting that somebody has changed. A class
that is not known has no identity: nothing says what decides its vectors, so they are never kept on a disk.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, get_args
from urllib.parse import urlsplit

from llama_index_embft.embeddings.fingerprint import fingerprint_sentence_transformer, hash_parts
from llama_index_embft.embeddings.sentence_transformer import TextKind, has_router, inner_model
from llama_index_embft.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from sentence_transformers import SentenceTransformer

logger = logging.getLogger(__name__)

# Before it there was none: what has no prefix was hashed from other things, and says nothing about a model of today.
_VERSION: Final = "2:"

# Clients of services that keep a model behind a name as it is; the same class may move between modules.
_HOSTED: Final = frozenset(
    {
        "AnyscaleEmbedding", "AzureOpenAIEmbedding", "BedrockEmbedding", "CohereEmbedding", "DashScopeEmbedding",
        "DeepInfraEmbeddingModel", "FireworksEmbedding", "GeminiEmbedding", "GoogleGenAIEmbedding", "JinaEmbedding",
        "MistralAIEmbedding", "MixedbreadAIEmbedding", "NVIDIAEmbedding", "NebiusEmbedding", "NomicEmbedding",
        "OllamaEmbedding", "OpenAIEmbedding", "OpenAILikeEmbedding", "SiliconFlowEmbedding", "TogetherEmbedding",
        "UpstageEmbedding", "VertexTextEmbedding", "VoyageEmbedding", "ZhipuAIEmbedding",
    }
)  # fmt: skip
_INTEGRATIONS: Final = "llama_index.embeddings."
_ADDRESSES: Final = frozenset({"api_base", "api_url", "azure_endpoint", "base_url", "endpoint", "url"})
# The address that a class uses when none is given.
_OWN_ADDRESSES: Final = frozenset({"api.openai.com"})
# Fields of an integration that cannot change a vector, or must not be looked at (credentials).
_NOT_DECIDING: Final = frozenset(
    {
        "api_type", "api_version", "azure_ad_token_provider", "cache_folder", "callback_manager", "class_name",
        "credentials", "default_headers", "embed_batch_size", "embeddings_cache", "max_retries", "num_workers",
        "organization", "profile_name", "rate_limiter", "region_name", "request_timeout", "retries", "reuse_client",
        "show_progress_bar", "timeout", "token", "use_azure_ad", "use_workload_identity",
    }
)  # fmt: skip
_SECRET_ENDS: Final = ("_key", "_key_id", "_token", "password", "_secret", "_headers")
_NOT_DECIDING_ARGUMENTS: Final = frozenset({"encoding_format", "extra_headers", "timeout", "user"})

_said: set[str] = set()


@dataclass(frozen=True)
class ModelIdentity:
    """Who made these vectors.

    Attributes:
        fingerprint: Hash of everything that decides them, the prompt included.
        name: Name for messages; it takes no part in comparisons, since a folder may be moved.
    """

    fingerprint: str
    name: str = field(compare=False)

    def __str__(self) -> str:
        return f"{self.name} (fingerprint {self.fingerprint[:12]})"

    @classmethod
    def of(cls, name: str, *parts: str) -> ModelIdentity:
        """An identity made of what decides the vectors."""
        return cls(_VERSION + hash_parts(*parts), name)

    @property
    def of_earlier_version(self) -> bool:
        """Whether it was written by a version that hashed other things, so that it can be compared with nothing."""
        return is_earlier(self.fingerprint)


def is_earlier(fingerprint: str | None) -> bool:
    """Whether a fingerprint was written by a version that hashed other things."""
    return bool(fingerprint) and not str(fingerprint).startswith(_VERSION)


def identify(model: BaseEmbedding, side: TextKind = "document", *, identity: str | None = None) -> ModelIdentity:
    """Who makes a model's document vectors, or its query vectors.

    It looks at one side alone: a query-side adapter leaves the documents to its base model, so its document identity is
    the base model's.

    Args:
        model: Any LlamaIndex embedding.
        side: ``"document"`` for what an index holds, ``"query"`` for what searches it.
        identity: For a class that is not known: a name that you give this model and change whenever its vectors change.

    Raises:
        ModelError: The class is not known, and no `identity` was given.
        ConfigError: An `identity` was given for a model that has one.
    """
    found = known_identity(model, side, given=identity)
    if found is None:
        raise ModelError(
            f"Nothing says what decides the vectors of {_class_of(model)}, a class that is not known here; pass "
            "identity='...', a name that you change whenever its vectors change."
        )
    return found


def known_identity(model: BaseEmbedding, side: TextKind, *, given: str | None = None) -> ModelIdentity | None:
    """`identify`, with None for a class that is not known, which one warning says.

    Args:
        model: Any LlamaIndex embedding. One with a method ``identity(side, given=None)`` that returns a `ModelIdentity`
            speaks for itself, as those of this package do.
        side: See `identify`.
        given: ``identity`` of `identify`; it stands for the model below, where the model wraps one.
    """
    if _speaks_for_itself(model):
        speaker: Any = model
        own = speaker.identity(side, given=given)
        return own if isinstance(own, ModelIdentity) else None
    inner = inner_model(model)
    found: ModelIdentity | None = None
    if inner is not None:  # of LlamaIndex, which tells a `Router` nothing; ours speaks for itself
        found = sentence_transformer_identity(inner.model, inner.prompts[side], "", inner.normalize, model.model_name)
    elif is_known_service(model):
        found = ModelIdentity.of(model.model_name, json.dumps(_service(model, side), sort_keys=True, default=str))
    if found is None and given is not None:
        return ModelIdentity.of(model.model_name, "given", given)
    if given is not None:
        raise ConfigError(f"`identity` is {given!r}, and {_class_of(model)} has an identity of its own; leave it out.")
    if found is None:
        _say_once(model)
    return found


def sentence_transformer_identity(
    model: SentenceTransformer, prompt: str, route: str, normalize: bool, name: str
) -> ModelIdentity | None:
    """Who makes the vectors of a SentenceTransformer with this prompt; None where its parts cannot be hashed.

    Args:
        model: The model.
        prompt: Put before each text.
        route: Kind of text that a `Router` is told; empty: nothing is told.
        normalize: Whether vectors are scaled to length 1 after the model.
        name: Name for messages.
    """
    parts = fingerprint_sentence_transformer(model, normalize=normalize)
    return None if parts is None else ModelIdentity.of(name, parts, prompt, route if has_router(model) else "")


def whole_fingerprint(query: ModelIdentity | None, document: ModelIdentity | None) -> str | None:
    """Hash of both sides of a model, as a result keeps it of its base model; None where one has no identity."""
    if query is None or document is None:
        return None
    return _VERSION + hash_parts(query.fingerprint, document.fingerprint)


def fingerprints(model: BaseEmbedding) -> dict[str, str | None]:
    """The fingerprints of both sides, for a record or a dict; None where a side has no identity."""
    found = {side: known_identity(model, side) for side in get_args(TextKind)}
    return {side: None if who is None else who.fingerprint for side, who in found.items()}


def check_base(base: BaseEmbedding, expected: str | None, what: str, *, force: bool) -> None:
    """Make sure that a saved result sits on the model whose vectors it was made from.

    Args:
        base: The model below.
        expected: What `whole_fingerprint` gave when it was made; None where its base had none.
        what: The result in words, such as ``The adapter in runs/adapter``.
        force: Believe the caller.

    Raises:
        ModelError: It does not, or nothing tells.
    """
    if force:
        return
    actual = whole_fingerprint(known_identity(base, "query"), known_identity(base, "document"))
    if is_earlier(expected):
        raise ModelError(
            f"{what} was saved by an earlier version, which identified models by other things; if {base.model_name} is "
            "the model that it was made on pass force=True, else make it again."
        )
    if actual is None:
        raise ModelError(
            f"{what} cannot be checked against {base.model_name}: nothing says what decides the vectors of "
            f"{_class_of(base)}, a class that is not known here; if it is the model below, pass force=True."
        )
    if expected is None:
        raise ModelError(
            f"{what} does not say which model it was made on, so it cannot be checked against {base.model_name}; if "
            "it is, pass force=True."
        )
    if actual != expected:
        raise ModelError(
            f"{what} was trained on another base model (fingerprint {expected[:12]}) than {base.model_name} "
            f"({actual[:12]}); load the model it was trained on, or pass force=True."
        )


def is_known_service(model: BaseEmbedding) -> bool:
    """Whether a class is a client of a service whose settings are known; a subclass may do more, and is not."""
    return type(model).__module__.startswith(_INTEGRATIONS) and type(model).__name__ in _HOSTED


def _service(model: BaseEmbedding, side: TextKind) -> dict[str, Any]:
    """What decides the vectors of a hosted model: its class, its name, and each setting that is not the default."""
    found: dict[str, Any] = {"provider": type(model).__name__, "model_name": model.model_name}
    for name, info in type(model).model_fields.items():
        value = getattr(model, name)
        usual = value == info.get_default(call_default_factory=True)
        if usual or name in _NOT_DECIDING or name.endswith(_SECRET_ENDS):
            continue
        if name in _ADDRESSES:
            parts = urlsplit(str(value))
            address = f"{parts.hostname or value}:{parts.port or ''}{parts.path.rstrip('/')}"
            if parts.hostname not in _OWN_ADDRESSES:
                found[name] = address
        elif name == "additional_kwargs" and isinstance(value, dict):
            found |= {key: _plain(part) for key, part in value.items() if key not in _NOT_DECIDING_ARGUMENTS}
        else:
            found[name] = _plain(value)
    engine = getattr(model, f"_{'query' if side == 'query' else 'text'}_engine", None)
    if type(model).__name__.startswith(("OpenAI", "AzureOpenAI")):
        found["engine"] = engine
        found.pop("mode", None)  # it decides the engines, and only these
    else:
        found["side"] = side
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else value


def _speaks_for_itself(model: BaseEmbedding) -> bool:
    # A class of somebody else that is derived from one of ours may do more than its parent.
    owner = next((cls for cls in type(model).__mro__ if callable(vars(cls).get("identity"))), None)
    return owner is not None and _root(owner) == _root(type(model))


def _root(cls: type) -> str:
    return cls.__module__.partition(".")[0]


def _class_of(model: BaseEmbedding) -> str:
    return f"{type(model).__module__}.{type(model).__qualname__}"


def _say_once(model: BaseEmbedding) -> None:
    name = _class_of(model)
    if name not in _said:
        _said.add(name)
        logger.warning(
            "Nothing says what decides the vectors of %s, a class that is not known here: they are kept in memory for "
            "this process, and never on the disk.",
            name,
        )
