from .comparing import (
    TuneOutcome as TuneOutcome,
    data_for_tuning as data_for_tuning,
    split_for_tuning as split_for_tuning,
    tune_and_compare as tune_and_compare,
)
