"""The blocks of ``[Outputs]`` become settings: each line is checked, and so is what fits together."""

import importlib.util
import ipaddress
import os
import re
import shlex
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.errors import MessageError
from email.headerregistry import Address
from functools import partial
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlsplit

from needfire_protocol.errors import FormatError
from needfire_protocol.escape import printable
from needfire_protocol.names import parse_client_name
from needfire_protocol.rc.findings import Findings
from needfire_protocol.rc.syntax import Directive
from needfire_server.outputs.formats import FORMATS
from needfire_server.outputs.formats.syslog import FACILITIES
from needfire_server.outputs.secrets import (
    check_program,
    check_readable,
    check_secret_file,
    parse_webhook_key,
    read_secret,
)
from needfire_server.outputs.selection import Selection, parse_class_severity, parse_classes
from needfire_server.outputs.settings import (
    MailSettings,
    OutputSettings,
    RelaySettings,
    TargetKind,
    TlsSettings,
)
from needfire_server.outputs.tls import client_context
from needfire_server.server_user import Account

__all__ = ["OUTPUTS_MAX", "OutputBlocks", "mail_address", "parse_target"]

OUTPUTS_MAX: Final = 32
"""Outputs of one server: each reads the store for itself."""
RECIPIENTS_MAX: Final = 32

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}", re.ASCII)
_HOST: Final = re.compile(r"[A-Za-z0-9._:%-]{1,255}", re.ASCII)
_TOPIC: Final = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*", re.ASCII)

_SYSLOG: Final = frozenset(kind for kind in TargetKind if kind.is_syslog)
_MAIL: Final = frozenset(kind for kind in TargetKind if kind.is_mail)
_QUEUES: Final = frozenset({TargetKind.NATS, TargetKind.KAFKA})
_RELAY: Final = frozenset({TargetKind.RELAY})
_TLS: Final = frozenset(
    {TargetKind.SYSLOG_TLS, TargetKind.SMTP_STARTTLS, TargetKind.SMTPS, TargetKind.WEBHOOK}
    | _QUEUES
)
_ONLY_FOR: Final[Mapping[str, frozenset[TargetKind]]] = MappingProxyType(
    {
        "outputformat": frozenset(TargetKind) - _RELAY,
        "outputmessagesize": _SYSLOG,
        "outputfacility": _SYSLOG,
        "outputheader": _SYSLOG - {TargetKind.SYSLOG_LOCAL},
        "outputcafile": _TLS,
        "outputservername": frozenset({TargetKind.SYSLOG_TLS}),
        "outputcertificatefile": _TLS,
        "outputprivatekeyfile": _TLS,
        "outputkeyfile": frozenset({TargetKind.WEBHOOK}),
        "outputsender": _MAIL,
        "outputrecipient": _MAIL,
        "outputuser": _MAIL | _RELAY,
        "outputpasswordfile": _MAIL | _RELAY,
        "outputsummaryinterval": _MAIL,
        "outputsummarycount": _MAIL,
        "outputimmediate": _MAIL,
        "outputtopic": _QUEUES,
    }
)
_REPEATED: Final = frozenset({"outputrecipient", "outputclassseverity"})
_LIBRARIES: Final = MappingProxyType({TargetKind.NATS: "nats", TargetKind.KAFKA: "aiokafka"})


@dataclass(slots=True)
class _Block:
    name: str
    line: int
    lines: dict[str, list[tuple[Directive, Any]]] = field(default_factory=dict)

    def get(self, key: str, default: Any = None) -> Any:
        return self.lines[key][-1][1] if key in self.lines else default

    def all(self, key: str) -> list[Any]:
        return [value for _, value in self.lines.get(key, ())]

    def line_of(self, key: str) -> int:
        return self.lines[key][-1][0].line if key in self.lines else self.line


