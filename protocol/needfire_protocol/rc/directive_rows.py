"""The rows of the table of directives: Samhain's (its manual, appendix C) and our own.

Wording of a reason: why nothing happens, and where it matters what to do instead.
"""

from typing import Final

from needfire_protocol.rc.directive_row import DirectiveRow, Honoured, Inert, Treatment
from needfire_protocol.rc.output_rows import OUTPUT_ROWS
from needfire_protocol.rc.policies import DEFAULT_MASKS, Check, Policy
from needfire_protocol.rc.skip_checksum import SKIP_CHECKSUM
from needfire_protocol.rc.values import (
    ABSOLUTE_PATH,
    ADDRESS,
    BOOLEAN,
    CRONTAB,
    DIGEST,
    DISK_FULL_ACTION,
    GROUP_CRONTAB,
    LISTEN_ADDRESS,
    LOG_FORMAT,
    LOOPBACK_OR_ADDRESS,
    MASK_CHANGE,
    MATCHED_PATH,
    MEMBER,
    PATH_REGEX,
    PORT,
    REALTIME_METHOD,
    SERVER,
    SEVERITY,
    SEVERITY_LIST,
    TEXT,
    UID,
    USER,
    WORKERS,
    YEAR_S,
    Kind,
    duration,
    group_duration,
    integer,
    size,
)

__all__ = ["ROWS"]

_MISC: Final = ("Misc",)
_MISC_OR_CLIENT: Final = ("Misc", "Client")
_MISC_OR_SERVER: Final = ("Misc", "Server")
_MISC_OR_EITHER: Final = ("Misc", "Client", "Server")
_MISC_OR_MAIL: Final = ("Misc", "Mail")
_LOG: Final = ("Log",)
_POLICIES: Final = tuple(
    # The only policy whose heading is not the label of its messages.
    "GrowingLogFiles" if policy is Policy.GROWING_LOG_FILES else policy.value
    for policy in Policy
)

_NOT_ON_AGENT: Final = Inert("it is a directive of the server; an agent has no use for it")
_NOT_ON_SERVER: Final = Inert("it is a directive of the agent; the server checks no files")

_MIB: Final = 2**20
_INTERVAL: Final = duration(1, 100 * YEAR_S)


def _row(
    name: str,
    sections: tuple[str, ...],
    kind: Kind,
    default: str | None,
    example: str,
    help: str,
    *,
    agent: Treatment = _NOT_ON_AGENT,
    server: Treatment = _NOT_ON_SERVER,
    is_ours: bool = False,
) -> DirectiveRow:
    return DirectiveRow(name, sections, kind, default, example, help, agent, server, is_ours)


def _inert(sections: tuple[str, ...], reason: str, *texts: str) -> tuple[DirectiveRow, ...]:
    """Rows of directives that do nothing in either program, each text ``Name: what it would do``."""
    treatment = Inert(reason)
    rows = []
    for text in texts:
        name, _, meaning = text.partition(": ")
        rows.append(
            _row(name, sections, TEXT, None, "", meaning, agent=treatment, server=treatment)
        )
    return tuple(rows)


def _samhain_output(
    sections: tuple[str, ...], agent: Inert, *texts: str
) -> tuple[DirectiveRow, ...]:
    """Rows that make an output of the server, each text ``Name: default: example: what it does``."""
    rows = []
    for text in texts:
        name, default, example, meaning = text.split(": ", 3)
        rows.append(
            _row(
                name,
                sections,
                TEXT,
                default or None,
                example,
                meaning,
                agent=agent,
                server=Honoured("outputs", repeats=True),
            )
        )
    return tuple(rows)


_MAIL_OUTPUT: Final = Inert("the server sends mail, not its agents")
_SYSLOG_OUTPUT: Final = Inert(
    "the server sends to syslog, not its agents; a journal gets what is printed"
)
_COMMAND_OUTPUT: Final = Inert("the server runs commands, not its agents")


def _module(section: str, *texts: str) -> tuple[DirectiveRow, ...]:
    return _inert((section,), f"[{section}]: this module does not exist here yet", *texts)


# ---- file policies --------------------------------------------------------------

_FILES: Final = (
    _row(
        "dir",
        _POLICIES,
        MATCHED_PATH,
        None,
        "99/etc",
        "Checks a directory and what is in it, with the policy of the section. A number directly "
        "before the path is how many levels below it are entered (0-99); -1, only under "
        "[IgnoreAll], leaves out everything inside. Directories deeper than 99 levels are reported as "
        "not examined; a directory that is left out by a smaller number is not.",
        agent=Honoured("rules", repeats=True),
    ),
    _row(
        "file",
        _POLICIES,
        MATCHED_PATH,
        None,
        "/etc/passwd",
        "Checks one object with the policy of the section; a symbolic link itself, not what it "
        "points to. For a directory: its own attributes, while dir= decides about its contents.",
        agent=Honoured("rules", repeats=True),
    ),
)

_REDEFINITIONS: Final = tuple(
    _row(
        f"Redef{section}",
        _MISC,
        MASK_CHANGE,
        None,
        "-ATM" if Check.ATM in DEFAULT_MASKS[policy] else "+ATM",
        f"Changes what [{section}] compares: +FLAG adds, -FLAG removes, flags without a sign are "
        "the whole new list.",
        agent=Honoured("masks", policy),
    )
    for policy, section in zip(Policy, _POLICIES, strict=True)
)

