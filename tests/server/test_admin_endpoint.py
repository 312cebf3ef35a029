"""The admin socket: who gets in, what a request may be, and how long anything may take."""

import array
import asyncio
import json
import os
import socket
import stat
import tempfile
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from needfire_protocol.errors import FormatError, NeedfireError, StorageError
from needfire_server.admin.backend import UnreachableError
from needfire_server.admin.connection import SocketConnection
from needfire_server.admin.endpoint import AdminEndpoint
from needfire_server.admin.local_socket import connect_path
from needfire_server.admin.requests import REQUEST_BYTES_MAX, AdminRefusedError
from needfire_server.admin.roles import Access, Role
from needfire_server.lockout import LockLimits
from needfire_server.server_user import user_name
from needfire_testkit.admin_server import OWN, AdminServer
from needfire_testkit.baselines import write_baseline
from needfire_testkit.server_store import event

T = TypeVar("T")

NOBODY = 65_534


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[AdminServer]:
    async with AdminServer.running(tmp_path) as running:
        yield running


async def with_raw(server: AdminServer, work: Callable[[socket.socket], T]) -> T:
    """Run work in a thread with a bare connection."""

    def connected() -> T:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as raw:
            raw.settimeout(10)
            connect_path(raw, str(server.socket_path))
            return work(raw)

    return await asyncio.to_thread(connected)


def read_line(raw: socket.socket) -> Any:
    data = b""
    while not data.endswith(b"\n"):
        more = raw.recv(65_536)
        if not more:
            return None
        data += more
    return json.loads(data)


def ask(raw: socket.socket, data: bytes) -> Any:
    raw.sendall(data)
    return read_line(raw)


LIST = b'{"verb":"clients-list"}\n'


async def test_the_socket_is_for_the_owner_only(server: AdminServer) -> None:
    before = os.umask(0)
    try:
        assert stat.S_IMODE(server.socket_path.stat().st_mode) == 0o600
    finally:
        os.umask(before)


async def test_requests_are_answered_one_after_another(server: AdminServer) -> None:
    def work(raw: socket.socket) -> list[Any]:
        return [ask(raw, LIST), ask(raw, LIST)]

    assert await with_raw(server, work) == [{"result": {"clients": []}}] * 2


async def test_a_request_may_come_byte_by_byte_or_several_at_once(server: AdminServer) -> None:
    def work(raw: socket.socket) -> list[Any]:
        for byte in LIST[:-1]:
            raw.sendall(bytes([byte]))
        first = ask(raw, b"\n")
        raw.sendall(LIST + LIST)
        replies = b""
        while replies.count(b"\n") < 2:
            replies += raw.recv(65_536)
        return [first, *map(json.loads, replies.splitlines())]

    assert await with_raw(server, work) == [{"result": {"clients": []}}] * 3


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"\0\n",
        b"[]\n",
        b"{}\n",
        b'{"verb":1}\n',
        b'{"verb":"status","arguments":[]}\n',
        b'{"verb":"status","more":1}\n',
        b'{"verb":"no-such-verb"}\n',
        b'{"verb":"status","arguments":{"name":1}}\n',
        b'{"verb":"status","arguments":{"unknown":1}}\n',
        b'{"verb":"register","arguments":{"name":"../x","salt":"","verifier":""}}\n',
        b'{"verb":"register","arguments":{"name":"web1","salt":"zz","verifier":""}}\n',
        b'{"verb":"events","arguments":{"limit":true}}\n',
        b'{"verb":"events","arguments":{"limit":-1}}\n',
        b'{"verb":"events","arguments":{"limit":9223372036854775808}}\n',
        b'{"verb":"events","arguments":{"class":"nothing"}}\n',
        b'{"verb":"events","arguments":{"severity":"loud"}}\n',
        b'{"verb":"send","arguments":{"verb":"stop"}}\n',
        b'{"verb":"send","arguments":{"verb":"stop","all":true,"name":"web1"}}\n',
        b'{"verb":"send","arguments":{"verb":"halt","all":true}}\n',
        b'{"verb":"config-put","arguments":{"name":"web1"}}\n',
        b'{"verb":' + b"[" * 100_000 + b"\n",
        b"\xff\xfe\n",
    ],
)
async def test_a_request_that_makes_no_sense_is_refused_and_the_next_one_served(
    server: AdminServer, line: bytes
) -> None:
    def work(raw: socket.socket) -> tuple[Any, Any]:
        return ask(raw, line), ask(raw, LIST)

    refused, served = await with_raw(server, work)
    assert refused["error"]["kind"] == "format"
    assert served == {"result": {"clients": []}}


@pytest.mark.parametrize(("more", "kind"), [(-1, "result"), (0, "result"), (1, "error")])
async def test_a_request_has_a_largest_size(server: AdminServer, more: int, kind: str) -> None:
    line = LIST[:-1].ljust(REQUEST_BYTES_MAX + more) + b"\n"
    reply = await with_raw(server, lambda raw: ask(raw, line))
    assert kind in reply


