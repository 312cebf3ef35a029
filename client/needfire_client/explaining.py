"""Why a path is decided as it is: every rule that has a say, and why it wins or does not. Pure."""

from collections.abc import Collection, Iterator

from needfire_client.policy import Decision, Ruleset
from needfire_protocol.escape import escape_bytes, printable
from needfire_protocol.plain_classes import dataclass
from needfire_protocol.rc.agent import AgentSettings, PathPattern
from needfire_protocol.rc.policies import PathRule, RuleKind

__all__ = ["Explanation", "Loser", "explain_path", "is_reached_through", "rule_text"]


@dataclass(frozen=True, slots=True)
class Loser:
    """A rule that names the path, or a directory above it, and does not decide."""

    rule: PathRule
    reason: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """What is decided about one path."""

    decision: Decision | None
    reason: str
    """Why this rule and no other; why none."""
    losers: tuple[Loser, ...]
    """Most specific first."""
    exceptions: tuple[str, ...]
    """What else in the configuration changes what is reported of the path: a sentence each."""


def explain_path(settings: AgentSettings, path: bytes) -> Explanation:
    """Explain what the rules say of the object at an absolute, normalised path."""
    ruleset = Ruleset(settings)
    winner = ruleset.decide(path)
    named = list(_naming(ruleset, path))
    # The most specific first, then as it would be chosen among equals.
    named.sort(key=lambda each: (-each[0], each[1].rule.kind is RuleKind.DIR, each[1].order))
    losers = tuple(
        Loser(decision.rule, _why_not(decision, level, winner, named, path))
        for level, decision in named
        if decision is not winner
    )
    return Explanation(
        winner,
        _why(winner, named, path),
        losers,
        tuple(_exceptions(settings, winner, path)),
    )


def is_reached_through(settings: AgentSettings, path: bytes, links: Collection[bytes]) -> bool:
    """Return whether a check comes to an object by this path, on which these directories are links.

    Only a rule that names something behind a link leads through it; what ``dir=`` covers ends there.
    """
    decision, place = Ruleset(settings).root()
    above = b""
    for component in path.split(b"/")[1:]:
        place = place.only_named() if above in links else place
        decision, place = place.child(component)
        above += b"/" + component
    return decision is not None


def rule_text(rule: PathRule) -> str:
    """Return a rule as its line has it."""
    depth = "" if rule.depth is None else str(rule.depth)
    return f"{rule.kind.value}={depth}{escape_bytes(rule.path)}"


def _naming(ruleset: Ruleset, path: bytes) -> Iterator[tuple[int, Decision]]:
    """Yield the decisions that name the path or, as directories, one above; with their level."""
    _, place = ruleset.root()
    components = [component for component in path.split(b"/") if component]
    for level in range(len(components) + 1):
        if level:
            place = place.child(components[level - 1])[1]
        for decision in place.own():
            if level == len(components) or decision.rule.kind is RuleKind.DIR:
                yield level, decision


def _level_of(path: bytes) -> int:
    return sum(1 for component in path.split(b"/") if component)


def _why(winner: Decision | None, named: list[tuple[int, Decision]], path: bytes) -> str:
    if winner is None:
        if not named:
            return "no rule names it or a directory above it"
        level, last = named[0]
        return f"{rule_text(last.rule)} is the most specific, and {_ends(last, level, path)}"
    level = next(level for level, decision in named if decision is winner)
    if level == _level_of(path):
        return "it names this path" if not winner.rule.is_glob else "its wildcards match this path"
    below = _level_of(path) - level
    return f"it is the most specific directory above, {below} level{'s' * (below > 1)} up"


def _why_not(
    loser: Decision,
    level: int,
    winner: Decision | None,
    named: list[tuple[int, Decision]],
    path: bytes,
) -> str:
    if level < _level_of(path) and loser.levels < _level_of(path) - level - 1:
        return _ends(loser, level, path)
    if winner is None:
        return "less specific than the rule that ends here"
    winning = next(found for found, decision in named if decision is winner)
    if level < winning:
        return "less specific"
    if winner.rule.kind is not loser.rule.kind:
        return "decides about what is in the directory; file= decides about the directory itself"
    if loser.rule.is_glob and not winner.rule.is_glob:
        return "has wildcards; a path without any wins"
    return "stands later; among equals the first wins"


def _ends(decision: Decision, level: int, path: bytes) -> str:
    if decision.levels < 0:
        return "does not look inside"
    below = _level_of(path) - level
    return f"its depth of {decision.levels} does not reach {below} levels down"


def _exceptions(settings: AgentSettings, winner: Decision | None, path: bytes) -> Iterator[str]:
    if winner is None:
        return
    for directive, what, patterns in (
        ("IgnoreAdded", "if it is new", settings.ignore_added),
        ("IgnoreMissing", "if it is missing", settings.ignore_missing),
        ("IgnoreModified", "if it changes", settings.ignore_modified),
    ):
        for pattern in patterns:
            if pattern.fullmatch(path):
                yield f"not reported {what}: {directive} = {_pattern_text(pattern)}"
                break
    if winner.hashes:
        for line in settings.skip_checksum:
            if line.may_hold(path):
                yield f"contents not digested where this holds: SkipChecksum = {line}"


def _pattern_text(pattern: PathPattern) -> str:
    written: bytes = getattr(pattern, "pattern", b"")
    # Not escaped like a path: its backslashes mean something.
    return printable(written.decode("utf-8", "backslashreplace"), 1_024)
