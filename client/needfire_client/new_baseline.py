"""Writing down what there is as a new baseline."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

from needfire_client.attributes import never
from needfire_client.baseline import BaselineWriter
from needfire_client.packing import entries_of, pack_record
from needfire_client.policy import Ruleset
from needfire_client.record import DirectoryRecord
from needfire_client.scan import CheckResult, OnEvent, Progress, Scan, ScanStoppedError
from needfire_protocol.baseline import BaselineMeta, decode_entries, key_of, path_of
from needfire_protocol.errors import StorageError
from needfire_protocol.event import FieldValue
from needfire_protocol.rc.agent import AgentSettings

__all__ = ["init_baseline", "said_of", "write_directory", "written"]


def init_baseline(
    settings: AgentSettings,
    out_path: Path,
    on_event: OnEvent,
    *,
    host: str,
    configuration_sha256: str,
    created_us: int,
    progress: Progress | None = None,
    stop: Callable[[], bool] = never,
) -> CheckResult:
    """Write down what there is as a new baseline.

    One that was stopped, or saw nothing at all, leaves an old one in place.
    Digests are made where the policy of a file compares contents, and nowhere else.

    Raises:
        StorageError: the baseline cannot be written.
    """
    ruleset = Ruleset(settings)
    algorithm = settings.digest_algorithm
    scan = Scan(
        settings,
        ruleset,
        algorithm,
        on_event,
        is_new=lambda _code, _path: True,
        progress=progress,
        stop=stop,
    )
    scan.begin("init")
    with BaselineWriter(
        out_path, algorithm=algorithm, host=host, configuration_sha256=configuration_sha256
    ) as writer:
        try:
            for record in scan.records():
                if record.count:
                    packed = pack_record(record)
                    writer.add_packed(key_of(record.path), packed, record.count)
        except ScanStoppedError:
            return scan.result(is_complete=False)
        scan.report_rules()
        if scan.is_empty and out_path.exists():
            return scan.complete()
        meta = writer.finish(created_us=created_us)
    return scan.complete(written(out_path, meta, on_event), said_of(meta))


def write_directory(
    writer: BaselineWriter,
    key: bytes,
    record: DirectoryRecord,
    now: bytes,
    packed: bytes | None,
) -> None:
    """Write a directory into the new baseline; what cannot be examined stays as it was."""
    if record.is_whole or packed is None:
        if record.count:
            writer.add_packed(key, now, record.count)
        return
    entries = entries_of(record)
    merged = {
        name: entry
        for name, entry in decode_entries(packed).items()
        if name in entries or not record.is_readable
    }
    merged.update((name, entry) for name, entry in entries.items() if entry.is_known)
    if merged:
        writer.add(path_of(key), sorted(merged.items()))


def said_of(meta: BaselineMeta, name: str = "baseline") -> Mapping[str, FieldValue]:
    """Return what a receipt says of a baseline: the digest of what is in it."""
    return {name: f"sha256:{meta.content_sha256}"}


def written(path: Path, meta: BaselineMeta, on_event: OnEvent) -> str:
    """Report a baseline that was written, and return the digest of its file."""
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}") from error
    on_event(
        "BASELINE_WRITTEN",
        None,
        {"path": str(path), "hash": f"sha256:{digest}", "files": meta.entries},
    )
    return digest
