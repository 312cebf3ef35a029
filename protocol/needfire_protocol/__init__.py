"""What agent and server must agree on: the wire protocol, the words, the configuration language.

Nothing in this package does I/O, reads a clock or draws random numbers by itself: bytes, times
and randomness come in as arguments, so every behaviour can be tested without a socket or a sleep.
"""

from typing import Final

__version__ = "0.1.0"

PROTOCOL_VERSION: Final = 1
"""The only wire protocol version there is. docs/protocol.md describes it byte by byte."""
