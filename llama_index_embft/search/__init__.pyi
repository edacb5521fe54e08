from .approximate import ApproximateIndex as ApproximateIndex
from .topk import ExactIndex as ExactIndex
from .topk import TopK as TopK
from .topk import top_k as top_k
from .topk import top_k_ids as top_k_ids
