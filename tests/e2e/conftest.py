"""Fixtures of the end-to-end tests: a server's home, and registered agents."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from needfire_testkit.processes import AgentHome, ServerHome

# The server resolves what agents claim. This name resolves on every machine, to the address that
# agents connect from, so that only the tests of state 5 meet lookup failures.
LOCAL_NAME = "localhost"


@pytest.fixture
def server_home(tmp_path: Path) -> Iterator[ServerHome]:
    """A server's directory; the test starts the server."""
    home = ServerHome(tmp_path / "server")
    yield home
    home.stop_all()


@pytest.fixture
def make_agent(tmp_path: Path, server_home: ServerHome) -> Iterator[Callable[..., AgentHome]]:
    """Make the directory of an agent, by default registered and with its configuration put."""
    homes: list[AgentHome] = []

    def make(
        name: str = LOCAL_NAME, *, registered: bool = True, misc: str = "", configured: bool = True
    ) -> AgentHome:
        home = AgentHome(tmp_path / f"agent{len(homes)}", name, server_home)
        homes.append(home)
        (home.tree / "file.txt").write_text("first\n")
        if registered:
            home.set_password(server_home.register(name))
        if registered and configured:
            rc = home.directory / "rc"
            rc.write_text(home.rc_text(misc))
            server_home.admin("config", "put", name, str(rc))
        return home

    yield make
    for home in homes:
        home.stop_all()


@pytest.fixture
def make_baselined_agent(
    make_agent: Callable[..., AgentHome], server_home: ServerHome
) -> Callable[..., AgentHome]:
    """Make an agent whose baseline lies on the server; the server must be running."""

    def make(name: str = LOCAL_NAME, **options: object) -> AgentHome:
        home = make_agent(name, **options)
        baseline = home.directory / "baseline"
        result = home.run("init", "--output", str(baseline))
        assert result.returncode == 0, result.stdout
        server_home.admin("baseline", "put", name, str(baseline))
        return home

    return make