_SEVERITIES: Final = (
    *(
        _row(
            f"Severity{policy.value}",
            ("EventSeverity",),
            SEVERITY,
            "crit",
            "warn",
            f"Severity of a change under [{section}].",
            agent=Honoured("policy_severities", policy),
        )
        for policy, section in zip(Policy, _POLICIES, strict=True)
    ),
    _row(
        "SeverityFiles",
        ("EventSeverity",),
        SEVERITY,
        "crit",
        "err",
        "Severity of a missing file and of a file that cannot be read.",
        agent=Honoured("severity_files"),
    ),
    _row(
        "SeverityDirs",
        ("EventSeverity",),
        SEVERITY,
        "crit",
        "err",
        "Severity of a directory that cannot be read.",
        agent=Honoured("severity_dirs"),
    ),
    _row(
        "SeverityNames",
        ("EventSeverity",),
        SEVERITY,
        "crit",
        "warn",
        "Severity of a file name with bytes that cannot be seen.",
        agent=Honoured("severity_names"),
    ),
)

# ---- how the agent checks -------------------------------------------------------

_CHECKING: Final = (
    _row(
        "SetFilecheckTime",
        _MISC,
        _INTERVAL,
        "600",
        "2h",
        "Time between two full checks.",
        agent=Honoured("file_check_interval_s"),
    ),
    _row(
        "SetLoopTime",
        _MISC,
        _INTERVAL,
        "60",
        "10m",
        "Time between two signs of life of the agent.",
        agent=Honoured("loop_interval_s"),
        server=Inert("the server writes no time stamps of its own"),
    ),
    _row(
        "SetRecursionLevel",
        _MISC,
        integer(0, 99),
        "0",
        "3",
        "Levels that dir= without a number enters.",
        agent=Honoured("recursion_level"),
    ),
    _row(
        "InotifyActive",
        ("Inotify",),
        BOOLEAN,
        "yes",
        "no",
        "Reports changes at once, as the kernel tells of them; full checks go on as well. "
        "Samhain's default is no.",
        agent=Honoured("realtime"),
    ),
    _row(
        "RealTimeMethod",
        ("Inotify",),
        REALTIME_METHOD,
        "auto",
        "inotify",
        "How changes are seen at once. fanotify names the process too and needs root; inotify "
        "takes a watch for each directory; polling looks at the directories in turn. auto is "
        "the first of them that works, network file systems are polled besides.",
        agent=Honoured("realtime_method"),
    ),
    _row(
        "CanaryInterval",
        ("Inotify",),
        duration(5, 86_400),
        "5m",
        "1h",
        "Time between two tests of real-time watching: a file in the state directory is "
        "written, and each directory that a rule begins at is opened; all must come back through "
        "the watcher, or an alarm is raised.",
        agent=Honoured("canary_interval_s"),
    ),
    _row(
        "DigestAlgo",
        _MISC,
        DIGEST,
        "SHA256",
        "BLAKE2b",
        "Digest of the contents of files, the same under all policies; a baseline keeps the one "
        "that it was made with. Samhain's TIGER192 is not available: SHA256 is used. "
        "BLAKE3 needs the extra needfire[blake3] on the host.",
        agent=Honoured("digest_algorithm"),
    ),
    _row(
        "UseACLCheck",
        _MISC,
        BOOLEAN,
        "yes",
        "no",
        "Access control lists, default ones too, are part of MOD. Samhain's default is no, because "
        "it may lack the library; here nothing is missing, and a mode alone does not say who may "
        "write.",
        agent=Honoured("acl_check"),
    ),
    _row(
        "UseSelinuxCheck",
        _MISC,
        BOOLEAN,
        "yes",
        "no",
        "The SELinux label is part of MOD. Samhain's default is no, because it may lack the "
        "library; where SELinux is off there are no labels, and this costs nothing.",
        agent=Honoured("selinux_check"),
    ),
    _row(
        "UseXattrCheck",
        _MISC,
        BOOLEAN,
        "yes",
        "no",
        "Capabilities of files and all other extended attributes are part of MOD, except for those "
        "that file systems keep for themselves (trusted.overlay.*, trusted.glusterfs.*, "
        "trusted.afr.*, ceph.*, lustre.*).",
        agent=Honoured("xattr_check"),
        is_ours=True,
    ),
    _row(
        "ReportOnlyOnce",
        _MISC,
        BOOLEAN,
        "yes",
        "no",
        "Reports a change once, not again at each full check.",
        agent=Honoured("report_only_once"),
    ),
    _row(
        "ReportFullDetail",
        _MISC,
        BOOLEAN,
        "no",
        "yes",
        "Reports every attribute of a changed file, not only those that changed.",
        agent=Honoured("report_full_detail"),
    ),
    _row(
        "LooseDirCheck",
        _MISC,
        BOOLEAN,
        "no",
        "yes",
        "Does not report directories whose size and times alone have changed.",
        agent=Honoured("loose_dir_check"),
    ),
    *(
        _row(
            name,
            _MISC,
            PATH_REGEX,
            None,
            r"/var/log/.*\.[0-9]+\.gz",
            f"Does not report {what} that match; the expression must match the whole path. "
            "Repeat it for more.",
            agent=Honoured(field, repeats=True),
        )
        for name, field, what in (
            ("IgnoreAdded", "ignore_added", "new files"),
            ("IgnoreMissing", "ignore_missing", "missing files"),
            ("IgnoreModified", "ignore_modified", "changes of files"),
        )
    ),
    _row(
        "SkipChecksum",
        _MISC,
        SKIP_CHECKSUM,
        None,
        r"match_regex(\.(iso|mpg)$), size_exceeds(100000000)",
        "Does not digest the contents of files for which all conditions of the line hold; their "
        "other attributes are compared. Repeat it for more.",
        agent=Honoured("skip_checksum", repeats=True),
        server=_NOT_ON_SERVER,
    ),
    _row(
        "SetNiceLevel",
        _MISC,
        integer(-19, 19),
        "0",
        "10",
        "Priority of the agent's process, see nice(1).",
        agent=Honoured("nice_level"),
        server=Inert("the server's priority is set by its service manager"),
    ),
    _row(
        "SetIOLimit",
        _MISC,
        integer(0, 10**9),
        "204800",
        "20000",
        "Kilobytes (of 1024) that full checks read in a second, all processes together; 0: no "
        "limit.",
        agent=Honoured("io_limit_kib"),
    ),
    _row(
        "SetDropCache",
        _MISC,
        BOOLEAN,
        "yes",
        "no",
        "Takes files of 16 KiB and more out of the page cache again that were not in it before "
        "they were read. Samhain's default is no.",
        agent=Honoured("drop_cache"),
    ),
    _row(
        "ScanWorkers",
        _MISC,
        WORKERS,
        "auto",
        "2",
        "Processes that examine files at the same time; auto: one for each core, at most 8.",
        agent=Honoured("scan_workers"),
        is_ours=True,
    ),
    _row(
        "ScanCpuLimit",
        _MISC,
        integer(1, 6_400),
        "100",
        "50",
        "Processor time that examining files may take, in percent of one core, all processes "
        "together; each has an equal share of it.",
        agent=Honoured("scan_cpu_limit"),
        is_ours=True,
    ),
    _row(
        "ScanMemoryLimit",
        _MISC,
        size(128 * _MIB, 2**40),
        "1G",
        "256M",
        "Memory that examining files may take. Half of it is for the processes of ScanWorkers, "
        "each with an equal share; half is for the agent, as a bound on the entries of one "
        "directory, about 1000 for each MiB of the limit. What does not fit is reported.",
        agent=Honoured("scan_memory_bytes"),
        is_ours=True,
    ),
    _row(
        "FileCheckScheduleOne",
        _MISC,
        CRONTAB,
        None,
        "30 2-6/2 * * Mon-Fri",
        "Times of full checks, as in crontab(5) but without lists; all five fields must match. "
        "Repeat it for more. SetFilecheckTime has no effect then.",
        agent=Honoured("check_schedules", repeats=True),
    ),
    _row(
        "FileCheckScheduleTwo",
        _MISC,
        CRONTAB,
        None,
        "0 3 * * Sun",
        "Times of checks of all rules, those between %SCHEDULE_TWO and !%SCHEDULE_TWO included; "
        "dir= rules there are checked at no other times. Repeat it for more. Rules in a %GROUP "
        "have times of their own.",
        agent=Honoured("check_schedules_two", repeats=True),
    ),
    _row(
        "GroupInterval",
        _MISC,
        group_duration(1, 100 * YEAR_S),
        None,
        "web 5m",
        "Time between two checks of the rules between %GROUP NAME and !%GROUP. A group without "
        "it, and without GroupSchedule, is checked together with the rules of no group. Once for "
        "each group.",
        agent=Honoured("group_intervals", repeats=True),
        is_ours=True,
    ),
    _row(
        "GroupSchedule",
        _MISC,
        GROUP_CRONTAB,
        None,
        "web 0 */4 * * Mon-Fri",
        "Times of checks of the rules of a group, as for FileCheckScheduleOne. GroupInterval has "
        "no effect for it then. Repeat it for more.",
        agent=Honoured("group_schedules", repeats=True),
        is_ours=True,
    ),
    _row(
        "FullCheckInterval",
        _MISC,
        duration(0, 100 * YEAR_S),
        "0",
        "1d",
        "Lets checks be quick, but for one in this time: they look at all attributes, and read "
        "only files of which one has changed. 0: every check reads all files. It holds for the "
        "rules of no group and between %SCHEDULE_TWO.",
        agent=Honoured("full_check_interval_s"),
        is_ours=True,
    ),
    _row(
        "GroupFullInterval",
        _MISC,
        group_duration(0, 100 * YEAR_S),
        None,
        "web 1d",
        "The same for the rules of a group. Once for each group.",
        agent=Honoured("group_full_intervals", repeats=True),
        is_ours=True,
    ),
    _row(
        "SpoolSizeLimit",
        _MISC_OR_CLIENT,
        size(_MIB, 2**40),
        "256M",
        "1G",
        "Size of the spool, where reports wait until the server has them. When it is full, "
        "checking waits; nothing is thrown away.",
        agent=Honoured("spool_size_limit_bytes"),
        is_ours=True,
    ),
)

