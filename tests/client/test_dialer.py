"""Which of several servers an agent asks first: the list's order, but those that failed come last."""

import os
from dataclasses import dataclass

from needfire_client.address import ServerAddress
from needfire_client.dialer import Dialer
from needfire_client.link import LinkError
from needfire_testkit.pairs import NAME, PASSWORD
from needfire_testkit.server import running_server


@dataclass
class Clock:
    now_s: float = 1_000.0

    def __call__(self) -> float:
        return self.now_s


async def asked(dialer: Dialer) -> tuple[list[ServerAddress], ServerAddress]:
    """Dial once; return the servers that failed, and the one that did not."""
    failed: list[LinkError] = []
    link = await dialer.dial(failed.append)
    await link.close()
    return [each.server for each in failed], link.server


def dialer_of(*servers: ServerAddress, clock: Clock) -> Dialer:
    return Dialer(
        servers, name=NAME, load_password=lambda: PASSWORD, random_bytes=os.urandom, now_s=clock
    )


async def test_a_server_that_failed_is_asked_after_the_others_for_a_minute() -> None:
    clock = Clock()
    async with running_server() as first, running_server() as second:
        dialer = dialer_of(first.address, second.address, clock=clock)
        assert await asked(dialer) == ([], first.address)
        await first.stop()
        assert await asked(dialer) == ([first.address], second.address)
        await first.start()
        clock.now_s += 59.9
        assert await asked(dialer) == ([], second.address)
        clock.now_s += 0.1
        assert await asked(dialer) == ([], first.address)


async def test_a_server_that_is_avoided_is_still_asked_when_there_is_no_other() -> None:
    async with running_server() as first, running_server() as second:
        dialer = dialer_of(first.address, second.address, clock=Clock())
        dialer.avoid(first.address)
        await second.stop()
        assert await asked(dialer) == ([second.address], first.address)


async def test_a_session_of_one_server_is_resumed_at_another_that_knows_it() -> None:
    async with running_server() as first, running_server() as second:
        dialer = dialer_of(first.address, second.address, clock=Clock())
        second.sessions = first.sessions
        await asked(dialer)
        await first.stop()
        assert await asked(dialer) == ([first.address], second.address)
        assert (second.resumptions, second.negotiations) == (1, [])
