from .clients import make_llm as make_llm
from .limits import RateLimiter as RateLimiter
from .retrying import RetryPolicy as RetryPolicy
