from .engine import NudgeFinetuneEngine as NudgeFinetuneEngine
from .exact_step import closed_form_step as closed_form_step
from .result import NudgeResult as NudgeResult
from .settings import NudgeOptions as NudgeOptions, NudgeSettings as NudgeSettings
from .steps import StepSearch as StepSearch, movement as movement, steps_to_try as steps_to_try
