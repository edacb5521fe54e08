from .interpolation import choose_merge as choose_merge, merge_models as merge_models