# ---- agent and server find each other --------------------------------------------

_NETWORK: Final = (
    _row(
        "SetLogServer",
        _MISC_OR_EITHER,
        SERVER,
        None,
        "loghost.example.org",
        "The server to report to: HOST, HOST:PORT or [IPv6]:PORT. A second line is the backup.",
        agent=Honoured("log_servers", repeats=True),
        server=Inert(
            "reports are passed on by an output: OutputTarget = relay HOST:PORT under [Outputs]"
        ),
    ),
    _row(
        "SetServerPort",
        _MISC_OR_EITHER,
        PORT,
        "49777",
        "50000",
        "Port of the server: to connect to (agent), to listen on (server).",
        agent=Honoured("server_port"),
        server=Honoured("listen_port"),
    ),
    _row(
        "SetBindAddress",
        _MISC_OR_CLIENT,
        ADDRESS,
        None,
        "192.0.2.7",
        "Address of this host to connect from, where it has several.",
        agent=Honoured("bind_address"),
    ),
    _row(
        "SetServerInterface",
        _MISC_OR_SERVER,
        LISTEN_ADDRESS,
        "INADDR_ANY",
        "192.0.2.1",
        "Address to listen on; INADDR_ANY: all, IPv4 and IPv6.",
        server=Honoured("listen_interface"),
    ),
    _row(
        "SetClientFromAccept",
        _MISC_OR_SERVER,
        BOOLEAN,
        "no",
        "yes",
        "Names a client by the address that its connection comes from, not by the name that it "
        "gives for itself.",
        server=Honoured("set_client_from_accept"),
    ),
    _row(
        "SeverityLookup",
        _MISC_OR_SERVER,
        SEVERITY,
        "crit",
        "debug",
        "Severity of a name that does not fit the address of its client. Below the threshold of "
        "the log it is unsafe: nobody would see who poses as a client with a stolen password.",
        server=Honoured("severity_lookup"),
    ),
    _row(
        "RequireLookup",
        _MISC_OR_SERVER,
        BOOLEAN,
        "no",
        "yes",
        "Refuses a client whose name does not fit its address.",
        server=Honoured("require_lookup"),
        is_ours=True,
    ),
    _row(
        "LookupTimeout",
        _MISC_OR_SERVER,
        duration(1, 300),
        "5",
        "10",
        "Time that one lookup of a name may take; then it counts as failed.",
        server=Honoured("lookup_timeout_s"),
        is_ours=True,
    ),
    _row(
        "HostsAllowFile",
        _MISC_OR_SERVER,
        ABSOLUTE_PATH,
        "/etc/hosts.allow",
        "/etc/needfire/hosts.allow",
        "List of the peers that are admitted (hosts_access(5); daemon names needfire and yule).",
        server=Honoured("hosts_allow_file"),
        is_ours=True,
    ),
    _row(
        "HostsDenyFile",
        _MISC_OR_SERVER,
        ABSOLUTE_PATH,
        "/etc/hosts.deny",
        "/etc/needfire/hosts.deny",
        "List of the peers that are refused unless the other list admits them.",
        server=Honoured("hosts_deny_file"),
        is_ours=True,
    ),
)

