"""Configuration files in a line or two, and what is wrong with them."""

from needfire_protocol.errors import ConfigError, Problem
from needfire_protocol.rc.agent import AgentSettings, parse_agent_rc
from needfire_protocol.rc.conditions import StatedFacts
from needfire_server.config import ServerSettings, load_server_settings
from needfire_server.server_user import Account

__all__ = ["agent_rc", "errors_of", "notices_of", "server_rc"]

FACTS = StatedFacts(
    hostname="web1.example.org",
    system="Linux:6.1.0-13-amd64:x86_64",
    files=frozenset({b"/etc/passwd"}),
    addresses=frozenset({"192.0.2.7"}),
)


def agent_rc(text: str | bytes) -> AgentSettings:
    """Return the settings of an agent's file, read for web1.example.org."""
    data = text.encode() if isinstance(text, str) else text
    return parse_agent_rc(data, source="rc", facts=FACTS)


def server_rc(text: str) -> ServerSettings:
    """Return the settings of a server's file, for one that runs as this process does."""
    return load_server_settings(text.encode(), "serverrc", FACTS, Account.of_process())


def errors_of(text: str | bytes) -> list[tuple[int | None, str]]:
    """Return line and text of each error of an agent's file; none where it loads."""
    try:
        agent_rc(text)
    except ConfigError as error:
        return [(problem.line, problem.text) for problem in error.problems]
    return []


def notices_of(text: str | bytes) -> list[tuple[int | None, str]]:
    """Return line and text of each notice of an agent's file."""
    return [_place(problem) for problem in agent_rc(text).notices]


def _place(problem: Problem) -> tuple[int | None, str]:
    return problem.line, problem.text
