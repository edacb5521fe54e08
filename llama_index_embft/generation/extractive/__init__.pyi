from .kinds import KINDS as KINDS, template_questions as template_questions
from .pairs import DEFAULT_KINDS as DEFAULT_KINDS, generate_extractive_pairs as generate_extractive_pairs
from .well_formed import broken_rules as broken_rules
