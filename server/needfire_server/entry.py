"""Where needfire-server and needfire-admin begin: says plainly what is missing on a host without them.

Every host gets the files of the server, because there is one distribution; what the server needs
comes only with the extra ``server``.
"""

import importlib.util
import sys
from typing import NoReturn

from needfire_protocol.exit_status import ExitStatus
from needfire_server.core_dumps import forbid_core_dumps

__all__ = ["admin", "server"]


def server() -> NoReturn:
    """Run needfire-server."""
    _require_extra("needfire-server")
    forbid_core_dumps()
    from needfire_server.cli import main

    main()


def admin() -> NoReturn:
    """Run needfire-admin."""
    _require_extra("needfire-admin")
    forbid_core_dumps()
    from needfire_server.admin.cli import main

    main()


def _require_extra(program: str) -> None:
    if sys.flags.optimize:
        _give_up(
            program, "Python must not run with -O: its checks would be off", "start it without"
        )
    if importlib.util.find_spec("click") is None:
        _give_up(program, "only the agent is installed here", "pip install 'needfire[server]'")


def _give_up(program: str, text: str, hint: str) -> NoReturn:
    sys.stderr.write(f"{program}: error: {text}\n{program}: hint: {hint}\n")
    sys.exit(ExitStatus.LOCAL)
