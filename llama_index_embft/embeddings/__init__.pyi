from .adapter import (
    AdapterEmbedding as AdapterEmbedding,
)
from .adapter import (
    apply_adapter as apply_adapter,
)
from .adapter import (
    linear_adapter as linear_adapter,
)
from .adapter import (
    low_rank_adapter as low_rank_adapter,
)
from .adapter import (
    mlp_adapter as mlp_adapter,
)
from .adapter import (
    save_adapter as save_adapter,
)
from .describe import resolve_model_name as resolve_model_name
from .drift import DriftEmbedding as DriftEmbedding
from .drift import DriftMap as DriftMap
from .encoding import (
    EmbeddingCache as EmbeddingCache,
)
from .encoding import (
    Encoder as Encoder,
)
from .encoding import (
    as_encoder as as_encoder,
)
from .encoding import (
    cut_into_batches as cut_into_batches,
)
from .encoding import (
    encode_texts as encode_texts,
)
from .encoding import (
    make_embed_model as make_embed_model,
)
from .encoding import (
    padding_share as padding_share,
)
from .graph import (
    OnnxEmbedding as OnnxEmbedding,
)
from .graph import (
    OpenVINOEmbedding as OpenVINOEmbedding,
)
from .graph import (
    load_exported as load_exported,
)
from .identity import (
    ModelIdentity as ModelIdentity,
)
from .identity import (
    identify as identify,
)
from .loading import load_embed_model as load_embed_model
from .nudge import NudgedEmbedding as NudgedEmbedding
from .stock import AdapterEmbeddingModel as AdapterEmbeddingModel
from .stock import LinearAdapterEmbeddingModel as LinearAdapterEmbeddingModel
