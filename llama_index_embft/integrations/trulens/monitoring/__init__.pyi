from .dashboard import Dashboard as Dashboard
from .scorer import LiveScorer as LiveScorer
