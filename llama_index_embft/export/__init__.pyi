from .hub import (
    check_can_push as check_can_push,
    push_dataset_to_hub as push_dataset_to_hub,
    push_to_hub as push_to_hub,
)
from .model import export_model as export_model
from .report import ExportReport as ExportReport, ExportRow as ExportRow