class OutputBlocks:
    """The merger of the field ``outputs``: gathers lines, then makes settings of them.

    ``account`` is who the server runs as: it decides which files may be used.
    """

    def __init__(self, findings: Findings, account: Account) -> None:
        self._findings = findings
        self._account = account
        self._blocks: dict[str, _Block] = {}
        self._open: _Block | None = None
        self._is_skipping = False

    def add(self, directive: Directive, value: Any, _current: None) -> None:
        """Take one line.

        Raises:
            FormatError: it stands in no block, twice in one, or its value is none.
        """
        if directive.key == "openoutput":
            self._begin(directive, value)
            return
        if self._is_skipping:
            return
        if self._open is None:
            raise FormatError("it stands before the first OpenOutput; begin with OpenOutput = NAME")
        parse = self._parser(directive.key)
        earlier = self._open.lines.setdefault(directive.key, [])
        if earlier and directive.key not in _REPEATED:
            raise FormatError(f"it stands in line {earlier[-1][0].line} of this output as well")
        # The value counts even where it is wrong, so that nothing else is reported as missing.
        earlier.append((directive, None))
        earlier[-1] = (directive, value if parse is None else parse(value))

    def finish(self) -> tuple[OutputSettings, ...]:
        """Return the outputs, in the order of the file; those with errors are left out."""
        outputs = []
        for block in self._blocks.values():
            if "outputtarget" in block.lines and block.get("outputtarget") is None:
                continue  # Told already, at its line.
            try:
                outputs.append(_Maker(block, self._account).make())
            except _LineError as error:
                self._findings.error(error.line, f"output {block.name}: {error}", error.hint)
        return tuple(outputs)

    def _parser(self, key: str) -> Callable[[Any], Any] | None:
        if key == "outputtarget":
            return partial(parse_target, account=self._account)
        return _PARSERS.get(key)

    def _begin(self, directive: Directive, text: str) -> None:
        self._open = None
        self._is_skipping = True
        name = text.lower()
        if _NAME.fullmatch(name) is None:
            raise FormatError(
                f"{printable(text, 64)!r} cannot name an output: expected letters, digits, '-', '_', "
                "at most 32, a letter or digit first"
            )
        if name in self._blocks:
            raise FormatError(f"the output {name} begins in line {self._blocks[name].line} already")
        if len(self._blocks) >= OUTPUTS_MAX:
            raise FormatError(f"more than {OUTPUTS_MAX} outputs")
        self._is_skipping = False
        self._open = self._blocks[name] = _Block(name, directive.line)


class _LineError(Exception):
    """What is wrong with a block, and in which line."""

    def __init__(self, line: int, text: str, hint: str | None = None) -> None:
        self.line = line
        self.hint = hint
        super().__init__(text)