# ---- which events the server keeps ----------------------------------------------

_CLASSES: Final = tuple(
    row
    for name, persisted, more in (
        ("traffic", "no", " What needs a person, from warn upwards, is kept in any case."),
        ("administration", "yes", ""),
        ("system", "yes", ""),
    )
    for row in (
        _row(
            f"Enable{name.capitalize()}",
            _MISC_OR_SERVER,
            BOOLEAN,
            "yes",
            "no",
            f"Whether the server's own events of the class {name} are logged, kept and sent on. "
            "The signed audit log has them in any case.",
            server=Honoured(f"enable_{name}"),
            is_ours=True,
        ),
        _row(
            f"Persist{name.capitalize()}",
            _MISC_OR_SERVER,
            BOOLEAN,
            persisted,
            "yes" if persisted == "no" else "no",
            f"Whether the store keeps the server's own events of the class {name}.{more}",
            server=Honoured(f"persist_{name}"),
            is_ours=True,
        ),
    )
)
_DISK_FULL: Final = _row(
    "DiskFullAction",
    _MISC_OR_SERVER,
    DISK_FULL_ACTION,
    "warn",
    "halt",
    "What the server does when there is no room for events: warn; suspend-class (keep what can be "
    "switched off in the log only); halt (end with status 10). In every case agents keep what was "
    "not stored.",
    server=Honoured("disk_full_action"),
    is_ours=True,
)

# ---- how the server serves ------------------------------------------------------

_RETENTION: Final = tuple(
    _row(
        f"Retain{name.capitalize()}",
        _MISC_OR_SERVER,
        duration(3_600, 100 * YEAR_S),
        default,
        "30d",
        f"How long the server keeps events of the class {name}{more}. They are removed little by "
        "little in the background, and an event says how many were.",
        server=Honoured(f"retain_{name}_s"),
        is_ours=True,
    )
    for name, default, more in (
        ("integrity", "180d", ", and reports that it could not read"),
        ("traffic", "1d", ""),
        ("administration", "180d", ", and commands that are done"),
        ("system", "180d", ""),
        ("alarm", "180d", "; of an alarm that still holds the first and the last stay for ever"),
        ("provisioning", "180d", ""),
    )
)

_RETENTION_FOR_OUTPUTS: Final = _row(
    "RetainForOutputs",
    _MISC_OR_SERVER,
    duration(0, 10 * YEAR_S),
    "7d",
    "30d",
    "How much longer than its class says an event is kept while an output of this file has not sent "
    "it. The alarm OUTPUT_EVENTS_HELD says that this is so; what goes in the end is counted as dropped. "
    "0 keeps nothing for outputs. Nothing is held while there is no room in the store.",
    server=Honoured("retain_for_outputs_s"),
    is_ours=True,
)

