from .evaluate import (
    AppEvaluation as AppEvaluation,
)
from .evaluate import (
    evaluate_app as evaluate_app,
)
from .evaluate import (
    paired_differences as paired_differences,
)
from .evaluate import (
    read_leaderboard as read_leaderboard,
)
from .live import LiveScorer as LiveScorer
from .provider import LlamaIndexProvider as LlamaIndexProvider
from .records import dataset_from_trulens as dataset_from_trulens
