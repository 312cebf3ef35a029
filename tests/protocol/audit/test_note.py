"""Signed notes and checkpoints: the published forms, and nothing that only looks like one."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from needfire_protocol.audit.note import (
    NOTE_BYTES_MAX,
    Checkpoint,
    PublicKey,
    handover_text,
    parse_checkpoint,
    parse_handover,
    parse_note,
    public_key_of,
    sign_note,
)
from needfire_protocol.errors import FormatError

# From the documentation of Go's package note (golang.org/x/mod/sumdb/note).
GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_NOTE = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "\u2014 PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotp"
    "RZb6KE6RyyBwJnAM=\n"
)
# The example of C2SP's tlog-checkpoint.
C2SP_CHECKPOINT = (
    "example.com/behind-the-sofa\n"
    "20852163\n"
    "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    "\n"
    "\u2014 example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcy"
    "v2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
)
PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KEY = public_key_of("log.example/1", PRIVATE)
CHECKPOINT = Checkpoint("log.example/1", 4711, bytes(range(32)), 17, 1_763_754_047_123_456)


def test_the_note_of_go_s_documentation_is_verified_by_its_key() -> None:
    key = PublicKey.parse(GO_KEY)
    assert str(key) == GO_KEY
    assert key.verifies(parse_note(GO_NOTE))


def test_a_changed_text_is_not_verified() -> None:
    assert not PublicKey.parse(GO_KEY).verifies(parse_note(GO_NOTE.replace("answer", "anwser")))


def test_the_checkpoint_of_c2sp_s_specification_is_read() -> None:
    checkpoint = parse_checkpoint(parse_note(C2SP_CHECKPOINT))
    assert (checkpoint.origin, checkpoint.size) == ("example.com/behind-the-sofa", 20852163)
    assert checkpoint.root.hex().startswith("0ac5186a91863e8e")
    assert checkpoint.text() == C2SP_CHECKPOINT.partition("\n\n")[0] + "\n"


def test_a_checkpoint_comes_back_from_its_note_as_it_was() -> None:
    note = parse_note(sign_note(CHECKPOINT.text(), KEY.name, PRIVATE))
    assert KEY.verifies(note)
    assert parse_checkpoint(note) == CHECKPOINT


def test_the_signature_of_another_key_of_the_same_name_does_not_count() -> None:
    other = Ed25519PrivateKey.from_private_bytes(bytes(32))
    note = parse_note(sign_note(CHECKPOINT.text(), KEY.name, other))
    assert not KEY.verifies(note)
    assert not KEY.is_named_by(note)


def test_one_right_signature_among_others_is_enough() -> None:
    other = Ed25519PrivateKey.from_private_bytes(bytes(32))
    foreign = sign_note(CHECKPOINT.text(), "witness.example", other).partition("\n\n")[2]
    assert KEY.verifies(parse_note(sign_note(CHECKPOINT.text(), KEY.name, PRIVATE) + foreign))


def test_a_handover_names_the_new_key() -> None:
    new = public_key_of(KEY.name, Ed25519PrivateKey.from_private_bytes(bytes(32)))
    note = parse_note(sign_note(handover_text(new), KEY.name, PRIVATE))
    assert parse_handover(note) == new
    assert KEY.verifies(note)


def test_a_checkpoint_is_no_handover() -> None:
    with pytest.raises(FormatError, match="no key over"):
        parse_handover(parse_note(sign_note(CHECKPOINT.text(), KEY.name, PRIVATE)))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "PeterNeumann",
        GO_KEY.replace("c74f20a3", "c74f20a4"),
        GO_KEY[:-4],
        GO_KEY.replace("+ARpc", "+AhpC"),
        "Peter Neumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
    ],
)
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(FormatError):
        PublicKey.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "text\n",
        "text\n\n",
        "text\n\n\u2014 name AAAA\n",
        "text\n\n- name AAAAAAAAAAAA\n",
        "text\n\n\u2014 name AAAAAAAA",
        "text\n\n\u2014 na+me AAAAAAAAAAAA\n",
        "text\n\n\u2014 name AAAAAAAAAAB=\n",
        "text\n" + "x" * NOTE_BYTES_MAX,
        "text\n\n" + "\u2014 name AAAAAAAAAAAA\n" * 17,
    ],
)
def test_what_is_no_note_is_refused(text: str) -> None:
    with pytest.raises(FormatError):
        parse_note(text)


@pytest.mark.parametrize(
    "body",
    [
        "origin\n1\n",
        "origin\n01\nAAAA\n",
        "origin\n-1\n" + "A" * 43 + "=\n",
        "origin\n1\nAAAA\n",
        "\n1\n" + "A" * 43 + "=\n",
        "origin\n1\n" + "A" * 43 + "=\ntime yesterday\n",
        f"origin\n{2**63}\n" + "A" * 43 + "=\n",
        "origin\n1\n" + "A" * 43 + f"=\ncheckpoint {2**63}\n",
    ],
)
def test_what_is_no_checkpoint_is_refused(body: str) -> None:
    with pytest.raises(FormatError):
        parse_checkpoint(parse_note(body + "\n\u2014 name AAAAAAAAAAAA\n"))


def test_a_checkpoint_counts_as_far_as_a_database_does() -> None:
    most = 2**63 - 1
    body = f"origin\n{most}\n" + "A" * 43 + f"=\ncheckpoint {most}\n"
    checkpoint = parse_checkpoint(parse_note(body + "\n\u2014 name AAAAAAAAAAAA\n"))
    assert (checkpoint.size, checkpoint.number) == (most, most)


@given(st.text(max_size=300))
def test_any_text_is_a_note_or_a_format_error(text: str) -> None:
    try:
        note = parse_note(text)
    except FormatError:
        return
    assert not KEY.verifies(note)
