"""A reranker of any kind as the node postprocessor that a retriever takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore
from pydantic import PrivateAttr

if TYPE_CHECKING:
    from llama_index.core.schema import QueryBundle


class ScoringPostprocessor(BaseNodePostprocessor):
    """Puts nodes into the order of a ``CrossEncoder``, or of a function of query and texts.

    Args:
        score: A ``CrossEncoder``, or a function that returns a score for each text.
    """

    _score: Any = PrivateAttr()

    def __init__(self, score: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._score = score

    @classmethod
    def class_name(cls) -> str:
        """Name of the class, for LlamaIndex."""
        return "ScoringPostprocessor"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None or not nodes:
            return nodes
        query, texts = query_bundle.query_str, [hit.node.get_content(MetadataMode.EMBED) for hit in nodes]
        predict = getattr(self._score, "predict", None)
        found = self._score(query, texts) if predict is None else predict([(query, text) for text in texts])
        values = np.asarray(found, dtype=float).ravel()
        return [
            NodeWithScore(node=nodes[at].node, score=float(values[at])) for at in np.argsort(-values, kind="stable")
        ]


def as_postprocessor(reranker: Any) -> BaseNodePostprocessor:
    """A reranker as a node postprocessor; one that is a postprocessor stays as it is."""
    return reranker if isinstance(reranker, BaseNodePostprocessor) else ScoringPostprocessor(reranker)
