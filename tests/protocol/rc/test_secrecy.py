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
        (b"psk=hunter2", b"psk=***"),
        (b"# wifi-psk = hunter2", b"# wifi-psk = ***"),
        (b"key: hunter2", b"key: ***"),
        (b"PIN=4711", b"PIN=***"),
        (b"passwort=hunter2", b"passwort=***"),
        (b"SetCommandline = /x -p hunter2", b"SetCommandline = /x -p ***"),
        (b"SetCommandline = mysql -u root -phunter2", b"SetCommandline = mysql -u root -p***"),
        (b"# curl -u nf:hunter2 http://x/", b"# curl -u ***"),
        (b"# curl --user nf:hunter2 http://x/", b"# curl --user ***"),
        (b"//nf:hunter2@host/share", b"//***@host/share"),
        (b"https://nf:hunter2@host/share", b"https://***@host/***"),
        (b"https://nf:hunt/er2@host/share", b"https://***"),
        (b"https://hooks.example/a@hunter2", b"https://***"),
        (b"wss://host/hunter2", b"wss://host/***"),
        (b"# password hunter2", b"# password ***"),
        (b"# password hunter", b"# password ***"),
        (b"# the password is hunter, as ever", b"# the password is ***"),
        (b"machine h login nf password hunter2 account x", b"machine h login nf password ***"),
        (b"Basic aHVudGVyMg==", b"Basic ***"),
        (b"web1@0123456789abcdef@0011aabb", b"web1@***"),
        (b"#  web1@00ff@0011aabb", b"#  web1@***"),
        (b"OutputTarget = command /bin/page hunter2", b"OutputTarget = command /bin/page ***"),
        (b"OutputTarget = command /bin/page", None),
        (b"# a@example.org, b@example.org,c@example.org", None),
        (b"# mkdir /a; the key stands elsewhere, the pin as well", None),
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


SECRET = "hunter2XYZ"
SHAPES = [
    *("password={}", "SetDBPassword = {}", "pass: {}", "psk={}", "key: {}", "api-key={}", "PIN={}"),
    *("x -p {}", "--token {}", "--password={}", "curl -u u:{} http://h", "curl --user u:{} x"),
    *("wss://h/{}", "https://h/hooks/{}", "//u:{}@h/x", "amqp://u:{}@h", "password {}"),
    *("password\t{}", "the secret is {}", "Client=web1@SALT@{}", "web1@0123456789abcdef@{}"),
    *("web1@{}@00112233", "Authorization: Bearer {}", "OutputTarget = command /bin/x {}"),
    *("OutputTarget = command '/bin/x y' a b {}", "sshpass -p{} ssh h", 'key = "{}"'),
]
_noise = st.text("abz /#=:@.-\"'9", max_size=10)


@given(shape=st.sampled_from(SHAPES), before=_noise, after=_noise)
def test_a_secret_of_a_known_shape_is_never_shown(shape: str, before: str, after: str) -> None:
    line = f"{before} {shape.format(SECRET)} {after}".encode()
    shown = masked_line(line)
    assert SECRET.encode() not in shown
    assert masked_line(shown) == shown


@given(st.binary(max_size=200))
def test_any_line_can_be_masked_and_twice_is_once(line: bytes) -> None:
    once = masked_line(line)
    assert masked_line(once) == once
