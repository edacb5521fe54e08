"""What a failed call means: stop everything, wait, try again, or give this passage up.

Nothing here imports an LLM client. All of them, OpenAI's and its imitators', put an HTTP status on their exceptions,
and the rest is read from the chain of causes.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

FailureKind = Literal["fatal", "unreachable", "wait", "retry", "passage"]

_HIDDEN: Final = "[hidden]"
# By their beginning, after "Bearer", or as the password in an address.
_KEY_SHAPES: Final = re.compile(
    r"\b(?:sk|pk|rk|gsk|xai|hf|AIza)[-_][\w*-]{6,}|(?<=Bearer )[^\s'\",}]+|(?<=://)[^/\s@]+(?=@)", re.IGNORECASE
)
_SECRET_NAMES: Final = re.compile(r"(?:KEY|TOKEN|SECRET|PASSWORD)S?$", re.IGNORECASE)
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
_TOO_LONG: Final = re.compile(r"context[_ ]length|maximum context|too long|too many tokens", re.IGNORECASE)
_TOOLS_REFUSED: Final = re.compile(r"tool|function|response_format|json_schema|grammar", re.IGNORECASE)


class UnusableAnswerError(Exception):
    """The LLM answered, and nothing in the answer can be used; the message says why."""


@dataclass(frozen=True)
class Failure:
    """What to do about a failed call.

    Attributes:
        kind: ``"fatal"`` (no call can succeed: wrong key, unknown model), ``"unreachable"`` (nobody listens: fatal
            unless a call has succeeded before), ``"wait"`` (rate limit: wait, this is nobody's fault), ``"retry"``
            (may pass: 5xx, dropped connection, timeout, unusable answer), ``"passage"`` (will fail again for this
            passage only, such as a content filter).
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


class Redactor:
    """Hides secrets in texts that go to a journal, a log or an error message.

    Args:
        llm: Its key, headers and the like are hidden, and so are all keys and tokens of the environment.
    """

    def __init__(self, llm: Any = None) -> None:
        found = [value for name, value in os.environ.items() if _SECRET_NAMES.search(name)]
        found += list(_secrets_of(llm))
        # Longest first, or a key that begins like another would leave its tail.
        self._secrets = sorted({value for value in found if len(value) >= 6}, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """Return the text with every known or key-like secret replaced."""
        for secret in self._secrets:
            text = text.replace(secret, _HIDDEN)
        return _KEY_SHAPES.sub(_HIDDEN, text)


def _secrets_of(llm: Any) -> Iterator[str]:
    for name in ("api_key", "token", "default_headers", "headers", "azure_ad_token"):
        value = getattr(llm, name, None)
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            yield from (word for text in value.values() if isinstance(text, str) for word in (text, *text.split()))


def classify(err: BaseException, redact: Redactor, model: str = "LLM") -> Failure:
    """Say what to do about an exception that a call raised; `model` says of what kind of model, for the sentence."""
    status = _status_of(err)
    text = redact(_one_line(err))
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
    # Dropped connections, timeouts, replies that are no JSON, and whatever a home-made LLM raises.
    return Failure("retry", f"{type(err).__name__}: {text}" if text else type(err).__name__)


def _by_status(status: int, text: str, err: BaseException, model: str) -> Failure:
    reason = f"HTTP {status}: {text}"
    if status in (401, 403):
        return Failure("fatal", f"The {model} server refused the API key ({reason}); set the right key and try again.")
    if status == 402 or _NO_MONEY.search(text):
        return Failure("fatal", f"The account at the {model} server has no credit left ({reason}).")
    if status == 404 or (status in (400, 422) and _UNKNOWN_MODEL.search(text)):
        return Failure(
            "fatal",
            f"The {model} server does not know this model or address ({reason}); check the model and the API base.",
        )
    if status == 429:
        return Failure("wait", reason, retry_after=_retry_after(err))
    if status in (408, 409, 425) or status >= 500:
        # 503 with Retry-After is a rate limit by another name.
        after = _retry_after(err)
        return Failure("retry" if after is None else "wait", reason, retry_after=after)
    too_long = " The passage is too long for the model." if _TOO_LONG.search(text) else ""
    return Failure("passage", reason + too_long, refuses_tools=bool(_TOOLS_REFUSED.search(text)))


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
    """Seconds from ``retry-after-ms`` or ``Retry-After`` (a number or a date); None if absent or nonsense."""
    for cause in _causes(err):
        headers = getattr(getattr(cause, "response", None), "headers", None)
        if headers is None:
            continue
        try:
            if headers.get("retry-after-ms"):
                return max(0.0, float(headers["retry-after-ms"]) / 1000)
            value = headers.get("retry-after")
            if value is None:
                continue
            if re.fullmatch(r"\s*\d+(\.\d+)?\s*", value):
                return float(value)
            return max(0.0, (parsedate_to_datetime(value) - datetime.now(timezone.utc)).total_seconds())
        except (ValueError, TypeError):
            return None
    return None


def _one_line(err: BaseException) -> str:
    text = " ".join(str(err).split())
    return text if len(text) <= 400 else text[:397] + "..."
