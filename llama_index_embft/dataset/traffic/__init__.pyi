from .clicks import TrafficDataset as TrafficDataset
from .clicks import TrafficReport as TrafficReport
from .clicks import dataset_from_clicks as dataset_from_clicks
from .retrieval_log import RetrievalLog as RetrievalLog
