"""Scripts and notebooks written for llama-index-finetuning, turned into ours: `migrate_file`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