async def test_a_request_without_end_is_cut_off(server: AdminServer) -> None:
    def work(raw: socket.socket) -> Any:
        try:
            for _ in range(64):
                raw.sendall(b"x" * 65_536)
        except (BrokenPipeError, ConnectionResetError):
            pass
        return read_line(raw)

    reply = await with_raw(server, work)
    assert reply["error"]["kind"] == "format"


async def test_who_says_nothing_is_closed(tmp_path: Path) -> None:
    async with AdminServer.running(tmp_path, request_limit_s=0.05) as server:
        assert await with_raw(server, read_line) is None
        assert await with_raw(server, lambda raw: ask(raw, b'{"verb":')) is None


async def test_only_so_many_connections_are_busy_and_an_idle_one_makes_room(
    tmp_path: Path,
) -> None:
    follow = b'{"verb":"events","arguments":{"follow":true}}\n'
    async with AdminServer.running(tmp_path, connections_max=2) as server:

        def work(first: socket.socket) -> Any:
            with SocketConnection(str(server.socket_path)) as second:
                second.call("status", {})
                assert ask(first, follow) == {"item": {"following": True}}
                with SocketConnection(str(server.socket_path)) as third:
                    # In the place of the second one, which asks nothing now.
                    third.call("status", {})
                    with pytest.raises(NeedfireError):
                        second.call("status", {})
                    third_follows = third.stream("events", {"follow": True})
                    next(third_follows)
                    with (
                        pytest.raises(AdminRefusedError, match="too many"),
                        SocketConnection(str(server.socket_path)) as fourth,
                    ):
                        fourth.call("status", {})

        await with_raw(server, work)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs uid 0")
async def test_another_user_is_refused_and_reported_once(tmp_path: Path) -> None:
    # Only where somebody else has a role can others reach the socket at all.
    access = Access({Role.ADMINISTRATORS: frozenset({NOBODY - 1})}, {})
    async with AdminServer.running(tmp_path, access=access) as server:
        for _ in range(2):
            reply = await _ask_as(server, NOBODY)
            assert reply["error"]["kind"] == "refused"
            assert reply["error"]["message"] == f"{user_name(NOBODY)} may not steer this server"
        assert server.codes() == ["ADMIN_REFUSED"]
        assert server.last() == {"uid": NOBODY}


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs uid 0")
@pytest.mark.parametrize("by_group", [False, True])
async def test_a_user_who_has_a_role_is_served(tmp_path: Path, by_group: bool) -> None:
    members = {Role.AUDITORS: frozenset({NOBODY})}
    access = Access({}, members) if by_group else Access(members, {})
    async with AdminServer.running(tmp_path, access=access) as server:
        assert await _ask_as(server, NOBODY) == {"result": {"clients": []}}
        assert server.codes() == []


