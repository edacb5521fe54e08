"""A reranker made of the embedding model as it is: each token of the question looks for its best match (MaxSim)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from llama_index.core.bridge.pydantic import Field

from llama_index_embft._core.checks import check_number
from llama_index_embft.embeddings.encoding.backends import SentenceTransformerBackend, WrappedBackend
from llama_index_embft.embeddings.encoding.encoder import as_encoder
from llama_index_embft.embeddings.encoding.late_interaction import CACHE_MB, LateInteraction, load_multi_vector
from llama_index_embft.embeddings.loading import load_embed_model
from llama_index_embft.embeddings.wrapped import TwoSided
from llama_index_embft.errors import ModelError
from llama_index_embft.retrievers.reranking import CrossEncoderReranker

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.callbacks import CallbackManager
    from sentence_transformers import MultiVectorEncoder, SentenceTransformer

    from llama_index_embft.embeddings.sentence_transformer import TextKind

_SHARE: Final = 0.5
_SAMPLED: Final = 50


class LateInteractionReranker(CrossEncoderReranker):
    """Puts nodes into the order that the embedding model's own token vectors give, mixed with the order they came in.

    Nothing is trained and nothing downloaded. A vector for a whole passage forgets most of its words; the vectors of
    its tokens still hold them. See `LateInteraction` for the score.

    Args:
        embed_model: The embedding model in use, a ``SentenceTransformer``, or a name or folder of one. Of an adapter,
            the model below it. Or a model that was made for it, a ``MultiVectorEncoder`` (ColBERT's kind).
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
    cache_mb: float = Field(default=CACHE_MB, description="Megabytes of token vectors to keep.")

    def __init__(
        self,
        embed_model: BaseEmbedding | SentenceTransformer | MultiVectorEncoder | LateInteraction | str | Path,
        *,
        top_n: int | None = None,
        weight: float = _SHARE,
        remember: bool = False,
        cache_mb: float = CACHE_MB,
        device: str | None = None,
        trust_remote_code: bool = False,
        callback_manager: CallbackManager | None = None,
    ) -> None:
        check_number("cache_mb", cache_mb, at_least=0)
        scorer = token_scorer(embed_model, cache_mb=cache_mb, device=device, trust_remote_code=trust_remote_code)
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
        return {**super()._record(), "late_interaction": scorer.record}


def token_scorer(
    embed_model: Any, *, cache_mb: float = CACHE_MB, device: str | None = None, trust_remote_code: bool = False
) -> LateInteraction:
    """The scorer of an embedding model, see `LateInteractionReranker` for the arguments.

    Raises:
        ModelError: The model cannot be loaded, or keeps the vectors of its tokens to itself.
    """
    from sentence_transformers import MultiVectorEncoder

    if isinstance(embed_model, LateInteraction):
        same = embed_model
        return LateInteraction(same.model, prompts=same.prompts, routes=same.routes, cache_mb=cache_mb)
    if isinstance(embed_model, (str, Path)):
        made_for_it: Any = load_multi_vector(embed_model, device=device, trust_remote_code=trust_remote_code)
        if made_for_it is None:
            made_for_it = load_embed_model(embed_model, device=device, trust_remote_code=trust_remote_code)
        embed_model = made_for_it
    if isinstance(embed_model, MultiVectorEncoder):
        prompts: dict[TextKind, str] = {
            "query": embed_model.prompts.get("query") or "",
            "document": embed_model.prompts.get("document") or "",
        }
        return LateInteraction(embed_model, prompts=prompts, routes=False, cache_mb=cache_mb)
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
