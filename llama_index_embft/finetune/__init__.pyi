from .adapter import EmbeddingAdapterFinetuneEngine as EmbeddingAdapterFinetuneEngine
from .checkup import Check as Check, Checkup as Checkup, check_installation as check_installation
from .distill import (
    DistillationEngine as DistillationEngine,
    DistillationResult as DistillationResult,
    DistillationSettings as DistillationSettings,
)
from .drift import DriftAdapter as DriftAdapter, DriftReport as DriftReport
from .engine import FinetuneResult as FinetuneResult
from .full import (
    LossSettings as LossSettings,
    Recipe as Recipe,
    RoundsSettings as RoundsSettings,
    SentenceTransformersFinetuneEngine as SentenceTransformersFinetuneEngine,
    ValidationSettings as ValidationSettings,
    choose_merge as choose_merge,
    choose_recipe as choose_recipe,
    merge_models as merge_models,
)
from .nudge import NudgeFinetuneEngine as NudgeFinetuneEngine, NudgeResult as NudgeResult
from .reranker import (
    CandidateSettings as CandidateSettings,
    CrossEncoderFinetuneEngine as CrossEncoderFinetuneEngine,
    RerankerFinetuneEngine as RerankerFinetuneEngine,
    RerankerResult as RerankerResult,
    RerankerSettings as RerankerSettings,
)
from .running import (
    HardwareSettings as HardwareSettings,
    LoraSettings as LoraSettings,
    TextSettings as TextSettings,
)
