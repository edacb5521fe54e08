"""What a SentenceTransformer says of itself: its prompts, the length it can read, whether it routes texts by kind.

One rule for all ways to a model: by name on the hub, by folder, or as an object that is loaded already.
"""

from __future__ import annotations

import logging
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias, get_args

from llama_index_embft._core.checks import first_line
from llama_index_embft.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from llama_index.core.base.embeddings.base import BaseEmbedding
    from sentence_transformers import SentenceTransformer
    from torch import nn

logger = logging.getLogger(__name__)

TextKind: TypeAlias = Literal["query", "document"]
"""What a text is: it decides the prompt, and the branch of a model that routes."""

STOCK_CLASS: Final = "llama_index.embeddings.huggingface.base.HuggingFaceEmbedding"
OWN_CLASS: Final = "llama_index_embft.embeddings.local.LocalEmbedding"

# Names that mean retrieval, the best first; compared without case, and with every separator as an underscore.
_NAMES: Final[dict[str, tuple[str, ...]]] = {
    "query": ("query", "search_query", "retrieval_query", "web_search_query", "s2p_query"),
    "document": (
        "document", "passage", "corpus", "text", "search_document", "search_passage", "retrieval_document",
        "retrieval_passage",
    ),
}  # fmt: skip
_WORDS: Final[dict[str, frozenset[str]]] = {
    "query": frozenset({"query", "queries", "question"}),
    "document": frozenset({"document", "documents", "doc", "docs", "passage", "passages", "corpus"}),
}
# What the prompts of other tasks are called, in whole or in part: a model for retrieval may well have them.
_OTHER_TASKS: Final = frozenset(
    {
        "bitext", "bitextmining", "classification", "classify", "cluster", "clustering", "code", "entailment",
        "instruct", "matching", "mining", "multilabelclassification", "nli", "pairclassification", "reranking",
        "retrieval", "s2s", "separation", "similarity", "sts", "summarization", "summary", "symmetric",
    }
)  # fmt: skip
# Their embedding table begins after the index of the padding token.
_SHIFTED_POSITIONS: Final = frozenset({"camembert", "data2vec-text", "longformer", "mpnet", "roberta", "xlm-roberta"})


class InnerModel(NamedTuple):
    """The SentenceTransformer inside a LlamaIndex embedding, and how that embedding uses it.

    Attributes:
        model: The model.
        prompts: What is put before a query and before a document.
        normalize: Whether vectors are scaled to length 1 after the model.
        routes: Whether a model with a `Router` is told which kind of text it reads.
    """

    model: SentenceTransformer
    prompts: dict[TextKind, str]
    normalize: bool
    routes: bool


def inner_model(embedding: BaseEmbedding) -> InnerModel | None:
    """The SentenceTransformer that a LlamaIndex embedding runs; None for every other class.

    A subclass may do more than its parent: only the classes themselves are known to do just this.
    """
    name = f"{type(embedding).__module__}.{type(embedding).__qualname__}"
    inner: Any = getattr(embedding, "_model", None)
    if name not in (STOCK_CLASS, OWN_CLASS) or inner is None:
        return None
    prompts: dict[TextKind, str]
    if name == STOCK_CLASS:
        prompts = {"query": inner.prompts.get("query") or "", "document": inner.prompts.get("text") or ""}
    else:
        own: Any = embedding
        prompts = {"query": own.query_instruction or "", "document": own.text_instruction or ""}
    return InnerModel(inner, prompts, bool(getattr(embedding, "normalize", True)), name == OWN_CLASS)


def model_prompts(
    prompts: Mapping[str, str | None],
    default_name: str | None,
    name: str,
    *,
    query: str | None = None,
    document: str | None = None,
) -> dict[TextKind, str]:
    """The prompt of queries and the prompt of documents.

    A prompt that was given wins, ``""`` included, which means none. Else the model's own is taken, by the name it has
    there. What LlamaIndex's class puts before texts of a model of this name (BGE, INSTRUCTOR) is not the model's: a
    folder of the same model has no name to find it by. A warning says what it would be.

    Args:
        prompts: The model's own, by name (``config_sentence_transformers.json``).
        default_name: Its ``default_prompt_name``.
        name: Name of the model on the hub, or its folder.
        query: Put before queries; None: the model's own.
        document: Put before documents; likewise.

    Raises:
        ModelError: The model's own prompts have names that do not say which of them is for retrieval.
    """
    own = {key: text for key, text in prompts.items() if text}
    found: dict[TextKind, str] = {}
    given: dict[TextKind, str | None] = {"query": query, "document": document}
    for kind in get_args(TextKind):
        text = given[kind]
        if text is None:
            text = _own_prompt(own, kind, name)
        found[kind] = text or ""
    missing = [kind for kind, text in given.items() if text is None and not any(kind in _kinds_of(key) for key in own)]
    unsaid = [key for key in own if not _kinds_of(key)]
    nothing = query is None and document is None and not any(_kinds_of(key) for key in own)
    if unsaid and missing and (nothing or default_name in unsaid):
        raise ModelError(
            f"The model {name} has prompts named {', '.join(map(repr, unsaid))}, and none of them says that it is for "
            'queries or for documents; pass query_prompt= and document_prompt= ("" for none).'
        )
    _say_what_is_left_out(name, missing, [key for key in unsaid if not _OTHER_TASKS & set(_plain(key).split("_"))])
    return found


