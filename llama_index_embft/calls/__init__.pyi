from .clients import check_llm as check_llm, make_llm as make_llm
from .counts import CallCounts as CallCounts
from .limits import RateLimiter as RateLimiter
from .server import RetryPolicy as RetryPolicy
from .settings import CallSettings as CallSettings
