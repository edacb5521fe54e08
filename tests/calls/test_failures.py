"""What a failed call means, and that no secret gets out."""

from __future__ import annotations

from typing import ClassVar

import pytest

from llama_index_embft._core.redaction import Redactor
from llama_index_embft.calls.failures import UnusableAnswerError, classify


class StatusError(Exception):
    """Looks like the exceptions of the Stainless clients (OpenAI, Anthropic)."""

    def __init__(self, status: int, text: str = "", headers: dict[str, str] | None = None) -> None:
        super().__init__(text)
        self.status_code = status
        self.response = type("Response", (), {"status_code": status, "headers": headers or {}})()


class ConnectError(Exception):
    """Looks like httpx's."""


class ConnectTimeout(Exception):  # noqa: N818 - httpx's name
    """Looks like httpx's."""


def caused(err: Exception, cause: Exception) -> Exception:
    err.__cause__ = cause
    return err


@pytest.mark.parametrize(
    ("err", "kind"),
    [
        (StatusError(400), "passage"),
        (StatusError(400, "Unknown model x"), "fatal"),
        (StatusError(401), "fatal"),
        (StatusError(402), "fatal"),
        (StatusError(403, "the API key has no permission"), "fatal"),
        (StatusError(403, "blocked by the firewall"), "forbidden"),
        (StatusError(404), "fatal"),
        (StatusError(408), "retry"),
        (StatusError(409), "retry"),
        (StatusError(413), "passage"),
        (StatusError(422), "passage"),
        (StatusError(429), "wait"),
        (StatusError(429, "insufficient_quota"), "fatal"),
        (StatusError(500), "retry"),
        (StatusError(503, "", {"retry-after": "3"}), "wait"),
        (StatusError(529), "retry"),
        (caused(RuntimeError("wrapped"), StatusError(401)), "fatal"),
        (caused(RuntimeError("Connection error."), ConnectError("refused")), "unreachable"),
        (caused(RuntimeError("Connection error."), ConnectionRefusedError("refused")), "unreachable"),
        (caused(RuntimeError("Request timed out."), ConnectTimeout()), "unreachable"),
        (TimeoutError(), "retry"),
        (ConnectionResetError("reset"), "retry"),
        (TypeError("'NoneType' object is not subscriptable"), "retry"),
        (UnusableAnswerError("refused"), "retry"),
        (NotImplementedError("no"), "fatal"),
        (ValueError("Unknown model 'x'. Please provide a valid OpenAI model name"), "fatal"),
        (ValueError("No API key found for OpenAI."), "fatal"),
        (RuntimeError("The api_key client option must be set either by passing api_key"), "fatal"),
        (RuntimeError("flaky"), "retry"),
    ],
)
def test_kinds(err: Exception, kind: str) -> None:
    assert classify(err, Redactor()).kind == kind


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-4"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert classify(StatusError(429, "", headers), Redactor()).retry_after == seconds


@pytest.mark.parametrize(
    "text",
    [
        "Incorrect API key provided: sk-abcDEF1234567890.",
        "header was Authorization: Bearer abc.def.ghi",
        "no route to http://user:hunter2secret@host/v1",
        "my own-token-987654 leaked",
        "environment says env-secret-55555",
        "x-api-key: header-secret-777",
    ],
)
def test_secrets_are_hidden(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "env-secret-55555")

    class Llm:
        api_key = "own-token-987654"
        default_headers: ClassVar[dict[str, str]] = {"x-api-key": "header-secret-777"}

    hidden = Redactor(Llm())(text)
    assert "[hidden]" in hidden
    secrets = [
        "abcDEF1234567890",
        "abc.def.ghi",
        "hunter2secret",
        "own-token-987654",
        "env-secret-55555",
        "header-secret-777",
    ]
    assert not any(secret in hidden for secret in secrets)
    assert "[hidden]" not in Redactor(Llm())("HTTP 500: the model task-force is busy at http://host/v1")


def test_reasons_are_one_line_of_bounded_length() -> None:
    reason = classify(RuntimeError("a\nb " * 1000), Redactor()).reason
    assert "\n" not in reason
    assert len(reason) < 500