class _Maker:
    """Makes the settings of one block."""

    def __init__(self, block: _Block, account: Account) -> None:
        self._block = block
        self._account = account

    def make(self) -> OutputSettings:
        block = self._block
        if "outputtarget" not in block.lines:
            raise _LineError(
                block.line,
                "it has no OutputTarget",
                "add for example: OutputTarget = syslog-tls log.example.org:6514",
            )
        target = block.get("outputtarget")
        kind: TargetKind = target["kind"]
        self._check_fitting(kind)
        return OutputSettings(
            name=block.name,
            **target,
            format=block.get("outputformat", "text" if kind in _SYSLOG | _MAIL else "json"),
            selection=Selection(
                block.get("outputseverity", Selection().severities),
                block.get("outputclass", Selection().classes),
                dict(each for each in block.all("outputclassseverity") if each is not None),
            ),
            buffer_limit=block.get("outputbufferlimit", 1_000_000),
            time_limit_s=block.get("outputtimelimit", 30),
            message_bytes_max=block.get("outputmessagesize", 8_192),
            facility=block.get("outputfacility", FACILITIES["authpriv"]),
            header=block.get("outputheader", "rfc5424"),
            tls=self._tls(),
            key=self._key(kind),
            mail=self._mail(kind) if kind.is_mail else None,
            relay=self._relay() if kind is TargetKind.RELAY else None,
            topic=block.get("outputtopic", "needfire.events"),
        )

    def _check_fitting(self, kind: TargetKind) -> None:
        for key, lines in self._block.lines.items():
            kinds = _ONLY_FOR.get(key)
            if kinds is not None and kind not in kinds:
                written = lines[0][0].written.decode("utf-8", "replace")
                wanted = ", ".join(sorted(each.value for each in kinds))
                raise _LineError(
                    lines[0][0].line,
                    f"{written} means nothing for the target {kind.value}; it is for {wanted}",
                )
        library = _LIBRARIES.get(kind)
        if library is not None and importlib.util.find_spec(library) is None:
            raise _LineError(
                self._block.line_of("outputtarget"),
                f"the target {kind.value} needs the library {library}, which is not installed",
                f"pip install 'needfire[{kind.value}]'",
            )

    def _path(self, key: str) -> str | None:
        path: bytes | None = self._block.get(key)
        return None if path is None else os.fsdecode(path)

    def _checked(self, key: str, work: Callable[[str, Account], Any]) -> Any:
        path = self._path(key)
        if path is None:
            return None
        try:
            return work(path, self._account)
        except FormatError as error:
            raise _LineError(self._block.line_of(key), str(error)) from None

    def _tls(self) -> TlsSettings:
        self._checked("outputcafile", check_readable)
        self._checked("outputcertificatefile", check_readable)
        self._checked("outputprivatekeyfile", check_secret_file)
        settings = TlsSettings(
            ca_file=self._path("outputcafile"),
            server_name=self._block.get("outputservername"),
            certificate_file=self._path("outputcertificatefile"),
            private_key_file=self._path("outputprivatekeyfile"),
        )
        if settings == TlsSettings():
            return settings
        key = next(k for k in _TLS_FILES if k in self._block.lines or k == _TLS_FILES[-1])
        if settings.private_key_file is not None and settings.certificate_file is None:
            raise _LineError(
                self._block.line_of("outputprivatekeyfile"),
                "OutputPrivateKeyFile needs OutputCertificateFile beside it",
            )
        try:
            client_context(settings)
        except (OSError, ssl.SSLError) as error:
            raise _LineError(
                self._block.line_of(key),
                f"the certificates cannot be used: {printable(error.strerror or str(error), 200)}",
            ) from None
        return settings

    def _key(self, kind: TargetKind) -> bytes:
        if kind is not TargetKind.WEBHOOK:
            return b""
        if "outputkeyfile" not in self._block.lines:
            raise _LineError(
                self._block.line,
                "a webhook needs OutputKeyFile",
                "make one: (umask 077; openssl rand -base64 32 > /etc/needfire/webhook.key)",
            )
        key: bytes = self._checked(
            "outputkeyfile", lambda *each: parse_webhook_key(read_secret(*each))
        )
        return key

    def _password(self) -> str | None:
        password: bytes | None = self._checked("outputpasswordfile", read_secret)
        try:
            return None if password is None else password.decode("utf-8")
        except UnicodeDecodeError:
            line = self._block.line_of("outputpasswordfile")
            raise _LineError(line, "it is no UTF-8") from None

    def _relay(self) -> RelaySettings:
        block = self._block
        name, password = block.get("outputuser"), self._password()
        if name is None or password is None:
            raise _LineError(
                block.line,
                "a relay needs OutputUser and OutputPasswordFile",
                "the other server gives both: needfire-admin register NAME",
            )
        try:
            return RelaySettings(name=parse_client_name(name), password=password)
        except FormatError as error:
            raise _LineError(block.line_of("outputuser"), str(error)) from None

    def _mail(self, kind: TargetKind) -> MailSettings:
        block = self._block
        recipients = tuple(each for each in block.all("outputrecipient") if each is not None)
        sender = block.get("outputsender")
        if sender is None or not recipients:
            raise _LineError(block.line, "mail needs OutputSender and OutputRecipient")
        if len(recipients) > RECIPIENTS_MAX:
            raise _LineError(block.line, f"more than {RECIPIENTS_MAX} recipients")
        user, text = block.get("outputuser"), self._password()
        if (user is None) != (text is None):
            raise _LineError(block.line, "OutputUser and OutputPasswordFile belong together")
        if text is not None and kind is TargetKind.SMTP:
            raise _LineError(
                block.line_of("outputpasswordfile"),
                "a password would travel unencrypted",
                "use smtp-starttls or smtps in OutputTarget",
            )
        defaults = MailSettings(sender=sender, recipients=recipients)
        return MailSettings(
            sender=sender,
            recipients=recipients,
            user=user,
            password=text,
            summary_interval_s=block.get("outputsummaryinterval", defaults.summary_interval_s),
            summary_count=block.get("outputsummarycount", defaults.summary_count),
            immediate=block.get("outputimmediate", defaults.immediate),
        )


