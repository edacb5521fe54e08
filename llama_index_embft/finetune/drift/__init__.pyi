from .adapter import DriftAdapter as DriftAdapter
from .report import DriftReport as DriftReport, DriftScore as DriftScore
from .settings import DriftSettings as DriftSettings
