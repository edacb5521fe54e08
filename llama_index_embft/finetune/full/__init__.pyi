from .engine import SentenceTransformersFinetuneEngine as SentenceTransformersFinetuneEngine
from .merging import choose_merge as choose_merge, merge_models as merge_models
from .recipe import Recipe as Recipe, choose_recipe as choose_recipe
from .settings import (
    LossSettings as LossSettings,
    RoundsSettings as RoundsSettings,
    ValidationSettings as ValidationSettings,
    engine_arguments as engine_arguments,
)
