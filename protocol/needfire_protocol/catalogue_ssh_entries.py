"""The entries of the alerts about SSH keys and hosts, 100-117 and 200-216.

Numbers, titles and the words of the log lines are those of the customer's key manager: people and
scripts know them. Nothing raises these events yet, so each is marked as planned; ``explain`` and
the formatters know them already.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from needfire_protocol.catalogue_entry import AlertForm, Entry, EventClass
from needfire_protocol.severity import Severity

__all__ = ["SSH_ENTRIES"]

_NUMBERED: Final = AlertForm()
_NUMBERED_CHANGE: Final = AlertForm(labels=MappingProxyType({"key_id": "Key Id"}))
_PLAIN: Final = AlertForm(shows_number=False)
_KEY_FIELDS: Final = {
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


def _alert(
    number: int,
    code: str,
    title: str,
    *,
    description: str,
    remedy: str,
    fields: Mapping[str, str],
    alert: AlertForm = _PLAIN,
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


SSH_ENTRIES: Final = (
    _alert(
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
        fields=_KEY_FIELDS,
        alert=_NUMBERED,
    ),
    _alert(
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
        fields=_KEY_FIELDS,
        alert=_NUMBERED,
    ),
    _alert(
        102,
        "MANAGED_AUTHORIZED_KEY_LOST",
        "Managed authorized key lost",
        description="A managed authorized key (authorized key in the managed state) no longer exists in its "
        "intended file location. As a result, the authorizations enabled by this key will most "
        "likely not work. The target key file may have been moved or deleted manually. "
        "Alternatively, the file system where the target key is located may have been "
        "inaccessible during the host scan.",
        remedy="You can use Needfire to restore missing and deleted authorized keys.",
        fields=_KEY_FIELDS,
        alert=_NUMBERED,
    ),
    _alert(
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
        fields=_KEY_FIELDS,
        alert=_NUMBERED,
    ),
    _alert(
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
        fields=_KEY_FIELDS,
        alert=_NUMBERED,
    ),
    _alert(
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
        fields=_KEY_FIELDS,
        alert=_NUMBERED,
    ),
    _alert(
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
        fields=_KEY_FIELDS,
        alert=_NUMBERED,
    ),
    _alert(
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
        fields=_KEY_FIELDS,
        alert=_NUMBERED,
    ),
    _alert(
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
        fields=_KEY_FIELDS,
        alert=_NUMBERED,
    ),
    _alert(
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
    _alert(
        110,
        "AUTHORIZATION_WITH_BLACKLISTED_PUBLIC_KEY_DETECTED",
        "Authorization with blacklisted public key detected",
        description="A copy of a blacklisted authorized key has been discovered on a host.",
        remedy="Keys are blacklisted when they are suspected to be compromised, or otherwise intended to"
        " be permanently decommissioned. You should use Needfire to remove blacklisted keys as "
        "soon as possible. We highly recommend that you investigate the reasons for the "
        "appearance of such keys.",
        fields=_KEY_FIELDS,
        alert=_NUMBERED,
    ),
    _alert(
        111,
        "BLACKLISTED_PRIVATE_KEY_DETECTED",
        "Blacklisted private key detected",
        description="A copy of a blacklisted private key has been discovered on a host.",
        remedy="Keys are blacklisted when they are suspected to be compromised, or otherwise intended to"
        " be permanently decommissioned. You should use Needfire to remove blacklisted keys as "
        "soon as possible. We highly recommend that you investigate the reasons for the "
        "appearance of such keys.",
        fields=_KEY_FIELDS,
        alert=_NUMBERED,
    ),
    _alert(
        112,
        "BAD_AUTHORIZED_KEY_OPTION_DETECTED",
        "Bad authorized key option detected",
        msg="Bad authorized key options detected",
        description="An authorized key has an illegal authorized-key option.",
        remedy="Review the alert details to determine the affected authorized key, and its illegal "
        "authorized-key option. You can use Needfire to set the desired authorized-key options "
        "for the authorized key.",
        fields=_KEY_FIELDS,
        alert=_NUMBERED,
    ),
    _alert(
        113,
        "AUTHORIZED_KEY_FROM_STANZA_CHANGED_LOCALLY",
        "Authorized key from stanza changed locally",
        description="The authorized-key options of an authorized key have changed to allow or disallow access"
        " from different network addresses. Furthermore, this change was done without using "
        "Needfire, which may mean that the change was done manually.",
        remedy="Review the alert details to determine what addresses were allowed or disallowed by the "
        "change. You should also investigate the causes of this change. You can use Needfire to "
        "modify the allowed and disallowed addresses if necessary.",
        fields=_KEY_FIELDS,
        alert=_NUMBERED_CHANGE,
    ),
    _alert(
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
        fields=_KEY_FIELDS,
        alert=_NUMBERED_CHANGE,
    ),
    _alert(
        115,
        "AUTHORIZED_KEY_COMMENT_CHANGED_LOCALLY",
        "Authorized key comment changed locally",
        description="The comment of an authorized key has been changed manually, without using Needfire. "
        "Comments have no impact on user-key functionality. Comments are used purely for "
        "describing keys.",
        remedy="You may review the alert details to determine which keys were affected. The alert "
        "details provide both the old and the new comment value. Needfire cannot be used for "
        "modifying key comments. Corrections to key comments need to be performed manually.",
        fields=_KEY_FIELDS,
        alert=_NUMBERED_CHANGE,
    ),
    _alert(
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
        fields=_KEY_FIELDS,
        alert=_NUMBERED_CHANGE,
    ),
    _alert(
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
        fields=_KEY_FIELDS,
        alert=_NUMBERED_CHANGE,
    ),
    _alert(
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
    _alert(
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
    _alert(
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
    _alert(
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
    _alert(
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
    _alert(
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
    _alert(
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
    _alert(
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
    _alert(
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
    _alert(
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
    _alert(
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
    _alert(
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
    _alert(
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
    _alert(
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
    _alert(
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
    _alert(
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
    _alert(
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
"""Every alert, in the order of its number."""
