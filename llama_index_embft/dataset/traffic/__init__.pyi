from .clicks import (
    TrafficDataset as TrafficDataset,
    TrafficReport as TrafficReport,
    dataset_from_clicks as dataset_from_clicks,
)
from .retrieval_log import RetrievalLog as RetrievalLog
