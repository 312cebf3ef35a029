"""Mail through a relay (SMTP, STARTTLS or TLS from the start): alerts at once, the rest in summaries.

A mail's Message-ID is made of the identities of its events, so that the same mail sent again is the same
mail. Nothing of an event gets into a header but numbers and words of ours, and the subject. Printable
is not harmless there: ``=?utf-8?q?=0D=0ATo:…?=`` is printable, and who decodes it has ends of lines.
So a subject that could be taken for an encoded word is one of ours (RFC 2047), and the message
is of the class that takes a header as it is told: EmailMessage decodes what it is given.
"""

import asyncio
import contextlib
import hashlib
import re
import smtplib
import socket
from collections import Counter
from collections.abc import Sequence
from email.charset import QP, Charset
from email.header import Header
from email.message import Message
from email.mime.text import MIMEText
from email.policy import compat32
from email.utils import formatdate
from typing import Final

from needfire_protocol.counted import counted
from needfire_protocol.escape import printable
from needfire_protocol.event import Event, format_time
from needfire_protocol.severity import Severity
from needfire_server.outputs.records import identity_of, line_of
from needfire_server.outputs.settings import MailSettings, OutputSettings, TargetKind
from needfire_server.outputs.shortening import fitting
from needfire_server.outputs.target import ConfirmingTarget, RefusedError, TargetError
from needfire_server.outputs.threads import in_thread
from needfire_server.outputs.tls import client_context

__all__ = ["MailTarget", "compose"]

SUBJECT_TEXT_MAX: Final = 120
LINE_BYTES_MAX: Final = 8_192
"""Of one record in a mail; a thousand of them stay below what relays take."""
_POLICY: Final = compat32.clone(linesep="\r\n", mangle_from_=False)
_PLAIN: Final = re.compile(r"(?!.*=\?)[!-~]+(?: [!-~]+)*")
_PLAIN_MAX: Final = 68
"""Characters of a subject that fit in its line, so that nobody has to fold it."""


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
        refused = smtp.sendmail(mail.sender, list(mail.recipients), message.as_bytes())
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


def compose(settings: OutputSettings, events: Sequence[Event], *, hostname: str) -> Message:
    """Return the mail about some events, at least one: the most severe first, then by time."""
    mail = settings.mail
    assert mail is not None
    charset = Charset("utf-8")
    charset.body_encoding = QP
    # Typed for the name of a character set alone; documented for a Charset as well.
    message = MIMEText(_body(settings, mail, events), _charset=charset, policy=_POLICY)  # type: ignore[arg-type]
    newest_us = max(event.received_us or event.time_us for event in events)
    ids = ",".join(identity_of(event) for event in events)
    digest = hashlib.sha256(ids.encode()).hexdigest()[:32]
    headers = {
        "From": mail.sender,
        "To": ", ".join(mail.recipients),
        "Date": formatdate(newest_us // 1_000_000),
        "Message-ID": f"<{digest}.{settings.name}@{_ascii(hostname)}>",
        "Auto-Submitted": "auto-generated",
        "X-Needfire-Events": str(len(events)),
    }
    for name, value in headers.items():
        message[name] = _checked(value)
    # Typed for text alone; documented for a Header as well.
    message["Subject"] = _header(_subject(events))  # type: ignore[assignment]
    return message


def _checked(value: str) -> str:
    """Return what is written into a header as it is.

    Raises:
        ValueError: it is not one line of printable ASCII.
    """
    if not (value.isascii() and value.isprintable()):
        raise ValueError(f"{printable(value, 80)!r} cannot stand in the header of a mail")
    return value


def _header(text: str) -> str | Header:
    """Return what stands for a text of others in a header, so that it is read as that text."""
    if len(text) <= _PLAIN_MAX and _PLAIN.fullmatch(text) is not None:
        return text
    return Header(text, "utf-8", header_name="Subject")


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