def _own_prompt(own: Mapping[str, str], kind: TextKind, name: str) -> str | None:
    by_name = {_plain(key): text for key, text in own.items()}
    known = next((by_name[key] for key in _NAMES[kind] if key in by_name), None)
    if known is not None:
        return known
    others = [key for key in own if kind in _kinds_of(key)]
    if len({own[key] for key in others}) > 1:
        raise ModelError(
            f"The model {name} has several prompts that may be for a {kind} ({', '.join(map(repr, others))}); say "
            f'which by {kind}_prompt= ("" for none).'
        )
    return own[others[0]] if others else None


def _kinds_of(key: str) -> set[str]:
    plain = _plain(key)
    return {kind for kind in _NAMES if plain in _NAMES[kind] or _WORDS[kind] & set(plain.split("_"))}


def _plain(key: str) -> str:
    return re.sub(r"[\W_]+", "_", key).strip("_").lower()


_said: set[str] = set()


def _say_what_is_left_out(name: str, missing: list[TextKind], unsaid: list[str]) -> None:
    """Warn once of a side without a prompt where a prompt of another name, or LlamaIndex, may have one for it."""
    from llama_index.embeddings.huggingface import utils

    ask = {"query": utils.get_query_instruct_for_model_name, "document": utils.get_text_instruct_for_model_name}
    for kind in missing:
        told = ask[kind](name)
        reason = ""
        if unsaid:
            reason = f"its prompts {', '.join(map(repr, unsaid))} do not say what they are for, and are not used"
        elif told:
            reason = f"LlamaIndex's HuggingFaceEmbedding would put {told!r} there, which is no part of the model"
        message = f"Nothing is put before each {kind} of {name}: {reason}; pass {kind}_prompt= to choose."
        if reason and message not in _said:
            _said.add(message)
            logger.warning("%s", message)


def prompts_of(model: SentenceTransformer) -> dict[TextKind, str]:
    """The prompts of a SentenceTransformer that is loaded already, by the same rule as `model_prompts`."""
    return model_prompts(model.prompts, model.default_prompt_name, loaded_from(model))


def loaded_from(model: SentenceTransformer) -> str:
    """Folder or hub name that a SentenceTransformer came from; its class where it does not know."""
    for config in (getattr(module, "config", None) for module in model.modules()):
        if name := getattr(config, "_name_or_path", ""):
            return str(name)
    return type(model).__name__


def runs_own_code(model: SentenceTransformer) -> bool:
    """Whether a part of the model is of a class that came with it (``trust_remote_code``)."""
    return any(type(module).__module__.startswith("transformers_modules") for module in model.modules())


def has_router(model: SentenceTransformer) -> bool:
    """Whether queries and documents go through different modules."""
    return any(type(module).__name__ == "Router" for module in model.modules())


def position_limit(model: SentenceTransformer) -> int | None:
    """Tokens for which the model has position embeddings; None where its configuration names none."""
    found = [most for transformer in _transformers(model) if (most := _positions(transformer)) is not None]
    return min(found) if found else None


def keep_within_positions(model: nn.Module) -> None:
    """Cut texts where a table of positions ends: a longer one would be an index error deep inside the model.

    XLM-RoBERTa and its kin come with tokenizers that name no limit, or one that is two tokens too high.
    """
    for transformer in _transformers(model):
        most, length = _positions(transformer), getattr(transformer, "max_seq_length", None)
        if most is not None and _position_table(transformer) is not None and (length is None or length > most):
            transformer.max_seq_length = most


def set_max_length(model: SentenceTransformer, length: int, name: str) -> None:
    """Make a model read so many tokens of a text.

    Raises:
        ModelError: It reads any number: static embeddings have no limit to set.
    """
    try:
        model.max_seq_length = length
    except AttributeError as err:
        limited = list(_transformers(model))
        for transformer in limited:  # of a model with branches, one of which may be static
            transformer.max_seq_length = length
        if limited:
            return
        kind = type(model[0]).__name__
        raise ModelError(
            f"The maximum length is {length}, and {name} begins with {kind}, which reads texts whole and has none; "
            "leave it out."
        ) from err


def _transformers(model: nn.Module) -> Iterator[Any]:
    return (module for module in model.modules() if getattr(module, "auto_model", None) is not None)


def _positions(transformer: Any) -> int | None:
    table = _position_table(transformer)
    if table is not None:
        return int(table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1))
    config = getattr(transformer.auto_model, "config", None)
    most = getattr(config, "max_position_embeddings", None)
    if not isinstance(most, int) or most < 1:
        return None
    if getattr(config, "model_type", None) in _SHIFTED_POSITIONS:
        most -= (getattr(config, "pad_token_id", None) or 0) + 1
    return most


def _position_table(transformer: Any) -> Any:
    """The layer of absolute positions; None where there is none, so that longer texts are only less well read."""
    from torch import nn

    if not isinstance(transformer.auto_model, nn.Module):
        return None
    layers = transformer.auto_model.named_modules()
    found = (
        layer for name, layer in layers if name.endswith("position_embeddings") and isinstance(layer, nn.Embedding)
    )
    return next(found, None)


def sound_text(text: str) -> str:
    """A text that a tokenizer takes: half a character, as broken JSON holds it, becomes a question mark."""
    return text.encode("utf-8", "replace").decode("utf-8")


@contextmanager
def own_errors(name: str = "") -> Iterator[None]:
    """Turn what a model raises over texts into one sentence; a configuration may be damaged and load all the same.

    Raises:
        ModelError: The model raised. Memory that ran out is passed on: a smaller batch may fit.
    """
    from torch import OutOfMemoryError

    try:
        yield
    except (ModelError, OutOfMemoryError, MemoryError):
        raise
    except Exception as err:
        raise ModelError(
            f"The model{name and f' {name}'} cannot embed these texts: {first_line(err)}. Load it with "
            "sentence-transformers alone to see the whole error; its folder may be damaged."
        ) from err
