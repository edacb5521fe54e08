from .clicks import TrafficReport as TrafficReport
from .clicks import dataset_from_clicks as dataset_from_clicks
from .retrieval_log import RetrievalLog as RetrievalLog
from .retrieval_log import dataset_from_trulens as dataset_from_trulens
