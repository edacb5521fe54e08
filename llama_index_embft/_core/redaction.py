"""Hiding secrets in texts that leave the process: errors, logs, journals, model cards.

Redact first and cut afterwards: half a key fits no pattern.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

HIDDEN: Final = "[hidden]"
_SHORTEST: Final = 6
# Names of environment variables, fields, headers and query parameters that hold a secret.
_SECRET_NAME: Final = re.compile(
    r"(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|AUTHORIZATION)S?(?:_?\d+)?$", re.IGNORECASE
)
_NAME: Final = r"[\w.-]{0,40}(?:key|token|secret|passw(?:or)?d|pwd|credentials?|auth(?:orization)?|signature|sig)\d?"
# Query parameters of addresses that are shown; the value of any other may be a secret (``?code=``, ``?sv=…&sig=…``).
_SHOWN: Final = frozenset(
    {"api-version", "api_version", "version", "v", "model", "deployment", "engine", "region", "location", "sslmode"}
).union(
    ["timeout", "connect_timeout", "format", "alt", "lang", "language", "encoding", "charset", "collection", "table"],
    ["schema", "database", "dbname", "db", "host", "port", "page", "limit", "offset", "size", "application_name"],
    ["target_session_attrs", "download", "revision", "path", "name", "type", "mode"],
)
_ADDRESS: Final = re.compile(r"\b[a-z][a-z0-9+.-]{1,30}://[^\s'\"<>]{1,4000}", re.IGNORECASE)
_OF_FILES: Final = ("file", "sqlite")
_PARAMETER: Final = re.compile(r"([?&#;])([^=&#;]{1,100})=([^&#;]{1,4000})")
_LIKE_A_KEY: Final = re.compile(r"(?<=[A-Za-z])\d|(?<=\d)[A-Za-z]")
_USER: Final = [
    # user:password@ in an address; a password may hold an @, a slash or a colon.
    (re.compile(r"(?<=://)[^\s:@/?#'\"<>]{0,100}:[^\s'\"<>]{0,200}@"), f"{HIDDEN}@"),
    (re.compile(r"(?<=://)[^\s/?#'\"<>]{1,300}@"), f"{HIDDEN}@"),
]
_PATTERNS: Final = [
    # ?api_key=… and password=… of a connection string.
    (re.compile(rf"(?<=[?&;\s])({_NAME})=[^&;#\s'\"<>]{{3,2000}}", re.IGNORECASE), rf"\1={HIDDEN}"),
    # Headers and fields: Authorization: Bearer …, "api_key": "…", x-api-key: …
    (
        re.compile(
            rf"\b({_NAME})(?: provided)?([\"']?\s{{0,3}}[:=]\s{{0,3}}[\"']?)"
            r"(?:(?:bearer|basic|digest|negotiate|token)\s+)?"
            r"(?!\[hidden)[^\s\"',;&}\])]{6,2000}",
            re.IGNORECASE,
        ),
        rf"\1\2{HIDDEN}",
    ),
    # "basic knowledge" is no secret: what follows is encoded, so that it holds more than small letters.
    (
        re.compile(
            r"\b([Bb]earer|[Bb]asic|BEARER|BASIC)\s+(?!\[hidden)(?=[a-z]{0,200}[\dA-Z.~+/=_-])[\w.~+/=-]{6,2000}"
        ),
        rf"\1 {HIDDEN}",
    ),
    (
        re.compile(r"\b((?:set-)?cookie[\"']?\s{0,3}[:=]\s{0,3}[\"']?)(?!\[hidden)[^\r\n\"']{4,4000}", re.IGNORECASE),
        rf"\1{HIDDEN}",
    ),
    (
        re.compile(r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----.{0,20000}?(?:-----END [A-Z ]{0,40}-----|\Z)", re.DOTALL),
        HIDDEN,
    ),
    # Keys by their shape: OpenAI and its imitators, Hugging Face, GitHub, Slack, Google, AWS, JSON web tokens.
    (
        re.compile(
            r"(?<![A-Za-z0-9])(?:(?:sk|pk|rk|gsk|xai|hf|nvapi|pplx|r8|tvly|pa|jina|fw|co|gh[pousr]|github_pat"
            r"|xox[abprs]|glpat)[-_](?=[\w*-]{0,400}\d)[\w*-]{8,400}|(?:sk|hf|gsk|xai)[-_][\w*-]{6,400}"
            r"|AIza[\w-]{20,100}|(?:AKIA|ASIA)[A-Z0-9]{12,40}|eyJ[\w-]{8,4000}\.[\w-]{4,4000}(?:\.[\w-]{0,4000})?)"
        ),
        HIDDEN,
    ),
]


class Redactor:
    """Replaces known and key-like secrets.

    Known are the keys and tokens of the environment, and those of a client: its key, headers, and the password or key
    in its address.

    Args:
        client: An LLM, an embedding or a store; None for the environment alone.
    """

    def __init__(self, client: Any = None) -> None:
        found = [value for name, value in os.environ.items() if _SECRET_NAME.search(name)]
        found += [secret for value in os.environ.values() if "://" in value for secret in _secrets_of_address(value)]
        found += _secrets_of(client)
        spellings = {form for value in found for form in (value, quote(value, safe=""))}
        # Longest first, or a key that begins like another would leave its tail.
        self._secrets = sorted((value for value in spellings if len(value) >= _SHORTEST), key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """Return a text with every known or key-like secret replaced."""
        text = without_secret_addresses(self.known(text))
        for pattern, replacement in _PATTERNS:
            text = pattern.sub(replacement, text)
        return text

    def known(self, text: str) -> str:
        """Return a text with the known secrets replaced, for texts that are data and may hold what looks like a key."""
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        return text


def without_secret_addresses(text: str) -> str:
    """A text whose addresses show no password, no query value that may be secret, and no part of a path like a key."""
    if "://" not in text:
        return text
    for pattern, replacement in _USER:
        text = pattern.sub(replacement, text)
    return _ADDRESS.sub(_plain_address, text)


def without_secrets(value: Any) -> Any:
    """`without_secret_addresses` of every text in plain data: what is saved of a run's settings, say."""
    if isinstance(value, str):
        return without_secret_addresses(value)
    if isinstance(value, dict):
        return {name: without_secrets(inner) for name, inner in value.items()}
    return [without_secrets(inner) for inner in value] if isinstance(value, list | tuple) else value


