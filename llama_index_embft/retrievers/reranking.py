"""A reranker as the node postprocessor that a retriever takes, and its share in the ranking."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np
from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.callbacks import CBEventType, EventPayload
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore

from llama_index_embft._core.checks import check_number
from llama_index_embft.embeddings.cross_encoder import as_scores, load_cross_encoder, pair_logits
from llama_index_embft.errors import ModelError
from llama_index_embft.search.fusion import fuse
from llama_index_embft.search.topk import TopK

if TYPE_CHECKING:
    from llama_index.core.schema import QueryBundle
    from numpy.typing import NDArray

RECORD: Final = "embft.json"
"""What is written beside a reranker's model."""
BATCH: Final = 32
"""Pairs at a time."""


class CrossEncoderReranker(BaseNodePostprocessor):
    """Puts nodes into the order of a cross-encoder, mixed with the order in which they came.

    Both scores are brought to one scale for each query (`fuse` with z-scores), and the reranker gets the share that it
    has earned on validation: a small reranker alone is often worse than the retriever, and together they are better.

    Args:
        model: Folder or hub name, a loaded ``CrossEncoder``, or a function of a query and texts that returns a score
            for each text.
        top_n: Nodes to return; None returns all.
        weight: Share of the reranker in the ranking, 0 to 1: 1 is the reranker alone, 0 leaves the order as it is and
            reads nothing.
        batch_size: Pairs at a time.
        remember: Keep the scores of pairs in memory, where the same questions are asked again and again.
        device: Torch device; None takes a GPU where there is one.
        max_length: Tokens of query and passage together that are read; None: as many as the model reads, at most 512.
        trust_remote_code: Run code that comes with the model. Only for repositories you have read.

    Raises:
        ConfigError: A value is out of range.
        ModelError: The model cannot be loaded, or is no cross-encoder.
    """

    prior: ClassVar[float] = 0.0
    """Share in the ranking before any question says more, see `learn_weight`."""
    model: str = Field(description="Folder or name of the model, or its class.")
    top_n: int | None = Field(default=None, description="Nodes to return.")
    weight: float = Field(default=1.0, description="Share of the reranker in the ranking.")
    batch_size: int = Field(default=BATCH, description="Pairs at a time.")
    remember: bool = Field(default=False, description="Keep the scores of what was read.")
    _model: Any = PrivateAttr()
    _known: dict[tuple[str, str], float] = PrivateAttr(default_factory=dict)

    def __init__(
        self,
        model: Any,
        *,
        top_n: int | None = None,
        weight: float = 1.0,
        batch_size: int = BATCH,
        remember: bool = False,
        device: str | None = None,
        max_length: int | None = None,
        trust_remote_code: bool = False,
        **kwargs: Any,
    ) -> None:
        check_number("weight", weight, at_least=0, at_most=1)
        check_number("batch_size", batch_size, at_least=1)
        if top_n is not None:
            check_number("top_n", top_n, at_least=1)
        named = isinstance(model, (str, Path))
        name = str(model) if named else type(model).__name__
        super().__init__(model=name, top_n=top_n, weight=weight, batch_size=batch_size, remember=remember, **kwargs)
        if named:
            model = load_cross_encoder(model, device=device, max_length=max_length, trust_remote_code=trust_remote_code)
        self._model = model

    @classmethod
    def class_name(cls) -> str:
        """Name of the class, for LlamaIndex."""
        return "CrossEncoderReranker"

    @property
    def cross_encoder(self) -> Any:
        """What reads the pairs: a ``CrossEncoder``, or a function of a query and texts."""
        return self._model

    @property
    def can_be_saved(self) -> bool:
        """Whether the model is one that can be written to a folder."""
        return hasattr(self._model, "save_pretrained")

    def save_model(self, folder: Path) -> None:
        """Write the model into a folder, for `load_reranker` and for ``CrossEncoder`` of sentence-transformers."""
        self._model.save_pretrained(str(folder), create_model_card=False)
        (folder / RECORD).write_text(json.dumps(self._record(), indent=2) + "\n", encoding="utf-8")

    def _record(self) -> dict[str, Any]:
        """What is written beside the model."""
        length = getattr(self._model, "max_seq_length", None)
        return {
            "format": 1,
            "kind": "reranker",
            "weight": self.weight,
            "max_length": length if isinstance(length, int) else None,
            "top_n": self.top_n,
            "batch_size": self.batch_size,
        }

    def scores(self, query: str, texts: list[str]) -> NDArray[np.float32]:
        """What the reranker alone says of texts: shape ``(n,)``.

        Raises:
            ModelError: It gives something else than a finite number for each text.
        """
        if not self.remember:
            return self._scored(query, texts)
        new = list(dict.fromkeys(text for text in texts if (query, text) not in self._known))
        if new:
            found = self._scored(query, new)
            self._known.update({(query, text): float(score) for text, score in zip(new, found, strict=True)})
        return np.array([self._known[query, text] for text in texts], dtype=np.float32)

    def with_weight(self, weight: float) -> CrossEncoderReranker:
        """The same reranker with another share in the ranking; the model, and what it remembers, are shared.

        Raises:
            ConfigError: The weight is out of range.
        """
        check_number("weight", weight, at_least=0, at_most=1)
        return self.model_copy(update={"weight": weight})

    def forgetful(self) -> CrossEncoderReranker:
        """The same reranker without a memory: to see how long it takes."""
        return self.model_copy(update={"remember": False})

    def _scored(self, query: str, texts: list[str]) -> NDArray[np.float32]:
        if hasattr(self._model, "predict"):
            return pair_logits(self._model, [(query, text) for text in texts], batch_size=self.batch_size)
        found = as_scores(self._model(query, texts)).ravel()
        if found.shape != (len(texts),) or not np.isfinite(found).all():
            raise ModelError(
                f"The reranker {self.model} returned {len(found)} scores for {len(texts)} texts, or values that are no "
                "numbers; it must give one finite number for each."
            )
        return found

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None or not nodes or self.weight == 0:
            return nodes[: self.top_n]
        event: dict[str, Any] = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: self.model,
            EventPayload.QUERY_STR: query_bundle.query_str,
            EventPayload.TOP_K: self.top_n or len(nodes),
        }
        with self.callback_manager.event(CBEventType.RERANKING, payload=event) as running:
            texts = [hit.node.get_content(MetadataMode.EMBED) for hit in nodes]
            first = first_scores([hit.score for hit in nodes])
            found = reranked(self.scores(query_bundle.query_str, texts)[None], first[None], self.weight)
            order = found.rows[0].tolist()
            ranked = [
                NodeWithScore(node=nodes[row].node, score=float(score))
                for row, score in zip(order, found.scores[0].tolist(), strict=True)
            ]
            running.on_end(payload={EventPayload.NODES: ranked[: self.top_n]})
        return ranked[: self.top_n]


