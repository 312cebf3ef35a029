"""The other ends of outputs, as processes that can be killed: SMTP, HTTP(S), and Debian's rsyslog.

Each writes what it takes to a file, flushed, before it confirms it. What holds ``/poison`` is refused
for good by HTTP and SMTP. Run as a program:
``python -m needfire_testkit.sinks KIND PORT FILE [CERTIFICATE KEY]``.
"""

import asyncio
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from needfire_testkit.certificates import KeyPair

__all__ = ["RSYSLOG", "Rsyslog", "Sink", "free_port"]

RSYSLOG = shutil.which("rsyslogd", path="/usr/sbin:/sbin:/usr/bin")


def free_port() -> int:
    """Return a port of this host where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Sink:
    """A receiver in a process of its own, always at the same port, with what it took in a file."""

    def __init__(self, kind: str, file: Path, pair: KeyPair | None = None) -> None:
        self.port = free_port()
        self.file = file
        self._kind = kind
        self._pair = pair
        self._process: subprocess.Popen[bytes] | None = None
        file.touch()

    def command(self) -> list[str]:
        """What to run."""
        files = () if self._pair is None else (self._pair.certificate, self._pair.key)
        return [
            *(sys.executable, "-m", "needfire_testkit.sinks"),
            *(self._kind, str(self.port), str(self.file), *map(str, files)),
        ]

    async def start(self) -> None:
        """Start it, and wait until it listens."""
        self._process = self._started()
        async with asyncio.timeout(30):
            while True:
                assert self._process.poll() is None, "the receiver ended"
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                except OSError:
                    await asyncio.sleep(0.05)
                    continue
                writer.close()
                return

    def _started(self) -> "subprocess.Popen[bytes]":
        path = {"PYTHONPATH": str(Path(__file__).parents[1])}
        # What a receiver complains about when it is killed is no output of the test.
        return subprocess.Popen(
            self.command(), env={**os.environ, **path}, stderr=subprocess.DEVNULL
        )

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def lines(self) -> list[str]:
        """Return the lines that are complete."""
        return self.file.read_text("utf-8").split("\n")[:-1]


class Rsyslog(Sink):
    """Debian's rsyslog. It reads messages and writes them anew, in the form of RFC 5424."""

    def __init__(self, directory: Path, pair: KeyPair | None, authority: Path | None) -> None:
        super().__init__("rsyslog", directory / "stored", pair)
        self._directory = directory
        self.configuration = directory / "rsyslog.conf"
        encryption = ""
        if pair is not None:
            encryption = (
                'StreamDriver.Name="ossl" StreamDriver.Mode="1" StreamDriver.AuthMode="anon"'
            )
        self.configuration.write_text(
            f'global(workDirectory="{directory}"'
            + (
                ""
                if pair is None
                else f' DefaultNetstreamDriver="ossl" DefaultNetstreamDriverCAFile="{authority}"'
                f' DefaultNetstreamDriverCertFile="{pair.certificate}"'
                f' DefaultNetstreamDriverKeyFile="{pair.key}"'
            )
            + ")\n"
            f'module(load="imtcp" {encryption})\nmodule(load="imudp")\n'
            f'input(type="imtcp" address="127.0.0.1" port="{self.port}")\n'
            f'input(type="imudp" address="127.0.0.1" port="{self.port}")\n'
            f'action(type="omfile" file="{self.file}" template="RSYSLOG_SyslogProtocol23Format")\n'
        )

    def command(self) -> list[str]:
        assert RSYSLOG is not None
        return [
            *(RSYSLOG, "-n", "-f", str(self.configuration)),
            *("-i", str(self._directory / "rsyslog.pid")),
        ]


# ---- in the process -------------------------------------------------------------------------------


def _write(file: Path, record: dict[str, Any]) -> None:
    with file.open("a", encoding="utf-8") as sink:
        sink.write(json.dumps(record) + "\n")


def _context(files: list[str]) -> ssl.SSLContext | None:
    if not files:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    return context


def _serve_http(port: int, file: Path, context: ssl.SSLContext | None) -> None:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if b"/poison" in body:
                self.send_error(400)
                return
            _write(file, {"headers": dict(self.headers), "body": body.decode(), "path": self.path})
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_arguments: Any) -> None:
            """Silence."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()


def _serve_smtp(kind: str, port: int, file: Path, context: ssl.SSLContext | None) -> None:
    from aiosmtpd.controller import Controller
    from aiosmtpd.smtp import AuthResult

    class Handler:
        async def handle_RCPT(
            self, _server: Any, _session: Any, envelope: Any, to: str, *_: Any
        ) -> str:
            if to.startswith("nobody@"):
                return "550 no such user"
            envelope.rcpt_tos.append(to)
            return "250 OK"

        async def handle_DATA(self, _server: Any, session: Any, envelope: Any) -> str:
            if b"/poison" in envelope.content:
                return "554 no such content here"
            _write(
                file,
                {
                    "content": envelope.content.decode("ascii"),
                    "from": envelope.mail_from,
                    "to": envelope.rcpt_tos,
                    "starttls": session.ssl is not None,
                    "user": session.auth_data,
                },
            )
            return "250 taken"

    def authenticate(*arguments: Any) -> Any:
        data = arguments[-1]
        known = (data.login, data.password) == (b"needfire", b"a mail password")
        return AuthResult(success=known, handled=False, auth_data=data.login.decode())

    options: dict[str, Any] = {"authenticator": authenticate}
    if kind == "smtps":
        options |= {"ssl_context": context, "auth_require_tls": False}
    elif kind == "smtp-starttls":
        options |= {"tls_context": context, "require_starttls": True}
    else:
        options["auth_require_tls"] = False
    controller = Controller(Handler(), hostname="127.0.0.1", port=port, **options)
    controller.start()
    while True:  # Killed, never stopped.
        signal.pause()


def main() -> None:
    """Serve for ever."""
    kind, port, file, *files = sys.argv[1:]
    context = _context(files)
    if kind == "http":
        _serve_http(int(port), Path(file), context)
    else:
        _serve_smtp(kind, int(port), Path(file), context)


if __name__ == "__main__":
    main()
