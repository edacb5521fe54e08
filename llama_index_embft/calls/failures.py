"""What a failed call means: stop everything, wait, try again, or give this passage up.

Nothing here imports an LLM client. All of them, OpenAI's and its imitators', put an HTTP status on their exceptions,
and the rest is read from the chain of causes.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llama_index_embft._core.redaction import Redactor

FailureKind = Literal["fatal", "unreachable", "wait", "retry", "forbidden", "passage"]

_UNKNOWN_MODEL: Final = re.compile(
    r"model.{0,80}(?:not exist|not found|not available|unknown|invalid|unsupported)|(?:unknown|invalid|no such) model",
    re.IGNORECASE | re.DOTALL,
)
_NO_KEY: Final = re.compile(
    r"api[_ ]?key\b.{0,40}\b(?:must be set|missing|not (?:set|found|provided|valid))|(?:no|missing) api[_ ]?key",
    re.IGNORECASE,
)
_NO_MONEY: Final = re.compile(
    r"insufficient[_ ]quota|exceeded your current quota|insufficient (?:balance|credit)", re.I
)
_REFUSED_NAMES: Final = (
    "ConnectError",
    "ConnectionRefusedError",
    "gaierror",
    "ClientConnectorError",
    "NameResolutionError",
    "ConnectTimeout",
)
_TIMEOUTS: Final = ("ReadTimeout", "APITimeoutError", "TimeoutError")
# What a 403 says that is about the caller and not about what was sent.
_ABOUT_KEY: Final = re.compile(
    r"api[ _-]?key|credential|token|unauthori[sz]ed|permission|organi[sz]ation|subscription|project|country|territory",
    re.IGNORECASE,
)
_TOO_LONG: Final = re.compile(r"context[_ ](?:length|size)|maximum context|too long|too many tokens", re.IGNORECASE)
_TOOLS_REFUSED: Final = re.compile(r"tool|function|response_format|json_schema|grammar", re.IGNORECASE)


class UnusableAnswerError(Exception):
    """The LLM answered, and nothing in the answer can be used; the message says why."""


@dataclass(frozen=True)
class Failure:
    """What to do about a failed call.

    Attributes:
        kind: ``"fatal"`` (no call can succeed: wrong key, unknown model), ``"unreachable"`` (nobody listens: fatal
            unless a call has succeeded before), ``"wait"`` (rate limit: wait, this is nobody's fault), ``"retry"``
            (may pass: 5xx, dropped connection, timeout, unusable answer), ``"forbidden"`` (403: a key without rights,
            or a firewall that dislikes this passage), ``"passage"`` (will fail again for this passage only, such as a
            content filter).
        reason: One sentence, without any key.
        retry_after: Seconds that the server asks to wait; None where it does not say.
        refuses_tools: The server does not take structured output; plain text may work.
        unusable: The server answered, and the answer was of no use: no sign of an outage.
    """

    kind: FailureKind
    reason: str
    retry_after: float | None = None
    refuses_tools: bool = False
    unusable: bool = False


def classify(err: BaseException, redact: Redactor, model: str = "LLM") -> Failure:
    """Say what to do about an exception that a call raised; `model` says of what kind of model, for the sentence."""
    status = _status_of(err)
    text = _one_line(redact(str(err)))
    if isinstance(err, UnusableAnswerError):
        return Failure("retry", text, unusable=True)
    if status is not None:
        return _by_status(status, text, err, model)
    if any(type(cause).__name__ in _REFUSED_NAMES for cause in _causes(err)):
        return Failure("unreachable", text)
    if isinstance(err, (NotImplementedError, ImportError)):
        return Failure("fatal", f"The {model} cannot be used: {text}")
    if isinstance(err, ValueError) and _UNKNOWN_MODEL.search(text):
        return Failure("fatal", text)
    if _NO_KEY.search(text):
        return Failure("fatal", f"The {model} client has no API key ({text}); set it in the environment.")
    if type(err).__name__ == "ValidationError" and callable(getattr(err, "errors", None)):  # pydantic's, of any version
        return Failure("retry", _of_shape(err, redact, model))
    if any(type(cause).__name__ in _TIMEOUTS for cause in _causes(err)):
        return Failure("retry", f"The {model} server has not answered in time ({text}); give it a longer timeout.")
    # Dropped connections, timeouts, replies that are no JSON, and whatever a home-made LLM raises.
    return Failure("retry", f"{type(err).__name__}: {text}" if text else type(err).__name__)


def _by_status(status: int, text: str, err: BaseException, model: str) -> Failure:
    reason = f"HTTP {status}: {text}"
    if status == 401 or (status == 403 and _ABOUT_KEY.search(text)):
        return Failure("fatal", f"The {model} server refused the API key ({reason}); set the right key and try again.")
    if status == 402 or _NO_MONEY.search(text):
        return Failure("fatal", f"The account at the {model} server has no credit left ({reason}).")
    if status == 404 or (status in (400, 422) and _UNKNOWN_MODEL.search(text)):
        return Failure(
            "fatal",
            f"The {model} server does not know this model or address ({reason}); check the model and the API base.",
        )
    if status == 403:
        return Failure("forbidden", reason)
    if status == 429:
        return Failure("wait", reason, retry_after=_retry_after(err))
    if status in (408, 409, 425) or status >= 500:
        # 503 with Retry-After is a rate limit by another name.
        after = _retry_after(err)
        return Failure("retry" if after is None else "wait", reason, retry_after=after)
    too_long = (
        " The passage is too long for the model: set the LLM's `context_window` to what its server has."
        if _TOO_LONG.search(text)
        else ""
    )
    return Failure("passage", reason + too_long, refuses_tools=bool(_TOOLS_REFUSED.search(text)))


def _of_shape(err: Any, redact: Redactor, model: str) -> str:
    """What is wrong with the shape of an answer: the first of pydantic's many lines, without what was sent."""
    first = err.errors(include_input=False, include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return _one_line(redact(f"The {model} server's answer has another shape than it should ({place}: {first['msg']})"))


def _status_of(err: BaseException) -> int | None:
    for cause in _causes(err):
        for holder in (cause, getattr(cause, "response", None)):
            status = getattr(holder, "status_code", None) or getattr(holder, "status", None)
            if isinstance(status, int) and 400 <= status < 600:
                return status
    return None


def _causes(err: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = err
    while current is not None and id(current) not in seen:
        yield current
        seen.add(id(current))
        current = current.__cause__ or current.__context__


def _retry_after(err: BaseException) -> float | None:
    """Seconds from ``retry-after-ms`` or ``Retry-After`` (a number or a date).

    None if absent or nonsense (no number, not above 0, not finite), so that the usual backoff applies.
    """
    for cause in _causes(err):
        headers = getattr(getattr(cause, "response", None), "headers", None)
        if headers is None:
            continue
        try:
            milliseconds, value = headers.get("retry-after-ms"), headers.get("retry-after")
            if milliseconds:
                seconds = float(milliseconds) / 1000
            elif value is None:
                continue
            elif re.fullmatch(r"\s*[+-]?[\d.]+\s*", value):
                seconds = float(value)
            else:
                seconds = (parsedate_to_datetime(value) - datetime.now(timezone.utc)).total_seconds()
        except Exception:  # noqa: BLE001 - a foreign header: dates alone raise five kinds of exceptions
            return None
        return seconds if math.isfinite(seconds) and seconds > 0 else None
    return None


def _one_line(text: str) -> str:
    text = " ".join(text[:100_000].split())
    return text if len(text) <= 400 else text[:397] + "..."
