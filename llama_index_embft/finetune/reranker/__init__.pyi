from .engine import RerankerFinetuneEngine as RerankerFinetuneEngine
from .result import RerankerResult as RerankerResult
from .settings import CandidateSettings as CandidateSettings, RerankerSettings as RerankerSettings
