from .comparing import compare as compare
from .comparison import Comparison as Comparison
from .metrics import (
    Judgements as Judgements,
)
from .metrics import (
    find_hits as find_hits,
)
from .metrics import (
    metric_names as metric_names,
)
from .metrics import (
    score_hits as score_hits,
)
from .records import RetrievalReport as RetrievalReport
from .runs import evaluate_run as evaluate_run
from .runs import fuse_runs as fuse_runs
from .statistics import paired_tests as paired_tests
from .systems import (
    RetrievalEvaluator as RetrievalEvaluator,
)
from .systems import (
    aevaluate_query_engine as aevaluate_query_engine,
)
from .systems import (
    aevaluate_retriever as aevaluate_retriever,
)
from .systems import (
    compare_systems as compare_systems,
)
from .systems import (
    evaluate_bm25 as evaluate_bm25,
)
from .systems import (
    evaluate_embed_model as evaluate_embed_model,
)
from .systems import (
    evaluate_embeddings as evaluate_embeddings,
)
from .systems import (
    evaluate_query_engine as evaluate_query_engine,
)
from .systems import (
    evaluate_retriever as evaluate_retriever,
)
from .systems import (
    rerank_run as rerank_run,
)
from .systems import (
    tokens as tokens,
)
from .tutorial import evaluate as evaluate
from .tutorial import evaluate_st as evaluate_st
from .tutorial import evaluate_triplets as evaluate_triplets
