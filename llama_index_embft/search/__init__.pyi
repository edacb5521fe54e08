from .approximate import ApproximateIndex as ApproximateIndex
from .topk import ExactIndex as ExactIndex, TopK as TopK, descending as descending, top_k as top_k
