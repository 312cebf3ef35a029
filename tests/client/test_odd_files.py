"""Files as attackers make them: each situation that broke another integrity checker, and its outcome.

Everything goes through a whole check and through the forms in which events are written; what
single parts do with odd values is tested beside them.
"""

import ast
import errno
import fcntl
import hashlib
import io
import json
import os
import shutil
import signal
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from needfire_client.attributes import Examiner
from needfire_client.baseline import BaselineReader
from needfire_client.configuration import read_rc
from needfire_client.failures import CommandError
from needfire_client.logbook import ConsoleSink, FileSink, Logbook
from needfire_protocol.baseline import FileEntry, decode_entries, encode_entries
from needfire_protocol.classic import text_line, xml_line
from needfire_protocol.errors import FormatError
from needfire_protocol.escape import unescape_bytes
from needfire_protocol.event import Event, event_to_json, make_event
from needfire_protocol.severity import Severity, SeverityFilter
from needfire_testkit.scanner import Raised, Scanned, dir_rule, settings_of

SOURCES = Path(__file__).parents[2]

ALGORITHMS = [
    *("sha256", "sha512", "sha384", "sha224", "sha3_224", "sha3_256", "sha3_384", "sha3_512"),
    *("blake2b", "blake2s", "sha1", "md5"),
]

