from .adapter import DriftAdapter as DriftAdapter
from .report import DriftReport as DriftReport
from .report import DriftScore as DriftScore
from .settings import DriftSettings as DriftSettings
