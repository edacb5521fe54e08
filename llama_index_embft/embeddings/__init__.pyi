from .adapter import (
    AdapterEmbedding as AdapterEmbedding,
    apply_adapter as apply_adapter,
    linear_adapter as linear_adapter,
    low_rank_adapter as low_rank_adapter,
    mlp_adapter as mlp_adapter,
    save_adapter as save_adapter,
)
from .cross_encoder import load_cross_encoder as load_cross_encoder, pair_logits as pair_logits
from .describe import resolve_model_name as resolve_model_name
from .distilled import DistilledEmbedding as DistilledEmbedding
from .drift import DriftEmbedding as DriftEmbedding, DriftMap as DriftMap
from .encoding import (
    CacheContents as CacheContents,
    CachedFiles as CachedFiles,
    CachedModel as CachedModel,
    EmbeddingCache as EmbeddingCache,
    Encoder as Encoder,
    Pruned as Pruned,
    as_encoder as as_encoder,
    cache_contents as cache_contents,
    cut_into_batches as cut_into_batches,
    encode_texts as encode_texts,
    make_embed_model as make_embed_model,
    padding_share as padding_share,
    prune_cache as prune_cache,
)
from .graph import (
    OnnxEmbedding as OnnxEmbedding,
    OpenVINOEmbedding as OpenVINOEmbedding,
    load_exported as load_exported,
)
from .identity import (
    ModelIdentity as ModelIdentity,
    identify as identify,
)
from .loading import load_embed_model as load_embed_model
from .nudge import NudgedEmbedding as NudgedEmbedding
from .stock import (
    AdapterEmbeddingModel as AdapterEmbeddingModel,
    LinearAdapterEmbeddingModel as LinearAdapterEmbeddingModel,
)
from .truncation import ModelTokens as ModelTokens, model_tokens as model_tokens