async def _ask_as(server: AdminServer, uid: int) -> Any:
    """Ask from a process of another user. Its directories up to ours must let it pass."""
    code = (
        "import os, socket, sys\n"
        "directory = os.open(os.path.dirname(sys.argv[1]), os.O_PATH)\n"
        "os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))\n"
        "s = socket.socket(socket.AF_UNIX)\n"
        "s.connect(f'/proc/self/fd/{directory}/control.sock')\n"
        # One that is refused may find the other side closed already.
        'try: s.sendall(b\'{"verb":"clients-list"}\\n\')\n'
        "except BrokenPipeError: pass\n"
        "print(s.makefile().readline())\n"
    )
    process = await asyncio.create_subprocess_exec(
        "/usr/bin/env",
        "python3",
        "-c",
        code,
        str(server.socket_path),
        str(uid),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    return json.loads(out)


# ---- open files --------------------------------------------------------------------------------


def send_with(raw: socket.socket, line: bytes, descriptors: list[int]) -> Any:
    rights = array.array("i", descriptors).tobytes()
    raw.sendmsg([line], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
    return read_line(raw)


PUT = b'{"verb":"baseline-put","arguments":{"name":"web1"}}\n'


def open_descriptors() -> set[str]:
    """What this process has open besides the directory that is being listed."""
    links = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            links.add(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")
        except OSError:
            continue
    return links


def count_sockets() -> int:
    return sum("socket:" in each for each in open_descriptors())


async def test_a_file_comes_along_with_its_request(server: AdminServer, tmp_path: Path) -> None:
    write_baseline(tmp_path / "new")

    def work(raw: socket.socket) -> Any:
        with open(tmp_path / "new", "rb") as file:
            return send_with(raw, PUT, [file.fileno()])

    reply = await with_raw(server, work)
    assert reply["result"]["entries"] == 4
    assert (tmp_path / "file.web1").read_bytes() == (tmp_path / "new").read_bytes()


@pytest.mark.parametrize("count", [2, 16, 17, 200])
async def test_more_files_than_one_are_refused_and_closed(server: AdminServer, count: int) -> None:
    def work(raw: socket.socket) -> Any:
        with tempfile.TemporaryFile() as file:
            return send_with(raw, PUT, [file.fileno()] * count)

    await with_raw(server, lambda raw: ask(raw, LIST))
    before = open_descriptors()
    reply = await with_raw(server, work)
    assert reply["error"]["kind"] == "format"
    assert {each for each in open_descriptors() - before if "socket" not in each} == set()


async def test_what_is_no_regular_file_is_refused_without_being_read(
    server: AdminServer, tmp_path: Path
) -> None:
    """Goal: a FIFO, a socket or a directory must not stop the server, which reads what it gets."""
    os.mkfifo(tmp_path / "fifo")
    read_end, write_end = os.pipe()
    descriptors = [
        read_end,
        write_end,
        os.open(tmp_path / "fifo", os.O_RDWR),
        os.open(tmp_path, os.O_RDONLY),
        os.open("/dev/zero", os.O_RDONLY),
        os.open(tmp_path, os.O_PATH),
    ]
    try:
        for fd in descriptors:
            reply = await with_raw(server, lambda raw, fd=fd: send_with(raw, PUT, [fd]))  # type: ignore[misc]
            assert reply["error"]["kind"] in ("format", "storage")
    finally:
        for fd in descriptors:
            os.close(fd)
    assert not (tmp_path / "file.web1").exists()


async def test_a_file_that_may_only_be_written_is_refused(
    server: AdminServer, tmp_path: Path
) -> None:
    def work(raw: socket.socket) -> Any:
        with open(tmp_path / "out", "wb") as file:
            return send_with(raw, PUT, [file.fileno()])

    reply = await with_raw(server, work)
    assert reply["error"]["kind"] in ("format", "storage")


# ---- life --------------------------------------------------------------------------------------


async def test_a_stale_socket_is_replaced_and_the_own_one_removed(tmp_path: Path) -> None:
    stale = socket.socket(socket.AF_UNIX)
    directory = os.open(tmp_path, os.O_PATH)
    stale.bind(f"/proc/self/fd/{directory}/control.sock")
    os.close(directory)
    stale.close()
    async with AdminServer.running(tmp_path) as server:
        assert await with_raw(server, lambda raw: ask(raw, LIST))
    assert not (tmp_path / "control.sock").exists()


async def test_something_else_in_place_of_the_socket_is_left_alone(tmp_path: Path) -> None:
    async with AdminServer.running(tmp_path) as server:
        (tmp_path / "file").write_bytes(b"x")
        endpoint = AdminEndpoint(server.service, str(tmp_path / "file"), OWN, LockLimits())
        with pytest.raises(StorageError, match="in use"):
            await endpoint.start()
        await endpoint.close()
    assert (tmp_path / "file").read_bytes() == b"x"


async def test_a_path_longer_than_an_address_works(tmp_path: Path) -> None:
    directory = tmp_path / ("d" * 100) / ("e" * 100)
    directory.mkdir(parents=True)
    async with AdminServer.running(directory) as server:
        assert await with_raw(server, lambda raw: ask(raw, LIST))


async def test_closing_ends_connections_that_follow(tmp_path: Path) -> None:
    is_following = threading.Event()

    def follow(server: AdminServer) -> None:
        with SocketConnection(str(server.socket_path)) as connection:
            for _ in connection.stream("events", {"follow": True, "limit": 1}):
                is_following.set()

    async with AdminServer.running(tmp_path) as server:
        await server.store.record(event("SERVER_UP"))
        following = asyncio.get_running_loop().run_in_executor(None, follow, server)
        await asyncio.to_thread(is_following.wait, 10)
    with pytest.raises(UnreachableError):
        await following


async def test_one_that_follows_and_goes_away_is_forgotten(server: AdminServer) -> None:
    def come_and_go() -> None:
        with SocketConnection(str(server.socket_path)) as connection:
            stream = connection.stream("events", {"follow": True, "limit": 1})
            assert next(iter(stream))["event"]["code"] == "SERVER_UP"

    await server.store.record(event("SERVER_UP"))
    await asyncio.to_thread(come_and_go)
    before = count_sockets()
    for _ in range(5):
        await asyncio.to_thread(come_and_go)
    async with asyncio.timeout(10):
        while count_sockets() > before:
            await asyncio.sleep(0.01)


async def test_two_replies_do_not_mix(server: AdminServer) -> None:
    def work() -> list[Any]:
        with SocketConnection(str(server.socket_path)) as connection:
            listed = connection.call("clients-list", {}).result
            with pytest.raises(FormatError):
                connection.call("nonsense", {})
            return [listed, connection.call("status", {}).result]

    assert await asyncio.to_thread(work) == [{"clients": []}, {"clients": []}]
