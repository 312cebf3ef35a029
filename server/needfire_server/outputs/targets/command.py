"""A program that gets each record on its standard input: fixed arguments, no shell, a time limit."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence
from typing import Final

from needfire_protocol.errors import FormatError
from needfire_protocol.escape import printable
from needfire_protocol.event import Event
from needfire_server.outputs.records import line_of, rendered
from needfire_server.outputs.secrets import check_program
from needfire_server.outputs.settings import OutputSettings
from needfire_server.outputs.target import ConfirmingTarget, RefusedError, TargetError
from needfire_server.server_user import Account

__all__ = ["CommandTarget"]

COMPLAINT_BYTES_MAX: Final = 500
_ENVIRONMENT: Final = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
"""Everything that it inherits, beside its three standard streams: nothing of the server's own."""


class CommandTarget(ConfirmingTarget):
    """Starts the program once for each record; exit status 0 says that it was taken.

    65 (EX_DATAERR of sysexits.h) says that it never will be.
    """

    def __init__(self, settings: OutputSettings) -> None:
        self._settings = settings
        self._line = line_of(settings)

    async def deliver(self, events: Sequence[Event]) -> None:
        for number, event in enumerate(events):
            try:
                await self._run(await rendered(self._line, event) + b"\n")
            except RefusedError as error:
                raise RefusedError(str(error), delivered=number, is_next=True) from None
            except TargetError as error:
                raise TargetError(str(error), delivered=number) from None
            except OSError as error:
                raise TargetError(error.strerror or str(error), delivered=number) from None

    async def _run(self, record: bytes) -> None:
        try:
            # Each time: what was safe when the configuration was read may not be any more.
            check_program(self._settings.argv[0], Account.of_process())
        except FormatError as error:
            raise TargetError(str(error)) from None
        process = await asyncio.create_subprocess_exec(
            *self._settings.argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            close_fds=True,
            cwd="/",
            env=_ENVIRONMENT,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(self._settings.time_limit_s):
                complaint = await _feed(process, record)
                status = await process.wait()
        except TimeoutError:
            limit = self._settings.time_limit_s
            raise TargetError(f"it did not end within {limit} seconds and was killed") from None
        finally:
            await _end(process)
        if status != 0:
            said = f": {complaint}" if complaint else ""
            failed = RefusedError if status == os.EX_DATAERR else TargetError
            raise failed(f"it ended with status {status}{said}")


async def _feed(process: asyncio.subprocess.Process, record: bytes) -> str:
    """Give it the record; return the beginning of what it complains about.

    Both at once: one that complains without end before it reads would wait for us, and we for it.
    """
    async with asyncio.TaskGroup() as group:
        group.create_task(_write(process, record))
        complaint = group.create_task(_read(process))
    return complaint.result()


async def _write(process: asyncio.subprocess.Process, record: bytes) -> None:
    assert process.stdin is not None
    # One that does not read its input (a pager that knows enough) is no failure.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(record)
        await process.stdin.drain()
    process.stdin.close()


async def _read(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    complaint = b""
    while data := await process.stderr.read(4_096):
        complaint = (complaint + data)[:COMPLAINT_BYTES_MAX]
    return printable(complaint.decode("utf-8", "backslashreplace").strip(), COMPLAINT_BYTES_MAX)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill it and what it started, where any of that is left in its session's first group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    if process.returncode is None:
        await process.wait()
