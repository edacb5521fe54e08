from .data import training_data as training_data
from .engine import EmbeddingAdapterFinetuneEngine as EmbeddingAdapterFinetuneEngine
from .training import AdapterSettings as AdapterSettings
from .training import train_adapter as train_adapter
