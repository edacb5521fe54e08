from .clusters import ClusterBy as ClusterBy, clusters_of as clusters_of, tested_on_these as tested_on_these
from .few_labels import (
    PredictionPoweredMean as PredictionPoweredMean,
    prediction_powered_mean as prediction_powered_mean,
)
from .findings import (
    GuardResult as GuardResult,
    MetricComparison as MetricComparison,
    QueryChange as QueryChange,
    SliceComparison as SliceComparison,
    SystemComparison as SystemComparison,
)
from .plain_words import (
    hit_rate_shown as hit_rate_shown,
    in_words as in_words,
    meaning_of as meaning_of,
    summary as summary,
)
from .sequential import AnytimeMean as AnytimeMean, MeanSequence as MeanSequence, anytime_mean as anytime_mean
from .significance import (
    PairedResult as PairedResult,
    clusters_to_show as clusters_to_show,
    detectable_difference as detectable_difference,
    holm as holm,
    non_inferiority_p as non_inferiority_p,
    paired_tests as paired_tests,
)
from .slices import Slicer as Slicer, slice_labels as slice_labels
from .switching import SwitchingCost as SwitchingCost
from .verdict import decide as decide, outcome_of as outcome_of, unseen_loss as unseen_loss
