from .calls import JudgeUnavailableError as JudgeUnavailableError
from .database import DEFAULT_DATABASE as DEFAULT_DATABASE, repair_database as repair_database
from .evaluate import (
    AppEvaluation as AppEvaluation,
    evaluate_app as evaluate_app,
    paired_differences as paired_differences,
    read_leaderboard as read_leaderboard,
)
from .feedback import JudgeSettings as JudgeSettings
from .monitoring import LiveScorer as LiveScorer
from .provider import LlamaIndexProvider as LlamaIndexProvider
from .records import dataset_from_trulens as dataset_from_trulens
