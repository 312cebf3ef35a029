"""What the server does by itself, round by round."""

from pathlib import Path

from needfire_protocol.event import Event
from needfire_server.upkeep import Upkeep
from needfire_testkit.live_server import live_server


async def test_a_round_tells_what_the_log_left_out_though_nothing_else_happens(
    tmp_path: Path,
) -> None:
    """The flood is over, and nobody speaks: the silence about it must end all the same."""
    async with live_server(tmp_path) as live:
        runtime, logbook = live.runtime, live.runtime.logbook
        for _ in range(200):
            runtime.journal.raise_event("NEW_CONNECTION", peer="192.0.2.1:1")
        told: list[Event] = []
        logbook.to_store = told.append
        upkeep = Upkeep(runtime, live.listener, str(tmp_path), "here")
        await upkeep.round()
        assert told == []
        logbook._collect_at = 0.0
        await upkeep.round()
        (event,) = told
        assert (event.code, event.fields["peer"]) == ("LOG_SUPPRESSED", "192.0.2.1")
        assert 0 < int(str(event.fields["count"])) < 200
