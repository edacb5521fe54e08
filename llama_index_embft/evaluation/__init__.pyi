from .comparing import compare as compare
from .comparison import Comparison as Comparison
from .interleaving import InterleavingResult as InterleavingResult, compare_interleaved as compare_interleaved
from .judging import (
    JudgedComparison as JudgedComparison,
    JudgedSystem as JudgedSystem,
    check_labels as check_labels,
    compare_by_judge as compare_by_judge,
    draw_questions as draw_questions,
    pool_results as pool_results,
)
from .label_sheet import read_labels as read_labels, write_label_sheet as write_label_sheet
from .metrics import (
    METRICS as METRICS,
    Judgements as Judgements,
    RankedHits as RankedHits,
    find_hits as find_hits,
    metric_names as metric_names,
    score_hits as score_hits,
)
from .records import RetrievalReport as RetrievalReport
from .runs import evaluate_run as evaluate_run, fuse_runs as fuse_runs
from .statistics import (
    AnytimeMean as AnytimeMean,
    MeanSequence as MeanSequence,
    PredictionPoweredMean as PredictionPoweredMean,
    SwitchingCost as SwitchingCost,
    anytime_mean as anytime_mean,
    paired_tests as paired_tests,
    prediction_powered_mean as prediction_powered_mean,
)
from .systems import (
    RetrievalEvaluator as RetrievalEvaluator,
    aevaluate_query_engine as aevaluate_query_engine,
    aevaluate_retriever as aevaluate_retriever,
    compare_systems as compare_systems,
    evaluate_bm25 as evaluate_bm25,
    evaluate_embed_model as evaluate_embed_model,
    evaluate_embeddings as evaluate_embeddings,
    evaluate_query_engine as evaluate_query_engine,
    evaluate_retriever as evaluate_retriever,
    rerank_run as rerank_run,
)
from .tutorial import evaluate as evaluate, evaluate_st as evaluate_st, evaluate_triplets as evaluate_triplets