_TLS_FILES: Final = (
    "outputcafile",
    "outputcertificatefile",
    "outputprivatekeyfile",
    "outputservername",
)


# ---- the value of OutputTarget -----------------------------------------------------------------


def parse_target(text: str, account: Account) -> dict[str, Any]:
    """Return the fields of the settings that ``KIND WHERE`` decides.

    Raises:
        FormatError: the kind is unknown, or the rest is none for it.
    """
    word, _, rest = text.partition(" ")
    where = rest.strip()
    try:
        kind = TargetKind(word.lower())
    except ValueError:
        known = ", ".join(each.value for each in TargetKind)
        raise FormatError(f"{word[:64]!r} is no kind of target; expected {known}") from None
    if not where:
        raise FormatError(f"{kind.value} needs to know where, for example {_EXAMPLES[kind]}")
    found: dict[str, Any] = {"kind": kind, "where": where}
    if kind in (_SYSLOG | _MAIL) - {TargetKind.SYSLOG_LOCAL}:
        return found | {"address": _address(where)}
    if kind is TargetKind.SYSLOG_LOCAL and not where.startswith("/"):
        raise FormatError(
            f"{printable(where, 80)!r} is no absolute path of a socket, like /dev/log"
        )
    if kind is TargetKind.COMMAND:
        return found | {"argv": _argv(where, account)}
    if kind in _QUEUES | _RELAY:
        return found | {"addresses": _addresses(kind, where)}
    if kind is TargetKind.WEBHOOK:
        _check_url(where)
    elif not where.startswith("/"):
        raise FormatError(f"{printable(where, 80)!r} is no absolute path")
    return found


_EXAMPLES: Final[Mapping[TargetKind, str]] = MappingProxyType(
    {
        TargetKind.FILE: "file /var/log/needfire.json",
        TargetKind.SYSLOG_LOCAL: "syslog-local /dev/log",
        TargetKind.SYSLOG_UDP: "syslog-udp log.example.org:514",
        TargetKind.SYSLOG_TCP: "syslog-tcp log.example.org:601",
        TargetKind.SYSLOG_TLS: "syslog-tls log.example.org:6514",
        TargetKind.SMTP: "smtp localhost:25",
        TargetKind.SMTP_STARTTLS: "smtp-starttls mail.example.org:587",
        TargetKind.SMTPS: "smtps mail.example.org:465",
        TargetKind.WEBHOOK: "webhook https://hooks.example.org/needfire",
        TargetKind.COMMAND: "command /usr/local/bin/page",
        TargetKind.NATS: "nats nats://mq.example.org:4222",
        TargetKind.KAFKA: "kafka mq.example.org:9092",
        TargetKind.RELAY: "relay upper.example.org:49777",
    }
)


def _address(text: str) -> tuple[str, int]:
    host, separator, port = text.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if (
        not separator
        or _HOST.fullmatch(bare) is None
        or (":" in bare) != host.startswith("[")
        or re.fullmatch(r"[0-9]{1,5}", port, re.ASCII) is None
        or not 1 <= int(port) <= 65_535
    ):
        raise FormatError(f"{_shown(text)!r} is not HOST:PORT or [IPv6]:PORT")
    return bare, int(port)


