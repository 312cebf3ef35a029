"""The kinds of targets, and how one is made for the settings of an output."""

import socket
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from needfire_server.outputs.relay_origin import RelayOrigin
from needfire_server.outputs.settings import OutputSettings, TargetKind
from needfire_server.outputs.target import Target
from needfire_server.outputs.targets.command import CommandTarget
from needfire_server.outputs.targets.file import FileTarget
from needfire_server.outputs.targets.mail import MailTarget
from needfire_server.outputs.targets.relay import RelayTarget
from needfire_server.outputs.targets.syslog_local import SyslogLocalTarget
from needfire_server.outputs.targets.syslog_stream import SyslogStreamTarget
from needfire_server.outputs.targets.syslog_udp import SyslogUdpTarget
from needfire_server.outputs.targets.webhook import WebhookTarget

__all__ = ["make_target"]


def make_target(
    settings: OutputSettings, on_lost: Callable[[], None], *, origin: RelayOrigin | None = None
) -> Target:
    """Return a target of the kind that the settings name; it is not open yet.

    Args:
        origin: what a relay tells of this server.
    """
    if settings.kind is TargetKind.RELAY:
        assert origin is not None
        return RelayTarget(settings, on_lost, origin)
    return _MAKERS[settings.kind](settings, on_lost)


def _nats(settings: OutputSettings, _on_lost: Callable[[], None]) -> Target:
    # An optional library stands behind it.
    from needfire_server.outputs.targets.nats import NatsTarget

    return NatsTarget(settings)


def _kafka(settings: OutputSettings, _on_lost: Callable[[], None]) -> Target:
    from needfire_server.outputs.targets.kafka import KafkaTarget

    return KafkaTarget(settings)


def _stream(settings: OutputSettings, on_lost: Callable[[], None]) -> Target:
    return SyslogStreamTarget(settings, on_lost, hostname=socket.gethostname())


def _datagrams(settings: OutputSettings, on_lost: Callable[[], None]) -> Target:
    return SyslogUdpTarget(settings, on_lost, hostname=socket.gethostname())


def _mail(settings: OutputSettings, _on_lost: Callable[[], None]) -> Target:
    return MailTarget(settings, hostname=socket.gethostname())


_MAKERS: Final[Mapping[TargetKind, Callable[[OutputSettings, Callable[[], None]], Target]]] = (
    MappingProxyType(
        {
            TargetKind.FILE: lambda settings, _: FileTarget(settings),
            TargetKind.SYSLOG_LOCAL: lambda settings, _: SyslogLocalTarget(settings),
            TargetKind.SYSLOG_UDP: _datagrams,
            TargetKind.SYSLOG_TCP: _stream,
            TargetKind.SYSLOG_TLS: _stream,
            TargetKind.SMTP: _mail,
            TargetKind.SMTP_STARTTLS: _mail,
            TargetKind.SMTPS: _mail,
            TargetKind.WEBHOOK: lambda settings, _: WebhookTarget(settings),
            TargetKind.COMMAND: lambda settings, _: CommandTarget(settings),
            TargetKind.NATS: _nats,
            TargetKind.KAFKA: _kafka,
        }
    )
)
