from .approximate import ApproximateIndex as ApproximateIndex
from .topk import ExactIndex as ExactIndex
from .topk import TopK as TopK
from .topk import descending as descending
from .topk import top_k as top_k
