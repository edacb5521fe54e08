from .embedding import (
    OnnxEmbedding as OnnxEmbedding,
)
from .embedding import (
    OpenVINOEmbedding as OpenVINOEmbedding,
)
from .embedding import (
    load_exported as load_exported,
)
