"""What the tests of directives need of a host."""

import os
import pwd

import pytest


@pytest.fixture(autouse=True)
def _user_of_the_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let there be the user ``needfire``, whom the examples name, and not every host has."""
    find, own = pwd.getpwnam, pwd.getpwuid(os.getuid())
    monkeypatch.setattr(pwd, "getpwnam", lambda name: own if name == "needfire" else find(name))
