"""Each kind of value: what it takes, what it refuses, and its bounds."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from needfire_protocol.errors import FormatError
from needfire_protocol.rc import values
from needfire_protocol.rc.values import Kind, MatchedPath, WithoutEffect, normalise

MINUTE_TO_DAY = values.duration(60, 86_400)
SMALL = values.integer(-19, 19)
KIB_TO_MIB = values.size(2**10, 2**20)


@pytest.mark.parametrize(
    ("kind", "written", "meant"),
    [
        *((values.BOOLEAN, word, True) for word in (b"yes", b"YES", b"True", b"1")),
        *((values.BOOLEAN, word, False) for word in (b"no", b"No", b"FALSE", b"0")),
        (MINUTE_TO_DAY, b"60", 60),
        (MINUTE_TO_DAY, b"60s", 60),
        (MINUTE_TO_DAY, b"2m", 120),
        (MINUTE_TO_DAY, b"2 H", 7_200),
        (MINUTE_TO_DAY, b"1d", 86_400),
        (MINUTE_TO_DAY, b"86400", 86_400),
        (SMALL, b"-19", -19),
        (SMALL, b"19", 19),
        (SMALL, b"007", 7),
        (KIB_TO_MIB, b"1024", 1_024),
        (KIB_TO_MIB, b"1K", 1_024),
        (KIB_TO_MIB, b"1 MiB", 2**20),
        (KIB_TO_MIB, b"512kb", 2**19),
        (values.PORT, b"1", 1),
        (values.PORT, b"65535", 65_535),
        (values.UID, b"4294967294", 2**32 - 2),
        (values.ADDRESS, b"192.0.2.1", "192.0.2.1"),
        (values.ADDRESS, b"2001:DB8::0:1", "2001:db8::1"),
        (values.LISTEN_ADDRESS, b"inaddr_any", None),
        (values.LOOPBACK_OR_ADDRESS, b"9777", ("127.0.0.1", 9777)),
        (values.LOOPBACK_OR_ADDRESS, b"0", ("127.0.0.1", 0)),
        (values.LOOPBACK_OR_ADDRESS, b"192.0.2.1:65535", ("192.0.2.1", 65535)),
        (values.LOOPBACK_OR_ADDRESS, b"[2001:DB8::1]:9777", ("2001:db8::1", 9777)),
        (values.SERVER, b"loghost", ("loghost", None)),
        (values.SERVER, b"loghost.example.org:5000", ("loghost.example.org", 5_000)),
        (values.SERVER, b"192.0.2.1:5000", ("192.0.2.1", 5_000)),
        (values.SERVER, b"2001:db8::1", ("2001:db8::1", None)),
        (values.SERVER, b"[2001:db8::1]", ("2001:db8::1", None)),
        (values.SERVER, b"[2001:db8::1]:5000", ("2001:db8::1", 5_000)),
        (values.USER, b"_needfire-1", "_needfire-1"),
        (values.LOG_FORMAT, b"JSON", "json"),
        (values.DIGEST, b"SHA256", "sha256"),
        (values.DIGEST, b"SHA-512", "sha512"),
        (values.DIGEST, b"sha3-256", "sha3_256"),
        (values.DIGEST, b"BLAKE2b", "blake2b"),
        (values.DIGEST, b"BLAKE3", "blake3"),
        (values.ABSOLUTE_PATH, b"/var//log/x/", b"/var/log/x"),
        (values.ABSOLUTE_PATH, b'"/a b "', b"/a b "),
        (values.TEXT, "Überwachung".encode(), "Überwachung"),
    ],
)
def test_a_proper_value_is_taken(kind: Kind, written: bytes, meant: object) -> None:
    assert kind.parse(written) == meant


@pytest.mark.parametrize(
    ("kind", "written"),
    [
        *((values.BOOLEAN, word) for word in (b"", b"on", b"y", b"2", b"ye s", b"\xff")),
        *(
            (MINUTE_TO_DAY, word)
            for word in (b"59", b"59s", b"86401", b"2d", b"1w", b"-60", b"1h30m")
        ),
        *((MINUTE_TO_DAY, word) for word in (b"", b"m", b"1.5h", b"1_000", "٦٠".encode())),
        *((SMALL, word) for word in (b"-20", b"20", b"+1", b"1e1", b"0x1", b"", b"1" * 5_000)),
        *((KIB_TO_MIB, word) for word in (b"1023", b"1048577", b"2M", b"1Z", b"M", b"-1K")),
        *((values.PORT, word) for word in (b"0", b"65536", b"http", b"-1")),
        *(
            (values.LOOPBACK_OR_ADDRESS, word)
            for word in (b"65536", b"-1", b"", b":9777", b"::1:9777", b"host:9777", b"192.0.2.1:")
        ),
        (values.UID, b"4294967295"),
        *((values.ADDRESS, word) for word in (b"localhost", b"192.0.2.256", b"192.0.2.1/24", b"")),
        *(
            (values.SERVER, word)
            for word in (b"", b":5000", b"a b", b"-x", b"a:0", b"a:b", b"[::1", b"[x]")
        ),
        *((values.SERVER, word) for word in (b"a" * 254, b"a/b", b"1:2:3", b"[::1]x")),
        *((values.USER, word) for word in (b"", b"-x", b"a b", b"a:b", b"a" * 40)),
        *((values.SEVERITY, word) for word in (b"", b"none", b"warn,err", b"critical")),
        *((values.SEVERITY_LIST, word) for word in (b"", b"warn,bad", b"!none")),
        (values.LOG_FORMAT, b"xml"),
        *((values.DIGEST, word) for word in (b"", b"sha", b"crc32")),
        *((values.ABSOLUTE_PATH, word) for word in (b"", b"log", b"/a/../b", b"/a\0", b'"/a')),
        *((values.TEXT, word) for word in (b"\xff", b"a\x1b[0m", "a\u202eb".encode())),
        *((values.MASK_CHANGE, word) for word in (b"", b"+", b",", b"+CHKS", b"*CHK", b"++CHK")),
    ],
)
def test_any_other_value_is_an_error_of_one_printable_line(kind: Kind, written: bytes) -> None:
    with pytest.raises(FormatError) as caught:
        kind.parse(written)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("kind", "bounds"),
    [
        (KIB_TO_MIB, "between 1K and 1M"),
        (values.size(0, 1_025), "between 0 and 1025"),
        (values.size(3 * 2**27, 2**40), "between 384M and 1T"),
    ],
)
def test_the_bounds_of_a_size_are_said_as_they_can_be_written(kind: Kind, bounds: str) -> None:
    with pytest.raises(FormatError, match=f"'9999T' must be {bounds}$"):
        kind.parse(b"9999T")
    for word in bounds.split()[1::2]:
        kind.parse(word.encode())


@pytest.mark.parametrize(
    ("kind", "written"),
    [(values.DIGEST, b"TIGER192"), (values.DIGEST, b"tiger"), (values.ABSOLUTE_PATH, b"AUTO")],
)
def test_a_value_of_samhain_that_means_nothing_here_has_no_effect(
    kind: Kind, written: bytes
) -> None:
    with pytest.raises(WithoutEffect):
        kind.parse(written)


def test_every_digest_but_blake3_is_one_that_python_always_has() -> None:
    names = values.DIGEST.words.removeprefix("a digest: ").split(", ")
    assert set(names) - hashlib.algorithms_guaranteed == {"blake3"}
    # Those whose length is whatever one asks for are none.
    assert hashlib.algorithms_guaranteed - set(names) == {"shake_128", "shake_256"}
    assert [values.DIGEST.parse(name.encode()) for name in names] == names


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        # The examples of the Samhain manual, 5.4.2.
        (b"/u01/oracle/archive00", MatchedPath(None, b"/u01/oracle/archive00", False)),
        (b"7/u01/oracle/archive02", MatchedPath(7, b"/u01/oracle/archive02", False)),
        (b'"7/u01/oracle/archive03 "', MatchedPath(7, b"/u01/oracle/archive03 ", False)),
        (b'"7/u01/oracle/archi"ve"', MatchedPath(7, b'/u01/oracle/archi"ve', False)),
        (b"/u01/oracle/archive\\v04", MatchedPath(None, b"/u01/oracle/archive\x0b04", False)),
        (b"/u01/oracle/archive\\\\04", MatchedPath(None, b"/u01/oracle/archive\\04", False)),
        (b"/u01/oracle/archive\\076", MatchedPath(None, b"/u01/oracle/archive>", False)),
        (b"'/u01/oracle/archive\\x0a'", MatchedPath(None, b"/u01/oracle/archive\n", False)),
        (b'/u01/oracle/archive_0"', MatchedPath(None, b'/u01/oracle/archive_0"', False)),
        # And others.
        (b"-1/a", MatchedPath(-1, b"/a", False)),
        (b"0/", MatchedPath(0, b"/", False)),
        (b"//a///b/./c/", MatchedPath(None, b"/a/b/c", False)),
        (b"/a/...", MatchedPath(None, b"/a/...", False)),
        (b"/a*", MatchedPath(None, b"/a*", True)),
        (b"/a?[b-c]", MatchedPath(None, b"/a?[b-c]", True)),
        (b"/a\\x2a", MatchedPath(None, b"/a*", True)),
        (b"/a\\\\*", MatchedPath(None, b"/a*", False)),
        (b"/a\\\\*/b*", MatchedPath(None, b"/a[*]/b*", True)),
        (b"/a\\\\x/*", MatchedPath(None, b"/ax/*", True)),
        (b"/\xff\xfe", MatchedPath(None, b"/\xff\xfe", False)),
    ],
)
def test_a_path_is_written_as_the_samhain_manual_says(written: bytes, meant: MatchedPath) -> None:
    assert values.MATCHED_PATH.parse(written) == meant


@pytest.mark.parametrize(
    "written",
    [
        b'"/u01/oracle/archive_0',  # no quote at the end
        b"/u01/oracle/archive_\\03",  # three octal digits, or \x03
        b"/u01/oracle/archive_\\g",
        b"/a\\",
        b"/a\\x1",
        b"/a\\x00b",
        b"/a\\000",
        b"/a\\400",
        b'"',
        b"''",
        b"etc",
        b"5",
        b"5 /etc",
        b"+5/etc",
        b"99999/etc",
        b"/etc/../root",
        b"/..",
        b"/a\\x2f../b",
        b"/" + b"a" * 4_095,
    ],
)
def test_a_bad_path_is_an_error(written: bytes) -> None:
    with pytest.raises(FormatError):
        values.MATCHED_PATH.parse(written)


@pytest.mark.parametrize(("length", "is_proper"), [(4_094, True), (4_095, True), (4_096, False)])
def test_a_path_is_as_long_as_the_system_takes_it(length: int, is_proper: bool) -> None:
    path = b"/" + b"a" * (length - 1)
    if is_proper:
        assert normalise(path) == path
    else:
        with pytest.raises(FormatError, match="4096 bytes; at most 4095"):
            normalise(path)


@given(path=st.binary(max_size=30).map(lambda tail: b"/" + tail))
def test_normalising_twice_changes_nothing_more(path: bytes) -> None:
    try:
        once = normalise(path)
    except FormatError:
        return
    assert normalise(once) == once
    assert b"//" not in once
    assert once == b"/" or not once.endswith(b"/")