def _argv(text: str, account: Account) -> tuple[str, ...]:
    try:
        argv = tuple(shlex.split(text))
    except ValueError as error:
        raise FormatError(f"the command is not complete: {error}") from None
    if not argv[0].startswith("/"):
        raise FormatError(f"{printable(argv[0], 80)!r} is no absolute path of a program")
    check_program(argv[0], account)
    return argv


def _addresses(kind: TargetKind, text: str) -> tuple[str, ...]:
    found = tuple(each.strip() for each in text.split(",") if each.strip())
    if not found:
        raise FormatError(f"{_shown(text)!r} names no address")
    for each in found:
        scheme, separator, rest = each.rpartition("://")
        if kind is TargetKind.NATS and scheme not in ("nats", "tls"):
            raise FormatError(f"{_shown(each)!r} is not nats://HOST:PORT or tls://HOST:PORT")
        if kind is TargetKind.KAFKA and scheme not in ("", "tls"):
            raise FormatError(f"{_shown(each)!r} is not HOST:PORT or tls://HOST:PORT")
        if kind is TargetKind.RELAY and separator:
            raise FormatError(f"{_shown(each)!r} is not HOST:PORT")
        _address(rest if separator else each)
    if len({each.rpartition("://")[0] for each in found}) > 1:
        raise FormatError("either all of the addresses are encrypted (tls://) or none")
    return found


def _shown(text: str) -> str:
    """Return of an address what a finding may show: no user with his password, no path."""
    before, separator, rest = text.partition("://")
    scheme, rest = (before + separator, rest) if separator else ("", before)
    if "@" in rest:
        return printable(f"{scheme}***", 80)
    host, slash, _ = rest.partition("/")
    return printable(f"{scheme}{host}{'/…' if slash else ''}", 80)


def _check_url(text: str) -> None:
    try:
        url = urlsplit(text)
        host, port = url.hostname, url.port
    except ValueError:
        # What the library says may quote a password.
        raise FormatError(f"{_shown(text)!r} is no URL like https://HOST/PATH") from None
    if url.scheme not in ("https", "http") or not host or port == 0 or not text.isascii():
        raise FormatError(f"{_shown(text)!r} is no URL like https://HOST/PATH")
    if " " in text or url.fragment or url.username is not None:
        raise FormatError("the URL holds a blank, a fragment or a user; none of them is sent")
    if url.scheme == "http" and not _is_loopback(host):
        raise FormatError("http is for this host only (127.0.0.1, ::1); use https")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


# ---- other values -------------------------------------------------------------------------------


def mail_address(text: str) -> str:
    """Return an address for mail.

    Raises:
        FormatError: it is none.
    """
    try:
        address = Address(addr_spec=text)
    except (ValueError, IndexError, MessageError):
        address = None
    if address is None or not address.domain or not text.isascii() or len(text) > 254:
        raise FormatError(f"{printable(text, 80)!r} is no mail address like name@example.org")
    return text


def _word_of(what: str, words: Mapping[str, Any]) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        if text.lower() not in words:
            raise FormatError(f"{printable(text, 64)!r} is no {what}; expected {', '.join(words)}")
        return words[text.lower()]

    return parse


def _topic(text: str) -> str:
    if len(text) > 249 or _TOPIC.fullmatch(text) is None:
        raise FormatError(f"{printable(text, 80)!r} is no topic: letters, digits, '-', '_', '.'")
    return text


def _server_name(text: str) -> str:
    if _HOST.fullmatch(text) is None:
        raise FormatError(f"{printable(text, 80)!r} is no name of a host")
    return text


_PARSERS: Final[Mapping[str, Callable[[str], Any]]] = MappingProxyType(
    {
        "outputformat": _word_of("format", {name: name for name in FORMATS}),
        "outputclass": parse_classes,
        "outputclassseverity": parse_class_severity,
        "outputfacility": _word_of("facility", FACILITIES),
        "outputheader": _word_of("header", {name: name for name in ("rfc5424", "traditional")}),
        "outputservername": _server_name,
        "outputsender": mail_address,
        "outputrecipient": mail_address,
        "outputtopic": _topic,
    }
)
