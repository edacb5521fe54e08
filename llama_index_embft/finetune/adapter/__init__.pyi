from .data import training_data as training_data
from .engine import EmbeddingAdapterFinetuneEngine as EmbeddingAdapterFinetuneEngine
from .settings import AdapterLayerSettings as AdapterLayerSettings
from .settings import AdapterOptions as AdapterOptions
from .settings import AdapterSearchSettings as AdapterSearchSettings
from .settings import AdapterSettings as AdapterSettings
from .training import train_adapter as train_adapter
