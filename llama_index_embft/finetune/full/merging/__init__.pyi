from .interpolation import choose_merge as choose_merge
from .interpolation import merge_models as merge_models
