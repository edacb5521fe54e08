"""Readers of e-mail."""

from __future__ import annotations

import email
import mailbox
from email import policy
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from llama_index_embft.dataset.documents.archives import check_depth, read_member
from llama_index_embft.dataset.documents.base import LeftOut, Piece, ReadingJob, UnreadableError
from llama_index_embft.dataset.documents.encoding import decode
from llama_index_embft.dataset.documents.web import html_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from email.message import EmailMessage
    from pathlib import Path

_SHOWN: Final = ("From", "To", "Cc", "Date")
_SEALED: Final = ("multipart/encrypted", "application/pkcs7-mime", "application/x-pkcs7-mime")


def read_eml(path: Path, job: ReadingJob) -> Iterator[Piece | LeftOut]:
    """Read a message: subject, names, date and text; attachments are read as files in an archive are."""
    check_depth(job)
    message = email.message_from_bytes(job.whole(path), policy=policy.default)
    if not any(message[name] for name in ("Subject", "From", "To", "Date")):
        raise UnreadableError("is no e-mail: it has neither subject nor sender; save it again as .eml")
    if message.get_content_type() in _SEALED:
        raise UnreadableError("is an encrypted e-mail; save it decrypted", "encrypted")
    yield Piece(_letter(message))
    for number, part in enumerate(message.iter_attachments()):
        name = PurePosixPath((part.get_filename() or "").replace("\\", "/")).name or f"attachment {number + 1}"
        if part.get_content_maintype() == "image":
            continue  # logos and signatures
        content = part.get_payload(decode=True)
        if part.get_content_type() == "message/rfc822":  # a message that was sent on
            content, name = part.get_content().as_bytes(), f"message {number + 1}.eml"
        if isinstance(content, bytes):
            job.budget.take(len(content), 1)
            yield from read_member([content], name, job)


def read_mbox(path: Path, job: ReadingJob) -> Iterator[Piece | LeftOut]:
    """Read a mailbox, a document a message; attachments are left out."""
    job.check_size(path.stat().st_size, "has")
    box = mailbox.mbox(path, create=False)
    try:
        for message in box:
            yield Piece(_letter(email.message_from_bytes(message.as_bytes(), policy=policy.default)))
    finally:
        box.close()


def _letter(message: EmailMessage) -> str:
    names = [f"{name}: {message[name]}" for name in _SHOWN if message[name]]
    subject = f"# {message['Subject']}" if message["Subject"] else ""
    return "\n\n".join(filter(None, [subject, "\n".join(names), _body(message)]))


def _body(message: EmailMessage) -> str:
    part = message.get_body(preferencelist=("plain", "html"))
    if part is None:
        return ""
    try:
        text = str(part.get_content())
    except (LookupError, ValueError):  # a character set that nobody knows
        text = decode(bytes(part.get_payload(decode=True) or b""))[0]
    return html_text(text) if part.get_content_subtype() == "html" else text.strip()
