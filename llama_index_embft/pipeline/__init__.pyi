from .questions import PlacedQuestions as PlacedQuestions, place_questions as place_questions
from .result import TuneResult as TuneResult
from .settings import TuneSettings as TuneSettings
from .sources import DEFAULT_MODEL as DEFAULT_MODEL
from .status import CandidateRow as CandidateRow, TuneStatus as TuneStatus
from .trained import (
    TuneOutcome as TuneOutcome,
    data_for_tuning as data_for_tuning,
    split_for_tuning as split_for_tuning,
    tune_and_compare as tune_and_compare,
)
from .tuning import tune as tune
