from .fusion import Fusion as Fusion, WeightChoice as WeightChoice, fuse as fuse, learn_weight as learn_weight
from .settings import StackSettings as StackSettings
