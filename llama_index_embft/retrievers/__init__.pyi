from .fusion import WeightChoice as WeightChoice, learn_weight as learn_weight
from .interleaving import InterleavedRetriever as InterleavedRetriever
from .prior import prior_weight as prior_weight
from .reranking import (
    CrossEncoderReranker as CrossEncoderReranker,
    load_reranker as load_reranker,
    ranked_hits as ranked_hits,
)
from .saving import load_retriever as load_retriever, save_retriever as save_retriever
from .settings import StackSettings as StackSettings
from .stack import StackRetriever as StackRetriever
