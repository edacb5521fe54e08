from .engine import NudgeFinetuneEngine as NudgeFinetuneEngine
from .exact_step import closed_form_step as closed_form_step
from .result import NudgeResult as NudgeResult
from .settings import NudgeOptions as NudgeOptions
from .settings import NudgeSettings as NudgeSettings
from .steps import StepSearch as StepSearch
from .steps import movement as movement
from .steps import steps_to_try as steps_to_try
