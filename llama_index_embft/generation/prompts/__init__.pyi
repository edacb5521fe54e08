from .style import Prompt as Prompt, PromptStyle as PromptStyle, check_template as check_template
from .tasks import QueryTask as QueryTask, TaskPlan as TaskPlan
