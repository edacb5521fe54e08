"""A reranker made of the embedding model as it is: each token of the question looks for its best match (MaxSim)."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np
from llama_index.core.bridge.pydantic import Field

from llama_index_embft._core.checks import check_number
from llama_index_embft.embeddings.describe import loading
from llama_index_embft.embeddings.encoding.backends import SentenceTransformerBackend, WrappedBackend
from llama_index_embft.embeddings.encoding.encoder import as_encoder
from llama_index_embft.embeddings.encoding.token_vectors import encode_tokens
from llama_index_embft.embeddings.loading import load_embed_model
from llama_index_embft.embeddings.local import load_sentence_transformer
from llama_index_embft.embeddings.sentence_transformer import sound_text
from llama_index_embft.embeddings.wrapped import TwoSided
from llama_index_embft.errors import ModelError
from llama_index_embft.retrievers.reranking import CrossEncoderReranker

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.callbacks import CallbackManager
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

    from llama_index_embft.embeddings.sentence_transformer import TextKind

_SHARE: Final = 0.5
_CACHE_MB: Final = 512
_READ_AT_ONCE: Final = 64
_SAMPLED: Final = 50
_FULL: Final = 0.05  # room that is left for what is read while questions are asked


class LateInteraction:
    """Scores passages by the sum, over the tokens of a query, of the best cosine to a token of the passage.

    That is ColBERT's score (https://arxiv.org/abs/2004.12832), with the token vectors of a model that was trained to
    give one vector a text. Token vectors of passages are kept in memory: 200 KB for 256 tokens with 384 dimensions.

    Args:
        model: The model.
        prompts: What it puts before queries and documents.
        routes: Tell a model with a `Router` which kind of text it reads.
        cache_mb: Megabytes of token vectors to keep; the oldest go first. 0 keeps none.
    """

    def __init__(
        self, model: SentenceTransformer, *, prompts: dict[TextKind, str], routes: bool, cache_mb: float = _CACHE_MB
    ) -> None:
        self.model = model
        self.prompts = prompts
        self.routes = routes
        self.cache_mb = cache_mb
        self._kept: dict[str, NDArray[np.float16]] = {}
        self._bytes = 0
        self._state: tuple[int, int | None] | None = None  # of the model whose vectors are kept
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

    def read(self, texts: Iterable[str]) -> int:
        """See `LateInteractionReranker.read`."""
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
        weights = sum(tensor._version for tensor in self.model.parameters() if not tensor.is_inference())
        state = weights, self.model.max_seq_length
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
        options: dict[str, Any] = {"task": kind} if self.routes else {}
        return encode_tokens(self.model, list(map(sound_text, texts)), prompt=self.prompts[kind], **options)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_kept": {}, "_bytes": 0, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.Lock())


def _size(text: str, vectors: NDArray[np.float16]) -> int:
    return vectors.nbytes + sys.getsizeof(text)


class LateInteractionReranker(CrossEncoderReranker):
    """Puts nodes into the order that the embedding model's own token vectors give, mixed with the order they came in.

    Nothing is trained and nothing downloaded. A vector for a whole passage forgets most of its words; the vectors of
    its tokens still hold them. See `LateInteraction` for the score.

    Args:
        embed_model: The embedding model in use, a ``SentenceTransformer``, or a name or folder of one. Of an adapter,
            the model below it.
        top_n: Nodes to return; None returns all.
        weight: Share in the ranking, 0 to 1. Default 0.5, with which no set of questions by people that was tried
            lost, over dense search and beside BM25 (docs/how-to/rerank.md).
        remember: See `CrossEncoderReranker`.
        cache_mb: Megabytes of token vectors to keep, so that a passage is read once; default 512, which holds some
            2,700 passages of 256 tokens with 384 dimensions. 0 keeps none: each question then costs as much as
            embedding its hits.
        device: Torch device of a model that is given by its name; None takes a GPU where there is one.
        trust_remote_code: Run code that comes with such a model. Only for repositories you have read.
        callback_manager: Of LlamaIndex.

    Raises:
        ConfigError: A value is out of range.
        ModelError: The model cannot be loaded, or keeps the vectors of its tokens to itself.
    """

    prior: ClassVar[float] = _SHARE
    cache_mb: float = Field(default=_CACHE_MB, description="Megabytes of token vectors to keep.")

    def __init__(
        self,
        embed_model: BaseEmbedding | SentenceTransformer | LateInteraction | str | Path,
        *,
        top_n: int | None = None,
        weight: float = _SHARE,
        remember: bool = False,
        cache_mb: float = _CACHE_MB,
        device: str | None = None,
        trust_remote_code: bool = False,
        callback_manager: CallbackManager | None = None,
    ) -> None:
        check_number("cache_mb", cache_mb, at_least=0)
        scorer = _scorer_of(embed_model, cache_mb, device, trust=trust_remote_code)
        given: dict[str, Any] = {} if callback_manager is None else {"callback_manager": callback_manager}
        super().__init__(scorer, top_n=top_n, weight=weight, remember=remember, cache_mb=cache_mb, **given)

    @classmethod
    def class_name(cls) -> str:
        """Name of the class, for LlamaIndex."""
        return "LateInteractionReranker"

    def read(self, texts: Iterable[str]) -> int:
        """Read passages before anybody asks, as far as there is room for their vectors.

        Args:
            texts: The passages as they are embedded: ``node.get_content(MetadataMode.EMBED)``.

        Returns:
            How many are in memory now.
        """
        scorer: LateInteraction = self._model
        return scorer.read(texts)

    def texts_to_read(self, asked: int, texts: list[str]) -> int:
        """How many passages are read where so many are asked for, of these and each perhaps several times.

        Args:
            asked: Questions times hits.
            texts: All that may be asked for. If the memory is too small for them, none of it is counted on.
        """
        scorer: LateInteraction = self._model
        some = texts[:: max(1, len(texts) // _SAMPLED)]
        bytes_each = scorer.bytes_of(some) / max(1, len(some))
        return min(asked, len(texts)) if bytes_each * len(texts) <= self.cache_mb * 2**20 else asked

    def forgetful(self) -> LateInteractionReranker:
        """See `CrossEncoderReranker.forgetful`."""
        copy = super().forgetful()
        assert isinstance(copy, LateInteractionReranker)
        copy._model = self._model.keeping_nothing()
        return copy

    def _record(self) -> dict[str, Any]:
        scorer: LateInteraction = self._model
        late = {"prompts": scorer.prompts, "routes": scorer.routes, "cache_mb": scorer.cache_mb}
        return {**super()._record(), "late_interaction": late}


def load_late_interaction(
    folder: Path, record: dict[str, Any], *, device: str | None, trust_remote_code: bool, **fields: Any
) -> LateInteractionReranker:
    """Load a saved `LateInteractionReranker`.

    Args:
        folder: Where it is.
        record: What was written of its scores, checked.
        device: Torch device; None takes a GPU where there is one.
        trust_remote_code: Run code that comes with the model.
        **fields: Its other arguments.

    Raises:
        ModelError: It cannot be loaded.
    """
    with loading(f"The reranker in {folder}", folder):
        model = load_sentence_transformer(str(folder), device=device, trust_remote_code=trust_remote_code)
    return LateInteractionReranker(LateInteraction(model, **record), cache_mb=record["cache_mb"], **fields)


def _scorer_of(embed_model: Any, cache_mb: float, device: str | None, *, trust: bool) -> LateInteraction:
    if isinstance(embed_model, LateInteraction):
        same = embed_model
        return LateInteraction(same.model, prompts=same.prompts, routes=same.routes, cache_mb=cache_mb)
    if isinstance(embed_model, (str, Path)):
        embed_model = load_embed_model(embed_model, device=device, trust_remote_code=trust)
    if isinstance(embed_model, TwoSided):  # the two have vectors in common, not tokens
        embed_model = embed_model.model_of("query")
    backend: Any = as_encoder(embed_model, cache=None).backend
    while isinstance(backend, WrappedBackend):
        backend = backend.base.backend
    if not isinstance(backend, SentenceTransformerBackend):
        raise ModelError(
            f"{backend.name} gives one vector for a text and keeps those of its tokens to itself; late interaction "
            "needs a model that runs here, such as load_embed_model(folder)."
        )
    return LateInteraction(backend.model, prompts=backend.prompts, routes=backend.route, cache_mb=cache_mb)
