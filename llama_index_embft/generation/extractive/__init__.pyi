from .kinds import KINDS as KINDS
from .pairs import DEFAULT_KINDS as DEFAULT_KINDS, generate_extractive_pairs as generate_extractive_pairs
