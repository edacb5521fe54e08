from .approximate import ApproximateIndex as ApproximateIndex
from .fusion import Fusion as Fusion, fuse as fuse
from .lexical import LexicalIndex as LexicalIndex
from .tokenizing import terms as terms, words as words
from .topk import ExactIndex as ExactIndex, TopK as TopK, descending as descending, top_k as top_k
