"""The rows of ``[Outputs]``: how the server's events reach other systems.

Outputs are blocks, as the commands of Samhain's ``[External]`` and the recipients of its ``[Mail]``
are: ``OpenOutput`` begins one, and what follows belongs to it until the next. A heading for each
output (``[Output siem]``) was rejected: headings of this language are fixed words, so that a
misspelled one is an error and not a section of somebody's own.
"""

from typing import Final

from needfire_protocol.rc.directive_row import DirectiveRow, Honoured, Inert
from needfire_protocol.rc.values import (
    ABSOLUTE_PATH,
    SEVERITY_LIST,
    TEXT,
    YEAR_S,
    Kind,
    duration,
    integer,
    size,
)

__all__ = ["OUTPUT_ROWS"]

_NOT_ON_AGENT: Final = Inert("outputs belong to the server; an agent reports to it")


def _row(name: str, kind: Kind, default: str | None, example: str, help: str) -> DirectiveRow:
    return DirectiveRow(
        name,
        ("Outputs",),
        kind,
        default,
        example,
        help,
        agent=_NOT_ON_AGENT,
        server=Honoured("outputs", repeats=True),
        is_ours=True,
    )


OUTPUT_ROWS: Final = (
    _row(
        "OpenOutput",
        TEXT,
        None,
        "siem",
        "Begins an output and names it (letters, digits, - and _); what follows belongs to it, "
        "until the next one. Under its name the server remembers what was sent.",
    ),
    _row(
        "OutputTarget",
        TEXT,
        None,
        "syslog-tls log.example.org:6514",
        "Where events go: file /PATH; syslog-local /dev/log; syslog-udp, syslog-tcp or syslog-tls "
        "HOST:PORT; smtp, "
        "smtp-starttls or smtps HOST:PORT; webhook https://HOST/PATH; command /PROGRAM "
        "ARGUMENTS; nats URL or kafka HOST:PORT (several with commas); relay HOST:PORT of another "
        "server (those that are to be tried, with commas).",
    ),
    _row(
        "OutputFormat",
        TEXT,
        None,
        "cef",
        "Form of a record: json, ecs, cef, alert, text, classic, signed-audit, gordium, linux-audit, "
        "linux-audit-hosts, journal or plain. Without it: text for syslog and mail, json for all others.",
    ),
    _row(
        "OutputSeverity",
        SEVERITY_LIST,
        "*",
        ">=warn",
        "Which events it takes, by severity.",
    ),
    _row(
        "OutputClass",
        TEXT,
        "*",
        "integrity alarm",
        "Which events it takes, by class: integrity, traffic, administration, system, alarm, "
        "provisioning; ! before one takes it out.",
    ),
    _row(
        "OutputClassSeverity",
        TEXT,
        None,
        "traffic >=err",
        "A class and the severities that it takes of that class, instead of OutputSeverity. "
        "Repeat it for more.",
    ),
    _row(
        "OutputBufferLimit",
        integer(1_000, 1_000_000_000),
        "1000000",
        "50000",
        "Events that may wait for a target that is away: 80 % of it and all of it are announced. "
        "They wait in the store; what its retention removes meanwhile is counted and announced.",
    ),
    _row(
        "OutputTimeLimit",
        duration(1, 600),
        "30s",
        "10s",
        "Time that the target has for one delivery; a command for one record.",
    ),
    _row(
        "OutputMessageSize",
        size(480, 2**20),
        "8K",
        "2K",
        "Bytes of one syslog message; texts in longer ones are cut, and they say so.",
    ),
    _row(
        "OutputFacility",
        TEXT,
        "authpriv",
        "local4",
        "Facility for syslog: auth, authpriv, daemon, kern, mail, user, or local0 to local7.",
    ),
    _row(
        "OutputHeader",
        TEXT,
        "rfc5424",
        "traditional",
        "Header of syslog messages: rfc5424, or traditional (RFC 3164).",
    ),
    _row(
        "OutputCaFile",
        ABSOLUTE_PATH,
        None,
        "/etc/needfire/ca.pem",
        "Authorities that may have signed the target's certificate; without it those of the "
        "system. The certificate is always checked.",
    ),
    _row(
        "OutputServerName",
        TEXT,
        None,
        "log.example.org",
        "Name that the target's certificate must have; without it the host of the target.",
    ),
    _row(
        "OutputCertificateFile",
        ABSOLUTE_PATH,
        None,
        "/etc/needfire/output.pem",
        "Certificate that the server shows to the target.",
    ),
    _row(
        "OutputPrivateKeyFile",
        ABSOLUTE_PATH,
        None,
        "/etc/needfire/output.key",
        "Private key of that certificate; only its owner may read it (0600).",
    ),
    _row(
        "OutputKeyFile",
        ABSOLUTE_PATH,
        None,
        "/etc/needfire/webhook.key",
        "File with the key that signs the requests of a webhook (24 bytes or more; whsec_BASE64 "
        "or any text); only its owner may read it (0600).",
    ),
    _row(
        "OutputSender",
        TEXT,
        None,
        "needfire@example.org",
        "Address that mail comes from.",
    ),
    _row(
        "OutputRecipient",
        TEXT,
        None,
        "security@example.org",
        "Address that mail goes to. Repeat it for more.",
    ),
    _row(
        "OutputUser",
        TEXT,
        None,
        "needfire",
        "User for the log-in at a mail relay; name of the client as which this server logs in at "
        "another one.",
    ),
    _row(
        "OutputPasswordFile",
        ABSOLUTE_PATH,
        None,
        "/etc/needfire/mail.password",
        "File with the password that belongs to it; only its owner may read it (0600).",
    ),
    _row(
        "OutputSummaryInterval",
        duration(1, YEAR_S),
        "1h",
        "1d",
        "Time that an event waits at most for the next summary by mail.",
    ),
    _row(
        "OutputSummaryCount",
        integer(1, 1_000),
        "200",
        "10",
        "Events that make a summary due before its time; no mail has more.",
    ),
    _row(
        "OutputImmediate",
        SEVERITY_LIST,
        "alert",
        "crit",
        "Severities that are sent at once, together with what waits.",
    ),
    _row(
        "OutputTopic",
        TEXT,
        "needfire.events",
        "security.fim",
        "Subject (NATS) or topic (Kafka) of the records.",
    ),
)
