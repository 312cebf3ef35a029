"""The real resolver: what it finds on this host, and that nothing can make it stop the loop."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from needfire_server.lookup import NameChecker
from needfire_server.resolver import (
    LookupBusyError,
    LookupFailedError,
    SystemResolver,
    own_host_names,
)


async def test_localhost_resolves_in_both_directions() -> None:
    resolver = SystemResolver()

    assert "127.0.0.1" in (await resolver.resolve("localhost")).addresses
    assert await resolver.reverse("127.0.0.1")


async def test_a_client_on_this_host_is_confirmed_by_the_real_resolver() -> None:
    checker = NameChecker.for_host()

    assert (await checker.check("localhost", "127.0.0.1")).findings == ()
    assert (await checker.check(socket.gethostname(), "127.0.0.1")).is_confirmed


async def test_a_name_that_cannot_exist_fails_with_a_reason() -> None:
    with pytest.raises(LookupFailedError, match=r"\w"):
        await asyncio.wait_for(SystemResolver().resolve("a" * 64 + ".invalid"), 20)


@pytest.mark.parametrize("name", ["a..b", "-", "_", "x" * 255])
async def test_names_that_break_codecs_only_fail(name: str) -> None:
    """Python's own IDNA codec raises UnicodeError for some of these."""
    with pytest.raises(LookupFailedError):
        await asyncio.wait_for(SystemResolver().resolve(name), 20)


def test_the_own_names_hold_the_name_of_the_host() -> None:
    assert socket.gethostname() in own_host_names()


@pytest.fixture
def hung_name_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Semaphore]:
    """Every question hangs until the test ends; the semaphore counts those that were put."""
    put, end = threading.Semaphore(0), threading.Event()

    def hang(*_: Any, **__: Any) -> Any:
        put.release()
        end.wait(30)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    yield put
    end.set()


async def _abandon(resolver: SystemResolver, count: int) -> None:
    for number in range(count):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await resolver.resolve(f"host{number}.example.org")


async def test_hung_questions_cost_a_fixed_number_of_threads(
    hung_name_server: threading.Semaphore,
) -> None:
    resolver = SystemResolver(threads_max=3, waiting_max=100)

    await _abandon(resolver, 20)

    for _ in range(3):
        assert hung_name_server.acquire(timeout=5)
    assert not hung_name_server.acquire(blocking=False)


async def test_a_thread_keeps_its_place_until_the_system_has_answered(
    hung_name_server: threading.Semaphore,
) -> None:
    resolver = SystemResolver(threads_max=1, waiting_max=100)

    await _abandon(resolver, 3)

    assert hung_name_server.acquire(timeout=5)
    assert not hung_name_server.acquire(blocking=False)


async def test_the_line_is_bounded(hung_name_server: threading.Semaphore) -> None:
    resolver = SystemResolver(threads_max=1, waiting_max=2)
    async with asyncio.TaskGroup() as group:
        waiting = [
            group.create_task(_until_cancelled(resolver, f"host{n}.example.org")) for n in range(3)
        ]
        await asyncio.to_thread(hung_name_server.acquire)

        with pytest.raises(LookupBusyError, match="lookup busy"):
            await resolver.resolve("one-too-many.example.org")
        for task in waiting:
            task.cancel()


async def _until_cancelled(resolver: SystemResolver, name: str) -> None:
    await resolver.resolve(name)


async def test_an_answer_that_comes_late_gives_the_thread_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    end = threading.Event()
    real = socket.getaddrinfo

    def slow(*arguments: Any, **options: Any) -> Any:
        end.wait(30)
        return real(*arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    resolver = SystemResolver(threads_max=1)
    await _abandon(resolver, 1)

    end.set()

    assert "127.0.0.1" in (await resolver.resolve("localhost")).addresses


async def test_a_name_that_is_not_text_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def hostile(*_: Any) -> Any:
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")

    monkeypatch.setattr(socket, "getnameinfo", hostile)

    with pytest.raises(LookupFailedError, match="not text"):
        await SystemResolver().reverse("192.0.2.1")
