from .engine import SentenceTransformersFinetuneEngine as SentenceTransformersFinetuneEngine
from .merging import choose_merge as choose_merge
from .merging import merge_models as merge_models
from .recipe import Recipe as Recipe
from .recipe import choose_recipe as choose_recipe
from .recipe import engine_options as engine_options
