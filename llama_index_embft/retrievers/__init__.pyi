from .fusion import WeightChoice as WeightChoice, learn_weight as learn_weight
from .interleaving import InterleavedRetriever as InterleavedRetriever
from .late_interaction import LateInteractionReranker as LateInteractionReranker
from .loading import load_reranker as load_reranker
from .prior import prior_weight as prior_weight
from .reranking import (
    CrossEncoderReranker as CrossEncoderReranker,
    ranked_hits as ranked_hits,
)
from .saving import load_retriever as load_retriever, save_retriever as save_retriever
from .settings import StackSettings as StackSettings
from .stack import StackRetriever as StackRetriever
