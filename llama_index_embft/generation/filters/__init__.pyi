from .base import (
    FilterContext as FilterContext,
    NearDuplicates as NearDuplicates,
    QuestionFilter as QuestionFilter,
    RefersToText as RefersToText,
    WrongLanguage as WrongLanguage,
    default_filters as default_filters,
)
from .judge import Judge as Judge, read_score as read_score
from .retrieval import Difficulty as Difficulty, RoundTrip as RoundTrip