_SERVING: Final = (
    _row(
        "Client",
        ("Clients",),
        TEXT,
        None,
        "",
        "Registers a client: NAME@SALT@VERIFIER, as needfire-admin verifier prints it.",
        server=Honoured("clients", repeats=True),
    ),
    _row(
        "RelayClient",
        ("Clients",),
        TEXT,
        None,
        "hall",
        "A registered client that is a server and may pass on what its own clients report; they are "
        "called NAME/CLIENT here. Repeat it for more.",
        server=Honoured("relay_clients", repeats=True),
        is_ours=True,
    ),
    _row(
        "DataDirectory",
        _MISC_OR_SERVER,
        ABSOLUTE_PATH,
        "/var/lib/needfire",
        "/srv/needfire",
        "Where configurations, baselines and the store stand; --data-dir wins over it.",
        server=Honoured("data_directory"),
        is_ours=True,
    ),
    _row(
        "StoreURL",
        _MISC_OR_SERVER,
        TEXT,
        None,
        "postgresql://needfire@db1.example.org/needfire",
        "PostgreSQL database for what the server keeps, instead of the SQLite file in its data "
        "directory; any number of servers may share it. Any URL that libpq takes, without a "
        "password. Read at the start only.",
        server=Honoured("store_url"),
        is_ours=True,
    ),
    _row(
        "StorePasswordFile",
        _MISC_OR_SERVER,
        ABSOLUTE_PATH,
        None,
        "/etc/needfire/store-password",
        "File with the password for StoreURL in its first line. Without it: the systemd credential "
        "store-password, else whatever libpq finds (peer authentication, certificates, ~/.pgpass).",
        server=Honoured("store_password_file"),
        is_ours=True,
    ),
    *_CLASSES,
    _DISK_FULL,
    *_RETENTION,
    _RETENTION_FOR_OUTPUTS,
    _row(
        "ServerUser",
        _MISC_OR_SERVER,
        USER,
        None,
        "needfire",
        "User that the server turns into once it listens, when it was started as root. The files "
        "that outputs name are judged for this user.",
        server=Honoured("server_user"),
        is_ours=True,
    ),
    _row(
        "SetClientTimeLimit",
        _MISC_OR_SERVER,
        _INTERVAL,
        "86400",
        "1h",
        "Silence after which a client is reported as dead.",
        server=Honoured("client_time_limit_s"),
    ),
    _row(
        "SilenceLimit",
        _MISC_OR_SERVER,
        duration(0, YEAR_S),
        "180",
        "10m",
        "Silence after which an agent that did not say goodbye is reported as stopped; three "
        "heartbeats where those come less often. 0 reports none.",
        server=Honoured("silence_limit_s"),
        is_ours=True,
    ),
    _row(
        "ClockLimit",
        _MISC_OR_SERVER,
        duration(0, YEAR_S),
        "60",
        "5m",
        "How far the clock of a host may jump, or be from the server's, before it is reported. "
        "0 reports none.",
        server=Honoured("clock_limit_s"),
        is_ours=True,
    ),
    _row(
        "HtmlStatusFile",
        _MISC_OR_SERVER,
        ABSOLUTE_PATH,
        None,
        "/var/lib/needfire/status.html",
        "Status page for a browser, written when something changed; emptied when the server ends. "
        "Without it none is written.",
        server=Honoured("html_status_file"),
        is_ours=True,
    ),
    _row(
        "MetricsListen",
        _MISC_OR_SERVER,
        LOOPBACK_OR_ADDRESS,
        None,
        "9777",
        "Where /metrics (Prometheus), /healthz and /readyz are served, without a password: a port "
        "on 127.0.0.1, or ADDRESS:PORT. Counts at a start, not at a reload.",
        server=Honoured("metrics_listen"),
        is_ours=True,
    ),
    _row(
        "SetConnectionTimeout",
        _MISC_OR_SERVER,
        _INTERVAL,
        "900",
        "10m",
        "Silence after which an open connection is closed.",
        server=Honoured("connection_timeout_s"),
    ),
    _row(
        "SessionKeyLifetime",
        _MISC_OR_SERVER,
        duration(1, YEAR_S),
        "7200",
        "1h",
        "Age at which a session key is replaced; the agent does so by itself.",
        server=Honoured("session_key_lifetime_s"),
        is_ours=True,
    ),
    _row(
        "ConnectionLimit",
        _MISC_OR_SERVER,
        integer(1, 1_000_000),
        "1000",
        "5000",
        "Connections at the same time; the service needs as many open files.",
        server=Honoured("connection_limit"),
        is_ours=True,
    ),
    _row(
        "HandshakeLimit",
        _MISC_OR_SERVER,
        integer(1, 100_000),
        "256",
        "64",
        "Peers at the same time that log in with their password; one address may be a quarter of "
        "them, and an eighth is for addresses from which an agent logged in lately. Sixteen times "
        "as many may be connected without having proved who they are; beyond "
        "that the one that has been silent for longest makes room, if that is a second.",
        server=Honoured("handshake_limit"),
        is_ours=True,
    ),
    _row(
        "AgentReportRate",
        _MISC_OR_SERVER,
        integer(0, 1_000_000),
        "1000",
        "200",
        "Reports a second that one agent may deliver in the long run; a hundred times as many may "
        "come at once. Beyond it the server does not read on from this agent for a while: its "
        "reports wait in its spool, and none is lost. 0: as many as come.",
        server=Honoured("agent_report_rate"),
        is_ours=True,
    ),
    _row(
        "AgentByteRate",
        _MISC_OR_SERVER,
        size(0, 2**40),
        "1M",
        "256K",
        "Bytes of reports a second that one agent may deliver in the long run, as AgentReportRate.",
        server=Honoured("agent_byte_rate"),
        is_ours=True,
    ),
    _row(
        "ProposalSizeLimit",
        _MISC_OR_SERVER,
        size(_MIB, 2**40),
        "1G",
        "256M",
        "Size of a baseline that a client may propose. As many bytes of proposals are taken from it at "
        "once, and 1M a second beyond that: it waits, and loses nothing.",
        server=Honoured("proposal_size_limit_bytes"),
        is_ours=True,
    ),
    _row(
        "AuditCheckpointInterval",
        _MISC_OR_SERVER,
        duration(1, 86_400),
        "60",
        "10m",
        "How often the audit log is signed and checked while there are new records.",
        server=Honoured("audit_checkpoint_interval_s"),
        is_ours=True,
    ),
    _row(
        "WarnInterval",
        _MISC_OR_SERVER,
        duration(10, 86_400),
        "15m",
        "1h",
        "How often terminals and outputs that take alerts are told again that events or acts cannot "
        "be recorded, for as long as that lasts.",
        server=Honoured("warn_interval_s"),
        is_ours=True,
    ),
    _row(
        "WarnTerminals",
        _MISC_OR_SERVER,
        BOOLEAN,
        "yes",
        "no",
        "Whether everybody who is logged in on the server's host reads on the terminal that events or "
        "acts cannot be recorded. The server's user needs the group tty for it.",
        server=Honoured("warn_terminals"),
        is_ours=True,
    ),
    _row(
        "SetSocketAllowUid",
        _MISC_OR_SERVER,
        UID,
        "0",
        "1000",
        "User, as a number, that may use the control socket. Repeat it for more; root needs a "
        "line as well then.",
        server=Honoured("socket_allow_uids", repeats=True),
    ),
    _row(
        "RoleAdministrators",
        _MISC_OR_SERVER,
        MEMBER,
        "root",
        "@needfire-admin",
        "Who may register clients, put files and send commands. Repeat it for more.",
        server=Honoured("administrators", repeats=True),
        is_ours=True,
    ),
    _row(
        "RoleAgents",
        _MISC_OR_SERVER,
        MEMBER,
        "root",
        "@needfire-approve",
        "Who may put a baseline in place that a client proposed. Repeat it for more.",
        server=Honoured("approvers", repeats=True),
        is_ours=True,
    ),
    _row(
        "RoleAuditors",
        _MISC_OR_SERVER,
        MEMBER,
        "root",
        "@needfire-audit",
        "Who may read the audit log. Repeat it for more.",
        server=Honoured("auditors", repeats=True),
        is_ours=True,
    ),
    _row(
        "AdminFailuresMax",
        _MISC_OR_SERVER,
        integer(1, 1_000),
        "5",
        "3",
        "Refused requests in a row that lock a user out of the admin socket.",
        server=Honoured("admin_failures_max"),
        is_ours=True,
    ),
    _row(
        "AdminLockTime",
        _MISC_OR_SERVER,
        duration(1, YEAR_S),
        "15m",
        "1h",
        "How long a user stays locked out.",
        server=Honoured("admin_lock_s"),
        is_ours=True,
    ),
    _row(
        "SetStripDomain",
        _MISC_OR_SERVER,
        BOOLEAN,
        "yes",
        "no",
        "Leaves the domain out of the name of a client in classic log lines.",
        server=Honoured("strip_domain"),
    ),
    _row(
        "UseSeparateLogs",
        _MISC_OR_SERVER,
        BOOLEAN,
        "no",
        "yes",
        "Writes the reports of each client to a log file of its own instead of the main one.",
        server=Honoured("use_separate_logs"),
    ),
)

