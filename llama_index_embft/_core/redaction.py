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
_PATTERNS: Final = [
    # user:password@ in an address; a password may hold an @, a slash or a colon.
    (re.compile(r"(?<=://)[^\s:@/?#'\"<>]{0,100}:[^\s'\"<>]{0,200}@"), f"{HIDDEN}@"),
    (re.compile(r"(?<=://)[^\s/?#'\"<>]{1,300}@"), f"{HIDDEN}@"),
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
    (re.compile(r"\b(bearer|basic)\s+(?!\[hidden)[\w.~+/=-]{6,2000}", re.IGNORECASE), rf"\1 {HIDDEN}"),
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
        text = self.known(text)
        for pattern, replacement in _PATTERNS:
            text = pattern.sub(replacement, text)
        return text

    def known(self, text: str) -> str:
        """Return a text with the known secrets replaced, for texts that are data and may hold what looks like a key."""
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        return text


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
        headers = "header" in name.lower()
        for key, inner in value.items():
            # Any header may hold a key, whatever it is called.
            yield from _secrets_in(f"{key}_key" if headers else str(key), inner)
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
        if re.fullmatch(_NAME, name, re.IGNORECASE):
            yield value
