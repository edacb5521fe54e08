from .embedding import AdapterEmbedding as AdapterEmbedding
from .files import (
    read_adapter_config as read_adapter_config,
    save_adapter as save_adapter,
    save_for_llama_index as save_for_llama_index,
)
from .layers import LowRankAdapter as LowRankAdapter, TwoLayerAdapter as TwoLayerAdapter
from .modules import (
    ADAPTER_FORMS as ADAPTER_FORMS,
    AdapterForm as AdapterForm,
    apply_adapter as apply_adapter,
    linear_adapter as linear_adapter,
    low_rank_adapter as low_rank_adapter,
    mlp_adapter as mlp_adapter,
)
