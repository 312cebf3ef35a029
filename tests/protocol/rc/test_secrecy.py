"""What is shown of a configuration's lines holds no password and no verifier."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from needfire_protocol.rc.directives import DIRECTIVES
from needfire_protocol.rc.secrecy import masked_line


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (b"SetDBPassword=hunter2", b"SetDBPassword=***"),
        (b"  setdbpassword  =  hunter2 # old", b"  setdbpassword  =  ***"),
        (b"# SetSocketPassword = hunter2", b"# SetSocketPassword = ***"),
        (b"Client=web1@00ff@0011aabb", b"Client=web1@***"),
        (b"#client = web1@00ff@0011aabb", b"#client = web1@***"),
        (b"StoreURL = postgresql://nf:hunter2@db/nf", b"StoreURL = postgresql://***@db/nf"),
        (b"SetCommandline = send --token hunter2 x", b"SetCommandline = send --token ***"),
        (b"SetCommandline = send --api-key=hunter2", b"SetCommandline = send --api-key=***"),
        (b'# old: "secret": "hunter2"', b'# old: "secret": ***'),
        (b"# Authorization: Bearer hunter2", b"# Authorization: ***"),
        (
            b"OutputTarget = webhook https://hook.example/hunter2?a=b",
            b"OutputTarget = webhook https://hook.example/***",
        ),
        (b"OutputTarget = webhook https://hook.example", None),
        # Where a secret is, is none.
        (b"StorePasswordFile = /etc/needfire/store-password", None),
        (b"OutputKeyFile=/etc/needfire/webhook.key", None),
        (b"file = /etc/passwd", None),
        (b"dir = 2/etc/pam.d", None),
        (b"# the password stands elsewhere", None),
        (b"", None),
    ],
)
def test_secrets_are_masked_and_the_rest_is_left(line: bytes, shown: bytes | None) -> None:
    assert masked_line(line) == (line if shown is None else shown)


@pytest.mark.parametrize(
    "name",
    [row.name for row in DIRECTIVES.values() if row.name.lower().endswith(("password", "secret"))],
)
def test_every_directive_that_is_named_so_is_masked(name: str) -> None:
    assert masked_line(f"{name} = hunter2".encode()) == f"{name} = ***".encode()


@given(st.binary(max_size=200))
def test_any_line_can_be_masked_and_twice_is_once(line: bytes) -> None:
    once = masked_line(line)
    assert masked_line(once) == once
