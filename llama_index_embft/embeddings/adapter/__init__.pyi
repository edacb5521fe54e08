from .embedding import AdapterEmbedding as AdapterEmbedding
from .files import (
    read_adapter_config as read_adapter_config,
)
from .files import (
    save_adapter as save_adapter,
)
from .files import (
    save_for_llama_index as save_for_llama_index,
)
from .layers import LowRankAdapter as LowRankAdapter
from .layers import TwoLayerAdapter as TwoLayerAdapter
from .modules import (
    apply_adapter as apply_adapter,
)
from .modules import (
    linear_adapter as linear_adapter,
)
from .modules import (
    low_rank_adapter as low_rank_adapter,
)
from .modules import (
    mlp_adapter as mlp_adapter,
)
