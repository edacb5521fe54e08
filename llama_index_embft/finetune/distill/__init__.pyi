from .engine import DistillationEngine as DistillationEngine
from .result import DistillationResult as DistillationResult
from .settings import DistillationSettings as DistillationSettings
