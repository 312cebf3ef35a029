"""Large directories a few names at a time."""

from hypothesis import given
from hypothesis import strategies as st

from needfire_client.pieces import InOrder, pieces
from needfire_protocol.baseline import FileEntry, encode_entries, iterate_rows

NAMES = st.text("abc", min_size=1, max_size=2).map(str.encode)


def entry(size: int, atime_ns: int) -> FileEntry:
    return FileEntry(0o100644, 0, 0, size, 1, 2, atime_ns, 4, 5, 1, 0, None, None, 0, "")


ENTRIES = st.builds(entry, st.integers(0, 1), st.integers(0, 1))
ROWS = st.dictionaries(NAMES, ENTRIES, max_size=12)


@given(
    old=ROWS,
    said=st.dictionaries(NAMES, st.none() | ENTRIES, max_size=3),
    new=ROWS,
    ignores_times=st.booleans(),
    most=st.integers(1, 5),
)
def test_every_name_that_is_not_as_it_was_is_in_one_piece_with_all_that_is_said_of_it(
    old: dict[bytes, FileEntry],
    said: dict[bytes, FileEntry | None],
    new: dict[bytes, FileEntry],
    ignores_times: bool,
    most: int,
) -> None:
    def seen(entry: FileEntry | None) -> FileEntry | None:
        return entry._replace(atime_ns=0) if entry is not None and ignores_times else entry

    rows = [iterate_rows(encode_entries(sorted(side.items()))) for side in (old, new)]
    found = list(
        pieces(rows[0], iter(sorted(said.items())), rows[1], ignores_times=ignores_times, most=most)
    )
    expected = {
        name
        for name in old | said | new
        if name in said or seen(old.get(name)) != seen(new.get(name))
    }
    names = [sorted({name for side in piece for name in side}) for piece in found]
    assert [name for piece in names for name in piece] == sorted(expected)
    assert all(1 <= len(piece) <= most for piece in names)
    sides: list[dict[bytes, FileEntry | None]] = [{**old}, said, {**new}]
    for index, side in enumerate(sides):
        together = {name: each for piece in found for name, each in piece[index].items()}
        assert together == {name: each for name, each in side.items() if name in expected}


@given(names=st.sets(NAMES, max_size=12), asked=st.lists(NAMES, max_size=12))
def test_a_name_is_found_in_whatever_order_it_is_asked_for(
    names: set[bytes], asked: list[bytes]
) -> None:
    entries = {name: entry(index, 3) for index, name in enumerate(sorted(names))}
    row = InOrder(encode_entries(list(entries.items())))
    assert [row.find(name) for name in asked] == [entries.get(name) for name in asked]
