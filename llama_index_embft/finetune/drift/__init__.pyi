from .adapter import DriftAdapter as DriftAdapter
from .adapter import DriftReport as DriftReport
