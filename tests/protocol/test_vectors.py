"""The vectors in tests/vectors are those of this code, and each leads to what it says."""

from pathlib import Path

import pytest

from needfire_testkit.vector_files import file_text, read_file, secrets_text
from needfire_testkit.vector_receivers import RECEIVERS, Vector, told
from needfire_testkit.vectors import all_vectors

FOLDER = Path(__file__).parents[1] / "vectors"
VECTORS = {path.stem: read_file(path) for path in sorted(FOLDER.glob("*.txt"))}
MADE = {vector.name: vector for vector in all_vectors()}


def test_the_files_are_those_that_this_code_makes() -> None:
    """If this fails, the protocol has changed: scripts/vectors writes them anew."""
    assert set(VECTORS) == set(MADE)
    for name, vector in MADE.items():
        assert (FOLDER / f"{name}.txt").read_text(encoding="utf-8") == file_text(vector), name
    assert (FOLDER / "SECRETS").read_text(encoding="utf-8") == secrets_text()
    assert {path.name for path in FOLDER.iterdir()} == {f"{name}.txt" for name in MADE} | {
        "SECRETS"
    }


@pytest.mark.parametrize("vector", VECTORS.values(), ids=VECTORS.keys())
def test_a_vector_leads_to_what_it_expects(vector: Vector) -> None:
    result = told(vector)
    if vector.expect.rpartition(" | ")[2].startswith("Failed: "):
        assert result.startswith(vector.expect)
        assert result.count(" | ") == vector.expect.count(" | ")
    else:
        assert result == vector.expect


@pytest.mark.parametrize("vector", VECTORS.values(), ids=VECTORS.keys())
def test_a_vector_leads_to_the_same_byte_by_byte(vector: Vector) -> None:
    receiver = RECEIVERS[vector.receiver]()
    whole = RECEIVERS[vector.receiver]()
    pieces = [
        event
        for start in range(len(vector.data))
        for event in receiver.receive_data(vector.data[start : start + 1])
    ]
    at_once = whole.receive_data(vector.data)
    assert [repr(event) for event in pieces] == [repr(event) for event in at_once]


def test_names_are_different_and_no_vector_has_two_faults_of_one_name() -> None:
    assert len(all_vectors()) == len(MADE) > 100
    assert len({vector.data for vector in MADE.values()}) > 90


def test_a_vector_survives_its_file(tmp_path: Path) -> None:
    vector = Vector("name", "fresh server", "Failed: x: y", "why: because", bytes(range(100)))
    path = tmp_path / "name.txt"
    path.write_text(file_text(vector), encoding="utf-8")
    assert read_file(path) == vector
