"""How is a number of things said?"""

__all__ = ["counted"]


def counted(number: int, noun: str) -> str:
    """Return ``1 rule``, ``0 rules``, ``2 rules``; for nouns that take an s."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
