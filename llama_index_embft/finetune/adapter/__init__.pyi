from .data import training_data as training_data
from .engine import EmbeddingAdapterFinetuneEngine as EmbeddingAdapterFinetuneEngine
from .settings import (
    AdapterLayerSettings as AdapterLayerSettings,
    AdapterOptions as AdapterOptions,
    AdapterSearchSettings as AdapterSearchSettings,
    AdapterSettings as AdapterSettings,
)
from .training import train_adapter as train_adapter
