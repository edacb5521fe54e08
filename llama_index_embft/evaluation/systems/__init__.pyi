from .embed_model import (
    RetrievalEvaluator as RetrievalEvaluator,
    evaluate_embed_model as evaluate_embed_model,
    evaluate_embeddings as evaluate_embeddings,
)
from .query_engine import (
    aevaluate_query_engine as aevaluate_query_engine,
    evaluate_query_engine as evaluate_query_engine,
)
from .retriever import aevaluate_retriever as aevaluate_retriever, evaluate_retriever as evaluate_retriever
from .table import (
    compare_systems as compare_systems,
    evaluate_bm25 as evaluate_bm25,
    rerank_run as rerank_run,
)