# ---- logs -----------------------------------------------------------------------

_LOGGING: Final = (
    _row(
        "PrintSeverity",
        _LOG,
        SEVERITY_LIST,
        "info",
        "warn",
        "What is shown on the console.",
        agent=Honoured("print_severity"),
        server=Honoured("print_severity"),
    ),
    _row(
        "LogSeverity",
        _LOG,
        SEVERITY_LIST,
        "notice",
        "info,!=notice",
        "What is written to the log file. Samhain's default is mark, which hides warnings such as "
        "'Restart without prior exit'.",
        agent=Honoured("log_severity"),
        server=Honoured("log_severity"),
    ),
    _row(
        "ExportSeverity",
        _LOG,
        SEVERITY_LIST,
        "notice",
        "warn",
        "What is reported to the server; starts, stops and suspensions always are. Samhain's "
        "default is mark, which hides what could not be examined.",
        agent=Honoured("export_severity"),
        server=Inert(
            "reports are passed on by an output: OutputTarget = relay HOST:PORT under [Outputs], and "
            "OutputSeverity there"
        ),
    ),
    _row(
        "SetLogfilePath",
        _MISC,
        ABSOLUTE_PATH,
        None,
        "/var/log/needfire.log",
        "The log file. Without it: log in the server's data directory, none on an agent.",
        agent=Honoured("log_file"),
        server=Honoured("log_file"),
    ),
    _row(
        "LogFormat",
        _LOG,
        LOG_FORMAT,
        "classic",
        "json",
        "Form of log lines: Samhain's XML form (classic), its text form (text), or JSON.",
        agent=Honoured("log_format"),
        server=Honoured("log_format"),
        is_ours=True,
    ),
    *_inert(
        _LOG,
        "events are selected by severity; lists of Samhain's classes have no effect",
        "PrintClass: classes for the console",
        "LogClass: classes for the log file",
        "ExportClass: classes for the server",
    ),
    *_inert(_LOG, "system calls are not logged", "LogCalls: system calls to log"),
    *_samhain_output(
        _LOG, _MAIL_OUTPUT, "MailSeverity: alert: warn: Which events go to the recipients of mail."
    ),
    *_inert(
        _LOG,
        "classes of mail are chosen by OutputClass in an output under [Outputs]",
        "MailClass: classes for mail",
    ),
    *_samhain_output(
        _LOG,
        _SYSLOG_OUTPUT,
        "SyslogSeverity: none: err: Which events go to the syslog daemon of the server's host.",
    ),
    *_inert(
        _LOG,
        "classes of syslog are chosen by OutputClass in an output: OutputTarget = syslog-local "
        "/dev/log under [Outputs]",
        "SyslogClass: classes for syslog",
    ),
    *_samhain_output(
        ("Misc", "Log"),
        _SYSLOG_OUTPUT,
        "SyslogFacility: LOG_AUTHPRIV: LOG_LOCAL4: Facility of what SyslogSeverity selects.",
    ),
    *_inert(
        ("Misc", "Log"),
        "marks go to syslog as errors, Samhain's default",
        "SyslogMapStampTo: priority of time stamps for syslog",
    ),
    *_samhain_output(
        ("Log", "External"),
        _COMMAND_OUTPUT,
        "ExternalSeverity: none: crit: Which events go to the programs of [External].",
    ),
    *_inert(
        ("Log", "External"),
        "classes of commands are chosen by OutputClass in an output: OutputTarget = command PROGRAM "
        "under [Outputs]",
        "ExternalClass: classes for external programs",
    ),
    *_inert(
        ("Log", "Database"),
        "[Database]: this module does not exist here; the server has its own store",
        "DatabaseSeverity: severities for the database",
        "DatabaseClass: classes for the database",
    ),
    *_inert(
        ("Log", "Misc"),
        "Prelude: this module does not exist here yet",
        "PreludeSeverity: severities for Prelude",
        "PreludeClass: classes for Prelude",
        "PreludeProfile: profile for Prelude",
        "PreludeMapToInfo: severities that are of impact info",
        "PreludeMapToLow: severities that are of impact low",
        "PreludeMapToMedium: severities that are of impact medium",
        "PreludeMapToHigh: severities that are of impact high",
    ),
)

# ---- known, without effect ------------------------------------------------------

