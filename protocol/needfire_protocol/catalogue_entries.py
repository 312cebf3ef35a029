"""The entries of the catalogue: the only place where the text of a message stands.

The texts that the product's contract fixes (the documented error states) are exact; people and
scripts search for them. Each entry is raised by at least one test through the real path, but those
that nothing raises yet: the alerts about SSH keys and hosts, 100-117 and 200-216, and what a host's
own logs tell.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from needfire_protocol.catalogue_entry import AlertForm, Entry, EventClass
from needfire_protocol.severity import Severity

__all__ = ["ENTRIES"]

_INTEGRITY: Final = EventClass.INTEGRITY
_TRAFFIC: Final = EventClass.TRAFFIC
_ADMINISTRATION: Final = EventClass.ADMINISTRATION
_SYSTEM: Final = EventClass.SYSTEM
_ALARM: Final = EventClass.ALARM
_PROVISIONING: Final = EventClass.PROVISIONING

_TROUBLESHOOTING: Final = "client/server troubleshooting"
_CLIENT: Final = "name of the client, as the server inferred it"
_KEY_ID: Final = "what the key is called; needfire-admin seal check tells it of any file"
_REQUEST: Final = "the request of the admin tool, the same in all its events and records"
_PATH: Final = "the file, with unprintable bytes as \\xNN"
_ATTRIBUTES: Final = {
    "path": _PATH,
    "mode_old": "permissions before, as ls shows them (imode_old: the number)",
    "mode_new": "permissions now",
    "attr_old": "inode flags before, as Samhain shows them: suSiadAcTDtj (iattr_old: the number, "
    "with encryption, verity and others that have no letter)",
    "attr_new": "inode flags now",
    "owner_old": "owner before (iowner_old: the uid)",
    "owner_new": "owner now",
    "group_old": "group before (igroup_old: the gid)",
    "group_new": "group now",
    "size_old": "bytes before",
    "size_new": "bytes now",
    "mtime_old": "time of the last change of the contents before, UTC",
    "mtime_new": "time of the last change of the contents now, UTC",
    "chksum_old": "digest of the contents before, algorithm:hex",
    "chksum_new": "digest of the contents now, algorithm:hex",
    "link_old": "target of the symbolic link before",
    "link_new": "target of the symbolic link now",
    "btime_old": "when the inode before was made, UTC",
    "btime_new": "when the inode of now was made, UTC",
    "acl_old": "access control list before, as getfacl shows it",
    "acl_new": "access control list now",
    "acl_default_old": "access control list before that a directory gives to new files in it",
    "acl_default_new": "that access control list now",
    "caps_old": "capabilities of the file before, as getcap shows them",
    "caps_new": "capabilities of the file now",
    "selinux_old": "SELinux label before",
    "selinux_new": "SELinux label now",
    "xattr_old": "other extended attributes before, in a change only those that differ; large "
    "values as SHA-256",
    "xattr_new": "other extended attributes now",
    "project_old": "project id before",
    "project_new": "project id now",
}
_RECEIPT: Final = {
    "mode": "init (which compares nothing), check or update",
    "time": "seconds that it took (duration_ms: milliseconds)",
    "kBps": "kilobytes read a second",
    "files": "objects examined",
    "hashed": "files whose contents were read, under this name or another",
    "quick": "files that were not read, because none of their attributes had changed",
    "bytes": "bytes read",
    "changes": "differences found",
    "unreadable": "objects that could not be examined",
    "unstable": "files that kept changing",
    "skipped": "both together",
    "skipped_why": "their reasons, each with how many",
    "skipped_paths": "the first of them, with a blank between two",
    "contents_skipped": "files whose contents SkipChecksum left alone",
    "attributes_unread": "objects whose extended attributes could not be read",
    "rules": "rules that it was for",
    "groups": "groups of rules that it was for, where those are not all; -: of no group",
    "quick_groups": "groups of which it read only files whose attributes had changed",
    "parts": "of a check that was stopped and went on: in how many parts",
    "spans": "from when to when each part went on, UTC, and up to which directory it came",
    "looked_again_until": "what earlier parts saw up to here may have changed unseen, so its "
    "attributes were looked at once more at the end",
    "configuration": "digest of the configuration",
    "baseline": "digest of what is in the baseline; baseline show calls it contents",
    "baseline_new": "the same of the baseline that update wrote",
    "watcher": "how changes were seen since the last check: fanotify, inotify, polling, several of "
    "them, or off",
    "watched": "file systems (fanotify) or directories (the others) that are watched",
    "watcher_gaps": "gaps in the watch since the last check",
}

_WHO: Final = {
    "who": "unknown or several, where real-time watching cannot name one process",
    "who_program": "program of the process that changed it (several: the first four)",
    "who_command": "its command line, with what looks like a secret masked",
    "who_pid": "its number",
    "who_user": "user whose rights it used",
    "who_login": "user who logged in, before any su or sudo",
    "who_parent": "program of its parent process",
    "who_unit": "its container or unit of systemd",
}

_LINES_JOINED: Final = (
    "\\x0a is the end of a line; each line is escaped as paths are, then each backslash doubled"
)

_REPLACED: Final = {
    "hash_old": "digest of what was there before; empty where there was nothing",
    "path_old": "where that was the file of all others: this file",
    "not_compared": "why there is no difference: what is wrong with what was there before",
}

_SETTINGS: Final = {
    "changes": 'the directives, as JSON: {"NAME": [before, now]}; null where it is not set, and of '
    "directives that are repeated what only one side has. What looks like a secret is masked",
    "changes_left_out": "directives for which there was no room",
}

_DOCUMENTED_STATES: Final = (
    Entry(
        "CONNECTION_REFUSED",
        _TRAFFIC,
        Severity.ERR,
        "Connection refused",
        "The agent could not open a connection: nothing accepts connections at the address and "
        "port that it has for the server. The server itself knows nothing of this.",
        "Start the server. Check that it listens on the address and port that the agent uses "
        "(default 49777) and that no firewall refuses the connection. Reports wait in the agent's "
        "spool meanwhile; nothing is lost.",
        {"server": "address and port that were tried", "reason": "what the system said"},
        state=1,
        source=_TROUBLESHOOTING,
    ),
    Entry(
        "CONNECTION_ERROR",
        _TRAFFIC,
        Severity.ERR,
        "Connection error: {reason}",
        "An open connection to the server broke. 'Connection reset by peer' during the first "
        "steps usually means that the server's access lists refuse this host.",
        "Look for 'Refused connection from' in the server's log. If it is there, correct "
        "hosts.allow and hosts.deny on the server (daemon names needfire and yule); they are read "
        "at each connection, so nothing needs a restart. Otherwise look for a restart of the "
        "server or a network failure.",
        {"server": "address and port", "reason": "what the system said"},
        state=2,
        source=_TROUBLESHOOTING,
    ),
    Entry(
        "REFUSED_CONNECTION",
        _TRAFFIC,
        Severity.ERR,
        "Refused connection from {peer}",
        "The access lists (hosts.allow, hosts.deny) of the server do not admit this peer, so the "
        "connection was reset before a byte was read.",
        "If the peer is a host that should report, admit it in hosts.allow or take it out of "
        "hosts.deny, under the daemon name needfire or yule. The lists are read at each "
        "connection: no restart, no reload.",
        {
            "peer": "address of the peer",
            "subroutine": "always libwrap",
            "rule": "the list and line that decided",
        },
        state=2,
        source=_TROUBLESHOOTING,
        is_failure=True,
    ),
    Entry(
        "SESSION_KEY_NEGOTIATION_FAILED",
        _TRAFFIC,
        Severity.ERR,
        "Session key negotiation failed",
        "The server did not accept this agent. It never says why: a stranger must not learn "
        "whether a name or a password is right. The server's log has the reason.",
        "Look into the server's log for the same moment. 'Session key mismatch': the password is "
        "wrong. 'Not in client list': the name is not registered. 'Refused connection from': the "
        "access lists. The name that it gives as client is the one to register.",
        {"server": "address and port"},
        state=3,
        source=_TROUBLESHOOTING,
    ),
    Entry(
        "SESSION_KEY_MISMATCH",
        _TRAFFIC,
        Severity.CRIT,
        "Invalid connection attempt: Session key mismatch",
        "A client with a registered name gave a wrong password, or somebody tried to pose as it.",
        "On the host, set the password that belongs to the registered verifier (needfire-agent "
        "set-password), or register it anew (needfire-admin register NAME). Look out for two "
        "entries of the same client; the server warns about those when it reads them.",
        {"client": _CLIENT, "peer": "address of the peer"},
        state=3,
        source=_TROUBLESHOOTING,
        is_failure=True,
    ),
    Entry(
        "NOT_IN_CLIENT_LIST",
        _TRAFFIC,
        Severity.CRIT,
        "Invalid connection attempt: Not in client list",
        "A client tried to connect under a name that is not registered.",
        "If the host should report, register exactly the name in the field client "
        "(needfire-admin register NAME), or give the agent the registered name (--name), or fix "
        "the name resolution that led to this one.",
        {"client": _CLIENT, "peer": "address of the peer"},
        state=4,
        source=_TROUBLESHOOTING,
        is_failure=True,
    ),
    Entry(
        "CANNOT_RESOLVE_CLIENT_NAME",
        _TRAFFIC,
        Severity.CRIT,
        "Cannot resolve client name",
        "The name that a client gave for itself cannot be resolved by the server. The registered "
        "name and its secret decide, so the connection goes on (unless RequireLookup=yes).",
        "Add the name to the DNS or to /etc/hosts of the server; or let the server name clients "
        "by their address (SetClientFromAccept=true); or lower SeverityLookup, which is unsafe: "
        "someone with a stolen password can then pose as that client unnoticed.",
        {"client": _CLIENT, "peer": "address of the peer", "reason": "what the resolver said"},
        state=5,
        source=_TROUBLESHOOTING,
    ),
    Entry(
        "CANNOT_RESOLVE_PEER",
        _TRAFFIC,
        Severity.CRIT,
        "Cannot resolve socket peer IP for client",
        "The address that a client connected from has no name.",
        "Add a reverse entry for the address, or see CANNOT_RESOLVE_CLIENT_NAME for the other "
        "ways.",
        {"client": _CLIENT, "peer": "address of the peer", "reason": "what the resolver said"},
        state=5,
        source=_TROUBLESHOOTING,
    ),
    Entry(
        "REVERSE_LOOKUP_FAILED",
        _TRAFFIC,
        Severity.CRIT,
        "Reverse lookup of socket peer failed",
        "The name of the address that a client connected from does not lead back to that address.",
        "Make forward and reverse entries of the host agree in the DNS or in /etc/hosts, or see "
        "CANNOT_RESOLVE_CLIENT_NAME for the other ways.",
        {"client": _CLIENT, "peer": "address of the peer", "obj": "name of the address"},
        state=5,
        source=_TROUBLESHOOTING,
    ),
    Entry(
        "NO_PEER_ALIAS",
        _TRAFFIC,
        Severity.CRIT,
        "No socket peer alias matches client name",
        "The name that a client gave does not belong to the address that it connected from.",
        "On a host with several interfaces choose the one that the name belongs to "
        "(SetBindAddress or --bind-address). Otherwise fix the DNS or /etc/hosts, or see "
        "CANNOT_RESOLVE_CLIENT_NAME for the other ways. If nothing explains it, someone may be "
        "posing as the client.",
        {"client": _CLIENT, "peer": "address of the peer", "obj": "name of the address"},
        state=5,
        source=_TROUBLESHOOTING,
    ),
    Entry(
        "LOOKUP_REQUIRED",
        _TRAFFIC,
        Severity.CRIT,
        "Invalid connection attempt: Reverse lookup failed",
        "RequireLookup=yes is set, and the name that a client gave does not match its address.",
        "Fix the name resolution that the event before this one names, or set RequireLookup=no.",
        {"client": _CLIENT, "peer": "address of the peer"},
        state=5,
        source=_TROUBLESHOOTING,
        is_failure=True,
    ),
    Entry(
        "LOOKUP_UNSAFE",
        _SYSTEM,
        Severity.WARN,
        "SeverityLookup={severity} hides failed name checks: someone with a stolen password can "
        "pose as a client unnoticed",
        "Failures of the cross-check between a client's name and its address are logged below "
        "the threshold of the log, so nobody sees them.",
        "Set SeverityLookup to crit again and fix the DNS or hosts files, or use "
        "RequireLookup=yes.",
        {"severity": "the configured severity"},
        state=5,
        source=_TROUBLESHOOTING,
    ),
    Entry(
        "FILE_DOWNLOAD_FAILED",
        _TRAFFIC,
        Severity.ERR,
        "File download failed",
        "The server has no configuration or no baseline for this agent, or cannot read it.",
        "Look for 'File not accessible' in the server's log: its path is the first place where "
        "the file was looked for. Put the file there (needfire-admin config put, needfire-admin "
        "baseline put) and check its permissions.",
        {"kind": "configuration or baseline", "reason": "what was wrong with it"},
        state=6,
        source=_TROUBLESHOOTING,
    ),
    Entry(
        "FILE_NOT_ACCESSIBLE",
        _PROVISIONING,
        Severity.ERR,
        "File not accessible",
        "A client asked for its configuration or baseline, and the server has none that it can "
        "read, neither under the client's name nor as a catch-all.",
        "Put the file at the path shown, or a catch-all beside it (rc, file), and make it "
        "readable for the user that the server runs as.",
        {
            "client": _CLIENT,
            "path": "the first path that was looked for",
            "reason": "what the system said",
            "kind": "configuration or baseline",
        },
        state=6,
        source=_TROUBLESHOOTING,
        is_failure=True,
    ),
    Entry(
        "INVALID_CONNECTION_STATE",
        _TRAFFIC,
        Severity.ERR,
        "Invalid connection state",
        "The server no longer accepts this agent's session key: another agent of the same name "
        "has negotiated a newer one. This agent does not take it back while the other one lives.",
        "Run one agent a host. If a second one is needed for a moment, suspend this one first "
        "with SIGUSR2 and wake it up with SIGUSR2 afterwards.",
        {"server": "address and port"},
        state=7,
        source=_TROUBLESHOOTING,
    ),
    Entry(
        "SIGNATURE_MISMATCH",
        _TRAFFIC,
        Severity.CRIT,
        "Invalid connection attempt: Signature mismatch",
        "A message came that is signed with a session key that is no longer valid. Most probably "
        "a second agent was started on that host.",
        "Run one agent a host, or suspend the first with SIGUSR2 before starting the second. If "
        "there is no second agent on the host, somebody else has its password: register it anew.",
        {"client": _CLIENT, "peer": "address of the peer"},
        state=7,
        source=_TROUBLESHOOTING,
        is_failure=True,
    ),
    Entry(
        "RESTART_WITHOUT_EXIT",
        _SYSTEM,
        Severity.WARN,
        "Restart without prior exit",
        "An agent started again, and the one before had not said that it stops: it was killed, "
        "it crashed, or the host lost power.",
        "Look at the host: its own log, the kernel's log, its uptime. If nothing explains it, "
        "somebody may have stopped the agent to hide something. SIGTERM stops it cleanly.",
        {"client": _CLIENT, "peer": "address of the peer"},
        state=8,
        source=_TROUBLESHOOTING,
    ),
    Entry(
        "PRIOR_EXIT_CLAIMED",
        _SYSTEM,
        Severity.NOTICE,
        "Agent says that the one before it stopped, and could not tell",
        "An agent started again. The server heard nothing of the end of the one before; the new one "
        "says that it ended in order while no server could be reached, and that its reports will "
        "show it. Until they have, this is its word and nothing else.",
        "Nothing, if the server or the network was away when the agent stopped. "
        "PRIOR_EXIT_NOT_SHOWN follows where its reports do not show it.",
        {
            "client": _CLIENT,
            "peer": "address of the peer",
            "last": "when the agent before was last heard",
        },
    ),
    Entry(
        "PRIOR_EXIT_NOT_SHOWN",
        _SYSTEM,
        Severity.WARN,
        "Agent said that the one before it stopped, and has no report of that: {reason}",
        "An agent started again and said that the one before it ended in order (PRIOR_EXIT_CLAIMED). "
        "EXIT would have come before anything that the new one did, and it has not. Told once for "
        "each start.",
        "Look at the client's events. The service has a spool of its own, and so have init, check and "
        "update: if the one stopped while the server was away and the other one came first, EXIT "
        "comes with the next start of the one that stopped. If it never comes, this is a restart "
        "without prior exit that the agent denies: look at the host, somebody may have killed the "
        "agent to hide something.",
        {"client": _CLIENT, "reason": "what came instead"},
    ),
)

_INTEGRITY_ENTRIES: Final = (
    Entry(
        "POLICY_MODIFIED",
        _INTEGRITY,
        Severity.CRIT,
        "POLICY [{policy}] {change}",
        "A file differs from the baseline in something that its policy compares. The ten letters "
        "say what: C contents, L link, D device number, I inode, H hard links, M mode, U owner, "
        "G group, T time, S size.",
        "Find out who changed the file and why. If the change is right, make a new baseline "
        "(needfire-agent update --upload, needfire-admin baseline put). If not, treat the host as "
        "broken into.",
        {
            "policy": "the policy that decided",
            "change": "ten letters, - for unchanged",
            **_ATTRIBUTES,
            **_WHO,
        },
    ),
    Entry(
        "POLICY_ADDED",
        _INTEGRITY,
        Severity.CRIT,
        "POLICY ADDED",
        "A file is there that the baseline does not have.",
        "Find out what put it there. If it is right, make a new baseline; if such files come "
        "regularly, name them with IgnoreAdded.",
        {"policy": "the policy of its directory", **_ATTRIBUTES, **_WHO},
    ),
    Entry(
        "POLICY_MISSING",
        _INTEGRITY,
        Severity.CRIT,
        "POLICY MISSING",
        "A file of the baseline is gone.",
        "Find out what removed it. If that is right, make a new baseline; if such files go "
        "regularly, name them with IgnoreMissing.",
        {"policy": "the policy of the file", **_ATTRIBUTES, **_WHO},
    ),
    Entry(
        "POLICY_NODIRECTORY",
        _INTEGRITY,
        Severity.ERR,
        "POLICY NODIRECTORY",
        "A dir= line names something that is not a directory, nor a symbolic link to one.",
        "Name the directory itself, or use file= for a single object.",
        {"path": _PATH, "rule": "file and line of the rule"},
    ),
    Entry(
        "POLICY_ROOT_IS_LINK",
        _INTEGRITY,
        Severity.NOTICE,
        "A rule names a link: {resolved} is checked",
        "A dir= line names a symbolic link, as /bin is on many systems. The directory that it leads "
        "to is checked, by that line if no other covers it; the link itself is compared as what it "
        "is.",
        "Nothing. To have it said no more, name the directory itself, and the link with file=.",
        {
            "path": _PATH,
            "rule": "file and line of the rule",
            "link": "what the link says",
            "resolved": "the directory that it leads to",
        },
    ),
    Entry(
        "FILE_UNREADABLE",
        _INTEGRITY,
        Severity.ERR,
        "Not accessible: {reason}",
        "A file or directory that a policy covers could not be examined, so nothing is known "
        "about what it holds.",
        "Run the agent as root. If it does, look at the file system: a network mount, a damaged "
        "disk, a security module.",
        {"path": _PATH, "reason": "what the system said", "policy": "the policy that covers it"},
    ),
    Entry(
        "FILE_UNSTABLE",
        _INTEGRITY,
        Severity.WARN,
        "File changed while it was read",
        "A file changed during each of several attempts to hash it, so its digest is not known.",
        "A file that is always being written does not suit a policy that compares contents: use "
        "LogFiles or GrowingLogFiles for it.",
        {"path": _PATH, "policy": "the policy that covers it", "attempts": "how often it was read"},
    ),
    Entry(
        "WEIRD_FILENAME",
        _INTEGRITY,
        Severity.WARN,
        "Weird filename",
        "A name holds control characters, invisible characters, or bytes that are not UTF-8. "
        "Such names are a known way to hide files.",
        "Look at the file by its escaped name. If the name is right, cover it with IgnoreAll.",
        {"path": _PATH},
    ),
    Entry(
        "RULE_MATCHES_NOTHING",
        _INTEGRITY,
        Severity.WARN,
        "Rule matches nothing",
        "A rule of the configuration names a path that does not exist here, so it protects "
        "nothing.",
        "Correct the path, or take the rule out, or put it inside a condition for the hosts that "
        "have it.",
        {"path": _PATH, "rule": "file and line of the rule"},
    ),
    Entry(
        "COVERAGE_GAP",
        _INTEGRITY,
        Severity.WARN,
        "Real-time watching has a gap: {reason}",
        "Changes may have happened without being seen at once. That part is checked early, by "
        "itself: PART_CHECKED follows, or, where it is everything, CHECK_COMPLETED.",
        "Nothing, if it happens rarely. Of a queue that overflows or a limit that is reached: "
        "raise fs.fanotify.max_queued_events, fs.inotify.max_queued_events or "
        "fs.inotify.max_user_watches, or watch less.",
        {
            "reason": "what was lost",
            "scope": "the directory that is concerned",
            "from": "when everything had been seen last, UTC",
            "to": "when the gap was noticed, UTC",
        },
    ),
    Entry(
        "PART_CHECKED",
        _INTEGRITY,
        Severity.INFO,
        "Part checked early: {files} files, {changes} changes",
        "A directory was compared with the baseline to its bottom, out of turn: real-time watching "
        "had a gap there, or more changed at once than could be looked at one by one.",
        "Nothing.",
        {
            "scope": "the directory",
            "files": "objects that were looked at",
            "changes": "how many differed",
        },
    ),
    Entry(
        "REALTIME_STARTED",
        _INTEGRITY,
        Severity.NOTICE,
        "Real-time watching: {method}",
        "Says which of the three ways of watching is in use (fanotify, inotify, polling), and "
        "why nothing better is. Only fanotify can say who changed a file.",
        "Nothing. If the reason names a missing right, run the agent as root with CAP_SYS_ADMIN; "
        "RealTimeMethod chooses another way.",
        {
            "method": "fanotify, inotify, polling or none",
            "reason": "why the better ones are not used; empty for the best",
            "watched": "file systems (fanotify) or directories (the others) that are watched",
            "polled": "mount points that are looked at in turn, for nobody tells of changes there",
        },
    ),
    Entry(
        "REALTIME_SILENT",
        _ALARM,
        Severity.CRIT,
        "Real-time watching does not answer",
        "The agent changed a file of its own, or opened a directory that a rule begins at, and its "
        "watcher did not tell of it. Changes are seen by full checks only until it does. Watching "
        "is started anew by itself, and a check of everything follows; of a directory alone, the "
        "watches are gone through again, and a check of it follows.",
        "Look for COVERAGE_GAP and internal errors just before. If it comes again: look whether "
        "the host is short of processor time or memory, or whether somebody holds the agent up.",
        {
            "method": "how it watched",
            "path": "the file that was changed, or the directory that was opened",
            "since": "when the watcher answered last, UTC",
        },
        about="path",
    ),
    Entry(
        "REALTIME_ANSWERS",
        _ALARM,
        Severity.NOTICE,
        "Real-time watching answers again",
        "What the watcher had not told of (REALTIME_SILENT) comes back through it again.",
        "Nothing. What was not watched meanwhile is checked (COVERAGE_GAP, PART_CHECKED).",
        {"path": "the file that was changed, or the directory that was opened"},
        clears=("REALTIME_SILENT",),
        about="path",
    ),
    Entry(
        "CHECK_STARTED",
        _INTEGRITY,
        Severity.MARK,
        "File check starting.",
        "A check of all files begins, or of those that the rules of its groups cover.",
        "Nothing.",
        {
            "mode": "init, check or update",
            "groups": "groups of rules that it is for, where those are not all; -: of no group",
            "quick_groups": "groups of which it reads only files whose attributes have changed",
            "resumed_after": "it goes on behind this directory, where an earlier one was stopped",
        },
    ),
    Entry(
        "CHECK_COMPLETED",
        _INTEGRITY,
        Severity.MARK,
        "File check completed.",
        "A check of all files has ended, or of those that the rules of its groups cover. This is "
        "its receipt: what it saw, what it did not see and why, with which configuration, against "
        "which baseline. It is signed as every report is.",
        "Nothing. If skipped is not 0, look at skipped_why and at the events before it.",
        _RECEIPT,
    ),
    Entry(
        "CHECK_SAW_NOTHING",
        _INTEGRITY,
        Severity.ERR,
        "File check saw no files.",
        "A check has ended without one object that the rules cover being there. That is no "
        "success: nothing is protected. Such a check replaces no baseline.",
        "Correct the rules, or mount what they name: needfire-agent check-config shows the rules, "
        "and each rule that matches nothing was reported.",
        _RECEIPT,
    ),
    Entry(
        "BASELINE_INCOMPLETE",
        _INTEGRITY,
        Severity.WARN,
        "Baseline lacks the contents of {files} files",
        "A policy compares the contents of these files, but the baseline has no digest of them: "
        "it was made with another configuration, or they could not be read then. Their contents "
        "are not compared; everything else about them is.",
        "Make a new baseline with the present configuration (needfire-agent init, or update).",
        {"files": "how many"},
    ),
    Entry(
        "BASELINE_LACKS_ATTRIBUTES",
        _INTEGRITY,
        Severity.WARN,
        "Baseline lacks extended attributes of {files} files",
        "A policy compares ACLs, labels or other extended attributes of these files, but the "
        "baseline does not know them: it was made by an older version, with UseACLCheck, "
        "UseSelinuxCheck or UseXattrCheck off, or without the right to see them. They are not "
        "compared; everything else about the files is.",
        "Make a new baseline with the present configuration (needfire-agent init, or update).",
        {"files": "how many"},
    ),
    Entry(
        "NOTHING_TO_CHECK",
        _INTEGRITY,
        Severity.WARN,
        "No files or directories defined for checking",
        "The configuration has no rule that covers anything, so the agent protects nothing.",
        "Add dir= and file= lines under a policy such as [ReadOnly].",
        {"path": "the configuration"},
    ),
)

_AGENT_ENTRIES: Final = (
    Entry(
        "START",
        _SYSTEM,
        Severity.ALERT,
        "START",
        "The program started; path and hash say with which configuration, path_data and hash_data "
        "with which baseline.",
        "Nothing, if somebody started it.",
        {
            "program": "which program",
            "userid": "user id that it runs as",
            "path": "configuration",
            "hash": "digest of the configuration",
            "path_data": "baseline",
            "hash_data": "digest of the baseline",
            "version": "version of the program",
        },
        is_failure=False,
    ),
    Entry(
        "EXIT",
        _SYSTEM,
        Severity.ALERT,
        "EXIT",
        "The program stops and says so.",
        "Nothing, if somebody stopped it. An agent that is stopped protects nothing.",
        {
            "program": "which program",
            "status": "why it stops; None, as Samhain has it, where nothing is wrong",
        },
        is_failure=False,
    ),
    Entry(
        "SUSPEND",
        _SYSTEM,
        Severity.MARK,
        "SUSPEND",
        "The agent was told (SIGUSR2) to close its connection and wait.",
        "Wake it up with SIGUSR2 when the other agent of this host is done.",
        {"program": "which program"},
    ),
    Entry(
        "WAKEUP",
        _SYSTEM,
        Severity.MARK,
        "WAKEUP",
        "The agent was suspended, and a second SIGUSR2 woke it up.",
        "Nothing.",
        {"program": "which program"},
    ),
    Entry(
        "CONFIGURATION_RELOADED",
        _SYSTEM,
        Severity.CRIT,
        "Runtime configuration reloaded",
        "The program read its configuration again, because of SIGHUP or of a command.",
        "Nothing, if somebody asked for it.",
        {"path": "configuration", "hash": "digest of the configuration"},
        is_failure=False,
    ),
    Entry(
        "CONFIGURATION_UNUSABLE",
        _SYSTEM,
        Severity.CRIT,
        "Configuration not reloaded: {reason}",
        "The new configuration has an error. The program goes on with the one that it had.",
        "Correct the line that the reason names, check it with check-config, and reload again.",
        {"path": "configuration", "reason": "the first problem, with its line"},
    ),
    Entry(
        "CONFIGURATION_NOTICE",
        _SYSTEM,
        Severity.NOTICE,
        "Configuration: {text}",
        "A directive is known but has no effect here, or deserves a second look.",
        "Nothing, or take the line out.",
        {"text": "what there is to know", "path": "the file", "line": "the line"},
    ),
    Entry(
        "DOWNLOADING_CONFIGURATION",
        _TRAFFIC,
        Severity.INFO,
        "Downloading configuration file",
        "The agent asks the server for its configuration.",
        "Nothing.",
    ),
    Entry(
        "DOWNLOADING_BASELINE",
        _TRAFFIC,
        Severity.INFO,
        "Downloading database file",
        "The agent asks the server for its baseline.",
        "Nothing.",
    ),
    Entry(
        "FILE_DOWNLOAD_COMPLETED",
        _TRAFFIC,
        Severity.INFO,
        "File download completed",
        "A configuration or a baseline arrived whole.",
        "Nothing.",
        {"kind": "configuration or baseline", "bytes": "size", "hash": "digest"},
    ),
    Entry(
        "NO_FILE_FROM_SERVER",
        _SYSTEM,
        Severity.WARN,
        "No file from server, trying local file",
        "The server gave no configuration; the agent uses the last one that it has.",
        "Look at the event before this one for the reason.",
        {"path": "the local file"},
    ),
    Entry(
        "SESSION_KEY_NEGOTIATED",
        _TRAFFIC,
        Severity.INFO,
        "Session key negotiated",
        "Agent and server proved to each other that they know the secret, and have a new key.",
        "Nothing.",
        {"server": "address and port", "backend": "which arithmetic runs"},
    ),
    Entry(
        "SESSION_RESUMED",
        _TRAFFIC,
        Severity.INFO,
        "Session resumed",
        "The agent reconnected with the key that it has.",
        "Nothing.",
        {"server": "address and port"},
    ),
    Entry(
        "SESSION_KEY_EXPIRED",
        _TRAFFIC,
        Severity.NOTICE,
        "Session key expired, negotiating anew",
        "A session key is used for two hours at the most. No report is lost.",
        "Nothing.",
        {"server": "address and port"},
    ),
    Entry(
        "CONNECTION_REESTABLISHED",
        _TRAFFIC,
        Severity.NOTICE,
        "Connection reestablished",
        "The server can be reached again; waiting reports follow.",
        "Nothing.",
        {"server": "address and port", "waiting": "reports in the spool"},
    ),
    Entry(
        "SERVICE_FAILURE",
        _TRAFFIC,
        Severity.ERR,
        "Service failure",
        "The server cannot be reached. Reports wait in the spool on disk, and the agent tries "
        "again by itself.",
        "See the event before this one for the reason.",
        {"service": "always log server", "obj": "address and port", "retry_s": "seconds to wait"},
    ),
    Entry(
        "SPOOL_FULL",
        _ALARM,
        Severity.ERR,
        "Spool full, checking waits",
        "The spool has reached its limit because the server has been away for long. Nothing is "
        "thrown away: checking waits until there is room.",
        "Bring the server back, or raise SpoolSizeLimit.",
        {"bytes": "size of the spool", "limit": "its limit in bytes"},
    ),
    Entry(
        "SPOOL_HAS_ROOM",
        _ALARM,
        Severity.NOTICE,
        "Spool has room again",
        "The server took what the spool was full of. Checking goes on.",
        "Nothing.",
        {},
        clears=("SPOOL_FULL",),
    ),
    Entry(
        "SPOOL_UNWRITABLE",
        _ALARM,
        Severity.ERR,
        "Reports are kept in memory only: {reason}",
        "The disk does not take the reports that wait for the server: it is full, for example. The "
        "agent goes on. Reports go to the server from memory, and to the disk as soon as it takes "
        "them again; what the server has not taken when the process ends is lost. Where memory is "
        "full too, checking waits (SPOOL_FULL).",
        "Free space in the state directory's file system, or do what the reason asks for.",
        {"reason": "what the system said", "limit": "bytes of reports that memory takes at most"},
    ),
    Entry(
        "SPOOL_WRITABLE",
        _ALARM,
        Severity.NOTICE,
        "Reports are kept on disk again",
        "The spool's file takes reports again.",
        "Nothing. If REPORTS_LOST follows, see there.",
        {"moved": "reports that came to the file from memory; the server has the others"},
        clears=("SPOOL_UNWRITABLE",),
    ),
    Entry(
        "REPORTS_LOST",
        _ALARM,
        Severity.CRIT,
        "Reports lost: {reports}",
        "Neither disk nor memory had room for reports that could not wait, or the agent ended "
        "before they came to the server. Findings of checks are not among those that were refused: "
        "a check waits.",
        "The agent's own log has the events that did not arrive. A check after the next start "
        "finds again what still differs.",
        {"reports": "how many"},
    ),
    Entry(
        "PASSWORD_WEAK",
        _SYSTEM,
        Severity.WARN,
        "The password is short: {length} characters",
        "Someone who steals the server's store can guess a short password.",
        "Use needfire-admin gen-password.",
        {"length": "characters"},
    ),
    Entry(
        "BASELINE_WRITTEN",
        _PROVISIONING,
        Severity.NOTICE,
        "Baseline written",
        "The agent recorded what the files are.",
        "Put it on the server (needfire-admin baseline put) if the agent takes it from there.",
        {"path": "the file", "hash": "its digest", "files": "objects in it"},
    ),
    Entry(
        "CONFIGURATION_TAKEN",
        _PROVISIONING,
        Severity.NOTICE,
        "Configuration taken into use: {changed} settings are others",
        "The agent works with another configuration than before, since a reload or since its start. "
        "It is told whoever changed the file, and whether the agent ran then or not.",
        "Nothing, if the changes are what was meant. What the server gives its clients, it tells "
        "itself (CONFIGURATION_PUT).",
        {
            "path": "the file, or REQ_FROM_SERVER",
            "hash": "its digest",
            "hash_old": "digest of the one before",
            "changed": "directives with another value; 0 where only comments, or what does not hold "
            "for this host, have changed",
            **_SETTINGS,
        },
    ),
    Entry(
        "BASELINE_TAKEN",
        _PROVISIONING,
        Severity.NOTICE,
        "Baseline taken into use",
        "The agent compares with another baseline than before, since a reload or since its start.",
        "Nothing, if somebody put it in place. What differs between the two, the server tells where "
        "it comes from there (BASELINE_PUT, with the same digest).",
        {
            "path": "the file, or REQ_FROM_SERVER",
            "hash": "its digest",
            "hash_old": "digest of the one before",
            "files": "objects in it",
            "files_old": "objects in the one before",
        },
    ),
    Entry(
        "BASELINE_PROPOSED",
        _PROVISIONING,
        Severity.NOTICE,
        "Baseline proposed",
        "The agent offered a new baseline to the server. It replaces nothing by itself.",
        "Look at it (needfire-admin baseline list) and put it in place if it is right.",
        {"proposal": "its number on the server", "bytes": "size", "hash": "its digest"},
    ),
    Entry(
        "BASELINE_UNUSABLE",
        _PROVISIONING,
        Severity.ERR,
        "Baseline not usable: {reason}",
        "The baseline is damaged, of another kind, or does not belong here.",
        "Make a new one with needfire-agent init.",
        {"path": "the file", "reason": "what was found"},
    ),
    Entry(
        "COMMAND_RECEIVED",
        _ADMINISTRATION,
        Severity.NOTICE,
        "Command received: {command}",
        "The server told the agent to do something: reload, scan or stop.",
        "Nothing, if an administrator sent it.",
        {"command": "reload, scan or stop", "command_id": "its number on the server"},
    ),
    Entry(
        "REFUSED_BY_SERVER",
        _TRAFFIC,
        Severity.ERR,
        "Refused by the server: {reason}",
        "The server ended the connection and named the reason. Reports wait in the spool.",
        "See the reason, and the server's log for the same moment.",
        {"server": "address and port", "reason": "what the server said"},
    ),
    Entry(
        "TIMESTAMP",
        _SYSTEM,
        Severity.MARK,
        "---- TIMESTAMP ----",
        "The agent runs; it says so at every SetLoopTime, here in its own log and to the server.",
        "Nothing.",
    ),
    Entry(
        "SCAN_WORKER_DIED",
        _SYSTEM,
        Severity.ERR,
        "Scanning process ended: {reason}",
        "One of the processes that examine files ended before its time, could not be started, or "
        "was ended because the system had not answered it for a minute (a dead mount). "
        "What it had in hand is examined again; what ends a process again and again is reported "
        "as unreadable. Where one reached its share of ScanMemoryLimit, half as many go on, each "
        "with twice the share.",
        "Look in the system's log for the moment: memory that ran out, or a bug. Of "
        "ScanMemoryLimit: raise it, or lower ScanWorkers. Of the system: look at what is mounted "
        "at the path or in it.",
        {"reason": "how it ended", "path": "where it was at work, or near it"},
    ),
    Entry(
        "SCAN_STANDS_STILL",
        _INTEGRITY,
        Severity.ERR,
        "Scan waits for an answer at {path}",
        "For a minute the system has not answered what a scan asked of it: a network or FUSE mount "
        "is dead, or a disk is broken. Nothing further is checked, and changes that real-time "
        "watching tells of are not looked at, until it answers (SCAN_GOES_ON).",
        "Look at what is mounted there (findmnt), and mend or unmount it (umount -f); take what "
        "may be away out of the rules. A restart of the agent helps only until it comes there.",
        {
            "path": "the directory that it is at",
            "since": "when it began to wait, UTC",
        },
    ),
    Entry(
        "SCAN_GOES_ON",
        _INTEGRITY,
        Severity.NOTICE,
        "Scan goes on at {path}",
        "The system has answered a scan that stood still (SCAN_STANDS_STILL).",
        "Nothing. What changed meanwhile is looked at now.",
        {
            "path": "the directory that it was at",
            "since": "when it began to wait, UTC",
        },
    ),
    Entry(
        "SPOOL_DAMAGED",
        _ALARM,
        Severity.CRIT,
        "Spool damaged: {reason}",
        "The file with the reports that wait for the server cannot be trusted any more. It was "
        "set aside, and a new one begins; reports that were only in the old one did not arrive.",
        "Look at the disk and at who could write in the state directory. The agent's own log has "
        "the events that did not arrive; a full check finds again what still differs.",
        {"reason": "what was found", "path": "where the damaged file is now"},
    ),
    Entry(
        "LOCAL_STORAGE_FAILED",
        _SYSTEM,
        Severity.ERR,
        "Local storage failed: {reason}",
        "The agent cannot write one of its own files. It goes on and tries again.",
        "Free space, or repair the disk or the permissions that the reason names.",
        {"reason": "what the system said"},
    ),
    Entry(
        "AGENT_INTERNAL_ERROR",
        _SYSTEM,
        Severity.CRIT,
        "Internal error: {error}",
        "The program met something that it was not made for: a bug.",
        "Please report it with the details that the log has.",
        {"error": "kind of the error", "detail": "where it happened"},
    ),
)

_SERVER_ENTRIES: Final = (
    Entry(
        "SERVER_UP",
        _SYSTEM,
        Severity.MARK,
        "Server up, listening on {address}",
        "The server accepts connections.",
        "Nothing.",
        {"address": "address and port", "backend": "which arithmetic log-ins use"},
    ),
    Entry(
        "NEW_CONNECTION",
        _TRAFFIC,
        Severity.INFO,
        "New connection",
        "A peer opened a connection.",
        "Nothing.",
        {"peer": "address and port of the peer"},
    ),
    Entry(
        "CONNECTION_CLOSED",
        _TRAFFIC,
        Severity.INFO,
        "Connection closed: {reason}",
        "A connection ended.",
        "Nothing.",
        {"client": _CLIENT, "peer": "address and port of the peer", "reason": "why"},
    ),
    Entry(
        "CONNECTION_TIMEOUT",
        _TRAFFIC,
        Severity.CRIT,
        "Connection timeout",
        "A connection gave nothing for too long and was closed.",
        "Look at the network, or raise SetConnectionTimeout.",
        {"client": _CLIENT, "peer": "address and port of the peer", "limit_s": "seconds"},
        is_failure=True,
    ),
    Entry(
        "TOO_MANY_CONNECTIONS",
        _TRAFFIC,
        Severity.ERR,
        "Too many connections",
        "A limit of open or of not yet authenticated connections was reached; the connection was "
        "closed at once.",
        "If the peers are yours, spread them over several servers.",
        {"peer": "address of the peer", "limit": "the limit"},
        is_failure=True,
    ),
    Entry(
        "NEW_CLIENT",
        _TRAFFIC,
        Severity.NOTICE,
        "NEW CLIENT",
        "A client negotiated its first session key since it last stopped.",
        "Nothing.",
        {"client": _CLIENT, "peer": "address of the peer"},
    ),
    Entry(
        "CLIENT_RESUMED",
        _TRAFFIC,
        Severity.INFO,
        "Client resumed its session",
        "A client reconnected with the session key that it has.",
        "Nothing.",
        {"client": _CLIENT, "peer": "address of the peer"},
    ),
    Entry(
        "CLIENT_RETURNED",
        _ALARM,
        Severity.NOTICE,
        "Client returned",
        "A client that had been reported as silent or dead speaks again.",
        "Nothing.",
        {"client": _CLIENT},
        clears=("TIME_EXCEEDED", "STOPPED_WITHOUT_GOODBYE"),
    ),
    Entry(
        "TIME_EXCEEDED",
        _ALARM,
        Severity.CRIT,
        "Time limit exceeded",
        "Nothing was heard from a client for longer than SetClientTimeLimit.",
        "Look at the host and at the network between. The client reports its return by itself.",
        {"client": _CLIENT, "limit_s": "seconds", "last": "when it was last heard"},
    ),
    Entry(
        "STOPPED_WITHOUT_GOODBYE",
        _ALARM,
        Severity.ERR,
        "Stopped without goodbye",
        "An agent that said neither that it stops nor that it pauses has been silent for longer "
        "than SilenceLimit: it was killed, it crashed, or its host or the network went down.",
        "Look at the host and at the network between. Whoever wants to work unseen kills the "
        "agent first. Its return is reported.",
        {
            "client": _CLIENT,
            "silent_s": "seconds since it was last heard",
            "last": "when it was last heard",
            "connection": "open or closed",
        },
    ),
    Entry(
        "CLONE_DETECTED",
        _ALARM,
        Severity.CRIT,
        "Clone detected: two agents with one identity",
        "Two agents that have the name and the password of one client live at the same time, and "
        "they do not run on one host: a machine was copied with its state directory, or the "
        "password is known to somebody else.",
        "Find both addresses. If one is a copy of yours, register it under its own name and remove "
        "the state directory on it. If one is not yours, register the client anew at once: its "
        "password got out.",
        {
            "client": _CLIENT,
            "address": "where one of them connects from",
            "boot_id": "what the kernel there calls its boot",
            "other_address": "where the other one connects from",
            "other_boot_id": "what the kernel there calls its boot",
            "reason": "what gave them away",
        },
    ),
    Entry(
        "AGENT_RESTORED",
        _ALARM,
        Severity.WARN,
        "Agent restored from an earlier state",
        "An agent numbers new reports as it numbered others before: its state directory, or the "
        "whole machine, was set back to an earlier state, from a snapshot or a backup. It was told "
        "to begin a new numbering; no report is lost.",
        "Nothing, if somebody restored the machine. If nobody did, find out who can: setting a "
        "machine back removes traces. If Clone detected follows, a copy runs as well.",
        {
            "client": _CLIENT,
            "peer": "address of the peer",
            "boot_id": "what the kernel there calls its boot",
            "sequence": "the first number that came twice with different contents",
        },
    ),
    Entry(
        "CLOCK_MOVED",
        _ALARM,
        Severity.WARN,
        "Clock moved by {seconds} s",
        "The clock of a client's host was put forward (or back, if negative) between two "
        "heartbeats, by more than ClockLimit. The times in its reports moved with it.",
        "Nothing, if somebody set the clock or it had gone wrong. Else look at the host: a clock "
        "that is put back makes changes look old. received says when a report arrived here.",
        {"client": _CLIENT, "seconds": "how far, by the server's clock that never jumps"},
    ),
    Entry(
        "CLOCK_DIFFERS",
        _ALARM,
        Severity.WARN,
        "Clock differs from the server's by {seconds} s",
        "The clocks of a client's host and of the server differ by more than ClockLimit; told once "
        "until they agree again.",
        "Let both follow NTP.",
        {"client": _CLIENT, "seconds": "the client's minus the server's"},
    ),
    Entry(
        "CLOCK_AGREES",
        _ALARM,
        Severity.NOTICE,
        "Clock agrees with the server's again",
        "The clock of a client that was too far from the server's (CLOCK_DIFFERS) is not any more.",
        "Nothing.",
        {"client": _CLIENT},
        clears=("CLOCK_DIFFERS",),
    ),
    Entry(
        "CLOCK_UNSTEADY",
        _ALARM,
        Severity.WARN,
        "Clock moves all the time: {count} changes were not told",
        "The clock of a client's host moved, or differed from the server's, so often that not all "
        "of it was told (CLOCK_MOVED, CLOCK_DIFFERS): ten times at once and once in ten minutes are. "
        "Summed up every ten minutes.",
        "No clock does that by itself. Look at the host: somebody plays with its clock, or speaks "
        "to this server in the agent's place.",
        {"client": _CLIENT, "count": "what was not told in these ten minutes"},
    ),
    Entry(
        "SERVER_CLOCK_MOVED",
        _ALARM,
        Severity.WARN,
        "Clock of the server moved by {seconds} s",
        "The clock of the log host was put forward (or back, if negative) while the server ran. "
        "Times of receipt moved with it.",
        "Let it follow NTP. If nobody set it, look at the log host.",
        {"seconds": "how far, by the clock that never jumps"},
    ),
    Entry(
        "FORCE_AUTHENTICATION",
        _TRAFFIC,
        Severity.INFO,
        "Force authentication",
        "A session key is too old; the client has to negotiate a new one.",
        "Nothing.",
        {"client": _CLIENT, "peer": "address of the peer"},
    ),
    Entry(
        "SESSION_IN_USE",
        _TRAFFIC,
        Severity.NOTICE,
        "Session in use by another agent",
        "An agent whose session was taken over asked for a new one while the other agent of the "
        "same name is still there. It was told to wait.",
        "Run one agent a host.",
        {"client": _CLIENT, "peer": "address of the peer"},
        is_failure=True,
    ),
    Entry(
        "MSG_SIGNATURE_MISMATCH",
        _TRAFFIC,
        Severity.CRIT,
        "Invalid connection attempt: Msg signature mismatch",
        "A report came whose own signature is wrong, inside a valid session. The agent's code is "
        "broken or somebody tampers with it.",
        "Look at the host. The report was not taken.",
        {"client": _CLIENT, "peer": "address of the peer"},
    ),
    Entry(
        "PROTOCOL_ERROR",
        _TRAFFIC,
        Severity.ERR,
        "Protocol error: {reason}",
        "A peer sent something that is not the protocol, or breaks one of its limits. The "
        "connection was closed.",
        "If the peer is one of yours, check its version. Otherwise something else talks to this "
        "port: a scanner, a health check of a load balancer.",
        {
            "client": _CLIENT,
            "peer": "address and port of the peer",
            "reason": "what was found and what was expected",
        },
    ),
    Entry(
        "REPORT_UNUSABLE",
        _TRAFFIC,
        Severity.ERR,
        "Report not usable: {reason}",
        "A report with a valid signature is not an event. It was kept as it came, so that the "
        "client does not send it for ever.",
        "Check the versions of agent and server. An agent that sends such reports may be broken "
        "into.",
        {
            "client": _CLIENT,
            "reason": "what was found",
            "sequence": "number of the first one",
            "count": "how many in one batch",
        },
    ),
    Entry(
        "CLIENT_HELD_BACK",
        _ALARM,
        Severity.WARN,
        "Client is held back: more {what} than {limit}",
        "A client asks for more than its share. The server reads on from it only as fast as its "
        "quota allows. Its reports wait in its spool; none is lost, and other clients notice "
        "nothing.",
        "Find out what the host is doing: an upgrade, a policy with too many files, or an agent "
        "that is broken into. For more, see AgentReportRate and AgentByteRate.",
        {
            "client": _CLIENT,
            "what": "of what it is too much",
            "limit": "what the quota is",
        },
    ),
    Entry(
        "CLIENT_HELD_BACK_ENDED",
        _ALARM,
        Severity.NOTICE,
        "Client is no longer held back; {reports} reports waited, {waited_s} of {seconds} s",
        "A client keeps to its quota again. What was held back has come by now, or is in its "
        "spool.",
        "Nothing.",
        {
            "client": _CLIENT,
            "seconds": "from its first wait to its last",
            "waited_s": "seconds of waiting in them",
            "reports": "reports that came later than they would have",
        },
        clears=("CLIENT_HELD_BACK",),
    ),
    Entry(
        "RELAY_REFUSED",
        _ALARM,
        Severity.CRIT,
        "Client tried to speak for others",
        "A client sent reports of others, or wanted to, and the configuration does not allow it "
        "to. Nothing of it was taken. Told at most once an hour.",
        "If it is a server that passes reports on, add RelayClient = NAME under [Clients]. If it is "
        "an ordinary agent, somebody has its password: look at the host, and register it anew.",
        {"client": _CLIENT, "peer": "address of the peer"},
    ),
    Entry(
        "RELAYED_REPORTS_REFUSED",
        _ALARM,
        Severity.ERR,
        "Relayed reports refused: {reason}",
        "A relay passed on reports that have been at this server before, or that have passed too "
        "many relays: servers pass reports on in a circle. They are not stored again. Told at most "
        "once an hour.",
        "Look at the outputs with the target relay, here and at the client, and take the wrong "
        "one out.",
        {"client": "the relay", "reason": "what was found", "count": "how many in the first batch"},
    ),
    Entry(
        "RELAYED_CLIENTS_TOO_MANY",
        _ALARM,
        Severity.ERR,
        "Relay speaks for more than {limit} clients",
        "More clients report through a relay than states are kept of. The reports of all are "
        "stored; status does not show those that came too late. Told at most once an hour.",
        "If there are not that many, the relay makes them up: look at its host. If there are, use "
        "another relay for some of them.",
        {"client": "the relay", "limit": "how many states are kept"},
    ),
    Entry(
        "SEQUENCE_GAP",
        _ALARM,
        Severity.CRIT,
        "Reports missing: sequence jumped from {last} to {next}",
        "A client's reports are numbered without gaps, and some numbers never came.",
        "Look at the host: its spool was removed or changed.",
        {"client": _CLIENT, "last": "last number that came", "next": "number that came now"},
    ),
    Entry(
        "FILE_TRANSFER_COMPLETED",
        _PROVISIONING,
        Severity.INFO,
        "File transfer completed",
        "A client fetched its configuration or its baseline.",
        "Nothing.",
        {"client": _CLIENT, "path": "the file", "kind": "configuration or baseline"},
    ),
    Entry(
        "BASELINE_PROPOSAL_RECEIVED",
        _PROVISIONING,
        Severity.NOTICE,
        "Baseline proposal received",
        "A client offered a new baseline. It replaces nothing until an administrator puts it in "
        "place.",
        "needfire-admin baseline diff NAME --proposal ID shows what it changes; needfire-admin baseline put NAME "
        "--proposal ID puts it in place.",
        {"client": _CLIENT, "proposal": "its number", "bytes": "size", "hash": "its digest"},
    ),
    Entry(
        "PROPOSAL_REFUSED",
        _PROVISIONING,
        Severity.WARN,
        "Baseline proposal refused: {reason}",
        "A client offered a baseline that the server does not take.",
        "See the reason.",
        {"client": _CLIENT, "reason": "why"},
        is_failure=True,
    ),
    Entry(
        "COMMAND_QUEUED",
        _ADMINISTRATION,
        Severity.NOTICE,
        "Command queued: {command}",
        "An administrator sent a command to a client.",
        "Nothing.",
        {
            "client": _CLIENT,
            "command": "the command",
            "command_id": "number",
            "user": "who",
            "request": _REQUEST,
        },
    ),
    Entry(
        "COMMAND_ACKNOWLEDGED",
        _ADMINISTRATION,
        Severity.NOTICE,
        "Command acknowledged: {command}",
        "A client took a command.",
        "Nothing.",
        {
            "client": _CLIENT,
            "command": "the command",
            "command_id": "number",
            "outcome": "result",
            "detail": "more about the result",
            "user": "who sent it",
            "request": _REQUEST,
        },
    ),
    Entry(
        "COMMAND_EXPIRED",
        _ADMINISTRATION,
        Severity.WARN,
        "Command expired: {command}",
        "A command was not answered in its time. It is not sent any more; where it was delivered, "
        "the client may have begun it.",
        "See needfire-admin status NAME; send it again if it is still wanted.",
        {
            "client": _CLIENT,
            "command": "the command",
            "command_id": "number",
            "user": "who sent it",
            "request": _REQUEST,
            "delivered": "when it was last sent to the client; empty: never",
        },
    ),
    Entry(
        "COMMAND_CANCELLED",
        _ADMINISTRATION,
        Severity.NOTICE,
        "Command cancelled: {command}",
        "An administrator took a command back before the client had answered it.",
        "Nothing.",
        {
            "client": _CLIENT,
            "command": "the command",
            "command_id": "number",
            "user": "who",
            "request": _REQUEST,
        },
    ),
    Entry(
        "STATUS_PAGE_FAILED",
        _SYSTEM,
        Severity.ERR,
        "Error writing HTML status",
        "The status page (HtmlStatusFile) cannot be written; said once until it can.",
        "See the reason. The directory must exist, and the server's user must be able to write in "
        "it.",
        {"path": "the page", "reason": "what the system said"},
        source="Samhain manual",
    ),
    Entry(
        "CLIENT_REGISTERED",
        _ADMINISTRATION,
        Severity.NOTICE,
        "Client registered",
        "An administrator registered a client, or gave it a new password.",
        "Nothing.",
        {
            "client": _CLIENT,
            "user": "who did it",
            "request": _REQUEST,
            "replaced": "whether it was registered before",
        },
    ),
    Entry(
        "CLIENT_REMOVED",
        _ADMINISTRATION,
        Severity.NOTICE,
        "Client removed",
        "An administrator removed a client; it can no longer log in.",
        "Nothing.",
        {"client": _CLIENT, "user": "who did it", "request": _REQUEST},
    ),
    Entry(
        "CLIENT_LISTED_TWICE",
        _SYSTEM,
        Severity.WARN,
        "Client listed twice",
        "A client has two verifiers: two lines under [Clients], or one there and one in the "
        "store. The field used says which one counts.",
        "Remove the one that does not belong to the password on the host.",
        {"client": _CLIENT, "used": "which entry counts", "other": "which one is ignored"},
        state=3,
    ),
    Entry(
        "REGISTRATION_UNREADABLE",
        _ALARM,
        Severity.ERR,
        "Registration cannot be used",
        "The store's key does not open the verifier of a client: its row was changed by somebody who "
        "can write the database, or the key that sealed it was given up (needfire-admin seal "
        "reset). The client cannot log in.",
        "Register the client anew and give its host the new password. If no key was given up, find "
        "out who has changed the database.",
        {"client": _CLIENT},
    ),
    Entry(
        "VERIFIERS_SEALED",
        _ADMINISTRATION,
        Severity.NOTICE,
        "Verifiers sealed in the store: {count}",
        "The verifiers of clients lay plain in the store, as older versions kept them; now they are "
        "sealed with the seal key. Without that key no client can log in.",
        "Keep a copy of the key, apart from backups of the store. Copies of the store from before, "
        "needfire.sqlite.vN.backup in the data directory among them, have the verifiers plain: "
        "delete them once you will not go back.",
        {"count": "verifiers", "key": _KEY_ID},
    ),
    Entry(
        "SEAL_KEY_CHANGED",
        _ADMINISTRATION,
        Severity.WARN,
        "Seal key of the store changed",
        "Verifiers and sessions in the store are sealed with another key now: by needfire-admin seal "
        "rotate, or because the service manager has brought one.",
        "Keep a copy of the new key, and the old one as long as you keep backups of the store from "
        "before. Give the new one to all servers on the store.",
        {"key": _KEY_ID, "before": "the one before", "count": "verifiers", "user": "who did it"},
    ),
    Entry(
        "SEAL_KEY_LOST",
        _ALARM,
        Severity.ERR,
        "Seal key of the store given up",
        "The key was lost, and needfire-admin seal reset has put a new one in its place. Clients that "
        "are registered in the store cannot log in.",
        "Register each of them anew; each is named by Registration cannot be used.",
        {"key": _KEY_ID, "before": "the one before", "count": "clients", "user": "who did it"},
    ),
    Entry(
        "CONFIGURATION_PUT",
        _PROVISIONING,
        Severity.NOTICE,
        "Configuration put in place",
        "An administrator put a configuration in place for a client or for all. The difference is "
        "to what the client, or all, got before.",
        "Nothing, if the difference is what was meant. The client takes it at its next start or "
        "reload.",
        {
            "client": _CLIENT,
            "path": "the file",
            "hash": "digest",
            "user": "who did it",
            "request": _REQUEST,
            **_REPLACED,
            "added": "lines that are new",
            "removed": "lines that are gone",
            "diff": "the lines, in the unified form of diff; what looks like a secret is masked. "
            f"{_LINES_JOINED}",
            "diff_left_out": "lines of diff for which there was no room",
        },
    ),
    Entry(
        "BASELINE_PUT",
        _PROVISIONING,
        Severity.NOTICE,
        "Baseline put in place",
        "An administrator put a baseline in place for a client or for all: from then on it says "
        "what is right. The difference is to what the client, or all, got before.",
        "Nothing, if the difference is what was meant. The client takes it at its next start or "
        "reload.",
        {
            "client": _CLIENT,
            "path": "the file",
            "hash": "digest",
            "user": "who did it",
            "request": _REQUEST,
            "proposal": "number of the client's proposal that it was",
            **_REPLACED,
            "added": "objects that the one before did not have",
            "removed": "objects that only the one before had",
            "modified": "objects that are recorded otherwise, in more than their last access",
            "diff": "the first 20 of each, as A path, D path and M path, in the order of the "
            f"baseline. {_LINES_JOINED}",
            "diff_left_out": "changes that are not named there",
        },
    ),
    Entry(
        "SETTINGS_CHANGED",
        _PROVISIONING,
        Severity.NOTICE,
        "Settings changed: {changed}",
        "The server's configuration file says something else than when this server read it last, at "
        "a reload or at its last start. What was changed while it did not run is told at its start. "
        "A server that starts for the first time only notes what it has.",
        "Nothing, if the changes are what was meant. Who changed the file, the system's own records "
        "say: the server sees only the result.",
        {
            "path": "the configuration",
            "hash": "its digest",
            "hash_old": "digest of the one before",
            "changed": "directives with another value; 0 where only a comment differs, or what is "
            "never shown: a password, the address of a web hook",
            **_SETTINGS,
        },
    ),
    Entry(
        "SOFTWARE_CHANGED",
        _PROVISIONING,
        Severity.NOTICE,
        "Software changed: {program} {version_old} is now {version}",
        "The server was started with another version than before, or a client logged in with "
        "another one than the server has seen of it last.",
        "Nothing, if somebody installed it.",
        {
            "client": f"{_CLIENT}; none where it is the server itself",
            "program": "needfire-server or needfire-agent",
            "version": "the version that runs now",
            "version_old": "the version of before",
        },
    ),
    Entry(
        "CATALOGUE_CHANGED",
        _PROVISIONING,
        Severity.NOTICE,
        "Catalogue of events changed",
        "The server has another catalogue of events than when it ran last: messages are new, gone "
        "or have other words, severities or fields. Comes with another version of the program.",
        "Look whether filters of events, or what reads them, name one of these codes. If the version "
        "is the same as before, somebody changed the program: install it anew.",
        {
            "hash": "digest of the catalogue",
            "hash_old": "digest of the one before",
            "added": "codes that are new",
            "removed": "codes that are gone",
            "modified": "codes that mean something else now, or are told otherwise",
            "diff": "the codes, as A CODE, D CODE and M CODE; \\x0a is the end of a line",
            "diff_left_out": "codes that are not named there",
        },
    ),
    Entry(
        "ADMIN_REFUSED",
        _ADMINISTRATION,
        Severity.CRIT,
        "Admin socket: refused user {uid}",
        "Somebody without the right to steer the server connected to its admin socket.",
        "If the user may, give them a role: RoleAdministrators, RoleAgents or RoleAuditors. Each user "
        "is told once a minute, and all of them together 20 times at once and once a minute.",
        {
            "uid": "user id of the peer",
            "untold": "users of whom nothing was told since the last one",
        },
        is_failure=True,
    ),
    Entry(
        "AUTHZ_FAIL",
        _ADMINISTRATION,
        Severity.WARN,
        "Authorization failed: {user} may not do this: {operation} (resource: {resource})",
        "A user who has a role on the admin socket asked for something that needs another one.",
        "If the user should be able to, add them to that role in the server's configuration; if "
        "not, ask why they tried.",
        {
            "user": "who asked",
            "uid": "user id of the peer",
            "resource": "what it was about",
            "operation": "what was to be done with it",
            "role": "what it needs",
        },
        is_failure=True,
    ),
    Entry(
        "ADMIN_LOCKED",
        _ALARM,
        Severity.ERR,
        "Admin socket: {user} is locked out until {until}",
        "A user was refused so often in a row (AdminFailuresMax) that nothing of theirs is "
        "looked at for some time (AdminLockTime).",
        "needfire-admin events --code AUTHZ_FAIL says what was asked for. Ask the user; a program "
        "that runs as this user may be doing it.",
        {"user": "who is locked out", "uid": "user id", "until": "end of the lock, UTC"},
        about="user",
    ),
    Entry(
        "ADMIN_UNLOCKED",
        _ALARM,
        Severity.NOTICE,
        "Admin socket: {user} is no longer locked out",
        "The time for which a user of the admin tool was locked out has gone by.",
        "Nothing.",
        {"user": "name of the user", "uid": "user id"},
        clears=("ADMIN_LOCKED",),
        about="user",
    ),
    Entry(
        "ROLE_MEMBER_UNKNOWN",
        _SYSTEM,
        Severity.WARN,
        "Configuration: {name} is neither a user nor a group of this system",
        "The server's configuration gives a role to somebody whom the system does not know. "
        "Nobody has the role because of this line.",
        "Correct the name, or make the user or group; then reload the server (SIGHUP).",
        {"name": "what stands in the configuration", "path": "the configuration"},
    ),
    Entry(
        "AUDIT_LOG_TAMPERED",
        _ALARM,
        Severity.CRIT,
        "Audit log: {verdict} at record {record}",
        "The audit log in the store is not what was signed, or not what the server read before: "
        "somebody who can write on the log host changed it, or the disk did.",
        "Keep a copy of the data directory before anything else. Run needfire-admin audit verify "
        "--store, with a key and a checkpoint that were kept elsewhere (each agent keeps one in "
        "its state directory, audit-checkpoint; what the log contradicts is beside the store, "
        "audit/evidence-N.checkpoint). Find out who could write there. An export from before shows "
        "what the record said. Until the store holds again what was signed (restored from an export "
        "or a backup; of what was inserted, the rows deleted that verify names), the server does not "
        "vouch for its log to agents, and each of them raises AUDIT_LOG_INCONSISTENT. It looks again "
        "by itself, and says so with AUDIT_LOG_INTACT. Each start tells it again until somebody who "
        "has looked into it says needfire-admin audit accept --note TEXT.",
        {
            "verdict": "changed, removed, inserted, reordered, cut off, wrong key or missing "
            "checkpoint",
            "record": "number of the first bad record",
            "record_last": "the last one that it may be",
            "reason": "what was found",
        },
    ),
    Entry(
        "AUDIT_LOG_INTACT",
        _SYSTEM,
        Severity.NOTICE,
        "Audit log: intact again, was wrong from record {record}",
        "The audit log in the store is what was signed again, and what the server read before "
        "AUDIT_LOG_TAMPERED. It vouches for its log to agents again.",
        "Find out who mended it, and who did what had to be mended. The alarm AUDIT_LOG_TAMPERED "
        "holds until somebody accepts what was found (needfire-admin audit accept --note TEXT).",
        {"record": "number of the first record that was bad"},
    ),
    Entry(
        "AUDIT_LOG_INCONSISTENT",
        _ALARM,
        Severity.CRIT,
        "Audit log of the server is not the one of before",
        "The checkpoint of its audit log that the server shows does not go on from the one that "
        "this agent has kept: the server's history was rewritten or cut off, an older copy of its "
        "store was put in place, or somebody else answers as the server. Each agent notices by "
        "itself; a server that was set up anew is noticed once by all of them. Where the server has "
        "no proof, it may be that it knows its store to be tampered with (AUDIT_LOG_TAMPERED): the "
        "agent keeps the checkpoint of before, asks again with each new one, and tells it again "
        "once a day until AUDIT_LOG_CONSISTENT. After any other contradiction it goes on with the "
        "new log.",
        "Find out whether the server's store was restored or made anew on purpose. If not, keep "
        "copies of the server's data directory and of this agent's audit-evidence directory, and "
        "run on the server: needfire-admin audit verify --store --checkpoint FILE, with the file "
        "that evidence names. It says whether what the agent saw is still in the log, and if not, "
        "what is wrong.",
        {
            "reason": "what does not fit",
            "size": "records of the log that is shown now",
            "kept_size": "records of the log that was kept",
            "evidence": "file with both checkpoints",
        },
        about="kept_size",
    ),
    Entry(
        "AUDIT_LOG_CONSISTENT",
        _ALARM,
        Severity.NOTICE,
        "Audit log of the server goes on from the one of before",
        "The server has proved that its audit log is the one that this agent has kept, and more. It "
        "did not when it was asked before.",
        "Nothing, where you know what was mended on the server. Else find out there: "
        "needfire-admin events --code AUDIT_LOG_TAMPERED.",
        {
            "size": "records of the log that is shown now",
            "kept_size": "records of the log that was kept",
        },
        clears=("AUDIT_LOG_INCONSISTENT",),
        about="kept_size",
    ),
    Entry(
        "AUDIT_FINDING_ACCEPTED",
        _ALARM,
        Severity.NOTICE,
        "Audit log: what was found wrong is accepted by {user}",
        "Somebody with the role for it has looked into what the server found wrong with its audit "
        "log, and ended it (needfire-admin audit accept). From here on the log counts as it is.",
        "If you do not know of it, ask who did it, and why. Copies of what the log contradicted are "
        "in the data directory, audit/evidence-N.checkpoint: verify an export with them.",
        {
            "verdict": "what was found",
            "record": "number of the first bad record",
            "reason": "what was found, and when",
            "note": "what the user said about it",
            "user": "who accepted it",
            "request": "the request of the admin tool",
        },
        clears=("AUDIT_LOG_TAMPERED",),
    ),
    Entry(
        "AUDIT_KEY_MISSING",
        _ALARM,
        Severity.ALERT,
        "Audit log not signed: {reason}",
        "The private key of the audit log cannot be used, or a checkpoint cannot be kept. Records "
        "are kept on, but nothing signs them: until then nobody can tell whether they were changed. "
        "Everybody who is logged in and every output that takes alerts is told until it is mended.",
        "Put the file back from a backup, or copy it from the server that has it (after audit "
        "rotate the one that was asked), with mode 0600 and the server's user as its owner; or mend "
        "what the reason names. The server tries again every few seconds; what was recorded "
        "meanwhile is signed then.",
        {"reason": "which file, and what is wrong with it"},
    ),
    Entry(
        "AUDIT_LOG_SIGNED",
        _ALARM,
        Severity.NOTICE,
        "Audit log signed again",
        "What could not be signed before is signed now.",
        "Nothing.",
        clears=("AUDIT_KEY_MISSING",),
    ),
    Entry(
        "AUDIT_LOG_FAILED",
        _ALARM,
        Severity.ALERT,
        "Audit log not written: {reason}",
        "The audit log cannot be written. Nothing is done off the record, so nothing else can be "
        "written either: agents keep their reports, and requests that would change something are "
        "refused. Everybody who is logged in and every output that takes alerts is told until it is "
        "mended.",
        "Mend what the reason names; the server goes on by itself. Where it says that somebody put "
        "a record into the database, the log was tampered with: keep a copy of the data directory, "
        "let needfire-admin audit verify --store name the record (inserted), and delete its row from "
        "the table audit_records.",
        {"reason": "what the system said", "path": "the store"},
    ),
    Entry(
        "AUDIT_LOG_RECOVERED",
        _ALARM,
        Severity.NOTICE,
        "Audit log written again",
        "The audit log can be written again.",
        "Nothing.",
        {"path": "the store"},
        clears=("AUDIT_LOG_FAILED",),
    ),
    Entry(
        "AUDIT_KEY_MADE",
        _SYSTEM,
        Severity.NOTICE,
        "Audit log begun",
        "A record of the audit log only: the first one, with the public key that signs the log.",
        "Note the key down on another host (needfire-admin audit keys): with it the log can be "
        "verified without trusting this one.",
        {"key": "the public key"},
    ),
    Entry(
        "AUDIT_KEY_HANDED_OVER",
        _ADMINISTRATION,
        Severity.NOTICE,
        "Audit log has a new key",
        "Somebody gave the audit log a new key. The old key signed that, and its private half was "
        "deleted.",
        "If you did not do it, look who ran needfire-admin audit rotate, and at the records "
        "before. Note the new key down beside the old ones.",
        {
            "key": "the new public key",
            "signature": "of the old key, over the new one; in the record only",
        },
    ),
    Entry(
        "REPORTS_RECEIVED",
        _TRAFFIC,
        Severity.INFO,
        "Reports received",
        "A record of the audit log only: a batch of reports of a client arrived and is stored.",
        "Nothing to do. With the digest you can show later that the stored reports are those "
        "that came.",
        {
            "stream": "identifier of the client's spool",
            "first": "number of the first report",
            "last": "number of the last report",
            "count": "reports in the batch",
            "accepted": "those that were new and could be read",
            "sha256": "SHA-256 over each body behind its length (4 bytes, big-endian)",
        },
    ),
    Entry(
        "ADMIN_REQUEST",
        _ADMINISTRATION,
        Severity.INFO,
        "Request of the admin tool: {verb}",
        "A record of the audit log only: a user of the admin tool asked for something. It was "
        "recorded before it was done, so its outcome is asked. All records of one request have the "
        "same request id: where none of them is ADMIN_REQUEST_FAILED, it was done, unless the server "
        "ended meanwhile.",
        "Nothing to do.",
        {
            "verb": "what was asked for",
            "arguments": "with what, as JSON; long values are cut, and secrets are left out",
            "file_bytes": "size of the file that came along",
        },
    ),
    Entry(
        "ADMIN_REQUEST_FAILED",
        _ADMINISTRATION,
        Severity.WARN,
        "Request of the admin tool failed: {verb}",
        "A record of the audit log only: what a user asked for was refused or did not work.",
        "See the reason. The request id leads to the record of the request.",
        {"verb": "what was asked for", "reason": "why it was not done"},
        is_failure=True,
    ),
    Entry(
        "EVENTS_NOT_STORED",
        _ALARM,
        Severity.ERR,
        "{count} events were not stored",
        "More of the server's own events came than may wait for the store: while it could not be "
        "written, or about one client alone, which has a share of the places. They are in the log "
        "file, but neither in the store nor in the audit log.",
        "Look in the log file between 'Storage failed' and 'Storage works again', or for a client of "
        "which much is told.",
        {"count": "events that are missing"},
    ),
    Entry(
        "ALARM_CLEARED",
        _ALARM,
        Severity.NOTICE,
        "Alarm cleared: {alarm}",
        "Somebody cleared an alarm with needfire-admin alarms clear: it was looked into, or does not "
        "hold any more. Conditions that end are cleared by an event of their own (CLIENT_RETURNED and "
        "its like); what happened once, such as CLONE_DETECTED, only a person can clear.",
        "Nothing.",
        {
            "client": f"{_CLIENT}; empty where the alarm is about the server",
            "alarm": "code of the alarm",
            "about": "what of several the alarm is about: an output, a path, a user",
            "count": "events that it came in",
            "since": "when it came first, UTC",
            "user": "who cleared it",
            "request": _REQUEST,
            "note": "what they said about it",
        },
    ),
    Entry(
        "STORE_FAILED",
        _ALARM,
        Severity.ALERT,
        "Storage failed: {reason}",
        "The server cannot write its store. Nothing is acknowledged meanwhile, so agents keep "
        "their reports and lose nothing. Everybody who is logged in and every output that takes "
        "alerts is told until it works again; outputs get this record a second time from the store "
        "then, with the same id.",
        "Free space or repair the disk; the server goes on by itself.",
        {"reason": "what the system said", "path": "the store"},
    ),
    Entry(
        "CLASSES_SUSPENDED",
        _ALARM,
        Severity.ERR,
        "No room: events of {classes} are only logged",
        "There is no room for events, and DiskFullAction is suspend-class: what can be switched off "
        "is not stored for now, so that the rest gets what room there is.",
        "Make room where the store lies. It ends by itself.",
        {"classes": "the classes of events"},
    ),
    Entry(
        "CLASSES_RESUMED",
        _ALARM,
        Severity.NOTICE,
        "Events of {classes} are stored again",
        "There is room for events again.",
        "Nothing. What was only logged meanwhile stands in the log.",
        {"classes": "the classes of events"},
        clears=("CLASSES_SUSPENDED",),
    ),
    Entry(
        "STORE_RECOVERED",
        _ALARM,
        Severity.NOTICE,
        "Storage works again",
        "The store can be written again.",
        "Nothing.",
        {"path": "the store"},
        clears=("STORE_FAILED",),
    ),
    Entry(
        "FILES_TAKEN_OVER",
        _PROVISIONING,
        Severity.NOTICE,
        "Configurations and baselines taken over into the store",
        "The database had none, so the server put those of its data directory in place. From now "
        "on the store counts, for all servers on it; the files are not looked at any more.",
        "Nothing. Other servers that had files of their own: needfire-admin files import.",
        {"count": "files", "path": "the data directory"},
    ),
    Entry(
        "SEAL_KEY_DIFFERS",
        _ALARM,
        Severity.ERR,
        "Sessions in the store are sealed with another key",
        "The store holds sessions of agents that this server cannot open: they were sealed with a key "
        "of before verifiers were sealed too, or their rows were changed. No report is lost: the "
        "agents log in with their passwords.",
        "After an update, nothing. Else find out who has changed the database.",
        {},
    ),
    Entry(
        "RECORDS_EXPIRED",
        _SYSTEM,
        Severity.NOTICE,
        "Removed {count} records of {what}, stored from {oldest} to {newest}",
        "They were older than the configuration lets the server keep them. What was removed since "
        "the event before this one is counted in the same commit that removed it.",
        "Nothing. To keep more: RetainIntegrity and its like in the server's configuration.",
        {
            "what": "class of the events, or unusable_reports, or commands",
            "count": "how many",
            "oldest": "when the first of them was stored",
            "newest": "when the last of them was stored",
        },
    ),
    Entry(
        "ACCESS_LIST_NOTICE",
        _SYSTEM,
        Severity.WARN,
        "Access lists: {text}",
        "hosts.allow or hosts.deny has something that does not do what it seems to do.",
        "Correct the line that the text names. The lists are read at each connection.",
        {"text": "the list, its line, and what is wrong with it"},
        state=2,
    ),
    Entry(
        "LOG_FAILED",
        _ALARM,
        Severity.ERR,
        "Log file not writable: {reason}",
        "A log file cannot be written. The server goes on; its store has the events as well.",
        "Free space, or correct the owner and the mode of the file.",
        {"path": "the file", "reason": "what the system said"},
        about="path",
    ),
    Entry(
        "LOG_RECOVERED",
        _ALARM,
        Severity.ERR,
        "Log file writable again, {lost} lines were lost",
        "A log file could not be written for some time. What was lost here is in the store "
        "(needfire-admin events), as far as it is kept there.",
        "Nothing, if the cause is gone.",
        {"path": "the file", "lost": "lines that are missing before this one"},
        clears=("LOG_FAILED",),
        about="path",
        is_failure=False,
    ),
    Entry(
        "LOG_SUPPRESSED",
        _ALARM,
        Severity.WARN,
        "{count} messages suppressed",
        "One address caused so many messages that the rest of them was not logged.",
        "Find out what the address does. If it is one of yours, look at its agent; otherwise "
        "refuse it in hosts.deny or in the firewall.",
        {
            "peer": "the address, or the network of an IPv6 host; others for those that were "
            "not told apart",
            "count": "messages that were left out",
        },
        about="peer",
    ),
    Entry(
        "SERVER_INTERNAL_ERROR",
        _SYSTEM,
        Severity.CRIT,
        "Internal error: {error}",
        "The server met something that it was not made for: a bug. The connection where it "
        "happened was closed; all others go on.",
        "Please report it with the field detail.",
        {
            "error": "kind of the error",
            "detail": "where in the code it arose",
            "peer": "address and port of the peer",
        },
    ),
    Entry(
        "PRIVILEGES_DROPPED",
        _SYSTEM,
        Severity.INFO,
        "Privileges dropped",
        "The server was started as root and goes on as an ordinary user.",
        "Nothing.",
        {"user": "name of the user", "userid": "user id"},
    ),
)

_OUTPUT: Final = "name of the output in the configuration"

_OUTPUT_ENTRIES: Final = (
    Entry(
        "OUTPUT_FAILED",
        _ALARM,
        Severity.ERR,
        "Output {output} not delivered: {reason}",
        "The target of an output is away or does not take what it is sent. Events wait in the "
        "store; nothing is lost, and the server tries again, at least once a minute.",
        "Make the target work again, then nothing more is to do. What its configuration allows is "
        "tried with needfire-admin output test NAME; how much waits is in needfire-admin output "
        "list.",
        {"output": _OUTPUT, "target": "where it goes", "reason": "what the target or system said"},
        about="output",
    ),
    Entry(
        "OUTPUT_RECOVERED",
        _ALARM,
        Severity.NOTICE,
        "Output {output} delivers again",
        "The target of an output takes events again. What waited is sent in its order; what may "
        "have arrived before is marked as resent and has the same id.",
        "Nothing.",
        {"output": _OUTPUT, "target": "where it goes", "away_s": "seconds since it failed"},
        clears=("OUTPUT_FAILED",),
        about="output",
    ),
    Entry(
        "OUTPUT_REMARK",
        _ALARM,
        Severity.WARN,
        "Output {output} delivered, but: {reason}",
        "The target took what it was sent, and complained about a part of it; for example a mail "
        "relay about one of several recipients.",
        "Correct what the reason names, in the configuration or at the target.",
        {"output": _OUTPUT, "reason": "what the target said"},
        about="output",
    ),
    Entry(
        "OUTPUT_BUFFER_NEARLY_FULL",
        _ALARM,
        Severity.ERR,
        "Output {output}: {waiting} of {limit} events wait",
        "An output is so far behind that 80 % of its buffer (OutputBufferLimit) are used. Nothing "
        "is lost.",
        "Make the target work or faster, select fewer events for it, or raise OutputBufferLimit if "
        "the disk has room.",
        {"output": _OUTPUT, "waiting": "events that wait", "limit": "OutputBufferLimit"},
        about="output",
    ),
    Entry(
        "OUTPUT_BUFFER_FULL",
        _ALARM,
        Severity.CRIT,
        "Output {output}: its buffer is full, {waiting} of {limit} events wait",
        "An output is further behind than OutputBufferLimit. The events are in the store still and "
        "will be sent; the store keeps them for up to RetainForOutputs beyond their time.",
        "Make the target work or faster, select fewer events for it, or raise OutputBufferLimit if "
        "the disk has room.",
        {"output": _OUTPUT, "waiting": "events that wait", "limit": "OutputBufferLimit"},
        about="output",
    ),
    Entry(
        "OUTPUT_BUFFER_DRAINED",
        _ALARM,
        Severity.NOTICE,
        "Output {output} has caught up",
        "Less than half of the buffer of an output is used, after it was nearly full.",
        "Nothing.",
        {"output": _OUTPUT, "waiting": "events that wait", "limit": "OutputBufferLimit"},
        clears=("OUTPUT_BUFFER_NEARLY_FULL", "OUTPUT_BUFFER_FULL"),
        about="output",
    ),
    Entry(
        "OUTPUT_EVENTS_HELD",
        _ALARM,
        Severity.ERR,
        "Output {output}: {count} events are kept beyond their time until it has sent them",
        "An output is so far behind that events which it has not sent would have been removed by now "
        "(Retain...). They are kept for it up to limit_s seconds longer (RetainForOutputs); nothing is "
        "lost yet.",
        "Make the target work, or take the output out of the configuration if it is no longer needed: "
        "then the events go.",
        {"output": _OUTPUT, "count": "events that are kept", "limit_s": "RetainForOutputs"},
        about="output",
    ),
    Entry(
        "OUTPUT_EVENTS_RELEASED",
        _ALARM,
        Severity.NOTICE,
        "Output {output}: nothing is kept beyond its time for it any more",
        "An output has sent what was kept for it, or what was kept has been removed after all: "
        "then OUTPUT_EVENTS_LOST says so.",
        "Nothing.",
        {"output": _OUTPUT},
        clears=("OUTPUT_EVENTS_HELD",),
        about="output",
    ),
    Entry(
        "OUTPUT_EVENTS_LOST",
        _ALARM,
        Severity.CRIT,
        "Output {output}: {count} events were removed before they were sent",
        "The store no longer has events that an output had not sent. They are counted as dropped, "
        "whether its thresholds would have selected them or not.",
        "Raise RetainForOutputs or the retention of the store, and look why the target was away "
        "for so long.",
        {"output": _OUTPUT, "count": "events at most that it did not get"},
        about="output",
    ),
    Entry(
        "OUTPUT_RECORD_SKIPPED",
        _ALARM,
        Severity.ERR,
        "Output {output}: a record was refused for good and set aside: {reason}",
        "The target of an output refused a record for what it is, for example its size. It was set "
        "aside so that those behind it are not held up, and is kept. It is sent twice more by "
        "itself, after a minute and after ten; then it waits for a person. More may follow without "
        "another alarm, up to 1,000 of each client.",
        "needfire-admin output skipped NAME shows the records. Correct what the reason names, then "
        "needfire-admin output retry NAME, or give them up: needfire-admin output discard NAME.",
        {"output": _OUTPUT, "reason": "what the target said"},
        about="output",
    ),
    Entry(
        "OUTPUT_RECORDS_GIVEN_UP",
        _ALARM,
        Severity.CRIT,
        "Output {output}: {count} refused records of {about} are given up",
        "1,000 records of a client are set aside for an output already, and its target refuses more "
        "of them, while it takes those of others or nobody else's was tried. They count as dropped; "
        "the store has them still. Told of the 1st, 10th, 100th and so on.",
        "Look at what the client sends: needfire-admin output skipped NAME. See to what is set aside, "
        "then there is room again.",
        {
            "output": _OUTPUT,
            "about": "client whose records they are, or the server itself",
            "count": "records given up since the output began to work",
        },
        about="output",
    ),
    Entry(
        "OUTPUT_SKIPPED_HANDLED",
        _ALARM,
        Severity.NOTICE,
        "Output {output}: no record is set aside any more",
        "All records that a target had refused were sent or given up.",
        "Nothing.",
        {"output": _OUTPUT},
        clears=("OUTPUT_RECORD_SKIPPED",),
        about="output",
    ),
    Entry(
        "OUTPUT_SKIPPED_RETRIED",
        _ADMINISTRATION,
        Severity.NOTICE,
        "Output {output}: {sent} of the records that were set aside are sent, {refused} refused again",
        "An administrator sent records once more that a target had refused.",
        "Nothing, or what the reason asks for.",
        {
            "output": _OUTPUT,
            "user": "who did it",
            "request": _REQUEST,
            "sent": "records that were taken now",
            "refused": "records that were refused again; they stay set aside",
            "reason": "why not all were tried",
        },
    ),
    Entry(
        "OUTPUT_SKIPPED_DISCARDED",
        _ADMINISTRATION,
        Severity.NOTICE,
        "Output {output}: {count} records that were set aside are given up",
        "An administrator gave up records that a target had refused. They count as dropped.",
        "Nothing.",
        {"output": _OUTPUT, "user": "who did it", "request": _REQUEST, "count": "records"},
    ),
    Entry(
        "OUTPUT_TEST",
        _ADMINISTRATION,
        Severity.NOTICE,
        "Test of the output {output}",
        "An administrator asked for this record with needfire-admin output test. It is not stored.",
        "Nothing.",
        {"output": _OUTPUT, "user": "who asked for it"},
    ),
    Entry(
        "OUTPUT_TESTED",
        _ADMINISTRATION,
        Severity.NOTICE,
        "Output {output} tested: {outcome}",
        "An administrator sent a record to the target of an output as a test.",
        "Nothing, or what the reason asks for.",
        {
            "output": _OUTPUT,
            "user": "who did it",
            "request": _REQUEST,
            "outcome": "delivered, sent (nobody confirms it) or failed",
            "reason": "why it failed",
        },
    ),
)

_SSH_NUMBERED: Final = AlertForm()
_SSH_NUMBERED_CHANGE: Final = AlertForm(labels=MappingProxyType({"key_id": "Key Id"}))
_SSH_PLAIN: Final = AlertForm(shows_number=False)
_SSH_KEY_FIELDS: Final = {
    "host": "the host, by name and maybe number",
    "key_id": "number of the key",
    "path": "the key file, with unprintable bytes as \\xNN",
    "type": "algorithm and bits of the key",
    "fingerprint": "MD5 fingerprint, as OpenSSH shows it",
    "fingerprint_sha256": "SHA-256 fingerprint, as OpenSSH shows it; not in the alert line",
    "format": "form of the key file",
    "fingerprint_ssh1": "fingerprint of the same key as protocol 1 shows it",
    "message": "what exactly",
    "old_value": "what it was",
    "new_value": "what it is now",
    "value": "what was set",
}


def _ssh_alert(
    number: int,
    code: str,
    title: str,
    *,
    description: str,
    remedy: str,
    fields: Mapping[str, str],
    alert: AlertForm = _SSH_PLAIN,
    msg: str | None = None,
) -> Entry:
    return Entry(
        code,
        EventClass.INTEGRITY,
        Severity.WARN,
        title if msg is None else msg,
        description,
        remedy,
        fields,
        source=f"Key Manager Alerts, {number}",
        number=number,
        title=title,
        alert=alert,
        is_planned=True,
    )


_SSH_ENTRIES: Final = (
    _ssh_alert(
        100,
        "UNMANAGED_AUTHORIZED_KEY_FOUND",
        "Unmanaged authorized key found",
        description="This alert is raised when an authorized key (excluding keys added using Needfire) is "
        "newly discovered on a host in the managed state. This alert may be caused by authorized "
        "keys that were manually added to a managed host. As such, there is the possibility that "
        "these keys were set up without approval, to grant access for unauthorized people or "
        "machines. This alert may also be raised by authorized keys located on file systems that "
        "were inaccessible when the host was in the monitored state.",
        remedy="If you believe that the alert was caused by a key that was simply inaccessible during a "
        "host scan, you may dismiss the alert. Otherwise, review the key associated to the alert."
        " If you can verify that the target key enables an authorization that is approved by your"
        " corporation, then you should Approve the key via Needfire. Otherwise, you should use "
        "Needfire to blacklist or remove the key in order to prevent unauthorized access.",
        fields=_SSH_KEY_FIELDS,
        alert=_SSH_NUMBERED,
    ),
    _ssh_alert(
        101,
        "UNMANAGED_PRIVATE_KEY_FOUND",
        "Unmanaged private key found",
        description="This alert is raised when a private key (excluding keys added using Needfire) is newly "
        "discovered on a host in the managed state. This alert may be caused by private keys that"
        " were manually added to a managed host. As such, there is the possibility that these "
        "keys were set up without approval, to grant access for unauthorized people or machines. "
        "This alert may also be raised by private keys located on file systems that were "
        "inaccessible when the host was in the monitored state.",
        remedy="If you believe that the alert was caused by a key that was simply inaccessible during a "
        "host scan, you may dismiss the alert. Otherwise, review the key associated to the alert."
        " If you can verify that the target key enables an authorization that is approved by your"
        " corporation, then you should Approve the key via Needfire. Otherwise, you should use "
        "Needfire to blacklist or remove the key in order to prevent unauthorized access.",
        fields=_SSH_KEY_FIELDS,
        alert=_SSH_NUMBERED,
    ),
    _ssh_alert(
        102,
        "MANAGED_AUTHORIZED_KEY_LOST",
        "Managed authorized key lost",
        description="A managed authorized key (authorized key in the managed state) no longer exists in its "
        "intended file location. As a result, the authorizations enabled by this key will most "
        "likely not work. The target key file may have been moved or deleted manually. "
        "Alternatively, the file system where the target key is located may have been "
        "inaccessible during the host scan.",
        remedy="You can use Needfire to restore missing and deleted authorized keys.",
        fields=_SSH_KEY_FIELDS,
        alert=_SSH_NUMBERED,
    ),
    _ssh_alert(
        103,
        "MANAGED_PRIVATE_KEY_LOST",
        "Managed private key lost",
        description="A managed private key (private key in the managed state) no longer exists in its "
        "intended file location. As a result, the authorizations enabled by this key will most "
        "likely not work. The target key file may have been moved or deleted manually. "
        "Alternatively, the file system where the target key is located may have been "
        "inaccessible during the host scan.",
        remedy="Private keys are not stored by Needfire, and cannot be directly restored. To re-enable "
        "the authorizations associated to the missing private key, you can renew the "
        "authorization using Needfire. Renewing an authorization regenerates all the keys "
        "associated to it, and re-enables the selected authorizations.",
        fields=_SSH_KEY_FIELDS,
        alert=_SSH_NUMBERED,
    ),
    _ssh_alert(
        104,
        "LEGACY_AUTHORIZED_KEY_FOUND",
        "Legacy authorized key found",
        description="This alert is raised when an authorized key is newly discovered on a host in the "
        "monitored state, after the host has undergone initial host discovery. This alert may be "
        "raised by authorized keys located on file systems that were not accessible during "
        "initial host discovery. This alert may also be caused by authorized keys that were "
        "manually added to a monitored host. As such, there is the possibility that these keys "
        "were set up without approval to grant access for unauthorized people or machines.",
        remedy="If you believe that the alert was caused by a key that was simply inaccessible during "
        "initial host discovery, you may dismiss the alert. Otherwise, review the key associated "
        "to the alert. If you can verify that the target key enables an authorization that is "
        "approved by your corporation, then you should Manage the key (switch the state of the "
        "key to managed) via Needfire, to indicate that the key is managed. Otherwise, you should"
        " use Needfire to blacklist or remove the key in order to prevent unauthorized access. "
        "Note that the host must be in the managed state before you can perform actions on its "
        "keys.",
        fields=_SSH_KEY_FIELDS,
        alert=_SSH_NUMBERED,
    ),
    _ssh_alert(
        105,
        "LEGACY_PRIVATE_KEY_FOUND",
        "Legacy private key found",
        description="This alert is raised when a private key is newly discovered on a host in the monitored "
        "state, after the host has undergone initial host discovery. This alert may be raised by "
        "private keys located on file systems that were not accessible during initial host "
        "discovery. This alert may also be caused by private keys that were manually added to a "
        "monitored host. As such, there is the possibility that these keys were set up without "
        "approval to grant access for unauthorized people or machines.",
        remedy="If you believe that the alert was caused by a key that was simply inaccessible during "
        "initial host discovery, you may dismiss the alert. Otherwise, review the key associated "
        "to the alert. If you can verify that the target key enables an authorization that is "
        "approved by your corporation, then you should Manage the key (switch the state of the "
        "key to managed) via Needfire, to indicate that the key is managed. Otherwise, you should"
        " use Needfire to blacklist or remove the key in order to prevent unauthorized access. "
        "Note that the host must be in the managed state before you can perform actions on its "
        "keys.",
        fields=_SSH_KEY_FIELDS,
        alert=_SSH_NUMBERED,
    ),
    _ssh_alert(
        106,
        "LEGACY_AUTHORIZED_KEY_LOST",
        "Legacy authorized key lost",
        description="A legacy authorized key (authorized key in the legacy state) no longer exists in its "
        "intended file location. As a result, the authorizations enabled by this key will most "
        "likely not work. The target key file may have been moved or deleted manually. "
        "Alternatively, the file system where the target key is located may have been "
        "inaccessible during the host scan.",
        remedy="Ensure that the filesystem where the key is located is available, then scan the host "
        "again. If the key is still reported as missing, you can assume that the key has been "
        "moved or deleted. You can use Needfire to restore missing and deleted authorized keys.",
        fields=_SSH_KEY_FIELDS,
        alert=_SSH_NUMBERED,
    ),
    _ssh_alert(
        107,
        "LEGACY_PRIVATE_KEY_LOST",
        "Legacy private key lost",
        description="A legacy private key (private key in the legacy state) no longer exists in its intended "
        "file location. As a result, the authorizations enabled by this key will most likely not "
        "work. The target key file may have been moved or deleted manually. Alternatively, the "
        "file system where the target key is located may have been inaccessible during the host "
        "scan.",
        remedy="Private keys are not stored by Needfire, and cannot be directly restored. To re-enable "
        "the authorizations associated to the missing private key, you can renew the "
        "authorization using Needfire. Renewing an authorization regenerates all the keys "
        "associated to it, and re-enables the selected authorizations.",
        fields=_SSH_KEY_FIELDS,
        alert=_SSH_NUMBERED,
    ),
    _ssh_alert(
        108,
        "PRIVATE_KEY_RENEWAL_FAILED",
        "Private key renewal failed",
        msg="Private key renew failed",
        description="A private-key renewal job has failed due to Needfire being unable to generate a new "
        "private key on a host. For generating new keys, Needfire uses the SSH software "
        "(ssh-keygen or equivalent) that is available on the host. Therefore, this alert may be "
        "caused by Needfire being unable to use such software. Particularly on hosts managed "
        "using sudo permissions, this may be caused by Needfire not having the necessary "
        "permissions to run the key-generation commands. The alert may also be generated if the "
        "SSH software on the host has changed recently.",
        remedy="Update the information about SSH software by using Needfire to scan the host where the "
        "target key is located. Also ensure that the management account on the host is able to "
        "run ssh-keygen, and that the management account is able to modify files in the directory"
        " where the target key is located. After that, try running key renewal again.",
        fields=_SSH_KEY_FIELDS,
        alert=_SSH_NUMBERED,
    ),
    _ssh_alert(
        109,
        "AUTHORIZATION_CHANGED_LOCALLY",
        "Authorization changed locally",
        msg="Authorized key options changed: {changes}",
        description="The authorized-key options of an authorized key have been changed manually. Changes to "
        "authorized-key options can significantly change the behavior of the authorization. For "
        "example, the authorization may become usable from different network locations, and the "
        "authorization may allow different actions to be performed by those who use the "
        "authorization.",
        remedy="Review the alert details to determine how the authorized-key options were modified; they"
        " are told as {option_name: [former_options, new_options], ...}, with None where there "
        "were or are none. You can use Needfire to set the desired authorized-key options for the"
        " authorized key.",
        fields={
            "changes": "{option: [former, new], ...}",
        },
    ),
    _ssh_alert(
        110,
        "AUTHORIZATION_WITH_BLACKLISTED_PUBLIC_KEY_DETECTED",
        "Authorization with blacklisted public key detected",
        description="A copy of a blacklisted authorized key has been discovered on a host.",
        remedy="Keys are blacklisted when they are suspected to be compromised, or otherwise intended to"
        " be permanently decommissioned. You should use Needfire to remove blacklisted keys as "
        "soon as possible. We highly recommend that you investigate the reasons for the "
        "appearance of such keys.",
        fields=_SSH_KEY_FIELDS,
        alert=_SSH_NUMBERED,
    ),
    _ssh_alert(
        111,
        "BLACKLISTED_PRIVATE_KEY_DETECTED",
        "Blacklisted private key detected",
        description="A copy of a blacklisted private key has been discovered on a host.",
        remedy="Keys are blacklisted when they are suspected to be compromised, or otherwise intended to"
        " be permanently decommissioned. You should use Needfire to remove blacklisted keys as "
        "soon as possible. We highly recommend that you investigate the reasons for the "
        "appearance of such keys.",
        fields=_SSH_KEY_FIELDS,
        alert=_SSH_NUMBERED,
    ),
    _ssh_alert(
        112,
        "BAD_AUTHORIZED_KEY_OPTION_DETECTED",
        "Bad authorized key option detected",
        msg="Bad authorized key options detected",
        description="An authorized key has an illegal authorized-key option.",
        remedy="Review the alert details to determine the affected authorized key, and its illegal "
        "authorized-key option. You can use Needfire to set the desired authorized-key options "
        "for the authorized key.",
        fields=_SSH_KEY_FIELDS,
        alert=_SSH_NUMBERED,
    ),
    _ssh_alert(
        113,
        "AUTHORIZED_KEY_FROM_STANZA_CHANGED_LOCALLY",
        "Authorized key from stanza changed locally",
        description="The authorized-key options of an authorized key have changed to allow or disallow access"
        " from different network addresses. Furthermore, this change was done without using "
        "Needfire, which may mean that the change was done manually.",
        remedy="Review the alert details to determine what addresses were allowed or disallowed by the "
        "change. You should also investigate the causes of this change. You can use Needfire to "
        "modify the allowed and disallowed addresses if necessary.",
        fields=_SSH_KEY_FIELDS,
        alert=_SSH_NUMBERED_CHANGE,
    ),
    _ssh_alert(
        114,
        "PRIVATE_KEY_PASSPHRASE_CHANGE_DETECTED",
        "Private key passphrase change detected",
        description="The passphrase of a private key has been changed manually, without using Needfire. This "
        "alert is raised during full scans if Needfire detects that the passphrase of a private "
        "key has unexpectedly changed since the last scan.",
        remedy="Review the alert details to determine which keys were affected. If the passphrase "
        "changes were unauthorized, you should immediately set a new passphrase for them. You can"
        " set new passphrases for keys by renewing them via Needfire. Alternatively, if the "
        "passphrase changes are expected, and if you know the new passphrases, you should update "
        "the passphrases stored in Needfire. In order for Needfire to correctly detect passphrase"
        " changes, the public-key (.pub) files must be located in the same directory as the "
        "corresponding private-key files. In situations where the .pub file cannot be found, "
        "changes to private-key passphrases may be incorrectly detected as new private-key "
        "entries instead.",
        fields=_SSH_KEY_FIELDS,
        alert=_SSH_NUMBERED_CHANGE,
    ),
    _ssh_alert(
        115,
        "AUTHORIZED_KEY_COMMENT_CHANGED_LOCALLY",
        "Authorized key comment changed locally",
        description="The comment of an authorized key has been changed manually, without using Needfire. "
        "Comments have no impact on user-key functionality. Comments are used purely for "
        "describing keys.",
        remedy="You may review the alert details to determine which keys were affected. The alert "
        "details provide both the old and the new comment value. Needfire cannot be used for "
        "modifying key comments. Corrections to key comments need to be performed manually.",
        fields=_SSH_KEY_FIELDS,
        alert=_SSH_NUMBERED_CHANGE,
    ),
    _ssh_alert(
        116,
        "APPEARED_AUTHORIZED_KEY_LOST",
        "Appeared authorized key lost",
        description="An authorized key added using unknown means has since been removed: a scan detected a "
        "new key that was added using unknown means (Needfire sets the key status as appeared), "
        "and on a subsequent scan Needfire no longer detects the key. This alert may indicate "
        "that somebody set up unauthorized access to the managed environment, and later removed "
        "the key in an attempt to avoid detection. Alternatively, this alert may also be caused "
        "by keys on filesystems that are not always available.",
        remedy="Review the alert details to determine the involved key(s). You may review any associated"
        " key-activity entries for more information about where the key was used from and when. "
        "Associated key-activity entries can be found by filtering key-activity logs by the "
        "fingerprint of the involved key(s).",
        fields=_SSH_KEY_FIELDS,
        alert=_SSH_NUMBERED_CHANGE,
    ),
    _ssh_alert(
        117,
        "APPEARED_PRIVATE_KEY_LOST",
        "Appeared private key lost",
        description="A private key added using unknown means has since been removed: a scan detected a new "
        "key that was added using unknown means (Needfire sets the key status as appeared), and "
        "on a subsequent scan Needfire no longer detects the key. This alert may indicate that "
        "somebody set up unauthorized access from the managed environment, and later removed the "
        "key(s) in an attempt to avoid detection. Alternatively, this alert may also be caused by"
        " keys located on filesystems that are not always available.",
        remedy="Review the alert details to determine the involved key(s). You may review any associated"
        " key-activity entries for more information about where the key was used from and when. "
        "Associated key-activity entries can be found by filtering key-activity logs by the "
        "fingerprint of the involved key(s).",
        fields=_SSH_KEY_FIELDS,
        alert=_SSH_NUMBERED_CHANGE,
    ),
    _ssh_alert(
        200,
        "JOB_FAILED",
        "Job failed",
        msg="Job {job} failed for {host} with '{reason}'",
        description="A job has failed on a host. Needfire performs management operations on hosts via jobs. "
        "Job failures mean that certain management actions are not performed successfully.",
        remedy="Review the alert details for an overview of the failure. Also review the job log of the "
        "failed job to determine the issues that may have caused the failure. When reviewing the "
        "job log, you should enable more verbosity to display all the details recorded of that "
        "job. After you have fixed the issues, try running the job again.",
        fields={
            "job": "name and number of the job",
            "host": "the host, by name or number",
            "reason": "what went wrong",
        },
    ),
    _ssh_alert(
        201,
        "HOST_KEY_HAS_CHANGED",
        "Host key has changed",
        msg="Host key of {host} (#{host_id}) has changed! {detail}",
        description="This alert is raised when the host key of a host changes. The host key may change when "
        "SSH software is installed, reinstalled, or replaced on a host. Sometimes, the host key "
        "may have been deliberately changed by the administrator of the host. In other cases, it "
        "is also possible that somebody is eavesdropping on the management connection "
        "(man-in-the-middle attack).",
        remedy="Determine what has caused the host key to change. If the host key has been changed by an"
        " authorized system administrator, or if the SSH software on the host has been changed on"
        " the host, this alert may be dismissed. If none of the previously-described actions have"
        " caused the hostkey change, you should investigate the possibility of man-in-the-middle "
        "attacks. If you suspect that somebody is performing a man-in-the-middle attack, switch "
        "the host to the suspended state via Needfire, to prevent any management connections to "
        "the host. Once the cause has been resolved, you can switch the host to the monitored "
        "(and/or managed) state to resume management operations.",
        fields={
            "host": "the host, by name or number",
            "host_id": "number of the host",
            "detail": "what was found",
        },
    ),
    _ssh_alert(
        202,
        "MONITORED_CONFIGURATION_WAS_LOCALLY_MODIFIED",
        "Monitored configuration was locally modified",
        msg="Monitored configuration (#{configuration_id}) of {product} on {host} has changed: "
        "{diff}",
        description="The configuration of an SSH product on a host has been manually modified. Such changes "
        "will most likely change the behavior of the SSH product. For example, changes in "
        "configuration may allow or disallow authentication using certain authentication methods,"
        " or allow/disallow authentication using SSH keys in different file locations.",
        remedy="Review the alert to determine what configuration was modified. You can then use Needfire"
        " to review the target configuration file, and to replace the modified configuration by "
        "assigning and deploying one of your approved configurations to the host where the SSH "
        "product is located. When assigning and deploying configurations, note that both the host"
        " and the configuration must be in the managed state.",
        fields={
            "configuration_id": "number of the configuration",
            "product": "the SSH software",
            "host": "the host, by name or number",
            "diff": "what changed",
        },
    ),
    _ssh_alert(
        203,
        "MANAGED_CONFIGURATION_WAS_LOCALLY_MODIFIED",
        "Managed configuration was locally modified",
        msg="Managed configuration (#{configuration_id}) of {product} on {host} has changed: "
        "{diff}",
        description="The configuration of an SSH product on a host has been manually modified. Such changes "
        "will most likely change the behavior of the SSH product. For example, changes in "
        "configuration may allow or disallow authentication using certain authentication methods,"
        " or allow/disallow authentication using SSH keys in different file locations.",
        remedy="Review the alert to determine what configuration was modified. You can then use Needfire"
        " to review the target configuration file, and to replace the modified configuration by "
        "assigning and deploying one of your approved configurations to the host where the SSH "
        "product is located.",
        fields={
            "configuration_id": "number of the configuration",
            "product": "the SSH software",
            "host": "the host, by name or number",
            "diff": "what changed",
        },
    ),
    _ssh_alert(
        204,
        "POTENTIAL_GAP_IN_KEY_ACTIVITY_SCAN_DATA_FOUND",
        "A (potential) gap in key activity scan data found",
        msg="Key activity scan data from {from} {to} ({duration}) possibly missing!",
        description="This alert is raised when Needfire suspects a gap in key-activity logs. Key-activity "
        "gaps can be caused when key-activity logs on the hosts in the managed environment are "
        "rotated to unknown locations before they are scanned.",
        remedy="Look at the SSH server logs of the target host from the time span specified in the "
        "alert; they tell of the key activity that may have been missed. Then see to it that logs"
        " are kept until they have been scanned.",
        fields={
            "from": "begin of the gap",
            "to": "end of the gap",
            "duration": "length of the gap",
        },
    ),
    _ssh_alert(
        205,
        "UNKNOWN_KEY_ACTIVITIES_FOUND",
        "Unknown key activities found",
        msg="Found {entries} new key activity entry with {fingerprints} unknown fingerprint: "
        "{detail}",
        description="This alert occurs when Needfire detects key activity for an authorized key that is not "
        "known to Needfire. Typically this happens if Needfire is not used solely for managing "
        "authorizations, and a key was added and used between two scans. The alert is not raised "
        "during the first key activity scan, as the log files may contain activities for a large "
        "number of keys no longer present at the monitored host. On hosts that have been part of "
        "the managed environment for a longer time, this may indicate that an authorization was "
        "created manually, used to gain access to the monitored target host, then removed before "
        "a host scan has managed to discover the key. Therefore, there is a possibility that "
        "somebody has gained unauthorized access to the host.",
        remedy="You should review the key activity entries associated to the alert to determine details "
        "about the unknown key activities, such as what hosts and counts were accessed, where "
        "they were accessed from, and when they were accessed.",
        fields={
            "entries": "number of entries",
            "fingerprints": "number of fingerprints",
            "detail": "what was found",
        },
    ),
    _ssh_alert(
        206,
        "FAILED_TO_SCAN_USER_KEYS",
        "Failed to scan user keys",
        msg="Failed to scan user keys: {users}",
        description="Needfire is unable to scan the user keys belonging to certain users. Needfire scans for "
        "user keys by reading user-key files as their owning user. This alert may be raised when "
        "Needfire is unable to switch to a user. On hosts without su or sudo installed, user-key "
        "scans fail for users with invalid or restricted shells. This alert may also be raised "
        "when a host command times out when scanning the user keys of a particular user. A "
        "host-command timeout may be caused by a command returning an unexpected prompt, or by "
        "unstable network connectivity to the host.",
        remedy="Check the job log of the host scan for more details about why user-key scans are "
        "failing. On the host where user-key scans are failing, verify that the account that "
        "reads them can become the user (su or sudo).",
        fields={
            "users": "the users, as a list",
        },
    ),
    _ssh_alert(
        207,
        "INCOMPLETE_KEY_ACTIVITIES_FOUND",
        "Incomplete key activities found",
        msg="Incomplete log messages found in key activity logs.{lines}",
        description="One or more incomplete key-activity entries have been detected on a host. With certain "
        "configurations (protocol 1, SSH1 authorized keys, UsePrivilegeSeparation, versions "
        "earlier than 5.9 or later than 6.2), OpenSSH servers may generate incomplete SSH1 "
        "key-activity entries, such as entries with missing key fingerprints.",
        remedy="Review the alert details for a complete list of incomplete key-activity entries. If "
        "possible, you should verify that the incomplete key-activity entries correspond to "
        "approved connections. To this end, Needfire can be used, for example, for listing known "
        "authorizations by fingerprint or source/destination addresses.",
        fields={
            "lines": "the log lines, each after #012",
        },
    ),
    _ssh_alert(
        208,
        "HOST_TIMEZONE_NOT_DETECTED",
        "Host timezone not detected",
        msg="Timezone was not detected on host {host} (#{host_id}). Configure host timezone in "
        "host settings.",
        description="The time zone of a host could not be determined, so that the times in its logs cannot be"
        " told for certain.",
        remedy="You can configure Needfire to use a specific time zone for managing this host.",
        fields={
            "host": "the host, by name or number",
            "host_id": "number of the host",
        },
    ),
    _ssh_alert(
        209,
        "UNSUPPORTED_CONFIGURATION_ENTRIES_DETECTED",
        "Unsupported configuration entries detected",
        msg="Configuration has entries that Key Manager does not support: {detail}",
        description="Needfire has detected unsupported entries in the SSH configuration of a host. This alert"
        " is commonly displayed when a Bitvise SSH host possesses user keys belonging to virtual "
        "user accounts, groups, or Windows groups, of which Needfire is unable to gather "
        "comprehensive information.",
        remedy="The purpose of this alert is to inform that a host contains some entries that Needfire "
        "is unable to manage. You can get more information about the unsupported entries from the"
        " alert details. Ensure that the listed entries do not constitute security threats to "
        "your host environment, then resolve the alert. Note that unsupported entries generate an"
        " alert each time the host is scanned. Recurring alerts of this type may be dismissed.",
        fields={
            "detail": "what was found",
        },
    ),
    _ssh_alert(
        210,
        "AMBIGUOUS_AUTHORIZATIONS_DETECTED",
        "Ambiguous authorizations detected",
        msg="Ambiguous authorizations to {user} found: key location - '{path}' : auth. origins - "
        "[{origins}]",
        description="This alert is raised when Needfire detects active Tectia authorized keys that are "
        "present in both the Tectia authorization file and the Tectia authorized-keys directory. "
        "In other words, this alert is raised when Needfire detects the following condition on a "
        "host: A user's Tectia authorization file refers to a public-key file that is located in "
        "the Tectia authorized-keys directory. Furthermore, the authorization file specifies "
        "non-empty options for the key. The Tectia SSH Server on the host allows authentication "
        "using a Tectia authorizations file. The Tectia SSH Server also allows authentication "
        "using keys from the Tectia authorized-keys directory. In such situations the user is "
        "able to log in using key as if no authorized-key options were set for the key, bypassing"
        " any restrictions such as allow-from options and/or command options.",
        remedy="Move the target key out of the Tectia authorized-keys directory (by default "
        "~/.ssh2/authorized_keys). This ensures that the authorized-key options specified in the "
        "Tectia authorization file are respected.",
        fields={
            "user": "user@host",
            "path": "the key file, with unprintable bytes as \\xNN",
            "origins": "where the authorizations stand",
        },
    ),
    _ssh_alert(
        211,
        "HOST_DEPLOYMENT_DENIED",
        "Host deployment denied",
        msg="Host {host} (#{host_id}) was not marked for redeployment (set to management state "
        "'available') when {name} from {address} with clashing unique id {unique_id} "
        "attempted deployment",
        description="Host redeployment was attempted on a host that was not explicitly prepared for "
        "redeployment. Redeployment was denied to prevent accidental or malicious reuse of host "
        "entries. This alert is also generated when you attempt to add a host that was already "
        "added to the managed environment.",
        remedy="This alert may be raised when something is trying to impersonate the target host. "
        "Therefore you should carefully determine whether the host-redeployment attempt was "
        "legitimate. To legitimately redeploy a host, the target host must first be marked for "
        "redeployment. If this alert came after an attempt to add a new host, the new host may "
        "have the same unique ID as another host already in the managed environment: remove its "
        "unique-ID file before you add it again.",
        fields={
            "host": "the host, by name or number",
            "host_id": "number of the host",
            "name": "name under which a host asked",
            "address": "address that it asked from",
            "unique_id": "the identity that two hosts have",
        },
    ),
    _ssh_alert(
        212,
        "HOST_REDEPLOYED",
        "Host redeployed alert",
        msg="Host {host} (#{host_id}) was marked for redeployment (set to management state "
        "'available') and now redeployed as {name} from {address} with the existing unique id"
        " {unique_id}",
        description="The target host has been successfully redeployed.",
        remedy="If the alert was raised as the result of a legitimate redeployment procedure, this alert"
        " can be resolved or dismissed. Otherwise, something on the network may be attempting to "
        "impersonate the target host, and the incident should be investigated.",
        fields={
            "host": "the host, by name or number",
            "host_id": "number of the host",
            "name": "name under which a host asked",
            "address": "address that it asked from",
            "unique_id": "the identity that two hosts have",
        },
    ),
    _ssh_alert(
        213,
        "UNSUPPORTED_PRODUCT_VERSIONS_FOUND",
        "Unsupported product versions found",
        msg="Host has unsupported product versions: {detail} rejected",
        description="During host deployment, Needfire detected unsupported SSH products installed on the "
        "host.",
        remedy="Review the alert details to determine the SSH products that are not supported. Note that"
        " Needfire may not be able to correctly read SSH configurations and SSH keys belonging to"
        " unsupported SSH products.",
        fields={
            "detail": "what was found",
        },
    ),
    _ssh_alert(
        214,
        "FOUND_KEY_ACTIVITIES_WERE_SKIPPED",
        "Found key activities were skipped",
        msg="Skipped key activities from {sources} sources: {reason}. Sample: {hosts}.",
        description="This alert occurs when Needfire detects key activity which it cannot process for some "
        "reason. The alert text indicates the more specific reason.",
        remedy="Source host IP not resolved: Typical reason might be that instead of having an IP "
        "address of the source host on the system, the target encodes a DNS name that does not "
        "forward resolve into an IP address in Needfire. Corrective actions may involve arranging"
        " similar name services for Needfire that are available on the monitored hosts. "
        "Additional information describes how many distinct source addresses were not resolved "
        "during the scan.",
        fields={
            "sources": "number of sources",
            "reason": "what went wrong",
            "hosts": "some of the sources",
        },
    ),
    _ssh_alert(
        215,
        "HOST_EXECUTOR_NOT_AVAILABLE_FOR_THE_HOST",
        "Host executor not available for the host",
        msg="Due to lack of availability or misconfiguration of a host executor, job {job} used "
        "interactive agentless method instead",
        description="A helper that makes scans of a host faster failed or was not available. In such "
        "situations Needfire falls back to a slower way, and raises this alert.",
        remedy="Review the alert to determine the target host and other additional information. Also "
        "review the logs from any jobs associated to this alert, and start the helper if it does "
        "not run.",
        fields={
            "job": "name and number of the job",
        },
    ),
    _ssh_alert(
        216,
        "MANAGED_CONFIGURATION_LOCAL_CHANGE_ROLLBACK_LAUNCHED",
        "Managed configuration local change rollback launched",
        msg="Managed configuration (#{configuration_id}) of {product} on host {host} has locally "
        "changed to (#{changed_id}) and a rollback was launched",
        description="An SSH software configuration in the managed state was modified outside of Needfire, "
        "Needfire detected the change during a host scan, and enforcing managed configurations is"
        " enabled. The SSH software configuration on the host has been reverted to match the "
        "managed SSH software configuration stored in Needfire.",
        remedy="Determine what caused the SSH configuration change on the host. You should investigate "
        "whether the change was used to gain unauthorized access to the host. Typically this "
        "alert is accompanied by another alert Managed configuration was locally modified (203), "
        "which describes the exact changes made to the SSH configuration.",
        fields={
            "configuration_id": "number of the configuration",
            "product": "the SSH software",
            "host": "the host, by name or number",
            "changed_id": "number of the configuration that was found",
        },
    ),
)
"""Every alert, in the order of its number. Numbers, titles and the words of the log lines are those of the
customer's key manager: people and scripts know them. Nothing raises these events yet, so each is marked
as planned; ``explain`` and the formatters know them already."""

_SSHD: Final = "sshd"
_HOST_USER: Final = "name of the account on the host"
_HOST_PEER: Final = "address that the log-in comes from"
_HOST_PORT: Final = "port of that address"
_HOST_METHOD: Final = (
    "how the user logs in: password, publickey, keyboard-interactive/pam and others"
)
_HOST_PID: Final = "number of the process that wrote it"
_LOOK_AT_THE_LOG_IN: Final = (
    "Ask the user whether it was them. If it was not, somebody else has the account: lock it, and "
    "look what was changed since."
)
_LOOK_AT_FAILURES: Final = (
    "A single one is a slip. Many from one address, or of many users, are somebody who guesses: "
    "keep that address out, and let users log in by key."
)


def _host_entry(
    code: str,
    event_class: EventClass,
    severity: Severity,
    msg: str,
    description: str,
    remedy: str,
    fields: Mapping[str, str],
    *,
    written_by: str,
    source: str,
    is_failure: bool = False,
) -> Entry:
    return Entry(
        code,
        event_class,
        severity,
        msg,
        description,
        remedy,
        fields,
        source=source,
        is_planned=True,
        written_by=written_by,
        is_failure=is_failure,
    )


def _sshd_entry(
    code: str,
    msg: str,
    description: str,
    remedy: str,
    /,
    *,
    is_failure: bool = False,
    source: str = "Log Monitoring Guide, CLI Login Events",
    **fields: str,
) -> Entry:
    return _host_entry(
        code,
        EventClass.ADMINISTRATION,
        Severity.WARN if is_failure else Severity.NOTICE,
        msg,
        description,
        remedy,
        {**fields, "pid": _HOST_PID},
        written_by=_SSHD,
        source=source,
        is_failure=is_failure,
    )


_ROUTER: Final = "Configuring Audit Events and Logging, Example Audit Logs"

_HOST_ENTRIES: Final = (
    _sshd_entry(
        "HOST_LOGIN_ACCEPTED",
        "Accepted {method} for {user} from {address} port {port} ssh2",
        "Somebody logged in on the host over SSH, without a key.",
        _LOOK_AT_THE_LOG_IN,
        source=_ROUTER,
        method=_HOST_METHOD,
        user=_HOST_USER,
        address=_HOST_PEER,
        port=_HOST_PORT,
    ),
    _sshd_entry(
        "HOST_LOGIN_BY_KEY",
        "Accepted {method} for {user} from {address} port {port} ssh2: {key_type} {fingerprint}",
        "Somebody logged in on the host over SSH with a key.",
        _LOOK_AT_THE_LOG_IN,
        method=_HOST_METHOD,
        user=_HOST_USER,
        address=_HOST_PEER,
        port=_HOST_PORT,
        key_type="type of the key",
        fingerprint="its fingerprint",
    ),
    _sshd_entry(
        "HOST_LOGIN_FAILED",
        "Failed {method} for {user} from {address} port {port} ssh2",
        "Somebody tried to log in on the host over SSH and gave a wrong password or key.",
        _LOOK_AT_FAILURES,
        is_failure=True,
        source=_ROUTER,
        method=_HOST_METHOD,
        user=_HOST_USER,
        address=_HOST_PEER,
        port=_HOST_PORT,
    ),
    _sshd_entry(
        "HOST_AUTHENTICATION_FAILED",
        "pam_unix(sshd:auth): authentication failure; logname= uid={uid} euid={euid} tty=ssh ruser= "
        "rhost={address} user={user}",
        "The host's PAM did not take the password that somebody gave to sshd.",
        _LOOK_AT_FAILURES,
        is_failure=True,
        uid="user id of sshd",
        euid="effective user id of sshd",
        address=_HOST_PEER,
        user=_HOST_USER,
    ),
    _sshd_entry(
        "HOST_ACCOUNT_LOCKED",
        "pam_faillock(sshd:auth): Consecutive login failures for user {user} account temporarily "
        "locked",
        "So many log-ins of a user failed in a row that the host takes none of theirs for a while.",
        "If the user forgot the password, give them a new one, and end the lock with faillock "
        "--user NAME --reset. If not, see HOST_LOGIN_FAILED for the address that tried.",
        is_failure=True,
        source=_ROUTER,
        user=_HOST_USER,
    ),
    _sshd_entry(
        "HOST_LOGIN_ATTEMPTS_EXCEEDED",
        "error: maximum authentication attempts exceeded for {user} from {address} port {port} ssh2 "
        "[preauth]",
        "Somebody made more attempts in one SSH connection than MaxAuthTries allows.",
        _LOOK_AT_FAILURES,
        is_failure=True,
        user=_HOST_USER,
        address=_HOST_PEER,
        port=_HOST_PORT,
    ),
    _sshd_entry(
        "HOST_LOGIN_CUT_OFF",
        "Disconnecting: Too many authentication failures for {user} [preauth]",
        "The host's sshd closed a connection after many attempts to log in failed.",
        _LOOK_AT_FAILURES,
        is_failure=True,
        user=_HOST_USER,
    ),
    _sshd_entry(
        "HOST_LOGIN_GIVEN_UP",
        "error: Received disconnect from {address}: 14: No supported authentication methods "
        "available [preauth]",
        "Who wanted to log in had nothing that the host's sshd takes: a wrong user or key, or no "
        "key where one is needed.",
        _LOOK_AT_FAILURES,
        is_failure=True,
        address=_HOST_PEER,
    ),
    _sshd_entry(
        "HOST_SESSION_OPENED",
        "pam_unix(sshd:session): session opened for user {user} by (uid={uid})",
        "A session of a user began on the host.",
        "Nothing by itself: HOST_LOGIN_ACCEPTED or HOST_LOGIN_BY_KEY says where they came from.",
        user=_HOST_USER,
        uid="user id of who began it",
    ),
    _sshd_entry(
        "HOST_SESSION_CLOSED",
        "pam_unix(sshd:session): session closed for user {user}",
        "A session of a user on the host ended.",
        "Nothing.",
        user=_HOST_USER,
    ),
    _sshd_entry(
        "HOST_DISCONNECTED",
        "Received disconnect from {address}: {number}: {reason}",
        "Who was connected to the host's sshd ended the connection.",
        "Nothing.",
        address=_HOST_PEER,
        number="number of the reason in the SSH protocol",
        reason="what the other side says of it",
    ),
    _host_entry(
        "HOST_AUDIT_RECORD",
        EventClass.ADMINISTRATION,
        Severity.INFO,
        "Record of the Linux audit daemon: {record}",
        "A record that the host's own audit daemon wrote: somebody logged in or out there, a key "
        "was made or destroyed, a system call was audited. The time is the record's.",
        "ausearch -a NUMBER on the host shows what belongs together; the number is the field "
        "serial.",
        {
            "record": "its type: USER_AUTH, LOGIN, SYSCALL and others, as ausearch -m takes them",
            "serial": "its number; records of one event have the same",
            "pid": "number of the process",
            "uid": "user id of the process; all other fields of the record stand under their own "
            "names too, with _ for -; nothing where it is unknown, and encoded texts decoded",
            "auid": "user who logged in",
            "ses": "number of the log-in session",
        },
        written_by="auditd",
        source=_ROUTER,
    ),
    *(
        _host_entry(
            code,
            EventClass.PROVISIONING,
            Severity.INFO,
            msg,
            description,
            "Nothing, if an update of that software was meant. If it was not, find out who started it.",
            fields,
            written_by="installer",
            source="Configuring Audit Events and Logging, Logs for Manual Software Updates",
        )
        for code, msg, description, fields in (
            (
                "SOFTWARE_UPDATE_ASKED",
                "Version requirement: {version}",
                "An update of software on the host began: this is the version that is wanted.",
                {"version": "the version"},
            ),
            (
                "SOFTWARE_UPDATE_VERIFYING",
                "Verifying that {package} will be an upgrade",
                "The installer looks whether a package is newer than what the host has.",
                {"package": "name, epoch, version and architecture of the package"},
            ),
            (
                "SOFTWARE_UPDATE_RESOLVING",
                "Resolving version of {what}",
                "The installer looks for a package that belongs to the update.",
                {"what": "what for, and which one"},
            ),
            (
                "SOFTWARE_UPDATE_USING",
                "Using {kind} package {package}",
                "The installer found a package that belongs to the update, and takes it.",
                {"kind": "what it is for", "package": "name, epoch, version and architecture"},
            ),
        )
    ),
)
"""What a host's own programs write into their logs, in their words. Nothing raises these events yet, so
each is marked as planned; ``explain`` and the formatters know them already."""

ENTRIES: Final = (
    *_DOCUMENTED_STATES,
    *_INTEGRITY_ENTRIES,
    *_AGENT_ENTRIES,
    *_SERVER_ENTRIES,
    *_OUTPUT_ENTRIES,
    *_SSH_ENTRIES,
    *_HOST_ENTRIES,
)
"""All entries, in the order of the documents."""