def reranked(scores: NDArray[np.floating], first: NDArray[np.floating], weight: float) -> TopK:
    """Candidates in their new order.

    Args:
        scores: The reranker's, shape ``(n_queries, n_candidates)``.
        first: Those of the first stage, likewise; rows best first.
        weight: Share of the reranker, 0 to 1.

    Returns:
        ``rows`` are places in the list that came in, best first.
    """
    n = scores.shape[1]
    found = fuse(ranked_hits(scores), ranked_hits(first), weight, depth=max(1, n))
    return TopK(found.rows[:, :n], found.scores[:, :n])


def ranked_hits(scores: NDArray[np.floating], rows: NDArray[np.int64] | None = None) -> TopK:
    """Scores of candidates as hits, best first; of equal ones the earlier stays in front.

    Args:
        scores: Shape ``(n_queries, n_candidates)``.
        rows: What the candidates are, likewise, -1 for none; None: their places in the list.
    """
    values = np.asarray(scores, dtype=np.float32)
    rows = np.broadcast_to(np.arange(values.shape[1]), values.shape) if rows is None else rows
    order = np.argsort(np.where(rows >= 0, -values, np.inf), axis=1, kind="stable")
    return TopK(np.take_along_axis(rows, order, axis=1).astype(np.int64), np.take_along_axis(values, order, axis=1))


def first_scores(scores: list[float | None]) -> NDArray[np.float32]:
    """Scores of nodes as a retriever gave them; where some have none, or one that is no number, their places count.

    Returns:
        Shape ``(n,)``.
    """
    found = np.array([np.nan if score is None else score for score in scores], dtype=np.float32)
    return found if np.isfinite(found).all() else -np.arange(len(scores), dtype=np.float32)


def remembering(reranker: BaseNodePostprocessor) -> BaseNodePostprocessor:
    """The reranker, keeping the scores of what it reads where it is one of ours; see `CrossEncoderReranker`."""
    if not isinstance(reranker, CrossEncoderReranker):
        return reranker
    copy = reranker.model_copy(update={"remember": True})
    copy._known = {}
    return copy
