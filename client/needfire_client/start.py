"""Where the program ``needfire-agent`` begins: nothing is tidied up before everything is loaded.

While modules are loaded, tens of thousands of objects are made that stay until the end. The
collector of garbage would look through them again and again, for a tenth of a small check's time.
"""

import gc

__all__ = ["main"]


def main() -> int:
    """Run the command line of the process; return the exit status."""
    gc.disable()
    from needfire_client.cli import main as run

    return run(is_loaded=_look_again)


def _look_again() -> None:
    gc.freeze()
    gc.enable()
