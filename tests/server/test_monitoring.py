"""The monitoring port: three pages, bounded requests, and figures that agree with what happened."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck as Slow
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from needfire_protocol.errors import StorageError
from needfire_protocol.messages import Heartbeat
from needfire_server import health as health_module
from needfire_server import monitoring as monitoring_module
from needfire_server.clock import monotonic_s, now_us
from needfire_server.exposition import Exposition
from needfire_server.health import SWEEP_LIMIT_S, HealthCheck
from needfire_server.monitoring import CONNECTIONS_MAX, HEAD_BYTES_MAX, MonitoringEndpoint
from needfire_testkit.live_server import PASSWORD, LiveServer, event_body, live_server


@dataclass
class Monitored:
    server: LiveServer
    endpoint: MonitoringEndpoint
    health: HealthCheck
    port: int

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Send bytes; return status and body, or 0 where nothing came back."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        with suppress(ConnectionError):
            writer.write(request)
            writer.write_eof()
        answer = b""
        with suppress(ConnectionError):
            async with asyncio.timeout(15):
                answer = await reader.read()
        writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        return (int(head.split(b" ")[1]), body) if head else (0, b"")

    async def get(self, path: str) -> tuple[int, bytes]:
        return await self.ask(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n".encode())

    async def figures(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        # A scrape within the same second gets the same answer.
        self.endpoint._exposed_s = float("-inf")
        status, body = await self.get("/metrics")
        assert status == 200
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(body.decode())
            for sample in family.samples
        }


@pytest.fixture
async def monitored(tmp_path: Path) -> AsyncIterator[Monitored]:
    async with live_server(tmp_path / "data") as server:
        runtime = server.runtime
        health = HealthCheck(
            lambda: runtime.store.secret("fake-salt-key"),
            lambda: runtime.journal.is_store_failing,
            monotonic_s,
        )
        health.service = "ok"
        endpoint = MonitoringEndpoint(
            Exposition(runtime, server.listener).text, health, is_public=False
        )
        with socket.create_server(("127.0.0.1", 0)) as bound:
            await endpoint.start(bound)
            yield Monitored(server, endpoint, health, bound.getsockname()[1])
            await endpoint.stop()


def label(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


async def test_the_figures_agree_with_what_happened(monitored: Monitored) -> None:
    server = monitored.server
    before = await monitored.figures()
    assert before[label("needfire_handshakes_total", outcome="negotiated")] == 0
    assert before[label("needfire_clients", status="Inactive")] == 1
    peer = await server.log_in()
    batch = peer.batch(1, event_body(), event_body(), b"\xc1 nonsense")
    await peer.send(batch, batch, peer.batch(10, event_body()))
    for _ in range(3):
        await peer.next_message()
    for name, password in (("localhost", "a wrong password"), ("nobody", PASSWORD)):
        stranger = await server.connect()
        await stranger.negotiate(name, password)
    await server.until_said("NOT_IN_CLIENT_LIST")
    await server.until_connected()
    assert before[label("needfire_connections_total")] == 0
    after = await monitored.figures()
    for outcome in ("negotiated", "wrong_password", "unknown_name"):
        assert after[label("needfire_handshakes_total", outcome=outcome)] == 1, outcome
    assert after[label("needfire_connections_total")] == 3
    assert after[label("needfire_reports_total", result="accepted")] == 3
    assert after[label("needfire_reports_total", result="duplicate")] == 2
    assert after[label("needfire_reports_lost")] == 6
    assert after[label("needfire_sessions")] == 1
    assert after[label("needfire_commit_seconds_count")] == 3
    assert after[label("needfire_batches_waiting")] == 0
    assert after[label("needfire_store_up")] == 1
    assert after[label("process_open_fds")] > 0


async def test_spools_of_agents_are_summed_up(monitored: Monitored) -> None:
    peer = await monitored.server.log_in()
    await peer.send(Heartbeat(now_us(), 7, now_us() - 400 * 1_000_000))
    await peer.send(peer.batch(1, event_body()))
    await peer.next_message()
    found = await monitored.figures()
    assert found[label("needfire_spool_reports")] == 7
    assert 399 < found[label("needfire_spool_age_seconds_max")] < 500
    assert found[label("needfire_agents_behind", older_than_seconds="300")] == 1
    assert found[label("needfire_agents_behind", older_than_seconds="3600")] == 0


async def test_reports_are_counted_as_refused_while_the_store_fails(
    monitored: Monitored, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_arguments: Any, **_options: Any) -> None:
        raise StorageError("database or disk is full")

    peer = await monitored.server.log_in()
    for name in ("ingest", "secret", "missing_reports"):
        monkeypatch.setattr(monitored.server.runtime.store, name, fail)
    await peer.send(peer.batch(1, event_body(), event_body()))
    await monitored.server.until_said("STORE_FAILED")
    found = await monitored.figures()
    assert found[label("needfire_reports_total", result="refused")] == 2
    assert found[label("needfire_store_up")] == 0
    assert label("needfire_reports_lost") not in found, "not known is not zero"
    status, body = await monitored.get("/readyz")
    assert (status, json.loads(body)["store"]) == (503, "failing")
    assert (await monitored.get("/healthz"))[0] == 200


async def test_ready_says_why_not(monitored: Monitored) -> None:
    status, body = await monitored.get("/readyz")
    assert (status, json.loads(body)["ready"]) == (200, True)
    monitored.health.service = "stopping"
    status, body = await monitored.get("/readyz")
    assert (status, json.loads(body)["service"]) == (503, "stopping")


async def test_work_in_the_background_that_stands_still_is_not_healthy() -> None:
    now_s = [0.0]

    async def probe() -> None:
        return None

    check = HealthCheck(probe, lambda: False, lambda: now_s[0])
    check.service = "ok"
    for moment_s, is_ready in ((SWEEP_LIMIT_S, True), (SWEEP_LIMIT_S + 2, False)):
        now_s[0] = moment_s
        assert (await check.look()).is_ready is is_ready
    check.swept()
    now_s[0] += 2
    assert (await check.look()).is_ready


async def test_a_store_that_hangs_is_not_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_module, "PROBE_LIMIT_S", 0.05)
    check = HealthCheck(asyncio.Event().wait, lambda: False, monotonic_s)
    check.service = "ok"
    found = await check.look()
    assert not found.is_ready
    assert found.store.startswith("no answer")


async def test_many_who_ask_cost_one_look() -> None:
    looks = []

    async def probe() -> None:
        looks.append(1)
        await asyncio.sleep(0)

    check = HealthCheck(probe, lambda: False, lambda: 5.0)
    await asyncio.gather(*(check.look() for _ in range(50)))
    assert len(looks) == 1


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /metrics?x=1 HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
        (b"GET /healthz HTTP/1.0\r\n\r\n", 200),
        (b"GET /healthz HTTP/1.1\r\nHost: [::1]:9777\r\n\r\n", 200),
        (b"GET /healthz HTTP/1.1\r\nHost: evil.example\r\n\r\n", 403),
        (b"GET /healthz HTTP/1.1\r\nhOsT:  localhost.evil.example:80\r\n\r\n", 403),
        (b"GET / HTTP/1.1\r\n\r\n", 404),
        (b"GET /../etc/passwd HTTP/1.1\r\n\r\n", 404),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 9\r\n\r\nsomething", 405),
        (b"GET /metrics\r\n\r\n", 400),
        (b"\x16\x03\x01\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\n", 0),
        (b"", 0),
    ],
)
async def test_a_request_gets_its_answer(
    monitored: Monitored, request_bytes: bytes, status: int
) -> None:
    assert (await monitored.ask(request_bytes))[0] == status


async def test_head_gets_no_body(monitored: Monitored) -> None:
    assert await monitored.ask(b"HEAD /healthz HTTP/1.1\r\n\r\n") == (200, b"")


@pytest.mark.parametrize(("size", "status"), [(-1, 200), (0, 200), (1, 431)])
async def test_a_request_is_bounded(monitored: Monitored, size: int, status: int) -> None:
    start, end = b"GET /healthz HTTP/1.1\r\nX: ", b"\r\n\r\n"
    # The limit of asyncio's reader is where the separator begins.
    padding = b"x" * (HEAD_BYTES_MAX + size - len(start))
    assert (await monitored.ask(start + padding + end))[0] == status


async def test_who_sends_nothing_is_cut_off(
    monitored: Monitored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitoring_module, "REQUEST_LIMIT_S", 0.05)
    reader, writer = await asyncio.open_connection("127.0.0.1", monitored.port)
    async with asyncio.timeout(10):
        with suppress(ConnectionError):
            assert await reader.read() == b""
    writer.close()


async def test_connections_are_bounded_and_the_next_one_is_served(monitored: Monitored) -> None:
    held = [
        await asyncio.open_connection("127.0.0.1", monitored.port) for _ in range(CONNECTIONS_MAX)
    ]
    async with asyncio.timeout(10):
        while len(monitored.endpoint._open) < CONNECTIONS_MAX:
            await asyncio.sleep(0.005)
    assert (await monitored.get("/healthz"))[0] == 0
    held[0][1].close()
    async with asyncio.timeout(10):
        while len(monitored.endpoint._open) == CONNECTIONS_MAX:
            await asyncio.sleep(0.005)
    assert (await monitored.get("/healthz"))[0] == 200
    for _, writer in held:
        writer.close()


@settings(max_examples=50, deadline=None, suppress_health_check=[Slow.function_scoped_fixture])
@given(head=st.binary(max_size=200))
async def test_whatever_is_asked_gets_an_answer(monitored: Monitored, head: bytes) -> None:
    answer = await monitored.endpoint._answer(head)
    assert answer.status in (200, 400, 403, 404, 405, 503)
