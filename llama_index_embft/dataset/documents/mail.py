"""Readers of e-mail."""

from __future__ import annotations

import email
import mailbox
import mimetypes
from email import policy
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from llama_index_embft.dataset.documents.archives import check_depth, read_member
from llama_index_embft.dataset.documents.base import LeftOut, Piece, ReadingJob, UnreadableError, unread_kind
from llama_index_embft.dataset.documents.encoding import TextEncoding, decode, decode_declared
from llama_index_embft.dataset.documents.text import encoding_note
from llama_index_embft.dataset.documents.web import html_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from email.message import MIMEPart
    from pathlib import Path

_SHOWN: Final = ("From", "To", "Cc", "Date")
_SEALED: Final = ("multipart/encrypted", "application/pkcs7-mime", "application/x-pkcs7-mime")
_SIGNATURES: Final = ("application/pgp-signature", "application/pkcs7-signature", "application/x-pkcs7-signature")


def read_eml(path: Path, job: ReadingJob) -> Iterator[Piece | LeftOut]:
    """Read a message: subject, names, date and text; attachments are read as files in an archive are."""
    check_depth(job)
    message = email.message_from_bytes(job.whole(path), policy=policy.default)
    if not any(_header(message, name) for name in ("Subject", "From", "To", "Date")):
        raise UnreadableError("is no e-mail: it has neither subject nor sender; save it again as .eml")
    if message.get_content_type() in _SEALED:
        raise UnreadableError("is an encrypted e-mail; save it decrypted", "encrypted")
    text, encoding = _letter(message)
    yield Piece(text)
    yield from encoding_note(encoding)
    for number, part in enumerate(_attachments(message)):
        kind = part.get_content_type()
        name = PurePosixPath((part.get_filename() or "").replace("\\", "/")).name
        name = name or f"attachment {number + 1}{mimetypes.guess_extension(kind) or ''}"
        if part.get_content_maintype() == "image":
            continue  # logos and signatures
        content = part.get_payload(decode=True)
        if kind == "message/rfc822":  # a message that was sent on
            # As it stands: the other policies parse its headers anew, and stumble over broken ones.
            content, name = part.get_content().as_bytes(policy=policy.compat32), f"message {number + 1}.eml"
        if isinstance(content, bytes):
            job.budget.take(len(content), 1)
            yield from read_member([content], name, job)
        else:  # what mail servers tell each other
            yield LeftOut(f"is of a kind that is not read ({kind})", unread_kind(name)[1], name, False)


def read_mbox(path: Path, job: ReadingJob) -> Iterator[Piece | LeftOut]:
    """Read a mailbox, a document a message; attachments are counted and left out."""
    job.check_size(path.stat().st_size, "has")
    box = mailbox.mbox(path, create=False)
    attachments = broken = 0
    notes: dict[TextEncoding, None] = {}
    try:
        for stored in box:
            try:
                message = email.message_from_bytes(stored.as_bytes(), policy=policy.default)
                text, encoding = _letter(message)
                held = sum(part.get_content_maintype() != "image" for part in _attachments(message))
            except Exception:  # noqa: BLE001 - one message that no parser takes is no reason to lose the others
                broken += 1
                continue
            yield Piece(text)
            notes[encoding] = None
            attachments += held
    finally:
        box.close()
    for encoding in notes:
        yield from encoding_note(encoding)
    if broken:
        yield LeftOut(f"holds {broken:,} broken messages, which were left out", "broken")
    if attachments:
        yield LeftOut(
            f"holds {attachments:,} attachments, which were left out; save the messages as .eml to have them read",
            "attachments",
        )


def _letter(message: MIMEPart) -> tuple[str, TextEncoding]:
    names = [f"{name}: {text}" for name in _SHOWN if (text := _header(message, name))]
    subject = f"# {text}" if (text := _header(message, "Subject")) else ""
    texts = [_text(part) for part in _leaves(message) if _is_text(part, message)]
    # One encoding is said for the message: the worst.
    encoding = next((one for _, one in texts if one.note), TextEncoding("utf-8-sig"))
    return "\n\n".join(filter(None, [subject, "\n".join(names), *(text for text, _ in texts)])), encoding


def _header(message: MIMEPart, name: str) -> str:
    try:
        text = str(message[name] or "")
    except Exception:  # noqa: BLE001 - Python's parser stumbles over addresses that are broken in one way or another
        text = "\ufffd"
    if "\ufffd" not in text:
        return text
    # Letters beyond ASCII that stand in it as they are: the parser takes none.
    raw = next(str(value) for key, value in message.raw_items() if key.lower() == name.lower())
    raw_bytes = raw.encode("utf-8", "surrogateescape")
    try:
        return " ".join(decode(raw_bytes)[0].split())
    except UnreadableError:
        return " ".join(raw_bytes.decode("cp1252", "replace").split())


def _attachments(message: MIMEPart) -> list[MIMEPart]:
    return [part for part in _leaves(message) if not _is_text(part, message)]


def _leaves(message: MIMEPart) -> Iterator[MIMEPart]:
    """The parts that hold something, in order, whatever they are nested in; of alternatives, one."""
    if not message.is_multipart() or message.get_content_maintype() == "message":
        if message.get_content_type() not in _SIGNATURES:
            yield message
        return
    parts = [list(_leaves(part)) for part in message.iter_parts()]
    if message.get_content_type() != "multipart/alternative":
        yield from (leaf for part in parts for leaf in part)
        return
    kinds = [{leaf.get_content_subtype() for leaf in part if _is_text(leaf) and _text(leaf)[0]} for part in parts]
    chosen = next((at for wanted in ("plain", "html") for at, kind in enumerate(kinds) if wanted in kind), 0)
    for at, part in enumerate(parts):  # programs put files into an alternative too
        yield from (leaf for leaf in part if at == chosen or (leaf.get_filename() and not _is_text(leaf)))


def _is_text(part: MIMEPart, message: MIMEPart | None = None) -> bool:
    """Whether a part is read as text of the message and not as a file."""
    if part is message:
        return part.get_content_maintype() in ("text", "multipart")
    if part.is_attachment() or part.get_filename():
        return False
    return part.get_content_type() in ("text/plain", "text/html")


def _text(part: MIMEPart) -> tuple[str, TextEncoding]:
    raw = bytes(part.get_payload(decode=True) or b"")
    try:
        text, encoding = decode_declared(raw, part.get_content_charset())
    except UnreadableError:  # a message is more than one odd part of it
        text, encoding = raw.decode("utf-8", "replace"), TextEncoding("utf-8-sig", damaged=True)
    return html_text(text) if part.get_content_subtype() == "html" else "\n".join(text.splitlines()).strip(), encoding
