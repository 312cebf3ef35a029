"""What the configuration says about one output, as frozen typed settings."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Final
from urllib.parse import urlsplit

from needfire_protocol.severity import Severity, SeverityFilter
from needfire_server.outputs.selection import Selection

__all__ = ["MailSettings", "OutputSettings", "RelaySettings", "TargetKind", "TlsSettings"]


class TargetKind(Enum):
    """Where an output goes; the value is the word of ``OutputTarget``."""

    FILE = "file"
    SYSLOG_LOCAL = "syslog-local"
    SYSLOG_UDP = "syslog-udp"
    SYSLOG_TCP = "syslog-tcp"
    SYSLOG_TLS = "syslog-tls"
    SMTP = "smtp"
    SMTP_STARTTLS = "smtp-starttls"
    SMTPS = "smtps"
    WEBHOOK = "webhook"
    COMMAND = "command"
    NATS = "nats"
    KAFKA = "kafka"
    RELAY = "relay"

    @property
    def is_syslog(self) -> bool:
        """Whether records travel as syslog messages."""
        return self in _SYSLOG_KINDS

    @property
    def is_mail(self) -> bool:
        """Whether records are gathered into mails."""
        return self in (TargetKind.SMTP, TargetKind.SMTP_STARTTLS, TargetKind.SMTPS)


_SYSLOG_KINDS: Final = (
    TargetKind.SYSLOG_LOCAL,
    TargetKind.SYSLOG_UDP,
    TargetKind.SYSLOG_TCP,
    TargetKind.SYSLOG_TLS,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """How the target proves who it is, and we to it."""

    ca_file: str | None = None
    """None: the authorities of the system."""
    server_name: str | None = None
    """None: the host of the target."""
    certificate_file: str | None = None
    private_key_file: str | None = None


_ALERT_ONLY: Final = SeverityFilter.at_least(Severity.ALERT)


@dataclass(frozen=True, slots=True, kw_only=True)
class MailSettings:
    """Who gets mail, and when."""

    sender: str
    recipients: tuple[str, ...]
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    summary_interval_s: int = 3_600
    summary_count: int = 200
    immediate: SeverityFilter = _ALERT_ONLY


@dataclass(frozen=True, slots=True, kw_only=True)
class RelaySettings:
    """As whom this server logs in at the other one."""

    name: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputSettings:
    """One output. Two that are equal need no restart at a reload."""

    name: str
    kind: TargetKind
    where: str
    """As written behind the kind."""
    address: tuple[str, int] = ("", 0)
    """Host and port, for syslog and mail."""
    addresses: tuple[str, ...] = ()
    """URLs or HOST:PORT, for NATS, Kafka and relays."""
    argv: tuple[str, ...] = ()
    format: str = "json"
    selection: Selection = Selection()  # noqa: RUF009  # immutable
    buffer_limit: int = 1_000_000
    time_limit_s: int = 30
    message_bytes_max: int = 8_192
    facility: int = 10
    header: str = "rfc5424"
    tls: TlsSettings = TlsSettings()  # immutable
    key: bytes = field(default=b"", repr=False)
    mail: MailSettings | None = None
    relay: RelaySettings | None = None
    topic: str = "needfire.events"

    @property
    def shown_target(self) -> str:
        """Where it goes, for people and logs.

        The path of a webhook may be a secret by itself, and so may an argument of a program: those
        who start a program have few other ways to give it one.
        """
        if self.kind is TargetKind.COMMAND:
            return f"{self.kind.value} {self.argv[0]}{' …' if self.argv[1:] else ''}"
        if self.kind is not TargetKind.WEBHOOK:
            return f"{self.kind.value} {self.where}"
        url = urlsplit(self.where)
        return f"{self.kind.value} {url.scheme}://{url.netloc.rpartition('@')[2]}/…"
