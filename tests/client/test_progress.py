import io
import os
import pty
from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from needfire_client.logbook import ConsoleSink
from needfire_client.progress import ProgressBar, progress_line
from needfire_protocol.event import make_event
from needfire_protocol.severity import Severity, SeverityFilter


def test_the_line_shows_how_far_it_is() -> None:
    assert progress_line("checking", 50, 100, 1_234_567, b"/etc") == (
        "checking  [##########..........]   50%  50 files  1.2 MB  /etc"
    )
    assert progress_line("init", 71_204, None, 999, b"/") == "init  71,204 files  999 B  /"
    assert "[####################]  100%" in progress_line("x", 7, 5, 0, b"/")


@given(st.binary(max_size=50))
def test_no_path_brings_a_control_character_to_the_terminal(path: bytes) -> None:
    assert progress_line("x", 1, None, 1, path).isprintable()


def test_nothing_is_drawn_where_there_is_no_terminal() -> None:
    stream = io.StringIO()
    with ProgressBar("x", stream=stream) as bar:
        bar.update(1, 1, b"/")
    assert stream.getvalue() == ""


def everything(leader: int) -> str:
    """Return all that a terminal was given and nobody has open now; it comes in several pieces."""
    data = b""
    with suppress(OSError):
        while piece := os.read(leader, 10_000):
            data += piece
    os.close(leader)
    return data.decode()


def test_a_terminal_gets_a_line_at_most_ten_times_a_second_and_it_is_cleared() -> None:
    leader, follower = pty.openpty()
    now = [0.0]
    with (
        os.fdopen(follower, "w") as stream,
        ProgressBar("x", stream=stream, clock=lambda: now[0]) as bar,
    ):
        for files, now_s in ((1, 0.0), (2, 0.05), (3, 0.11)):
            now[0] = now_s
            bar.update(files, 0, b"/")
    drawn = everything(leader)
    assert "1 files" in drawn
    assert "2 files" not in drawn
    assert "3 files" in drawn
    assert drawn.endswith("\r\x1b[K")


def test_a_log_line_takes_the_place_of_the_bar_and_the_bar_comes_again_below() -> None:
    leader, follower = pty.openpty()
    event = make_event("FILE_UNSTABLE", time_us=0, random_10_bytes=bytes(10), path="/x")
    with os.fdopen(follower, "w") as stream:
        console = ConsoleSink(lambda _: "a line", SeverityFilter(Severity), others=stream)
        bar = ProgressBar("x", stream=stream, clock=lambda: 0.0)
        with bar, console.beside(bar.make_way):
            console.write(event)
            bar.update(1, 0, b"/")
            console.write(event)
            console.write(event)
            bar.update(2, 0, b"/")
        console.write(event)
    drawn = everything(leader)
    clear = "\r\x1b[K"
    assert drawn == (
        f"a line\r\n{clear}x  1 files  0 B  /{clear}a line\r\na line\r\n"
        f"{clear}x  2 files  0 B  /{clear}a line\r\n"
    )


def test_a_terminal_that_goes_away_ends_nothing() -> None:
    leader, follower = pty.openpty()
    stream = os.fdopen(follower, "w")
    bar = ProgressBar("x", stream=stream)
    stream.close()
    os.close(leader)
    bar.update(1, 1, b"/")
    bar.close()