_WITHOUT_EFFECT: Final = (
    *_inert(
        _MISC,
        "the service manager starts the program and keeps track of it",
        "Daemon: become a daemon",
        "SetLockfilePath: file with the process id",
    ),
    *_inert(
        _MISC,
        "what to do is the verb of the command line (run, init, check, update)",
        "ChecksumTest: what to do",
    ),
    *_inert(
        _MISC,
        "types of files are not told apart; SkipChecksum can ask for paths, sizes and permissions",
        "FileType: a type of files for SkipChecksum",
    ),
    *_inert(
        _MISC,
        "every name is looked at as UTF-8, with what cannot be seen reported",
        "AddOKChars: bytes that file names may hold",
        "FilenamesAreUTF8: file names are UTF-8",
    ),
    *_inert(
        _MISC,
        "the numbers of links of directories are not counted: many file systems have none",
        "UseHardlinkCheck: compare links of directories with their subdirectories",
        "HardlinkOffset: directories where that differs",
    ),
    *_inert(
        _MISC,
        "these attributes are not looked at yet",
        "UseRsrcCheck: resource forks",
    ),
    *_inert(
        _MISC,
        "baselines are small; their download is not slowed down",
        "SetThrottle: pause while a baseline is downloaded",
    ),
    *_inert(
        _MISC,
        "a file system that hangs is not worked around",
        "AvoidBlock: look at files in another process",
    ),
    *_inert(
        _MISC,
        "prelinked files are not undone; their contents are digested as they are",
        "SetPrelinkPath: the prelink program",
        "SetPrelinkChecksum: its checksum",
    ),
    *_inert(
        _MISC,
        "baselines carry host, time and version of their own",
        "VersionString: a line for the baseline",
    ),
    *_inert(
        _MISC,
        "the baseline stands in the state directory, or where --baseline says",
        "SetDatabasePath: the baseline",
    ),
    *_inert(
        _MISC,
        "the baseline comes over the open connection and is tried again as often as it takes",
        "StartupLoadDelay: pause before the baseline is loaded",
        "SetDeltaRetryCount: attempts to download a delta",
        "SetDeltaRetryInterval: pause between them",
    ),
    *_inert(
        _MISC,
        "the form of reports is fixed, with times in UTC, so that programs can read them",
        "UseLocalTime: local time in reports",
        "ReportCheckflags: check flags in reports",
        "MessageHeader: form of the beginning of log lines",
        "SetFullSilent: silent checks",
        "HideSetup: leave paths out of the first lines",
    ),
    *_inert(
        _MISC_OR_CLIENT,
        "the server proves that it knows the verifier; its name and address prove nothing",
        "SetReverseLookup: look up the server's name",
    ),
    *_inert(
        _MISC_OR_EITHER,
        "frames are sealed with keys of the session; there is nothing to choose",
        "MACType: message authentication code",
    ),
    *_inert(
        _MISC,
        "the console is the standard error of the process",
        "SetConsole: device of the console",
        "MessageQueueActive: copy the console to a message queue",
    ),
    *_inert(
        _MISC,
        "full checks are reported as events instead",
        "SetReportFile: file with a line for each full check",
        "SetReportGroup: group of that file",
    ),
    *_inert(
        _MISC,
        "the clock of the host is used; let it follow NTP",
        "SetTimeServer: server for the time",
    ),
    *_inert(
        _MISC,
        "files of configuration must belong to root or the user of the program",
        "TrustedUser: users who may own the configuration",
    ),
    *_inert(
        _MISC,
        "put the program under file= like any other file to have it checked",
        "SamhainPath: the program, to be checked",
    ),
    *_inert(
        _MISC,
        "the service manager confines the process",
        "SetSigtrapMaxDuration: limit of the check for debuggers",
        "usecaps: use capabilities",
    ),
    *_inert(
        _MISC_OR_SERVER,
        "the service manager confines the process",
        "SetChrootDir: directory to change the root to",
    ),
    *_inert(
        _MISC_OR_SERVER,
        "the control socket is always there; SetSocketAllowUid says who may use it",
        "SetUseSocket: open the control socket",
        "SetSocketPassword: password for the control socket",
    ),
    *_inert(
        _MISC_OR_SERVER,
        "events of clients always keep their own severity and class",
        "UseClientSeverity: keep the severity of clients' events",
        "UseClientClass: keep the class of clients' events",
    ),
    *_inert(
        _MISC_OR_SERVER,
        "the server does not receive syslog",
        "SetUDPActive: receive syslog",
    ),
    *_inert(
        ("Inotify",),
        "limits of the system are not changed; set fs.inotify.max_user_watches with sysctl",
        "InotifyWatches: number of watches of the system",
    ),
    *_samhain_output(
        _MISC_OR_MAIL,
        _MAIL_OUTPUT,
        "SetMailAddress: : root@example.org: A recipient. Repeat it for more.",
        "SetAddrSeverity: : crit: Severities for the last recipient, instead of MailSeverity.",
        "SetMailTime: 86400: 3600: Seconds after which what waits is mailed.",
        "SetMailNum: 10: 20: Events that are mailed together; alerts go at once.",
        "SetMailRelay: : mail.example.org: The host that takes mail. Without it nothing is mailed.",
        "SetMailPort: 25: 2525: Its port.",
        "SetMailSender: : needfire@example.org: Sender of mail; by default needfire at this host.",
        "MailSingle: no: yes: One event a mail.",
    ),
    *_inert(
        _MISC_OR_MAIL,
        "recipients are named one by one: SetMailAddress, or OutputRecipient in an output",
        "SetMailAlias: a list of recipients",
        "CloseAddress: end of a recipient",
    ),
    *_inert(
        _MISC_OR_MAIL,
        "messages are not filtered by their words; write OutputSeverity, OutputClass or "
        "OutputClassSeverity in an output under [Outputs]",
        "SetMailFilterNot: words that may not be in a mail",
        "SetMailFilterAnd: words that must all be in a mail",
        "SetMailFilterOr: words one of which must be in a mail",
    ),
    *_inert(
        _MISC_OR_MAIL,
        "a mail's subject names the most severe event",
        "MailSubject: subject of mail",
    ),
)

