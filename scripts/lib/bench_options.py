"""What the command lines of all benchmarks have in common."""

import argparse

__all__ = ["bench_parser"]


def bench_parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """Return a parser that calls itself ``scripts/bench/NAME`` and shows the defaults."""
    return argparse.ArgumentParser(
        prog=f"scripts/bench/{name}", description=description, formatter_class=_Formatter
    )


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the paragraphs; shows a default where there is one that says something."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if not action.default or "default" in (action.help or ""):
            return action.help
        if isinstance(action.default, list):
            words = " ".join(str(each) for each in action.default)
            return f"{action.help or ''} (default: {words})"
        return super()._get_help_string(action)
