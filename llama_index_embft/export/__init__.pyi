from .hub import (
    check_can_push as check_can_push,
)
from .hub import (
    push_dataset_to_hub as push_dataset_to_hub,
)
from .hub import (
    push_to_hub as push_to_hub,
)
from .model import export_model as export_model
from .report import ExportReport as ExportReport
from .report import ExportRow as ExportRow
