from .embedding import (
    OnnxEmbedding as OnnxEmbedding,
    OpenVINOEmbedding as OpenVINOEmbedding,
    load_exported as load_exported,
)
