from .adapter import EmbeddingAdapterFinetuneEngine as EmbeddingAdapterFinetuneEngine
from .drift import DriftAdapter as DriftAdapter
from .drift import DriftReport as DriftReport
from .engine import FinetuneResult as FinetuneResult
from .full import (
    Recipe as Recipe,
)
from .full import (
    SentenceTransformersFinetuneEngine as SentenceTransformersFinetuneEngine,
)
from .full import (
    choose_merge as choose_merge,
)
from .full import (
    choose_recipe as choose_recipe,
)
from .full import (
    merge_models as merge_models,
)
from .nudge import NudgeFinetuneEngine as NudgeFinetuneEngine
from .nudge import NudgeResult as NudgeResult