def _plain_address(match: re.Match[str]) -> str:
    address = match[0]
    if address.lower().startswith(_OF_FILES):
        return address
    scheme, _, rest = address.partition("://")
    cut = min((at for at in map(rest.find, "?#") if at >= 0), default=len(rest))
    parts = [HIDDEN if number and _is_like_a_key(part) else part for number, part in enumerate(rest[:cut].split("/"))]
    return f"{scheme}://{'/'.join(parts)}{_PARAMETER.sub(_plain_parameter, rest[cut:])}"


def _plain_parameter(match: re.Match[str]) -> str:
    mark, name, value = match.groups()
    if name.lower() in _SHOWN and not _is_like_a_key(value):
        return match[0]
    end = value[len(value.rstrip(":.,)")) :]  # of the sentence that the address stands in
    return f"{mark}{name}={HIDDEN}{end}"


def _is_like_a_key(part: str) -> bool:
    """Long, and letters and digits mixed as no name mixes them."""
    return len(part) >= 16 and len(_LIKE_A_KEY.findall(part)) >= 3


def redact(text: str) -> str:
    """Hide the secrets of the environment, and whatever looks like one."""
    return Redactor()(text)


def _secrets_of(client: Any) -> Iterator[str]:
    names = {*getattr(type(client), "model_fields", ()), *getattr(client, "__dict__", ()), *vars(type(client))}
    for name in names if client is not None else ():
        if name.startswith("__"):
            continue
        value = client.__dict__.get(name, getattr(type(client), name, None)) if hasattr(client, "__dict__") else None
        yield from _secrets_in(name, value)


def _secrets_in(name: str, value: Any) -> Iterator[str]:
    if hasattr(value, "get_secret_value"):
        value = value.get_secret_value()
    if isinstance(value, dict):
        sent = any(word in name.lower() for word in ("header", "query", "cookie", "param"))
        for key, inner in value.items():
            # Any header or parameter may hold a key, whatever it is called.
            shown = not sent or str(key).lower() in _SHOWN
            yield from _secrets_in(str(key) if shown else f"{key}_key", inner)
    elif isinstance(value, str):
        if _SECRET_NAME.search(name):
            yield from (value, *value.split())
        elif "://" in value:
            yield from _secrets_of_address(value)


def _secrets_of_address(address: str) -> Iterator[str]:
    try:
        parts = urlsplit(address)
        password = parts.password
    except ValueError:
        return
    if password:
        yield from (password, unquote(password))
    for pair in parts.query.split("&"):
        name, _, value = pair.partition("=")
        if re.fullmatch(_NAME, name, re.IGNORECASE) or (name.lower() not in _SHOWN and _is_like_a_key(value)):
            yield from (value, unquote(value))
    yield from (part for part in parts.path.split("/") if _is_like_a_key(part))
