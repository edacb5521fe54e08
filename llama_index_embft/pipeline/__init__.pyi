from .dense import (
    TuneOutcome as TuneOutcome,
    build_index as build_index,
    data_for_tuning as data_for_tuning,
    reload as reload,
    split_for_tuning as split_for_tuning,
    tune_and_compare as tune_and_compare,
)
from .questions import PlacedQuestions as PlacedQuestions, place_questions as place_questions
from .result import TuneResult as TuneResult
from .settings import TuneSettings as TuneSettings
from .status import CandidateRow as CandidateRow, TuneStatus as TuneStatus
from .tuning import DEFAULT_MODEL as DEFAULT_MODEL, tune as tune
