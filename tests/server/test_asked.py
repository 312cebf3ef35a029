"""What is on record of a request: what was asked for, and no secret."""

import json
from io import BytesIO
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from needfire_protocol.audit.record import Draft, Moment, encode_record, parse_record
from needfire_server.admin.asked import asked_fields
from needfire_server.admin.offline import OfflineStore
from needfire_testkit.server_store import verifier

words = st.text(max_size=60)
values = st.none() | st.booleans() | st.integers() | words | st.lists(words, max_size=3)


@given(st.dictionaries(words, values, max_size=6))
def test_whatever_is_asked_fits_into_a_record(arguments: dict[str, Any]) -> None:
    fields = asked_fields(arguments, None)
    draft = Draft("ADMIN_REQUEST", None, "root", None, None, fields)
    record = parse_record(encode_record(0, bytes(32), Moment(1, 1), draft))
    assert record.draft.is_success is None
    assert len(str(fields.get("arguments", ""))) < 2_100


def test_thousands_of_long_arguments_fit_into_a_record() -> None:
    arguments = {f"{number}" * 100: ["\\" * 10_000, {"x": 2**70}] for number in range(2_000)}
    told = str(asked_fields(arguments, None)["arguments"])
    assert len(told) < 2_100
    assert told.endswith(" characters)")


def test_arguments_are_recorded_without_what_was_not_given() -> None:
    arguments = {"name": "web1", "all": False, "limit": 7, "since_us": None, "code": ["A", "B"]}
    assert json.loads(str(asked_fields(arguments, None)["arguments"])) == {
        "name": "web1",
        "all": False,
        "limit": 7,
        "code": '["A", "B"]',
    }
    assert asked_fields({"name": None}, None) == {}


def test_long_values_are_cut_and_say_so() -> None:
    told = json.loads(str(asked_fields({"note": "x" * 201}, None)["arguments"]))
    assert told == {"note": f"{'x' * 200}... (201 characters)"}
    assert json.loads(str(asked_fields({"note": "x" * 200}, None)["arguments"])) == {
        "note": "x" * 200
    }


def test_of_a_file_only_its_size_is_told(tmp_path: Path) -> None:
    (tmp_path / "given").write_bytes(b"secret" * 7)
    with open(tmp_path / "given", "rb") as file:
        assert asked_fields({}, file) == {"file_bytes": 42}
    assert asked_fields({}, BytesIO(b"no file at all")) == {}


def test_no_verifier_and_no_salt_is_on_record(tmp_path: Path) -> None:
    made = verifier()
    secrets = {"salt": made.salt.hex(), "verifier": made.verifier.hex()}
    with OfflineStore(str(tmp_path)) as store:
        store.call("register", {"name": "web1", **secrets})
        found = [item["record"] for item in store.stream("audit-show", {"limit": 100})]
    (asked,) = [each for each in found if "verifier" in str(each["fields"].get("arguments"))]
    assert json.loads(asked["fields"]["arguments"])["name"] == "web1"
    assert asked["outcome"] == "asked"
    assert not [each for each in secrets.values() if each in json.dumps(found)]
