"""Cross-encoders: a model that reads a query and a passage together and says how well one answers the other."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from llama_index_embft.embeddings.describe import loading, resolve_model_name
from llama_index_embft.embeddings.fingerprint import fingerprint_sentence_transformer
from llama_index_embft.embeddings.sentence_transformer import keep_within_positions, position_limit, sound_text
from llama_index_embft.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from sentence_transformers import CrossEncoder as CrossEncoderModel

logger = logging.getLogger(__name__)

# Classes of transformers that bring a layer which scores: one of their own, or the words "yes" and "no".
_SCORING: Final = ("ForSequenceClassification", "ForCausalLM")
_MOST_TOKENS: Final = 512
"""Tokens of query and passage together that are read where neither the user nor the model says less."""


def load_cross_encoder(
    name: str | Path,
    *,
    device: str | None = None,
    max_length: int | None = None,
    trust_remote_code: bool = False,
    add_head: bool = False,
    seed: int = 0,
) -> CrossEncoderModel:
    """Load a cross-encoder in float32.

    Args:
        name: Folder or hub name: a cross-encoder of sentence-transformers, a sequence classifier with one score, or a
            language model that answers "yes" or "no" (Qwen3-Reranker's kind).
        device: Torch device; None takes a GPU where there is one.
        max_length: Tokens of query and passage together that are read; None: as many as the model reads, at most 512.
        trust_remote_code: Run code that comes with the model. Only for repositories you have read.
        add_head: Take an encoder without a scoring layer as well, such as an embedding model, and put a new one on it.
            It knows nothing before it is trained.
        seed: Of the new layer's first weights.

    Raises:
        ModelError: It cannot be loaded, gives several scores, or has no scoring layer and may get none.
    """
    options: dict[str, Any] = {"device": device, "max_length": max_length, "trust_remote_code": trust_remote_code}
    return open_cross_encoder(name, **options, add_head=add_head, seed=seed)[0]


def open_cross_encoder(
    name: str | Path,
    *,
    device: str | None,
    max_length: int | None,
    trust_remote_code: bool,
    add_head: bool,
    seed: int,
) -> tuple[CrossEncoderModel, bool]:
    """`load_cross_encoder`, and whether the scoring layer is new."""
    import torch
    from sentence_transformers import CrossEncoder

    found = resolve_model_name(name)
    with loading(f"The cross-encoder {found}", found):
        new_head = not has_scoring_head(found, trust_remote_code=trust_remote_code)
        if new_head and not add_head:
            raise ModelError(
                f"{name} is not a cross-encoder: it has no layer that scores a query with a passage. Give a "
                "reranker, or "
                "train one from it with RerankerFinetuneEngine."
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model: CrossEncoder = CrossEncoder(
                found, device=device, trust_remote_code=trust_remote_code, num_labels=1 if new_head else None
            )
    if model.num_labels != 1:
        raise ModelError(
            f"{name} gives {model.num_labels} scores for a pair, and a reranker gives one; this looks like a "
            "classifier, so give another model."
        )
    if any(hasattr(part, "true_token_id") and part.true_token_id == part.false_token_id for part in model):
        raise ModelError(
            f'{name} has no tokens "yes" and "no" to answer with, so all its scores are 0; give a language model that '
            "has them, or a reranker."
        )
    model.float()
    keep_within_positions(model)
    own = model.max_seq_length if isinstance(model.max_seq_length, int) else _MOST_TOKENS
    positions = position_limit(model)  # type: ignore[arg-type]
    if max_length is not None and positions is not None and max_length > (most := max(own, positions)):
        raise ConfigError(f"`max_length` is {max_length}, and {name} reads at most {most} tokens; lower it.")
    model.max_seq_length = max_length or min(own, _MOST_TOKENS)
    model.eval()
    return model, new_head


def has_scoring_head(name: str, *, trust_remote_code: bool = False) -> bool:
    """Whether a model has a layer that scores pairs; without one, a new and untrained one would be put on.

    Args:
        name: Folder or hub name.
        trust_remote_code: Read a configuration of a class that comes with the model.

    Raises:
        ModelError: Its configuration cannot be read.
    """
    from sentence_transformers.util import load_file_path
    from transformers import AutoConfig

    with loading(f"The cross-encoder {name}", name):
        file = load_file_path(name, "config_sentence_transformers.json")
        if file is not None and json.loads(Path(file).read_text(encoding="utf-8")).get("model_type") == "CrossEncoder":
            return True
        if load_file_path(name, "modules.json") is not None:
            return False  # an embedding model, whatever class its transformer was trained as (Qwen3-Embedding's kind)
        config = AutoConfig.from_pretrained(name, trust_remote_code=trust_remote_code)
    # A class that came with the model has any name; its configuration says what it is taken for.
    brought = getattr(config, "auto_map", None) or {}
    scoring = {str(place).rpartition(".")[2] for task, place in brought.items() if str(task).endswith(_SCORING)}
    return any(str(kind).endswith(_SCORING) or kind in scoring for kind in config.architectures or ())


def what_it_is(
    name: str | Path, *, trust_remote_code: bool = False
) -> Literal["cross-encoder", "embedding", "encoder"]:
    """What a model was made for: to score pairs, to embed (saved by sentence-transformers), or neither.

    Args:
        name: Folder or hub name.
        trust_remote_code: See `has_scoring_head`.

    Raises:
        ModelError: Its configuration cannot be read.
    """
    from sentence_transformers.util import load_file_path

    found = resolve_model_name(name)
    if has_scoring_head(found, trust_remote_code=trust_remote_code):
        return "cross-encoder"
    return "encoder" if load_file_path(found, "modules.json") is None else "embedding"


def pair_logits(
    model: Any, pairs: Sequence[tuple[str, str]], *, batch_size: int = 32, show_progress: bool = False
) -> NDArray[np.float32]:
    """What a cross-encoder says of pairs, before any sigmoid, whose ends would make ties of the best.

    Args:
        model: A `CrossEncoder` of sentence-transformers, or an object with its
            ``predict(pairs, batch_size=…, show_progress_bar=…)``.
        pairs: Query and passage. Equal ones are scored once.
        batch_size: Pairs at a time; they are sorted by length.
        show_progress: Show a bar.

    Returns:
        Shape ``(n_pairs,)``.

    Raises:
        ModelError: The model gives something else than one finite number for each pair.
    """
    from torch import nn

    unique = list(dict.fromkeys(pairs))
    if not unique:
        return np.empty(0, dtype=np.float32)
    options: dict[str, Any] = {"activation_fn": nn.Identity()} if isinstance(model, nn.Module) else {}
    sound = [(sound_text(query), sound_text(text)) for query, text in unique]
    given = model.predict(sound, batch_size=batch_size, show_progress_bar=show_progress, **options)
    found = as_scores(given)
    if found.shape != (len(unique),) or not np.isfinite(found).all():
        raise ModelError(
            f"{type(model).__name__} gave an array of shape {found.shape} for {len(unique)} pairs, or values that are "
            "no numbers; it must be a reranker with one finite score for each pair."
        )
    row_of = {pair: row for row, pair in enumerate(unique)}
    scores: NDArray[np.float32] = found[[row_of[pair] for pair in pairs]]
    return scores


def as_scores(given: Any) -> NDArray[np.float32]:
    """What a reranker returned, as an array; NaN where it is no numbers at all."""
    try:
        return np.asarray(given, dtype=np.float32)
    except (TypeError, ValueError):
        return np.array(np.nan, dtype=np.float32)


def cross_encoder_fingerprint(model: Any) -> str | None:
    """Hash of all that decides a cross-encoder's scores; None for what is no torch module."""
    from torch import nn

    if not isinstance(model, nn.Module):
        return None
    # It has the same parts as an embedding model of sentence-transformers: modules, settings, vocabulary.
    found = fingerprint_sentence_transformer(model, normalize=False)  # type: ignore[arg-type]
    return None if found is None else f"cross-encoder {getattr(model, 'activation_fn', None)!r} {found}"