_MODULES: Final = (
    *_module(
        "Database",
        "SetDBHost: host of the database",
        "SetDBName: its name",
        "SetDBTable: table",
        "SetDBUser: user",
        "SetDBPassword: password",
        "UsePersistent: keep the connection",
        "SetDBServerTstamp: keep the time of receipt",
        "AddToDBHash: fields of the tag",
    ),
    *_samhain_output(
        ("External",),
        _COMMAND_OUTPUT,
        "OpenCommand: : /usr/local/bin/pager: A program that gets each event on its standard input, "
        "without a shell.",
        "CloseCommand: : yes: End of its description.",
        "SetType: : log: What it gets. Only log is known: a program for anything else is not run.",
        'SetCommandline: : pager "high alert": Its name and its arguments.',
        "SetCredentials: : nobody: A user to run it as: not possible here, so it is not run.",
        "SetFilterNot: : x: Words that may not be in a message; has no effect.",
        "SetFilterAnd: : x: Words that must all be in a message; has no effect.",
        "SetFilterOr: : x: Words one of which must be in a message; has no effect.",
        "SetDeadtime: : 60: Pause between two runs; has no effect.",
    ),
    *_inert(
        ("External",),
        "a command gets PATH and LANG and nothing else",
        "SetEnviron: environment",
        "SetDefault: give it the usual environment",
    ),
    *_inert(
        ("External",),
        "a program is run only where nobody but root and the server's user can write it",
        "SetChecksum: checksum of the program",
    ),
    *_module(
        "SuidCheck",
        "SuidCheckActive: look for SUID programs",
        "SuidCheckInterval: how often",
        "SuidCheckSchedule: when",
        "SeveritySuidCheck: severity",
        "SuidCheckExclude: directories to leave out",
        "SuidCheckFps: files a second",
        "SuidCheckYield: yield after each file",
        "SuidCheckNosuid: look at nosuid file systems",
        "SuidCheckQuarantineFiles: put them into quarantine",
        "SuidCheckQuarantineMethod: how",
        "SuidCheckQuarantineDelete: delete them",
    ),
    *_module(
        "Mounts",
        "MountCheckActive: look at mounts",
        "MountCheckInterval: how often",
        "CheckMount: a mount and its options",
        "SeverityMountMissing: severity of a missing mount",
        "SeverityOptionMissing: severity of a missing option",
    ),
    *_module(
        "UserFiles",
        "UserfilesActive: look at files in home directories",
        "UserfilesName: a file and its policy",
        "UserfilesCheckUids: users",
    ),
    *_module(
        "PortCheck",
        "PortCheckActive: look at open ports",
        "SeverityPortCheck: severity",
        "PortCheckRequired: services that must be there",
        "PortCheckOptional: services that may be there",
        "PortCheckIgnore: services that do not matter",
        "PortCheckSkip: ports that are not looked at",
        "PortCheckInterface: interfaces",
        "PortCheckInterval: how often",
        "PortCheckMinPort: first port",
        "PortCheckMaxPort: last port",
        "PortCheckUDP: look at UDP",
    ),
    *_module(
        "ProcessCheck",
        "ProcessCheckActive: look for hidden processes",
        "SeverityProcessCheck: severity",
        "ProcessCheckMinPID: first process id",
        "ProcessCheckMaxPID: last process id",
        "ProcessCheckInterval: how often",
        "ProcessCheckExists: processes that must be there",
        "ProcessCheckPSPath: the ps program",
        "ProcessCheckPSArg: its argument",
        "ProcessCheckIsOpenVZ: the host is an OpenVZ container",
    ),
    *_module(
        "Utmp",
        "LoginCheckActive: look at logins",
        "LoginCheckInterval: how often",
        "SeverityLogin: severity of a login",
        "SeverityLogout: severity of a logout",
        "SeverityLoginMulti: severity of several logins",
        "LoginCheckFirst: report the first login from a host",
        "LoginCheckOutlier: report logins at odd times",
        "LoginCheckDate: times of logins",
        "LoginCheckUserDate: times of a user's logins",
    ),
    *_module(
        "Logmon",
        "LogmonActive: watch log files",
        "LogmonSaveDir: where positions are kept",
        "LogmonClean: forget them",
        "LogmonInterval: how often",
        "LogmonWatch: a log file",
        "LogmonHidePID: leave process ids out",
        "LogmonQueue: a queue",
        "LogmonHost: rules of a host",
        "LogmonEndHost: end of them",
        "LogmonGroup: rules of a group",
        "LogmonEndGroup: end of them",
        "LogmonRule: a rule",
        "LogmonMarkSeverity: severity of a missing line",
        "LogmonBurstThreshold: lines that make a burst",
        "LogmonBurstQueue: queue of bursts",
        "LogmonBurstCron: look at cron too",
        "LogmonDeadtime: pause between two reports",
    ),
    *_module(
        "Registry",
        "RegistryCheckActive: look at the registry",
        "RegistryCheckInterval: how often",
        "SeverityChange: severity",
        "IgnoreTimestampOnly: leave out changes of times alone",
        "SingleKey: a key",
        "Hierarchy: a key and what is below it",
        "StopAtKey: keys not to enter",
        "IgnoreKey: keys to leave out",
    ),
    *_module(
        "Kernel",
        "KernelCheckActive: look at the running kernel",
        "KernelCheckInterval: how often",
        "KernelCheckIDT: look at the interrupt table",
        "KernelCheckPCI: look at PCI expansions",
        "SeverityKernel: severity",
    ),
)

ROWS: Final = (
    *_FILES,
    *_REDEFINITIONS,
    *_SEVERITIES,
    *_CHECKING,
    *_NETWORK,
    *_SERVING,
    *_LOGGING,
    *OUTPUT_ROWS,
    *_WITHOUT_EFFECT,
    *_MODULES,
)
"""Every directive, in the order in which documents show them."""
