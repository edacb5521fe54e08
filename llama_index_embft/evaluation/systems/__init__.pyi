from .embed_model import (
    RetrievalEvaluator as RetrievalEvaluator,
)
from .embed_model import (
    evaluate_embed_model as evaluate_embed_model,
)
from .embed_model import (
    evaluate_embeddings as evaluate_embeddings,
)
from .query_engine import aevaluate_query_engine as aevaluate_query_engine
from .query_engine import evaluate_query_engine as evaluate_query_engine
from .retriever import aevaluate_retriever as aevaluate_retriever
from .retriever import evaluate_retriever as evaluate_retriever
from .table import (
    compare_systems as compare_systems,
)
from .table import (
    evaluate_bm25 as evaluate_bm25,
)
from .table import (
    rerank_run as rerank_run,
)
from .table import (
    tokens as tokens,
)