HOSTILE_NAMES = [
    b"new\nline: CRIT forged",
    b"carriage\rreturn",
    b"\x1b[2K\x1b[1Aescape",
    b"c1 \xc2\x9b2J",
    "bidi \u202egpj.exe".encode(),
    "zero\u200bwidth".encode(),
    "line\u2028separator".encode(),
    b"invalid \xff\xfe utf8",
    b"overlong \xc0\xaf",
    b"surrogate \xed\xa0\x80",
    b"%n%s%x%d",
    b"{0}{x.y}{fields[path]}",
    b"%(msg)s {event!r}",
    b"$(touch pwned)",
    b"`touch pwned`",
    b";touch pwned;",
    b"|touch pwned",
    b"& touch pwned &",
    b"-rf",
    b"--help",
    b"~",
    b"*",
    b"?[a-z]",
    b"\\x41",
    b"back\\slash",
    b"\"quotes' <b>&amp;",
    b"=cmd|'calc'!A0",
    b" leading and trailing ",
    b"...",
    b"n" * 255,
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    root.mkdir()
    return root


@pytest.fixture
def scan(root: Path, tmp_path: Path) -> Iterator[Callable[..., Scanned]]:
    made: list[Scanned] = []

    def make(**others: Any) -> Scanned:
        made.append(Scanned(settings_of(dir_rule(root), **others), tmp_path))
        return made[-1]

    yield make
    for scanned in made:
        scanned.close()


Scan = Callable[..., Scanned]


def of_path(raised: list[Raised], path: Path | bytes) -> Raised:
    (event,) = [
        event
        for event in raised
        if event.fields.get("path") is not None and event.path == os.fsencode(path)
    ]
    return event


# ---- row 3: a file and a link take each other's place while it is being hashed -------------------


def test_a_file_that_is_swapped_with_a_link_all_the_time_never_lends_it_its_contents(
    root: Path,
) -> None:
    secret = root.parent / "secret"
    secret.write_bytes(b"the secret behind the link")
    own = b"the file itself"
    (root / "file").write_bytes(own)
    (root / "link").symlink_to(secret)
    swapped, stop = root / "swapped", threading.Event()

    def swap() -> None:
        while not stop.is_set():
            os.link(root / "file", root / "next")
            os.replace(root / "next", swapped)
            os.symlink(secret, root / "next")
            os.replace(root / "next", swapped)

    thread = threading.Thread(target=swap)
    thread.start()
    fd = os.open(root, os.O_RDONLY)
    try:
        seen: set[tuple[bytes | None, bytes | None]] = set()
        for number in range(150):
            entry = Examiner("sha256").examine(
                fd, b"swapped", hashes=True, is_regular=number % 2 == 0
            )
            if entry is not None:
                seen.add((entry.digest, entry.link))
    finally:
        stop.set()
        thread.join()
        os.close(fd)
    # A file with its own digest, a link with its target, or not known: and never a mixture.
    allowed = {(hashlib.sha256(own).digest(), None), (None, os.fsencode(secret)), (None, None)}
    assert seen <= allowed
    assert seen


# ---- row 4: a file is verified, and read once more to be used ------------------------------------


def test_a_configuration_that_is_replaced_while_it_is_read_is_used_as_it_was_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read once, into memory: owner, type and digest are those of the very bytes that are used."""
    rc = tmp_path / "rc"
    rc.write_bytes(b"[ReadOnly]\nfile=/etc/passwd\n")
    opened: list[object] = []
    real = os.open

    def swapping(path: Any, flags: int, *others: Any, **named: Any) -> int:
        handle = real(path, flags, *others, **named)
        if os.fspath(path) in (rc, str(rc)):
            opened.append(path)
            (tmp_path / "evil").write_bytes(b"[ReadOnly]\n")
            os.replace(tmp_path / "evil", rc)
        return handle

    monkeypatch.setattr(os, "open", swapping)
    assert read_rc(rc) == b"[ReadOnly]\nfile=/etc/passwd\n"
    assert len(opened) == 1


def test_a_configuration_that_others_may_change_is_refused(tmp_path: Path) -> None:
    rc = tmp_path / "rc"
    rc.write_bytes(b"[ReadOnly]\n")
    rc.chmod(0o666)
    with pytest.raises(CommandError):
        read_rc(rc)


def test_a_baseline_that_is_replaced_while_it_is_in_use_is_not_used(root: Path, scan: Scan) -> None:
    (root / "file").write_bytes(b"old")
    scanned = scan()
    scanned.init()
    checker = scanned.checker()
    scanned.take()
    before = checker.meta
    (root / "file").write_bytes(b"evil")
    # Somebody makes one in which the change is right, and puts it in place of the one in use.
    other = scan()
    good = scanned.directory / "good"
    shutil.copy(scanned.baseline, good)
    scanned.baseline.unlink()
    other.init()
    checker.full_check()
    assert of_path(scanned.take(), root / "file").code == "POLICY_MODIFIED"
    assert checker.meta == before


# ---- row 8: attributes as large as the system lets them be ---------------------------------------


@pytest.fixture
def roomy() -> Iterator[Path]:
    """A directory on a file system that takes attributes of 64 KiB, as far as there is one."""
    place = Path("/dev/shm" if os.path.isdir("/dev/shm") else tempfile.gettempdir())
    path = Path(tempfile.mkdtemp(dir=place))
    yield path
    shutil.rmtree(path)


def largest_value(file: Path) -> int:
    for size in (65_535, 65_000, 16_384, 4_000, 3_000):
        with suppress(OSError):
            os.setxattr(file, "user.big", b"v" * size)
            return size
    pytest.skip("this file system takes no extended attributes")


def test_the_largest_attribute_that_can_be_set_is_compared_to_its_last_byte(
    roomy: Path, tmp_path: Path
) -> None:
    (roomy / "file").touch()
    size = largest_value(roomy / "file")
    scanned = Scanned(settings_of(dir_rule(roomy)), tmp_path)
    scanned.init()
    checker = scanned.checker()
    scanned.take()
    checker.full_check()
    assert scanned.take() == []
    os.setxattr(roomy / "file", "user.big", b"v" * (size - 1) + b"w")
    checker.full_check()
    event = of_path(scanned.take(), roomy / "file")
    assert event.code == "POLICY_MODIFIED"
    assert "M" in event.change
    assert len(str(event.fields)) < 10_000
    scanned.close()


def test_an_acl_with_very_many_entries_is_compared_to_its_last_one(
    roomy: Path, tmp_path: Path
) -> None:
    (roomy / "file").touch()

    def acl(count: int, last: int) -> bytes:
        """Return owner, ``count`` users, group, mask and others, as acl(5) is stored."""
        users = [
            (0x02, 4 if number < count else last, 1000 + number) for number in range(1, count + 1)
        ]
        rows = [
            (0x01, 6, 2**32 - 1),
            *users,
            (0x04, 4, 2**32 - 1),
            (0x10, 7, 2**32 - 1),
            (0x20, 4, 2**32 - 1),
        ]
        return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *row) for row in rows)

    for count in (8_000, 400, 50):
        try:
            os.setxattr(roomy / "file", "system.posix_acl_access", acl(count, 4))
            break
        except OSError:
            continue
    else:
        pytest.skip("this file system takes no ACLs")
    scanned = Scanned(settings_of(dir_rule(roomy)), tmp_path)
    scanned.init()
    checker = scanned.checker()
    scanned.take()
    os.setxattr(roomy / "file", "system.posix_acl_access", acl(count, 6))
    checker.full_check()
    event = of_path(scanned.take(), roomy / "file")
    assert "M" in event.change
    assert len(str(event.fields)) < 10_000
    scanned.close()


# ---- rows 9, 12 and 14: names that are more than names to somebody -------------------------------


def raised_as_events(raised: list[Raised]) -> list[Event]:
    return [
        make_event(
            each.code, each.severity, time_us=number, random_10_bytes=bytes(10), **each.fields
        )
        for number, each in enumerate(raised)
    ]


@pytest.fixture
def reported(root: Path, scan: Scan, monkeypatch: pytest.MonkeyPatch) -> list[Raised]:
    """What a check says of a tree into which a file of each hostile name has come."""
    scanned = scan()
    (root / "there").touch()
    scanned.init()
    checker = scanned.checker()
    monkeypatch.chdir(root)
    for name in HOSTILE_NAMES:
        os.close(os.open(bytes(root) + b"/" + name, os.O_CREAT | os.O_WRONLY))
    scanned.take()
    checker.full_check()
    return [event for event in scanned.take() if event.code == "POLICY_ADDED"]


def test_each_hostile_name_is_reported_and_means_the_file_that_has_it(
    reported: list[Raised], root: Path
) -> None:
    assert {event.path for event in reported} == {
        bytes(root) + b"/" + name for name in HOSTILE_NAMES
    }
    for event in reported:
        os.lstat(event.path)


@pytest.mark.parametrize(
    "form",
    [xml_line, text_line, event_to_json],
    ids=["xml", "text", "json"],
)
def test_an_event_is_one_printable_line_wherever_it_is_written(
    form: Callable[[Event], str], reported: list[Raised], root: Path, tmp_path: Path
) -> None:
    events = raised_as_events(reported)
    console, path = io.StringIO(), tmp_path / "log"
    everything = SeverityFilter(Severity)
    troubles: list[str] = []
    book = Logbook(
        ConsoleSink(form, everything, findings=console),
        FileSink(path, form, everything, on_trouble=troubles.append),
    )
    for event in events:
        book.write(event)
    assert troubles == []
    for text in (console.getvalue(), path.read_text("utf-8")):
        lines = text.splitlines()
        # As many lines as events, by whatever anybody may take for the end of a line.
        assert len(lines) == len(events)
        assert text.count("\n") == len(events)
        for line in lines:
            assert line.isprintable(), line
            assert str(root) in line
    assert not list(tmp_path.rglob("pwned"))


def test_every_line_of_json_gives_the_name_back(reported: list[Raised], root: Path) -> None:
    found = set()
    for event in raised_as_events(reported):
        read = json.loads(event_to_json(event))
        text = str(read.get("path", read.get("fields", {}).get("path")))
        found.add(unescape_bytes(text))
    assert found == {bytes(root) + b"/" + name for name in HOSTILE_NAMES}


def test_no_name_is_executed_or_formatted(reported: list[Raised], root: Path) -> None:
    assert len(reported) == len(HOSTILE_NAMES)
    assert not (root / "pwned").exists()
    assert not Path("pwned").exists()


def test_nothing_in_the_sources_can_run_a_name() -> None:
    """No shell, no eval, no pickle: a name has nowhere to be executed."""
    banned = {"eval", "exec", "system", "popen", "getoutput", "getstatusoutput"}
    seen = 0
    for part in ("client", "protocol", "server"):
        for path in (SOURCES / part).rglob("*.py"):
            tree = ast.parse(path.read_text("utf-8"))
            for node in ast.walk(tree):
                if isinstance(node, ast.Call):
                    seen += 1
                    name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                    owner = getattr(getattr(node.func, "value", None), "id", "")
                    is_ours = owner not in ("", "os", "subprocess", "builtins")
                    assert is_ours or name not in banned, f"{path}:{node.lineno}: {name}"
                    for keyword in node.keywords:
                        assert keyword.arg != "shell", f"{path}:{node.lineno}"
                if isinstance(node, ast.Import | ast.ImportFrom):
                    names = {alias.name for alias in node.names} | {getattr(node, "module", "")}
                    assert not names & {"pickle", "marshal", "shelve"}, f"{path}:{node.lineno}"
    assert seen > 1_000


# ---- row 10: attributes with empty values, and names with commas ---------------------------------

keys = st.binary(min_size=1, max_size=60).filter(lambda key: 0 not in key)
xattrs = st.dictionaries(keys, st.binary(max_size=300), max_size=4)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(xattrs, xattrs)
def test_any_extended_attributes_are_compared_as_they_are(
    roomy: Path, before: dict[bytes, bytes], after: dict[bytes, bytes]
) -> None:
    with tempfile.TemporaryDirectory(dir=roomy) as place:
        tree = Path(place) / "tree"
        tree.mkdir()
        (tree / "file").touch()
        if not put(tree / "file", before):
            return
        scanned = Scanned(settings_of(dir_rule(tree)), Path(place))
        scanned.init()
        checker = scanned.checker()
        scanned.take()
        checker.full_check()
        assert scanned.take() == []
        if put(tree / "file", after):
            checker.full_check()
            said = [event for event in scanned.take() if event.code == "POLICY_MODIFIED"]
            assert ["M" in event.change for event in said] == [True] * (before != after)
        scanned.close()


def put(file: Path, wanted: dict[bytes, bytes]) -> bool:
    """Let a file have exactly these attributes; False where the file system refuses."""
    now = {
        os.fsencode(name).removeprefix(b"user."): os.getxattr(file, name)
        for name in os.listxattr(file)
        if name.startswith("user.")
    }
    try:
        for key in now.keys() - wanted.keys():
            os.removexattr(bytes(file), b"user." + key)
        for key, value in wanted.items():
            if now.get(key) != value:
                os.setxattr(bytes(file), b"user." + key, value)
    except OSError:
        return False
    return True


# ---- row 13: a digest that is always the same ----------------------------------------------------


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("contents", [b"", b"abc", b"x" * 300_000], ids=["empty", "abc", "large"])
def test_the_digest_that_is_stored_is_the_known_one_and_one_byte_changes_it(
    algorithm: str, contents: bytes, root: Path, scan: Scan
) -> None:
    (root / "file").write_bytes(contents)
    os.utime(root / "file", ns=(1, 1))
    scanned = scan(digest_algorithm=algorithm)
    scanned.init()
    with BaselineReader(scanned.baseline) as reader:
        stored = reader.directory(bytes(root))[b"file"].digest
    assert stored == hashlib.new(algorithm, contents).digest()
    checker = scanned.checker()
    scanned.take()
    changed = contents[:-1] + bytes([contents[-1] ^ 1]) if contents else b"\0"
    (root / "file").write_bytes(changed)
    checker.full_check()
    event = of_path(scanned.take(), root / "file")
    assert event.change.startswith("C")
    assert hashlib.new(algorithm, contents).hexdigest() in str(event.fields)
    assert hashlib.new(algorithm, changed).hexdigest() in str(event.fields)


def test_the_digest_of_abc_is_the_one_of_the_standard(root: Path, scan: Scan) -> None:
    (root / "file").write_bytes(b"abc")
    scanned = scan()
    scanned.init()
    with BaselineReader(scanned.baseline) as reader:
        digest = reader.directory(bytes(root))[b"file"].digest
    assert digest is not None
    # FIPS 180-4, example of one block.
    assert digest.hex() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


# ---- row 16: a path where a name should be -------------------------------------------------------


@pytest.mark.parametrize("name", [b"", b".", b"..", b"../x", b"/etc/passwd", b"a/b", b"a\0b"])
def test_a_baseline_whose_names_lead_elsewhere_is_refused(name: bytes) -> None:
    entry = FileEntry(0o100644, 0, 0, 0, 0, 0, 0, 1, 1, 1, 0, None, None, 0, "")
    good = encode_entries([(b"QQQQ", entry)])
    assert b"QQQQ" in decode_entries(good)
    with pytest.raises(FormatError):
        decode_entries(encode_entries([(name, entry)]))


def test_names_that_differ_in_case_only_are_two_objects(root: Path, scan: Scan) -> None:
    (root / "Name").write_bytes(b"one")
    (root / "name").write_bytes(b"two")
    scanned = scan()
    scanned.init()
    checker = scanned.checker()
    scanned.take()
    (root / "name").write_bytes(b"changed")
    checker.full_check()
    assert {event.path for event in scanned.take()} == {bytes(root / "name")}


def test_a_link_in_the_tree_is_a_link_and_leads_nowhere(root: Path, scan: Scan) -> None:
    outside = root.parent / "outside"
    outside.mkdir()
    (outside / "file").touch()
    for target in ("../outside", str(outside), "../../../../../../etc", "."):
        (root / f"link{target.replace('/', '_')}").symlink_to(target)
    scanned = scan()
    scanned.init()
    with BaselineReader(scanned.baseline) as reader:
        rows = reader.directory(bytes(root))
    assert {entry.link for entry in rows.values()} == {
        b"../outside", os.fsencode(outside), b"../../../../../../etc", b".",
    }  # fmt: skip
    checker = scanned.checker()
    scanned.take()
    (outside / "file").write_bytes(b"changed")
    (outside / "new").touch()
    checker.full_check()
    assert scanned.take() == []


# ---- row 39: a file that cannot be hashed as it is -----------------------------------------------


def test_a_file_of_which_the_disk_gives_no_contents_keeps_all_else_that_is_known(
    root: Path, scan: Scan, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("bad", "good"):
        (root / name).write_bytes(b"old")
    scanned = scan(scan_workers=1)
    scanned.init()
    checker = scanned.checker()
    scanned.take()
    for name in ("bad", "good"):
        (root / name).write_bytes(b"new!")
        (root / name).chmod(0o4755)
    bad, real = (root / "bad").stat().st_ino, os.readv

    def readv(fd: int, buffers: Any) -> int:
        if os.fstat(fd).st_ino == bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(fd, buffers)

    monkeypatch.setattr(os, "readv", readv)
    result = checker.full_check()
    raised = scanned.take()
    assert result.unreadable == 1
    (told,) = [event for event in raised if event.code == "FILE_UNREADABLE"]
    assert (told.path, told.fields["reason"]) == (bytes(root / "bad"), "Input/output error")
    changes = {event.path: event.change for event in raised if event.code == "POLICY_MODIFIED"}
    # The update is not lost with the digest: mode and size are told all the same.
    assert "M" in changes[bytes(root / "bad")]
    assert "S" in changes[bytes(root / "bad")]
    assert changes[bytes(root / "good")].startswith("C")


def test_a_file_on_which_somebody_holds_a_lease_is_told_as_such(root: Path, scan: Scan) -> None:
    """Opening it would wait for whoever has the lease, up to 45 seconds; they are asked to give it up."""
    (root / "held").write_bytes(b"old")
    scanned = scan(scan_workers=1)
    scanned.init()
    checker = scanned.checker()
    scanned.take()
    (root / "held").chmod(0o4755)
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    holder = os.open(root / "held", os.O_RDWR)
    try:
        fcntl.fcntl(holder, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        result = checker.full_check()
    finally:
        os.close(holder)
        signal.signal(signal.SIGIO, before)
    raised = scanned.take()
    assert result.unreadable == 1
    (told,) = [event for event in raised if event.code == "FILE_UNREADABLE"]
    expected = (bytes(root / "held"), "a process has a lease on it")
    assert (told.path, told.fields["reason"]) == expected
    assert ["M" in event.change for event in raised if event.code == "POLICY_MODIFIED"] == [True]
    assert checker.full_check().unreadable == 0


def test_a_file_that_grows_while_it_is_hashed_has_the_digest_of_its_size_or_none(
    root: Path, scan: Scan, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "grows").write_bytes(b"x" * 100)
    real, pending = os.readv, [b"y" * 50]

    def readv(fd: int, buffers: Any) -> int:
        if pending:
            with (root / "grows").open("ab") as file:
                file.write(pending.pop())
        return real(fd, buffers)

    scanned = scan(scan_workers=1)
    monkeypatch.setattr(os, "readv", readv)
    scanned.init()
    with BaselineReader(scanned.baseline) as reader:
        entry = reader.directory(bytes(root))[b"grows"]
    assert entry.size == 150
    assert entry.digest == hashlib.sha256(b"x" * 100 + b"y" * 50).digest()


def test_a_file_beyond_100_mib_is_hashed_to_its_end(root: Path, scan: Scan) -> None:
    size = 101 * 1024 * 1024
    with (root / "large").open("wb") as file:
        # Not sparse: one that mostly claims its size is told as such and not read.
        os.posix_fallocate(file.fileno(), 0, size)
        file.seek(size - 1)
        file.write(b"1")
    scanned = scan()
    scanned.init()
    checker = scanned.checker()
    scanned.take()
    status = (root / "large").stat()
    with (root / "large").open("r+b") as file:
        file.seek(size - 1)
        file.write(b"2")
    os.utime(root / "large", ns=(status.st_atime_ns, status.st_mtime_ns))
    checker.full_check()
    assert of_path(scanned.take(), root / "large").change.startswith("C")
