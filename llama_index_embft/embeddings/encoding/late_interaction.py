"""Late interaction (ColBERT's MaxSim): each token of a query looks for its best match among those of a passage."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from llama_index_embft._core.checks import first_line
from llama_index_embft.embeddings.describe import loading, resolve_model_name
from llama_index_embft.embeddings.encoding.token_vectors import encode_tokens
from llama_index_embft.embeddings.fingerprint import (
    fingerprint_sentence_transformer,
    hash_parts,
    state_of_weights,
)
from llama_index_embft.embeddings.local import load_sentence_transformer
from llama_index_embft.embeddings.sentence_transformer import sound_text
from llama_index_embft.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray
    from sentence_transformers import MultiVectorEncoder, SentenceTransformer

    from llama_index_embft.embeddings.sentence_transformer import TextKind

CACHE_MB: Final = 512
"""Megabytes of token vectors to keep."""
_READ_AT_ONCE: Final = 64
_FULL: Final = 0.05  # room that is left for what is read while questions are asked


class LateInteraction:
    """Scores passages by the sum, over the tokens of a query, of the best cosine to a token of the passage.

    That is ColBERT's score (https://arxiv.org/abs/2004.12832), with the token vectors of a model that was trained to
    give one vector a text, or of one that was made for this score and reads texts in its own way. Token vectors of
    passages are kept in memory: 200 KB for 256 tokens with 384 dimensions.

    Args:
        model: The model.
        prompts: What it puts before queries and documents; a ``MultiVectorEncoder`` has its own.
        routes: Tell a model with a `Router` which kind of text it reads.
        cache_mb: Megabytes of token vectors to keep; the oldest go first. 0 keeps none.
    """

    def __init__(
        self,
        model: SentenceTransformer | MultiVectorEncoder,
        *,
        prompts: dict[TextKind, str],
        routes: bool,
        cache_mb: float = CACHE_MB,
    ) -> None:
        from sentence_transformers import MultiVectorEncoder

        self.model: Any = model
        self.multi_vector = isinstance(model, MultiVectorEncoder)
        self.prompts = prompts
        self.routes = routes
        self.cache_mb = cache_mb
        self._kept: dict[str, NDArray[np.float16]] = {}
        self._bytes = 0
        self._state: tuple[Any, ...] | None = None  # of the model whose vectors are kept
        self._lock = threading.Lock()

    def __call__(self, query: str, texts: list[str]) -> NDArray[np.float32]:
        """Score texts for a query; shape ``(len(texts),)``."""
        wanted = self._tokens("query", [query])[0].astype(np.float32)
        documents = self._documents(texts)
        lengths = [len(document) for document in documents]
        scores = np.full(len(texts), -float(len(wanted)), dtype=np.float32)  # of a text without a token
        filled = [row for row, length in enumerate(lengths) if length]
        if filled and len(wanted):
            starts = np.cumsum([0, *lengths])[filled]
            cosines = wanted @ np.concatenate(documents).astype(np.float32).T
            scores[filled] = np.maximum.reduceat(cosines, starts, axis=1).sum(axis=0)
        return scores

    @property
    def fingerprint(self) -> str | None:
        """Hash of all that decides the scores; None where it cannot be told."""
        found = fingerprint_sentence_transformer(self.model, normalize=True)
        read = json.dumps([self.prompts["query"], self.prompts["document"], self.routes])
        return None if found is None else hash_parts("late interaction", found, read)

    @property
    def record(self) -> dict[str, Any]:
        """What must be written beside the model."""
        return {"prompts": self.prompts, "routes": self.routes, "cache_mb": self.cache_mb}

    def predict(self, pairs: Sequence[tuple[str, str]], **_: Any) -> NDArray[np.float32]:
        """Score pairs of query and passage, as a cross-encoder does; a query is read once for all its passages."""
        texts_of: dict[str, dict[str, float]] = {}
        for query, text in pairs:
            texts_of.setdefault(query, {})[text] = 0.0
        for query, scores in texts_of.items():
            scores.update(zip(scores, self(query, list(scores)).tolist(), strict=True))
        return np.array([texts_of[query][text] for query, text in pairs], dtype=np.float32)

    def read(self, texts: Iterable[str]) -> int:
        """Read passages ahead, as far as there is room for their vectors; return how many are in memory."""
        block: list[str] = []
        for text in texts:
            if self._bytes >= (1 - _FULL) * self.cache_mb * 2**20:
                break
            block.append(text)
            if len(block) == _READ_AT_ONCE:
                self._documents(block)
                block = []
        self._documents(block)
        return len(self._kept)

    def bytes_of(self, texts: list[str]) -> int:
        """What some passages take in memory."""
        return sum(map(_size, texts, self._documents(texts)))

    def keeping_nothing(self) -> LateInteraction:
        """The same without a memory."""
        return LateInteraction(self.model, prompts=self.prompts, routes=self.routes, cache_mb=0)

    def save_pretrained(self, folder: str, **options: Any) -> None:
        """Write the model into a folder."""
        self.model.save_pretrained(folder, **options)

    def _documents(self, texts: list[str]) -> list[NDArray[np.float16]]:
        self._forget_if_trained()
        known = {text: kept for text in texts if (kept := self._kept.get(text)) is not None}
        new = [text for text in dict.fromkeys(texts) if text not in known]
        for text, vectors in zip(new, self._tokens("document", new), strict=True):
            known[text] = vectors
            self._keep(text, vectors)
        return [known[text] for text in texts]

    def _forget_if_trained(self) -> None:
        state = state_of_weights(self.model), self.model.max_seq_length
        with self._lock:
            if self._state != state:
                self._state, self._kept, self._bytes = state, {}, 0

    def _keep(self, text: str, vectors: NDArray[np.float16]) -> None:
        with self._lock:  # several questions may be asked at once
            if text in self._kept or _size(text, vectors) > self.cache_mb * 2**20:
                return
            while self._bytes + _size(text, vectors) > self.cache_mb * 2**20:
                oldest = next(iter(self._kept))
                self._bytes -= _size(oldest, self._kept.pop(oldest))
            self._kept[text] = vectors
            self._bytes += _size(text, vectors)

    def _tokens(self, kind: TextKind, texts: list[str]) -> list[NDArray[np.float16]]:
        if self.multi_vector:
            encode = self.model.encode_query if kind == "query" else self.model.encode_document
            found = encode(list(map(sound_text, texts)), convert_to_numpy=True, show_progress_bar=False)
            return [vectors.astype(np.float16) for vectors in found]
        options: dict[str, Any] = {"task": kind} if self.routes else {}
        return encode_tokens(self.model, list(map(sound_text, texts)), prompt=self.prompts[kind], **options)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_kept": {}, "_bytes": 0, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.Lock())


def _size(text: str, vectors: NDArray[np.float16]) -> int:
    return vectors.nbytes + sys.getsizeof(text)


def load_late_interaction(
    folder: str | Path, record: dict[str, Any], *, device: str | None = None, trust_remote_code: bool = False
) -> LateInteraction:
    """Load what was saved with such a `record`.

    Args:
        folder: The folder.
        record: See `LateInteraction.record`.
        device: Torch device; None takes a GPU where there is one.
        trust_remote_code: Run code that comes with the model.

    Raises:
        ModelError: It cannot be loaded.
    """
    multi_vector = load_multi_vector(folder, device=device, trust_remote_code=trust_remote_code)
    if multi_vector is not None:
        return LateInteraction(multi_vector, **record)
    with loading(f"The reranker in {folder}", str(folder)):
        model = load_sentence_transformer(str(folder), device=device, trust_remote_code=trust_remote_code)
    return LateInteraction(model, **record)


def load_multi_vector(
    name: str | Path, *, device: str | None = None, trust_remote_code: bool = False
) -> MultiVectorEncoder | None:
    """Load a model that was made for late interaction (of sentence-transformers, PyLate, or Stanford's ColBERT).

    Args:
        name: Folder or hub name.
        device: Torch device; None takes a GPU where there is one.
        trust_remote_code: Run code that comes with the model.

    Returns:
        None for a model of another kind.

    Raises:
        ModelError: It cannot be loaded.
    """
    found = resolve_model_name(name)
    if not _was_made_for_it(found):
        return None
    from sentence_transformers import MultiVectorEncoder

    with loading(f"The reranker {found}", found):
        model: MultiVectorEncoder = MultiVectorEncoder(found, device=device, trust_remote_code=trust_remote_code)
        return model.float().eval()


def _was_made_for_it(name: str) -> bool:
    """Whether a model's files say so; what else is wrong with them is said where they are loaded."""
    from sentence_transformers.util import load_file_path

    def read(file: str) -> dict[str, Any]:
        at = load_file_path(name, file)
        found = None if at is None else json.loads(Path(at).read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}

    try:
        kind, architectures = read("config_sentence_transformers.json").get("model_type"), read("config.json")
    except (OSError, ValueError):
        return False
    return kind in ("MultiVectorEncoder", "ColBERT") or "HF_ColBERT" in (architectures.get("architectures") or ())


def late_interaction_record(folder: str | Path) -> dict[str, Any] | None:
    """What a saved reranker's ``embft.json`` says of late interaction; None where it says nothing, or is not there.

    Raises:
        ModelError: It is damaged.
    """
    file = Path(folder) / "embft.json"
    if not file.is_file():
        return None
    try:
        found = json.loads(file.read_text(encoding="utf-8"))["late_interaction"]
    except KeyError:  # a result of another kind
        return None
    except (OSError, ValueError, TypeError, RecursionError) as err:
        raise ModelError(f"{file} is damaged ({first_line(err)}); restore the folder, or train again.") from err
    if not is_sound(found):
        raise ModelError(f"{file} is damaged (its entry of late interaction); restore the folder, or train again.")
    return dict(found)


def is_sound(record: Any) -> bool:
    """Whether something is a `LateInteraction.record`."""
    if not isinstance(record, dict) or set(record) != {"prompts", "routes", "cache_mb"}:
        return False
    prompts, kept = record["prompts"], record["cache_mb"]
    return (
        isinstance(prompts, dict)
        and set(prompts) == {"query", "document"}
        and all(isinstance(prompt, str) for prompt in prompts.values())
        and isinstance(record["routes"], bool)
        and isinstance(kept, (int, float))
        and kept >= 0
    )
