from .batching import (
    PADDING_CPU as PADDING_CPU,
    cut_into_batches as cut_into_batches,
    encode_texts as encode_texts,
    padding_share as padding_share,
)
from .cache import EmbeddingCache as EmbeddingCache
from .encoder import Encoder as Encoder, as_encoder as as_encoder
from .hosted import make_embed_model as make_embed_model
from .run_cache import RunCache as RunCache
from .upkeep import (
    CacheContents as CacheContents,
    CachedFiles as CachedFiles,
    CachedModel as CachedModel,
    Pruned as Pruned,
    cache_contents as cache_contents,
    prune_cache as prune_cache,
)
