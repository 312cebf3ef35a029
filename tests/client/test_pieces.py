"""Large directories a few names at a time."""

from hypothesis import given
from hypothesis import strategies as st

from needfire_client.pieces import InOrder, pieces
from needfire_protocol.baseline import FileEntry, encode_entries

NAMES = st.text("abc", min_size=1, max_size=2).map(str.encode)
STREAMS = st.lists(st.dictionaries(NAMES, st.integers(), max_size=12), min_size=1, max_size=3)


@given(streams=STREAMS, most=st.integers(1, 5))
def test_every_name_is_in_one_piece_with_all_that_is_said_of_it(
    streams: list[dict[bytes, int]], most: int
) -> None:
    found = list(pieces(*(iter(sorted(stream.items())) for stream in streams), most=most))
    names = [sorted({name for side in piece for name in side}) for piece in found]
    assert [name for piece in names for name in piece] == sorted(set().union(*streams))
    assert all(1 <= len(piece) <= most for piece in names)
    for index, stream in enumerate(streams):
        together: dict[bytes, int] = {}
        for piece in found:
            together |= piece[index]
        assert together == stream


@given(names=st.sets(NAMES, max_size=12), asked=st.lists(NAMES, max_size=12))
def test_a_name_is_found_in_whatever_order_it_is_asked_for(
    names: set[bytes], asked: list[bytes]
) -> None:
    entries = {
        name: FileEntry(0o100644, 0, 0, index, 1, 2, 3, 4, 5, 1, 0, None, None, 0, "")
        for index, name in enumerate(sorted(names))
    }
    row = InOrder(encode_entries(list(entries.items())))
    assert [row.find(name) for name in asked] == [entries.get(name) for name in asked]
