"""Mail through a relay (SMTP, STARTTLS or TLS from the start): alerts at once, the rest in summaries.

A mail's Message-ID is made of the ids of its events, so that the same mail sent again is the same
mail. Nothing of an event gets into a header but numbers and words of ours, and the subject, which
is printable text by then; the message class refuses ends of lines besides.
"""

import asyncio
import contextlib
import hashlib
import smtplib
import socket
from collections import Counter
from collections.abc import Sequence
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate
from typing import Final

from needfire_protocol.counted import counted
from needfire_protocol.escape import printable
from needfire_protocol.event import Event, format_time
from needfire_protocol.severity import Severity
from needfire_server.outputs.records import line_of
from needfire_server.outputs.settings import MailSettings, OutputSettings, TargetKind
from needfire_server.outputs.shortening import fitting
from needfire_server.outputs.target import ConfirmingTarget, RefusedError, TargetError
from needfire_server.outputs.threads import in_thread
from needfire_server.outputs.tls import client_context

__all__ = ["MailTarget", "compose"]

SUBJECT_TEXT_MAX: Final = 120
LINE_BYTES_MAX: Final = 8_192
"""Of one record in a mail; a thousand of them stay below what relays take."""


class MailTarget(ConfirmingTarget):
    """One connection for each mail: hours may lie between two of them."""

    def __init__(self, settings: OutputSettings, *, hostname: str) -> None:
        self._settings = settings
        self._hostname = hostname
        self._smtp: smtplib.SMTP | None = None

    async def deliver(self, events: Sequence[Event]) -> None:
        limit_s = self._settings.time_limit_s
        try:
            async with asyncio.timeout(limit_s):
                await in_thread(lambda: self._send(events))
        except TimeoutError:
            raise TargetError(f"it did not take the mail within {limit_s} seconds") from None
        except smtplib.SMTPException as error:
            failed = RefusedError if _is_about_the_mail(error) else TargetError
            raise failed(_complaint(error)) from None

    def abort(self) -> None:
        """Take the socket away, also from the thread that waits for an answer that trickles in."""
        smtp, self._smtp = self._smtp, None
        if smtp is not None and smtp.sock is not None:
            with contextlib.suppress(OSError):
                smtp.sock.shutdown(socket.SHUT_RDWR)
            smtp.close()

    # ---- in a thread ---------------------------------------------------------------------------

    def _send(self, events: Sequence[Event]) -> None:
        message = compose(self._settings, events, hostname=self._hostname)
        settings, mail = self._settings, self._settings.mail
        assert mail is not None
        smtp = self._smtp = self._made()
        smtp.connect(*settings.address)
        if settings.kind is TargetKind.SMTP_STARTTLS:
            # Fails where the relay does not offer it: somebody may have taken the offer out.
            smtp.starttls(context=client_context(settings.tls))
        if mail.user is not None and mail.password is not None:
            smtp.login(mail.user, mail.password)
        refused = smtp.send_message(message, mail.sender, list(mail.recipients))
        # The others have it. Sent again, they would have it again with every try.
        names = ", ".join(sorted(refused))
        self.remark = f"it refused {printable(names, 200)}; the others have it" if refused else ""
        with contextlib.suppress(smtplib.SMTPException, OSError):
            smtp.quit()
        self._smtp = None

    def _made(self) -> smtplib.SMTP:
        limit_s, host = self._settings.time_limit_s, self._settings.address[0]
        name = _ascii(self._hostname)
        if self._settings.kind is TargetKind.SMTPS:
            context = client_context(self._settings.tls)
            made: smtplib.SMTP = smtplib.SMTP_SSL(
                timeout=limit_s, context=context, local_hostname=name
            )
        else:
            made = smtplib.SMTP(timeout=limit_s, local_hostname=name)
        # What the certificate is checked against. The constructor sets it, but also connects, and
        # until it returns nobody could take the socket away.
        made._host = host  # type: ignore[attr-defined]
        return made


def compose(settings: OutputSettings, events: Sequence[Event], *, hostname: str) -> EmailMessage:
    """Return the mail about some events, at least one: the most severe first, then by time."""
    mail = settings.mail
    assert mail is not None
    message = EmailMessage(policy=SMTP)
    message["From"] = mail.sender
    message["To"] = ", ".join(mail.recipients)
    message["Subject"] = _subject(events)
    newest_us = max(event.received_us or event.time_us for event in events)
    message["Date"] = formatdate(newest_us // 1_000_000)
    ids = ",".join(event.id for event in events)
    digest = hashlib.sha256(ids.encode()).hexdigest()[:32]
    message["Message-ID"] = f"<{digest}.{settings.name}@{_ascii(hostname)}>"
    message["Auto-Submitted"] = "auto-generated"
    message["X-Needfire-Events"] = str(len(events))
    message.set_content(_body(settings, mail, events), cte="quoted-printable")
    return message


def _subject(events: Sequence[Event]) -> str:
    worst = max(events, key=lambda event: event.severity)
    of = f" and {len(events) - 1} more" if len(events) > 1 else ""
    where = worst.client or "server"
    again = " (sent again)" if events[0].fields.get("resent") is True else ""
    text = f"[needfire] {worst.severity.word} {where}: {worst.msg}{of}{again}"
    return printable(text, SUBJECT_TEXT_MAX)


def _body(settings: OutputSettings, mail: MailSettings, events: Sequence[Event]) -> str:
    line = line_of(settings)
    counts = Counter(event.severity for event in events)
    told = ", ".join(f"{counts[s]} {s.word}" for s in sorted(counts, reverse=True))
    first, last = (format_time(f(event.time_us for event in events)) for f in (min, max))
    parts = [f"{counted(len(events), 'event')}: {told}", f"from {first} to {last}"]
    for severity in sorted(Severity, reverse=True):
        group = sorted(
            (event for event in events if event.severity is severity),
            key=lambda event: event.time_us,
        )
        if group:
            parts += ["", f"{severity.word}:"]
            parts += [fitting(event, line, LINE_BYTES_MAX).decode() for event in group]
    return "\n".join(parts) + "\n"


def _ascii(hostname: str) -> str:
    return "".join(c for c in hostname if c.isascii() and (c.isalnum() or c in ".-")) or "localhost"


def _is_about_the_mail(error: smtplib.SMTPException) -> bool:
    """RFC 5321: refused for good after its content was read, or for its size before that."""
    if isinstance(error, smtplib.SMTPDataError):
        return 500 <= error.smtp_code < 600
    return isinstance(error, smtplib.SMTPSenderRefused) and error.smtp_code == 552


def _complaint(error: smtplib.SMTPException) -> str:
    if isinstance(error, smtplib.SMTPResponseException):
        said = error.smtp_error
        text = said.decode("utf-8", "backslashreplace") if isinstance(said, bytes) else str(said)
        return printable(f"it answered {error.smtp_code} {text}", 200)
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return f"it refused the recipient {printable(next(iter(error.recipients), ''), 100)}"
    return printable(str(error) or type(error).__name__, 200)
