from .batching import (
    PADDING_CPU as PADDING_CPU,
)
from .batching import (
    cut_into_batches as cut_into_batches,
)
from .batching import (
    encode_texts as encode_texts,
)
from .batching import (
    padding_share as padding_share,
)
from .cache import EmbeddingCache as EmbeddingCache
from .encoder import Encoder as Encoder
from .encoder import as_encoder as as_encoder
from .hosted import make_embed_model as make_embed_model
from .run_cache import RunCache as RunCache
