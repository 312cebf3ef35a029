"""Notes of who changed a path, and the fields of an event that say so."""

import pytest

from needfire_client.processes import Writer
from needfire_client.who import WRITERS_MAX, WhoBook, who_fields

VI = Writer(7, b"/usr/bin/vi", b"vi\0--token=x\0", 0, 0, b"/usr/bin/bash", "ssh.service")
SED = Writer(8, b"/usr/bin/sed")


def test_a_writer_is_told_until_the_look_that_began_after_it_is_over() -> None:
    book = WhoBook()
    book.note(b"/d/f", VI)
    assert book.writers(b"/d/f") == [VI]
    book.begin_look([b"/d/f"])
    assert book.writers(b"/d/f") == [VI]
    book.note(b"/d/f", SED)
    assert book.writers(b"/d/f") == [VI, SED]
    book.begin_look([b"/d/f"])
    assert book.writers(b"/d/f") == [SED]
    book.begin_look([])
    assert book.writers(b"/d/f") == []


def test_a_note_waits_for_the_look_at_its_own_path() -> None:
    book = WhoBook()
    book.note(b"/d/f", VI)
    book.begin_look([b"/e"])
    book.begin_look([b"/e"])
    assert book.writers(b"/d/f") == [VI]


def test_a_look_at_an_object_is_one_at_its_directory() -> None:
    book = WhoBook()
    book.note(b"/d", VI)
    book.begin_look([b"/d/f"])
    assert book.writers(b"/d") == [VI]
    book.begin_look([])
    assert book.writers(b"/d") == []


def test_what_was_put_off_is_kept() -> None:
    book = WhoBook()
    book.note(b"/d/f", VI)
    book.begin_look([b"/d/f"])
    book.note(b"/d/f", SED)
    book.put_off([b"/d/f", b"/never"])
    book.begin_look([b"/d/f"])
    assert book.writers(b"/d/f") == [VI, SED]


def test_who_moved_a_directory_changed_everything_below_it_and_who_wrote_to_it_did_not() -> None:
    book = WhoBook()
    book.note(b"/d/moved", VI, below=True)
    book.note(b"/d/other", SED)
    assert book.writers(b"/d/moved/x/y") == [VI]
    assert book.writers(b"/d/other/x") == []
    assert book.writers(b"/d") == []


@pytest.mark.parametrize("count", [WRITERS_MAX - 1, WRITERS_MAX, WRITERS_MAX + 1, 10])
def test_the_same_process_counts_once_and_of_too_many_it_is_told_that_there_were(
    count: int,
) -> None:
    book = WhoBook()
    for pid in range(count):
        for _ in range(3):
            book.note(b"/f", Writer(pid, b"/bin/x"))
    writers = book.writers(b"/f")
    assert [writer.pid for writer in writers if writer] == list(range(min(count, WRITERS_MAX)))
    assert (None in writers) == (count > WRITERS_MAX)


def test_a_program_with_a_comma_in_its_name_is_one_program() -> None:
    both = [VI, Writer(9, b"/tmp/x, /usr/bin/dpkg")]
    assert who_fields([*both])["who_program"] == "/usr/bin/vi, /tmp/x\\x2c /usr/bin/dpkg"


def test_more_paths_than_may_be_held_are_forgotten_and_nothing_is_made_up() -> None:
    book = WhoBook(paths_max=3)
    for number in range(4):
        book.note(b"/%d" % number, VI)
    assert book.writers(b"/0") == []
    assert book.writers(b"/3") == [VI]


def test_the_fields_of_one_writer() -> None:
    assert who_fields([VI]) == {
        "who_program": "/usr/bin/vi",
        "who_pid": 7,
        "who_command": "vi --token=***",
        "who_user": "root",
        "who_login": "root",
        "who_parent": "/usr/bin/bash",
        "who_unit": "ssh.service",
    }
    assert who_fields([SED]) == {"who_program": "/usr/bin/sed", "who_pid": 8}


def test_nobody_known_is_unknown_and_never_a_guess() -> None:
    assert who_fields([]) == who_fields([None]) == {"who": "unknown"}


def test_several_are_listed_with_the_unknown_among_them() -> None:
    assert who_fields([VI, None, SED]) == {
        "who": "several",
        "who_program": "/usr/bin/vi, /usr/bin/sed, unknown",
        "who_pid": "7, 8",
    }


def test_a_hostile_program_name_is_printable_and_bounded() -> None:
    shown = who_fields([Writer(1, b"/tmp/\n\xff" * 2_000)])["who_program"]
    assert isinstance(shown, str)
    assert shown.isprintable()
    assert len(shown) <= 256
